//! The objects of a backup, read back: listed as of a moment, fetched, thawed; never changed.

use std::ops::Range;

use bytes::Bytes;

use crate::model::{Checksum, Crc64, ETag, Key, Md5, Meta, Millis, Object};

use super::{Fut, ReplyCounts, RequestCounts, StoreError};

/// One version of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectId {
    pub key: Key,
    /// `None`: the current one.
    pub version: Option<String>,
    /// Read only while it has this ETag; another one is [`Fetched::Changed`].
    pub etag: Option<ETag>,
}

/// How far an object of an archive class is from being readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thaw {
    /// Nobody has asked for it, or the copy has expired.
    Frozen,
    /// Asked for, and not there yet.
    Ongoing,
    /// Readable for some days.
    Thawed,
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    pub key: Key,
    pub object: Object,
    /// `None` where the listing does not tell.
    pub thaw: Option<Thaw>,
}

/// A page of current objects, in key order, without the destination's own records.
#[derive(Clone, Debug, Default)]
pub struct ObjectPage {
    pub objects: Vec<ListedObject>,
    /// An object with content has the very name of the place, and so no key in it.
    pub nameless: bool,
    /// The last key of the page, where more follow.
    pub more_after: Option<Key>,
}

/// A version, or the mark of a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedVersion {
    pub key: Key,
    /// `null` for what was written while the bucket kept no versions.
    pub version: String,
    /// `None` for a delete marker.
    pub object: Option<Object>,
    pub modified: Millis,
    pub latest: bool,
}

/// Where a listing of versions goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionMark {
    pub key: Key,
    pub version: String,
}

/// A page of versions: in key order, the newest first within a key.
#[derive(Clone, Debug, Default)]
pub struct VersionPage {
    pub versions: Vec<ListedVersion>,
    pub more_after: Option<VersionMark>,
}

/// What a server tells of an object when it is looked at or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadHead {
    pub object: Object,
    pub meta: Meta,
    /// As the server keeps it.
    pub checksum: Option<Checksum>,
    /// Of the whole content: the ETag where it is an MD5, or rclone's `md5chksum` metadata.
    pub md5: Option<Md5>,
    /// Whether the ETag is made of MD5s: under KMS it is not, whatever its form.
    pub etag_is_md5: bool,
    /// Number of tags, where the server tells.
    pub tags: Option<u32>,
    /// Of an object in an archive class.
    pub thaw: Option<Thaw>,
}

impl ReadHead {
    /// Of the whole object, where the server keeps one.
    pub fn crc64(&self) -> Option<Crc64> {
        self.checksum.as_ref()?.crc64()
    }
}

/// What came of asking for one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched<T> {
    Found(T),
    /// It is not there (any more).
    Gone,
    /// It has another ETag than the one asked for.
    Changed,
    /// It must be thawed first.
    Archived,
}

/// The content of an object, as it comes.
pub trait Body: Send {
    /// `None` at the end. After an error nothing more comes; what came before it is good as far as
    /// the transport can tell.
    fn next(&mut self) -> Fut<'_, Option<Result<Bytes, StoreError>>>;
}

/// An object being read.
pub struct Reading {
    pub head: ReadHead,
    pub body: Box<dyn Body>,
}

/// How fast, and at what price, an archived object is thawed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    Bulk,
    #[default]
    Standard,
    Expedited,
}

/// What came of asking for an object to be thawed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ThawReply {
    /// Accepted now.
    Requested,
    /// Asked for before, and still under way.
    Ongoing,
    /// Readable already.
    Thawed,
    /// The class does not need it.
    NotArchived,
    Gone,
}

/// One place that is read back: a bucket and a prefix. Keys are relative to the prefix.
///
/// A call may retry for seconds, not for minutes.
pub trait ObjectReader: Send + Sync {
    /// A page of the current objects after `after`, in key order.
    fn list(&self, after: Option<&Key>) -> Fut<'_, Result<ObjectPage, StoreError>>;
    fn list_versions(
        &self,
        after: Option<&VersionMark>,
    ) -> Fut<'_, Result<VersionPage, StoreError>>;
    /// Whether the bucket keeps versions, or once did.
    fn keeps_versions(&self) -> Fut<'_, Result<bool, StoreError>>;
    fn head(&self, id: &ObjectId) -> Fut<'_, Result<Fetched<ReadHead>, StoreError>>;
    /// Opens the whole content, or a range of it that is not empty.
    fn read(
        &self,
        id: &ObjectId,
        range: Option<Range<u64>>,
    ) -> Fut<'_, Result<Fetched<Reading>, StoreError>>;
    /// Size of a part, counted from 1, of an object that was sent in parts, where the server can
    /// tell.
    fn part_size(&self, id: &ObjectId, number: u32) -> Fut<'_, Result<Option<u64>, StoreError>>;
    /// The moment of `DeletedAt` when the object is tagged `Deleted=True`; the beginning of time
    /// where that is missing or unreadable. `None` for one that is not tagged so, and on servers
    /// without tags.
    fn deleted_at(&self, id: &ObjectId) -> Fut<'_, Result<Option<Millis>, StoreError>>;
    /// Asks for an archived object to be readable for some days.
    fn thaw(&self, id: &ObjectId, tier: Tier, days: u32) -> Fut<'_, Result<ThawReply, StoreError>>;
    /// Bucket and prefix as a person knows them.
    fn place(&self) -> String;
    fn requests(&self) -> RequestCounts;
    fn replies(&self) -> ReplyCounts;
}
