//! HEAD, small GETs, and making the bucket.

use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{
    BucketLocationConstraint, ChecksumMode, CreateBucketConfiguration, StorageClass,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use crate::model::{Crc64, ETag, Key, Meta, Millis, Object, ObjectHead, Prefix};
use crate::plan::ErrorClass;
use crate::ports::{SmallObject, StoreError};

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
            Ok(reply) => match object_head(&reply) {
                Some(head) => Ok(Some(head)),
                None => Err(error::not_s3(&what(), "its reply has no ETag")),
            },
            Err(e) => match e.as_service_error().is_some_and(|e| e.is_not_found()) {
                true => Ok(None),
                false => Err(error::explain(&what(), &e)),
            },
        }
    }

    pub(super) async fn size_of_part_one(&self, key: &Key) -> Result<Option<u64>, StoreError> {
        let sent = self
            .client()
            .head_object()
            .bucket(&self.options.bucket)
            .key(self.absolute(key)?)
            .part_number(1)
            .set_expected_bucket_owner(self.options.bucket_owner.clone())
            .send()
            .await;
        match sent {
            // A server that does not know parts shows the whole object.
            Ok(reply) if reply.parts_count().is_some() => {
                Ok(reply.content_length().and_then(|n| u64::try_from(n).ok()))
            }
            Ok(_) => Ok(None),
            Err(e) => match error::explain(&self.describe("look at", key), &e) {
                StoreError::Unsupported(_) => Ok(None),
                error => Err(error),
            },
        }
    }

    pub(super) async fn get_from_above(&self, key: &Key) -> Result<Vec<(Key, Bytes)>, StoreError> {
        let mut found = vec![];
        for prefix in self.options.prefix.above() {
            match self.get_below(&prefix, key, None).await {
                Ok(SmallObject::Found { body, .. }) => {
                    found.push((
                        Key::literal(&format!("{}{}", prefix.as_str(), key.as_str())),
                        body,
                    ));
                }
                Ok(SmallObject::Absent | SmallObject::Unchanged) => {}
                // Credentials may be good for one prefix only.
                Err(StoreError::Failed(failure)) if failure.class == ErrorClass::Denied => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// A small object below this prefix of the bucket.
    pub(super) async fn get_below(
        &self,
        prefix: &Prefix,
        key: &Key,
        unless: Option<&ETag>,
    ) -> Result<SmallObject, StoreError> {
        let what = match *prefix == self.options.prefix {
            true => self.describe("read", key),
            false => self.what(format!("read {}{key} above {}", prefix.as_str(), self.place())),
        };
        let send = || async {
            self.client()
                .get_object()
                .bucket(&self.options.bucket)
                .key(prefix.absolute(key).unwrap_or_default())
                .set_if_none_match(unless.map(ETag::quoted))
                .set_expected_bucket_owner(self.options.bucket_owner.clone())
                .send()
                .await
        };
        let mut sent = send().await;
        if let Err(e) = &sent
            && let Some(region) = error::other_region(e)
        {
            self.move_to_region(&region);
            sent = send().await;
        }
        let reply = match sent {
            Ok(reply) => reply,
            Err(e) => {
                let status = e.raw_response().map(|r| r.status().as_u16());
                return match e.as_service_error() {
                    Some(GetObjectError::NoSuchKey(_)) => Ok(SmallObject::Absent),
                    _ if status == Some(304) => Ok(SmallObject::Unchanged),
                    _ => {
                        let error = error::explain(&what, &e);
                        if let StoreError::Failed(failure) = &error
                            && failure.class == ErrorClass::Credentials
                        {
                            self.renew_credentials().await;
                        }
                        Err(error)
                    }
                };
            }
        };
        let Some(etag) = reply.e_tag().map(ETag::new) else {
            return Err(error::not_s3(&what, "its reply has no ETag"));
        };
        if reply.content_length().is_some_and(|n| n > SMALL_MAX_BYTES as i64) {
            return Err(error::not_s3(&what, "the object is far larger than it should be"));
        }
        match reply.body.collect().await {
            Ok(body) => Ok(SmallObject::Found { body: body.into_bytes(), etag }),
            Err(e) => Err(error::not_s3(&what, &format!("its reply broke off: {e}"))),
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
            Err(e) => Err(error::explain(&self.what(format!("make the bucket {bucket}")), &e)),
        }
    }
}

fn object_head(reply: &HeadObjectOutput) -> Option<ObjectHead> {
    let pairs = reply.metadata().into_iter().flatten();
    let crc64 = reply.checksum_crc64_nvme().and_then(|text| {
        let bytes = BASE64.decode(text).ok()?;
        Some(Crc64(u64::from_be_bytes(bytes.try_into().ok()?)))
    });
    Some(ObjectHead {
        object: Object {
            size_bytes: reply.content_length().and_then(|n| u64::try_from(n).ok())?,
            etag: ETag::new(reply.e_tag()?),
            modified: reply
                .last_modified()
                .and_then(|t| t.to_millis().ok())
                .map_or(Millis(0), Millis),
            archived: reply.storage_class().is_some_and(is_archived),
        },
        meta: Meta::from_pairs(pairs.map(|(name, value)| (name.as_str(), value.as_str()))),
        crc64,
    })
}

/// Whether objects of this class must be thawed before they can be read or copied.
pub fn is_archived(class: &StorageClass) -> bool {
    matches!(class, StorageClass::Glacier | StorageClass::DeepArchive)
}
