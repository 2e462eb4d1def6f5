//! What the tests share: the program under test, servers, a look into buckets, trees of files.

pub mod bucket;
pub mod external;
pub mod mounts;
pub mod notify;
pub mod passage;
pub mod program;
pub mod rclone;
pub mod scene;
pub mod scripted;
pub mod server;
pub mod tools;
pub mod tree;

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Writes a file that only its user may read.
pub fn write_secret(path: &Path, text: &str) {
    let mut options = std::fs::File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
}

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
