//! A server, a bucket in it, a user, and a folder: what most tests begin with.

use std::time::{Duration, Instant};

use super::bucket::{Bucket, Seen};
use super::program::{Daemon, Said, User};
use super::server::Embedded;
use super::tree::{Tree, differences};

/// Where scenes keep their folder.
pub const TO: &str = "s3://bucket/p";

/// Short delays, and no limit that a busy test could meet.
const QUICK: [&str; 6] = ["--settle", "1s", "--delete-delay", "0s", "--max-delete", "off"];

pub struct Scene {
    pub server: Embedded,
    pub bucket: Bucket,
    pub user: User,
    pub tree: Tree,
}

impl Scene {
    pub fn new(files: &[(&str, &[u8])]) -> Self {
        let server = Embedded::start();
        let bucket = Bucket::create(&server.reach, "bucket");
        let user = User::of(&server.reach);
        Self { server, bucket, user, tree: Tree::new(files) }
    }

    /// With so many small files, `f/0` and so on.
    pub fn with_files(count: usize) -> Self {
        let scene = Self::new(&[]);
        (0..count).for_each(|n| scene.tree.write(format!("f/{n}"), format!("{n}").as_bytes()));
        scene
    }

    /// The user is another from now on.
    pub fn by(self, change: impl FnOnce(User) -> User) -> Self {
        Self { user: change(self.user), ..self }
    }

    pub fn source(&self) -> &str {
        self.tree.folder.path().to_str().unwrap()
    }

    /// The name that the backup has by itself.
    pub fn name(&self) -> &str {
        self.tree.folder.path().file_name().unwrap().to_str().unwrap()
    }

    /// A pass; the server's log holds this one only.
    pub fn sync(&self, more: &[&str], code: i32) -> Said {
        self.server.clear_log();
        self.user.sync(self.tree.folder.path(), TO, more, code)
    }

    pub fn watch(&self, more: &[&str]) -> Daemon<'_> {
        self.user.watch(&[&[self.source(), TO], more].concat())
    }

    /// The arguments of a daemon with short delays; what is given here wins.
    pub fn quick<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let quick = QUICK.chunks(2).filter(|pair| !more.contains(&pair[0])).flatten();
        [self.source(), TO].into_iter().chain(quick.copied()).chain(more.iter().copied()).collect()
    }

    /// A daemon with short delays, once all that is there is kept.
    pub fn follow(&self, more: &[&str]) -> Daemon<'_> {
        let daemon = self.user.watch(&self.quick(more));
        daemon.flush();
        daemon
    }

    pub fn differences(&self) -> Vec<String> {
        differences(&self.tree, &self.bucket, "p/")
    }

    /// The bucket is as the tree asks.
    pub fn is_kept(&self) {
        assert_eq!(self.differences(), [""; 0]);
    }

    /// Waits until the bucket is as the tree asks, by nothing but the daemon's own doing.
    pub fn comes_right(&self, daemon: &Daemon<'_>) {
        let started = Instant::now();
        loop {
            let differences = self.differences();
            if differences.is_empty() {
                return;
            }
            let late = started.elapsed() > Duration::from_secs(60);
            assert!(!late, "the bucket is not the tree: {differences:#?}\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Requests of this operation for this key that succeeded.
    pub fn requests(&self, operation: &str, key: &str) -> usize {
        let key = format!("p/{key}");
        let log = self.server.log();
        let log = log.iter().filter(|access| access.operation == operation && access.status == 200);
        log.filter(|access| access.key.as_deref() == Some(&key)).count()
    }

    /// Upload ids of requests of this operation that succeeded, in the order of their answers.
    pub fn uploads(&self, operation: &str) -> Vec<String> {
        let log = self.server.log().into_iter();
        let log = log.filter(|access| access.operation == operation && access.error.is_none());
        log.map(|access| access.upload_id.unwrap_or_default()).collect()
    }

    /// The bucket is as the tree asks, and another pass has nothing to do.
    pub fn is_settled(&self, code: i32) {
        self.is_kept();
        let said = self.sync(&[], code);
        assert_eq!(self.server.log().len(), 1, "one GET of the owner record: {said:?}");
    }

    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub fn get(&self, key: &str) -> Option<Seen> {
        self.bucket.get(&format!("p/{key}"))
    }
}
