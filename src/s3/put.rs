//! Whole objects: one PUT with both digests, verified by the server.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::types::ServerSideEncryption;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::model::{Crc64, Md5, Meta};
use crate::ports::{Condition, Put, StoreError, Stored};

use super::connect::{fits_usual_timeouts, transfer_timeouts};
use super::direct::{DirectPut, PRECONDITION_FAILED};
use super::error::is_of_request;
use super::{S3Options, S3Store, Way, body, error};

pub fn base64_md5(md5: Md5) -> String {
    BASE64.encode(md5.0)
}

pub fn base64_crc64(crc64: Crc64) -> String {
    BASE64.encode(crc64.to_bytes())
}

impl S3Store {
    pub(super) async fn put_object(&self, put: Put) -> Result<Stored, StoreError> {
        let key = self.absolute(&put.key)?;
        if let Some(result) = self.put_directly(&key, &put).await {
            return result;
        }
        match self.put_by_sdk(&key, &put).await {
            // Not every server takes a checksum that it does not know for a header like others.
            Err(error) if self.sends_crc64() && !self.knows_crc64() && is_of_request(&error) => {
                self.refuses_crc64.store(true, Ordering::Relaxed);
                let stored = self.put_by_sdk(&key, &put).await;
                if stored.is_err() {
                    self.refuses_crc64.store(false, Ordering::Relaxed);
                }
                stored
            }
            stored => stored,
        }
    }

    /// Below the SDK. `None`: the SDK is to send it.
    async fn put_directly(&self, key: &str, put: &Put) -> Option<Result<Stored, StoreError>> {
        let direct = &self.way().direct;
        if !direct.is_open() || !fits_usual_timeouts(put.body.len() as u64) {
            return None;
        }
        let request = DirectPut {
            key,
            headers: self.headers(put),
            body: body::body(put.body.clone(), self.pace.as_ref()).into_inner(),
        };
        let reply = direct.put(request, &self.counter).await?;
        if reply.status().as_u16() == PRECONDITION_FAILED {
            return Some(Err(StoreError::Precondition));
        }
        let header = |name| reply.headers().get(name);
        self.saw_crc64(header("x-amz-checksum-crc64nvme"));
        let sse = header("x-amz-server-side-encryption").map(ServerSideEncryption::from);
        Some(Ok(Self::stored(header("etag")?, sse.as_ref())))
    }

    /// The headers that say the same as the SDK's request.
    fn headers(&self, put: &Put) -> Vec<(Cow<'static, str>, String)> {
        let mut headers: Vec<(Cow<'_, str>, String)> = vec![
            ("content-length".into(), put.body.len().to_string()),
            ("content-type".into(), "application/octet-stream".to_owned()),
            ("content-md5".into(), base64_md5(put.md5)),
        ];
        if self.sends_crc64() {
            headers.push(("x-amz-checksum-crc64nvme".into(), base64_crc64(put.crc64)));
        }
        let pairs = put.meta.to_pairs().into_iter();
        headers.extend(pairs.map(|(name, value)| (format!("x-amz-meta-{name}").into(), value)));
        match &put.condition {
            Condition::None => {}
            Condition::Absent => headers.push(("if-none-match".into(), "*".to_owned())),
            Condition::Match(etag) => headers.push(("if-match".into(), etag.quoted())),
        }
        let S3Options { storage_class, sse, sse_kms_key_id, bucket_owner, .. } = &self.options;
        for (name, value) in [
            ("x-amz-storage-class", storage_class),
            ("x-amz-server-side-encryption", sse),
            ("x-amz-server-side-encryption-aws-kms-key-id", sse_kms_key_id),
            ("x-amz-expected-bucket-owner", bucket_owner),
        ] {
            headers.extend(value.clone().map(|value| (name.into(), value)));
        }
        headers
    }

    async fn put_by_sdk(&self, key: &str, put: &Put) -> Result<Stored, StoreError> {
        let length = put.body.len() as u64;
        let Way { client, direct, .. } = &*self.way();
        let mut request = client
            .put_object()
            .bucket(&self.options.bucket)
            .key(key)
            .content_md5(base64_md5(put.md5))
            .set_checksum_crc64_nvme(self.sends_crc64().then(|| base64_crc64(put.crc64)))
            .content_length(i64::try_from(length).unwrap_or(i64::MAX))
            .set_storage_class(self.storage_class.clone())
            .set_server_side_encryption(self.sse.clone())
            .set_ssekms_key_id(self.options.sse_kms_key_id.clone())
            .set_expected_bucket_owner(self.options.bucket_owner.clone())
            .body(body::body(put.body.clone(), self.pace.as_ref()));
        request = with_meta(request, &put.meta);
        request = match &put.condition {
            Condition::None => request,
            Condition::Absent => request.if_none_match("*"),
            Condition::Match(etag) => request.if_match(etag.quoted()),
        };
        // The digests cover the body; signing it as well would hash it a third time.
        let mut request =
            request.customize().disable_payload_signing().interceptor(direct.learner(key));
        if !fits_usual_timeouts(length) {
            request = request.config_override(transfer_timeouts(length));
        }
        let what = || self.describe("upload", &put.key);
        match request.send().await {
            Ok(reply) => {
                self.saw_crc64(reply.checksum_crc64_nvme());
                match reply.e_tag() {
                    Some(etag) => Ok(Self::stored(etag, reply.server_side_encryption())),
                    None => Err(error::not_s3(&what(), "its reply has no ETag")),
                }
            }
            Err(e) => Err(self.explained(&what(), &e)),
        }
    }
}

fn with_meta(mut request: PutObjectFluentBuilder, meta: &Meta) -> PutObjectFluentBuilder {
    for (name, value) in meta.to_pairs() {
        request = request.metadata(name, value);
    }
    request
}
