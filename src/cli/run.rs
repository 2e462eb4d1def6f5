//! What every command that works for a while has in common: who looks on meanwhile, the wish to
//! stop, and the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::MultiProgress;
use tokio::sync::mpsc;

use crate::app::Progress;
use crate::app::publish::Followed;
use crate::report::log;
use crate::report::progress::{Show, When, Work};
use crate::service::signals::{self, Wish};

use super::args::Global;
use super::error::{CliError, Code};
use super::published::Published;

/// Who looks on: a person at a terminal, and a service that keeps numbers.
pub struct Audience {
    pub bars: MultiProgress,
    when: When,
    pub published: Published,
}

impl Audience {
    /// Begins the log, too. `files`: whether single files are worth a line.
    pub fn new(global: &Global, files: bool) -> Self {
        let bars = MultiProgress::new();
        log::init(global.log(files), &bars);
        let when = if global.quiet { When::Never } else { global.progress };
        Self { bars, when, published: Published::default() }
    }

    /// Shows a run while it lasts.
    pub fn follow(&self, name: &str, progress: &Arc<Progress>, work: Work) -> Following {
        let show = Show::start(name, progress.clone(), work, self.when, &self.bars);
        let followed = self.published.followed.clone();
        followed.add(progress);
        Following { show, progress: progress.clone(), followed }
    }

    /// Tells the service that it is over, and how.
    pub async fn leave(&mut self, code: Code) {
        let came_to_nothing = match code {
            Code::Done | Code::Skipped | Code::Held | Code::Interrupted => false,
            Code::Failed | Code::Usage | Code::NeedsPerson | Code::Unreachable | Code::Stale => {
                true
            }
        };
        self.published.end(came_to_nothing).await;
    }
}

/// A run that is looked at.
pub struct Following {
    show: Show,
    progress: Arc<Progress>,
    followed: Followed,
}

impl Following {
    /// It has ended.
    pub fn finish(self) {
        self.show.finish();
        self.followed.settle(&self.progress);
    }
}

/// Signals for a command that runs once.
pub fn listen() -> Result<mpsc::Receiver<Wish>, CliError> {
    signals::listen(i32::from(Code::Interrupted.number()))
        .map_err(|e| CliError::new(Code::NeedsPerson, "cannot listen for signals").caused_by(&e))
}

/// Waits for the end of a run; whoever wishes it to stop is heard meanwhile.
pub async fn until_end<T>(
    running: impl Future<Output = T>,
    wishes: &mut mpsc::Receiver<Wish>,
    stop: impl Fn(),
) -> T {
    let mut running = std::pin::pin!(running);
    loop {
        tokio::select! {
            end = &mut running => return end,
            Some(wish) = wishes.recv() => {
                if wish == Wish::Stop {
                    stop();
                }
            }
        }
    }
}

/// The numbers that a command ends with.
pub trait Sum {
    /// Takes down how it ended.
    fn end(&mut self, code: Code, error: Option<&CliError>, elapsed: Duration);
    fn print(&self, global: &Global, error: Option<&CliError>);
}

/// Prints the numbers, lets the audience go, and says how the program ends.
pub async fn end(
    global: &Global,
    mut audience: Audience,
    mut sum: impl Sum,
    result: Result<(Code, Option<CliError>), CliError>,
    started: Instant,
) -> Result<Code, CliError> {
    let (code, error) = match result {
        Ok((code, error)) => (code, error),
        Err(error) => (error.code, Some(error)),
    };
    sum.end(code, error.as_ref(), started.elapsed());
    sum.print(global, error.as_ref());
    audience.leave(code).await;
    match error {
        Some(error) => Err(CliError { code, ..error }),
        None => Ok(code),
    }
}
