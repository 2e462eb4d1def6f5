//! Rows of the `object` table and records: the translation both ways.

use rusqlite::Row;

use crate::model::{
    ContentMd5, ETag, Entry, Fingerprint, Key, Kind, Millis, Record, Timestamp, Trust,
};

/// The columns of a record, in the order that [`record`] reads them; `key` is the first.
pub const COLUMNS: &str = "key, kind, size, mtime_s, mtime_ns, ctime_s, ctime_ns, inode, device, \
    mode, uid, gid, md5, part_size, etag, status, racy_at, stale_meta, missing_since, approved";

pub fn key(row: &Row<'_>) -> rusqlite::Result<Key> {
    Ok(Key::literal(row.get_ref(0)?.as_str()?))
}

pub fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let kind = match row.get::<_, i64>(1)? {
        0 => Kind::File,
        1 => Kind::Link,
        _ => Kind::Folder,
    };
    let fingerprint = fingerprint(row, 2)?;
    let entry =
        Entry { kind, fingerprint, mode: row.get(9)?, uid: row.get(10)?, gid: row.get(11)? };
    let part_size = unsigned(row.get(13)?);
    let md5 = row.get_ref(12)?.as_str_or_null()?;
    let etag = row.get_ref(14)?.as_str_or_null()?;
    Ok(Record {
        entry,
        content: md5.and_then(|md5| ContentMd5::parse(md5, part_size)),
        etag: etag.map(ETag::new),
        trust: trust(row.get(15)?),
        racy: row.get::<_, Option<i64>>(16)?.is_some(),
        stale_meta: row.get(17)?,
        missing_since: row.get::<_, Option<i64>>(18)?.map(Millis),
        approved: row.get(19)?,
    })
}

/// Reads a fingerprint from seven columns, `size` first, as [`fingerprint_values`] gives them.
pub fn fingerprint(row: &Row<'_>, first: usize) -> rusqlite::Result<Fingerprint> {
    Ok(Fingerprint {
        size_bytes: unsigned(row.get(first)?),
        mtime: Timestamp::new(row.get(first + 1)?, row.get(first + 2)?),
        ctime: Timestamp::new(row.get(first + 3)?, row.get(first + 4)?),
        inode: unsigned(row.get(first + 5)?),
        device: unsigned(row.get(first + 6)?),
    })
}

pub fn kind_code(kind: Kind) -> i64 {
    match kind {
        Kind::File => 0,
        Kind::Link => 1,
        Kind::Folder => 2,
    }
}

pub fn trust_code(trust: Trust) -> i64 {
    match trust {
        Trust::Synced => 0,
        Trust::Uploading => 1,
        Trust::Deleting => 2,
        Trust::Tagged => 3,
    }
}

fn trust(code: i64) -> Trust {
    match code {
        0 => Trust::Synced,
        2 => Trust::Deleting,
        3 => Trust::Tagged,
        // An unknown word is not to be believed.
        _ => Trust::Uploading,
    }
}

/// SQLite's integers are signed; inodes and sizes are kept bit by bit.
pub fn signed(value: u64) -> i64 {
    value.cast_signed()
}

pub fn unsigned(value: i64) -> u64 {
    value.cast_unsigned()
}

/// The seven columns of a fingerprint as parameters, in the tables' order.
pub fn fingerprint_values(f: &Fingerprint) -> [i64; 7] {
    [
        signed(f.size_bytes),
        f.mtime.secs,
        i64::from(f.mtime.nanos),
        f.ctime.secs,
        i64::from(f.ctime.nanos),
        signed(f.inode),
        signed(f.device),
    ]
}
