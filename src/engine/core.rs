//! The engine's state and its one entry, [`Engine::handle`].

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Key, RelPath, Tick};
use crate::plan::{ErrorClass, Failure, Hold};

use super::backoff::Jitter;
use super::deletions::DeletionState;
use super::dirty::DirtySet;
use super::gate::{Gate, Waiting};
use super::looks::LookState;
use super::schedule::{Queued, Schedule};
use super::{Effect, Event, Exit, FlushId, Mode, Notice, OpId, Settings, Sight, Work};

/// Controls one backup. See the module's documentation for what always holds.
#[derive(Debug)]
pub struct Engine {
    pub(super) settings: Settings,
    pub(super) jitter: Jitter,
    pub(super) dirty: DirtySet,
    pub(super) schedule: Schedule,
    pub(super) gate: Gate,
    pub(super) looks: LookState,
    pub(super) deletions: DeletionState,
    /// Attempts at keys that failed, and at files that were torn, since they last succeeded.
    pub(super) attempts: BTreeMap<Key, u32>,
    pub(super) torn: BTreeMap<Key, u32>,
    /// The jobs in flight, for a next attempt.
    pub(super) flying: BTreeMap<OpId, Queued>,
    /// Keys that were given up for this run (one-shot) or fail again and again (daemon).
    pub(super) failed: BTreeSet<Key>,
    /// The destination takes no more data, as a one-shot run was told: nothing more is written,
    /// and what may be deleted is, for that makes room.
    pub(super) full: Option<Failure>,
    pub(super) sight: Sight,
    pub(super) flushes: Vec<Flush>,
    pub(super) paused: bool,
    pub(super) draining: bool,
    pub(super) exited: bool,
    pub(super) effects: Vec<Effect>,
}

/// A person waits until all that existed when they asked is in the destination.
#[derive(Debug)]
pub(super) struct Flush {
    pub id: FlushId,
    pub asked: Tick,
    /// When a look at everything that started after the request has ended.
    pub looked: Option<Tick>,
}

/// What the engine knows, for status and progress.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Jobs not done yet, and their bytes.
    pub pending: usize,
    pub pending_bytes: u64,
    pub in_flight: usize,
    pub dirty: usize,
    pub failing: usize,
    pub looking: bool,
    pub paused: bool,
    /// A look at everything has ended completely since the start.
    pub looked_once: bool,
    pub waiting: Option<Waiting>,
    pub hold: Option<Hold>,
    /// Since when the oldest known change has been waiting.
    pub oldest: Option<Tick>,
    /// When the last complete look at everything began.
    pub last_full: Option<Tick>,
}

impl Engine {
    pub fn new(settings: Settings) -> Self {
        Self {
            jitter: Jitter::new(settings.seed),
            dirty: DirtySet::default(),
            schedule: Schedule::new(settings.ops_max, settings.bytes_max, settings.large_bytes),
            gate: Gate::default(),
            looks: LookState::default(),
            deletions: DeletionState::default(),
            attempts: BTreeMap::new(),
            torn: BTreeMap::new(),
            flying: BTreeMap::new(),
            failed: BTreeSet::new(),
            full: None,
            sight: Sight::Full,
            flushes: vec![],
            paused: false,
            draining: false,
            exited: false,
            effects: vec![],
            settings,
        }
    }

    /// Takes one event and answers with what to do now. The caller carries the effects out and
    /// calls again with [`Event::Wake`] at [`Self::next_wake`] at the latest.
    pub fn handle(&mut self, event: Event, now: Tick) -> Vec<Effect> {
        match event {
            Event::Start => self.looks.want_full(now),
            Event::Hints(hints) => self.hinted(hints, now),
            Event::Unheard { paths, since } => self.unheard(&paths, since, now),
            Event::Overflow => self.overflowed(now),
            Event::SourceGone => self.source_gone(now),
            Event::Sight(sight) => self.sighted(sight, now),
            Event::Planned { look, jobs } => self.planned(look, jobs, now),
            Event::LookEnded { look, report } => self.look_ended(look, report, now),
            Event::Finished { op, outcome } => self.finished(op, outcome, now),
            Event::Due(report) => self.due(report, now),
            Event::Probed(result) => self.probed(&result, now),
            Event::Flush(id) => {
                self.dirty.hurry_all(now);
                self.looks.want_full(now);
                self.flushes.push(Flush { id, asked: now, looked: None });
            }
            Event::Rescan => self.looks.want_full(now),
            Event::Pause => self.paused = true,
            Event::Resume => self.paused = false,
            Event::Approved => self.want_deletions(now),
            Event::Shutdown => self.drain(),
            Event::Wake => {}
        }
        self.pump(now);
        std::mem::take(&mut self.effects)
    }

    /// Whether a look may hand in more jobs.
    pub fn wants_jobs(&self) -> bool {
        self.full.is_some() || self.schedule.ready_len() < self.settings.ready_max
    }

    /// When to call again at the latest. Never a time at which nothing could be done.
    pub fn next_wake(&self) -> Option<Tick> {
        if self.exited || self.draining || self.paused {
            return None;
        }
        let give_up = match (self.settings.mode, self.gate.waiting()) {
            (Mode::OneShot { retry_for_ms }, Some(w)) => Some(w.since.plus_ms(retry_for_ms)),
            _ => None,
        };
        [
            self.next_look(),
            self.schedule.next_due(),
            self.gate.next_probe(),
            self.next_deletion(),
            give_up,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn drain(&mut self) {
        self.draining = true;
        self.schedule.drop_waiting();
        self.dirty.clear();
    }

    /// Starts whatever may start now.
    fn pump(&mut self, now: Tick) {
        if self.exited {
            return self.effects.clear();
        }
        self.schedule.promote(now);
        if !self.draining && !self.paused {
            self.start_probe(now);
            self.start_jobs(now);
            self.finish_flushes(now);
            self.start_looks(now);
            self.start_deletions(now);
        }
        self.maybe_exit(now);
    }

    fn start_probe(&mut self, now: Tick) {
        if self.gate.wants_probe(now) {
            self.gate.probe_started();
            self.effects.push(Effect::Probe);
        }
    }

    fn start_jobs(&mut self, now: Tick) {
        while self.gate.admits() && self.full.is_none() {
            let Some((op, queued)) = self.schedule.admit(now) else { break };
            let job = Box::new(queued.job.clone());
            self.flying.insert(op, queued);
            self.effects.push(Effect::Start { op, work: Work::Sync(job) });
        }
    }

    /// Ends the flushes that wait for nothing any more. What they wait for need not settle.
    fn finish_flushes(&mut self, now: Tick) {
        if self.flushes.is_empty() || !self.schedule_is_quiet() || self.looks.is_looking() {
            return;
        }
        for flush in std::mem::take(&mut self.flushes) {
            let owed = |looked| self.dirty.since(looked).cloned().collect::<Vec<_>>();
            let owed = flush.looked.map(owed);
            let changing = owed.iter().flatten().filter(|path| self.is_changing(path)).count();
            if owed.as_ref().is_some_and(|owed| owed.len() == changing) {
                let failed_paths = (self.failed.len() + changing) as u64;
                self.effects.push(Effect::Flushed { flush: flush.id, failed_paths });
                continue;
            }
            // Files that are torn have delays of their own.
            for path in owed.iter().flatten() {
                if !self.is_torn(path) {
                    self.dirty.hurry(path, now);
                }
            }
            self.flushes.push(flush);
        }
    }

    /// Paths that flushes wait for were forgotten: the next look at everything finds them again.
    pub(super) fn flushes_begin_anew(&mut self, now: Tick) {
        for flush in &mut self.flushes {
            (flush.asked, flush.looked) = (now, None);
        }
    }

    /// A look at everything has ended. What it put off, and all else that was hinted by now, is
    /// what flushes that were asked for before it still wait for.
    pub(super) fn flushes_looked(&mut self, started: Tick, now: Tick) {
        for flush in self.flushes.iter_mut().filter(|flush| flush.asked <= started) {
            flush.looked.get_or_insert(now);
        }
    }

    /// Nothing is ready or in flight, and what waits for another attempt is known to fail.
    pub(super) fn schedule_is_quiet(&self) -> bool {
        self.schedule.ready_len() == 0
            && self.schedule.in_flight() == 0
            && self.schedule.delayed_len() <= self.failed.len()
    }

    fn maybe_exit(&mut self, now: Tick) {
        if let Some(exit) = self.exit_reason(now) {
            self.exited = true;
            self.effects.push(Effect::Exit(exit));
        }
    }

    fn exit_reason(&self, now: Tick) -> Option<Exit> {
        if self.draining {
            // A look sends nothing, so it need not end: the driver drops it.
            return (self.schedule.in_flight() == 0).then_some(Exit::Stopped);
        }
        let Mode::OneShot { retry_for_ms } = self.settings.mode else {
            return None;
        };
        if let Some(exit) = self.looks.exit() {
            return Some(exit.clone());
        }
        if let Some(waiting) = self.gate.waiting() {
            let failure = waiting.failure.clone();
            return match mends_itself(failure.class) {
                true => (now.since(waiting.since) >= retry_for_ms).then_some(Exit::GaveUp(failure)),
                false => Some(Exit::NeedsPerson(failure)),
            };
        }
        let idle = self.looks.looked_once()
            && !self.looks.is_looking()
            && !self.looks.wants_full()
            && self.dirty.is_empty()
            && (self.schedule.is_empty()
                || (self.full.is_some() && self.schedule.in_flight() == 0))
            && !self.gate.is_probing()
            && self.deletions.is_settled();
        idle.then(|| match self.full.as_ref().or(self.deletions.failure()).cloned() {
            Some(failure) if mends_itself(failure.class) => Exit::GaveUp(failure),
            Some(failure) => Exit::NeedsPerson(failure),
            None => Exit::Done,
        })
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        // A one-shot run does not wait for a person: it ends, and its error says all.
        let ends = matches!(&notice, Notice::Waiting(failure) if !mends_itself(failure.class));
        if !(ends && self.is_one_shot()) {
            self.effects.push(Effect::Notice(notice));
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        let (pending, pending_bytes) = self.schedule.backlog();
        let oldest = [self.dirty.oldest(), self.schedule.oldest(), self.looks.oldest()];
        let trying = self.gate.trying().filter(|_| pending > 0);
        Snapshot {
            pending,
            pending_bytes,
            in_flight: self.schedule.in_flight(),
            dirty: self.dirty.len(),
            failing: self.failed.len(),
            looking: self.looks.is_looking(),
            paused: self.paused,
            looked_once: self.looks.looked_once(),
            waiting: self.gate.waiting().or(trying).cloned(),
            hold: self.deletions.hold().cloned(),
            oldest: oldest.into_iter().flatten().min(),
            last_full: self.looks.last_full(),
        }
    }

    pub(super) fn hint_path(&mut self, path: RelPath, deep: bool, now: Tick) {
        let (settle_ms, max_wait_ms) = (self.settings.settle_ms, self.settings.max_wait_ms);
        self.dirty.hint(path, deep, now, settle_ms, max_wait_ms);
    }
}

/// Whether trouble of this kind may end without a person.
fn mends_itself(class: ErrorClass) -> bool {
    match class {
        ErrorClass::Unreachable | ErrorClass::Server | ErrorClass::Throttled => true,
        ErrorClass::Path
        | ErrorClass::Denied
        | ErrorClass::Configuration
        | ErrorClass::Full
        | ErrorClass::Credentials
        | ErrorClass::State => false,
    }
}
