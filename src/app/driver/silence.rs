//! No watcher.

use crate::ports::{Fut, HintSource, WatchEvent};

/// No watcher: a one-shot run.
pub struct Silence;

impl HintSource for Silence {
    fn next(&mut self) -> Fut<'_, WatchEvent> {
        Box::pin(std::future::pending())
    }
}
