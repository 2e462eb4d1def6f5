//! Which calls fail, and how. A call of a fake asks here before it does its work.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::plan::{ErrorClass, Failure};
use crate::ports::StoreError;

use super::chance::Chance;

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Fine,
    /// Nothing is done, and an error comes back.
    FailBefore(ErrorClass),
    /// It is done, and an error comes back all the same: the reply is lost.
    FailAfter(ErrorClass),
    /// The program is killed before it is done, or right after. The call never returns.
    CrashBefore,
    CrashAfter,
}

#[derive(Debug, Default)]
struct Plan {
    /// Percent of calls that fail at random.
    percent: u64,
    /// The destination is away.
    away: Option<ErrorClass>,
    /// Calls so far, and the fate of the one with this number.
    calls: u64,
    nth: Option<(u64, Fate)>,
    slow: bool,
}

/// Shared by all calls of a fake.
#[derive(Clone, Debug)]
pub struct Faults {
    chance: Chance,
    plan: Arc<Mutex<Plan>>,
    crash: Arc<Notify>,
}

impl Faults {
    pub fn none(chance: &Chance) -> Self {
        Self { chance: chance.clone(), plan: Arc::default(), crash: Arc::default() }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_percent(&self, percent: u64) {
        self.plan().percent = percent;
    }

    pub fn set_away(&self, away: Option<ErrorClass>) {
        self.plan().away = away;
    }

    /// Calls take time, so that others come between.
    pub fn set_slow(&self, slow: bool) {
        self.plan().slow = slow;
    }

    /// Call number `n` from now (from 1) gets this fate.
    pub fn on_nth(&self, n: u64, fate: Fate) {
        let mut plan = self.plan();
        plan.nth = Some((plan.calls + n, fate));
    }

    /// No call has a fate of its own any more.
    pub fn clear_nth(&self) {
        self.plan().nth = None;
    }

    /// Ready when a call asks for the program to be killed.
    pub async fn crash(&self) {
        self.crash.notified().await;
    }

    /// Kills the program: never returns.
    pub async fn die(&self) {
        self.crash.notify_one();
        std::future::pending::<()>().await;
    }

    pub fn calls(&self) -> u64 {
        self.plan().calls
    }

    /// Waits as long as the call takes, and decides its fate.
    pub async fn call(&self) -> Fate {
        let (fate, slow) = {
            let mut plan = self.plan();
            plan.calls += 1;
            let fate = match (plan.away, plan.nth) {
                (Some(class), _) => Fate::FailBefore(class),
                (None, Some((n, fate))) if n == plan.calls => fate,
                _ if self.chance.percent(plan.percent) => self.random(),
                _ => Fate::Fine,
            };
            (fate, plan.slow)
        };
        if fate != Fate::Fine {
            tracing::debug!(?fate, "a call");
        }
        if slow {
            tokio::time::sleep(Duration::from_millis(self.chance.below(200))).await;
        } else {
            tokio::task::yield_now().await;
        }
        fate
    }

    fn random(&self) -> Fate {
        let class = *self.chance.pick(&[
            ErrorClass::Server,
            ErrorClass::Server,
            ErrorClass::Throttled,
            ErrorClass::Unreachable,
        ]);
        match self.chance.percent(40) {
            true => Fate::FailAfter(class),
            false => Fate::FailBefore(class),
        }
    }
}

/// The error that a fate brings.
pub fn error(class: ErrorClass) -> StoreError {
    StoreError::Failed(Failure::new(class, "made up by the simulation"))
}
