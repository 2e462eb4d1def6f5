//! What the tests share: the program under test, servers, a look into buckets, trees of files.

pub mod bucket;
pub mod mounts;
pub mod notify;
pub mod program;
pub mod rclone;
pub mod scene;
pub mod server;
pub mod tools;
pub mod tree;

use std::time::{Duration, Instant};

/// Waits until something is so; a test that waits in vain fails with `what`.
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_at_most(Duration::from_secs(60), what, &mut is_so);
}

pub fn wait_at_most(limit: Duration, what: &str, is_so: &mut dyn FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < limit, "waited {limit:?} for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
