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
    cost_bytes: u64,
    since: Option<Tick>,
    is_delete: bool,
}

#[derive(Debug)]
struct Delayed {
    queued: Queued,
    due: Tick,
}

/// Jobs that are ready, waiting for their next attempt, or in flight.
#[derive(Debug)]
pub struct Schedule {
    ops_max: usize,
    bytes_max: u64,
    /// Operations allowed now: lowered when the server asks for fewer, raised by successes.
    ops_allowed: usize,
    successes: usize,
    ready: BTreeMap<u64, Queued>,
    place: BTreeMap<Key, u64>,
    delayed: BTreeMap<Key, Delayed>,
    by_due: BTreeSet<(Tick, Key)>,
    flights: BTreeMap<OpId, Flight>,
    busy: BTreeSet<Key>,
    /// Planned again while in flight: to be looked at once the operation has ended.
    again: BTreeMap<Key, RelPath>,
    bytes_in_flight: u64,
    next_place: u64,
    next_op: u64,
}

impl Schedule {
    pub fn new(ops_max: usize, bytes_max: u64) -> Self {
        Self {
            ops_max: ops_max.max(1),
            bytes_max,
            ops_allowed: ops_max.max(1),
            successes: 0,
            ready: BTreeMap::new(),
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
            self.again.insert(queued.job.key, queued.job.path);
        } else if let Some(delayed) = self.delayed.get_mut(key) {
            delayed.queued = Queued { since: delayed.queued.since, ..queued };
        } else if let Some(known) = self.place.get(key).and_then(|p| self.ready.get_mut(p)) {
            *known = Queued { since: known.since, ..queued };
        } else {
            self.append(queued);
        }
    }

    fn append(&mut self, queued: Queued) {
        self.place.insert(queued.job.key.clone(), self.next_place);
        self.ready.insert(self.next_place, queued);
        self.next_place += 1;
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

    /// Starts the next job that the budgets admit. In order: a large job at the head waits for its
    /// bytes rather than being overtaken for ever.
    pub fn admit(&mut self) -> Option<(OpId, Queued)> {
        if self.flights.len() >= self.ops_allowed {
            return None;
        }
        let (place, queued) = self.ready.first_key_value()?;
        let cost_bytes = queued.job.size_bytes.min(self.bytes_max);
        if self.bytes_in_flight > 0 && self.bytes_in_flight + cost_bytes > self.bytes_max {
            return None;
        }
        let place = *place;
        let queued = self.ready.remove(&place)?;
        self.place.remove(&queued.job.key);
        let keys = vec![queued.job.key.clone()];
        let op = self.fly(keys, cost_bytes, Some(queued.since), false);
        Some((op, queued))
    }

    /// Starts a deletion of the items whose keys nothing else is about to touch.
    pub fn admit_delete(&mut self, mut items: Vec<DeleteItem>) -> Option<(OpId, Work)> {
        items.retain(|item| !self.is_wanted(&item.key));
        if items.is_empty() {
            return None;
        }
        let keys = items.iter().map(|item| item.key.clone()).collect();
        let op = self.fly(keys, 0, None, true);
        Some((op, Work::Delete(items)))
    }

    fn fly(
        &mut self,
        keys: Vec<Key>,
        cost_bytes: u64,
        since: Option<Tick>,
        is_delete: bool,
    ) -> OpId {
        let op = OpId(self.next_op);
        self.next_op += 1;
        for key in &keys {
            // INVARIANT: one operation per key.
            assert!(self.busy.insert(key.clone()), "two operations on {key}");
        }
        self.bytes_in_flight += cost_bytes;
        self.flights.insert(op, Flight { keys, cost_bytes, since, is_delete });
        op
    }

    /// Ends an operation. Answers with the paths to look at again.
    pub fn finish(&mut self, op: OpId) -> Vec<RelPath> {
        let Some(flight) = self.flights.remove(&op) else {
            return vec![];
        };
        self.bytes_in_flight -= flight.cost_bytes;
        let mut again = vec![];
        for key in &flight.keys {
            self.busy.remove(key);
            again.extend(self.again.remove(key));
        }
        again
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
        self.ready.clear();
        self.place.clear();
        self.delayed.clear();
        self.by_due.clear();
    }

    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    pub fn delayed_len(&self) -> usize {
        self.delayed.len()
    }

    /// Nothing is ready, waiting or in flight.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.delayed.is_empty() && self.flights.is_empty()
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

    /// Since when the longest waiting change has been known here.
    pub fn oldest(&self) -> Option<Tick> {
        let ready = self.ready.values().map(|q| q.since);
        let delayed = self.delayed.values().map(|d| d.queued.since);
        let flying = self.flights.values().filter_map(|f| f.since);
        ready.chain(delayed).chain(flying).min()
    }

    /// Bytes and number of the jobs that are not done.
    pub fn backlog(&self) -> (usize, u64) {
        let waiting = self.ready.values().chain(self.delayed.values().map(|d| &d.queued));
        let (mut jobs, mut bytes) = (self.flights.len(), self.bytes_in_flight);
        for queued in waiting {
            jobs += 1;
            bytes += queued.job.size_bytes;
        }
        (jobs, bytes)
    }
}
