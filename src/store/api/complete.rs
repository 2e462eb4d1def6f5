//! CompleteMultipartUpload: checks the list of parts, assembles one body, publishes it.
//!
//! The parts are appended in the kernel where the file system can (`copy_file_range`: no bytes
//! through this process, and none moved at all on those that share blocks). A request that fails
//! leaves the upload and its parts as they were.

use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::Connection;
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::checksums::{claimed_of_part, parsed, set_checksum_and_type};
use super::{ResultEtag, multipart::Target};
use crate::store::bodies::{Bodies, Draft};
use crate::store::digest::{self, Algorithm, Checksum, bad_checksum, claimed_checksum};
use crate::store::fault::{Fault, Outcome, invalid_request, refuse};
use crate::store::rows::ObjectPart;
use crate::store::uploads::{self, Part as PartRow, Upload};
use crate::store::versions::{self, NewObject, WriteConditions};
use crate::store::{Store, clock};

/// All parts but the last are at least this large: 5 MiB.
const PART_MIN_BYTES: u64 = 5 << 20;

/// What the request says of the whole object.
struct Claims {
    checksum: Option<(Algorithm, String)>,
    kind: Option<String>,
    size_bytes: Option<i64>,
}

/// An upload's parts, chosen and checked, and what they add up to.
struct Plan {
    upload: Upload,
    parts: Vec<PartRow>,
    etag: String,
    crc64: u64,
    checksum: Checksum,
    size_bytes: u64,
}

pub(super) async fn complete_multipart_upload(
    store: &Store,
    req: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let conditions = WriteConditions::of_headers(&req.headers)?;
    let claims = Claims {
        checksum: claimed_checksum(&req.headers)?,
        kind: req.input.checksum_type.as_ref().map(|kind| kind.as_str().to_owned()),
        size_bytes: req.input.mpu_object_size,
    };
    let input = req.input;
    let listed = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
    let target =
        Target { bucket: input.bucket, key: input.key, upload: input.upload_id, number: 0 };
    let (bodies, reading) = (store.bodies().clone(), target.clone());
    let (plan, draft) = store
        .read(move |conn| {
            let plan = Plan::make(conn, &reading, &listed, &claims)?;
            let draft = plan.assemble(&bodies)?;
            Ok((plan, draft))
        })
        .await?;

    let mut output = CompleteMultipartUploadOutput {
        bucket: Some(target.bucket.clone()),
        key: Some(target.key.clone()),
        location: Some(format!("/{}/{}", target.bucket, target.key)),
        e_tag: Some(ETag::Strong(plan.etag.clone())),
        server_side_encryption: plan.upload.head.encryption.sse.clone().map(Into::into),
        ssekms_key_id: plan.upload.head.encryption.kms_key.clone(),
        bucket_key_enabled: plan.upload.head.encryption.bucket_key,
        ..CompleteMultipartUploadOutput::default()
    };
    set_checksum_and_type!(output, Some(&plan.checksum));
    let etag = ResultEtag(plan.etag.clone());
    output.version_id = publish(store, target, plan, draft, conditions).await?;
    let mut response = S3Response::new(output);
    response.extensions.insert(etag);
    Ok(response)
}

/// Publishes the object and ends the upload, in one transaction.
async fn publish(
    store: &Store,
    target: Target,
    plan: Plan,
    draft: Draft,
    conditions: WriteConditions,
) -> S3Result<Option<String>> {
    let now_s = clock::seconds(store.now());
    store
        .index()
        .write(move |tx| {
            let (bucket, upload) = target.find(tx.conn)?;
            // A part may have been replaced while the body was assembled.
            let there: HashSet<_> =
                uploads::parts(tx.conn, &upload.id, 0)?.iter().map(|part| part.body).collect();
            if !plan.parts.iter().all(|part| there.contains(&part.body)) {
                return Err(invalid_part().into());
            }
            let parts = plan.parts.iter().map(|part| ObjectPart {
                number: part.number,
                size_bytes: part.size_bytes,
                checksum: part.checksum.clone(),
            });
            let new = NewObject {
                draft,
                size_bytes: plan.size_bytes,
                etag: plan.etag,
                crc64: plan.crc64,
                checksum: plan.checksum,
                class: upload.class,
                head: upload.head,
                tags: upload.tags,
                parts: parts.collect(),
            };
            let version = versions::put(tx, &bucket, &target.key, new, &conditions, now_s)?;
            for part in uploads::delete(tx.conn, bucket.id, &target.key, &upload.id)? {
                tx.part_leaves(part);
            }
            Ok(version)
        })
        .await
}

fn invalid_part() -> S3Error {
    refuse(
        S3ErrorCode::InvalidPart,
        "One or more of the specified parts could not be found. The part may not have been \
         uploaded, or the specified entity tag may not match the part's entity tag.",
    )
}

impl Plan {
    fn make(
        conn: &Connection,
        target: &Target,
        listed: &[CompletedPart],
        claims: &Claims,
    ) -> Outcome<Self> {
        let (_, upload) = target.find(conn)?;
        let there = uploads::parts(conn, &upload.id, 0)?;
        let parts = chosen(&upload, listed, &there)?;
        let size_bytes = parts.iter().map(|part| part.size_bytes).sum();
        let unreadable = || Fault::Trouble("a part's row cannot be read".to_owned());
        let etags = parts.iter().map(|part| part.etag.as_str());
        let etag = digest::etag_of_parts(etags).ok_or_else(unreadable)?;
        let crcs = parts.iter().map(|part| (part.crc64, part.size_bytes));
        let crc64 = digest::combined_crc(Algorithm::Crc64Nvme, crcs).ok_or_else(unreadable)?;
        let checksum = match upload.object_algorithm() {
            Algorithm::Crc64Nvme => Checksum::full(Algorithm::Crc64Nvme, &crc64.to_be_bytes()),
            algorithm => {
                let sums: Vec<_> =
                    parts.iter().map(|part| (parsed(&part.checksum), part.size_bytes)).collect();
                let values = sums
                    .iter()
                    .map(|(sum, size)| (sum.as_ref().map(|sum| sum.value.as_str()), *size));
                digest::of_parts(algorithm, upload.kind, values).ok_or_else(unreadable)?
            }
        };
        let plan = Self { upload, parts, etag, crc64, checksum, size_bytes };
        plan.check(claims)?;
        Ok(plan)
    }

    /// Compares what the request says of the whole with what the parts add up to.
    fn check(&self, claims: &Claims) -> S3Result<()> {
        let (algorithm, kind) = (self.checksum.algorithm, self.upload.kind.name());
        if let Some(claimed) = claims.kind.as_deref().filter(|claimed| *claimed != kind) {
            return Err(invalid_request(format!(
                "The upload was created using the {kind} checksum mode. The complete request must \
                 use the same checksum mode, and not {claimed}."
            )));
        }
        match &claims.checksum {
            Some((claimed, _)) if *claimed != algorithm => {
                return Err(invalid_request(format!(
                    "The upload was created using the {} checksum algorithm, and not {}.",
                    algorithm.name(),
                    claimed.name()
                )));
            }
            Some((_, value)) if *value != self.checksum.value => {
                return Err(bad_checksum(algorithm));
            }
            _ => {}
        }
        match claims.size_bytes {
            Some(claimed) if u64::try_from(claimed) != Ok(self.size_bytes) => {
                Err(invalid_request(format!(
                    "The provided 'x-amz-mp-object-size' header value {claimed} does not match \
                     what was computed: {}",
                    self.size_bytes
                )))
            }
            _ => Ok(()),
        }
    }

    /// Appends the parts to one body. Blocks.
    fn assemble(&self, bodies: &Arc<Bodies>) -> Outcome<Draft> {
        let mut whole = bodies.create()?;
        for part in &self.parts {
            // Gone when the upload was completed or aborted, or the part replaced, meanwhile.
            let mut file = bodies.open_part(part.body)?.ok_or_else(invalid_part)?;
            if whole.append(&mut file)? != part.size_bytes {
                let message = format!("the file of part {} was changed", part.number);
                return Err(Fault::Trouble(message));
            }
        }
        whole.finish()?;
        Ok(whole)
    }
}

/// The parts of the list, in its order, if the list is as S3 wants it.
fn chosen(upload: &Upload, listed: &[CompletedPart], there: &[PartRow]) -> S3Result<Vec<PartRow>> {
    if listed.is_empty() {
        return Err(refuse(
            S3ErrorCode::MalformedXML,
            "The XML you provided was not well-formed or did not validate against our published \
             schema",
        ));
    }
    let numbers: Vec<i32> = listed.iter().map(|part| part.part_number.unwrap_or(0)).collect();
    if !numbers.is_sorted_by(|a, b| a < b) {
        return Err(refuse(
            S3ErrorCode::InvalidPartOrder,
            "The list of parts was not in ascending order. Parts must be ordered by part number.",
        ));
    }
    let mut parts = Vec::with_capacity(listed.len());
    for (asked, number) in listed.iter().zip(numbers) {
        let at = there.binary_search_by_key(&number, |part| part.number);
        let part = at.ok().and_then(|at| there.get(at)).ok_or_else(invalid_part)?;
        check_part(upload, asked, part)?;
        parts.push(part.clone());
    }
    let too_small = |part: &PartRow| part.size_bytes < PART_MIN_BYTES;
    if parts.iter().rev().skip(1).any(too_small) {
        return Err(refuse(
            S3ErrorCode::EntityTooSmall,
            "Your proposed upload is smaller than the minimum allowed size",
        ));
    }
    Ok(parts)
}

fn check_part(upload: &Upload, asked: &CompletedPart, part: &PartRow) -> S3Result<()> {
    let algorithm = upload.object_algorithm();
    let stored = parsed(&part.checksum).filter(|stored| stored.algorithm == algorithm);
    let claimed = claimed_of_part(asked, algorithm);
    if claimed.is_none() && upload.kind == digest::Kind::Composite {
        return Err(invalid_request(format!(
            "The upload was created using a {} checksum. The complete request must include the \
             checksum for each part. It was missing for part {} in the request.",
            algorithm.name().to_lowercase(),
            part.number
        )));
    }
    let etag_is_right = asked.e_tag.as_ref().is_some_and(|etag| etag.value() == part.etag);
    let checksum_is_right =
        claimed.is_none_or(|claimed| stored.is_some_and(|stored| stored.value == claimed));
    if etag_is_right && checksum_is_right { Ok(()) } else { Err(invalid_part()) }
}
