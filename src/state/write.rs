//! Changes of the state, one function a change.

use rusqlite::{Connection, params};

use crate::engine::{Problem, Trouble};
use crate::model::{ContentMd5, ETag, Entry, Key, Millis, Object, Record, Trust};
use crate::ports::{Change, Identity};

use super::rows::{fingerprint_values, kind_code, signed, trust_code};
use super::{BackupId, read, schema, uploads};

pub const HOUR_MS: i64 = 3_600_000;
/// Hours that count as the last 24: the running one and 24 before it.
pub const HOURS: i64 = 25;

/// Whether side tables may have rows at all: most uploads need not ask them.
#[derive(Debug)]
pub struct Caches {
    pub(super) uploads: bool,
    problems: bool,
    unclaimed: bool,
}

impl Caches {
    pub fn load(connection: &Connection) -> Self {
        let any = |table: &str| {
            let sql = format!("SELECT EXISTS (SELECT 1 FROM {table})");
            connection.query_row(&sql, [], |row| row.get(0)).unwrap_or(true)
        };
        Self { uploads: any("upload"), problems: any("problem"), unclaimed: any("unclaimed") }
    }
}

pub fn backup_row_id(
    c: &Connection,
    name: &str,
    id: &BackupId,
    now: Millis,
) -> rusqlite::Result<i64> {
    let rebuilt = schema::was_rebuilt(c)?;
    c.execute(
        "INSERT INTO backup (source, endpoint, bucket, prefix, rebuilt, name, made_at, owner_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, lower(hex(randomblob(16))))
         ON CONFLICT DO UPDATE SET name = excluded.name",
        params![id.source, id.endpoint, id.bucket, id.prefix, rebuilt, name, now.0],
    )?;
    read::backup_id(c, id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

/// Drops all that is known of this backup; answers with whether it was on record.
pub fn forget_backup(c: &Connection, id: &BackupId) -> rusqlite::Result<bool> {
    let Some(backup) = read::backup_id(c, id)? else { return Ok(false) };
    let change = c.unchecked_transaction()?;
    for table in ["part", "upload", "problem", "unclaimed", "hourly", "object"] {
        c.execute(&format!("DELETE FROM {table} WHERE backup = ?1"), [backup])?;
    }
    c.execute("DELETE FROM backup WHERE id = ?1", [backup])?;
    change.commit()?;
    Ok(true)
}

pub fn set_default_bucket(
    c: &Connection,
    source: &[u8],
    endpoint: &str,
    bucket: &str,
) -> rusqlite::Result<()> {
    c.execute(
        "INSERT INTO default_bucket VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET bucket = excluded.bucket",
        params![source, endpoint, bucket],
    )?;
    Ok(())
}

/// Applies one change inside the running transaction.
pub fn apply(
    c: &Connection,
    caches: &mut Caches,
    backup: i64,
    change: &Change,
) -> rusqlite::Result<()> {
    match change {
        Change::Uploading { key, entry } => uploading(c, backup, key, entry),
        Change::Expected { key, content } => expected(c, backup, key, content),
        Change::Synced { key, record } => {
            settle(c, caches, backup, key)?;
            synced(c, backup, key, record)
        }
        Change::Missing { key, at } => missing(c, backup, key, *at),
        Change::Found { key, disk } => found(c, backup, key, *disk),
        Change::Forget { key, keep } => {
            settle(c, caches, backup, key)?;
            forget(c, backup, key)?;
            keep.as_ref().map_or(Ok(()), |object| unclaimed(c, caches, backup, key, object))
        }
        Change::Deleting { keys, counted, at } => deleting(c, backup, keys, *counted, *at),
        Change::Deleted { key } => {
            settle(c, caches, backup, key)?;
            forget(c, backup, key)
        }
        Change::Tagged { key } => {
            settle(c, caches, backup, key)?;
            tagged(c, backup, key)
        }
        Change::UploadOpening(journal) => uploads::opening(c, caches, backup, journal),
        Change::UploadOpened { key, upload_id } => uploads::opened(c, backup, key, upload_id),
        Change::PartDone { key, part } => uploads::part_done(c, backup, key, part),
        Change::UploadDropped { key } => uploads::dropped(c, backup, key),
        Change::Problem { problem, at } => set_problem(c, caches, backup, problem, *at),
        Change::ProblemSolved { key } => solved(c, backup, key, true),
        Change::SkipSolved { key } => solved(c, backup, key, false),
        Change::SkipsBegan => {
            execute(c, "UPDATE problem SET stale = 1 WHERE backup = ?1 AND NOT failed", [backup])
        }
        Change::SkipsEnded => {
            execute(c, "DELETE FROM problem WHERE backup = ?1 AND NOT failed AND stale", [backup])
        }
        Change::Unclaimed { key, object } => unclaimed(c, caches, backup, key, object),
        Change::ListingBegan => execute(c, "DELETE FROM unclaimed WHERE backup = ?1", [backup]),
        Change::Listed { at } => set_time(c, backup, "listed_at", Some(*at)),
        Change::Passed { at } => set_time(c, backup, "passed_at", Some(*at)),
        Change::Paused { at } => set_time(c, backup, "paused_at", *at),
        Change::Proven { before, now } => proven(c, backup, *before, *now),
        Change::Identity(identity) => set_identity(c, backup, identity),
        Change::Files { count, at } => files(c, backup, *count, *at),
        Change::Owner { etag, generation, conditional } => {
            set_owner(c, backup, etag, *generation, *conditional)
        }
        Change::Approve => approve(c, backup),
        Change::Discard => discard(c, caches, backup),
        Change::Held { at, why } => execute(
            c,
            "UPDATE backup SET held_at = ?2, held_why = ?3 WHERE id = ?1",
            params![backup, at.0, why],
        ),
        Change::Ended { by } => {
            execute(c, "UPDATE backup SET ended_by = ?2 WHERE id = ?1", params![backup, by])
        }
        Change::Acknowledge => acknowledge(c, backup),
    }
}

pub fn execute(c: &Connection, sql: &str, values: impl rusqlite::Params) -> rusqlite::Result<()> {
    c.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

fn acknowledge(c: &Connection, backup: i64) -> rusqlite::Result<()> {
    let sql = "UPDATE backup SET rebuilt = 0, held_at = NULL, held_why = NULL WHERE id = ?1";
    execute(c, sql, [backup])
}

fn set_time(c: &Connection, backup: i64, column: &str, at: Option<Millis>) -> rusqlite::Result<()> {
    let sql = format!("UPDATE backup SET {column} = ?2 WHERE id = ?1");
    execute(c, &sql, params![backup, at.map(|at| at.0)])
}

fn proven(c: &Connection, backup: i64, before: Millis, now: Millis) -> rusqlite::Result<()> {
    execute(
        c,
        "UPDATE backup SET proven_before =
             CASE WHEN proven_before > ?2 AND proven_before <= ?3 THEN proven_before ELSE ?2 END
         WHERE id = ?1",
        [backup, before.0, now.0],
    )
}

fn uploading(c: &Connection, backup: i64, key: &Key, entry: &Entry) -> rusqlite::Result<()> {
    let mut statement = c.prepare_cached(
        "INSERT INTO object VALUES (?1, ?2, ?3, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?4, ?5, ?6,
             NULL, 0, NULL, 1, NULL, 0, NULL, 0)
         ON CONFLICT DO UPDATE SET kind = excluded.kind, size = excluded.size,
             mtime_s = excluded.mtime_s, mtime_ns = excluded.mtime_ns,
             ctime_s = excluded.ctime_s, ctime_ns = excluded.ctime_ns,
             inode = excluded.inode, device = excluded.device,
             mode = excluded.mode, uid = excluded.uid, gid = excluded.gid,
             status = 1, racy_at = NULL, stale_meta = 0, missing_since = NULL, approved = 0",
    )?;
    let kind = kind_code(entry.kind);
    let [size, mtime_s, mtime_ns, ctime_s, ctime_ns, inode, device] =
        fingerprint_values(&entry.fingerprint);
    statement.execute(params![
        backup,
        key.as_str(),
        kind,
        entry.mode,
        entry.uid,
        entry.gid,
        size,
        mtime_s,
        mtime_ns,
        ctime_s,
        ctime_ns,
        inode,
        device
    ])?;
    Ok(())
}

fn expected(c: &Connection, backup: i64, key: &Key, content: &ContentMd5) -> rusqlite::Result<()> {
    let (md5, part_size) = (content.to_string(), signed(content.part_size));
    execute(
        c,
        "UPDATE object SET md5 = ?3, part_size = ?4
         WHERE backup = ?1 AND key = ?2 AND status = ?5",
        params![backup, key.as_str(), md5, part_size, trust_code(Trust::Uploading)],
    )
}

fn synced(c: &Connection, backup: i64, key: &Key, record: &Record) -> rusqlite::Result<()> {
    let entry = &record.entry;
    let mut statement = c.prepare_cached(
        "INSERT OR REPLACE INTO object VALUES (?1, ?2, ?3, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
             ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?;
    let kind = kind_code(entry.kind);
    let [size, mtime_s, mtime_ns, ctime_s, ctime_ns, inode, device] =
        fingerprint_values(&entry.fingerprint);
    let md5 = record.content.map(|content| content.to_string());
    let part_size = record.content.map_or(0, |content| signed(content.part_size));
    let etag = record.etag.as_ref().map(|etag| etag.as_str());
    let racy_at = record.racy.then(|| entry.fingerprint.ctime.millis().0);
    let missing_since = record.missing_since.map(|at| at.0);
    statement.execute(params![
        backup,
        key.as_str(),
        kind,
        entry.mode,
        entry.uid,
        entry.gid,
        md5,
        part_size,
        etag,
        trust_code(record.trust),
        racy_at,
        record.stale_meta,
        missing_since,
        record.approved,
        size,
        mtime_s,
        mtime_ns,
        ctime_s,
        ctime_ns,
        inode,
        device
    ])?;
    Ok(())
}

fn missing(c: &Connection, backup: i64, key: &Key, at: Millis) -> rusqlite::Result<()> {
    execute(
        c,
        "UPDATE object SET missing_since = ?3, approved = 0,
             status = CASE status WHEN ?4 THEN ?5 ELSE status END
         WHERE backup = ?1 AND key = ?2 AND missing_since IS NULL",
        params![backup, key.as_str(), at.0, trust_code(Trust::Tagged), trust_code(Trust::Synced)],
    )
}

fn found(c: &Connection, backup: i64, key: &Key, disk: Option<u64>) -> rusqlite::Result<()> {
    execute(
        c,
        "UPDATE object SET missing_since = NULL, approved = 0, device = ifnull(?3, device)
         WHERE backup = ?1 AND key = ?2",
        params![backup, key.as_str(), disk.map(signed)],
    )
}

fn tagged(c: &Connection, backup: i64, key: &Key) -> rusqlite::Result<()> {
    execute(
        c,
        "UPDATE object SET status = ?3, missing_since = NULL, approved = 0
         WHERE backup = ?1 AND key = ?2",
        params![backup, key.as_str(), trust_code(Trust::Tagged)],
    )
}

/// The key is settled: no journal, problem or unclaimed row speaks of it any more.
fn settle(c: &Connection, caches: &Caches, backup: i64, key: &Key) -> rusqlite::Result<()> {
    if caches.uploads {
        uploads::dropped(c, backup, key)?;
    }
    if caches.problems {
        solved(c, backup, key, true)?;
    }
    if caches.unclaimed {
        execute(
            c,
            "DELETE FROM unclaimed WHERE backup = ?1 AND key = ?2",
            params![backup, key.as_str()],
        )?;
    }
    Ok(())
}

fn forget(c: &Connection, backup: i64, key: &Key) -> rusqlite::Result<()> {
    execute(c, "DELETE FROM object WHERE backup = ?1 AND key = ?2", params![backup, key.as_str()])
}

fn set_problem(
    c: &Connection,
    caches: &mut Caches,
    backup: i64,
    problem: &Problem,
    at: Millis,
) -> rusqlite::Result<()> {
    caches.problems = true;
    let (failed, unknown, message) = match &problem.what {
        Trouble::Failed(failure) => (true, false, failure.in_one_line()),
        Trouble::Skipped(skip) => (false, skip.is_unknown(), skip.to_string()),
    };
    let (key, path) = (problem.key.as_str(), problem.path.as_bytes());
    execute(
        c,
        "INSERT INTO problem VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8)
         ON CONFLICT DO UPDATE SET failed = excluded.failed, unknown = excluded.unknown,
             message = excluded.message, attempts = excluded.attempts, stale = 0",
        params![backup, key, path, failed, message, problem.attempts, at.0, unknown],
    )
}

fn solved(c: &Connection, backup: i64, key: &Key, failed_too: bool) -> rusqlite::Result<()> {
    execute(
        c,
        "DELETE FROM problem WHERE backup = ?1 AND key = ?2 AND (?3 OR NOT failed)",
        params![backup, key.as_str(), failed_too],
    )
}

fn deleting(
    c: &Connection,
    backup: i64,
    keys: &[Key],
    counted: u64,
    at: Millis,
) -> rusqlite::Result<()> {
    for key in keys {
        execute(
            c,
            "UPDATE object SET status = ?3 WHERE backup = ?1 AND key = ?2",
            params![backup, key.as_str(), trust_code(Trust::Deleting)],
        )?;
    }
    let hour = at.0.div_euclid(HOUR_MS);
    execute(
        c,
        "INSERT INTO hourly (backup, hour, deleted) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET deleted = deleted + excluded.deleted",
        params![backup, hour, signed(counted)],
    )
}

fn files(c: &Connection, backup: i64, count: u64, at: Millis) -> rusqlite::Result<()> {
    let hour = at.0.div_euclid(HOUR_MS);
    execute(
        c,
        "INSERT INTO hourly (backup, hour, files_max) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET files_max = max(files_max, excluded.files_max)",
        params![backup, hour, signed(count)],
    )?;
    // Hours to come were written down by a clock that was ahead: what was deleted then counts now.
    execute(
        c,
        "UPDATE hourly SET deleted = deleted + (SELECT ifnull(sum(deleted), 0) FROM hourly
             WHERE backup = ?1 AND hour > ?2)
         WHERE backup = ?1 AND hour = ?2",
        params![backup, hour],
    )?;
    execute(c, "DELETE FROM hourly WHERE backup = ?1 AND hour > ?2", params![backup, hour])?;
    execute(c, "DELETE FROM hourly WHERE backup = ?1 AND hour <= ?2", params![backup, hour - HOURS])
}

fn unclaimed(
    c: &Connection,
    caches: &mut Caches,
    backup: i64,
    key: &Key,
    object: &Object,
) -> rusqlite::Result<()> {
    caches.unclaimed = true;
    execute(
        c,
        "INSERT OR REPLACE INTO unclaimed VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            backup,
            key.as_str(),
            signed(object.size_bytes),
            object.etag.as_str(),
            object.modified.0
        ],
    )
}

fn set_identity(c: &Connection, backup: i64, identity: &Identity) -> rusqlite::Result<()> {
    execute(
        c,
        "UPDATE object SET device = ?2 WHERE backup = ?1
         AND device = (SELECT filesystem FROM backup WHERE id = ?1)",
        params![backup, signed(identity.filesystem)],
    )?;
    execute(
        c,
        "UPDATE backup SET filesystem = ?2, inode = ?3, born_ns = ?4 WHERE id = ?1",
        params![backup, signed(identity.filesystem), signed(identity.inode), identity.born_ns],
    )
}

fn set_owner(
    c: &Connection,
    backup: i64,
    etag: &ETag,
    generation: u64,
    conditional: bool,
) -> rusqlite::Result<()> {
    execute(
        c,
        "UPDATE backup SET owner_etag = ?2, owner_generation = ?3, conditional = ?4 WHERE id = ?1",
        params![backup, etag.as_str(), signed(generation), conditional],
    )
}

fn approve(c: &Connection, backup: i64) -> rusqlite::Result<()> {
    execute(
        c,
        "UPDATE object SET approved = 1
         WHERE backup = ?1 AND missing_since IS NOT NULL AND status IN (0, 2)",
        [backup],
    )
}

fn discard(c: &Connection, caches: &mut Caches, backup: i64) -> rusqlite::Result<()> {
    caches.unclaimed = true;
    execute(
        c,
        "INSERT OR REPLACE INTO unclaimed
         SELECT backup, key, size, ifnull(etag, ''), mtime_s * 1000 FROM object
         WHERE backup = ?1 AND missing_since IS NOT NULL AND status IN (0, 2)",
        [backup],
    )?;
    execute(
        c,
        "DELETE FROM object WHERE backup = ?1 AND missing_since IS NOT NULL AND status IN (0, 2)",
        [backup],
    )
}
