//! Adapter to S3 through the AWS SDK: one bucket and one prefix behind [`ObjectStore`], and behind
//! [`ObjectReader`](crate::ports::ObjectReader) where it is read back; and two of them behind
//! [`CopySource`](crate::ports::CopySource) and [`CopyTarget`](crate::ports::CopyTarget).
//!
//! Retries for seconds, not for minutes; waiting is the engine's business. Every error leaves with
//! its class, its cause and, where one is known, the next step.
//!
//! Built by `cli::wire`; use-cases see [`crate::ports::ObjectStore`].

mod body;
mod checksum;
mod connect;
mod copies;
mod copy;
mod count;
mod delete;
mod direct;
mod environment;
mod error;
mod foreign;
mod get;
mod head;
mod keys;
mod list;
mod multipart;
mod put;
mod read;
mod reader;
mod tags;
mod thaw;
mod trust;
mod versions;

use std::sync::Arc;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{ServerSideEncryption, StorageClass};
use bytes::Bytes;

use crate::model::{ETag, Escaped, Key, Meta, Millis, ObjectHead, Prefix};
use crate::plan::ErrorClass;
use crate::ports::{
    Complete, Fut, ListPage, ObjectId, ObjectStore, Put, PutPart, ReplyCounts, RequestCounts,
    SmallObject, StoreError, Stored, StoredPart, UploadMark, UploadPage,
};

use self::error::{SdkFailure, SdkResult};

pub use connect::{ConnectError, Connection, Endpoint};

/// Where the SDK tells in its log how it came to its credentials, external ids of roles included.
pub const TELLS_OF_ROLES: &str = "aws_config::profile::credentials";

/// Where and how to store.
#[derive(Clone, Debug, Default)]
pub struct S3Options {
    pub bucket: String,
    pub prefix: Prefix,
    /// Bucket and prefix as a person knows them, unless that is `s3://bucket/prefix/`.
    pub place: Option<String>,
    pub storage_class: Option<String>,
    pub sse: Option<String>,
    pub sse_kms_key_id: Option<String>,
    /// The account that must own the bucket.
    pub bucket_owner: Option<String>,
    /// It is a destination, which is made where that is asked for.
    pub may_be_made: bool,
    /// Bytes a second for what is sent and received; `None` without a limit.
    pub bandwidth: Option<u64>,
}

/// A destination.
pub struct S3Store {
    /// Replaced when the bucket turns out to be in another region, or its keys to be refused.
    way: RwLock<Arc<Way>>,
    counter: count::Counter,
    pace: Option<Arc<body::Pace>>,
    options: S3Options,
    storage_class: Option<StorageClass>,
    sse: Option<ServerSideEncryption>,
    /// Whether the server has shown that it knows CRC64NVME. On AWS it does.
    crc64: AtomicBool,
    /// Whether it has refused a request that carried one, and taken the same without.
    refuses_crc64: AtomicBool,
    /// Whether listings are asked how far archived objects are thawed: until the server refuses.
    lists_thaws: AtomicBool,
    telling: tags::Telling,
}

/// How the bucket is reached.
struct Way {
    connection: Connection,
    client: Client,
    direct: Arc<direct::Direct>,
}

impl Way {
    fn new(connection: Connection, counter: &count::Counter) -> Self {
        let client = connection.client(counter);
        Self { client, direct: connection.direct(), connection }
    }
}

impl S3Store {
    /// Sends nothing yet.
    pub fn new(connection: Connection, options: S3Options) -> Self {
        let counter = count::Counter::default();
        Self {
            pace: options.bandwidth.map(|limit| Arc::new(body::Pace::new(limit))),
            storage_class: options.storage_class.as_deref().map(StorageClass::from),
            sse: options.sse.as_deref().map(ServerSideEncryption::from),
            crc64: AtomicBool::new(connection.is_aws()),
            refuses_crc64: AtomicBool::new(false),
            lists_thaws: AtomicBool::new(true),
            telling: tags::Telling::default(),
            way: RwLock::new(Arc::new(Way::new(connection, &counter))),
            counter,
            options,
        }
    }

    fn way(&self) -> Arc<Way> {
        self.way.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn client(&self) -> Client {
        self.way().client.clone()
    }

    fn go_by(&self, connection: Connection) {
        let way = Arc::new(Way::new(connection, &self.counter));
        *self.way.write().unwrap_or_else(std::sync::PoisonError::into_inner) = way;
    }

    /// Sends a request, and once more where a reply says that the bucket is in another region.
    async fn ask<T, E, F>(&self, send: impl Fn(Client) -> F + Send + Sync) -> SdkResult<T, E>
    where
        F: Future<Output = SdkResult<T, E>> + Send,
        E: ProvideErrorMetadata,
    {
        let sent = send(self.client()).await;
        let elsewhere = sent.as_ref().err().and_then(error::other_region);
        match elsewhere {
            Some(region) if self.way().connection.region() != Some(&region) => {
                self.move_to_region(&region);
                send(self.client()).await
            }
            _ => sent,
        }
    }

    /// Explains an error. Keys that were refused are looked for again at the next request.
    fn explained<E>(&self, what: &error::What, error: &SdkFailure<E>) -> StoreError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        self.keys_in_doubt(error::explain(what, error))
    }

    /// The same for a request that only tells what is there.
    fn explained_question<E>(&self, what: &error::What, error: &SdkFailure<E>) -> StoreError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        self.keys_in_doubt(error::explain_question(what, error))
    }

    /// Forgets keys that were refused: the SDK keeps what it was once given.
    fn keys_in_doubt(&self, error: StoreError) -> StoreError {
        if let StoreError::Failed(failure) = &error
            && failure.class == ErrorClass::Credentials
        {
            self.go_by(self.way().connection.with_new_keys());
        }
        error
    }

    /// Whether the server is known to tell of thaws all there is to tell, so that what it does not
    /// mention is not there.
    fn tells_all(&self) -> bool {
        let connection = &self.way().connection;
        connection.is_aws() || connection.is_in_process()
    }

    /// The bucket is elsewhere: talks to that region from now on.
    fn move_to_region(&self, region: &str) {
        tracing::info!(bucket = self.options.bucket, region, "the bucket is in another region");
        self.go_by(self.way().connection.in_region(region));
    }

    /// The key in the bucket. One that is too long has been skipped before.
    fn absolute(&self, key: &Key) -> Result<String, StoreError> {
        self.options.prefix.absolute(key).map_err(|error| {
            let what = self.describe("name", key);
            StoreError::Failed(what.failed(ErrorClass::Path, error.to_string()))
        })
    }

    /// What requests are about, in errors.
    fn describe(&self, action: &str, key: &Key) -> error::What {
        self.what(format!("{action} {}{key}", self.place()))
    }

    fn about(&self, action: &str, id: &ObjectId) -> error::What {
        let mut what = self.describe(action, &id.key);
        if let Some(version) = &id.version {
            what.request += &format!(" (version {version})");
        }
        what
    }

    fn place(&self) -> String {
        let S3Options { bucket, prefix, place, .. } = &self.options;
        let place = place.clone().unwrap_or_else(|| format!("s3://{bucket}/{}", prefix.as_str()));
        Escaped(place.as_bytes()).to_string()
    }

    fn what(&self, request: String) -> error::What {
        let connection = &self.way().connection;
        let (endpoint, credentials) = (connection.endpoint(), connection.credentials_place());
        error::What { request, endpoint, credentials, may_be_made: self.options.may_be_made }
    }

    fn knows_crc64(&self) -> bool {
        self.sends_crc64() && self.crc64.load(Ordering::Relaxed)
    }

    fn sends_crc64(&self) -> bool {
        !self.refuses_crc64.load(Ordering::Relaxed)
    }

    fn stored(etag: &str, sse: Option<&ServerSideEncryption>) -> Stored {
        let etag = ETag::new(etag);
        Stored { is_md5: head::shows_md5(sse) && etag.as_md5().is_some(), etag }
    }

    /// A reply carried the checksum that was sent: the server verified it.
    fn saw_crc64(&self, checksum: Option<&str>) {
        if checksum.is_some() {
            self.crc64.store(true, Ordering::Relaxed);
        }
    }
}

/// XML cannot carry every character of a key, and the lists of deletions and the replies to
/// multipart requests are XML. (Listings are asked for in another encoding.)
fn fits_xml(key: &Key) -> bool {
    key.as_str().chars().all(|c| matches!(c, ' '..='\u{fffd}' | '\u{10000}'..))
}

impl ObjectStore for S3Store {
    fn put(&self, put: Put) -> Fut<'_, Result<Stored, StoreError>> {
        Box::pin(self.put_object(put))
    }

    fn head(&self, key: &Key) -> Fut<'_, Result<Option<ObjectHead>, StoreError>> {
        let key = key.clone();
        Box::pin(async move { self.head_object(&key).await })
    }

    fn get_small(
        &self,
        key: &Key,
        unless: Option<&ETag>,
    ) -> Fut<'_, Result<SmallObject, StoreError>> {
        let (key, unless) = (key.clone(), unless.cloned());
        Box::pin(async move { self.get_object(&key, unless.as_ref()).await })
    }

    fn get_above(&self, key: &Key) -> Fut<'_, Result<Vec<(Key, Bytes)>, StoreError>> {
        let key = key.clone();
        Box::pin(async move { self.get_from_above(&key).await })
    }

    fn list(&self, after: Option<&Key>) -> Fut<'_, Result<ListPage, StoreError>> {
        let after = after.cloned();
        Box::pin(async move { self.list_objects(after.as_ref()).await })
    }

    fn retouch(&self, key: &Key, etag: &ETag, meta: &Meta) -> Fut<'_, Result<ETag, StoreError>> {
        let (key, etag, meta) = (key.clone(), etag.clone(), *meta);
        Box::pin(async move { self.copy_onto_itself(&key, &etag, &meta).await })
    }

    fn delete(
        &self,
        items: &[(Key, Option<ETag>)],
    ) -> Fut<'_, Result<Vec<Result<(), StoreError>>, StoreError>> {
        let items = items.to_vec();
        Box::pin(async move { self.delete_objects(&items).await })
    }

    fn tag_deleted(&self, key: &Key, at: Millis) -> Fut<'_, Result<(), StoreError>> {
        let key = key.clone();
        Box::pin(async move { self.tag_as_deleted(&key, at).await })
    }

    fn untag_deleted(&self, key: &Key) -> Fut<'_, Result<bool, StoreError>> {
        let key = key.clone();
        Box::pin(async move { self.take_marks_off(&key).await })
    }

    fn create_upload(&self, key: &Key, meta: &Meta) -> Fut<'_, Result<String, StoreError>> {
        let (key, meta) = (key.clone(), *meta);
        Box::pin(async move { self.create_multipart(&key, &meta).await })
    }

    fn put_part(&self, part: PutPart) -> Fut<'_, Result<StoredPart, StoreError>> {
        Box::pin(self.upload_part(part))
    }

    fn complete_upload(&self, complete: Complete) -> Fut<'_, Result<Stored, StoreError>> {
        Box::pin(self.complete_multipart(complete))
    }

    fn abort_upload(&self, key: &Key, upload_id: &str) -> Fut<'_, Result<(), StoreError>> {
        let (key, upload_id) = (key.clone(), upload_id.to_owned());
        Box::pin(async move { self.abort_multipart(&key, &upload_id).await })
    }

    fn list_parts(
        &self,
        key: &Key,
        upload_id: &str,
    ) -> Fut<'_, Result<Vec<StoredPart>, StoreError>> {
        let (key, upload_id) = (key.clone(), upload_id.to_owned());
        Box::pin(async move { self.parts_of(&key, &upload_id).await })
    }

    fn list_uploads(&self, key: &Key) -> Fut<'_, Result<Vec<String>, StoreError>> {
        let key = key.clone();
        Box::pin(async move { self.uploads_of(&key).await })
    }

    fn list_open_uploads(
        &self,
        after: Option<&UploadMark>,
    ) -> Fut<'_, Result<UploadPage, StoreError>> {
        let after = after.cloned();
        Box::pin(async move { self.page_of_uploads(after).await })
    }

    fn first_part_size(&self, key: &Key) -> Fut<'_, Result<Option<u64>, StoreError>> {
        let id = ObjectId { key: key.clone(), version: None, etag: None };
        Box::pin(async move { self.size_of_part(&id, 1).await })
    }

    fn create_bucket(&self) -> Fut<'_, Result<(), StoreError>> {
        Box::pin(self.make_bucket())
    }

    fn requests(&self) -> RequestCounts {
        self.counter.counts()
    }

    fn replies(&self) -> ReplyCounts {
        self.counter.replies()
    }

    fn deletes_on_condition(&self) -> bool {
        self.tells_all()
    }
}
