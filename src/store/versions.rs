//! What S3's versioning makes of a write and of a delete, and the conditions they carry.
//!
//! Everything here runs inside one write transaction, so a condition is checked and acted on
//! without a gap, whoever else writes. Called by the operations that make or delete objects.

use http::HeaderMap;
use s3s::S3Result;
use s3s::dto::ETagCondition;

use super::bodies::{Draft, Home};
use super::digest::{Algorithm, Checksum};
use super::fault::{Outcome, invalid_argument, no_such_key, not_carried, precondition_failed};
use super::head::{Head, STANDARD, Tags};
use super::index::Tx;
use super::rows::{self, Bucket, NULL_VERSION, ObjectPart, Version, Versioning};

/// `If-Match` and `If-None-Match` of a request that writes.
#[derive(Clone, Debug, Default)]
pub(super) struct WriteConditions {
    if_match: Option<ETagCondition>,
    if_none_match: bool,
}

impl WriteConditions {
    /// # Errors
    /// An ETag that is none; `If-None-Match` with anything but `*`, which S3 does not take either.
    pub(super) fn of_headers(headers: &HeaderMap) -> S3Result<Self> {
        let condition = |name: &str| match headers.get(name) {
            None => Ok(None),
            Some(value) => ETagCondition::parse_http_header(value.as_bytes())
                .map(Some)
                .map_err(|_| invalid_argument(format!("The value of {name} is invalid."))),
        };
        let if_none_match = match condition("if-none-match")? {
            None => false,
            Some(ETagCondition::Any) => true,
            Some(ETagCondition::ETag(_)) => {
                return Err(not_carried("If-None-Match with an ETag on a write"));
            }
        };
        Ok(Self { if_match: condition("if-match")?, if_none_match })
    }

    /// Holds when the object has this ETag.
    pub(super) fn etag(etag: s3s::dto::ETag) -> Self {
        Self { if_match: Some(ETagCondition::ETag(etag)), if_none_match: false }
    }

    /// `current` is the newest version, `None` if that is a delete marker.
    fn check_put(&self, current: Option<&Version>) -> S3Result<()> {
        match (current, &self.if_match) {
            (Some(_), _) if self.if_none_match => Err(precondition_failed("If-None-Match")),
            (None, Some(_)) => Err(no_such_key()),
            (Some(current), Some(_)) => self.check_delete(current),
            (_, None) => Ok(()),
        }
    }

    fn check_delete(&self, target: &Version) -> S3Result<()> {
        match &self.if_match {
            Some(ETagCondition::ETag(etag)) if !target.is_named(etag.value()) => {
                Err(precondition_failed("If-Match"))
            }
            _ => Ok(()),
        }
    }
}

/// An object to be made, whose body is complete and checked.
pub(super) struct NewObject {
    pub(super) draft: Draft,
    pub(super) size_bytes: u64,
    pub(super) etag: String,
    pub(super) crc64: u64,
    pub(super) checksum: Checksum,
    pub(super) class: String,
    pub(super) head: Head,
    pub(super) tags: Tags,
    pub(super) parts: Vec<ObjectPart>,
}

/// Makes an object the newest version of its key. Returns its version id, as the bucket shows it.
pub(super) fn put(
    tx: &mut Tx<'_>,
    bucket: &Bucket,
    key: &str,
    new: NewObject,
    conditions: &WriteConditions,
    now_s: i64,
) -> Outcome<Option<String>> {
    let latest = rows::latest(tx.conn, bucket.id, key)?;
    conditions.check_put(latest.as_ref().filter(|latest| !latest.marker))?;
    let slot = make_room(tx, bucket, key, latest)?;
    let version = Version {
        rank: slot.rank,
        version: slot.version,
        marker: false,
        body: Some(new.draft.body()),
        home: tx.bodies().home(&bucket.name, key),
        size_bytes: new.size_bytes,
        stamped_s: new.draft.stamped_s(),
        modified_s: now_s,
        etag: new.etag,
        crc64: new.crc64,
        checksum: new.checksum,
        class: new.class,
        thaw: None,
        head: new.head,
        tags: new.tags,
        parts: new.parts,
    };
    rows::insert_version(tx.conn, bucket.id, key, &version)?;
    tx.arrives(new.draft.keep());
    Ok(shown(bucket, &version.version))
}

/// What a delete did, in the terms of its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Deleted {
    /// A delete marker was made, or was what was deleted.
    pub(super) marker: bool,
    /// Of the delete marker that was made, or of the version that was deleted.
    pub(super) version: Option<String>,
}

/// Deletes a version for ever, or without `version` what versioning makes of that.
pub(super) fn delete(
    tx: &mut Tx<'_>,
    bucket: &Bucket,
    key: &str,
    version: Option<&str>,
    conditions: &WriteConditions,
    now_s: i64,
) -> Outcome<Deleted> {
    let latest = rows::latest(tx.conn, bucket.id, key)?;
    if let Some(asked) = version {
        check_version_id(asked)?;
        return delete_version(tx, bucket, key, asked, conditions, latest);
    }
    match latest.as_ref().filter(|latest| !latest.marker) {
        Some(current) => conditions.check_delete(current)?,
        // S3 answers success when there is nothing the condition could be held against.
        None if conditions.if_match.is_some() => return Ok(Deleted::default()),
        None => {}
    }
    if bucket.versioning == Versioning::Never {
        if let Some(latest) = latest {
            remove(tx, bucket, key, &latest, true)?;
        }
        return Ok(Deleted::default());
    }
    let slot = make_room(tx, bucket, key, latest)?;
    let marker = delete_marker(slot, now_s);
    rows::insert_version(tx.conn, bucket.id, key, &marker)?;
    Ok(Deleted { marker: true, version: Some(marker.version) })
}

fn delete_version(
    tx: &mut Tx<'_>,
    bucket: &Bucket,
    key: &str,
    asked: &str,
    conditions: &WriteConditions,
    latest: Option<Version>,
) -> Outcome<Deleted> {
    let mut deleted = Deleted { marker: false, version: Some(asked.to_owned()) };
    let Some(target) = rows::version(tx.conn, bucket.id, key, asked)? else { return Ok(deleted) };
    conditions.check_delete(&target)?;
    deleted.marker = target.marker;
    remove(tx, bucket, key, &target, true)?;
    if latest.is_some_and(|latest| latest.rank == target.rank)
        && let Some(next) = rows::latest(tx.conn, bucket.id, key)?
    {
        rows::set_latest(tx.conn, bucket.id, key, next.rank, true)?;
    }
    Ok(deleted)
}

/// Where a new version goes.
struct Slot {
    rank: i64,
    version: String,
}

/// Makes way for a new latest version: the null version goes unless versioning is enabled, and
/// what was latest is so no longer.
fn make_room(
    tx: &mut Tx<'_>,
    bucket: &Bucket,
    key: &str,
    latest: Option<Version>,
) -> Outcome<Slot> {
    let rank = latest.as_ref().map_or(0, |latest| latest.rank) - 1;
    let mut staying = latest;
    let version = if bucket.versioning == Versioning::Enabled {
        fresh_version_id(rank)
    } else {
        let null = match staying.take_if(|latest| latest.version == NULL_VERSION) {
            Some(null) => Some(null),
            None if staying.is_some() => rows::version(tx.conn, bucket.id, key, NULL_VERSION)?,
            None => None,
        };
        if let Some(null) = null {
            remove(tx, bucket, key, &null, false)?;
        }
        NULL_VERSION.to_owned()
    };
    if let Some(earlier) = staying {
        rows::set_latest(tx.conn, bucket.id, key, earlier.rank, false)?;
        if let Some(place) = earlier.place(&bucket.name, key) {
            tx.moves_to_blob(place)?;
        }
    }
    Ok(Slot { rank, version })
}

fn remove(
    tx: &mut Tx<'_>,
    bucket: &Bucket,
    key: &str,
    version: &Version,
    prune: bool,
) -> Outcome<()> {
    if let Some(place) = version.place(&bucket.name, key) {
        tx.leaves(place, prune)?;
    }
    rows::delete_version(tx.conn, bucket.id, key, version.rank)
}

fn delete_marker(slot: Slot, now_s: i64) -> Version {
    Version {
        rank: slot.rank,
        version: slot.version,
        marker: true,
        body: None,
        home: Home::Blob,
        size_bytes: 0,
        stamped_s: None,
        modified_s: now_s,
        etag: String::new(),
        crc64: 0,
        checksum: Checksum::full(Algorithm::Crc64Nvme, &[]),
        class: STANDARD.to_owned(),
        thaw: None,
        head: Head::default(),
        tags: Tags::default(),
        parts: Vec::new(),
    }
}

/// A version id as answers show it: not at all in a bucket that never had versions.
pub(super) fn shown(bucket: &Bucket, version: &str) -> Option<String> {
    (bucket.versioning != Versioning::Never).then(|| version.to_owned())
}

/// The id begins with the rank, so that a listing can go on from a version that is gone.
fn fresh_version_id(rank: i64) -> String {
    format!("{:016x}{:016x}", rank.unsigned_abs(), fastrand::u64(..))
}

/// The rank of the version that has, or had, this id; `None` for the null version.
pub(super) fn rank_of(version: &str) -> Option<i64> {
    i64::from_str_radix(version.get(..16)?, 16).ok().map(|rank| -rank)
}

/// # Errors
/// `InvalidArgument` for what cannot be a version id of ours.
pub(super) fn check_version_id(version: &str) -> S3Result<()> {
    let ours = version.len() == 32 && version.bytes().all(|b| b.is_ascii_hexdigit());
    if ours || version == NULL_VERSION {
        return Ok(());
    }
    Err(invalid_argument("Invalid version id specified"))
}
