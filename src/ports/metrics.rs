//! A service that keeps numbers, for whoever watches many machines.

use crate::model::Millis;
use crate::plan::Failure;

use super::Fut;

/// How much is still to do, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub at: Millis,
    /// Objects, or files, that are still to be copied.
    pub objects: u64,
    /// What has failed and is not right since.
    pub failures: u64,
}

/// Takes numbers.
pub trait MetricSink: Send + Sync {
    /// Publishes these numbers with one request, and gives up by itself after some seconds. Fails
    /// with the cause and, where one is known, the next step; the words of one failure are the same
    /// each time.
    fn publish(&self, backlog: Backlog) -> Fut<'_, Result<(), Failure>>;
}
