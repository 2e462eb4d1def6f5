//! Queries over the records of one backup.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::model::{ETag, Key, KeyTarget, Millis, Object, Record, RelPath};
use crate::plan::DeleteItem;
use crate::ports::{BackupRow, Identity, KeyRange, ProblemRow, Tally};

use super::BackupId;
use super::rows::{self, COLUMNS, unsigned};
use super::write::{HOUR_MS, HOURS};

pub fn default_bucket(
    c: &Connection,
    source: &[u8],
    endpoint: &str,
) -> rusqlite::Result<Option<String>> {
    c.query_row(
        "SELECT bucket FROM default_bucket WHERE source = ?1 AND endpoint = ?2",
        params![source, endpoint],
        |row| row.get(0),
    )
    .optional()
}

/// Names and identities of all backups, by name.
pub fn backups(c: &Connection) -> rusqlite::Result<Vec<(String, BackupId)>> {
    let mut statement =
        c.prepare("SELECT name, source, endpoint, bucket, prefix FROM backup ORDER BY name, id")?;
    let rows = statement.query_map([], |row| {
        let id = BackupId {
            source: row.get(1)?,
            endpoint: row.get(2)?,
            bucket: row.get(3)?,
            prefix: row.get(4)?,
        };
        Ok((row.get(0)?, id))
    })?;
    rows.collect()
}

pub fn knows_bucket(c: &Connection, bucket: &str) -> rusqlite::Result<bool> {
    c.query_row(
        "SELECT EXISTS (SELECT 1 FROM backup WHERE bucket = ?1
             UNION SELECT 1 FROM default_bucket WHERE bucket = ?1)",
        [bucket],
        |row| row.get(0),
    )
}

/// The row of this backup, if it has one.
pub fn backup_id(c: &Connection, id: &BackupId) -> rusqlite::Result<Option<i64>> {
    c.query_row(
        "SELECT id FROM backup WHERE source = ?1 AND endpoint = ?2 AND bucket = ?3 AND prefix = ?4",
        params![id.source, id.endpoint, id.bucket, id.prefix],
        |row| row.get(0),
    )
    .optional()
}

pub fn backup(c: &Connection, backup: i64) -> rusqlite::Result<BackupRow> {
    c.query_row(
        "SELECT filesystem, inode, born_ns, listed_at, owner_etag, owner_generation, conditional,
             rebuilt, owner_id, held_at, made_at, passed_at, proven_before, paused_at,
             held_why, ended_by
         FROM backup WHERE id = ?1",
        [backup],
        |row| {
            let identity = match (row.get(0)?, row.get(1)?) {
                (Some(filesystem), Some(inode)) => Some(Identity {
                    filesystem: unsigned(filesystem),
                    inode: unsigned(inode),
                    born_ns: row.get(2)?,
                }),
                _ => None,
            };
            let time = |at: usize| row.get(at).map(|ms: Option<i64>| ms.map(Millis));
            Ok(BackupRow {
                identity,
                made_at: time(10)?,
                listed_at: time(3)?,
                passed_at: time(11)?,
                proven_before: time(12)?,
                paused_at: time(13)?,
                owner_etag: row.get::<_, Option<String>>(4)?.map(|etag| ETag::new(&etag)),
                owner_generation: unsigned(row.get(5)?),
                conditional: row.get(6)?,
                rebuilt: row.get(7)?,
                owner_id: row.get(8)?,
                held_at: time(9)?,
                held_why: row.get(14)?,
                ended_by: row.get(15)?,
            })
        },
    )
}

pub fn page(
    c: &Connection,
    backup: i64,
    range: &KeyRange,
    after: Option<&Key>,
    limit: usize,
) -> rusqlite::Result<Vec<(Key, Record)>> {
    // Under `a/` means from `a/` up to, not including, `a0`: '0' follows '/' in ASCII.
    let (from, below) = match range {
        KeyRange::All => (String::new(), None),
        KeyRange::Under(key) => {
            let text = key.as_str();
            (text.to_owned(), Some(format!("{}0", text.strip_suffix('/').unwrap_or(text))))
        }
    };
    let (op, start) = match after {
        Some(after) if after.as_str() >= from.as_str() => (">", after.as_str().to_owned()),
        _ => (">=", from),
    };
    let end = if below.is_some() { " AND key < ?3" } else { " AND ?3 IS NULL" };
    let sql = format!(
        "SELECT {COLUMNS} FROM object WHERE backup = ?1 AND key {op} ?2{end}
         ORDER BY key LIMIT ?4"
    );
    let mut statement = c.prepare_cached(&sql)?;
    let rows = statement.query_map(params![backup, start, below, limit as i64], key_and_record)?;
    rows.collect()
}

fn key_and_record(row: &Row<'_>) -> rusqlite::Result<(Key, Record)> {
    Ok((rows::key(row)?, rows::record(row)?))
}

pub fn record(c: &Connection, backup: i64, key: &Key) -> rusqlite::Result<Option<Record>> {
    let sql = format!("SELECT {COLUMNS} FROM object WHERE backup = ?1 AND key = ?2");
    c.prepare_cached(&sql)?.query_row(params![backup, key.as_str()], rows::record).optional()
}

pub fn split(c: &Connection, backup: i64, parts: usize) -> rusqlite::Result<Vec<Key>> {
    let sql = "SELECT count(*) FROM object WHERE backup = ?1";
    let count: i64 = c.prepare_cached(sql)?.query_row([backup], |row| row.get(0))?;
    let parts = i64::try_from(parts.max(1)).unwrap_or(i64::MAX);
    let share = count / parts;
    if share == 0 {
        return Ok(vec![]);
    }
    let mut statement = c.prepare_cached(
        "SELECT key FROM (SELECT key, row_number() OVER (ORDER BY key) AS number
             FROM object WHERE backup = ?1)
         WHERE number % ?2 = 0 ORDER BY key LIMIT ?3",
    )?;
    let rows = statement.query_map(params![backup, share, parts - 1], rows::key)?;
    rows.collect()
}

pub fn tally(c: &Connection, backup: i64, now: Millis) -> rusqlite::Result<Tally> {
    let mut tally = c.query_row(
        "SELECT
             count(*) FILTER (WHERE kind < 2 AND missing_since IS NULL AND status <> 3),
             count(*) FILTER (WHERE kind = 2 AND missing_since IS NULL AND status <> 3),
             count(*) FILTER (WHERE kind < 2 AND missing_since IS NULL AND status <> 3
                 AND etag IS NOT NULL),
             ifnull(sum(size) FILTER (WHERE kind < 2 AND missing_since IS NULL AND status <> 3
                 AND etag IS NOT NULL), 0),
             count(*) FILTER (WHERE kind < 2 AND missing_since IS NULL AND status IN (1, 2)),
             ifnull(sum(size) FILTER (WHERE kind < 2 AND missing_since IS NULL
                 AND status IN (1, 2)), 0),
             count(*) FILTER (WHERE kind < 2 AND missing_since IS NOT NULL AND status IN (0, 2)
                 AND NOT approved),
             count(*) FILTER (WHERE missing_since IS NOT NULL AND status IN (0, 2) AND approved),
             count(*) FILTER (WHERE kind = 2 AND missing_since IS NOT NULL AND status IN (0, 2)
                 AND NOT approved),
             min(missing_since) FILTER (WHERE status IN (0, 2)),
             count(*) FILTER (WHERE kind < 2 AND missing_since IS NOT NULL AND status = 2
                 AND NOT approved)
         FROM object WHERE backup = ?1",
        [backup],
        |row| {
            Ok(Tally {
                files: unsigned(row.get(0)?),
                folders: unsigned(row.get(1)?),
                kept: unsigned(row.get(2)?),
                kept_bytes: unsigned(row.get(3)?),
                unsettled: unsigned(row.get(4)?),
                unsettled_bytes: unsigned(row.get(5)?),
                pending: unsigned(row.get(6)?),
                approved: unsigned(row.get(7)?),
                pending_folders: unsigned(row.get(8)?),
                oldest_missing: row.get::<_, Option<i64>>(9)?.map(Millis),
                charged: unsigned(row.get(10)?),
                ..Tally::default()
            })
        },
    )?;
    let since = now.0.div_euclid(HOUR_MS) - HOURS;
    (tally.spent, tally.files_max) = c.query_row(
        "SELECT ifnull(sum(deleted), 0), ifnull(max(files_max), 0) FROM hourly
         WHERE backup = ?1 AND hour > ?2",
        params![backup, since],
        |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))),
    )?;
    (tally.failed, tally.skipped, tally.unread) = c.query_row(
        "SELECT count(*) FILTER (WHERE failed), count(*) FILTER (WHERE NOT failed),
             count(*) FILTER (WHERE NOT failed AND unknown)
         FROM problem WHERE backup = ?1",
        [backup],
        |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?), unsigned(row.get(2)?))),
    )?;
    tally.unclaimed =
        c.query_row("SELECT count(*) FROM unclaimed WHERE backup = ?1", [backup], |row| {
            Ok(unsigned(row.get(0)?))
        })?;
    Ok(tally)
}

pub fn owes(c: &Connection, backup: i64, missing: bool) -> rusqlite::Result<bool> {
    c.query_row(
        "SELECT EXISTS (SELECT 1 FROM problem WHERE backup = ?1 AND (failed OR unknown))
             OR (?2 AND EXISTS (SELECT 1 FROM object
                 WHERE backup = ?1 AND missing_since IS NOT NULL AND status IN (0, 2)))",
        params![backup, missing],
        |row| row.get(0),
    )
}

pub fn due(
    c: &Connection,
    backup: i64,
    before: Millis,
    limit: usize,
) -> rusqlite::Result<Vec<DeleteItem>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM object
         WHERE backup = ?1 AND missing_since IS NOT NULL AND status IN (0, 2)
             AND (missing_since <= ?2 OR approved)
         ORDER BY missing_since, key LIMIT ?3"
    );
    let mut statement = c.prepare_cached(&sql)?;
    let rows = statement.query_map(params![backup, before.0, limit as i64], key_and_record)?;
    let mut items = vec![];
    for row in rows {
        let (key, record) = row?;
        if let Some(path) = path_of(&key) {
            items.push(DeleteItem { key, path, record });
        }
    }
    Ok(items)
}

/// Keys of records are canonical; one that is not stands for no file here.
fn path_of(key: &Key) -> Option<RelPath> {
    match key.target()? {
        KeyTarget::File(path) | KeyTarget::Folder(path) => Some(path),
    }
}

pub fn racy(
    c: &Connection,
    backup: i64,
    before: Millis,
    limit: usize,
) -> rusqlite::Result<Vec<RelPath>> {
    let mut statement = c.prepare_cached(
        "SELECT key FROM object WHERE backup = ?1 AND racy_at IS NOT NULL AND racy_at <= ?2
         ORDER BY racy_at LIMIT ?3",
    )?;
    let rows = statement.query_map(params![backup, before.0, limit as i64], rows::key)?;
    let keys: Vec<Key> = rows.collect::<rusqlite::Result<_>>()?;
    Ok(keys.iter().filter_map(path_of).collect())
}

pub fn named(
    c: &Connection,
    backup: i64,
    inodes: &BTreeSet<u64>,
) -> rusqlite::Result<Vec<RelPath>> {
    let sql = "SELECT key, inode FROM object WHERE backup = ?1 AND kind = 0";
    let mut statement = c.prepare_cached(sql)?;
    let mut rows = statement.query([backup])?;
    let mut names = vec![];
    while let Some(row) = rows.next()? {
        if inodes.contains(&unsigned(row.get(1)?)) {
            names.extend(path_of(&rows::key(row)?));
        }
    }
    Ok(names)
}

pub fn problems(
    c: &Connection,
    backup: i64,
    after: Option<&Key>,
    limit: usize,
) -> rusqlite::Result<Vec<ProblemRow>> {
    let mut statement = c.prepare_cached(
        "SELECT key, path, failed, message, attempts, since FROM problem
         WHERE backup = ?1 AND key > ?2 ORDER BY key LIMIT ?3",
    )?;
    let after = after.map_or("", |key| key.as_str());
    let rows = statement.query_map(params![backup, after, limit as i64], |row| {
        Ok(ProblemRow {
            key: rows::key(row)?,
            path: RelPath::new(row.get_ref(1)?.as_blob()?).unwrap_or_else(|_| RelPath::root()),
            failed: row.get(2)?,
            message: row.get(3)?,
            attempts: row.get(4)?,
            since: Millis(row.get(5)?),
        })
    })?;
    rows.collect()
}

pub fn unclaimed(
    c: &Connection,
    backup: i64,
    after: Option<&Key>,
    limit: usize,
) -> rusqlite::Result<Vec<(Key, Object)>> {
    let mut statement = c.prepare_cached(
        "SELECT key, size, etag, modified FROM unclaimed
         WHERE backup = ?1 AND key > ?2 ORDER BY key LIMIT ?3",
    )?;
    let after = after.map_or("", |key| key.as_str());
    let rows = statement.query_map(params![backup, after, limit as i64], |row| {
        let object = Object {
            size_bytes: unsigned(row.get(1)?),
            etag: ETag::new(row.get_ref(2)?.as_str()?),
            modified: Millis(row.get(3)?),
            archived: false,
        };
        Ok((rows::key(row)?, object))
    })?;
    rows.collect()
}
