//! The object store: one bucket and prefix, with what S3 offers and errors that carry their class.

use bytes::Bytes;

use crate::model::{Checksum, Crc64, ETag, Key, Md5, Meta, Millis, Object, ObjectHead};
use crate::plan::{ErrorClass, Failure};

use super::{Fut, JournaledPart};

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

impl StoreError {
    /// Whether this may not be done with these credentials.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Failed(failure) if failure.class == ErrorClass::Denied)
    }
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
    /// Whether the ETag is an MD5 of the content: under KMS it is not, whatever its form.
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
    /// In an upload whose parts carry another checksum than CRC64NVME. Not in the journal: the
    /// server tells it.
    pub checksum: Option<Checksum>,
}

impl StoredPart {
    /// Whether this is the same part, by all that both of them must know.
    pub fn is(&self, other: &Self) -> bool {
        let known = |part: &Self| (part.number, part.size_bytes, part.etag.clone());
        known(self) == known(other)
    }
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

/// A multipart upload that was neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenUpload {
    pub key: Key,
    pub upload_id: String,
    /// When it was begun, by the server's clock.
    pub begun: Millis,
}

/// Some of the open uploads, in key order.
#[derive(Clone, Debug, Default)]
pub struct UploadPage {
    pub uploads: Vec<OpenUpload>,
    /// The place to go on from, where more follow.
    pub more_after: Option<UploadMark>,
}

/// A place among the open uploads: the server's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadMark {
    pub key: String,
    pub upload_id: Option<String>,
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

/// What became of requests so far, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyCounts {
    /// Answered, also with "not modified".
    pub ok: RequestCounts,
    /// Answered with a status of 400 to 499, as "not found" and "precondition failed" are.
    pub refused: RequestCounts,
    /// Answered with a status of 500 or more.
    pub failed: RequestCounts,
    /// No answer came.
    pub lost: RequestCounts,
    /// Requests that were sent again within one call.
    pub retried: u64,
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
    /// Objects of this name under each prefix above the destination's own, with their whole keys.
    /// Those that may not be read are left out.
    fn get_above(&self, key: &Key) -> Fut<'_, Result<Vec<(Key, Bytes)>, StoreError>>;
    /// A page of the keys after `after`, without the destination's own records.
    fn list(&self, after: Option<&Key>) -> Fut<'_, Result<ListPage, StoreError>>;
    /// Replaces the metadata of the object with this ETag; content and tags stay. Where another
    /// object is there, or none, that is [`StoreError::Precondition`].
    fn retouch(&self, key: &Key, etag: &ETag, meta: &Meta) -> Fut<'_, Result<ETag, StoreError>>;
    /// Deletes up to 1,000 objects, each only while it has this ETag where the server can tell.
    /// One result per item, in order; deleting what is not there succeeds.
    fn delete(
        &self,
        items: &[(Key, Option<ETag>)],
    ) -> Fut<'_, Result<Vec<Result<(), StoreError>>, StoreError>>;
    /// Adds `Deleted=True` and `DeletedAt` to the object's tags; succeeds when it is not there. A
    /// tag of its own that has one of these names, and is no mark, is a failure: it stays.
    fn tag_deleted(&self, key: &Key, at: Millis) -> Fut<'_, Result<(), StoreError>>;
    /// Takes `Deleted=True` and the `DeletedAt` beside it off; answers whether they were there.
    /// Others stay.
    fn untag_deleted(&self, key: &Key) -> Fut<'_, Result<bool, StoreError>>;

    fn create_upload(&self, key: &Key, meta: &Meta) -> Fut<'_, Result<String, StoreError>>;
    fn put_part(&self, part: PutPart) -> Fut<'_, Result<StoredPart, StoreError>>;
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
    /// A page of all open uploads below the prefix, whoever began them.
    fn list_open_uploads(
        &self,
        after: Option<&UploadMark>,
    ) -> Fut<'_, Result<UploadPage, StoreError>>;
    /// Size of the first part of a multipart object, where the server can tell.
    fn first_part_size(&self, key: &Key) -> Fut<'_, Result<Option<u64>, StoreError>>;

    /// Makes the bucket; succeeds when it is there and ours already.
    fn create_bucket(&self) -> Fut<'_, Result<(), StoreError>>;
    fn requests(&self) -> RequestCounts;
    fn replies(&self) -> ReplyCounts;
    /// Whether [`Self::delete`] is known to spare an object with another ETag than the given one.
    /// Servers that honour conditions on writes may still ignore them on deletes.
    fn deletes_on_condition(&self) -> bool;
}
