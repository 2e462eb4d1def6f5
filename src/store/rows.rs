//! The index's schema and its rows: buckets, versions of objects, uploads and their parts.
//!
//! One function for each thing that is asked of a table; no rules of S3 here, and no transactions.
//! Keys are BLOBs, so that SQLite orders them as S3 does: by their bytes. Called inside
//! [`super::index`]'s reads and writes.

use rusqlite::{Connection, OptionalExtension as _, Params, Row, named_params, params};

use super::bodies::{Home, Place};
use super::damage::{self, Mark};
use super::digest::Checksum;
use super::fault::{Fault, Outcome, no_such_bucket};
use super::head::{Head, Tags};
use super::layout::BodyId;

/// Version of the schema, in `PRAGMA user_version`.
pub(super) const SCHEMA_VERSION: i64 = 2;

/// What makes version 2 of version 1. The time of files that are there is not known.
pub(super) const FROM_1_TO_2: &str = "ALTER TABLE versions ADD COLUMN stamped_s INTEGER";

pub(super) const SCHEMA: &str = "
CREATE TABLE buckets (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    region TEXT NOT NULL,
    created_s INTEGER NOT NULL,
    -- 0 never, 1 enabled, 2 suspended
    versioning INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE versions (
    bucket INTEGER NOT NULL,
    key BLOB NOT NULL,
    -- Newer versions of a key rank lower, so that the newest comes first.
    rank INTEGER NOT NULL,
    version TEXT NOT NULL,
    latest INTEGER NOT NULL,
    -- A delete marker. It has no body.
    marker INTEGER NOT NULL,
    body INTEGER,
    -- Where the body lies when it is not in tmp: 0 blob, 1 plain
    home INTEGER NOT NULL,
    size INTEGER NOT NULL,
    modified_s INTEGER NOT NULL,
    etag TEXT NOT NULL,
    -- CRC64NVME of the whole body
    crc64 INTEGER NOT NULL,
    -- ALGORITHM KIND value
    checksum TEXT NOT NULL,
    class TEXT NOT NULL,
    -- A restored copy can be read from when, until when
    thawed_ms INTEGER,
    expiry_ms INTEGER,
    head TEXT NOT NULL,
    tags TEXT NOT NULL,
    -- Of a multipart object: its parts in order, as JSON
    parts TEXT,
    -- The time of modification that the body's file was given
    stamped_s INTEGER,
    PRIMARY KEY (bucket, key, rank)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX current ON versions (bucket, key) WHERE latest = 1 AND marker = 0;
CREATE UNIQUE INDEX versions_by_body ON versions (body) WHERE body IS NOT NULL;

CREATE TABLE uploads (
    bucket INTEGER NOT NULL,
    key BLOB NOT NULL,
    -- Later uploads of a key have larger ids.
    id TEXT NOT NULL,
    initiated_s INTEGER NOT NULL,
    class TEXT NOT NULL,
    algorithm TEXT,
    kind TEXT NOT NULL,
    head TEXT NOT NULL,
    tags TEXT NOT NULL,
    PRIMARY KEY (bucket, key, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE parts (
    upload TEXT NOT NULL,
    number INTEGER NOT NULL,
    -- Lies in tmp until the upload is completed or aborted.
    body INTEGER NOT NULL,
    size INTEGER NOT NULL,
    modified_s INTEGER NOT NULL,
    etag TEXT NOT NULL,
    crc64 INTEGER NOT NULL,
    checksum TEXT NOT NULL,
    PRIMARY KEY (upload, number)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX parts_by_body ON parts (body);
";

/// The versioning state of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Versioning {
    Never,
    Enabled,
    Suspended,
}

#[derive(Clone, Debug)]
pub(super) struct Bucket {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) region: String,
    pub(super) created_s: i64,
    pub(super) versioning: Versioning,
}

/// The version id of objects in a bucket that is not versioned, or suspended.
pub(super) const NULL_VERSION: &str = "null";

/// One version of an object, or a delete marker.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) rank: i64,
    pub(super) version: String,
    pub(super) marker: bool,
    pub(super) body: Option<BodyId>,
    pub(super) home: Home,
    pub(super) size_bytes: u64,
    /// See [`super::damage`].
    pub(super) stamped_s: Option<i64>,
    pub(super) modified_s: i64,
    /// Without quotes.
    pub(super) etag: String,
    pub(super) crc64: u64,
    pub(super) checksum: Checksum,
    pub(super) class: String,
    pub(super) thaw: Option<Thaw>,
    pub(super) head: Head,
    pub(super) tags: Tags,
    /// Empty unless it was made by a multipart upload.
    pub(super) parts: Vec<ObjectPart>,
}

/// A restored copy of an archived object: readable from when, until when, in ms since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thaw {
    pub(super) from_ms: i64,
    pub(super) until_ms: i64,
}

/// A part of a finished multipart object.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct ObjectPart {
    pub(super) number: i32,
    pub(super) size_bytes: u64,
    /// As in [`Checksum`]'s text form.
    pub(super) checksum: String,
}

impl Version {
    /// Where its body lies; `None` for a delete marker.
    pub(super) fn place<'a>(&self, bucket: &'a str, key: &'a str) -> Option<Place<'a>> {
        self.body.map(|body| Place { body, home: self.home, bucket, key })
    }

    /// What the file of its body shows.
    pub(super) fn mark(&self) -> Mark {
        Mark { size_bytes: self.size_bytes, stamped_s: self.stamped_s }
    }

    /// Whether it was shown with this ETag, be it as damaged.
    pub(super) fn is_named(&self, etag: &str) -> bool {
        etag == self.etag || self.body.is_some_and(|body| etag == damage::etag(body))
    }
}

/// Runs a cached statement; returns the number of rows changed.
pub(super) fn execute(conn: &Connection, sql: &str, params: impl Params) -> Outcome<usize> {
    Ok(conn.prepare_cached(sql)?.execute(params)?)
}

fn one<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> Outcome<T>,
) -> Outcome<Option<T>> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    rows.next()?.map(read).transpose()
}

const BUCKET: &str = "SELECT id, name, region, created_s, versioning FROM buckets";

fn read_bucket(row: &Row<'_>) -> rusqlite::Result<Bucket> {
    let versioning = match row.get(4)? {
        1 => Versioning::Enabled,
        2 => Versioning::Suspended,
        _ => Versioning::Never,
    };
    Ok(Bucket {
        id: row.get(0)?,
        name: row.get(1)?,
        region: row.get(2)?,
        created_s: row.get(3)?,
        versioning,
    })
}

/// # Errors
/// `NoSuchBucket`.
pub(super) fn bucket(conn: &Connection, name: &str) -> Outcome<Bucket> {
    find_bucket(conn, name)?.ok_or_else(|| no_such_bucket().into())
}

pub(super) fn find_bucket(conn: &Connection, name: &str) -> Outcome<Option<Bucket>> {
    let mut statement = conn.prepare_cached(&format!("{BUCKET} WHERE name = ?1"))?;
    Ok(statement.query_row([name], read_bucket).optional()?)
}

/// Buckets whose names start with `prefix` and come after `after`, in order.
pub(super) fn buckets(conn: &Connection, prefix: &str, after: &str) -> Outcome<Vec<Bucket>> {
    let sql =
        format!("{BUCKET} WHERE name > ?1 AND substr(name, 1, length(?2)) = ?2 ORDER BY name");
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(params![after, prefix], read_bucket)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn insert_bucket(
    conn: &Connection,
    name: &str,
    region: &str,
    created_s: i64,
) -> Outcome<()> {
    let sql = "INSERT INTO buckets (name, region, created_s) VALUES (?1, ?2, ?3)";
    execute(conn, sql, params![name, region, created_s]).map(drop)
}

pub(super) fn set_versioning(
    conn: &Connection,
    bucket: &Bucket,
    versioning: Versioning,
) -> Outcome<()> {
    let number = match versioning {
        Versioning::Never => 0,
        Versioning::Enabled => 1,
        Versioning::Suspended => 2,
    };
    let sql = "UPDATE buckets SET versioning = ?2 WHERE id = ?1";
    execute(conn, sql, params![bucket.id, number]).map(drop)
}

/// Whether no version and no delete marker is left in a bucket.
pub(super) fn is_empty(conn: &Connection, bucket: &Bucket) -> Outcome<bool> {
    let sql = "SELECT 1 FROM versions WHERE bucket = ?1 LIMIT 1";
    Ok(one(conn, sql, [bucket.id], |_| Ok(()))?.is_none())
}

pub(super) fn delete_bucket(conn: &Connection, bucket: &Bucket) -> Outcome<()> {
    execute(conn, "DELETE FROM buckets WHERE id = ?1", [bucket.id]).map(drop)
}

const VERSION: &str = "SELECT rank, version, marker, body, home, size, modified_s, etag, crc64, \
     checksum, class, thawed_ms, expiry_ms, head, tags, parts, stamped_s FROM versions \
     WHERE bucket = ?1 AND key = ?2";

fn read_version(row: &Row<'_>) -> Outcome<Version> {
    let thaw = match (row.get(11)?, row.get(12)?) {
        (Some(from_ms), Some(until_ms)) => Some(Thaw { from_ms, until_ms }),
        _ => None,
    };
    let parts = match row.get_ref(15)?.as_str_or_null() {
        Ok(Some(text)) => parse_json(text)?,
        _ => Vec::new(),
    };
    Ok(Version {
        rank: row.get(0)?,
        version: row.get(1)?,
        marker: row.get(2)?,
        body: row.get::<_, Option<i64>>(3)?.map(BodyId),
        home: if row.get(4)? { Home::Plain } else { Home::Blob },
        size_bytes: row.get::<_, i64>(5)?.cast_unsigned(),
        stamped_s: row.get(16)?,
        modified_s: row.get(6)?,
        etag: row.get(7)?,
        crc64: row.get::<_, i64>(8)?.cast_unsigned(),
        checksum: row.get_ref(9)?.as_str().unwrap_or_default().parse()?,
        class: row.get(10)?,
        thaw,
        head: parse_json(row.get_ref(13)?.as_str().unwrap_or_default())?,
        tags: parse_json(row.get_ref(14)?.as_str().unwrap_or_default())?,
        parts,
    })
}

/// The newest version of a key, which may be a delete marker.
pub(super) fn latest(conn: &Connection, bucket: i64, key: &str) -> Outcome<Option<Version>> {
    let sql = format!("{VERSION} ORDER BY rank LIMIT 1");
    one(conn, &sql, params![bucket, key.as_bytes()], read_version)
}

pub(super) fn version(
    conn: &Connection,
    bucket: i64,
    key: &str,
    version: &str,
) -> Outcome<Option<Version>> {
    let sql = format!("{VERSION} AND version = ?3");
    one(conn, &sql, params![bucket, key.as_bytes(), version], read_version)
}

/// Adds a version, as the newest of its key: no other may be latest.
pub(super) fn insert_version(
    conn: &Connection,
    bucket: i64,
    key: &str,
    new: &Version,
) -> Outcome<()> {
    let sql = "INSERT INTO versions (bucket, key, rank, version, latest, marker, body, home, \
               size, modified_s, etag, crc64, checksum, class, thawed_ms, expiry_ms, head, tags, \
               parts, stamped_s) \
               VALUES (:bucket, :key, :rank, :version, 1, :marker, :body, :home, :size, \
               :modified_s, :etag, :crc64, :checksum, :class, NULL, NULL, :head, :tags, :parts, \
               :stamped_s)";
    let parts = (!new.parts.is_empty()).then(|| json(&new.parts)).transpose()?;
    let values = named_params! {
        ":bucket": bucket,
        ":key": key.as_bytes(),
        ":rank": new.rank,
        ":version": new.version,
        ":marker": new.marker,
        ":body": new.body.map(|body| body.0),
        ":home": new.home == Home::Plain,
        ":size": new.size_bytes.cast_signed(),
        ":modified_s": new.modified_s,
        ":etag": new.etag,
        ":crc64": new.crc64.cast_signed(),
        ":checksum": new.checksum.to_string(),
        ":class": new.class,
        ":head": json(&new.head)?,
        ":tags": json(&new.tags)?,
        ":parts": parts,
        ":stamped_s": new.stamped_s,
    };
    execute(conn, sql, values).map(drop)
}

pub(super) fn delete_version(conn: &Connection, bucket: i64, key: &str, rank: i64) -> Outcome<()> {
    let sql = "DELETE FROM versions WHERE bucket = ?1 AND key = ?2 AND rank = ?3";
    execute(conn, sql, params![bucket, key.as_bytes(), rank]).map(drop)
}

pub(super) fn set_latest(
    conn: &Connection,
    bucket: i64,
    key: &str,
    rank: i64,
    latest: bool,
) -> Outcome<()> {
    let sql = "UPDATE versions SET latest = ?4 WHERE bucket = ?1 AND key = ?2 AND rank = ?3";
    execute(conn, sql, params![bucket, key.as_bytes(), rank, latest]).map(drop)
}

pub(super) fn set_tags(
    conn: &Connection,
    bucket: i64,
    key: &str,
    rank: i64,
    tags: &Tags,
) -> Outcome<()> {
    let sql = "UPDATE versions SET tags = ?4 WHERE bucket = ?1 AND key = ?2 AND rank = ?3";
    execute(conn, sql, params![bucket, key.as_bytes(), rank, json(tags)?]).map(drop)
}

pub(super) fn set_thaw(
    conn: &Connection,
    bucket: i64,
    key: &str,
    rank: i64,
    thaw: Thaw,
) -> Outcome<()> {
    let sql = "UPDATE versions SET thawed_ms = ?4, expiry_ms = ?5 \
               WHERE bucket = ?1 AND key = ?2 AND rank = ?3";
    execute(conn, sql, params![bucket, key.as_bytes(), rank, thaw.from_ms, thaw.until_ms]).map(drop)
}

/// Where the body of a version lies: home, bucket and key. `None` when no version has it.
pub(super) fn place_of(conn: &Connection, body: BodyId) -> Outcome<Option<(Home, String, String)>> {
    let sql = "SELECT v.home, b.name, v.key FROM versions v JOIN buckets b ON b.id = v.bucket \
               WHERE v.body = ?1";
    one(conn, sql, [body.0], |row| {
        let home = if row.get(0)? { Home::Plain } else { Home::Blob };
        Ok((home, row.get(1)?, read_key(row, 2)?))
    })
}

pub(super) fn set_home_blob(conn: &Connection, body: BodyId) -> Outcome<()> {
    execute(conn, "UPDATE versions SET home = 0 WHERE body = ?1", [body.0]).map(drop)
}

/// The body whose plain file lies at this key.
pub(super) fn plain_body(conn: &Connection, bucket: &str, key: &str) -> Outcome<Option<BodyId>> {
    let sql = "SELECT body FROM versions WHERE home = 1 AND body IS NOT NULL AND key = ?2 \
               AND bucket = (SELECT id FROM buckets WHERE name = ?1)";
    one(conn, sql, params![bucket, key.as_bytes()], |row| Ok(BodyId(row.get(0)?)))
}

/// The text of a key column.
pub(super) fn read_key(row: &Row<'_>, column: usize) -> Outcome<String> {
    String::from_utf8(row.get(column)?)
        .map_err(|_| Fault::Trouble("the index holds a key that is not UTF-8".to_owned()))
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> Outcome<String> {
    serde_json::to_string(value).map_err(|e| Fault::Trouble(format!("cannot write a row: {e}")))
}

pub(super) fn parse_json<T: serde::de::DeserializeOwned>(text: &str) -> Outcome<T> {
    serde_json::from_str(text)
        .map_err(|e| Fault::Trouble(format!("the index holds a row that cannot be read: {e}")))
}
