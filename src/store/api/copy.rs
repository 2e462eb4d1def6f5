//! CopyObject and UploadPartCopy: the bytes are read, hashed against what the index says, and
//! written to a body of their own.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range as ByteRange;
use std::sync::Arc;

use http::HeaderMap;
use s3s::dto::*;
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};

use super::checksums::{set_checksum, set_checksum_and_type};
use super::get::{ReadConditions, Verdict};
use super::put::etag_of;
use super::{ResultEtag, multipart};
use crate::store::bodies::{Bodies, Draft};
use crate::store::digest::{Algorithm, Digests, Sums};
use crate::store::fault::{
    Fault, Outcome, invalid_argument, invalid_request, precondition_failed, refuse,
};
use crate::store::fetch::{self, Found, changed_by_hand, check_readable};
use crate::store::head::{Head, Tags, form_decoded, storage_class};
use crate::store::intake::PUT_MAX_BYTES;
use crate::store::versions::{self, NewObject, WriteConditions};
use crate::store::{Store, clock, rows, uploads};

const CHUNK_BYTES: usize = 1 << 20;
/// A range can be copied of larger objects only.
const RANGE_SOURCE_MIN_BYTES: u64 = 5 << 20;

/// What `x-amz-copy-source` names.
struct Source {
    bucket: String,
    key: String,
    version: Option<String>,
    conditions: ReadConditions,
}

impl Source {
    /// Reads the raw header: S3 takes a `+` in it for a space, s3s does not.
    fn of_headers(headers: &HeaderMap, conditions: ReadConditions) -> S3Result<Self> {
        let header = headers.get("x-amz-copy-source").and_then(|value| value.to_str().ok());
        let header = header.unwrap_or_default();
        let (path, version) = match header.split_once("?versionId=") {
            Some((path, version)) => (path, Some(form_decoded(version)?)),
            None => (header, None),
        };
        let path = form_decoded(path)?;
        let path = path.strip_prefix('/').unwrap_or(&path);
        match path.split_once('/') {
            Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => {
                Ok(Self { bucket: bucket.to_owned(), key: key.to_owned(), version, conditions })
            }
            _ => Err(invalid_argument(
                "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
            )),
        }
    }

    /// Opens the source, unless the request may not have it.
    fn open(
        &self,
        conn: &rusqlite::Connection,
        bodies: &Bodies,
        now_ms: i64,
        admit: impl Fn(&Found) -> Outcome<()>,
    ) -> Outcome<(Found, File)> {
        let target = (self.bucket.as_str(), self.key.as_str(), self.version.as_deref());
        let opened = fetch::open(conn, bodies, target, |found| {
            match self.conditions.verdict(&found.version) {
                Verdict::Proceed => {}
                Verdict::NotModified => {
                    return Err(precondition_failed("x-amz-copy-source-If-None-Match").into());
                }
                Verdict::Failed(_) => {
                    return Err(precondition_failed("x-amz-copy-source-If-Match").into());
                }
            }
            check_readable(&found.version, now_ms)?;
            admit(found)
        });
        opened.map_err(|fault| match fault {
            Fault::Refused(error) if *error.code() == S3ErrorCode::MethodNotAllowed => {
                invalid_request(
                    "The source of a copy request may not specifically refer to a delete marker \
                     by version id.",
                )
                .into()
            }
            fault => fault,
        })
    }
}

/// Copies a range of an open body into a new one. Blocks.
fn copy_bytes(
    bodies: &Arc<Bodies>,
    mut source: File,
    range: ByteRange<u64>,
    algorithm: Algorithm,
) -> Outcome<(Draft, Sums)> {
    let unreadable = |e| Fault::Trouble(format!("cannot read the source of a copy: {e}"));
    source.seek(SeekFrom::Start(range.start)).map_err(unreadable)?;
    let mut draft = bodies.create()?;
    let mut digests = Digests::new(Some(algorithm));
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut rest = source.take(range.end - range.start);
    loop {
        let size_bytes = rest.read(&mut chunk).map_err(unreadable)?;
        if size_bytes == 0 {
            break;
        }
        digests.update(&chunk[..size_bytes]);
        draft.write(&chunk[..size_bytes])?;
    }
    draft.finish()?;
    Ok((draft, digests.finish()))
}

/// What a CopyObject asks of its result.
struct Asked {
    replace_head: bool,
    head: Head,
    replace_tags: bool,
    tags: Tags,
    class: &'static str,
    algorithm: Option<Algorithm>,
    /// Something that makes a copy onto itself worth it.
    changes: bool,
}

impl Asked {
    fn of_request(req: &S3Request<CopyObjectInput>) -> S3Result<Self> {
        let input = &req.input;
        let directive = |asked: Option<&str>, what: &str| match asked {
            None | Some("COPY") => Ok(false),
            Some("REPLACE") => Ok(true),
            Some(_) => Err(invalid_argument(format!("Unknown {what} directive."))),
        };
        let metadata = input.metadata_directive.as_ref().map(MetadataDirective::as_str);
        let tagging = input.tagging_directive.as_ref().map(TaggingDirective::as_str);
        let replace_head = directive(metadata, "metadata")?;
        let class = input.storage_class.as_ref().map(StorageClass::as_str);
        let head = Head::of_headers(&req.headers)?;
        let algorithm = input.checksum_algorithm.as_ref();
        Ok(Self {
            replace_head,
            changes: replace_head || class.is_some() || head.encryption.sse.is_some(),
            head,
            replace_tags: directive(tagging, "tagging")?,
            tags: Tags::of_header(input.tagging.as_deref())?,
            class: storage_class(class)?,
            algorithm: algorithm.map(|a| Algorithm::by_name(a.as_str())).transpose()?,
        })
    }
}

pub(super) async fn copy_object(
    store: &Store,
    req: S3Request<CopyObjectInput>,
) -> S3Result<S3Response<CopyObjectOutput>> {
    let asked = Asked::of_request(&req)?;
    let conditions = WriteConditions::of_headers(&req.headers)?;
    let input = req.input;
    let source = Source::of_headers(
        &req.headers,
        ReadConditions {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            if_modified_since: input.copy_source_if_modified_since,
            if_unmodified_since: input.copy_source_if_unmodified_since,
        },
    )?;
    let (bucket, key) = (input.bucket, input.key);
    let onto_itself = source.bucket == bucket && source.key == key && source.version.is_none();
    let now_ms = clock::millis(store.now());
    let bodies = store.bodies().clone();
    let (found, new) = store
        .read(move |conn| {
            let (found, file) = source.open(conn, &bodies, now_ms, |found| {
                let restored = found.version.thaw.is_some();
                check_copy(found.version.size_bytes, onto_itself && !asked.changes && !restored)
            })?;
            let new = copied(&bodies, &source, &found, file, asked)?;
            Ok((found, new))
        })
        .await?;

    let (etag, checksum) = (new.etag.clone(), new.checksum.clone());
    let mut result = CopyObjectResult {
        e_tag: Some(ETag::Strong(etag.clone())),
        last_modified: Some(clock::timestamp_of_s(now_ms / 1000)),
        ..CopyObjectResult::default()
    };
    set_checksum_and_type!(result, Some(&checksum));
    let encryption = new.head.encryption.clone();
    let version_id = store
        .index()
        .write(move |tx| {
            let bucket = rows::bucket(tx.conn, &bucket)?;
            versions::put(tx, &bucket, &key, new, &conditions, now_ms / 1000)
        })
        .await?;
    let mut response = S3Response::new(CopyObjectOutput {
        copy_object_result: Some(result),
        copy_source_version_id: found.version_id(),
        version_id,
        server_side_encryption: encryption.sse.map(Into::into),
        ssekms_key_id: encryption.kms_key,
        bucket_key_enabled: encryption.bucket_key,
        ..CopyObjectOutput::default()
    });
    response.extensions.insert(ResultEtag(etag));
    Ok(response)
}

fn check_copy(size_bytes: u64, for_nothing: bool) -> Outcome<()> {
    if size_bytes > PUT_MAX_BYTES {
        return Err(invalid_request(format!(
            "The specified copy source is larger than the maximum allowable size for a copy \
             source: {PUT_MAX_BYTES}"
        ))
        .into());
    }
    if for_nothing {
        return Err(invalid_request(
            "This copy request is illegal because it is trying to copy an object to itself \
             without changing the object's metadata, storage class, website redirect location or \
             encryption attributes.",
        )
        .into());
    }
    Ok(())
}

/// The new object. Blocks.
fn copied(
    bodies: &Arc<Bodies>,
    source: &Source,
    found: &Found,
    file: File,
    asked: Asked,
) -> Outcome<NewObject> {
    let version = &found.version;
    let algorithm = asked.algorithm.unwrap_or(version.checksum.algorithm);
    let (draft, sums) = copy_bytes(bodies, file, 0..version.size_bytes, algorithm)?;
    if sums.crc64 != version.crc64 {
        return Err(changed_by_hand(&source.bucket, &source.key));
    }
    let head = if asked.replace_head {
        asked.head
    } else {
        Head { encryption: asked.head.encryption, ..version.head.clone() }
    };
    Ok(NewObject {
        size_bytes: sums.size_bytes,
        etag: etag_of(&sums, &head, draft.body()),
        crc64: sums.crc64,
        checksum: sums.checksum(),
        draft,
        class: asked.class.to_owned(),
        head,
        tags: if asked.replace_tags { asked.tags } else { version.tags.clone() },
        parts: Vec::new(),
    })
}

pub(super) async fn upload_part_copy(
    store: &Store,
    req: S3Request<UploadPartCopyInput>,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    let input = req.input;
    uploads::check_part_number(input.part_number)?;
    let source = Source::of_headers(
        &req.headers,
        ReadConditions {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            if_modified_since: input.copy_source_if_modified_since,
            if_unmodified_since: input.copy_source_if_unmodified_since,
        },
    )?;
    let now_ms = clock::millis(store.now());
    let bodies = store.bodies().clone();
    let asked_range = input.copy_source_range;
    let target = multipart::Target {
        bucket: input.bucket,
        key: input.key,
        upload: input.upload_id,
        number: input.part_number,
    };
    let reading = target.clone();
    let (source_version, draft, sums) = store
        .read(move |conn| {
            let algorithm = reading.find(conn)?.1.object_algorithm();
            let (found, file) = source.open(conn, &bodies, now_ms, |_| Ok(()))?;
            let range = source_range(asked_range.as_deref(), found.version.size_bytes)?;
            let (draft, sums) = copy_bytes(&bodies, file, range, algorithm)?;
            Ok((found.version_id(), draft, sums))
        })
        .await?;
    let brought = Some(sums.checksum().algorithm);
    let added = target.add(store, draft, sums, brought).await?;
    let mut result = CopyPartResult {
        e_tag: Some(ETag::Strong(added.etag.clone())),
        last_modified: Some(clock::timestamp_of_s(now_ms / 1000)),
        ..CopyPartResult::default()
    };
    set_checksum!(result, Some(&added.checksum));
    let mut response = S3Response::new(UploadPartCopyOutput {
        copy_part_result: Some(result),
        copy_source_version_id: source_version,
        server_side_encryption: added.encryption.sse.map(Into::into),
        ssekms_key_id: added.encryption.kms_key,
        ..UploadPartCopyOutput::default()
    });
    response.extensions.insert(ResultEtag(added.etag));
    Ok(response)
}

/// `bytes=first-last`, both of which must be there; the whole source without it.
fn source_range(asked: Option<&str>, size_bytes: u64) -> Outcome<ByteRange<u64>> {
    let range = match asked {
        None => 0..size_bytes,
        Some(asked) => match Range::parse(asked) {
            Ok(Range::Int { first, last: Some(last) }) => {
                if size_bytes <= RANGE_SOURCE_MIN_BYTES {
                    return Err(invalid_request(
                        "The specified copy source is not supported as a byte-range copy source",
                    )
                    .into());
                }
                first..last + 1
            }
            _ => {
                return Err(invalid_argument(
                    "The x-amz-copy-source-range value must be of the form bytes=first-last \
                     where first and last are the zero-based offsets of the first and last bytes \
                     to copy",
                )
                .into());
            }
        },
    };
    if range.end > size_bytes {
        return Err(invalid_request(
            "The specified copy range is invalid for the source object size.",
        )
        .into());
    }
    if range.end - range.start > PUT_MAX_BYTES {
        let message = "The part to be copied exceeds the maximum allowed part size.";
        return Err(refuse(S3ErrorCode::EntityTooLarge, message).into());
    }
    Ok(range)
}
