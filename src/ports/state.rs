//! The state database: durable observations, changed in lists that hold as a whole or not at all.

use std::collections::BTreeSet;

use crate::engine::Problem;
use crate::model::{ContentMd5, ETag, Entry, Fingerprint, Key, Millis, Object, Record, RelPath};
use crate::plan::{DeleteItem, ErrorClass, Failure};

use super::{Fut, Identity, PartDigest, StoredPart};

/// Why the state database did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("the disk under the state database is full: {0}")]
    Full(String),
    #[error("the state database failed: {0}")]
    Broken(String),
}

/// A multipart upload as it was journaled before its first part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadJournal {
    pub key: Key,
    /// `None`: a request to create it may have been sent.
    pub upload_id: Option<String>,
    /// Those of this key that were open before, and so are not ours; `None` where nobody knows.
    pub others: Option<Vec<String>>,
    pub part_size: u64,
    /// Of the file that is being sent.
    pub fingerprint: Fingerprint,
    pub parts: Vec<JournaledPart>,
}

/// A part that the server acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournaledPart {
    pub stored: StoredPart,
    pub digest: PartDigest,
}

/// One change of the state. A list of changes is applied as a whole, durably, or not at all.
#[derive(Clone, Debug)]
pub enum Change {
    /// A request that writes this object is about to be sent. What was known is not to be trusted
    /// until it is settled.
    Uploading {
        key: Key,
        entry: Entry,
    },
    /// The object that such a request writes will have this content. Of a copy in parts that is
    /// known only shortly before it is there.
    Expected {
        key: Key,
        content: ContentMd5,
    },
    /// The object was acknowledged, or found to be right. Ends its multipart journal and problem.
    Synced {
        key: Key,
        record: Record,
    },
    /// The name is missing since `at`, if it was not marked before. An object that was tagged waits
    /// for its deletion from then on.
    Missing {
        key: Key,
        at: Millis,
    },
    /// The name is not missing; if known, it is on this disk.
    Found {
        key: Key,
        disk: Option<u64>,
    },
    /// Drops the record. With `keep`, the object becomes unclaimed.
    Forget {
        key: Key,
        keep: Option<Object>,
    },
    /// Requests that delete (or tag) these objects are about to be sent. `counted` of them are
    /// charged to the budget of the hour of `at`.
    Deleting {
        keys: Vec<Key>,
        counted: u64,
        at: Millis,
    },
    Deleted {
        key: Key,
    },
    Tagged {
        key: Key,
    },
    /// A request to create a multipart upload is about to be sent.
    UploadOpening(UploadJournal),
    UploadOpened {
        key: Key,
        upload_id: String,
    },
    PartDone {
        key: Key,
        part: JournaledPart,
    },
    UploadDropped {
        key: Key,
    },
    Problem {
        problem: Problem,
        at: Millis,
    },
    /// A path is all right again, or gone.
    ProblemSolved {
        key: Key,
    },
    /// A path that was skipped is not any more. One that failed stays so.
    SkipSolved {
        key: Key,
    },
    /// A look at everything begins: paths that are skipped no more will not be reported again.
    SkipsBegan,
    SkipsEnded,
    /// An object that is neither ours nor of any file here. Replaces what is known of the key.
    Unclaimed {
        key: Key,
        object: Object,
    },
    /// A listing begins: what is unclaimed is learnt anew.
    ListingBegan,
    /// A listing was compared to its end.
    Listed {
        at: Millis,
    },
    /// A look at everything has ended.
    Passed {
        at: Millis,
    },
    /// A person has paused the backup, or let it go on.
    Paused {
        at: Option<Millis>,
    },
    /// Every change made before this moment is in the destination. A later moment stays, unless it
    /// is later than now: then the clock was wrong.
    Proven {
        before: Millis,
        now: Millis,
    },
    /// The source, and perhaps another than before: what was recorded on the disk of the old one
    /// counts as recorded on the disk of this one.
    Identity(Identity),
    /// The number of files, for the budget of deletions.
    Files {
        count: u64,
        at: Millis,
    },
    Owner {
        etag: ETag,
        generation: u64,
        conditional: bool,
    },
    /// A person approved every deletion that waits now.
    Approve,
    /// A person discarded them: the objects stay, unclaimed.
    Discard,
    /// Deletions were held: all that were missing then stay so until a person has seen it.
    Held {
        at: Millis,
        why: String,
    },
    /// A run has ended: by this, or with everything done.
    Ended {
        by: Option<String>,
    },
    /// A person has seen that the state was rebuilt, and what was held.
    Acknowledge,
}

/// A range of keys: all of them, or one and everything that starts with it and a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    All,
    /// Keys that start with this text, which ends with `/`.
    Under(Key),
}

/// The row that all records of a backup hang on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupRow {
    pub identity: Option<Identity>,
    /// When this row was begun; unknown of one that an earlier program made.
    pub made_at: Option<Millis>,
    /// When the bucket was last listed and compared to the end.
    pub listed_at: Option<Millis>,
    /// When the last look at everything ended.
    pub passed_at: Option<Millis>,
    /// Since when a person has it paused.
    pub paused_at: Option<Millis>,
    /// Every change made before this moment is in the destination.
    pub proven_before: Option<Millis>,
    /// Tells this state apart from any other, also of the same machine.
    pub owner_id: String,
    pub owner_etag: Option<ETag>,
    pub owner_generation: u64,
    /// Whether the server honours conditions; `None` while nobody has tried.
    pub conditional: Option<bool>,
    /// The database was found corrupt, and no person has acknowledged it.
    pub rebuilt: bool,
    /// When deletions were last held, and no person has acknowledged it.
    pub held_at: Option<Millis>,
    /// Why, in plain words; unknown where an earlier program held them.
    pub held_why: Option<String>,
    /// What ended the last run, or kept it waiting to its end, in plain words.
    pub ended_by: Option<String>,
}

impl BackupRow {
    /// Whether deletions were held after this record had gone missing, and nobody has looked.
    pub fn held_since(&self, missing: Option<Millis>) -> bool {
        matches!((self.held_at, missing), (Some(at), Some(since)) if since <= at)
    }
}

/// Numbers over all records of a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Files and links that are recorded and not missing.
    pub files: u64,
    pub folders: u64,
    /// Those of the files of which an object was acknowledged, be it an older content's. While
    /// another content is on its way, the size is that content's.
    pub kept: u64,
    pub kept_bytes: u64,
    /// Those of the files whose object is unknown: a request may be on its way.
    pub unsettled: u64,
    pub unsettled_bytes: u64,
    /// Files and links missing, not tagged yet, approved by nobody.
    pub pending: u64,
    /// Of the pending, those whose deletion was announced before and did not come about.
    pub charged: u64,
    pub approved: u64,
    /// Folder markers that are to go.
    pub pending_folders: u64,
    pub unclaimed: u64,
    pub skipped: u64,
    /// Of these, the ones of which nobody knows what is there.
    pub unread: u64,
    pub failed: u64,
    /// Deleted within the last 24 hours, without approval.
    pub spent: u64,
    /// Largest number of files within the last 24 hours.
    pub files_max: u64,
    /// Since when the longest missing record waits.
    pub oldest_missing: Option<Millis>,
}

/// One line of `status --files` and of lists of problems.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProblemRow {
    pub key: Key,
    pub path: RelPath,
    pub failed: bool,
    pub message: String,
    pub attempts: u32,
    pub since: Millis,
}

/// The records of one backup. Reads see every change applied before them.
pub trait StateStore: Send + Sync {
    /// Returns when the changes are durable.
    fn apply(&self, changes: Vec<Change>) -> Fut<'_, Result<(), StateError>>;
    fn backup(&self) -> Fut<'_, Result<BackupRow, StateError>>;
    /// Up to `limit` records after `after`, in key order.
    fn page(
        &self,
        range: KeyRange,
        after: Option<Key>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<(Key, Record)>, StateError>>;
    /// The records of these keys; `None` where there is none.
    fn get(&self, keys: Vec<Key>) -> Fut<'_, Result<Vec<Option<Record>>, StateError>>;
    /// Up to `parts` - 1 keys, in order, that cut the records into equal shares: each is the last
    /// of its share. None where there are fewer records than parts.
    fn split(&self, parts: usize) -> Fut<'_, Result<Vec<Key>, StateError>>;
    fn tally(&self, now: Millis) -> Fut<'_, Result<Tally, StateError>>;
    /// Whether the destination is known to lack something: a path that failed, one of which nobody
    /// knows what is there, or, with `missing`, a file whose object is still to be deleted.
    fn owes(&self, missing: bool) -> Fut<'_, Result<bool, StateError>>;
    /// Missing records that were marked by `before` (approved ones at any time), oldest first.
    fn due(&self, before: Millis, limit: usize) -> Fut<'_, Result<Vec<DeleteItem>, StateError>>;
    /// Records whose file was young when it was read, at or before `before`.
    fn racy(&self, before: Millis, limit: usize) -> Fut<'_, Result<Vec<RelPath>, StateError>>;
    /// The names on record of the files with these inodes. Goes through all records.
    fn named(&self, inodes: BTreeSet<u64>) -> Fut<'_, Result<Vec<RelPath>, StateError>>;
    fn upload(&self, key: &Key) -> Fut<'_, Result<Option<UploadJournal>, StateError>>;
    /// Keys with a journaled upload: as many as were under way at once, or could not be aborted.
    fn uploads(&self) -> Fut<'_, Result<Vec<Key>, StateError>>;
    /// Problems after `after`, in key order.
    fn problems(
        &self,
        after: Option<Key>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<ProblemRow>, StateError>>;
    fn unclaimed(
        &self,
        after: Option<Key>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<(Key, Object)>, StateError>>;
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let failed = |what: &str| Failure::new(ErrorClass::State, what);
        match error {
            StateError::Full(cause) => failed("the disk under the state database is full")
                .because(cause)
                .with_hint("free some space there"),
            StateError::Broken(cause) => failed("the state database failed")
                .because(cause)
                .with_hint("check its disk, and start again: a damaged database is rebuilt"),
        }
    }
}
