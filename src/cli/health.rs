//! What the service manager hears of a running daemon: that it is ready, how it is, and that it
//! lives.
//!
//! The watchdog is fed only after everything that does the work has been asked and has answered:
//! each driver, through its inbox; the state thread, in its turn; and the threads that read files,
//! by a task of ours. Nothing here decides that one hangs: what does not answer is waited for, the
//! watchdog stays hungry meanwhile, and the service manager ends what it did not hear of in time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};

use crate::app::control::Command;
use crate::app::pulse::Pulse;
use crate::report::headline::{self, Told};
use crate::service::notify::ServiceManager;
use crate::state::State;

use super::doors::{Doors, Way};

/// Between looks until all have begun, and from then on.
const STARTING: Duration = Duration::from_millis(100);
const RUNNING: Duration = Duration::from_secs(5);
/// A start may wait for the state: so often is more time asked for, and so much.
pub const ASK_EVERY: Duration = Duration::from_secs(10);
pub const MORE_TIME: Duration = Duration::from_secs(120);
/// A line of which only the numbers have changed is not told more often.
const NUMBERS: Duration = Duration::from_secs(30);

/// Whom to tell, and whom to ask.
pub struct Health {
    pub manager: Arc<ServiceManager>,
    pub doors: Doors,
    pub state: State,
}

impl Health {
    /// Tells for as long as it is let.
    pub async fn tell(self) {
        if !self.manager.listens() {
            return;
        }
        let (mut line, mut ready) = (Line::default(), false);
        let (mut fed, mut asked) = (Instant::now(), None::<Instant>);
        loop {
            let told = self.all().await;
            if !ready && told.all_begun() {
                ready = true;
                self.manager.ready();
            }
            if let Some(news) = line.news(headline::of(&told)) {
                self.manager.status(news);
            }
            if !ready && asked.is_none_or(|at| at.elapsed() >= ASK_EVERY) {
                self.everything_moves(MORE_TIME).await;
                self.manager.more_time(MORE_TIME);
                asked = Some(Instant::now());
            }
            let mut pause = if ready { RUNNING } else { STARTING };
            if let Some(within) = self.manager.watchdog().filter(|_| ready) {
                pause = pause.min(within / 4);
                if fed.elapsed() + pause >= within / 2 {
                    self.everything_moves(within).await;
                    self.manager.alive();
                    fed = Instant::now();
                }
            }
            #[cfg(feature = "sim")]
            self.hang_if_asked().await;
            tokio::time::sleep(pause).await;
        }
    }

    /// What the drivers say, and what there is to say of what has none. A driver that ends
    /// meanwhile has nothing to say.
    async fn all(&self) -> Told {
        let refused = self.doors.refused().is_some();
        let unserved = self.doors.unserved();
        let (mut open, mut told) = (vec![], Told { refused, unserved, ..Told::default() });
        for (name, way) in self.doors.ways() {
            match way {
                Way::Open(door) => open.push((name, door)),
                Way::Opening(start) => told.opening.push((name, start.late())),
                Way::Shut(error) if error.may_pass => told.waiting.push((name, error.line())),
                Way::Shut(_) => told.not_started.push(name),
            }
        }
        let patience = self.manager.watchdog().unwrap_or(Duration::MAX) / 2;
        let asked = open.iter().map(|(name, door)| async move {
            patiently(patience, &format!("the backup {name}"), pulse(door)).await
        });
        told.pulses = join_all(asked).await.into_iter().flatten().collect();
        told
    }

    /// Returns when all that works for every backup has moved.
    async fn everything_moves(&self, within: Duration) {
        let patience = within / 2;
        patiently(patience, "the thread of the state database", self.state.ping()).await.ok();
        patiently(patience, "the threads that read files", readers_move()).await;
    }
}

async fn pulse(door: &mpsc::Sender<Command>) -> Option<Pulse> {
    let (answer, answered) = oneshot::channel();
    door.send(Command::Pulse(answer)).await.ok()?;
    answered.await.ok()
}

/// Returns when a task of ours has come through the threads that read files. A folder that hangs
/// has its own share of them, and is the trouble of its own backup.
async fn readers_move() {
    tokio::task::spawn_blocking(|| {}).await.ok();
}

/// Waits for as long as it takes, and says once when that is too long.
async fn patiently<T>(patience: Duration, what: &str, answer: impl Future<Output = T>) -> T {
    tokio::pin!(answer);
    if let Ok(answer) = tokio::time::timeout(patience, &mut answer).await {
        return answer;
    }
    tracing::error!(
        "no sign of life from {what} for {} s: the service manager is not told that all is well, \
         and will start keepwatch anew",
        patience.as_secs()
    );
    answer.await
}

/// The line that was told last.
#[derive(Default)]
struct Line {
    told: String,
    at: Option<Instant>,
}

impl Line {
    /// The line, if it is worth telling now.
    fn news(&mut self, line: String) -> Option<&str> {
        let words = |text: &str| text.replace(|c: char| c.is_ascii_digit() || c == '.', "");
        let is_soon = self.at.is_some_and(|at| at.elapsed() < NUMBERS);
        if line == self.told || (is_soon && words(&line) == words(&self.told)) {
            return None;
        }
        (self.told, self.at) = (line, Some(Instant::now()));
        Some(&self.told)
    }
}

#[cfg(feature = "sim")]
impl Health {
    /// A fault for tests: what the file says that `KEEPWATCH_HANG` names does nothing any more.
    async fn hang_if_asked(&self) {
        let Some(path) = std::env::var_os("KEEPWATCH_HANG") else { return };
        match std::fs::read_to_string(path).unwrap_or_default().trim() {
            "state" => self.state.hang(),
            "readers" => {
                // As many as the runtime has, and more.
                (0..1_100).for_each(|_| {
                    tokio::task::spawn_blocking(|| {
                        loop {
                            std::thread::park();
                        }
                    });
                });
            }
            "driver" => {
                for (_, way) in self.doors.ways() {
                    if let Way::Open(door) = way {
                        door.send(Command::Hang).await.ok();
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_alone_are_no_news() {
        let mut line = Line::default();
        let mut news = |text: &str| line.news(text.to_owned()).map(str::to_owned);
        assert_eq!(
            news("uploading 12 files (3.4 MB)").as_deref(),
            Some("uploading 12 files (3.4 MB)")
        );
        assert_eq!(news("uploading 11 files (3.1 MB)"), None);
        assert_eq!(news("up to date").as_deref(), Some("up to date"));
        assert_eq!(news("up to date"), None);
    }
}
