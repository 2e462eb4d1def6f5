//! Objects copied from one bucket to another: within the server, or as they came through here.

use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, ChecksumType, StorageClass};
use percent_encoding::utf8_percent_encode;

use crate::model::checksum::{Algorithm, Form, Over};
use crate::model::{Checksum, ETag, Escaped, Key};
use crate::plan::ErrorClass;
use crate::ports::{
    Copy, CopyPart, CopySource, CopyTarget, CreateCopy, Fetched, FullHead, Fut, Headers, ObjectId,
    Origin, PutCopy, StoreError, Stored, StoredPart, Tags,
};

use super::checksum::{checksums, read_id, with_checksum, write_id};
use super::connect::{fits_usual_timeouts, transfer_timeouts};
use super::copy::COPY_SOURCE;
use super::error::{SdkFailure, What, is_of_request};
use super::get::shows;
use super::head::told;
use super::multipart::of_part;
use super::put::{base64_crc64, base64_md5};
use super::{S3Store, body, error, fits_xml, tags};

/// Servers copy at least so many times as fast as the slowest line sends.
const COPY_SPEED: u64 = 64;

/// Sets on a request what three kinds of requests have alike. Their types in the SDK are three.
macro_rules! with_headers {
    ($request:expr, $headers:expr) => {
        $request
            .set_content_type($headers.content_type.clone())
            .set_cache_control($headers.cache_control.clone())
            .set_content_disposition($headers.content_disposition.clone())
            .set_content_encoding($headers.content_encoding.clone())
            .set_content_language($headers.content_language.clone())
            .set_website_redirect_location($headers.website_redirect.clone())
            .set_metadata(Some($headers.metadata.clone().into_iter().collect()))
    };
}

/// `Expires` as it was written: the SDK would only take a date.
macro_rules! with_expires {
    ($request:expr, $headers:expr) => {{
        let expires = $headers.expires.clone();
        $request.customize().mutate_request(move |request| {
            if let Some(expires) = &expires {
                request.headers_mut().insert("expires", expires.clone());
            }
        })
    }};
}

impl S3Store {
    async fn look_fully(&self, id: &ObjectId) -> Result<Fetched<FullHead>, StoreError> {
        let what = self.about("look at", id);
        let key = self.absolute(&id.key)?;
        let sent = self
            .ask(|client| {
                client
                    .head_object()
                    .bucket(&self.options.bucket)
                    .key(&key)
                    .set_version_id(id.version.clone())
                    .set_if_match(id.etag.as_ref().map(ETag::quoted))
                    .checksum_mode(ChecksumMode::Enabled)
                    .set_expected_bucket_owner(self.options.bucket_owner.clone())
                    .send()
            })
            .await;
        let reply = match sent {
            Ok(reply) => reply,
            Err(e) if error::is_wordless(&e) => return Err(self.why_refused(&what, id).await),
            Err(e) => return self.instead(&what, &e),
        };
        if !shows(reply.e_tag(), id) {
            return Ok(Fetched::Changed);
        }
        let mut head = self.head_of(&what, &told!(reply), id.version.is_some())?;
        if reply.archive_status().is_some() {
            head.object.archived = true;
            head.thaw = Some(super::head::thaw(reply.restore()));
        }
        let text = |value: Option<&str>| value.map(str::to_owned);
        let class = reply.storage_class().map(StorageClass::as_str);
        let headers = Headers {
            content_type: text(reply.content_type()),
            cache_control: text(reply.cache_control()),
            content_disposition: text(reply.content_disposition()),
            content_encoding: text(reply.content_encoding()),
            content_language: text(reply.content_language()),
            expires: text(reply.expires_string()),
            website_redirect: text(reply.website_redirect_location()),
            storage_class: text(class.filter(|class| *class != "STANDARD")),
            metadata: reply.metadata().cloned().unwrap_or_default().into_iter().collect(),
        };
        let version = text(reply.version_id());
        Ok(Fetched::Found(FullHead { head, headers, version }))
    }

    fn class_of(&self, headers: &Headers) -> Option<StorageClass> {
        let kept = headers.storage_class.as_deref().map(StorageClass::from);
        self.storage_class.clone().or(kept)
    }

    async fn copy_whole(&self, copy: Copy) -> Result<Fetched<ETag>, StoreError> {
        let what = self.describe("copy to", &copy.key);
        let key = self.absolute(&copy.key)?;
        let Copy { origin, headers, .. } = &copy;
        let allowed = || transfer_timeouts(copy.size_bytes / COPY_SPEED);
        let sent = self
            .ask(|client| {
                client
                    .copy_object()
                    .bucket(&self.options.bucket)
                    .key(&key)
                    .copy_source(named(origin))
                    .set_copy_source_if_match(origin.etag.as_ref().map(ETag::quoted))
                    // All else goes with the object; these two do not.
                    .set_storage_class(self.class_of(headers))
                    .set_website_redirect_location(headers.website_redirect.clone())
                    .set_server_side_encryption(self.sse.clone())
                    .set_ssekms_key_id(self.options.sse_kms_key_id.clone())
                    .set_expected_bucket_owner(self.options.bucket_owner.clone())
                    .set_expected_source_bucket_owner(origin.bucket_owner.clone())
                    .customize()
                    .config_override(allowed())
                    .send()
            })
            .await;
        match sent {
            Ok(reply) => match reply.copy_object_result().and_then(|result| result.e_tag()) {
                Some(etag) => Ok(Fetched::Found(ETag::new(etag))),
                None => Err(error::not_s3(&what, "its reply has no ETag")),
            },
            Err(e) => self.not_copied(&what, &e),
        }
    }

    async fn copy_range(&self, part: CopyPart) -> Result<Fetched<StoredPart>, StoreError> {
        let what = self.describe(&format!("copy part {} of", part.number), &part.key);
        let key = self.absolute(&part.key)?;
        let CopyPart { origin, number, offset, length, .. } = &part;
        let (upload_id, form) = read_id(&part.upload_id);
        let range = format!("bytes={offset}-{}", offset + length.max(&1) - 1);
        let sent = self
            .ask(|client| {
                client
                    .upload_part_copy()
                    .bucket(&self.options.bucket)
                    .key(&key)
                    .upload_id(upload_id)
                    .part_number(i32::try_from(*number).unwrap_or(i32::MAX))
                    .copy_source(named(origin))
                    .copy_source_range(&range)
                    .set_copy_source_if_match(origin.etag.as_ref().map(ETag::quoted))
                    .set_expected_bucket_owner(self.options.bucket_owner.clone())
                    .set_expected_source_bucket_owner(origin.bucket_owner.clone())
                    .customize()
                    .config_override(transfer_timeouts(length / COPY_SPEED))
                    .send()
            })
            .await;
        match sent {
            Ok(reply) => {
                let result = reply.copy_part_result();
                let Some(etag) = result.and_then(|result| result.e_tag()) else {
                    return Err(error::not_s3(&what, "its reply has no ETag"));
                };
                let checksum = result.zip(form).and_then(|(r, form)| of_part(form, &checksums!(r)));
                let etag = ETag::new(etag);
                Ok(Fetched::Found(StoredPart {
                    number: *number,
                    size_bytes: *length,
                    etag,
                    checksum,
                }))
            }
            Err(e) => self.not_copied(&what, &e),
        }
    }

    /// What came instead of a copy.
    fn not_copied<T, E>(&self, what: &What, error: &SdkFailure<E>) -> Result<Fetched<T>, StoreError>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        match self.instead(what, error) {
            Err(StoreError::Failed(failure)) if failure.class == ErrorClass::Denied => {
                Err(StoreError::Failed(failure.with_hint(
                    "the destination's credentials must be allowed to read the source: \
                     s3:GetObject, s3:GetObjectTagging; and to write: s3:PutObject, \
                     s3:PutObjectTagging",
                )))
            }
            instead => instead,
        }
    }

    async fn open_copy(&self, copy: CreateCopy) -> Result<String, StoreError> {
        let usual = self.knows_crc64().then_some(Form::USUAL);
        // What goes within a server it makes by itself.
        let can = |form: &Form| !copy.streamed || form.algorithm.is_made_here();
        let wanted = copy.checksum.map(Form::in_parts).filter(can).or(usual);
        if wanted != usual {
            match self.open_with(&copy, wanted).await {
                Ok((id, true)) => return Ok(id),
                // Parts that come from here would not fit.
                Ok((id, false)) => self.abort_multipart(&copy.key, &id).await?,
                Err(error) if is_of_request(&error) => self.warn_of_checksum(&copy.key, &error),
                Err(error) => return Err(error),
            }
        }
        self.open_with(&copy, usual).await.map(|(id, _)| id)
    }

    /// Opens an upload with a checksum of this form; answers with its id, and whether the server
    /// shows that it knows such checksums, where that matters.
    async fn open_with(
        &self,
        copy: &CreateCopy,
        form: Option<Form>,
    ) -> Result<(String, bool), StoreError> {
        let CreateCopy { key, headers, tags, streamed, .. } = copy;
        let what = || self.describe("begin to copy to", key);
        if !fits_xml(key) {
            let cause = "its name has a character that S3's multipart replies cannot carry";
            return Err(StoreError::Failed(what().failed(ErrorClass::Path, cause)));
        }
        let mut request = self
            .client()
            .create_multipart_upload()
            .bucket(&self.options.bucket)
            .key(self.absolute(key)?)
            .set_tagging(tags::header(tags))
            .set_storage_class(self.class_of(headers))
            .set_server_side_encryption(self.sse.clone())
            .set_ssekms_key_id(self.options.sse_kms_key_id.clone())
            .set_expected_bucket_owner(self.options.bucket_owner.clone());
        request = with_headers!(request, headers);
        if let Some(Form { algorithm, over }) = form {
            request = request
                .checksum_algorithm(ChecksumAlgorithm::from(algorithm.name()))
                .checksum_type(match over {
                    Over::Content => ChecksumType::FullObject,
                    Over::Parts => ChecksumType::Composite,
                });
        }
        // Sent again after a lost reply, it would open another upload and leave the first behind.
        let once = aws_sdk_s3::Config::builder().retry_config(RetryConfig::disabled());
        let request = with_expires!(request, headers).config_override(once);
        let reply = request.send().await.map_err(|e| self.explained(&what(), &e))?;
        let shown = reply.checksum_algorithm().map(ChecksumAlgorithm::as_str);
        let fits = |form: Form| self.knows_crc64() || shown == Some(form.algorithm.name());
        // What is over the whole content a server makes by itself.
        let carried = form.filter(|form| *streamed || form.over == Over::Parts);
        match reply.upload_id() {
            Some(id) => Ok((write_id(carried, id), !*streamed || form.is_none_or(fits))),
            None => Err(error::not_s3(&what(), "its reply has no upload id")),
        }
    }

    /// The checksum that the copy is to have, where that is not the usual one.
    fn checksum_of(&self, put: &PutCopy) -> Result<Option<Checksum>, StoreError> {
        let Some(source) = &put.checksum else { return Ok(None) };
        let algorithm = source.form.algorithm;
        let made = match algorithm {
            Algorithm::Crc64Nvme => None,
            other if other.is_made_here() => Checksum::of(other, &put.body),
            _ => None,
        };
        if made.as_ref().and_then(|made| made.agrees(source)) == Some(false) {
            let what = self.describe("copy to", &put.key);
            let cause = format!("what was read is not what the source's {} says", algorithm.name());
            return Err(StoreError::Failed(what.failed(ErrorClass::Path, cause)));
        }
        Ok(made)
    }

    fn warn_of_checksum(&self, key: &Key, error: &StoreError) {
        let why = match error {
            StoreError::Failed(failure) => failure.to_string(),
            StoreError::Unsupported(words) => words.clone(),
            _ => String::new(),
        };
        let key = Escaped(key.as_str().as_bytes());
        tracing::warn!("the copy of {key} has not the checksum of its source: {why}");
    }

    async fn put_whole(&self, put: PutCopy) -> Result<Stored, StoreError> {
        if let Some(kept) = self.checksum_of(&put)? {
            match self.put_with(&put, Some(&kept)).await {
                Err(error) if is_of_request(&error) => {
                    // Where that is refused, too, it was no matter of the checksum.
                    let stored = self.put_with(&put, None).await?;
                    self.warn_of_checksum(&put.key, &error);
                    return Ok(stored);
                }
                stored => return stored,
            }
        }
        self.put_with(&put, None).await
    }

    async fn put_with(&self, put: &PutCopy, kept: Option<&Checksum>) -> Result<Stored, StoreError> {
        let what = || self.describe("copy to", &put.key);
        let length = put.body.len() as u64;
        let request = self
            .client()
            .put_object()
            .bucket(&self.options.bucket)
            .key(self.absolute(&put.key)?)
            .content_md5(base64_md5(put.md5))
            .set_checksum_algorithm(kept.map(algorithm_of))
            .content_length(i64::try_from(length).unwrap_or(i64::MAX))
            .set_tagging(tags::header(&put.tags))
            .set_storage_class(self.class_of(&put.headers))
            .set_server_side_encryption(self.sse.clone())
            .set_ssekms_key_id(self.options.sse_kms_key_id.clone())
            .set_expected_bucket_owner(self.options.bucket_owner.clone())
            .body(body::body(put.body.clone(), self.pace.as_ref()));
        let request = match kept {
            Some(_) => with_checksum!(request, kept),
            None if self.sends_crc64() => request.checksum_crc64_nvme(base64_crc64(put.crc64)),
            None => request,
        };
        let request = with_headers!(request, put.headers);
        let mut request = with_expires!(request, put.headers).disable_payload_signing();
        if !fits_usual_timeouts(length) {
            request = request.config_override(transfer_timeouts(length));
        }
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

fn algorithm_of(checksum: &Checksum) -> ChecksumAlgorithm {
    ChecksumAlgorithm::from(checksum.form.algorithm.name())
}

/// The value of `x-amz-copy-source`.
fn named(origin: &Origin) -> String {
    let path = format!("{}/{}", origin.bucket, origin.key);
    let path = utf8_percent_encode(&path, COPY_SOURCE).to_string();
    match &origin.version {
        Some(version) => {
            format!("{path}?versionId={}", utf8_percent_encode(version, COPY_SOURCE))
        }
        None => path,
    }
}

impl CopySource for S3Store {
    fn look(&self, id: &ObjectId) -> Fut<'_, Result<Fetched<FullHead>, StoreError>> {
        let id = id.clone();
        Box::pin(async move { self.look_fully(&id).await })
    }

    fn tags(&self, id: &ObjectId) -> Fut<'_, Result<Fetched<Tags>, StoreError>> {
        let id = id.clone();
        Box::pin(async move { self.read_tags(&id, &self.about("read the tags of", &id)).await })
    }

    fn origin(&self, id: &ObjectId) -> Result<Origin, StoreError> {
        Ok(Origin {
            bucket: self.options.bucket.clone(),
            key: self.absolute(&id.key)?,
            version: id.version.clone(),
            etag: id.etag.clone(),
            bucket_owner: self.options.bucket_owner.clone(),
        })
    }
}

impl CopyTarget for S3Store {
    fn knows_tags(&self) -> Fut<'_, Result<bool, StoreError>> {
        Box::pin(self.has_tags())
    }

    fn copy(&self, copy: Copy) -> Fut<'_, Result<Fetched<ETag>, StoreError>> {
        Box::pin(self.copy_whole(copy))
    }

    fn create_copy(&self, copy: CreateCopy) -> Fut<'_, Result<String, StoreError>> {
        Box::pin(self.open_copy(copy))
    }

    fn copy_part(&self, part: CopyPart) -> Fut<'_, Result<Fetched<StoredPart>, StoreError>> {
        Box::pin(self.copy_range(part))
    }

    fn put_copy(&self, put: PutCopy) -> Fut<'_, Result<Stored, StoreError>> {
        Box::pin(self.put_whole(put))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_named_as_a_header_wants_them() {
        let mut origin = Origin {
            bucket: "b".to_owned(),
            key: "a b/c++/ü?&".to_owned(),
            version: None,
            etag: None,
            bucket_owner: None,
        };
        assert_eq!(named(&origin), "b/a%20b/c%2B%2B/%C3%BC%3F%26");
        origin.version = Some("v+/1".to_owned());
        assert!(named(&origin).ends_with("?versionId=v%2B/1"));
    }
}
