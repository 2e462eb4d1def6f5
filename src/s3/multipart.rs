//! Multipart uploads, one call each. What is journaled and resumed is decided by the use-case.

use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart, EncodingType,
    MultipartUpload,
};
use percent_encoding::percent_decode_str;

use crate::model::checksum::{Form, Over};
use crate::model::{Checksum, ETag, Key, Meta, Millis};
use crate::plan::ErrorClass;
use crate::ports::{
    Complete, Condition, JournaledPart, OpenUpload, PutPart, StoreError, Stored, StoredPart,
    UploadMark, UploadPage,
};

use super::checksum::{self, checksums, read_id, with_checksum, write_id};
use super::connect::{fits_usual_timeouts, transfer_timeouts};
use super::head::millis;
use super::put::{base64_crc64, base64_md5};
use super::{S3Store, body, error, fits_xml};

impl S3Store {
    pub(super) async fn create_multipart(
        &self,
        key: &Key,
        meta: &Meta,
    ) -> Result<String, StoreError> {
        let what = || self.describe("begin to upload", key);
        if !fits_xml(key) {
            let cause = "its name has a character that S3's multipart replies cannot carry";
            return Err(StoreError::Failed(what().failed(ErrorClass::Path, cause)));
        }
        let mut request = self
            .client()
            .create_multipart_upload()
            .bucket(&self.options.bucket)
            .key(self.absolute(key)?)
            .set_storage_class(self.storage_class.clone())
            .set_server_side_encryption(self.sse.clone())
            .set_ssekms_key_id(self.options.sse_kms_key_id.clone())
            .set_expected_bucket_owner(self.options.bucket_owner.clone());
        let form = self.knows_crc64().then_some(Form::USUAL);
        if form.is_some() {
            request = request
                .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
                .checksum_type(ChecksumType::FullObject);
        }
        for (name, value) in meta.to_pairs() {
            request = request.metadata(name, value);
        }
        // Sent again after a lost reply, it would open another upload and leave the first behind.
        // The journal knows of what may have been opened; the engine tries again.
        let once = aws_sdk_s3::Config::builder().retry_config(RetryConfig::disabled());
        let sent = request.customize().config_override(once).send().await;
        let reply = sent.map_err(|e| self.explained(&what(), &e))?;
        match reply.upload_id() {
            Some(id) => Ok(write_id(form, id)),
            None => Err(error::not_s3(&what(), "its reply has no upload id")),
        }
    }

    pub(super) async fn upload_part(&self, part: PutPart) -> Result<StoredPart, StoreError> {
        let what = || {
            let action = format!("send part {} of", part.number);
            self.describe(&action, &part.key)
        };
        let (id, form) = read_id(&part.upload_id);
        let length = part.body.len() as u64;
        let usual = form == Some(Form::USUAL);
        let checksum = match form {
            Some(form) if !usual => Checksum::of(form.algorithm, &part.body),
            _ => None,
        };
        let request = self
            .client()
            .upload_part()
            .bucket(&self.options.bucket)
            .key(self.absolute(&part.key)?)
            .upload_id(id)
            .part_number(i32::try_from(part.number).unwrap_or(i32::MAX))
            .content_length(i64::try_from(length).unwrap_or(i64::MAX))
            .content_md5(base64_md5(part.md5))
            .set_checksum_crc64_nvme(usual.then(|| base64_crc64(part.crc64)))
            .set_expected_bucket_owner(self.options.bucket_owner.clone())
            .body(body::body(part.body.clone(), self.pace.as_ref()));
        let request = with_checksum!(request, checksum.as_ref());
        let mut request = request.customize().disable_payload_signing();
        if !fits_usual_timeouts(length) {
            request = request.config_override(transfer_timeouts(length));
        }
        match request.send().await {
            Ok(reply) => match reply.e_tag() {
                Some(etag) => Ok(StoredPart {
                    number: part.number,
                    size_bytes: length,
                    etag: ETag::new(etag),
                    checksum,
                }),
                None => Err(error::not_s3(&what(), "its reply has no ETag")),
            },
            Err(e) => Err(self.explained(&what(), &e)),
        }
    }

    pub(super) async fn complete_multipart(
        &self,
        complete: Complete,
    ) -> Result<Stored, StoreError> {
        let what = || self.describe("finish the upload of", &complete.key);
        let (id, form) = read_id(&complete.upload_id);
        let crc64 = form == Some(Form::USUAL);
        let parts = complete.parts.iter().map(|part| completed(part, form)).collect();
        let mut request = self
            .client()
            .complete_multipart_upload()
            .bucket(&self.options.bucket)
            .key(self.absolute(&complete.key)?)
            .upload_id(id)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .set_checksum_crc64_nvme(crc64.then(|| base64_crc64(complete.crc64)))
            .set_expected_bucket_owner(self.options.bucket_owner.clone());
        if crc64 {
            request =
                request.mpu_object_size(i64::try_from(complete.size_bytes).unwrap_or(i64::MAX));
        }
        request = match &complete.condition {
            Condition::None => request,
            Condition::Absent => request.if_none_match("*"),
            Condition::Match(etag) => request.if_match(etag.quoted()),
        };
        // Joining ten thousand parts takes the server its time.
        let request = request.customize().config_override(transfer_timeouts(64 * 1024 * 1024));
        match request.send().await {
            Ok(reply) => match reply.e_tag() {
                Some(etag) => Ok(Self::stored(etag, reply.server_side_encryption())),
                None => Err(error::not_s3(&what(), "its reply has no ETag")),
            },
            Err(e) => Err(self.explained(&what(), &e)),
        }
    }

    pub(super) async fn abort_multipart(
        &self,
        key: &Key,
        upload_id: &str,
    ) -> Result<(), StoreError> {
        let sent = self
            .client()
            .abort_multipart_upload()
            .bucket(&self.options.bucket)
            .key(self.absolute(key)?)
            .upload_id(read_id(upload_id).0)
            .set_expected_bucket_owner(self.options.bucket_owner.clone())
            .send()
            .await;
        match sent {
            Ok(_) => Ok(()),
            Err(e) => match self.explained(&self.describe("abort the upload of", key), &e) {
                StoreError::NoSuchUpload => Ok(()),
                error => Err(error),
            },
        }
    }

    pub(super) async fn parts_of(
        &self,
        key: &Key,
        upload_id: &str,
    ) -> Result<Vec<StoredPart>, StoreError> {
        let what = || self.describe("list the parts of", key);
        let (id, form) = read_id(upload_id);
        // The journal has the usual one.
        let carried = form.filter(|form| *form != Form::USUAL);
        let mut parts = vec![];
        let mut marker: Option<String> = None;
        loop {
            let reply = self
                .client()
                .list_parts()
                .bucket(&self.options.bucket)
                .key(self.absolute(key)?)
                .upload_id(id)
                .set_part_number_marker(marker.take())
                .set_expected_bucket_owner(self.options.bucket_owner.clone())
                .send()
                .await
                .map_err(|e| self.explained_question(&what(), &e))?;
            for part in reply.parts() {
                let number = part.part_number().and_then(|n| u32::try_from(n).ok());
                let size = part.size().and_then(|n| u64::try_from(n).ok());
                let (Some(number), Some(size_bytes), Some(etag)) = (number, size, part.e_tag())
                else {
                    continue;
                };
                let checksum = carried.and_then(|form| of_part(form, &checksums!(part)));
                // Without it the upload could not be completed: it is sent again.
                if checksum.is_some() || carried.is_none_or(|form| form.over == Over::Content) {
                    let etag = ETag::new(etag);
                    parts.push(StoredPart { number, size_bytes, etag, checksum });
                }
            }
            match reply.next_part_number_marker() {
                Some(next) if reply.is_truncated() == Some(true) => marker = Some(next.to_owned()),
                _ => return Ok(parts),
            }
        }
    }

    /// Ids of the open uploads of exactly this key. They sort first among those that begin with it.
    pub(super) async fn uploads_of(&self, key: &Key) -> Result<Vec<String>, StoreError> {
        let absolute = self.absolute(key)?;
        let what = self.describe("list the uploads of", key);
        let mut ids = vec![];
        let mut marker = None;
        loop {
            let page = self.ask_for_uploads(&absolute, marker.take(), &what).await?;
            let own = page.uploads.into_iter().filter(|(key, ..)| *key == absolute);
            ids.extend(own.map(|(_, id, _)| id));
            marker = page.next.filter(|next| next.key == absolute);
            if marker.is_none() {
                return Ok(ids);
            }
        }
    }

    /// A page of the open uploads below the prefix.
    pub(super) async fn page_of_uploads(
        &self,
        after: Option<UploadMark>,
    ) -> Result<UploadPage, StoreError> {
        let what = self.what(format!("list the open uploads in {}", self.place()));
        let page = self.ask_for_uploads(self.options.prefix.as_str(), after, &what).await?;
        let own = |(absolute, upload_id, begun): (String, String, Millis)| {
            let key = self.options.prefix.relative(&absolute)?;
            Some(OpenUpload { key, upload_id, begun })
        };
        let uploads = page.uploads.into_iter().filter_map(own).collect();
        Ok(UploadPage { uploads, more_after: page.next })
    }

    async fn ask_for_uploads(
        &self,
        prefix: &str,
        after: Option<UploadMark>,
        what: &error::What,
    ) -> Result<Uploads, StoreError> {
        let (key, id) = after.map_or((None, None), |mark| (Some(mark.key), mark.upload_id));
        let reply = self
            .client()
            .list_multipart_uploads()
            .bucket(&self.options.bucket)
            .set_prefix((!prefix.is_empty()).then(|| prefix.to_owned()))
            .encoding_type(EncodingType::Url)
            .set_key_marker(key)
            .set_upload_id_marker(id)
            .set_expected_bucket_owner(self.options.bucket_owner.clone())
            .send()
            .await
            .map_err(|e| self.explained_question(what, &e))?;
        let encoded = reply.encoding_type() == Some(&EncodingType::Url);
        let decode = |text: &str| match encoded {
            true => {
                let spaced = text.replace('+', " ");
                percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
            }
            false => text.to_owned(),
        };
        let read = |upload: &MultipartUpload| {
            let begun = millis(upload.initiated()).unwrap_or(Millis(i64::MAX));
            Some((decode(upload.key()?), write_id(None, upload.upload_id()?), begun))
        };
        let uploads = reply.uploads().iter().filter_map(read).collect();
        let more = reply.is_truncated() == Some(true);
        let next = reply.next_key_marker().filter(|_| more).map(|key| UploadMark {
            key: decode(key),
            upload_id: reply.next_upload_id_marker().map(str::to_owned),
        });
        Ok(Uploads { uploads, next })
    }
}

/// A page as the server gave it: whole keys, ids, and when they were begun.
struct Uploads {
    uploads: Vec<(String, String, Millis)>,
    next: Option<UploadMark>,
}

fn completed(part: &JournaledPart, form: Option<Form>) -> CompletedPart {
    let completed = CompletedPart::builder()
        .part_number(i32::try_from(part.stored.number).unwrap_or(i32::MAX))
        .e_tag(part.stored.etag.quoted());
    let completed = match form {
        Some(Form::USUAL) => completed.checksum_crc64_nvme(base64_crc64(part.digest.crc64)),
        _ => with_checksum!(completed, part.stored.checksum.as_ref()),
    };
    completed.build()
}

/// The checksum of a part of an upload whose parts carry them.
pub(super) fn of_part(form: Form, values: &checksum::Values<'_>) -> Option<Checksum> {
    checksum::read(values, None).filter(|part| part.form.algorithm == form.algorithm)
}
