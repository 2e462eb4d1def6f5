//! What was done so far: counters that the work raises and reports read.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::model::{Key, Kind};
use crate::plan::Done;

/// Counters of one run of one backup. Raised from one thread, read from any.
#[derive(Debug, Default)]
pub struct Progress {
    pub scanned: AtomicU64,
    pub uploaded: AtomicU64,
    pub uploaded_bytes: AtomicU64,
    pub adopted: AtomicU64,
    pub retouched: AtomicU64,
    pub unchanged: AtomicU64,
    pub folders: AtomicU64,
    pub deleted: AtomicU64,
    pub tagged: AtomicU64,
    pub untagged: AtomicU64,
    /// Objects that were copied from another bucket.
    pub copied: AtomicU64,
    pub copied_bytes: AtomicU64,
    pub skipped: AtomicU64,
    /// Paths that cannot be read, as they were counted last.
    pub unread: AtomicU64,
    pub failed: AtomicU64,
    /// What has failed and is not right since: goes down again where it is tried again.
    pub failing: AtomicU64,
    pub verified: AtomicU64,
    /// Differences that only a look at everything found: what the watcher missed.
    pub missed: AtomicU64,
    pub overflows: AtomicU64,
    /// Open uploads of a lost state that were aborted.
    pub aborted: AtomicU64,
    /// Jobs that are known of, done or not, and their bytes, as they were a moment ago.
    pub planned: AtomicU64,
    pub planned_bytes: AtomicU64,
    /// Jobs that are done, and their bytes. One that is tried again is not done.
    pub handled: AtomicU64,
    pub handled_bytes: AtomicU64,
    /// Archived objects that are waited for.
    pub frozen: AtomicU64,
    /// A look at everything is running.
    pub scanning: AtomicBool,
    /// One has ended: what the next finds is what the watcher missed.
    pub looked: AtomicBool,
    current: Mutex<BTreeMap<Key, Transfer>>,
}

/// A file on its way.
#[derive(Debug)]
struct Transfer {
    name: String,
    /// What the server has of it.
    bytes: u64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub scanned: u64,
    pub uploaded: u64,
    pub uploaded_bytes: u64,
    pub adopted: u64,
    pub retouched: u64,
    pub unchanged: u64,
    pub folders: u64,
    pub deleted: u64,
    pub tagged: u64,
    pub untagged: u64,
    pub copied: u64,
    pub copied_bytes: u64,
    pub skipped: u64,
    pub failed: u64,
    pub verified: u64,
    pub missed: u64,
    pub overflows: u64,
    pub aborted: u64,
}

pub fn raise(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Progress {
    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            scanned: get(&self.scanned),
            uploaded: get(&self.uploaded),
            uploaded_bytes: get(&self.uploaded_bytes),
            adopted: get(&self.adopted),
            retouched: get(&self.retouched),
            unchanged: get(&self.unchanged),
            folders: get(&self.folders),
            deleted: get(&self.deleted),
            tagged: get(&self.tagged),
            untagged: get(&self.untagged),
            copied: get(&self.copied),
            copied_bytes: get(&self.copied_bytes),
            skipped: get(&self.skipped),
            failed: get(&self.failed),
            verified: get(&self.verified),
            missed: get(&self.missed),
            overflows: get(&self.overflows),
            aborted: get(&self.aborted),
        }
    }

    /// Takes what is not done at this moment.
    pub fn plan(&self, jobs: u64, bytes: u64) {
        let done = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.planned.store(done(&self.handled) + jobs, Ordering::Relaxed);
        self.planned_bytes.store(done(&self.handled_bytes) + bytes, Ordering::Relaxed);
    }

    /// Files that are done, of all that are known of.
    pub fn files(&self) -> (u64, u64) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let done = get(&self.handled);
        (done, get(&self.planned).max(done))
    }

    /// Files that are known of and not done.
    pub fn left(&self) -> u64 {
        let (done, all) = self.files();
        all - done
    }

    /// Bytes that the server has, of all that are known of.
    pub fn bytes(&self) -> (u64, u64) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let done = get(&self.handled_bytes) + self.advanced();
        (done, get(&self.planned_bytes).max(done))
    }

    /// Counts what came of one job. Markers count as folders, not as files.
    pub fn count(&self, kind: Kind, done: Done) {
        match (done, kind) {
            (Done::Uploaded { .. } | Done::Adopted | Done::Retouched, Kind::Folder) => {
                raise(&self.folders, 1);
            }
            (Done::Uploaded { bytes }, _) => {
                raise(&self.uploaded, 1);
                raise(&self.uploaded_bytes, bytes);
            }
            (Done::Adopted, _) => raise(&self.adopted, 1),
            (Done::Retouched, _) => raise(&self.retouched, 1),
            (Done::Unchanged, Kind::Folder) | (Done::Settled, _) => {}
            (Done::Unchanged, _) => raise(&self.unchanged, 1),
        }
    }

    /// Names what is being transferred.
    pub fn begin(&self, key: &Key, name: String) {
        self.lock().insert(key.clone(), Transfer { name, bytes: 0 });
    }

    /// Counts bytes of it that the server has.
    pub fn advance(&self, key: &Key, bytes: u64) {
        if let Some(transfer) = self.lock().get_mut(key) {
            transfer.bytes += bytes;
        }
    }

    /// Bytes that the server has of files that are not done.
    fn advanced(&self) -> u64 {
        self.lock().values().map(|transfer| transfer.bytes).sum()
    }

    pub fn end(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// Names of some of the files that are being transferred.
    pub fn current(&self, max: usize) -> Vec<String> {
        self.lock().values().take(max).map(|transfer| transfer.name.clone()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Transfer>> {
        self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_again_counts_once() {
        let (progress, key) = (Progress::default(), Key::literal("large"));
        let told = || (progress.files(), progress.bytes());
        progress.plan(2, 110);
        for _ in 0..2 {
            progress.begin(&key, "large".to_owned());
            progress.advance(&key, 60);
            assert_eq!(told(), ((0, 2), (60, 110)));
            progress.end(&key);
            assert_eq!(told(), ((0, 2), (0, 110)), "it failed, and is tried again");
        }
        raise(&progress.handled, 1);
        raise(&progress.handled_bytes, 100);
        progress.plan(1, 10);
        assert_eq!(told(), ((1, 2), (100, 110)));
    }
}
