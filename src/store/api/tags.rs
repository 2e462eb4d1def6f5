//! Tags of an object, or of one of its versions.

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result};

use crate::store::fetch::find;
use crate::store::head::Tags;
use crate::store::{Store, rows};

pub(super) async fn put_object_tagging(
    store: &Store,
    req: S3Request<PutObjectTaggingInput>,
) -> S3Result<S3Response<PutObjectTaggingOutput>> {
    let input = req.input;
    let pairs = input.tagging.tag_set.into_iter();
    let pairs = pairs.map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default()));
    let tags = Tags::checked(pairs.collect())?;
    let version_id = set(store, input.bucket, input.key, input.version_id, tags).await?;
    Ok(S3Response::new(PutObjectTaggingOutput { version_id }))
}

pub(super) async fn delete_object_tagging(
    store: &Store,
    req: S3Request<DeleteObjectTaggingInput>,
) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
    let input = req.input;
    let none = Tags::default();
    let version_id = set(store, input.bucket, input.key, input.version_id, none).await?;
    Ok(S3Response::new(DeleteObjectTaggingOutput { version_id }))
}

pub(super) async fn get_object_tagging(
    store: &Store,
    req: S3Request<GetObjectTaggingInput>,
) -> S3Result<S3Response<GetObjectTaggingOutput>> {
    let input = req.input;
    let found = store
        .read(move |conn| find(conn, &input.bucket, &input.key, input.version_id.as_deref()))
        .await?;
    let version_id = found.version_id();
    let tags = found.version.tags.0.into_iter();
    let tag_set = tags.map(|(key, value)| Tag { key: Some(key), value: Some(value) }).collect();
    Ok(S3Response::new(GetObjectTaggingOutput { tag_set, version_id }))
}

async fn set(
    store: &Store,
    bucket: String,
    key: String,
    version: Option<String>,
    tags: Tags,
) -> S3Result<Option<String>> {
    store
        .index()
        .write(move |tx| {
            let found = find(tx.conn, &bucket, &key, version.as_deref())?;
            rows::set_tags(tx.conn, found.bucket.id, &key, found.version.rank, &tags)?;
            Ok(found.version_id())
        })
        .await
}
