//! What an operation's outcome means: done, look again, later, or given up.

use crate::model::{Key, RelPath, Tick};
use crate::plan::{Deletion, Done, ErrorClass, Failure, Job, LookAgain, Outcome, Skip, Task};

use super::backoff::Backoff;
use super::core::Engine;
use super::deletions::FailedBatch;
use super::gate::Consequence;
use super::schedule::{OpId, Queued};
use super::{Effect, Notice, Problem, Trouble};

/// So many torn reads make a file "changing".
const TORN_MAX: u32 = 5;
/// So many failed attempts make a path "failed".
const ATTEMPTS_MAX: u32 = 5;
/// Before deletions are asked for again when none of the last batch could be carried out.
const NO_PROGRESS_MS: u64 = 1_000;

impl Engine {
    pub(super) fn finished(&mut self, op: OpId, outcome: Outcome, now: Tick) {
        let Some((started, again)) = self.schedule.finish(op) else { return };
        let queued = self.flying.remove(&op);
        if let Some(queued) = &queued {
            self.looks.touch(&queued.job.key, Some(queued.origin));
        }
        match (outcome, queued) {
            (Outcome::Deleted(results), _) => self.deleted(results, started, now),
            (Outcome::Done(done), Some(queued)) => {
                if matches!(done, Done::Uploaded { .. } | Done::Retouched) {
                    self.wrote(now);
                }
                self.succeeded(&queued.job);
            }
            (Outcome::Look(LookAgain::Source), Some(queued)) => {
                self.look_again(queued.job.path, queued.since, now);
            }
            (Outcome::Look(LookAgain::Target), Some(queued)) => self.ask_target(queued, now),
            (Outcome::Torn, Some(queued)) => self.torn(queued, now),
            (Outcome::Skipped(skip), Some(queued)) => self.skipped(queued.job, skip),
            (Outcome::Failed(failure), Some(queued)) => self.failed(queued, failure, now),
            (Outcome::Failed(failure), None) => {
                self.deletions_failed(&failure, FailedBatch::default(), now);
            }
            // Cut off by a pause: it goes on with the rest.
            (Outcome::Cancelled, Some(queued)) if !self.draining => {
                self.schedule.push(uncertain(queued));
            }
            (Outcome::Cancelled, _) | (_, None) => {}
        }
        if self.draining {
            return;
        }
        for (path, since) in again {
            self.look_again(path, since, now);
        }
    }

    /// The destination takes what is written to it.
    fn wrote(&mut self, now: Tick) {
        if let Some(after_ms) = self.gate.wrote(now) {
            self.notice(Notice::Resumed { after_ms });
        }
    }

    fn succeeded(&mut self, job: &Job) {
        self.schedule.succeeded();
        self.gate.succeeded();
        self.attempts.remove(&job.key);
        self.torn.remove(&job.key);
        self.failed.remove(&job.key);
    }

    /// The object is not what was believed: ask, then go on from what is there. Backs off, for two
    /// writers could keep each other busy this way.
    fn ask_target(&mut self, queued: Queued, now: Tick) {
        if self.draining {
            return;
        }
        let attempts = self.count_attempt(&queued.job);
        let job = Job { task: Task::Resolve, target: None, ..queued.job };
        let queued = Queued { job, ..queued };
        if attempts > ATTEMPTS_MAX {
            let failure = Failure::new(
                ErrorClass::Path,
                "the object keeps changing under us: is another program writing to this prefix?",
            );
            return self.give_up_for_now(queued, failure, attempts, now);
        }
        if attempts == 1 {
            return self.schedule.push(queued);
        }
        let delay = Backoff::REQUEST.delay_ms(attempts - 1, &mut self.jitter);
        self.schedule.delay(queued, now.plus_ms(delay));
    }

    fn torn(&mut self, Queued { job, since, .. }: Queued, now: Tick) {
        if self.draining {
            return;
        }
        let count = self.torn.entry(job.key.clone()).or_insert(0);
        *count += 1;
        let count = *count;
        if count >= TORN_MAX {
            let what = Trouble::Skipped(Skip::Changing);
            let (key, path) = (job.key.clone(), job.path.clone());
            self.effects.push(Effect::Problem(Problem { key, path, attempts: count, what }));
            if self.is_one_shot() {
                self.torn.remove(&job.key);
                return;
            }
        }
        let delay_ms = Backoff::TORN.delay_ms(count, &mut self.jitter);
        let delay_ms = match count >= TORN_MAX {
            true => delay_ms.max(self.settings.max_wait_ms),
            false => delay_ms,
        };
        self.dirty.look_after(job.path.clone(), now, delay_ms);
        self.dirty.backdate(&job.path, since);
    }

    pub(super) fn is_torn(&self, path: &RelPath) -> bool {
        self.torn.contains_key(&Key::file(path))
    }

    /// Whether a file has changed under every one of many readings.
    pub(super) fn is_changing(&self, path: &RelPath) -> bool {
        self.torn.get(&Key::file(path)).is_some_and(|count| *count >= TORN_MAX)
    }

    /// Looking was enough: nothing is sent, and nothing is tried again until the path is looked at
    /// again, by a hint or with everything.
    fn skipped(&mut self, job: Job, skip: Skip) {
        self.attempts.remove(&job.key);
        self.failed.remove(&job.key);
        let what = Trouble::Skipped(skip);
        self.effects.push(Effect::Problem(Problem {
            key: job.key,
            path: job.path,
            attempts: 1,
            what,
        }));
    }

    fn failed(&mut self, queued: Queued, failure: Failure, now: Tick) {
        if self.draining {
            return;
        }
        if failure.class == ErrorClass::Throttled {
            self.schedule.throttled();
        }
        if failure.class == ErrorClass::Full && self.is_one_shot() {
            self.full.get_or_insert(failure);
            return self.schedule.push(uncertain(queued));
        }
        let alone = self.schedule.ready_len() == 0 && self.schedule.in_flight() == 0;
        let (was_open, told) = (self.gate.is_open(), self.gate.trying().is_some());
        let consequence =
            self.gate.failed(Some(&queued.job.key), &failure, alone, now, &mut self.jitter);
        if was_open && !told && !self.gate.is_open() {
            self.notice(Notice::Waiting(failure.clone()));
        }
        match consequence {
            // Not this path's fault: it goes first when the destination is back.
            Consequence::Closed => self.schedule.push(uncertain(queued)),
            Consequence::Own => {
                let attempts = self.count_attempt(&queued.job);
                if is_hopeless(&failure) || attempts >= ATTEMPTS_MAX {
                    return self.give_up_for_now(queued, failure, attempts, now);
                }
                let delay = Backoff::REQUEST.delay_ms(attempts, &mut self.jitter);
                self.schedule.delay(uncertain(queued), now.plus_ms(delay));
            }
        }
    }

    /// Reports the path as failed. A daemon tries again at longer intervals, a one-shot run does
    /// not.
    fn give_up_for_now(&mut self, queued: Queued, failure: Failure, attempts: u32, now: Tick) {
        let job = &queued.job;
        self.failed.insert(job.key.clone());
        self.effects.push(Effect::Problem(Problem {
            key: job.key.clone(),
            path: job.path.clone(),
            attempts,
            what: Trouble::Failed(failure.clone()),
        }));
        if self.is_one_shot() {
            return;
        }
        let backoff = match failure.class {
            ErrorClass::Path | ErrorClass::Denied => Backoff::PATH,
            _ => Backoff::REQUEST,
        };
        let delay = backoff.delay_ms(attempts, &mut self.jitter);
        self.schedule.delay(uncertain(queued), now.plus_ms(delay));
    }

    /// An attempt that failed for everybody's reason does not count.
    fn forgive_attempt(&mut self, key: &Key) {
        if let Some(attempts) = self.attempts.get_mut(key) {
            *attempts -= 1;
            if *attempts == 0 {
                self.attempts.remove(key);
            }
        }
    }

    fn count_attempt(&mut self, job: &Job) -> u32 {
        let attempts = self.attempts.entry(job.key.clone()).or_insert(0);
        *attempts += 1;
        *attempts
    }

    fn deleted(
        &mut self,
        results: Vec<(crate::plan::DeleteItem, Deletion)>,
        started: Tick,
        now: Tick,
    ) {
        let mut retry: Option<Failure> = None;
        let mut progress = false;
        let mut spared: Vec<RelPath> = vec![];
        for (item, deletion) in results {
            self.looks.touch(&item.key, None);
            match deletion {
                Deletion::Deleted | Deletion::Tagged => {
                    progress = true;
                    self.gate.succeeded();
                }
                Deletion::Spared => spared.push(item.path),
                Deletion::Disowned => progress = true,
                Deletion::Failed(failure) => {
                    let what = Trouble::Failed(failure.clone());
                    let (key, path) = (item.key, item.path);
                    self.effects.push(Effect::Problem(Problem { key, path, attempts: 1, what }));
                    if retry.as_ref().is_none_or(is_hopeless) {
                        retry = Some(failure);
                    }
                }
            }
        }
        for path in spared {
            self.look_again(path, started, now);
        }
        match retry {
            Some(failure) => {
                let is_hopeless = is_hopeless(&failure);
                let failed = FailedBatch { told: true, progress, is_hopeless };
                self.deletions_failed(&failure, failed, now);
            }
            // Where nothing came of it, asking again at once would give the same answer.
            None => {
                let delay_ms = if progress { 0 } else { NO_PROGRESS_MS };
                self.deletions.batch_done(now.plus_ms(delay_ms));
            }
        }
    }

    pub(super) fn probed(&mut self, result: &Result<(), Failure>, now: Tick) {
        let was_open = self.gate.is_open();
        if let Some(after_ms) = self.gate.probed(result, now, &mut self.jitter) {
            self.notice(Notice::Resumed { after_ms });
        }
        let Err(failure) = result else { return };
        if was_open {
            self.notice(Notice::Waiting(failure.clone()));
        }
        for key in self.gate.take_suspects() {
            self.forgive_attempt(&key);
        }
    }
}

/// Whether the same request, sent again soon, fails again.
fn is_hopeless(failure: &Failure) -> bool {
    matches!(failure.class, ErrorClass::Path | ErrorClass::Denied)
}

/// A request may have arrived although its reply did not, and then the record that the plan was
/// made with says nothing any more: the next attempt asks first.
fn uncertain(mut queued: Queued) -> Queued {
    queued.job.task = Task::Resolve;
    queued
}
