//! Multipart uploads: begin, add parts, list, abort. Their completion is in `complete`.

use rusqlite::Connection;
use rusqlite::types::Value;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result};

use super::checksums::{parsed, set_checksum};
use super::names::Names;
use super::put::etag_of;
use super::{list, owner};
use crate::store::bodies::Draft;
use crate::store::digest::{self, Algorithm, Kind, Sums};
use crate::store::fault::{Outcome, invalid_request};
use crate::store::head::{Encryption, Head, Tags, storage_class};
use crate::store::intake::{Incoming, receive};
use crate::store::rows::{self, Bucket};
use crate::store::uploads::{self, Part as PartRow, Upload, check_part_number};
use crate::store::walk::{Item, Query, Seek, Source, walk};
use crate::store::{Store, clock};

pub(super) async fn create_multipart_upload(
    store: &Store,
    req: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let input = req.input;
    let class = storage_class(input.storage_class.as_ref().map(StorageClass::as_str))?;
    let (algorithm, kind) = asked_checksum(
        input.checksum_algorithm.as_ref().map(ChecksumAlgorithm::as_str),
        input.checksum_type.as_ref().map(ChecksumType::as_str),
    )?;
    let now = store.now();
    let upload = Upload {
        id: uploads::fresh_id(clock::millis(now)),
        initiated_s: clock::seconds(now),
        class: class.to_owned(),
        algorithm,
        kind,
        head: Head::of_headers(&req.headers)?,
        tags: Tags::of_header(input.tagging.as_deref())?,
    };
    let encryption = upload.head.encryption.clone();
    let output = CreateMultipartUploadOutput {
        bucket: Some(input.bucket.clone()),
        key: Some(input.key.clone()),
        upload_id: Some(upload.id.clone()),
        checksum_algorithm: algorithm.map(|a| a.name().to_owned().into()),
        checksum_type: algorithm.map(|_| kind.name().to_owned().into()),
        server_side_encryption: encryption.sse.map(Into::into),
        ssekms_key_id: encryption.kms_key,
        bucket_key_enabled: encryption.bucket_key,
        ..CreateMultipartUploadOutput::default()
    };
    store
        .index()
        .write(move |tx| {
            let bucket = rows::bucket(tx.conn, &input.bucket)?;
            uploads::insert(tx.conn, bucket.id, &input.key, &upload)
        })
        .await?;
    Ok(S3Response::new(output))
}

/// The checksum an upload will have: what is asked for, completed and checked.
fn asked_checksum(
    algorithm: Option<&str>,
    kind: Option<&str>,
) -> S3Result<(Option<Algorithm>, Kind)> {
    let kind = kind.map(Kind::by_name).transpose()?;
    let Some(algorithm) = algorithm.map(Algorithm::by_name).transpose()? else {
        return match kind {
            None => Ok((None, Kind::FullObject)),
            Some(_) => Err(invalid_request(
                "The x-amz-checksum-type header can only be used with the \
                 x-amz-checksum-algorithm header.",
            )),
        };
    };
    let kind = kind.unwrap_or(algorithm.default_kind());
    if !algorithm.allows(kind) {
        return Err(invalid_request(format!(
            "The {} checksum type cannot be used with the {} checksum algorithm.",
            kind.name(),
            algorithm.name().to_lowercase()
        )));
    }
    Ok((Some(algorithm), kind))
}

/// The place of one part.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) upload: String,
    pub(super) number: i32,
}

/// What is said of a part that was added.
pub(super) struct Added {
    pub(super) etag: String,
    pub(super) checksum: digest::Checksum,
    pub(super) encryption: Encryption,
}

impl Target {
    /// # Errors
    /// `NoSuchBucket`, `NoSuchUpload`.
    pub(super) fn find(&self, conn: &Connection) -> Outcome<(Bucket, Upload)> {
        let bucket = rows::bucket(conn, &self.bucket)?;
        let upload = uploads::find(conn, bucket.id, &self.key, &self.upload)?;
        Ok((bucket, upload))
    }

    /// Adds a part, in the place of an earlier one. `claimed` is the algorithm of the checksum that
    /// came with it.
    pub(super) async fn add(
        self,
        store: &Store,
        draft: Draft,
        sums: Sums,
        claimed: Option<Algorithm>,
    ) -> S3Result<Added> {
        let now_s = clock::seconds(store.now());
        store
            .index()
            .write(move |tx| {
                let (_, upload) = self.find(tx.conn)?;
                check_algorithm(&upload, claimed)?;
                let (checksum, etag) =
                    (sums.checksum(), etag_of(&sums, &upload.head, draft.body()));
                let part = PartRow {
                    number: self.number,
                    body: draft.body(),
                    size_bytes: sums.size_bytes,
                    modified_s: now_s,
                    etag: etag.clone(),
                    crc64: sums.crc64,
                    checksum: checksum.to_string(),
                };
                if let Some(earlier) = uploads::put_part(tx.conn, &self.upload, &part)? {
                    tx.part_leaves(earlier);
                }
                tx.arrives(draft.keep());
                Ok(Added { etag, checksum, encryption: upload.head.encryption })
            })
            .await
    }
}

/// A part must come with the checksum its upload was begun with. CRC64NVME is computed anyway.
fn check_algorithm(upload: &Upload, claimed: Option<Algorithm>) -> S3Result<()> {
    let Some(expected) = upload.algorithm else { return Ok(()) };
    if claimed == Some(expected) || (claimed.is_none() && expected == Algorithm::Crc64Nvme) {
        return Ok(());
    }
    let actual = claimed.map_or("null".to_owned(), |claimed| claimed.name().to_lowercase());
    Err(invalid_request(format!(
        "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: \
         {actual}",
        expected.name().to_lowercase()
    )))
}

pub(super) async fn upload_part(
    store: &Store,
    mut req: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    check_part_number(req.input.part_number)?;
    let (body, length) = (req.input.body.take(), req.input.content_length);
    let incoming = Incoming::of_request(&mut req, body, length)?;
    let claimed = incoming.claim().algorithm();
    let input = req.input;
    let target = Target {
        bucket: input.bucket,
        key: input.key,
        upload: input.upload_id,
        number: input.part_number,
    };
    let received = receive(store.bodies(), incoming).await?;
    let added = target.add(store, received.draft, received.sums, claimed).await?;
    let mut output = UploadPartOutput {
        e_tag: Some(ETag::Strong(added.etag)),
        server_side_encryption: added.encryption.sse.map(Into::into),
        ssekms_key_id: added.encryption.kms_key,
        bucket_key_enabled: added.encryption.bucket_key,
        ..UploadPartOutput::default()
    };
    set_checksum!(output, Some(&added.checksum));
    Ok(S3Response::new(output))
}

pub(super) async fn abort_multipart_upload(
    store: &Store,
    req: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let input = req.input;
    let target =
        Target { bucket: input.bucket, key: input.key, upload: input.upload_id, number: 0 };
    store
        .index()
        .write(move |tx| {
            let (bucket, upload) = target.find(tx.conn)?;
            for part in uploads::delete(tx.conn, bucket.id, &target.key, &upload.id)? {
                tx.part_leaves(part);
            }
            Ok(())
        })
        .await?;
    Ok(S3Response::new(AbortMultipartUploadOutput::default()))
}

fn initiator() -> Initiator {
    let Owner { display_name, id } = owner();
    Initiator { display_name, id }
}

pub(super) async fn list_parts(
    store: &Store,
    req: S3Request<ListPartsInput>,
) -> S3Result<S3Response<ListPartsOutput>> {
    let input = req.input;
    let limit = list::limit(input.max_parts, "max-parts")?;
    let marker = input.part_number_marker.unwrap_or(0);
    let target =
        Target { bucket: input.bucket, key: input.key, upload: input.upload_id, number: 0 };
    let reading = target.clone();
    let (upload, mut parts) = store
        .read(move |conn| {
            let (_, upload) = reading.find(conn)?;
            let parts = uploads::parts(conn, &upload.id, marker)?;
            Ok((upload, parts))
        })
        .await?;
    let truncated = parts.len() > limit;
    parts.truncate(limit);
    let last = parts.last().map(|part| part.number);
    Ok(S3Response::new(ListPartsOutput {
        bucket: Some(target.bucket),
        key: Some(target.key),
        upload_id: Some(upload.id),
        checksum_algorithm: upload.algorithm.map(|a| a.name().to_owned().into()),
        checksum_type: upload.algorithm.map(|_| upload.kind.name().to_owned().into()),
        initiator: Some(initiator()),
        owner: Some(owner()),
        storage_class: Some(upload.class.into()),
        is_truncated: Some(truncated),
        max_parts: i32::try_from(limit).ok(),
        part_number_marker: Some(marker),
        next_part_number_marker: last,
        parts: Some(parts.into_iter().map(shown_part).collect()),
        ..ListPartsOutput::default()
    }))
}

fn shown_part(row: PartRow) -> Part {
    let mut part = Part {
        part_number: Some(row.number),
        size: i64::try_from(row.size_bytes).ok(),
        last_modified: Some(clock::timestamp_of_s(row.modified_s)),
        e_tag: Some(ETag::Strong(row.etag)),
        ..Part::default()
    };
    set_checksum!(part, parsed(&row.checksum));
    part
}

type UploadEntry = (String, Upload);

pub(super) async fn list_multipart_uploads(
    store: &Store,
    req: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let input = req.input;
    let names = Names::of_request(input.encoding_type.as_ref())?;
    let limit = list::limit(input.max_uploads, "max-uploads")?;
    let lowest = Value::Text(String::new());
    let marker = input.key_marker.clone().unwrap_or_default();
    // Without a key marker S3 ignores that of the upload.
    let id_marker = input.upload_id_marker.clone().filter(|_| !marker.is_empty());
    let from = match &id_marker {
        Some(id) => behind_upload(marker.as_bytes(), id),
        None if marker.is_empty() => Seek::at(b"", &lowest),
        None => Seek::behind_key(marker.as_bytes(), &lowest),
    };
    let query = Query {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: input.delimiter.clone(),
        from,
        passed: marker.clone(),
        limit,
    };
    let bucket = input.bucket.clone();
    let page = store
        .read(move |conn| {
            let source = Source::<UploadEntry> {
                sql: &uploads::walk_sql(),
                bucket: rows::bucket(conn, &bucket)?.id,
                lowest,
                read: uploads::read_upload,
                behind: |(key, upload)| behind_upload(key.as_bytes(), &upload.id),
            };
            walk(conn, &source, &query)
        })
        .await?;
    let (next_key, next_id) = match page.items.last().filter(|_| page.next.is_some()) {
        Some(Item::Entry((key, upload))) => (Some(names.write(key)), Some(upload.id.clone())),
        Some(Item::CommonPrefix(prefix)) => (Some(names.write(prefix)), Some(String::new())),
        None => (None, None),
    };
    let (mut uploads, mut prefixes) = (Vec::new(), Vec::new());
    for item in page.items {
        match item {
            Item::Entry((key, upload)) => uploads.push(shown_upload(names.write(&key), upload)),
            Item::CommonPrefix(prefix) => {
                prefixes.push(CommonPrefix { prefix: Some(names.write(&prefix)) });
            }
        }
    }
    Ok(S3Response::new(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        prefix: Some(names.write(&input.prefix.unwrap_or_default())),
        delimiter: input.delimiter.map(|delimiter| names.write(&delimiter)),
        key_marker: Some(names.write(&marker)),
        upload_id_marker: Some(id_marker.unwrap_or_default()),
        max_uploads: i32::try_from(limit).ok(),
        is_truncated: Some(next_key.is_some()),
        next_key_marker: next_key,
        next_upload_id_marker: next_id,
        encoding_type: names.encoding_type(),
        uploads: Some(uploads),
        common_prefixes: Some(prefixes),
        request_charged: None,
    }))
}

fn behind_upload(key: &[u8], id: &str) -> Seek {
    Seek { key: key.to_vec(), inner: Value::Text(format!("{id}\0")) }
}

fn shown_upload(key: String, upload: Upload) -> MultipartUpload {
    MultipartUpload {
        key: Some(key),
        upload_id: Some(upload.id),
        initiated: Some(clock::timestamp_of_s(upload.initiated_s)),
        initiator: Some(initiator()),
        owner: Some(owner()),
        storage_class: Some(upload.class.into()),
        checksum_algorithm: upload.algorithm.map(|a| a.name().to_owned().into()),
        checksum_type: upload.algorithm.map(|_| upload.kind.name().to_owned().into()),
    }
}
