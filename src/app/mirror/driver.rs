//! A mirror in the daemon: one run at the start, then one every so often, and answers meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::engine::Exit;
use crate::model::Millis;
use crate::plan::{ErrorClass, Failure};

use super::super::CONDITION;
use super::super::control::{self, Command};
use super::super::driver::{Ended, is_paused};
use super::super::pulse::Pulse;
use super::super::status::{self, BackupStatus, Replies, Requests};
use super::{End, Mirror, orders};

/// Before a run that failed is tried again: at first, and at most.
const AGAIN_FIRST: Duration = Duration::from_secs(30);
const AGAIN_MAX: Duration = Duration::from_secs(3_600);
/// Before single objects that failed are tried again.
const FAILED_AGAIN: Duration = Duration::from_secs(900);

/// Drives one mirror until it is told to stop.
pub struct MirrorDriver {
    mirror: Arc<Mirror>,
    every: Duration,
    runs: JoinSet<End>,
    last: Option<Millis>,
    failure: Option<(Failure, Instant)>,
    failures: u32,
    next: Instant,
    /// Runs that have begun.
    begun: u64,
    /// Who waits for the end of a good run, and for which one.
    flushes: Vec<(u64, oneshot::Sender<Result<u64, Failure>>)>,
    /// Another run is wanted as soon as this one has ended.
    hurry: bool,
    stopping: bool,
    paused: bool,
}

impl MirrorDriver {
    pub fn new(mirror: Arc<Mirror>, every_ms: u64) -> Self {
        Self {
            mirror,
            every: Duration::from_millis(every_ms),
            runs: JoinSet::new(),
            last: None,
            failure: None,
            failures: 0,
            next: Instant::now(),
            begun: 0,
            flushes: vec![],
            hurry: false,
            stopping: false,
            paused: false,
        }
    }

    pub async fn run(mut self, mut inbox: mpsc::Receiver<Command>) -> Ended {
        // A pause outlives restarts.
        let row = self.mirror.state.backup().await;
        self.paused = row.is_ok_and(|row| row.paused_at.is_some());
        loop {
            tokio::select! {
                biased;
                command = inbox.recv() => match command {
                    Some(Command::Stop) | None => break,
                    Some(command) => self.answer(command).await,
                },
                Some(ended) = self.runs.join_next() => self.ended(ended),
                () = tokio::time::sleep_until(self.next), if self.may_run() => {
                    let mirror = self.mirror.clone();
                    self.begun += 1;
                    self.hurry = false;
                    self.runs.spawn(async move { mirror.run().await });
                }
            }
        }
        self.stopping = true;
        self.mirror.copier.cancel.cancel();
        while self.runs.join_next().await.is_some() {}
        Ended { exit: Exit::Done, held: self.mirror.held(), failed: vec![], skipped: vec![] }
    }

    fn may_run(&self) -> bool {
        self.runs.is_empty() && !self.paused
    }

    /// What a run came to, and when the next begins.
    fn ended(&mut self, ended: Result<End, tokio::task::JoinError>) {
        let name = &self.mirror.settings.name;
        // What a run that was cut short left is found anew by the next.
        self.mirror.copier.progress.plan(0, 0);
        let failure = match ended {
            Ok(End::Done { .. }) => None,
            Ok(End::Interrupted) => return,
            Ok(End::Failed(failure)) => Some(failure),
            Err(error) => {
                let message = "the run ended unexpectedly: this is a bug";
                Some(Failure::new(ErrorClass::Path, message).because(error.to_string()))
            }
        };
        self.last = Some(self.mirror.clock.now());
        let wait = match failure {
            None => {
                if self.failure.take().is_some() {
                    tracing::info!(target: CONDITION, backup = name, "the mirror goes on");
                }
                self.failures = 0;
                let failed = self.mirror.copier.failed().len();
                let skipped = self.mirror.copier.skipped().len();
                let counts = self.mirror.copier.progress.counts();
                tracing::info!(
                    backup = name,
                    "compared: {} copied, {} tagged so far; {failed} failed, {skipped} skipped, \
                     {} held; again in {}",
                    counts.copied,
                    counts.tagged,
                    self.mirror.held(),
                    crate::model::words::duration(self.every.as_millis() as u64)
                );
                let waiting = std::mem::take(&mut self.flushes).into_iter();
                let (over, waiting): (Vec<_>, _) = waiting.partition(|(run, _)| *run <= self.begun);
                self.flushes = waiting;
                for (_, answer) in over {
                    answer.send(Ok(failed as u64)).ok();
                }
                let again = if failed == 0 { self.every } else { self.every.min(FAILED_AGAIN) };
                if self.hurry { Duration::ZERO } else { again }
            }
            Some(failure) => {
                let is_news = self.failure.as_ref().is_none_or(|(last, _)| *last != failure);
                if is_news {
                    let hint = failure.hint.clone().map(|h| format!(" ({h})")).unwrap_or_default();
                    match failure.class {
                        // It goes on by itself.
                        ErrorClass::Unreachable | ErrorClass::Server | ErrorClass::Throttled => {
                            tracing::warn!(
                                target: CONDITION, backup = name, "waiting: {failure}{hint}"
                            );
                        }
                        _ => tracing::error!(target: CONDITION, backup = name, "{failure}{hint}"),
                    }
                }
                self.mirror.copier.progress.failing.fetch_max(1, Ordering::Relaxed);
                let since = self.failure.take().map_or_else(Instant::now, |(_, since)| since);
                self.failure = Some((failure, since));
                self.failures = self.failures.saturating_add(1);
                let doubled = AGAIN_FIRST * 2_u32.saturating_pow(self.failures.min(8) - 1);
                doubled.min(AGAIN_MAX).min(self.every)
            }
        };
        self.next = Instant::now() + wait;
    }

    async fn answer(&mut self, command: Command) {
        let mirror = self.mirror.clone();
        let (state, clock) = (&*mirror.state, &*mirror.clock);
        // Who asked may have gone away: then nobody wants the answer.
        match command {
            Command::Status(answer) => {
                answer.send(self.status().await).ok();
            }
            Command::Flush(answer) if self.paused => {
                answer.send(Err(is_paused())).ok();
            }
            // A run that has begun may have listed already what is there now.
            Command::Flush(answer) => {
                self.flushes.push((self.begun + 1, answer));
                self.run_soon();
            }
            Command::Approve { answer, .. } => {
                let verdict = orders::approve(state, clock).await;
                if verdict.is_ok() {
                    self.run_soon();
                }
                answer.send(verdict).ok();
            }
            Command::Discard { answer } => {
                answer.send(orders::discard(state, clock).await).ok();
            }
            Command::List { max, answer } => {
                let (name, most) = (&mirror.settings.name, mirror.settings.max_delete);
                answer.send(orders::list(state, clock.now(), name, most, max).await).ok();
            }
            Command::Pause { paused, answer } => {
                let changed = control::pause(state, clock, paused).await;
                if changed.is_ok() && self.paused != paused {
                    self.set_paused(paused);
                }
                answer.send(changed).ok();
            }
            Command::Pulse(answer) => {
                let name = mirror.settings.name.clone();
                let begun = !self.runs.is_empty() || self.last.is_some() || self.failure.is_some();
                let begun = begun || self.paused;
                let status = self.live(BackupStatus { name: name.clone(), ..Default::default() });
                answer.send(Pulse { name, begun, status }).ok();
            }
            #[cfg(feature = "sim")]
            Command::Hang => std::future::pending::<()>().await,
            Command::Stop => {}
        }
    }

    fn run_soon(&mut self) {
        self.next = Instant::now();
        self.hurry = true;
    }

    /// A run that has begun ends where it is. What it has copied is on record, and the next one
    /// begins when the mirror goes on.
    fn set_paused(&mut self, paused: bool) {
        let name = &self.mirror.settings.name;
        self.paused = paused;
        match paused {
            true => {
                tracing::warn!(target: CONDITION, backup = name, "paused: nothing is sent");
                self.mirror.copier.cancel.cancel();
                for (_, answer) in std::mem::take(&mut self.flushes) {
                    answer.send(Err(is_paused())).ok();
                }
            }
            false => {
                tracing::info!(target: CONDITION, backup = name, "goes on after a pause");
                self.mirror.copier.cancel.take_back();
            }
        }
    }

    async fn status(&self) -> BackupStatus {
        let mirror = &self.mirror;
        let now = mirror.clock.now();
        self.live(status::recorded(&*mirror.state, now).await.unwrap_or_default())
    }

    /// What is recorded, and what only a running mirror knows.
    fn live(&self, recorded: BackupStatus) -> BackupStatus {
        let mirror = &self.mirror;
        let progress = &mirror.copier.progress;
        let counts = progress.counts();
        let (source, target) = (mirror.copier.source.requests(), mirror.copier.target.requests());
        let mut requests = Requests::from(source);
        requests.add(&Requests::from(target));
        let ((done, all), (done_bytes, all_bytes)) = (progress.files(), progress.bytes());
        let (of_source, of_target) =
            (mirror.copier.source.replies(), mirror.copier.target.replies());
        let mut replies = Replies::from(of_source);
        replies.add(&of_target.into());
        let busy = !self.runs.is_empty();
        let held = mirror.held();
        let failing = mirror.copier.failed().len() as u64;
        BackupStatus {
            kind: "mirror".to_owned(),
            every_ms: Some(self.every.as_millis() as u64),
            condition: self.condition(held, failing).to_owned(),
            pending_files: if busy { all - done } else { 0 },
            pending_bytes: if busy { all_bytes - done_bytes } else { 0 },
            failing,
            skipped: mirror.copier.skipped().len() as u64,
            held,
            held_reasons: if held > 0 { recorded.held_reasons.clone() } else { vec![] },
            waiting_for: self.failure.as_ref().map(|(failure, _)| failure.to_string()),
            waiting_ms: self.failure.as_ref().map(|(_, at)| at.elapsed().as_millis() as u64),
            last_pass_ms: self.last.map(|at| at.0),
            uploaded: counts.copied,
            uploaded_bytes: counts.copied_bytes,
            deleted: counts.deleted,
            requests,
            replies,
            retries: of_source.retried + of_target.retried,
            current: progress.current(3),
            ..recorded
        }
    }

    fn condition(&self, held: u64, failing: u64) -> &'static str {
        let scanning = self.mirror.copier.progress.scanning.load(Ordering::Relaxed);
        if self.stopping {
            "stopping"
        } else if self.paused {
            "paused"
        } else if self.failure.is_some() {
            "waiting"
        } else if scanning {
            "scanning"
        } else if !self.runs.is_empty() {
            "uploading"
        } else if self.last.is_none() {
            "starting"
        } else if held > 0 {
            "held"
        } else if failing > 0 {
            "failing"
        } else {
            "up-to-date"
        }
    }
}
