//! DeleteObject and DeleteObjects.

use http::HeaderMap;
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use crate::store::fault::{Outcome, invalid_request, not_carried, refuse};
use crate::store::index::Tx;
use crate::store::versions::{self, Deleted, WriteConditions};
use crate::store::{Store, clock, rows};

const KEYS_MAX: usize = 1000;

pub(super) async fn delete_object(
    store: &Store,
    req: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let conditions = WriteConditions::of_headers(&req.headers)?;
    let input = req.input;
    if input.if_match_size.is_some() || input.if_match_last_modified_time.is_some() {
        return Err(not_carried("conditions on size or time of a delete"));
    }
    let now_s = clock::seconds(store.now());
    let deleted = store
        .index()
        .write(move |tx| {
            let bucket = rows::bucket(tx.conn, &input.bucket)?;
            let version = input.version_id.as_deref();
            versions::delete(tx, &bucket, &input.key, version, &conditions, now_s)
        })
        .await?;
    Ok(S3Response::new(DeleteObjectOutput {
        delete_marker: deleted.marker.then_some(true),
        version_id: deleted.version,
        request_charged: None,
    }))
}

/// All keys in one transaction. A key that is refused does not stop the others.
pub(super) async fn delete_objects(
    store: &Store,
    req: S3Request<DeleteObjectsInput>,
) -> S3Result<S3Response<DeleteObjectsOutput>> {
    if !has_digest(&req.headers) {
        return Err(invalid_request(
            "Missing required header for this request: Content-MD5 OR x-amz-checksum-*",
        ));
    }
    let Delete { objects, quiet } = req.input.delete;
    if objects.is_empty() || objects.len() > KEYS_MAX {
        return Err(refuse(
            S3ErrorCode::MalformedXML,
            "The XML you provided was not well-formed or did not validate against our published \
             schema",
        ));
    }
    let now_s = clock::seconds(store.now());
    let bucket = req.input.bucket;
    let results = store
        .index()
        .write(move |tx| {
            let bucket = rows::bucket(tx.conn, &bucket)?;
            let mut results = Vec::with_capacity(objects.len());
            for object in objects {
                let result = tx.attempt(|tx| delete_one(tx, &bucket, &object, now_s));
                results.push((object, result.map_err(S3Error::from)));
            }
            Ok(results)
        })
        .await?;
    let (mut done, mut errors) = (Vec::new(), Vec::new());
    for (object, result) in results {
        match result {
            Ok(deleted) => done.push(shown(object, deleted)),
            Err(error) => errors.push(Error {
                code: Some(error.code().as_str().to_owned()),
                key: Some(object.key),
                message: error.message().map(str::to_owned),
                version_id: object.version_id,
            }),
        }
    }
    Ok(S3Response::new(DeleteObjectsOutput {
        deleted: (quiet != Some(true)).then_some(done),
        errors: (!errors.is_empty()).then_some(errors),
        request_charged: None,
    }))
}

/// S3 wants one here. It is not verified: s3s has read the body by now, and checks its signature.
fn has_digest(headers: &HeaderMap) -> bool {
    let is_digest = |name: &str| {
        matches!(name, "content-md5" | "x-amz-trailer") || name.starts_with("x-amz-checksum-")
    };
    headers.keys().any(|name| is_digest(name.as_str()))
}

fn delete_one(
    tx: &mut Tx<'_>,
    bucket: &rows::Bucket,
    object: &ObjectIdentifier,
    now_s: i64,
) -> Outcome<Deleted> {
    if object.size.is_some() || object.last_modified_time.is_some() {
        return Err(not_carried("conditions on size or time of a delete").into());
    }
    if object.key.len() > 1024 {
        return Err(refuse(S3ErrorCode::KeyTooLongError, "Your key is too long").into());
    }
    let conditions = object.e_tag.clone().map(WriteConditions::etag).unwrap_or_default();
    versions::delete(tx, bucket, &object.key, object.version_id.as_deref(), &conditions, now_s)
}

/// With a version asked for, that version is what was deleted; else a delete marker was made.
fn shown(object: ObjectIdentifier, deleted: Deleted) -> DeletedObject {
    let made_or_was = deleted.marker.then_some(deleted.version).flatten();
    DeletedObject {
        key: Some(object.key),
        version_id: object.version_id,
        delete_marker: deleted.marker.then_some(true),
        delete_marker_version_id: made_or_was,
    }
}
