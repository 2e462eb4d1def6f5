//! Objects copied from one place to another: within a server, or through this machine.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::model::checksum::Form;
use crate::model::{Checksum, Crc64, ETag, Key, Md5};

use super::{
    Fetched, Fut, ObjectId, ObjectReader, ObjectStore, ReadHead, StoreError, Stored, StoredPart,
};

/// What an object has beside its content, in the terms of HTTP and S3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
    pub content_disposition: Option<String>,
    pub content_encoding: Option<String>,
    pub content_language: Option<String>,
    /// As it was written, be it a date or not.
    pub expires: Option<String>,
    pub website_redirect: Option<String>,
    /// `None` for the standard one.
    pub storage_class: Option<String>,
    /// User metadata, without the `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
}

/// Names and values.
pub type Tags = Vec<(String, String)>;

/// An object with everything that a copy keeps, its tags aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullHead {
    pub head: ReadHead,
    pub headers: Headers,
    /// Of a bucket that keeps versions.
    pub version: Option<String>,
}

/// One version of an object, as any bucket of its server can name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub bucket: String,
    /// In the bucket, prefix included.
    pub key: String,
    pub version: Option<String>,
    /// Copied only while it has this ETag.
    pub etag: Option<ETag>,
    /// The account that must own its bucket.
    pub bucket_owner: Option<String>,
}

/// A copy within the server, by one request.
#[derive(Clone, Debug)]
pub struct Copy {
    pub key: Key,
    pub origin: Origin,
    pub size_bytes: u64,
    /// Those that a server does not copy by itself are set from these.
    pub headers: Headers,
}

/// The beginning of a copy in parts.
#[derive(Clone, Debug)]
pub struct CreateCopy {
    pub key: Key,
    pub headers: Headers,
    pub tags: Tags,
    /// That of the source: the copy has one of the same algorithm, as far as the server can.
    pub checksum: Option<Form>,
    /// Its parts come with checksums of this machine; otherwise with those that the server makes.
    pub streamed: bool,
}

/// A range of an object, copied within the server into an open upload.
#[derive(Clone, Debug)]
pub struct CopyPart {
    pub key: Key,
    pub upload_id: String,
    /// From 1.
    pub number: u32,
    pub origin: Origin,
    pub offset: u64,
    /// More than 0.
    pub length: u64,
}

/// A whole object that came through this machine.
#[derive(Clone, Debug)]
pub struct PutCopy {
    pub key: Key,
    pub body: Bytes,
    pub md5: Md5,
    pub crc64: Crc64,
    /// That of the source. Nothing is written where it is of the content, and says something else.
    pub checksum: Option<Checksum>,
    pub headers: Headers,
    pub tags: Tags,
}

/// A place that is copied from. Keys are relative to its prefix.
pub trait CopySource: ObjectReader {
    fn look(&self, id: &ObjectId) -> Fut<'_, Result<Fetched<FullHead>, StoreError>>;
    /// Fails as [`StoreError::Unsupported`] on a server without tags.
    fn tags(&self, id: &ObjectId) -> Fut<'_, Result<Fetched<Tags>, StoreError>>;
    fn origin(&self, id: &ObjectId) -> Result<Origin, StoreError>;
}

/// A place that is copied into. Keys are relative to its prefix.
pub trait CopyTarget: ObjectStore {
    /// Whether objects can have tags here. Fails as [`StoreError::NoSuchBucket`] where nobody can
    /// tell yet.
    fn knows_tags(&self) -> Fut<'_, Result<bool, StoreError>>;
    /// Copies content, headers, metadata and tags of up to 5 GiB. The digests are the server's
    /// business. [`Fetched::Changed`]: the origin is another object by now.
    fn copy(&self, copy: Copy) -> Fut<'_, Result<Fetched<ETag>, StoreError>>;
    /// Opens an upload; answers with its id.
    fn create_copy(&self, copy: CreateCopy) -> Fut<'_, Result<String, StoreError>>;
    fn copy_part(&self, part: CopyPart) -> Fut<'_, Result<Fetched<StoredPart>, StoreError>>;
    fn put_copy(&self, put: PutCopy) -> Fut<'_, Result<Stored, StoreError>>;
}
