//! When deletions are fetched and started: last, and never while the source is being looked at.

use crate::model::Tick;
use crate::plan::{Deletions, Failure, Hold};

use super::backoff::{Backoff, Jitter};
use super::core::Engine;
use super::{DueReport, Effect, Mode, Notice};

/// How often a hold is looked into again: a disk may be mounted, a day may have passed.
const HELD_RECHECK_MS: u64 = 60_000;
/// Attempts at deleting in a one-shot run.
const ATTEMPTS_MAX: u32 = 5;

#[derive(Debug, Default)]
pub struct DeletionState {
    /// When to ask for deletions that are due.
    fetch_at: Option<Tick>,
    /// A look at everything has ended completely since the start.
    looked: bool,
    /// The time that the running fetch was asked for.
    fetching: Option<Tick>,
    deleting: bool,
    hold: Option<Hold>,
    attempts: u32,
    /// A one-shot run does not wait for deletions that are due later, held, or failing.
    given_up: bool,
    /// Why they were given up, where no path was told to have failed.
    failure: Option<Failure>,
}

/// How a batch of deletions failed.
#[derive(Clone, Copy, Debug, Default)]
pub struct FailedBatch {
    /// Single paths are known to have failed, and were told of.
    pub told: bool,
    /// Others of it were deleted.
    pub progress: bool,
    /// None that failed would pass if it was tried again.
    pub is_hopeless: bool,
}

impl DeletionState {
    fn want_fetch(&mut self, at: Tick) {
        self.fetch_at = Some(self.fetch_at.map_or(at, |t| t.min(at)));
    }

    pub fn full_look_ended(&mut self) {
        self.looked = true;
    }

    /// The time that the running fetch was asked for.
    #[cfg(test)]
    pub fn asked(&self) -> Option<Tick> {
        self.fetching
    }

    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    pub fn hold(&self) -> Option<&Hold> {
        self.hold.as_ref()
    }

    /// Nothing is going on, and nothing more will be started by itself.
    pub fn is_settled(&self) -> bool {
        self.fetching.is_none() && !self.deleting && (self.fetch_at.is_none() || self.given_up)
    }

    /// A batch is done; more may be due from then on.
    pub fn batch_done(&mut self, next: Tick) {
        self.deleting = false;
        self.attempts = 0;
        self.want_fetch(next);
    }

    /// Answers with the delay before the next attempt, `None` to give up. Where some of the batch
    /// came about, more of what waits may; where nothing did that can pass by itself, nothing will.
    pub fn batch_failed(
        &mut self,
        mode: Mode,
        failed: FailedBatch,
        jitter: &mut Jitter,
    ) -> Option<u64> {
        self.deleting = false;
        self.attempts = if failed.progress { 1 } else { self.attempts + 1 };
        let is_last = self.attempts >= ATTEMPTS_MAX || (failed.is_hopeless && !failed.progress);
        if is_last && matches!(mode, Mode::OneShot { .. }) {
            self.given_up = true;
            return None;
        }
        Some(Backoff::REQUEST.delay_ms(self.attempts, jitter))
    }
}

impl Engine {
    /// When deletions may be fetched next, if they may: uploads go first, for a while.
    pub(super) fn next_deletion(&self) -> Option<Tick> {
        let state = &self.deletions;
        let at = state.fetch_at?;
        let may = state.looked
            && state.fetching.is_none()
            && !state.deleting
            && !state.given_up
            && self.gate.admits()
            && !self.looks.is_full_running();
        match (may, self.is_uploading(), self.is_one_shot()) {
            (false, ..) | (_, true, true) => None,
            (true, false, _) => Some(at),
            (true, true, false) => Some(at.plus_ms(self.settings.max_wait_ms)),
        }
    }

    pub(super) fn start_deletions(&mut self, now: Tick) {
        if self.next_deletion().is_some_and(|at| at <= now) {
            self.deletions.fetching = self.deletions.fetch_at.take();
            self.effects.push(Effect::FetchDue);
        }
    }

    fn is_uploading(&self) -> bool {
        let waits = self.schedule.ready_len() > 0 && self.full.is_none();
        waits || self.schedule.uploads_in_flight()
    }

    /// Deletions could not be carried out.
    pub(super) fn deletions_failed(&mut self, failure: &Failure, failed: FailedBatch, now: Tick) {
        let told = failed.told;
        let was_open = self.gate.is_open();
        self.gate.failed(None, failure, true, now, &mut self.jitter);
        if was_open && !self.gate.is_open() {
            self.notice(Notice::Waiting(failure.clone()));
        } else if self.deletions.attempts == 0 && !told {
            self.notice(Notice::DeletionsFailed(failure.clone()));
        }
        match self.deletions.batch_failed(self.settings.mode, failed, &mut self.jitter) {
            Some(ms) => self.want_deletions(now.plus_ms(ms)),
            None if told => {}
            None => self.deletions.failure = Some(failure.clone()),
        }
    }

    /// Asks for deletions that are due, unless the policy keeps everything.
    pub(super) fn want_deletions(&mut self, at: Tick) {
        if self.settings.deletions != Deletions::Keep {
            self.deletions.want_fetch(at);
        }
    }

    pub(super) fn due(&mut self, report: DueReport, now: Tick) {
        let asked = self.deletions.fetching.take().unwrap_or(now);
        self.note_hold(report.hold);
        if let Some(failure) = report.failure {
            return self.deletions_failed(&failure, FailedBatch::default(), now);
        }
        if let Some(ms) = report.next_due_in_ms {
            if self.is_one_shot() && ms > 0 {
                self.deletions.given_up = true;
            } else {
                self.want_deletions(now.plus_ms(ms));
            }
        }
        if self.deletions.hold.is_some() {
            if self.is_one_shot() {
                self.deletions.given_up = true;
            } else {
                self.want_deletions(now.plus_ms(HELD_RECHECK_MS));
            }
        }
        if self.draining || report.items.is_empty() {
            return;
        }
        let overdue = now.since(asked) >= self.settings.max_wait_ms;
        if self.is_uploading() && (!overdue || self.is_one_shot()) {
            // Uploads have begun meanwhile. Asked again when they are done, with fresh facts.
            return self.want_deletions(asked);
        }
        match self.schedule.admit_delete(report.items, now) {
            Some((op, work)) => {
                self.deletions.deleting = true;
                self.effects.push(Effect::Start { op, work });
            }
            // Their keys are about to be written: once that is done they are back, or due again.
            None => self.want_deletions(now.plus_ms(1_000)),
        }
    }

    fn note_hold(&mut self, hold: Option<Hold>) {
        let reasons = |h: &Option<Hold>| h.as_ref().map(|h| h.reasons.clone());
        if reasons(&hold) != reasons(&self.deletions.hold) {
            match &hold {
                Some(hold) => self.notice(Notice::Held(hold.clone())),
                None => self.notice(Notice::Released),
            }
        }
        self.deletions.hold = hold;
    }
}
