//! Wall-clock time that follows the runtime's virtual time.

use tokio::time::Instant;

use crate::model::{Millis, Timestamp};
use crate::ports::Clock;

/// Starts at a fixed moment of 2026.
#[derive(Clone, Copy, Debug)]
pub struct SimClock {
    started: Instant,
}

const START_MS: i64 = 1_790_000_000_000;

impl SimClock {
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// As a file system would stamp it, to the nanosecond.
    pub fn stamp(&self) -> Timestamp {
        let elapsed = self.started.elapsed();
        let secs = START_MS / 1000 + i64::try_from(elapsed.as_secs()).unwrap_or(0);
        Timestamp::new(secs, elapsed.subsec_nanos())
    }
}

impl Clock for SimClock {
    fn now(&self) -> Millis {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(0);
        Millis(START_MS + elapsed)
    }
}
