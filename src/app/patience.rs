//! How long a request of a one-shot run is tried again, when a failure is everybody's, and why a
//! path or a run goes no further.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::{Backoff, Jitter};
use crate::plan::{ErrorClass, Failure};
use crate::ports::{Fut, StoreError};

use super::failure_of;

/// Attempts at one object while others pass.
const ATTEMPTS: u32 = 6;
const THROTTLED_ATTEMPTS: u32 = 20;
const BACKOFF: Backoff = Backoff { first_ms: 500, max_ms: 10_000 };

/// Why one path, or everything, goes no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// This path failed; the rest goes on.
    Path(String),
    /// This path is left out, and why.
    Skip(String),
    /// What is there, or the object, is not what it was: look again.
    Again,
    /// It is being thawed: its turn comes later.
    Frozen,
    All(Failure),
    Interrupted,
}

/// Shared by all requests of a run.
pub(crate) struct Patience {
    retry_for: Duration,
    cancel: CancellationToken,
    last_good: Mutex<Option<Instant>>,
    waiting: AtomicBool,
    jitter: Mutex<Jitter>,
}

/// One request's attempts.
pub(crate) struct Attempts {
    count: u32,
    failing_since: Option<Instant>,
}

impl Attempts {
    pub(crate) fn new() -> Self {
        Self { count: 0, failing_since: None }
    }

    pub(crate) fn failed(&self) -> bool {
        self.count > 0
    }
}

impl Patience {
    pub(crate) fn new(retry_for_ms: u64, cancel: CancellationToken) -> Self {
        Self {
            retry_for: Duration::from_millis(retry_for_ms),
            cancel,
            last_good: Mutex::new(None),
            waiting: AtomicBool::new(false),
            jitter: Mutex::new(Jitter::new(retry_for_ms)),
        }
    }

    /// A request went well.
    pub(crate) fn good(&self) {
        *self.last_good.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        if self.waiting.swap(false, Ordering::Relaxed) {
            tracing::info!("the bucket answers again, going on");
        }
    }

    /// Sends a request until it goes well, or is given up.
    pub(crate) async fn insist<'a, T>(
        &self,
        mut request: impl FnMut() -> Fut<'a, Result<T, StoreError>>,
    ) -> Result<T, Stop> {
        let mut attempts = Attempts::new();
        loop {
            match request().await {
                Ok(reply) => {
                    self.good();
                    return Ok(reply);
                }
                Err(error) => {
                    self.pause(&mut attempts, failure_of(error, "read the backup")).await?;
                }
            }
        }
    }

    /// Waits before the next attempt. An error when there is to be none.
    pub(crate) async fn pause(
        &self,
        attempts: &mut Attempts,
        failure: Failure,
    ) -> Result<(), Stop> {
        let last_good = *self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *attempts.failing_since.get_or_insert_with(Instant::now);
        let others_pass = last_good.is_some_and(|at| at > since);
        attempts.count += 1;
        match failure.class {
            ErrorClass::Path => return Err(of_path(&failure)),
            ErrorClass::Denied if last_good.is_some() => {
                return Err(of_path(&failure));
            }
            ErrorClass::Denied | ErrorClass::Configuration | ErrorClass::State => {
                return Err(Stop::All(failure));
            }
            ErrorClass::Credentials if last_good.is_none() => return Err(Stop::All(failure)),
            ErrorClass::Throttled if others_pass && attempts.count >= THROTTLED_ATTEMPTS => {
                return Err(of_path(&failure));
            }
            ErrorClass::Server | ErrorClass::Unreachable
                if others_pass && attempts.count >= ATTEMPTS =>
            {
                return Err(of_path(&failure));
            }
            _ if !others_pass && since.elapsed() >= self.retry_for => {
                return Err(Stop::All(failure));
            }
            _ => {}
        }
        if !others_pass && attempts.count > 1 && !self.waiting.swap(true, Ordering::Relaxed) {
            tracing::warn!("waiting: {failure}");
        }
        let delay = {
            let mut jitter = self.jitter.lock().unwrap_or_else(PoisonError::into_inner);
            BACKOFF.delay_ms(attempts.count, &mut jitter)
        };
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(delay)) => Ok(()),
            () = self.cancel.cancelled() => Err(Stop::Interrupted),
        }
    }
}

/// A failure of one path, in one line.
fn of_path(failure: &Failure) -> Stop {
    Stop::Path(match &failure.hint {
        Some(hint) => format!("{failure} ({hint})"),
        None => failure.to_string(),
    })
}
