//! Lines that are kept aside for a while: a few in memory, any number on disk.

use crate::plan::Failure;

use super::Fut;

/// Makes queues that nobody keeps: they are gone with the process, however it ends.
pub trait Scratch: Send + Sync {
    fn queue(&self) -> Box<dyn LineQueue>;
}

/// Lines without line breaks, in the order they came. First all are put in, then taken out.
pub trait LineQueue: Send + Sync {
    fn push(&mut self, line: String) -> Fut<'_, Result<(), Failure>>;
    /// `None` at the end.
    fn next(&mut self) -> Fut<'_, Result<Option<String>, Failure>>;
    /// Lines that were put in.
    fn count(&self) -> u64;
}
