//! What most tests of the daemon need: a server with a bucket, a tree, and a user.

use std::time::{Duration, Instant};

use super::bucket::Bucket;
use super::program::{Daemon, User};
use super::server::Embedded;
use super::tree::{Tree, differences};

/// Short delays, and no limit that a busy test could meet.
pub const QUICK: [&str; 6] = ["--settle", "1s", "--delete-delay", "0s", "--max-delete", "off"];

pub struct Stage {
    pub server: Embedded,
    pub bucket: Bucket,
    pub tree: Tree,
    pub user: User,
}

impl Stage {
    pub fn new(files: &[(&str, &[u8])]) -> Self {
        let server = Embedded::start();
        let bucket = Bucket::create(&server.reach, "bucket");
        let user = User::of(&server.reach);
        Self { server, bucket, tree: Tree::new(files), user }
    }

    /// The arguments after `watch`: source, destination, quick delays, and these, which win.
    pub fn args<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec![self.tree.folder.path().to_str().unwrap(), "s3://bucket"];
        for pair in QUICK.chunks(2).filter(|pair| !more.contains(&pair[0])) {
            args.extend(pair);
        }
        args.extend(more);
        args
    }

    /// A daemon that keeps the tree, after its first pass.
    pub fn watch(&self, more: &[&str]) -> Daemon<'_> {
        let daemon = self.user.watch(&self.args(more));
        daemon.flush();
        daemon
    }

    /// Waits until the bucket equals the tree, by nothing but the daemon's own doing.
    pub fn settle(&self, daemon: &Daemon<'_>) {
        let started = Instant::now();
        loop {
            let differences = differences(&self.tree, &self.bucket, "");
            if differences.is_empty() {
                return;
            }
            let late = started.elapsed() > Duration::from_secs(60);
            assert!(!late, "the bucket is not the tree: {differences:#?}\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Upload ids of successful requests of this operation, in the order they were answered.
    pub fn uploads(&self, operation: &str) -> Vec<String> {
        let log = self.server.log().into_iter();
        let log = log.filter(|access| access.operation == operation && access.error.is_none());
        log.map(|access| access.upload_id.unwrap_or_default()).collect()
    }

    /// Successful requests of this operation for this key.
    pub fn requests(&self, operation: &str, key: &str) -> usize {
        let log = self.server.log().into_iter();
        let hit = |access: &keepwatch::store::Access| {
            access.operation == operation && access.key.as_deref() == Some(key)
        };
        log.filter(|access| hit(access) && access.status == 200).count()
    }
}
