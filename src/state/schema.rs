//! The database file: opening, checking, migrating, and moving a damaged one aside.

use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::model::Millis;

use super::{OpenError, Opened};

/// "keep" in ASCII.
const APPLICATION_ID: i64 = 0x6b65_6570;
/// Each entry takes the schema from the version of its index to the next.
const MIGRATIONS: [&str; 5] = [SCHEMA_1, SCHEMA_2, SCHEMA_3, SCHEMA_4, SCHEMA_5];

const SCHEMA_1: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE backup (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    source BLOB NOT NULL, endpoint TEXT NOT NULL, bucket TEXT NOT NULL, prefix TEXT NOT NULL,
    filesystem INTEGER, inode INTEGER, born_ns INTEGER,
    listed_at INTEGER,
    owner_id TEXT NOT NULL, owner_etag TEXT, owner_generation INTEGER NOT NULL DEFAULT 0,
    conditional INTEGER,
    rebuilt INTEGER NOT NULL DEFAULT 0, held_at INTEGER,
    UNIQUE (source, endpoint, bucket, prefix)
) STRICT;

CREATE TABLE default_bucket (
    source BLOB NOT NULL, endpoint TEXT NOT NULL, bucket TEXT NOT NULL,
    PRIMARY KEY (source, endpoint)
) STRICT, WITHOUT ROWID;

-- One row a key. kind: 0 file, 1 link, 2 folder.
-- status, how far the row may be believed: 0 synced, 1 uploading, 2 deleting, 3 tagged.
CREATE TABLE object (
    backup INTEGER NOT NULL, key TEXT NOT NULL,
    kind INTEGER NOT NULL, size INTEGER NOT NULL,
    mtime_s INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    ctime_s INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL, device INTEGER NOT NULL,
    mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL,
    md5 TEXT, part_size INTEGER NOT NULL, etag TEXT,
    status INTEGER NOT NULL,
    racy_at INTEGER, stale_meta INTEGER NOT NULL,
    missing_since INTEGER, approved INTEGER NOT NULL,
    PRIMARY KEY (backup, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX object_missing ON object (backup, missing_since) WHERE missing_since IS NOT NULL;
CREATE INDEX object_racy ON object (backup, racy_at) WHERE racy_at IS NOT NULL;

CREATE TABLE upload (
    backup INTEGER NOT NULL, key TEXT NOT NULL,
    upload_id TEXT, part_size INTEGER NOT NULL, size INTEGER NOT NULL,
    mtime_s INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    ctime_s INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL, device INTEGER NOT NULL,
    PRIMARY KEY (backup, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE part (
    backup INTEGER NOT NULL, key TEXT NOT NULL, number INTEGER NOT NULL,
    size INTEGER NOT NULL, etag TEXT NOT NULL, md5 TEXT NOT NULL, crc64 INTEGER NOT NULL,
    PRIMARY KEY (backup, key, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE problem (
    backup INTEGER NOT NULL, key TEXT NOT NULL, path BLOB NOT NULL,
    failed INTEGER NOT NULL, message TEXT NOT NULL, attempts INTEGER NOT NULL,
    since INTEGER NOT NULL, stale INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (backup, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE unclaimed (
    backup INTEGER NOT NULL, key TEXT NOT NULL,
    size INTEGER NOT NULL, etag TEXT NOT NULL, modified INTEGER NOT NULL,
    PRIMARY KEY (backup, key)
) STRICT, WITHOUT ROWID;

-- One row an hour: files at most, files deleted without a person's approval.
CREATE TABLE hourly (
    backup INTEGER NOT NULL, hour INTEGER NOT NULL,
    files_max INTEGER NOT NULL DEFAULT 0, deleted INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (backup, hour)
) STRICT, WITHOUT ROWID;
";

/// What a pass has proven, and since when there is a state. `unknown`: nobody knows what is there.
const SCHEMA_2: &str = "
ALTER TABLE backup ADD COLUMN made_at INTEGER;
ALTER TABLE backup ADD COLUMN passed_at INTEGER;
ALTER TABLE backup ADD COLUMN proven_before INTEGER;
ALTER TABLE problem ADD COLUMN unknown INTEGER NOT NULL DEFAULT 0;
";

/// Since when a person has it paused.
const SCHEMA_3: &str = "ALTER TABLE backup ADD COLUMN paused_at INTEGER";

/// Why deletions were held, and what ended the last run.
const SCHEMA_4: &str = "
ALTER TABLE backup ADD COLUMN held_why TEXT;
ALTER TABLE backup ADD COLUMN ended_by TEXT;
";

/// Ids of uploads of the same key that were open before, as JSON.
const SCHEMA_5: &str = "ALTER TABLE upload ADD COLUMN others TEXT";

/// Opens the database, or begins a new one when there is none or it is damaged.
pub fn open(path: &Path, now: Millis) -> Result<(Connection, Opened), OpenError> {
    match try_open(path) {
        Ok(connection) => Ok((connection, Opened::default())),
        Err(Trouble::Damaged(cause)) => {
            tracing::error!(path = %path.display(), %cause, "the state database is damaged");
            let moved_to = move_aside(path, now)?;
            let connection = try_open(path).map_err(|trouble| trouble.into_error(path))?;
            mark_rebuilt(&connection).map_err(|e| Trouble::from(e).into_error(path))?;
            Ok((connection, Opened { moved_to: Some(moved_to) }))
        }
        Err(trouble) => Err(trouble.into_error(path)),
    }
}

enum Trouble {
    Damaged(String),
    Newer(i64),
    Foreign,
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Sqlite(error),
        }
    }
}

impl Trouble {
    fn into_error(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            Self::Newer(found) => OpenError::Newer { path, found, known: MIGRATIONS.len() as i64 },
            Self::Foreign => OpenError::Foreign { path },
            Self::Sqlite(e) if e.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                OpenError::Full { path }
            }
            Self::Sqlite(source) => OpenError::Sqlite { path, source },
            Self::Damaged(cause) => {
                let source = rusqlite::Error::ToSqlConversionFailure(cause.into());
                OpenError::Sqlite { path, source }
            }
        }
    }
}

/// A new database in memory.
pub fn scratch() -> Result<Connection, OpenError> {
    let path = Path::new(":memory:");
    let connection = Connection::open(path).map_err(Trouble::from).and_then(prepare);
    connection.map_err(|trouble| trouble.into_error(path))
}

fn try_open(path: &Path) -> Result<Connection, Trouble> {
    make_private(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    prepare(Connection::open_with_flags(path, flags)?)
}

/// Opens the database for questions only; `None` where it has the form of an earlier program.
pub fn open_to_read(path: &Path) -> Result<Option<Connection>, OpenError> {
    try_to_read(path).map_err(|trouble| trouble.into_error(path))
}

fn try_to_read(path: &Path) -> Result<Option<Connection>, Trouble> {
    let log = PathBuf::from(format!("{}-wal", path.display()));
    let connection = match std::fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        // It was not closed in order: what is in its log counts, and stays there.
        true => {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags)?;
            connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            connection.pragma_update(None, "query_only", "ON")?;
            connection
        }
        false => {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
                | OpenFlags::SQLITE_OPEN_NO_MUTEX
                | OpenFlags::SQLITE_OPEN_URI;
            let mut name = path.display().to_string();
            for (special, code) in [("%", "%25"), ("?", "%3f"), ("#", "%23")] {
                name = name.replace(special, code);
            }
            Connection::open_with_flags(format!("file:{name}?immutable=1"), flags)?
        }
    };
    let version = version(&connection)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok((version == MIGRATIONS.len() as i64).then_some(connection))
}

/// The version of its form, if it is ours and known.
fn version(connection: &Connection) -> Result<i64, Trouble> {
    let application: i64 = connection.pragma_query_value(None, "application_id", |r| r.get(0))?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |r| r.get(0))?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
    if application != APPLICATION_ID && (application != 0 || tables > 0) {
        return Err(Trouble::Foreign);
    }
    if version > MIGRATIONS.len() as i64 {
        return Err(Trouble::Newer(version));
    }
    Ok(version)
}

/// Names of files are nobody else's business. SQLite gives its log the mode of the database. What
/// goes wrong here is told when the database is opened.
fn make_private(path: &Path) {
    let mut options = std::fs::File::options();
    options.write(true).create(true).truncate(false).mode(0o600);
    if let Ok(file) = options.open(path) {
        file.set_permissions(std::fs::Permissions::from_mode(0o600)).ok();
    }
}

fn prepare(mut connection: Connection) -> Result<Connection, Trouble> {
    // Exclusive locking, set before the first access, keeps the WAL index out of shared memory.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    let version = version(&connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    for (name, value) in [
        ("synchronous", "FULL"),
        ("temp_store", "MEMORY"),
        ("trusted_schema", "OFF"),
        ("cell_size_check", "ON"),
        ("journal_size_limit", "67108864"),
        ("cache_size", "-8192"),
    ] {
        connection.pragma_update(None, name, value)?;
    }
    connection.set_prepared_statement_cache_capacity(64);
    migrate(&mut connection, version)?;
    match meta(&connection, "closed")?.as_deref() {
        None | Some("1") => {}
        // It knows more than the quick one, of indexes for example, and takes longer.
        Some("damaged") => check(&connection, "integrity_check")?,
        Some(_) => check(&connection, "quick_check")?,
    }
    note_open(&connection)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, version: i64) -> Result<(), Trouble> {
    let done = usize::try_from(version).unwrap_or(0);
    if done == MIGRATIONS.len() {
        return Ok(());
    }
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for step in &MIGRATIONS[done..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    transaction.commit()?;
    Ok(())
}

/// After an unclean end the pages are checked; what a kill can leave behind passes.
fn check(connection: &Connection, pragma: &str) -> Result<(), Trouble> {
    let sql = format!("PRAGMA {pragma}(1)");
    let verdict: String = connection.query_row(&sql, [], |r| r.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(Trouble::Damaged(verdict)) }
}

/// Notes that the database is in use; one that is found so was not closed in order.
fn note_open(connection: &Connection) -> rusqlite::Result<()> {
    set_meta(connection, "closed", "0")
}

/// Notes that the database is closed in order, unless damage was found in it.
pub fn note_closed(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "UPDATE meta SET value = '1' WHERE name = 'closed' AND value = '0'";
    connection.execute(sql, [])?;
    Ok(())
}

/// Notes that the database must be checked when it is opened next, whatever happens until then.
pub fn note_damaged(connection: &Connection) -> rusqlite::Result<()> {
    set_meta(connection, "closed", "damaged")
}

fn mark_rebuilt(connection: &Connection) -> rusqlite::Result<()> {
    set_meta(connection, "rebuilt", "1")
}

pub fn was_rebuilt(connection: &Connection) -> rusqlite::Result<bool> {
    meta(connection, "rebuilt").map(|value| value.as_deref() == Some("1"))
}

fn meta(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    use rusqlite::OptionalExtension as _;
    connection
        .query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))
        .optional()
}

fn set_meta(connection: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
        [name, value],
    )?;
    Ok(())
}

/// Moves the database and its log out of the way. Nothing is ever deleted.
fn move_aside(path: &Path, now: Millis) -> Result<PathBuf, OpenError> {
    let moved_to = path.with_extension(format!("db.bad-{}", now.0));
    let failed = |source| OpenError::MoveAside { path: path.to_owned(), source };
    std::fs::rename(path, &moved_to).map_err(failed)?;
    for suffix in ["-wal", "-shm"] {
        let side = |p: &Path| PathBuf::from(format!("{}{suffix}", p.display()));
        match std::fs::rename(side(path), side(&moved_to)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
    }
    Ok(moved_to)
}
