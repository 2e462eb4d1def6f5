//! The operations of S3, one function each; this is the table of what the store carries.
//!
//! An operation reads the request, does its work in one trip to a blocking thread or one write to
//! the index, and says what S3 would say. What is not in the table answers `NotImplemented`.
//! Called by s3s, through [`super::endpoint`].

mod attributes;
mod buckets;
mod checksums;
mod complete;
mod copy;
mod delete;
mod get;
pub(super) mod list;
mod multipart;
mod names;
mod put;
mod restore;
mod tags;

use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result};

use super::Store;

macro_rules! operations {
    ($($name:ident($input:ident) -> $output:ident in $module:ident;)*) => {
        #[async_trait::async_trait]
        impl S3 for Store {
            $(async fn $name(&self, req: S3Request<$input>) -> S3Result<S3Response<$output>> {
                $module::$name(self, req).await
            })*
        }
    };
}

operations! {
    create_bucket(CreateBucketInput) -> CreateBucketOutput in buckets;
    head_bucket(HeadBucketInput) -> HeadBucketOutput in buckets;
    get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput in buckets;
    list_buckets(ListBucketsInput) -> ListBucketsOutput in buckets;
    delete_bucket(DeleteBucketInput) -> DeleteBucketOutput in buckets;
    get_bucket_versioning(GetBucketVersioningInput) -> GetBucketVersioningOutput in buckets;
    put_bucket_versioning(PutBucketVersioningInput) -> PutBucketVersioningOutput in buckets;

    put_object(PutObjectInput) -> PutObjectOutput in put;
    copy_object(CopyObjectInput) -> CopyObjectOutput in copy;
    get_object(GetObjectInput) -> GetObjectOutput in get;
    head_object(HeadObjectInput) -> HeadObjectOutput in get;
    get_object_attributes(GetObjectAttributesInput) -> GetObjectAttributesOutput in attributes;
    delete_object(DeleteObjectInput) -> DeleteObjectOutput in delete;
    delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput in delete;
    restore_object(RestoreObjectInput) -> RestoreObjectOutput in restore;

    put_object_tagging(PutObjectTaggingInput) -> PutObjectTaggingOutput in tags;
    get_object_tagging(GetObjectTaggingInput) -> GetObjectTaggingOutput in tags;
    delete_object_tagging(DeleteObjectTaggingInput) -> DeleteObjectTaggingOutput in tags;

    list_objects(ListObjectsInput) -> ListObjectsOutput in list;
    list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output in list;
    list_object_versions(ListObjectVersionsInput) -> ListObjectVersionsOutput in list;

    create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput in multipart;
    upload_part(UploadPartInput) -> UploadPartOutput in multipart;
    upload_part_copy(UploadPartCopyInput) -> UploadPartCopyOutput in copy;
    complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput
        in complete;
    abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput in multipart;
    list_parts(ListPartsInput) -> ListPartsOutput in multipart;
    list_multipart_uploads(ListMultipartUploadsInput) -> ListMultipartUploadsOutput in multipart;
}

/// The account that owns everything here.
pub(super) const ACCOUNT: &str = "000000000000";

fn owner() -> Owner {
    Owner { display_name: Some("keepwatch".to_owned()), id: Some(ACCOUNT.to_owned()) }
}

/// The ETag of an answer that carries it only in its XML; the access log takes it from here.
#[derive(Clone)]
pub(super) struct ResultEtag(pub(super) String);

/// The status of an answer that s3s would give another one.
#[derive(Clone, Copy)]
pub(super) struct ResultStatus(pub(super) http::StatusCode);
