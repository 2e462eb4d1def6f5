//! What a restore has done so far, and what it could not do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::super::untold::Untold;

/// Paths that are remembered by name, of each kind.
const NAMED_MAX: usize = 10_000;

/// What content was compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    Crc64,
    Md5,
    /// The ETag over the parts.
    Parts,
    /// The object has nothing that its content could be compared with.
    Nothing,
}

/// Counters of one restore.
#[derive(Debug, Default)]
pub struct Tally {
    pub scanned: AtomicU64,
    pub downloaded: AtomicU64,
    pub downloaded_bytes: AtomicU64,
    pub retouched: AtomicU64,
    pub unchanged: AtomicU64,
    pub folders: AtomicU64,
    pub deleted: AtomicU64,
    /// Files that were to be deleted, and were held for safety.
    pub held: AtomicU64,
    /// Left out because they are tagged as deleted.
    pub tagged: AtomicU64,
    /// Asked to be thawed, and not readable yet.
    pub frozen: AtomicU64,
    pub untold: Untold,
    crc64: AtomicU64,
    md5: AtomicU64,
    parts: AtomicU64,
    unproven: AtomicU64,
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    failed: List,
    skipped: List,
    kept: List,
}

/// Names with reasons, as many as are remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    pub count: u64,
    pub named: Vec<(String, String)>,
}

impl List {
    fn add(&mut self, path: String, why: String) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push((path, why));
        }
    }
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub scanned: u64,
    pub downloaded: u64,
    pub downloaded_bytes: u64,
    pub retouched: u64,
    pub unchanged: u64,
    pub folders: u64,
    pub deleted: u64,
    pub held: u64,
    pub tagged: u64,
    pub frozen: u64,
    /// Restored, although nobody may read whether they are tagged as deleted.
    pub untold: u64,
    pub verified_crc64: u64,
    pub verified_md5: u64,
    pub verified_parts: u64,
    pub unverified: u64,
    pub failed: List,
    pub skipped: List,
    pub kept: List,
}

impl Tally {
    pub(super) fn proved(&self, proof: Proof) {
        let counter = match proof {
            Proof::Crc64 => &self.crc64,
            Proof::Md5 => &self.md5,
            Proof::Parts => &self.parts,
            Proof::Nothing => &self.unproven,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, path: String, why: String) {
        tracing::warn!("failed: {path}: {why}");
        self.lists().failed.add(path, why);
    }

    pub(super) fn skipped(&self, path: String, why: String) {
        tracing::warn!("skipped: {path}: {why}");
        self.lists().skipped.add(path, why);
    }

    pub(super) fn kept(&self, path: String, why: String) {
        tracing::info!("kept: {path}: {why}");
        self.lists().kept.add(path, why);
    }

    fn lists(&self) -> std::sync::MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let lists = self.lists();
        Counts {
            scanned: get(&self.scanned),
            downloaded: get(&self.downloaded),
            downloaded_bytes: get(&self.downloaded_bytes),
            retouched: get(&self.retouched),
            unchanged: get(&self.unchanged),
            folders: get(&self.folders),
            deleted: get(&self.deleted),
            held: get(&self.held),
            tagged: get(&self.tagged),
            frozen: get(&self.frozen),
            untold: self.untold.count(),
            verified_crc64: get(&self.crc64),
            verified_md5: get(&self.md5),
            verified_parts: get(&self.parts),
            unverified: get(&self.unproven),
            failed: lists.failed.clone(),
            skipped: lists.skipped.clone(),
            kept: lists.kept.clone(),
        }
    }
}
