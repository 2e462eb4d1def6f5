//! HEAD, small GETs, and making the bucket.

use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::types::{BucketLocationConstraint, ChecksumMode, CreateBucketConfiguration};
use bytes::Bytes;

use crate::model::{ETag, Key, ObjectHead};
use crate::plan::ErrorClass;
use crate::ports::{ObjectId, ReadHead, SmallObject, StoreError};

use super::head::told;
use super::{S3Store, error};

/// No object that is read whole is larger.
const SMALL_MAX_BYTES: usize = 1024 * 1024;

impl S3Store {
    pub(super) async fn head_object(&self, key: &Key) -> Result<Option<ObjectHead>, StoreError> {
        let what = || self.describe("look at", key);
        let sent = self
            .client()
            .head_object()
            .bucket(&self.options.bucket)
            .key(self.absolute(key)?)
            .checksum_mode(ChecksumMode::Enabled)
            .set_expected_bucket_owner(self.options.bucket_owner.clone())
            .send()
            .await;
        match sent {
            Ok(reply) => match told!(reply).head() {
                Some(head) => {
                    let (crc64, tags) = (head.crc64(), self.count_of_tags(head.tags, false));
                    let ReadHead { object, meta, .. } = head;
                    Ok(Some(ObjectHead { object, meta, crc64, tags }))
                }
                None => Err(error::not_s3(&what(), "its reply has no ETag")),
            },
            Err(e) if e.as_service_error().is_some_and(|e| e.is_not_found()) => Ok(None),
            Err(e) if error::is_wordless(&e) => {
                let id = ObjectId { key: key.clone(), version: None, etag: None };
                Err(self.why_refused(&what(), &id).await)
            }
            Err(e) => Err(self.explained(&what(), &e)),
        }
    }

    /// Why S3 refused a HEAD. A GET needs the same permission, and its refusal has words: keys that
    /// have changed are not taken for an object that may not be read.
    pub(super) async fn why_refused(&self, what: &error::What, id: &ObjectId) -> StoreError {
        let key = match self.absolute(&id.key) {
            Ok(key) => key,
            Err(error) => return error,
        };
        let asked = self
            .ask(|client| {
                client
                    .get_object()
                    .bucket(&self.options.bucket)
                    .key(&key)
                    .set_version_id(id.version.clone())
                    .range("bytes=0-0")
                    .set_expected_bucket_owner(self.options.bucket_owner.clone())
                    .send()
            })
            .await;
        match asked.err().map(|e| self.explained(what, &e)) {
            Some(StoreError::Failed(failure)) if failure.class != ErrorClass::Path => {
                StoreError::Failed(failure)
            }
            _ => StoreError::Failed(what.failed(
                ErrorClass::Server,
                "the server refuses to look at what it then lets be read",
            )),
        }
    }

    /// Of an object that is still the one that is meant.
    pub(super) async fn size_of_part(
        &self,
        id: &ObjectId,
        number: u32,
    ) -> Result<Option<u64>, StoreError> {
        let key = self.absolute(&id.key)?;
        let sent = self
            .ask(|client| {
                client
                    .head_object()
                    .bucket(&self.options.bucket)
                    .key(&key)
                    .part_number(i32::try_from(number).unwrap_or(i32::MAX))
                    .set_version_id(id.version.clone())
                    .set_if_match(id.etag.as_ref().map(ETag::quoted))
                    .set_expected_bucket_owner(self.options.bucket_owner.clone())
                    .send()
            })
            .await;
        match sent {
            // A server that does not know parts shows the whole object.
            Ok(reply) if reply.parts_count().is_some() && shows(reply.e_tag(), id) => {
                Ok(reply.content_length().and_then(|n| u64::try_from(n).ok()))
            }
            Ok(_) => Ok(None),
            Err(e) if error::is_wordless(&e) => {
                Err(self.why_refused(&self.about("look at", id), id).await)
            }
            Err(e) => match self.explained(&self.about("look at", id), &e) {
                StoreError::Unsupported(_) | StoreError::Precondition => Ok(None),
                error => Err(error),
            },
        }
    }

    pub(super) async fn get_from_above(&self, key: &Key) -> Result<Vec<(Key, Bytes)>, StoreError> {
        let mut found = vec![];
        for prefix in self.options.prefix.above() {
            let key = format!("{}{}", prefix.as_str(), key.as_str());
            let what = self.what(format!("read {key}, above {}", self.place()));
            match self.read_small(&what, &key, None).await {
                Ok(SmallObject::Found { body, .. }) => found.push((Key::literal(&key), body)),
                Ok(SmallObject::Absent | SmallObject::Unchanged) => {}
                // Credentials may be good for one prefix only.
                Err(error) if error.is_denied() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    pub(super) async fn get_object(
        &self,
        key: &Key,
        unless: Option<&ETag>,
    ) -> Result<SmallObject, StoreError> {
        self.read_small(&self.describe("read", key), &self.absolute(key)?, unless).await
    }

    async fn read_small(
        &self,
        what: &error::What,
        absolute: &str,
        unless: Option<&ETag>,
    ) -> Result<SmallObject, StoreError> {
        let sent = self
            .ask(|client| {
                client
                    .get_object()
                    .bucket(&self.options.bucket)
                    .key(absolute)
                    .set_if_none_match(unless.map(ETag::quoted))
                    .set_expected_bucket_owner(self.options.bucket_owner.clone())
                    .send()
            })
            .await;
        let reply = match sent {
            Ok(reply) => reply,
            Err(e) => {
                let status = e.raw_response().map(|r| r.status().as_u16());
                return match e.as_service_error() {
                    Some(GetObjectError::NoSuchKey(_)) => Ok(SmallObject::Absent),
                    _ if status == Some(304) => Ok(SmallObject::Unchanged),
                    _ => Err(self.explained(what, &e)),
                };
            }
        };
        let Some(etag) = reply.e_tag().map(ETag::new) else {
            return Err(error::not_s3(what, "its reply has no ETag"));
        };
        if reply.content_length().is_some_and(|n| n > SMALL_MAX_BYTES as i64) {
            return Err(error::not_s3(what, "the object is far larger than it should be"));
        }
        match reply.body.collect().await {
            Ok(body) => Ok(SmallObject::Found { body: body.into_bytes(), etag }),
            Err(e) => Err(error::not_s3(what, &format!("its reply broke off: {e}"))),
        }
    }

    pub(super) async fn make_bucket(&self) -> Result<(), StoreError> {
        let connection = &self.way().connection;
        let region = connection.region().filter(|r| *r != "us-east-1");
        let location = region.map(|region| {
            CreateBucketConfiguration::builder()
                .location_constraint(BucketLocationConstraint::from(region))
                .build()
        });
        let bucket = &self.options.bucket;
        let sent = self
            .client()
            .create_bucket()
            .bucket(bucket)
            .set_create_bucket_configuration(location)
            .send()
            .await;
        match sent {
            Ok(_) => Ok(()),
            Err(e) if e.as_service_error().is_some_and(|e| e.is_bucket_already_owned_by_you()) => {
                Ok(())
            }
            Err(e) => Err(self.explained(&self.what(format!("make the bucket {bucket}")), &e)),
        }
    }
}

/// Whether a reply is about the object that is meant. Not every server honours conditions.
pub(super) fn shows(etag: Option<&str>, id: &ObjectId) -> bool {
    id.etag.as_ref().is_none_or(|meant| etag.is_some_and(|etag| ETag::new(etag) == *meant))
}
