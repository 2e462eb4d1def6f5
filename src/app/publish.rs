//! How much is still to do, published from time to time while work goes on, and 0 at its end.
//!
//! The work knows nothing of it and never waits for it: a task of its own reads counters. What
//! cannot be published is said in the log, and dropped.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use crate::plan::Failure;
use crate::ports::{Backlog, Clock, MetricSink};

use super::progress::Progress;

/// How often it is looked whether there is something to publish for the first time.
const LOOK: Duration = Duration::from_millis(100);
/// How long the last number is waited for, when all work is done; and that after an outage.
const LAST: Duration = Duration::from_secs(3);
const LAST_OF_OUTAGE: Duration = Duration::from_secs(1);

/// The runs whose numbers are added up. Those that are dropped count no more.
#[derive(Clone, Debug, Default)]
pub struct Followed(Arc<Mutex<Runs>>);

#[derive(Debug, Default)]
struct Runs {
    running: Vec<Weak<Progress>>,
    /// Of runs that have ended.
    failures: u64,
}

impl Followed {
    pub fn add(&self, progress: &Arc<Progress>) {
        let mut runs = self.lock();
        runs.running.retain(|run| run.strong_count() > 0);
        runs.running.push(Arc::downgrade(progress));
    }

    /// A run has ended: nothing of it is to do any more. What failed still counts.
    pub fn settle(&self, progress: &Arc<Progress>) {
        let mut runs = self.lock();
        runs.running.retain(|run| !std::ptr::eq(run.as_ptr(), Arc::as_ptr(progress)));
        runs.failures += failing(progress);
    }

    /// What is to do, what has failed, and whether all that is to do is known by now.
    fn sum(&self) -> (u64, u64, bool) {
        let runs = self.lock();
        let (mut left, mut failures, mut known) = (0, runs.failures, true);
        for run in runs.running.iter().filter_map(Weak::upgrade) {
            left += run.left();
            failures += failing(&run);
            known &= !run.scanning.load(std::sync::atomic::Ordering::Relaxed);
        }
        (left, failures, known)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Runs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failing(progress: &Progress) -> u64 {
    progress.failing.load(std::sync::atomic::Ordering::Relaxed)
}

/// Publishes until it is told that all work is done.
pub struct Publisher {
    what: What,
    stop: CancellationToken,
    /// Answers whether the service was well when it was last asked.
    task: JoinHandle<bool>,
}

#[derive(Clone)]
struct What {
    sink: Arc<dyn MetricSink>,
    clock: Arc<dyn Clock>,
    followed: Followed,
}

impl Publisher {
    pub fn start(
        sink: Arc<dyn MetricSink>,
        clock: Arc<dyn Clock>,
        followed: Followed,
        every: Duration,
    ) -> Self {
        let (what, stop) = (What { sink, clock, followed }, CancellationToken::new());
        let task = tokio::spawn(what.clone().publish(every, stop.clone()));
        Self { what, stop, task }
    }

    /// Publishes that nothing is to do any more, and how much failed: at least something, where a
    /// run came to nothing. Waits a few seconds at most.
    pub async fn end(self, came_to_nothing: bool) {
        self.stop.cancel();
        let was_well = self.task.await.unwrap_or(false);
        let (_, failures, _) = self.what.followed.sum();
        let failures = failures.max(u64::from(came_to_nothing));
        let limit = if was_well { LAST } else { LAST_OF_OUTAGE };
        if timeout(limit, self.what.tell(0, failures)).await.is_err() {
            tracing::warn!("the last metrics were not published: no answer came in time");
        }
    }
}

impl What {
    async fn publish(self, every: Duration, stop: CancellationToken) -> bool {
        tokio::select! {
            () = self.something(every) => {}
            () = stop.cancelled() => return true,
        }
        let mut ticks = interval_at(Instant::now(), every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_well = true;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return is_well,
                _ = ticks.tick() => {}
            }
            let (left, failures, _) = self.followed.sum();
            tokio::select! {
                biased;
                told = self.tell(left, failures) => is_well = told,
                // It did not answer yet.
                () = stop.cancelled() => return false,
            }
        }
    }

    /// Waits until it is known what is to do, at most for as long as numbers are apart.
    async fn something(&self, every: Duration) {
        let until = Instant::now() + every;
        while Instant::now() < until {
            if matches!(self.followed.sum(), (1.., _, true)) {
                return;
            }
            tokio::time::sleep(LOOK.min(every)).await;
        }
    }

    async fn tell(&self, objects: u64, failures: u64) -> bool {
        let at = self.clock.now();
        match self.sink.publish(Backlog { at, objects, failures }).await {
            Ok(()) => true,
            Err(Failure { message, cause, hint, .. }) => {
                let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
                let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
                tracing::warn!("{message}{cause}{hint}; the work goes on");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use crate::model::Millis;
    use crate::plan::ErrorClass;
    use crate::ports::Fut;

    use super::*;

    struct Still;

    impl Clock for Still {
        fn now(&self) -> Millis {
            Millis(7)
        }
    }

    /// Remembers what it was told, and then answers, refuses, or never says a word.
    #[derive(Default)]
    struct Ear {
        heard: Mutex<Vec<(u64, u64)>>,
        refuses: bool,
        hangs: bool,
    }

    impl MetricSink for Ear {
        fn publish(&self, backlog: Backlog) -> Fut<'_, Result<(), Failure>> {
            assert_eq!(backlog.at, Millis(7));
            self.heard.lock().unwrap().push((backlog.objects, backlog.failures));
            Box::pin(async {
                if self.hangs {
                    std::future::pending::<()>().await;
                }
                match self.refuses {
                    true => Err(Failure::new(ErrorClass::Denied, "no")),
                    false => Ok(()),
                }
            })
        }
    }

    const EVERY: Duration = Duration::from_secs(60);

    fn begin(ear: Ear) -> (Arc<Ear>, Followed, Publisher) {
        let (ear, followed) = (Arc::new(ear), Followed::default());
        let publisher = Publisher::start(ear.clone(), Arc::new(Still), followed.clone(), EVERY);
        (ear, followed, publisher)
    }

    fn heard(ear: &Ear) -> Vec<(u64, u64)> {
        ear.heard.lock().unwrap().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_of_all_runs_is_published_and_0_at_the_end() {
        let (ear, followed, publisher) = begin(Ear::default());
        let runs: [Arc<Progress>; 2] = Default::default();
        runs.iter().for_each(|run| followed.add(run));
        runs[0].scanning.store(true, Ordering::Relaxed);
        runs[0].plan(5, 0);
        tokio::time::sleep(EVERY / 2).await;
        assert_eq!(heard(&ear), [], "more may be found yet");
        runs[0].scanning.store(false, Ordering::Relaxed);
        runs[1].plan(2, 0);
        tokio::time::sleep(EVERY / 2).await;
        assert_eq!(heard(&ear), [(7, 0)]);
        runs[0].plan(1, 0);
        runs[1].failing.store(1, Ordering::Relaxed);
        tokio::time::sleep(EVERY).await;
        assert_eq!(heard(&ear), [(7, 0), (3, 1)]);
        followed.settle(&runs[1]);
        tokio::time::sleep(EVERY).await;
        assert_eq!(heard(&ear), [(7, 0), (3, 1), (1, 1)], "what failed still counts");
        publisher.end(true).await;
        assert_eq!(heard(&ear)[3..], [(0, 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_gone_counts_no_more_and_one_that_came_to_nothing_is_a_failure() {
        let (ear, followed, publisher) = begin(Ear::default());
        let run: Arc<Progress> = Arc::default();
        followed.add(&run);
        run.plan(9, 0);
        drop(run);
        tokio::time::sleep(EVERY + LOOK).await;
        assert_eq!(heard(&ear), [(0, 0)], "it is published that there is nothing to do, too");
        publisher.end(true).await;
        assert_eq!(heard(&ear), [(0, 0), (0, 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_waited_out_for_a_second_at_most() {
        let (ear, followed, publisher) = begin(Ear { hangs: true, ..Ear::default() });
        let run: Arc<Progress> = Arc::default();
        run.plan(1, 0);
        followed.add(&run);
        tokio::time::sleep(10 * EVERY).await;
        assert_eq!(heard(&ear), [(1, 0)], "one request at a time");
        let ending = Instant::now();
        publisher.end(false).await;
        assert_eq!((ending.elapsed(), heard(&ear).len()), (LAST_OF_OUTAGE, 2));

        let (ear, followed, publisher) = begin(Ear { refuses: true, ..Ear::default() });
        followed.add(&run);
        tokio::time::sleep(3 * EVERY).await;
        assert!(heard(&ear).len() >= 3, "it is tried again each time");
        publisher.end(false).await;
        assert_eq!(heard(&ear).last(), Some(&(0, 0)));
    }
}
