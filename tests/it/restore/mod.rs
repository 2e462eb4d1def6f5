//! Restore, seen whole: the program run against real servers and hostile ones.

mod alone;
mod choices;
mod commands;
mod disks;
mod faults;
mod folded;
mod foreign;
mod hostile;
mod killed;
mod moments;
mod round_trip;
mod same;
mod thaw;
mod untold;
mod ways;

use std::sync::atomic::{AtomicBool, Ordering};

/// Tells a thread of a test to end, also when the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
