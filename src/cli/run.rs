//! What every command that works for a while has in common: who looks on meanwhile, the wish to
//! stop, and the end.

use std::fmt::Display;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use indicatif::MultiProgress;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::app::Progress;
use crate::app::publish::Followed;
use crate::app::status::Summary;
use crate::report::log;
use crate::report::progress::{Show, When, Work};
use crate::service::signals::{self, Wish};

use super::args::Global;
use super::error::{CliError, Code};
use super::out::print_line;
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
pub trait Sum: Serialize {
    fn common(&mut self) -> &mut Summary;
    fn text(&self, dry_run: bool) -> String;
    /// Names what failed.
    fn list_failed(&self);
}

/// Takes down how a command ended.
pub fn conclude(summary: &mut Summary, code: Code, error: Option<&CliError>, started: Instant) {
    summary.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    summary.result = code.word().to_owned();
    summary.error = error.map(CliError::line);
}

/// The code that these numbers ask for.
pub fn code_of(summary: &Summary) -> Code {
    let mut code = Code::Done;
    for (holds, other) in [
        (summary.failed > 0, Code::Failed),
        (summary.held > 0, Code::Held),
        (summary.skipped > 0, Code::Skipped),
    ] {
        if holds {
            code = code.and(other);
        }
    }
    code
}

/// Names up to `most` of what failed.
pub fn list_failed(named: &[(impl Display, String)], most: usize) {
    let mut stderr = std::io::stderr();
    for (name, why) in named.iter().take(most) {
        writeln!(stderr, "failed: {name}: {why}").ok();
    }
}

/// Says how many failed beside those that were named.
pub fn list_more(all: u64, most: usize) {
    let more = all.saturating_sub(most as u64);
    if more > 0 {
        writeln!(std::io::stderr(), "and {more} more").ok();
    }
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
    conclude(sum.common(), code, error.as_ref(), started);
    if !global.quiet {
        sum.list_failed();
    }
    // Where nothing was begun, the error says it all.
    let begun = sum.common().scanned > 0 || error.is_none();
    if global.json {
        print_line(&serde_json::to_string(&sum).unwrap_or_default());
    } else if !global.quiet && begun {
        print_line(&sum.text(global.dry_run));
    }
    audience.leave(code).await;
    match error {
        Some(error) => Err(CliError { code, ..error }),
        None => Ok(code),
    }
}
