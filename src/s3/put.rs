//! Whole objects: one PUT with both digests, verified by the server.

use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::model::{Crc64, Md5, Meta};
use crate::ports::{Condition, Put, StoreError, Stored};

use super::connect::{fits_usual_timeouts, transfer_timeouts};
use super::{S3Store, body, error};

pub fn base64_md5(md5: Md5) -> String {
    BASE64.encode(md5.0)
}

pub fn base64_crc64(crc64: Crc64) -> String {
    BASE64.encode(crc64.to_bytes())
}

impl S3Store {
    pub(super) async fn put_object(&self, put: Put) -> Result<Stored, StoreError> {
        let key = self.absolute(&put.key)?;
        let length = put.body.len() as u64;
        let mut request = self
            .client()
            .put_object()
            .bucket(&self.options.bucket)
            .key(key)
            .content_md5(base64_md5(put.md5))
            .checksum_crc64_nvme(base64_crc64(put.crc64))
            .content_length(i64::try_from(length).unwrap_or(i64::MAX))
            .set_storage_class(self.storage_class.clone())
            .set_server_side_encryption(self.sse.clone())
            .set_ssekms_key_id(self.options.sse_kms_key_id.clone())
            .set_expected_bucket_owner(self.options.bucket_owner.clone())
            .body(body::body(put.body, self.pace.as_ref()));
        request = with_meta(request, &put.meta);
        request = match &put.condition {
            Condition::None => request,
            Condition::Absent => request.if_none_match("*"),
            Condition::Match(etag) => request.if_match(etag.quoted()),
        };
        // The digests cover the body; signing it as well would hash it a third time.
        let mut request = request.customize().disable_payload_signing();
        if !fits_usual_timeouts(length) {
            request = request.config_override(transfer_timeouts(length));
        }
        let what = || self.describe("put", &put.key);
        match request.send().await {
            Ok(reply) => {
                self.saw_crc64(reply.checksum_crc64_nvme());
                match reply.e_tag() {
                    Some(etag) => Ok(Self::stored(etag, reply.server_side_encryption())),
                    None => Err(error::not_s3(&what(), "its reply has no ETag")),
                }
            }
            Err(e) => Err(error::explain(&what(), &e)),
        }
    }
}

fn with_meta(mut request: PutObjectFluentBuilder, meta: &Meta) -> PutObjectFluentBuilder {
    for (name, value) in meta.to_pairs() {
        request = request.metadata(name, value);
    }
    request
}
