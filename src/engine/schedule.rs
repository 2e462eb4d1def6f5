//! The queue: one operation per key, newest plan wins, budgets in operations and bytes.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Key, RelPath, Tick};
use crate::plan::{DeleteItem, Job};

use super::{LookId, Work};

/// Identifies an operation in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpId(pub u64);

/// A job and since when its change has been waiting.
#[derive(Clone, Debug)]
pub struct Queued {
    pub job: Job,
    pub since: Tick,
    /// The look that planned it.
    pub origin: LookId,
}

#[derive(Debug)]
struct Flight {
    keys: Vec<Key>,
    started: Tick,
    cost_bytes: u64,
    since: Option<Tick>,
    is_delete: bool,
    is_large: bool,
}

#[derive(Debug)]
struct Delayed {
    queued: Queued,
    due: Tick,
}

/// Jobs ready to start, in order.
type Lane = BTreeMap<u64, Queued>;

/// Large files in flight at most.
const LARGE_MAX: usize = 2;

/// Jobs that are ready, waiting for their next attempt, or in flight.
#[derive(Debug)]
pub struct Schedule {
    ops_max: usize,
    bytes_max: u64,
    large_bytes: u64,
    /// Operations allowed now: lowered when the server asks for fewer, raised by successes.
    ops_allowed: usize,
    successes: usize,
    small: Lane,
    large: Lane,
    place: BTreeMap<Key, u64>,
    delayed: BTreeMap<Key, Delayed>,
    by_due: BTreeSet<(Tick, Key)>,
    flights: BTreeMap<OpId, Flight>,
    busy: BTreeSet<Key>,
    /// Planned again while in flight: to be looked at once the operation has ended.
    again: BTreeMap<Key, (RelPath, Tick)>,
    bytes_in_flight: u64,
    next_place: u64,
    next_op: u64,
}

impl Schedule {
    pub fn new(ops_max: usize, bytes_max: u64, large_bytes: u64) -> Self {
        Self {
            ops_max: ops_max.max(1),
            bytes_max,
            large_bytes,
            ops_allowed: ops_max.max(1),
            successes: 0,
            small: Lane::new(),
            large: Lane::new(),
            place: BTreeMap::new(),
            delayed: BTreeMap::new(),
            by_due: BTreeSet::new(),
            flights: BTreeMap::new(),
            busy: BTreeSet::new(),
            again: BTreeMap::new(),
            bytes_in_flight: 0,
            next_place: 0,
            next_op: 0,
        }
    }

    /// Queues a job. A newer plan for a key replaces the older one; a key in flight is looked at
    /// again after its operation, for what is being done may already be out of date. A key that
    /// waits for its next attempt goes on waiting.
    pub fn push(&mut self, queued: Queued) {
        let key = &queued.job.key;
        if self.busy.contains(key) {
            self.again.insert(queued.job.key, (queued.job.path, queued.since));
        } else if let Some(delayed) = self.delayed.get_mut(key) {
            let since = queued.since.min(delayed.queued.since);
            delayed.queued = Queued { since, ..queued };
        } else if let Some(place) = self.place.get(key).copied() {
            let known = self.small.remove(&place).or_else(|| self.large.remove(&place));
            let since = known.map_or(queued.since, |known| queued.since.min(known.since));
            self.insert(place, Queued { since, ..queued });
        } else {
            self.append(queued);
        }
    }

    fn append(&mut self, queued: Queued) {
        self.next_place += 1;
        self.insert(self.next_place, queued);
    }

    fn insert(&mut self, place: u64, queued: Queued) {
        self.place.insert(queued.job.key.clone(), place);
        let is_large = queued.job.size_bytes() > self.large_bytes;
        let lane = if is_large { &mut self.large } else { &mut self.small };
        lane.insert(place, queued);
    }

    /// Queues a job for a later attempt.
    pub fn delay(&mut self, queued: Queued, due: Tick) {
        let key = queued.job.key.clone();
        if let Some(old) = self.delayed.insert(key.clone(), Delayed { queued, due }) {
            self.by_due.remove(&(old.due, key.clone()));
        }
        self.by_due.insert((due, key));
    }

    /// Moves jobs whose time has come to the ready ones.
    pub fn promote(&mut self, now: Tick) {
        while self.by_due.first().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, key)) = self.by_due.pop_first()
                && let Some(delayed) = self.delayed.remove(&key)
            {
                self.append(delayed.queued);
            }
        }
    }

    /// Starts the next job that the budgets admit: large files first, for they take longest, but
    /// few at a time. Within its lane a job is never overtaken.
    pub fn admit(&mut self, now: Tick) -> Option<(OpId, Queued)> {
        if self.flights.len() >= self.ops_allowed {
            return None;
        }
        let large = self.flights.values().filter(|f| f.is_large).count();
        if large < LARGE_MAX && self.fits(self.bytes_max / 4) && !self.large.is_empty() {
            let (_, queued) = self.large.pop_first()?;
            return Some(self.start(queued, self.bytes_max / 4, true, now));
        }
        let cost_bytes = self.small.first_key_value()?.1.job.size_bytes();
        if !self.fits(cost_bytes) {
            return None;
        }
        let (_, queued) = self.small.pop_first()?;
        Some(self.start(queued, cost_bytes, false, now))
    }

    fn fits(&self, cost_bytes: u64) -> bool {
        self.bytes_in_flight == 0 || self.bytes_in_flight + cost_bytes <= self.bytes_max
    }

    fn start(
        &mut self,
        queued: Queued,
        cost_bytes: u64,
        is_large: bool,
        started: Tick,
    ) -> (OpId, Queued) {
        self.place.remove(&queued.job.key);
        let keys = vec![queued.job.key.clone()];
        let since = Some(queued.since);
        let flight = Flight { keys, started, cost_bytes, since, is_delete: false, is_large };
        (self.fly(flight), queued)
    }

    /// Starts a deletion of the items whose keys nothing else is about to touch.
    pub fn admit_delete(
        &mut self,
        mut items: Vec<DeleteItem>,
        started: Tick,
    ) -> Option<(OpId, Work)> {
        items.retain(|item| !self.is_wanted(&item.key));
        if items.is_empty() {
            return None;
        }
        let keys = items.iter().map(|item| item.key.clone()).collect();
        let flight =
            Flight { keys, started, cost_bytes: 0, since: None, is_delete: true, is_large: false };
        Some((self.fly(flight), Work::Delete(items)))
    }

    fn fly(&mut self, flight: Flight) -> OpId {
        let op = OpId(self.next_op);
        self.next_op += 1;
        for key in &flight.keys {
            // INVARIANT: one operation per key.
            assert!(self.busy.insert(key.clone()), "two operations on {key}");
        }
        self.bytes_in_flight += flight.cost_bytes;
        self.flights.insert(op, flight);
        op
    }

    /// Ends an operation. Answers with when it started, and with the paths to look at again and how
    /// old their changes are.
    pub fn finish(&mut self, op: OpId) -> Option<(Tick, Vec<(RelPath, Tick)>)> {
        let flight = self.flights.remove(&op)?;
        self.bytes_in_flight -= flight.cost_bytes;
        let mut again = vec![];
        for key in &flight.keys {
            self.busy.remove(key);
            // Whatever was done, it may have begun before the change that was planned again.
            let planned = self.again.remove(key);
            again.extend(planned.map(|(path, since)| (path, since.min(flight.started))));
        }
        Some((flight.started, again))
    }

    /// Whether a job for this key is ready, waiting or in flight.
    pub fn is_wanted(&self, key: &Key) -> bool {
        self.busy.contains(key) || self.place.contains_key(key) || self.delayed.contains_key(key)
    }

    /// A request succeeded: more may be in flight, up to the limit.
    pub fn succeeded(&mut self) {
        self.successes += 1;
        if self.successes >= self.ops_allowed && self.ops_allowed < self.ops_max {
            self.ops_allowed += 1;
            self.successes = 0;
        }
    }

    /// The server asked for fewer requests: half of what was in flight.
    pub fn throttled(&mut self) {
        self.ops_allowed = (self.ops_allowed / 2).max(1);
        self.successes = 0;
    }

    /// Forgets everything that has not been started.
    pub fn drop_waiting(&mut self) {
        self.small.clear();
        self.large.clear();
        self.place.clear();
        self.delayed.clear();
        self.by_due.clear();
    }

    pub fn ready_len(&self) -> usize {
        self.small.len() + self.large.len()
    }

    pub fn delayed_len(&self) -> usize {
        self.delayed.len()
    }

    /// Nothing is ready, waiting or in flight.
    pub fn is_empty(&self) -> bool {
        self.ready_len() == 0 && self.delayed.is_empty() && self.flights.is_empty()
    }

    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    pub fn uploads_in_flight(&self) -> bool {
        self.flights.values().any(|f| !f.is_delete)
    }

    pub fn next_due(&self) -> Option<Tick> {
        self.by_due.first().map(|(due, _)| *due)
    }

    fn ready(&self) -> impl Iterator<Item = &Queued> {
        self.small.values().chain(self.large.values())
    }

    /// Since when the longest waiting change has been known here.
    pub fn oldest(&self) -> Option<Tick> {
        let ready = self.ready().map(|q| q.since);
        let delayed = self.delayed.values().map(|d| d.queued.since);
        let flying = self.flights.values().filter_map(|f| f.since);
        ready.chain(delayed).chain(flying).min()
    }

    /// Bytes and number of the jobs that are not done.
    pub fn backlog(&self) -> (usize, u64) {
        let waiting = self.ready().chain(self.delayed.values().map(|d| &d.queued));
        let (mut jobs, mut bytes) = (self.flights.len(), self.bytes_in_flight);
        for queued in waiting {
            jobs += 1;
            bytes += queued.job.size_bytes();
        }
        (jobs, bytes)
    }
}
