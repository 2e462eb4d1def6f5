//! What the outside must offer: local files, a watcher, the object store, the state, a clock.
//!
//! Use-cases see these traits and never an adapter. Each trait is a written contract; one suite of
//! tests runs it on the adapter and on its fake. Errors carry their class ([`ErrorClass`]), decided
//! in the adapter, where the cause is known.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::engine::{Problem, Sight};
use crate::model::{
    ContentMd5, Crc64, ETag, Entry, Fingerprint, Key, Md5, Meta, Millis, Object, ObjectHead,
    Observed, Record, RelPath,
};
#[cfg(doc)]
use crate::plan::ErrorClass;
use crate::plan::{DeleteItem, Failure, Hint, Skip};

/// A future behind a trait object.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

// ---------------------------------------------------------------------------------------- clock

/// Wall-clock time. Delays within a run are measured by the runtime's monotonic clock.
pub trait Clock: Send + Sync {
    fn now(&self) -> Millis;
}

// ---------------------------------------------------------------------------------- local files

/// Which folder the source is, beyond its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// File system id as `statfs` gives it, or the device number where it gives none.
    pub filesystem: u64,
    pub inode: u64,
    /// Birth time in nanoseconds since the epoch, where the file system knows it.
    pub born_ns: Option<i64>,
}

/// What a walk saw at one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Entry(RelPath, Entry),
    Veil(Veil),
}

/// Something at this key hides what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veil {
    /// The rules leave it out; otherwise it could not be looked at.
    pub excluded: bool,
    /// Everything whose key starts with this one is hidden too. Entries that follow in spite of
    /// that were seen; only absence proves nothing.
    pub tree: bool,
    /// What to tell a person.
    pub skip: Option<(RelPath, Skip)>,
}

/// A running walk: batches of what is seen, in key order.
pub trait Walk: Send {
    /// `None` at the end of an error-free walk. After an error nothing more comes.
    fn next(&mut self) -> Fut<'_, Option<Result<Vec<(Key, Seen)>, Failure>>>;
}

/// What `stat` saw at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stat {
    /// Proven: the name does not exist, in a source that was opened without error.
    Absent,
    Unknown(Skip),
    Excluded,
    /// A file or a link.
    Entry(Entry),
    /// A folder; with a marker when it is empty or has a mode of its own.
    Folder(Option<Entry>),
}

/// Why a read gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The name is gone, or is not what it was: plan anew.
    Changed,
    /// This path cannot be read.
    Unreadable(String),
    /// Too many open files and the like: later.
    Busy(Failure),
}

/// A small file, read at once, with what was seen before and after.
#[derive(Clone, Debug)]
pub struct WholeRead {
    pub before: Entry,
    pub after: Entry,
    pub by_path: Observed<Entry>,
    pub bytes: Bytes,
    pub md5: Md5,
    pub crc64: Crc64,
}

/// A range of an open file. `bytes` is shorter than asked for only at the end of the file.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub bytes: Bytes,
    pub digest: PartDigest,
}

/// Digests of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartDigest {
    pub bytes: u64,
    pub md5: Md5,
    pub crc64: Crc64,
}

/// A file that stays open: all its ranges are of the same file, whatever happens to the name.
pub trait OpenFile: Send + Sync {
    /// As `fstat` saw it when it was opened.
    fn opened(&self) -> Entry;
    fn read(&self, offset: u64, length: u64) -> Fut<'_, Result<Chunk, ReadError>>;
    /// Reads without keeping the bytes.
    fn digest(&self, offset: u64, length: u64) -> Fut<'_, Result<PartDigest, ReadError>>;
    /// As `fstat` and a fresh look at the path see it now.
    fn look(&self) -> Fut<'_, Result<(Entry, Observed<Entry>), ReadError>>;
}

/// The files of one source. Never follows a symbolic link below the source, never opens what is
/// neither file nor folder, and never changes anything.
pub trait LocalTree: Send + Sync {
    /// Fails when the source is not there or is no folder.
    fn identity(&self) -> Fut<'_, Result<Identity, Failure>>;

    /// Walks the folder `top` (the whole source for the root). Each folder is handed to `watch`
    /// before its content is listed. An error to open `top` itself fails the walk; a folder below
    /// that cannot be listed becomes a veil.
    fn walk(&self, top: RelPath, watch: Option<Arc<dyn FolderWatch>>) -> Box<dyn Walk>;

    /// The folder whose rules this path is part of: an ignore file, or the name that excludes its
    /// folder. When it changes, everything below that folder must be looked at again.
    fn governed(&self, path: &RelPath) -> Option<RelPath>;

    /// Looks at single paths. Fails as a whole when the source cannot be opened.
    fn stat(&self, paths: Vec<RelPath>) -> Fut<'_, Result<Vec<Stat>, Failure>>;

    /// Reads a file of at most `limit` bytes; more are cut off, and `before` tells.
    fn read_whole(&self, path: RelPath, limit: u64) -> Fut<'_, Result<WholeRead, ReadError>>;
    fn open(&self, path: RelPath) -> Fut<'_, Result<Box<dyn OpenFile>, ReadError>>;
    /// A link's own entry and its target.
    fn read_link(&self, path: RelPath) -> Fut<'_, Result<(Entry, Bytes), ReadError>>;
}

// -------------------------------------------------------------------------------------- watcher

/// What a watcher says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    Hints(Vec<Hint>),
    /// Events were lost; every folder must be watched and looked at again.
    Overflow,
    /// How much is seen has changed, and why, in plain words.
    Sight(Sight, String),
}

/// Adds folders to those that are watched.
pub trait FolderWatch: Send + Sync {
    /// After this returns, a change in these folders makes an event, or the sight is not full.
    fn watch(&self, folders: &[RelPath]);
    /// Another folder is where the source was: forgets what is watched.
    fn reset(&self);
}

/// The stream of a watcher's events.
pub trait HintSource: Send {
    /// Never ends: a watcher that died has said so by its sight.
    fn next(&mut self) -> Fut<'_, WatchEvent>;
}

// --------------------------------------------------------------------------------- object store

/// Why a request to the store did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The condition of a conditional request does not hold (412), or another write won (409).
    Precondition,
    NoSuchUpload,
    NoSuchBucket(Failure),
    /// The server does not know this request.
    Unsupported(String),
    Failed(Failure),
}

/// What must be true of the object for a write to happen, where the server honours conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    None,
    Absent,
    Match(ETag),
}

/// One whole object to be written.
#[derive(Clone, Debug)]
pub struct Put {
    pub key: Key,
    pub body: Bytes,
    pub md5: Md5,
    pub crc64: Crc64,
    pub meta: Meta,
    pub condition: Condition,
}

/// An acknowledged object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub etag: ETag,
    /// Whether the ETag is an MD5 of the content. It is not under KMS encryption, whatever its form.
    pub is_md5: bool,
}

/// One part to be written.
#[derive(Clone, Debug)]
pub struct PutPart {
    pub key: Key,
    pub upload_id: String,
    /// From 1.
    pub number: u32,
    pub body: Bytes,
    pub md5: Md5,
    pub crc64: Crc64,
}

/// A part as the server or the journal knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPart {
    pub number: u32,
    pub size_bytes: u64,
    pub etag: ETag,
}

/// The end of a multipart upload.
#[derive(Clone, Debug)]
pub struct Complete {
    pub key: Key,
    pub upload_id: String,
    pub parts: Vec<JournaledPart>,
    pub size_bytes: u64,
    pub crc64: Crc64,
    pub condition: Condition,
}

/// Result of reading a small object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SmallObject {
    Absent,
    /// It still has the ETag that was asked about.
    Unchanged,
    Found {
        body: Bytes,
        etag: ETag,
    },
}

/// A page of a listing, in key order.
#[derive(Clone, Debug, Default)]
pub struct ListPage {
    pub objects: Vec<(Key, Object)>,
    /// The last key of the page, where more follow.
    pub more_after: Option<Key>,
}

/// Requests sent so far, retries included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts {
    pub put: u64,
    pub get: u64,
    pub head: u64,
    pub list: u64,
    pub copy: u64,
    pub delete: u64,
    /// Creating, completing, aborting and inspecting multipart uploads, and their parts.
    pub multipart: u64,
    pub other: u64,
}

/// One destination: a bucket and a prefix. Keys are relative to the prefix.
///
/// A call may retry for seconds, not for minutes: waiting is the engine's business. An `Ok` means
/// that the server's parsed reply says so.
pub trait ObjectStore: Send + Sync {
    /// Verified by the server against both digests. The ETag in the reply is not judged here.
    fn put(&self, put: Put) -> Fut<'_, Result<Stored, StoreError>>;
    fn head(&self, key: &Key) -> Fut<'_, Result<Option<ObjectHead>, StoreError>>;
    fn get_small(
        &self,
        key: &Key,
        unless: Option<&ETag>,
    ) -> Fut<'_, Result<SmallObject, StoreError>>;
    /// A page of the keys after `after`, without the destination's own records.
    fn list(&self, after: Option<&Key>) -> Fut<'_, Result<ListPage, StoreError>>;
    /// Replaces the metadata of the object with this ETag; content and tags stay.
    fn retouch(&self, key: &Key, etag: &ETag, meta: &Meta) -> Fut<'_, Result<ETag, StoreError>>;
    /// Deletes up to 1,000 objects, each only while it has this ETag where the server can tell.
    /// One result per item, in order; deleting what is not there succeeds.
    fn delete(
        &self,
        items: &[(Key, Option<ETag>)],
    ) -> Fut<'_, Result<Vec<Result<(), StoreError>>, StoreError>>;
    /// Adds `Deleted=True` and `DeletedAt` to the object's tags.
    fn tag_deleted(&self, key: &Key, at: Millis) -> Fut<'_, Result<(), StoreError>>;

    fn create_upload(&self, key: &Key, meta: &Meta) -> Fut<'_, Result<String, StoreError>>;
    fn put_part(&self, part: PutPart) -> Fut<'_, Result<ETag, StoreError>>;
    fn complete_upload(&self, complete: Complete) -> Fut<'_, Result<Stored, StoreError>>;
    /// Succeeds when the upload is not there any more.
    fn abort_upload(&self, key: &Key, upload_id: &str) -> Fut<'_, Result<(), StoreError>>;
    fn list_parts(
        &self,
        key: &Key,
        upload_id: &str,
    ) -> Fut<'_, Result<Vec<StoredPart>, StoreError>>;
    /// Ids of the open uploads of exactly this key.
    fn list_uploads(&self, key: &Key) -> Fut<'_, Result<Vec<String>, StoreError>>;
    /// Size of the first part of a multipart object, where the server can tell.
    fn first_part_size(&self, key: &Key) -> Fut<'_, Result<Option<u64>, StoreError>>;

    /// Makes the bucket; succeeds when it is there and ours already.
    fn create_bucket(&self) -> Fut<'_, Result<(), StoreError>>;
    fn requests(&self) -> RequestCounts;
}

// ---------------------------------------------------------------------------------------- state

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
    /// The object was acknowledged, or found to be right. Ends its multipart journal and problem.
    Synced {
        key: Key,
        record: Record,
    },
    /// The name is missing since `at`, if it was not marked before.
    Missing {
        key: Key,
        at: Millis,
    },
    /// The name is there again.
    Found {
        key: Key,
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
    /// A person has seen that the state was rebuilt.
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
    /// When the bucket was last listed and compared to the end.
    pub listed_at: Option<Millis>,
    /// Tells this state apart from any other, also of the same machine.
    pub owner_id: String,
    pub owner_etag: Option<ETag>,
    pub owner_generation: u64,
    /// Whether the server honours conditions; `None` while nobody has tried.
    pub conditional: Option<bool>,
    /// The database was found corrupt, and no person has acknowledged it.
    pub rebuilt: bool,
}

/// Numbers over all records of a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Files and links that are recorded and not missing.
    pub files: u64,
    pub folders: u64,
    pub bytes: u64,
    /// Files and links missing, not tagged yet, approved by nobody.
    pub pending: u64,
    pub approved: u64,
    /// Folder markers that are to go.
    pub pending_folders: u64,
    pub unclaimed: u64,
    pub skipped: u64,
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
    fn tally(&self, now: Millis) -> Fut<'_, Result<Tally, StateError>>;
    /// Missing records that were marked by `before` (approved ones at any time), oldest first.
    fn due(&self, before: Millis, limit: usize) -> Fut<'_, Result<Vec<DeleteItem>, StateError>>;
    /// Records whose file was young when it was read, at or before `before`.
    fn racy(&self, before: Millis, limit: usize) -> Fut<'_, Result<Vec<RelPath>, StateError>>;
    fn upload(&self, key: &Key) -> Fut<'_, Result<Option<UploadJournal>, StateError>>;
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
        Failure::new(crate::plan::ErrorClass::State, error.to_string())
    }
}

impl PartDigest {
    /// Digests over all parts together: the composite MD5, and the CRC of the whole content.
    pub fn combine(parts: &[PartDigest], part_size: u64) -> (ContentMd5, Crc64) {
        let md5 = ContentMd5::of_parts(parts.iter().map(|p| &p.md5), part_size);
        let crc64 = parts.iter().fold(Crc64::EMPTY, |crc, p| crc.then(p.crc64, p.bytes));
        (md5, crc64)
    }
}
