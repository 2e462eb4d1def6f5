//! A server, a bucket in it, a user, and a folder: what most tests begin with.

use super::bucket::Bucket;
use super::program::{Daemon, Said, User};
use super::server::Embedded;
use super::tree::{Tree, differences};

/// Where scenes keep their folder.
pub const TO: &str = "s3://bucket/p";

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

    pub fn differences(&self) -> Vec<String> {
        differences(&self.tree, &self.bucket, "p/")
    }

    /// The bucket is as the tree asks.
    pub fn is_kept(&self) {
        assert_eq!(self.differences(), [""; 0]);
    }

    /// The bucket is as the tree asks, and another pass has nothing to do.
    pub fn is_settled(&self, code: i32) {
        self.is_kept();
        let said = self.sync(&[], code);
        assert_eq!(self.server.log().len(), 1, "one GET of the owner record: {said:?}");
    }

    pub fn has(&self, key: &str) -> bool {
        self.bucket.get(&format!("p/{key}")).is_some()
    }
}
