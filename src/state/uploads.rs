//! The journal of multipart uploads: one row an upload, one a part.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::model::{Crc64, ETag, Key};
use crate::ports::{JournaledPart, PartDigest, StoredPart, UploadJournal};

use super::rows::{self, fingerprint, fingerprint_values, signed, unsigned};
use super::write::{Caches, execute};

pub fn opening(
    c: &Connection,
    caches: &mut Caches,
    backup: i64,
    journal: &UploadJournal,
) -> rusqlite::Result<()> {
    caches.uploads = true;
    dropped(c, backup, &journal.key)?;
    let mut statement = c.prepare_cached(
        "INSERT INTO upload VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    let part_size = signed(journal.part_size);
    let others = journal.others.as_ref().map(|ids| serde_json::json!(ids).to_string());
    let [size, mtime_s, mtime_ns, ctime_s, ctime_ns, inode, device] =
        fingerprint_values(&journal.fingerprint);
    statement.execute(params![
        backup,
        journal.key.as_str(),
        journal.upload_id.as_deref(),
        part_size,
        size,
        mtime_s,
        mtime_ns,
        ctime_s,
        ctime_ns,
        inode,
        device,
        others
    ])?;
    Ok(())
}

pub fn opened(c: &Connection, backup: i64, key: &Key, upload_id: &str) -> rusqlite::Result<()> {
    execute(
        c,
        "UPDATE upload SET upload_id = ?3 WHERE backup = ?1 AND key = ?2",
        params![backup, key.as_str(), upload_id],
    )
}

pub fn part_done(
    c: &Connection,
    backup: i64,
    key: &Key,
    part: &JournaledPart,
) -> rusqlite::Result<()> {
    let JournaledPart { stored, digest } = part;
    execute(
        c,
        "INSERT OR REPLACE INTO part VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            backup,
            key.as_str(),
            stored.number,
            signed(stored.size_bytes),
            stored.etag.as_str(),
            digest.md5.to_string(),
            signed(digest.crc64.0)
        ],
    )
}

pub fn dropped(c: &Connection, backup: i64, key: &Key) -> rusqlite::Result<()> {
    for sql in [
        "DELETE FROM upload WHERE backup = ?1 AND key = ?2",
        "DELETE FROM part WHERE backup = ?1 AND key = ?2",
    ] {
        execute(c, sql, params![backup, key.as_str()])?;
    }
    Ok(())
}

pub fn journal(c: &Connection, backup: i64, key: &Key) -> rusqlite::Result<Option<UploadJournal>> {
    let journal = c
        .prepare_cached(
            "SELECT upload_id, part_size, size, mtime_s, mtime_ns, ctime_s, ctime_ns, inode, device,
                 others
             FROM upload WHERE backup = ?1 AND key = ?2",
        )?
        .query_row(params![backup, key.as_str()], |row| {
            Ok(UploadJournal {
                key: key.clone(),
                upload_id: row.get(0)?,
                // What cannot be read is as if nobody had asked.
                others: row
                    .get::<_, Option<String>>(9)?
                    .and_then(|text| serde_json::from_str(&text).ok()),
                part_size: unsigned(row.get(1)?),
                fingerprint: fingerprint(row, 2)?,
                parts: vec![],
            })
        })
        .optional()?;
    let Some(mut journal) = journal else { return Ok(None) };
    let mut statement = c.prepare_cached(
        "SELECT number, size, etag, md5, crc64 FROM part WHERE backup = ?1 AND key = ?2
         ORDER BY number",
    )?;
    let mut rows = statement.query(params![backup, key.as_str()])?;
    while let Some(row) = rows.next()? {
        let size_bytes = unsigned(row.get(1)?);
        // A part whose digest does not parse is sent again.
        let Ok(md5) = row.get_ref(3)?.as_str()?.parse() else { continue };
        let stored = StoredPart {
            number: row.get(0)?,
            size_bytes,
            etag: ETag::new(row.get_ref(2)?.as_str()?),
            checksum: None,
        };
        let crc64 = Crc64(unsigned(row.get(4)?));
        let digest = PartDigest { bytes: size_bytes, md5, crc64 };
        journal.parts.push(JournaledPart { stored, digest });
    }
    Ok(Some(journal))
}

/// Keys that have one, in order.
pub fn keys(c: &Connection, backup: i64) -> rusqlite::Result<Vec<Key>> {
    let mut statement =
        c.prepare_cached("SELECT key FROM upload WHERE backup = ?1 ORDER BY key")?;
    let keys = statement.query_map([backup], rows::key)?;
    keys.collect()
}
