//! PutObject.

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result};

use super::checksums::set_checksum_and_type;
use crate::store::digest::{self, Sums};
use crate::store::head::{Head, Tags, storage_class};
use crate::store::intake::{Incoming, receive};
use crate::store::layout::BodyId;
use crate::store::rows;
use crate::store::versions::{self, NewObject, WriteConditions};
use crate::store::{Store, clock};

pub(super) async fn put_object(
    store: &Store,
    mut req: S3Request<PutObjectInput>,
) -> S3Result<S3Response<PutObjectOutput>> {
    let conditions = WriteConditions::of_headers(&req.headers)?;
    let head = Head::of_headers(&req.headers)?;
    let class = storage_class(req.input.storage_class.as_ref().map(StorageClass::as_str))?;
    let tags = Tags::of_header(req.input.tagging.as_deref())?;
    let (body, length) = (req.input.body.take(), req.input.content_length);
    let incoming = Incoming::of_request(&mut req, body, length)?;
    let (bucket, key) = (req.input.bucket, req.input.key);

    let received = receive(store.bodies(), incoming).await?;
    let checksum = received.sums.checksum();
    let etag = etag_of(&received.sums, &head, received.draft.body());
    let mut output = PutObjectOutput {
        e_tag: Some(ETag::Strong(etag.clone())),
        server_side_encryption: head.encryption.sse.clone().map(Into::into),
        ssekms_key_id: head.encryption.kms_key.clone(),
        bucket_key_enabled: head.encryption.bucket_key,
        ..PutObjectOutput::default()
    };
    set_checksum_and_type!(output, Some(&checksum));
    let new = NewObject {
        size_bytes: received.sums.size_bytes,
        crc64: received.sums.crc64,
        draft: received.draft,
        etag,
        checksum,
        class: class.to_owned(),
        head,
        tags,
        parts: Vec::new(),
    };
    let now_s = clock::seconds(store.now());
    output.version_id = store
        .index()
        .write(move |tx| {
            let bucket = rows::bucket(tx.conn, &bucket)?;
            versions::put(tx, &bucket, &key, new, &conditions, now_s)
        })
        .await?;
    Ok(S3Response::new(output))
}

/// The ETag of a body that came in one piece: its MD5, and anything else under KMS.
pub(super) fn etag_of(sums: &Sums, head: &Head, body: BodyId) -> String {
    if !head.encryption.hides_md5() {
        return digest::etag(&sums.md5);
    }
    let mut over = digest::Digests::new(None);
    over.update(&sums.md5);
    over.update(&body.0.to_be_bytes());
    digest::etag(&over.finish().md5)
}
