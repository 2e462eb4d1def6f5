//! Finding the index of a store that may not be written to: on a read-only disk, or another user's.
//!
//! SQLite reads such an index where it lies, beside whoever writes it, when the files of its log
//! are there. Without these nobody writes it, and it is read as it is. Where SQLite cannot read a
//! log that a kill left, or the index is of an earlier schema, a copy in the temporary folder is
//! read instead. Called by `mod`.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::index::{Mode, connect};
use super::rows::SCHEMA_VERSION;

/// A folder of our own, which goes with this.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> std::io::Result<Self> {
        let name = format!("keepwatch-index-{:016x}", fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An index to be read.
pub(super) struct Readable {
    pub(super) path: PathBuf,
    /// Nobody changes it.
    pub(super) frozen: bool,
    scratch: Option<Scratch>,
}

impl Readable {
    /// # Errors
    /// What SQLite says of the index; a copy that could not be made, as `CannotOpen` of it.
    pub(super) fn find(index: &Path) -> rusqlite::Result<Self> {
        let as_it_lies = |frozen| Self { path: index.to_owned(), frozen, scratch: None };
        let log = with_end(index, "-wal");
        let has_log = fs::metadata(&log).is_ok_and(|log| log.len() > 0);
        let tries = if has_log { &[false][..] } else { &[false, true] };
        let mut last = None;
        for frozen in tries {
            let found = as_it_lies(*frozen);
            match found.schema() {
                Ok(schema) if schema >= SCHEMA_VERSION => return Ok(found),
                Ok(_) => break,
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => Err(error),
            _ => Self::copy(index, &log, has_log).map_err(|cause| {
                let words = format!("it cannot be copied to the temporary folder: {cause}");
                let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
                rusqlite::Error::SqliteFailure(code, Some(words))
            }),
        }
    }

    fn copy(index: &Path, log: &Path, has_log: bool) -> std::io::Result<Self> {
        let scratch = Scratch::make()?;
        let path = scratch.0.join("index.db");
        fs::copy(index, &path)?;
        if has_log {
            fs::copy(log, with_end(&path, "-wal"))?;
        }
        for entry in fs::read_dir(&scratch.0)? {
            let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(entry?.path(), own)?;
        }
        Ok(Self { path, frozen: false, scratch: Some(scratch) })
    }

    pub(super) fn mode(&self) -> Mode {
        if self.frozen { Mode::Frozen } else { Mode::Read }
    }

    /// Whether it is a copy, which may be written.
    pub(super) fn is_copy(&self) -> bool {
        self.scratch.is_some()
    }

    fn schema(&self) -> rusqlite::Result<i64> {
        let conn = connect(&self.path, self.mode())?;
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        conn.pragma_query_value(None, "user_version", |row| row.get(0))
    }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}
