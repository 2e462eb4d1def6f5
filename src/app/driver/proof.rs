//! What is proven to be in the destination: looked into after each pass, now and then, and at the
//! end; and recorded, for whoever asks when nothing runs.

use std::time::Duration;

use tokio::time::Instant;

use crate::engine::Exit;
use crate::model::Millis;
use crate::ports::Change;

use super::super::control;
use super::super::status::{self, Live};
use super::{Back, Driver};

/// Between records of what a daemon has proven, where no pass has ended meanwhile.
const RECORD_EVERY: Duration = Duration::from_secs(300);
/// How long the last notes of a run may take to be written.
const LAST_NOTES: Duration = Duration::from_secs(5);

/// How far this run knows everything to be in the destination.
#[derive(Default)]
pub(super) struct Proven {
    pub before: Option<Millis>,
    /// A pass has ended, and what it proves is not recorded.
    pub pass_waits: bool,
    recorded_at: Option<Instant>,
    /// As it was when a stop was asked for.
    pub at_stop: Option<Live>,
}

impl Proven {
    pub fn note(&mut self, before: Option<Millis>, now: Millis) {
        self.before = Millis::credible(self.before, now).max(before);
    }
}

impl Driver {
    /// Looks into what is proven now.
    pub(super) fn prove(&mut self) {
        let live = self.live();
        self.look_into(live);
    }

    /// The same, once for each pass, as soon as it proves something.
    pub(super) fn prove_pass(&mut self) {
        let live = self.live();
        if self.proven.pass_waits && status::proves(&live) {
            self.proven.recorded_at = None;
            self.look_into(live);
        }
    }

    fn look_into(&mut self, live: Live) {
        let (backup, now) = (self.backup.clone(), Instant::now());
        let due = |at: Instant| now.duration_since(at) >= RECORD_EVERY;
        let records = self.proven.recorded_at.is_none_or(due);
        if records {
            (self.proven.recorded_at, self.proven.pass_waits) = (Some(now), false);
        }
        self.tasks.spawn(async move {
            let before = match status::proof(&backup, &live).await {
                Ok(before) => before,
                Err(error) => {
                    tracing::debug!(%error, "looking into what is proven");
                    return Back::Nothing;
                }
            };
            if let (true, Some(before)) = (records, before) {
                // A database that is broken is told of where work needs it.
                backup.record(vec![Change::Proven { before, now: live.at }]).await.ok();
            }
            Back::Proven(before)
        });
    }

    /// Records what ended the run, or what it waited for to its end, for whoever asks when nothing
    /// runs.
    async fn note_end(&mut self) {
        let at_stop = self.proven.at_stop.as_ref().and_then(|live| live.snapshot.waiting.clone());
        let by = match (&self.exit, at_stop) {
            (Some(Exit::NeedsPerson(failure) | Exit::GaveUp(failure)), _) => Some(failure.clone()),
            (_, waiting) => waiting.map(|waiting| waiting.failure),
        };
        if !self.backup.is_dry_run() {
            control::note_end(&*self.backup.state, by.map(|failure| failure.to_string())).await;
        }
    }

    /// The end of a run: what was told of is on record, and so is what is proven.
    pub(super) async fn conclude(&mut self) {
        self.note_end().await;
        let live = match (&self.exit, self.proven.at_stop.take()) {
            (Some(Exit::Done), _) => {
                let notes = async { while self.tasks.join_next().await.is_some() {} };
                if tokio::time::timeout(LAST_NOTES, notes).await.is_err() {
                    return;
                }
                self.live()
            }
            (Some(Exit::Stopped), Some(live)) => live,
            _ => return,
        };
        let live = Live { proven: self.proven.before.max(live.proven), ..live };
        if let Ok(Some(before)) = status::proof(&self.backup, &live).await {
            self.backup.record(vec![Change::Proven { before, now: live.at }]).await.ok();
        }
    }
}
