//! Adapter to local files: a sorted walk, single looks, and stable reads below one source; and the
//! folder that a restore fills.
//!
//! Opens by handles below the source or target and never through a symbolic link. Only [`Target`]
//! writes. Every call that may block runs on the runtime's blocking threads, but for walks: these
//! have threads of their own, for a walk waits for whoever listens to it.
//!
//! Built by `cli::wire`; use-cases see [`crate::ports::LocalTree`],
//! [`crate::ports::TargetTree`] and [`crate::ports::Scratch`].

mod beneath;
mod look;
mod meta;
mod own;
mod read;
mod rules;
mod spool;
mod target;
mod threads;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::model::{Entry, RelPath};
use crate::plan::{ErrorClass, Failure};
use crate::ports::{
    FolderWatch, Fut, Identity, Links, LocalTree, OpenFile, ReadError, Stat, Walk, WholeRead,
};

pub use rules::{IGNORE_FILE, RuleError, RuleOptions, Rules};
pub use spool::Spools;
pub use target::Target;

use threads::Threads;
pub use threads::with_own_turns;

/// A source folder and the rules over it.
#[derive(Clone)]
pub struct Tree {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    rules: Rules,
    /// Longest key, in bytes, below the destination's prefix.
    key_max_bytes: usize,
    threads: Threads,
    links: Links,
}

impl Tree {
    /// `key_max_bytes` is what S3 allows, less the destination's prefix.
    pub fn new(root: &Path, rules: Rules, key_max_bytes: usize) -> Self {
        let (threads, links) = (Threads::default(), Links::default());
        let inner = Inner { root: root.to_owned(), rules, key_max_bytes, threads, links };
        Self { inner: Arc::new(inner) }
    }
}

fn crashed() -> ReadError {
    ReadError::Unreadable("a bug in keepwatch: the read ended unexpectedly".to_owned())
}

impl LocalTree for Tree {
    fn identity(&self) -> Fut<'_, Result<Identity, Failure>> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let crashed = || Failure::new(ErrorClass::Path, "looking at the source crashed");
            let threads = inner.threads.clone();
            threads.run(move || meta::identity(&inner.root)).await.ok_or_else(crashed)?
        })
    }

    fn walk(&self, top: RelPath, watch: Option<Arc<dyn FolderWatch>>) -> Box<dyn Walk> {
        Box::new(walk::start(self.inner.clone(), top, watch))
    }

    fn governed(&self, path: &RelPath) -> Option<RelPath> {
        self.inner.rules.is_rule(path.name()).then(|| path.parent()).flatten()
    }

    fn stat(&self, paths: Vec<RelPath>) -> Fut<'_, Result<Vec<Stat>, Failure>> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let crashed = || Failure::new(ErrorClass::Path, "looking at files crashed");
            let threads = inner.threads.clone();
            threads.run(move || look::stat(&inner, &paths)).await.ok_or_else(crashed)?
        })
    }

    fn links(&self) -> &Links {
        &self.inner.links
    }

    fn read_whole(&self, path: RelPath, limit: u64) -> Fut<'_, Result<WholeRead, ReadError>> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let threads = inner.threads.clone();
            let read = threads.run(move || read::whole(&inner.root, &path, limit));
            read.await.ok_or_else(crashed)?
        })
    }

    fn open(&self, path: RelPath) -> Fut<'_, Result<Box<dyn OpenFile>, ReadError>> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let (threads, own) = (inner.threads.clone(), inner.threads.clone());
            let open = threads.run(move || read::Opened::open(&inner.root, path, own)).await;
            let opened = open.ok_or_else(crashed)??;
            Ok(Box::new(opened) as Box<dyn OpenFile>)
        })
    }

    fn read_link(&self, path: RelPath) -> Fut<'_, Result<(Entry, Bytes), ReadError>> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let threads = inner.threads.clone();
            threads.run(move || read::link(&inner.root, &path)).await.ok_or_else(crashed)?
        })
    }
}

#[cfg(test)]
mod tests;
