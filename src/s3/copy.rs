//! New metadata for an object: a copy onto itself, without sending its bytes.

use aws_sdk_s3::types::MetadataDirective;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::model::{ETag, Key, Meta};
use crate::ports::StoreError;

use super::{S3Store, error};

/// All but the characters that need no encoding in a path, and the slash between segments.
pub(super) const COPY_SOURCE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

impl S3Store {
    pub(super) async fn copy_onto_itself(
        &self,
        key: &Key,
        etag: &ETag,
        meta: &Meta,
    ) -> Result<ETag, StoreError> {
        let what = || self.describe("replace the metadata of", key);
        let absolute = self.absolute(key)?;
        let source = format!("{}/{absolute}", self.options.bucket);
        let mut request = self
            .client()
            .copy_object()
            .bucket(&self.options.bucket)
            .copy_source(utf8_percent_encode(&source, COPY_SOURCE).to_string())
            .copy_source_if_match(etag.quoted())
            .key(absolute)
            .metadata_directive(MetadataDirective::Replace)
            .set_storage_class(self.storage_class.clone())
            .set_server_side_encryption(self.sse.clone())
            .set_ssekms_key_id(self.options.sse_kms_key_id.clone())
            .set_expected_bucket_owner(self.options.bucket_owner.clone());
        for (name, value) in meta.to_pairs() {
            request = request.metadata(name, value);
        }
        let reply = request.send().await.map_err(|e| self.explained(&what(), &e))?;
        match reply.copy_object_result().and_then(|result| result.e_tag()) {
            Some(etag) => Ok(ETag::new(etag)),
            None => Err(error::not_s3(&what(), "its reply has no ETag")),
        }
    }
}
