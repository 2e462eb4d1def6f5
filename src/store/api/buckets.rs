//! Buckets: create, look at, list, delete, and their versioning.

use s3s::dto::*;
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};

use super::owner;
use crate::store::fault::{invalid_argument, not_carried, refuse};
use crate::store::index::Tx;
use crate::store::rows::{self, Versioning};
use crate::store::{Store, clock, uploads};

/// The region of S3 that has no name in a location constraint.
const US_EAST_1: &str = "us-east-1";
const BUCKETS_MAX: i32 = 10_000;

/// Whoever created a bucket before gets what S3 answers its owner: 409, and 200 in us-east-1.
pub(super) async fn create_bucket(
    store: &Store,
    req: S3Request<CreateBucketInput>,
) -> S3Result<S3Response<CreateBucketOutput>> {
    let input = req.input;
    if input.object_lock_enabled_for_bucket == Some(true) {
        return Err(not_carried("object lock"));
    }
    let constraint = input.create_bucket_configuration.and_then(|c| c.location_constraint);
    let region = bucket_region(
        constraint.as_ref().map(BucketLocationConstraint::as_str),
        req.region.as_ref().map(s3s::region::Region::as_str),
    )?;
    let (name, now_s) = (input.bucket, clock::seconds(store.now()));
    let location = Some(format!("/{name}"));
    store
        .index()
        .write(move |tx| {
            if let Some(there) = rows::find_bucket(tx.conn, &name)? {
                if there.region == US_EAST_1 && region == US_EAST_1 {
                    return Ok(());
                }
                return Err(refuse(
                    S3ErrorCode::BucketAlreadyOwnedByYou,
                    "Your previous request to create the named bucket succeeded and you \
                     already own it.",
                )
                .into());
            }
            if !tx.bodies().make_bucket(&name)? {
                return Err(refuse(
                    S3ErrorCode::BucketAlreadyExists,
                    format!("The store's folder already holds a {name} that is not the store's."),
                )
                .into());
            }
            rows::insert_bucket(tx.conn, &name, &region, now_s)
        })
        .await?;
    Ok(S3Response::new(CreateBucketOutput { location }))
}

/// Where a bucket is made. `signed` is the region the request was signed for, which on S3 is that
/// of the endpoint it was sent to.
fn bucket_region(constraint: Option<&str>, signed: Option<&str>) -> S3Result<String> {
    let signed = signed.unwrap_or(US_EAST_1);
    let incompatible = |constraint: &str| {
        Err(refuse(
            S3ErrorCode::IllegalLocationConstraintException,
            format!(
                "The {constraint} location constraint is incompatible for the region specific \
                 endpoint this request was sent to."
            ),
        ))
    };
    match constraint.filter(|constraint| !constraint.is_empty()) {
        Some(US_EAST_1) => Err(refuse(
            S3ErrorCode::InvalidLocationConstraint,
            "The specified location-constraint is not valid",
        )),
        Some(constraint) if signed != US_EAST_1 && signed != constraint => incompatible(constraint),
        Some(constraint) => Ok(constraint.to_owned()),
        None if signed != US_EAST_1 => incompatible("unspecified"),
        None => Ok(US_EAST_1.to_owned()),
    }
}

pub(super) async fn head_bucket(
    store: &Store,
    req: S3Request<HeadBucketInput>,
) -> S3Result<S3Response<HeadBucketOutput>> {
    let bucket = store.read(move |conn| rows::bucket(conn, &req.input.bucket)).await?;
    Ok(S3Response::new(HeadBucketOutput {
        bucket_region: Some(bucket.region),
        ..HeadBucketOutput::default()
    }))
}

pub(super) async fn get_bucket_location(
    store: &Store,
    req: S3Request<GetBucketLocationInput>,
) -> S3Result<S3Response<GetBucketLocationOutput>> {
    let bucket = store.read(move |conn| rows::bucket(conn, &req.input.bucket)).await?;
    let constraint = (bucket.region != US_EAST_1).then(|| bucket.region.into());
    Ok(S3Response::new(GetBucketLocationOutput { location_constraint: constraint }))
}

pub(super) async fn list_buckets(
    store: &Store,
    req: S3Request<ListBucketsInput>,
) -> S3Result<S3Response<ListBucketsOutput>> {
    let input = req.input;
    let limit = input.max_buckets.unwrap_or(BUCKETS_MAX);
    if !(1..=BUCKETS_MAX).contains(&limit) {
        return Err(invalid_argument("MaxBuckets must be between 1 and 10000"));
    }
    let prefix = input.prefix.clone().unwrap_or_default();
    let after = input.continuation_token.unwrap_or_default();
    let mut found = store.read(move |conn| rows::buckets(conn, &prefix, &after)).await?;
    if let Some(region) = input.bucket_region {
        found.retain(|bucket| bucket.region == region);
    }
    let limit = usize::try_from(limit).unwrap_or_default();
    let truncated = found.len() > limit;
    found.truncate(limit);
    let continuation_token = found.last().filter(|_| truncated).map(|bucket| bucket.name.clone());
    let buckets = found
        .into_iter()
        .map(|bucket| Bucket {
            bucket_region: Some(bucket.region),
            creation_date: Some(clock::timestamp_of_s(bucket.created_s)),
            name: Some(bucket.name),
        })
        .collect();
    Ok(S3Response::new(ListBucketsOutput {
        buckets: Some(buckets),
        continuation_token,
        owner: Some(owner()),
        prefix: input.prefix,
    }))
}

/// Uploads that were never completed do not keep a bucket; they go with it.
pub(super) async fn delete_bucket(
    store: &Store,
    req: S3Request<DeleteBucketInput>,
) -> S3Result<S3Response<DeleteBucketOutput>> {
    let name = req.input.bucket;
    store
        .index()
        .write(move |tx| {
            let bucket = rows::bucket(tx.conn, &name)?;
            if !rows::is_empty(tx.conn, &bucket)? {
                return Err(refuse(
                    S3ErrorCode::BucketNotEmpty,
                    "The bucket you tried to delete is not empty",
                )
                .into());
            }
            for (key, upload) in uploads::of_bucket(tx.conn, bucket.id)? {
                for part in uploads::delete(tx.conn, bucket.id, &key, &upload)? {
                    tx.part_leaves(part);
                }
            }
            rows::delete_bucket(tx.conn, &bucket)?;
            tx.bodies().remove_bucket(&name);
            Ok(())
        })
        .await?;
    Ok(S3Response::new(DeleteBucketOutput {}))
}

pub(super) async fn get_bucket_versioning(
    store: &Store,
    req: S3Request<GetBucketVersioningInput>,
) -> S3Result<S3Response<GetBucketVersioningOutput>> {
    let bucket = store.read(move |conn| rows::bucket(conn, &req.input.bucket)).await?;
    let status = match bucket.versioning {
        Versioning::Never => None,
        Versioning::Enabled => Some(BucketVersioningStatus::ENABLED),
        Versioning::Suspended => Some(BucketVersioningStatus::SUSPENDED),
    };
    Ok(S3Response::new(GetBucketVersioningOutput {
        mfa_delete: None,
        status: status.map(BucketVersioningStatus::from_static),
    }))
}

pub(super) async fn put_bucket_versioning(
    store: &Store,
    req: S3Request<PutBucketVersioningInput>,
) -> S3Result<S3Response<PutBucketVersioningOutput>> {
    let input = req.input;
    let configuration = input.versioning_configuration;
    if configuration.mfa_delete.is_some_and(|mfa| mfa.as_str() == MFADelete::ENABLED) {
        return Err(not_carried("MFA delete"));
    }
    let versioning = match configuration.status.as_ref().map(BucketVersioningStatus::as_str) {
        Some(BucketVersioningStatus::ENABLED) => Versioning::Enabled,
        Some(BucketVersioningStatus::SUSPENDED) => Versioning::Suspended,
        _ => {
            return Err(refuse(
                S3ErrorCode::IllegalVersioningConfigurationException,
                "The Versioning element must be specified",
            ));
        }
    };
    store
        .index()
        .write(move |tx: &mut Tx<'_>| {
            let bucket = rows::bucket(tx.conn, &input.bucket)?;
            rows::set_versioning(tx.conn, &bucket, versioning)
        })
        .await?;
    Ok(S3Response::new(PutBucketVersioningOutput {}))
}
