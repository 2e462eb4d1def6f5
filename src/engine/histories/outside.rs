//! What the world does with the engine's effects: it looks, sends and deletes, and now and then it
//! fails. What may start is checked here.

use std::collections::BTreeSet;

use super::*;
use crate::plan::{Deletion, Done, HoldReason, LookAgain, Task, Why};

impl World {
    pub(super) fn look(&mut self, look: LookId, scopes: &[Scope]) {
        let all = scopes == [Scope::All];
        let mut names = vec![];
        for scope in scopes {
            match scope {
                Scope::All => names = (0..6).collect(),
                Scope::Tree(p) | Scope::Path(p) => {
                    let i = index(p);
                    // Promise 3: never before the path has settled, unless it waited long enough.
                    if let Some((first, last)) = self.hinted.remove(&i) {
                        let settled = self.now.since(last) >= SETTLE_MS;
                        let waited = self.now.since(first) >= MAX_WAIT_MS;
                        let asked = settled || waited || !self.flushing.is_empty();
                        assert!(asked, "seed {}: promise 3: too early", self.seed);
                    }
                    names.push(i);
                }
            }
        }
        if all {
            assert!(!self.all_running, "two looks at everything at a time");
            self.all_running = true;
            self.overflow_open = false;
        }
        let delay = self.chance.next(if all { 3_000 } else { 200 });
        self.push(delay, Later::Observe(look, names, all));
    }

    pub(super) fn observe(&mut self, look: LookId, names: Vec<usize>, all: bool) {
        let mut jobs = vec![];
        for i in names {
            let file = &mut self.files[i];
            if file.source == 0 {
                if file.record != 0 && !file.uncertain {
                    file.missing_since.get_or_insert(self.now);
                } else if file.uncertain {
                    jobs.push(self.job(i, Task::Resolve));
                }
                continue;
            }
            file.missing_since = None;
            if file.uncertain {
                jobs.push(self.job(i, Task::Resolve));
            } else if file.record != file.source {
                jobs.push(self.job(i, Task::Upload));
            }
        }
        let result = match self.chance.next(20) {
            0 if !self.calm => LookResult::Failed(failure(ErrorClass::Server)),
            1 if !self.calm => LookResult::SourceMissing(failure(ErrorClass::Path)),
            _ => LookResult::Complete,
        };
        let failed = !matches!(result, LookResult::Complete);
        if all {
            self.all_running = false;
            self.looked_all |= !failed;
            self.overflow_open |= failed;
        }
        let deletion_due_in_ms = self.next_due();
        // A failed look may have handed in some of its jobs.
        if failed {
            jobs.truncate(self.chance.next(3) as usize);
        }
        self.send(Event::Planned { look, jobs });
        let report = LookReport { result, young: vec![], deletion_due_in_ms };
        self.send(Event::LookEnded { look, report });
    }

    fn job(&self, i: usize, task: Task) -> Job {
        let path = path(i);
        Job {
            key: Key::file(&path),
            path,
            task,
            why: Why::Changed,
            entry: Some(entry([0, 1, 30, 60, 99, 500][i])),
            base: None,
            target: None,
        }
    }

    pub(super) fn start(&mut self, op: OpId, work: Work) {
        let seed = self.seed;
        let (names, cost, is_delete) = match &work {
            Work::Sync(job) => {
                let size = job.size_bytes();
                (vec![index(&job.path)], if size > 80 { 25 } else { size }, false)
            }
            Work::Delete(items) => (items.iter().map(|i| index(&i.path)).collect(), 0, true),
        };
        let busy: BTreeSet<usize> =
            self.busy.values().flat_map(|(names, ..)| names.iter().copied()).collect();
        for i in &names {
            assert!(!busy.contains(i), "seed {seed}: promise 1: two operations on one key");
            if let Some(at) = self.not_before.remove(i) {
                assert!(self.now >= at || is_delete, "seed {seed}: promise 8: retried too soon");
            }
        }
        let bytes: u64 = self.busy.values().map(|(_, cost, _)| cost).sum();
        let count = self.busy.values().filter(|(.., d)| !d).count();
        if is_delete {
            let overdue = self.due_since.is_some_and(|t| self.now.since(t) >= MAX_WAIT_MS);
            assert!(count == 0 || overdue, "seed {seed}: promise 6: a deletion before an upload");
        } else {
            assert!(count < 3, "seed {seed}: promise 2: too many operations");
            assert!(bytes == 0 || bytes + cost <= 100, "seed {seed}: promise 2: too many bytes");
        }
        // The request is announced in the record, and the file is read, when it starts.
        let read = match &work {
            Work::Sync(job) => {
                let file = &mut self.files[index(&job.path)];
                file.uncertain |= file.source != 0;
                file.source
            }
            Work::Delete(_) => 0,
        };
        self.busy.insert(op, (names, cost, is_delete));
        let delay = self.chance.next(4_000);
        self.push(delay, Later::Run(op, work, read));
    }

    pub(super) fn run(&mut self, op: OpId, work: Work, read: u32) {
        self.busy.remove(&op);
        let outcome = match work {
            Work::Delete(items) => {
                Outcome::Deleted(items.into_iter().map(|i| self.delete(i)).collect())
            }
            Work::Sync(job) => self.sync(index(&job.path), read),
        };
        self.send(Event::Finished { op, outcome });
    }

    fn sync(&mut self, i: usize, read: u32) -> Outcome {
        let file = &mut self.files[i];
        if read == 0 {
            // Gone before it was read: what was uncertain is settled by asking.
            file.record = file.target;
            file.uncertain = false;
            file.missing_since = (file.record != 0).then_some(self.now);
            return Outcome::Look(LookAgain::Source);
        }
        let class = match self.chance.next(16) {
            // Cut off where it can be taken up again.
            0..8 if self.paused => return Outcome::Cancelled,
            _ if self.away => Some(ErrorClass::Unreachable),
            _ if self.calm => None,
            0 => Some(ErrorClass::Server),
            1 => Some(ErrorClass::Throttled),
            2 => Some(ErrorClass::Path),
            3 => return Outcome::Torn,
            4 => return Outcome::Look(LookAgain::Target),
            5 => return Outcome::Look(LookAgain::Source),
            _ => None,
        };
        let Some(class) = class else {
            *file = File { source: file.source, target: read, record: read, ..File::default() };
            return Outcome::Done(Done::Uploaded { bytes: 1 });
        };
        // The reply may be lost although the request arrived.
        if class != ErrorClass::Path && self.chance.percent(30) {
            file.target = read;
        }
        if class == ErrorClass::Path && self.engine.snapshot().waiting.is_none() {
            self.not_before.insert(i, self.now.plus_ms(Backoff::PATH.least_ms(1)));
        }
        Outcome::Failed(failure(class))
    }

    fn delete(&mut self, item: DeleteItem) -> (DeleteItem, Deletion) {
        let i = index(&item.path);
        let away = self.away;
        let file = &mut self.files[i];
        let deletion = if file.source != 0 {
            file.missing_since = None;
            Deletion::Spared
        } else if away {
            Deletion::Failed(failure(ErrorClass::Unreachable))
        } else {
            *file = File::default();
            Deletion::Deleted
        };
        (item, deletion)
    }

    fn next_due(&self) -> Option<u64> {
        let due = |t: Tick| t.plus_ms(DELAY_MS).since(self.now);
        self.files.iter().filter_map(|f| f.missing_since).map(due).min()
    }

    pub(super) fn due_report(&mut self) -> DueReport {
        if self.held && !self.calm {
            let hold = Hold { reasons: vec![HoldReason::Emptied], pending: 2 };
            return DueReport { hold: Some(hold), ..DueReport::default() };
        }
        let mut report = DueReport::default();
        for (i, file) in self.files.iter().enumerate() {
            let Some(since) = file.missing_since else { continue };
            if self.now.since(since) < DELAY_MS {
                continue;
            }
            let path = path(i);
            report.items.push(DeleteItem { key: Key::file(&path), path, record: record() });
        }
        report.next_due_in_ms = self.next_due().filter(|ms| *ms > 0);
        report
    }
}
