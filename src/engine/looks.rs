//! Looks: when paths and when everything is looked at, and what their ends mean.
//!
//! One small look and one look at everything may run at the same time. While the latter runs, keys
//! that other operations touch are remembered: what the big look says about them may be older than
//! what was done, so they are looked at again instead.

use std::collections::BTreeSet;

use crate::model::{Key, RelPath, Tick};
use crate::plan::{ErrorClass, Failure, Hint, Job, Scope};

use super::backoff::Backoff;
use super::core::Engine;
use super::schedule::Queued;
use super::{Effect, Exit, LookId, LookReport, LookResult, Mode, Notice, Sight};

/// Paths in one small look.
const LOOK_PATHS_MAX: usize = 256;
/// How often everything is looked at when the watcher does not see it all.
const RESCAN_BLIND_MS: u64 = 60_000;
/// How long to wait before a failed look at everything is tried again.
const LOOK_RETRY_MS: u64 = 10_000;
/// Looks that may fail in a row before a one-shot run gives up.
const FAILURES_MAX: u32 = 5;

#[derive(Debug)]
struct Running {
    id: LookId,
    started: Tick,
    /// The first hint of the paths being looked at.
    since: Tick,
}

#[derive(Debug, Default)]
pub struct LookState {
    next_id: u64,
    small: Option<Running>,
    full: Option<Running>,
    /// When a look at everything is to start.
    full_at: Option<Tick>,
    /// A look at everything was asked for while one ran.
    full_again: bool,
    /// Keys touched by others than the look at everything that runs.
    touched: BTreeSet<Key>,
    overflows: u32,
    failures: u32,
    last_full: Option<Tick>,
    /// Since when changes may be known to nobody: hints were lost, or there were too many.
    lost: Option<Tick>,
    source_missing: bool,
    exit: Option<Exit>,
}

impl LookState {
    /// Asks for a look at everything, now at the latest.
    pub fn want_full(&mut self, at: Tick) {
        if self.full.is_some() {
            self.full_again = true;
        }
        self.full_at = Some(self.full_at.map_or(at, |t| t.min(at)));
    }

    pub fn is_looking(&self) -> bool {
        self.small.is_some() || self.full.is_some()
    }

    pub fn is_full_running(&self) -> bool {
        self.full.is_some()
    }

    pub fn wants_full(&self) -> bool {
        self.full_again
    }

    pub fn looked_once(&self) -> bool {
        self.last_full.is_some()
    }

    pub fn last_full(&self) -> Option<Tick> {
        self.last_full
    }

    pub fn oldest(&self) -> Option<Tick> {
        self.small.iter().map(|r| r.since).chain(self.lost).min()
    }

    /// Changes since then may be known to nobody until everything has been looked at.
    fn lose(&mut self, since: Tick) {
        self.lost = Some(self.lost.map_or(since, |lost| lost.min(since)));
    }

    /// How old a change may be that only a look at everything finds.
    fn unseen_since(&self, now: Tick) -> Tick {
        self.lost.or(self.last_full).map_or(now, |since| since.min(now))
    }

    /// Why a one-shot run cannot go on.
    pub fn exit(&self) -> Option<&Exit> {
        self.exit.as_ref()
    }

    /// Something was done to this key, on behalf of that look. What the look at everything plans
    /// itself lies behind it in key order, and need not be remembered.
    pub fn touch(&mut self, key: &Key, origin: Option<LookId>) {
        if self.full.as_ref().is_some_and(|full| Some(full.id) != origin) {
            self.touched.insert(key.clone());
        }
    }

    fn start(&mut self, started: Tick, since: Tick) -> Running {
        self.next_id += 1;
        Running { id: LookId(self.next_id), started, since }
    }
}

impl Engine {
    pub(super) fn hinted(&mut self, hints: Vec<Hint>, now: Tick) {
        for hint in hints {
            self.hint_path(hint.path, hint.deep, now);
        }
        self.bound_dirty(now);
    }

    /// Looks at these at once: nobody knows how long ago they changed.
    pub(super) fn unheard(&mut self, paths: &[RelPath], since: Tick, now: Tick) {
        for path in paths {
            self.dirty.look_after(path.clone(), now, 0);
            self.dirty.backdate(path, since);
        }
        self.bound_dirty(now);
    }

    fn bound_dirty(&mut self, now: Tick) {
        if self.dirty.len() > self.settings.dirty_max {
            self.looks.lose(self.dirty.oldest().unwrap_or(now));
            self.dirty.clear();
            self.looks.want_full(now.plus_ms(self.settings.settle_ms));
            self.flushes_begin_anew(now);
        }
    }

    /// How much the watcher sees has changed: what it does not see is looked at more often.
    pub(super) fn sighted(&mut self, sight: Sight, now: Tick) {
        self.sight = sight;
        if sight != Sight::Full && !self.is_one_shot() {
            self.looks.want_full(now.plus_ms(RESCAN_BLIND_MS));
        }
    }

    /// Events were lost: everything is looked at, at once at first, at growing distances while
    /// overflows go on.
    pub(super) fn overflowed(&mut self, now: Tick) {
        self.looks.overflows += 1;
        self.looks.lose(now);
        let at = match (self.looks.overflows, self.looks.last_full) {
            (1, _) | (_, None) => now,
            (n, Some(last)) => {
                last.plus_ms(Backoff::OVERFLOW.delay_ms(n - 1, &mut self.jitter)).max(now)
            }
        };
        self.looks.want_full(at);
        self.notice(Notice::Overflow);
    }

    /// Whether it is there again, somewhere else, or nowhere, a look tells.
    pub(super) fn source_gone(&mut self, now: Tick) {
        self.looks.lose(now);
        self.looks.want_full(now);
        self.notice(Notice::SourceGone);
    }

    fn may_look(&self) -> bool {
        !self.paused && self.gate.admits() && self.wants_jobs() && self.looks.exit.is_none()
    }

    /// Where the source is missing, a small look would only find that everything is unknown.
    pub(super) fn may_look_small(&self) -> bool {
        self.may_look() && self.looks.small.is_none() && !self.looks.source_missing
    }

    fn may_look_full(&self) -> bool {
        self.may_look() && self.looks.full.is_none()
    }

    /// When the next look is to start, if it may.
    pub(super) fn next_look(&self) -> Option<Tick> {
        let small = self.dirty.next_due().filter(|_| self.may_look_small());
        let full = self.looks.full_at.filter(|_| self.may_look_full());
        [small, full].into_iter().flatten().min()
    }

    pub(super) fn start_looks(&mut self, now: Tick) {
        if self.may_look_full() && self.looks.full_at.is_some_and(|at| at <= now) {
            self.looks.full_at = None;
            self.looks.full_again = false;
            self.looks.touched.clear();
            let running = self.looks.start(now, now);
            let eager = self.is_one_shot() || !self.flushes.is_empty();
            let scopes = vec![Scope::All];
            self.effects.push(Effect::Look { look: running.id, scopes, eager });
            self.looks.full = Some(running);
        }
        if self.may_look_small() {
            let (scopes, since) = self.dirty.take_due(now, LOOK_PATHS_MAX);
            if let Some(since) = since {
                let running = self.looks.start(now, since);
                self.effects.push(Effect::Look { look: running.id, scopes, eager: true });
                self.looks.small = Some(running);
            }
        }
    }

    pub(super) fn planned(&mut self, look: LookId, jobs: Vec<Job>, now: Tick) {
        let full = self.looks.full.as_ref().is_some_and(|r| r.id == look);
        let since = match (&self.looks.small, full) {
            (Some(small), false) => small.since,
            (_, true) => self.looks.unseen_since(now),
            (None, false) => now,
        };
        if self.draining {
            return;
        }
        if self.full.is_some() {
            return;
        }
        for job in jobs {
            // Older than what was done meanwhile, or about to be looked at anyway.
            if full && (self.looks.touched.contains(&job.key) || self.dirty.contains(&job.path)) {
                self.hint_path(job.path, false, now);
                continue;
            }
            self.looks.touch(&job.key, Some(look));
            self.schedule.push(Queued { job, since, origin: look });
        }
    }

    pub(super) fn look_ended(&mut self, look: LookId, report: LookReport, now: Tick) {
        let full = self.looks.full.take_if(|r| r.id == look);
        let small = self.looks.small.take_if(|r| r.id == look);
        let young: Vec<Hint> =
            report.young.into_iter().map(|path| Hint { path, deep: false }).collect();
        self.hinted(young, now);
        // A one-shot run does not wait for deletions that become due later.
        if let Some(ms) = report.deletion_due_in_ms.filter(|ms| *ms == 0 || !self.is_one_shot()) {
            self.want_deletions(now.plus_ms(ms));
        }
        match (report.result, full, small) {
            (LookResult::Complete, Some(full), _) => self.full_look_complete(&full, now),
            (LookResult::Complete, None, _) => {}
            (LookResult::SourceMissing(failure), _, _) => self.source_missing(failure, now),
            (LookResult::Failed(failure), _, _) => self.look_failed(failure, now),
        }
    }

    fn full_look_complete(&mut self, full: &Running, now: Tick) {
        self.looks.source_missing = false;
        self.looks.failures = 0;
        self.looks.last_full = Some(full.started);
        self.looks.touched.clear();
        if !self.looks.full_again {
            self.looks.overflows = 0;
            self.looks.lost = None;
        }
        self.flushes_looked(full.started, now);
        self.deletions.full_look_ended();
        let took_ms = now.since(full.started);
        let rescan_ms = match self.sight {
            Sight::Full => self.settings.rescan_ms,
            // Never spend more than a twentieth of the time on looking.
            Sight::Partial | Sight::Blind => {
                self.settings.rescan_ms.min(RESCAN_BLIND_MS.max(took_ms.saturating_mul(20)))
            }
        };
        if !self.is_one_shot() {
            let at = now.plus_ms(self.jitter.around(rescan_ms, 25));
            self.looks.full_at = Some(self.looks.full_at.map_or(at, |t| t.min(at)));
        }
    }

    fn source_missing(&mut self, failure: Failure, now: Tick) {
        self.flushes_begin_anew(now);
        if self.is_one_shot() {
            self.looks.exit = Some(Exit::NeedsPerson(failure));
            return;
        }
        if !self.looks.source_missing {
            self.looks.source_missing = true;
            self.notice(Notice::SourceMissing(failure));
        }
        self.looks.want_full(now.plus_ms(self.jitter.around(LOOK_RETRY_MS, 25)));
    }

    fn look_failed(&mut self, failure: Failure, now: Tick) {
        self.flushes_begin_anew(now);
        self.looks.failures += 1;
        if self.is_one_shot() && self.looks.failures >= FAILURES_MAX {
            self.looks.exit = Some(Exit::GaveUp(failure));
            return;
        }
        self.looks.want_full(now.plus_ms(self.jitter.around(LOOK_RETRY_MS, 25)));
        if failure.class == ErrorClass::Path {
            // Nothing outside will mend it: a walk out of order, a broken record.
            match self.is_one_shot() {
                true => self.looks.exit = Some(Exit::NeedsPerson(failure)),
                false => self.notice(Notice::LookFailed(failure)),
            }
            return;
        }
        let was_open = self.gate.is_open();
        self.gate.failed(None, &failure, true, now, &mut self.jitter);
        match (was_open, self.gate.is_open()) {
            (true, false) => self.notice(Notice::Waiting(failure)),
            (true, true) => self.notice(Notice::LookFailed(failure)),
            (false, _) => {}
        }
    }

    pub(super) fn is_one_shot(&self) -> bool {
        matches!(self.settings.mode, Mode::OneShot { .. })
    }

    /// A path that the engine itself wants to look at again.
    pub(super) fn look_again(&mut self, path: RelPath, since: Tick, now: Tick) {
        if self.is_one_shot() {
            self.dirty.look_after(path.clone(), now, 0);
        } else {
            self.hint_path(path.clone(), false, now);
        }
        self.dirty.backdate(&path, since);
    }
}
