//! Telling people: logs, progress, status, in plain words and honest numbers.
//!
//! Leaf code: reads counters and facts, changes nothing. `cli` uses it.

pub mod headline;
pub mod journal;
pub mod log;
pub mod metrics;
pub mod progress;
mod repeats;
pub mod text;
