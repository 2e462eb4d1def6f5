//! Rows of multipart uploads and of their parts.
//!
//! No rules of S3 here. Called by `api::multipart`, `api::complete`, `index::sweep` and the
//! operations on buckets.

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use s3s::S3Result;

use super::digest::{Algorithm, Kind};
use super::fault::{Outcome, no_such_upload};
use super::head::{Head, Tags};
use super::layout::BodyId;
use super::rows::{execute, json, parse_json, read_key};

/// A multipart upload that goes on.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    pub(super) id: String,
    pub(super) initiated_s: i64,
    pub(super) class: String,
    /// As asked for when it began.
    pub(super) algorithm: Option<Algorithm>,
    pub(super) kind: Kind,
    pub(super) head: Head,
    pub(super) tags: Tags,
}

/// A part that was uploaded.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) number: i32,
    pub(super) body: BodyId,
    pub(super) size_bytes: u64,
    pub(super) modified_s: i64,
    pub(super) etag: String,
    pub(super) crc64: u64,
    /// As in [`super::digest::Checksum`]'s text form.
    pub(super) checksum: String,
}

impl Upload {
    /// The algorithm its object will have.
    pub(super) fn object_algorithm(&self) -> Algorithm {
        self.algorithm.unwrap_or(Algorithm::Crc64Nvme)
    }
}

/// A new id, larger than those made before.
pub(super) fn fresh_id(now_ms: i64) -> String {
    format!("{now_ms:012x}{:016x}{:04x}", fastrand::u64(..), fastrand::u16(..))
}

const UPLOAD: &str = "SELECT key, id, initiated_s, class, algorithm, kind, head, tags FROM uploads";

/// The statement of [`super::walk`] over uploads.
pub(super) fn walk_sql() -> String {
    format!("{UPLOAD} WHERE bucket = ?1 AND (key, id) >= (?2, ?3) ORDER BY key, id")
}

/// Reads a row of [`walk_sql`].
pub(super) fn read_upload(row: &Row<'_>) -> Outcome<(String, Upload)> {
    let algorithm: Option<String> = row.get(4)?;
    let kind: String = row.get(5)?;
    let upload = Upload {
        id: row.get(1)?,
        initiated_s: row.get(2)?,
        class: row.get(3)?,
        algorithm: algorithm.map(|name| Algorithm::by_name(&name)).transpose()?,
        kind: Kind::by_name(&kind)?,
        head: parse_json(row.get_ref(6)?.as_str().unwrap_or_default())?,
        tags: parse_json(row.get_ref(7)?.as_str().unwrap_or_default())?,
    };
    Ok((read_key(row, 0)?, upload))
}

/// # Errors
/// `NoSuchUpload`.
pub(super) fn find(conn: &Connection, bucket: i64, key: &str, id: &str) -> Outcome<Upload> {
    let sql = format!("{UPLOAD} WHERE bucket = ?1 AND key = ?2 AND id = ?3");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params![bucket, key.as_bytes(), id])?;
    match rows.next()? {
        Some(row) => Ok(read_upload(row)?.1),
        None => Err(no_such_upload().into()),
    }
}

pub(super) fn insert(conn: &Connection, bucket: i64, key: &str, upload: &Upload) -> Outcome<()> {
    let sql = "INSERT INTO uploads (bucket, key, id, initiated_s, class, algorithm, kind, head, \
               tags) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let values = params![
        bucket,
        key.as_bytes(),
        upload.id,
        upload.initiated_s,
        upload.class,
        upload.algorithm.map(Algorithm::name),
        upload.kind.name(),
        json(&upload.head)?,
        json(&upload.tags)?,
    ];
    execute(conn, sql, values).map(drop)
}

/// Removes an upload and its parts; returns their bodies.
pub(super) fn delete(conn: &Connection, bucket: i64, key: &str, id: &str) -> Outcome<Vec<BodyId>> {
    let bodies = parts(conn, id, 0)?.into_iter().map(|part| part.body).collect();
    execute(conn, "DELETE FROM parts WHERE upload = ?1", [id])?;
    let sql = "DELETE FROM uploads WHERE bucket = ?1 AND key = ?2 AND id = ?3";
    execute(conn, sql, params![bucket, key.as_bytes(), id])?;
    Ok(bodies)
}

/// All uploads of a bucket: key and id.
pub(super) fn of_bucket(conn: &Connection, bucket: i64) -> Outcome<Vec<(String, String)>> {
    let mut statement = conn.prepare_cached("SELECT key, id FROM uploads WHERE bucket = ?1")?;
    let mut rows = statement.query([bucket])?;
    let mut uploads = Vec::new();
    while let Some(row) = rows.next()? {
        uploads.push((read_key(row, 0)?, row.get(1)?));
    }
    Ok(uploads)
}

fn read_part(row: &Row<'_>) -> rusqlite::Result<Part> {
    Ok(Part {
        number: row.get(0)?,
        body: BodyId(row.get(1)?),
        size_bytes: row.get::<_, i64>(2)?.cast_unsigned(),
        modified_s: row.get(3)?,
        etag: row.get(4)?,
        crc64: row.get::<_, i64>(5)?.cast_unsigned(),
        checksum: row.get(6)?,
    })
}

/// The parts of an upload with numbers above `after`, in order.
pub(super) fn parts(conn: &Connection, upload: &str, after: i32) -> Outcome<Vec<Part>> {
    let sql = "SELECT number, body, size, modified_s, etag, crc64, checksum FROM parts \
               WHERE upload = ?1 AND number > ?2 ORDER BY number";
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map(params![upload, after], read_part)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Puts a part in its place; returns the body of the one that was there.
pub(super) fn put_part(conn: &Connection, upload: &str, part: &Part) -> Outcome<Option<BodyId>> {
    let sql = "DELETE FROM parts WHERE upload = ?1 AND number = ?2 RETURNING body";
    let mut statement = conn.prepare_cached(sql)?;
    let earlier: Option<i64> =
        statement.query_row(params![upload, part.number], |row| row.get(0)).optional()?;
    let sql = "INSERT INTO parts (upload, number, body, size, modified_s, etag, crc64, checksum) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let values = params![
        upload,
        part.number,
        part.body.0,
        part.size_bytes.cast_signed(),
        part.modified_s,
        part.etag,
        part.crc64.cast_signed(),
        part.checksum,
    ];
    execute(conn, sql, values)?;
    Ok(earlier.map(BodyId))
}

/// Whether a part has this body.
pub(super) fn has_part(conn: &Connection, body: BodyId) -> Outcome<bool> {
    let mut statement = conn.prepare_cached("SELECT 1 FROM parts WHERE body = ?1")?;
    Ok(statement.exists([body.0])?)
}

/// The part numbers S3 takes.
pub(super) fn check_part_number(number: i32) -> S3Result<()> {
    if (1..=10_000).contains(&number) {
        return Ok(());
    }
    Err(super::fault::invalid_argument(
        "Part number must be an integer between 1 and 10000, inclusive",
    ))
}
