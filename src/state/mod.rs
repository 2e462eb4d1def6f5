//! Adapter to SQLite: the state database.
//!
//! One file, one connection, one thread that owns it. The database is a cache of observations: it
//! can be rebuilt from the source and the bucket. What it must never do is forget something it has
//! acknowledged, so every commit is synced (`synchronous=FULL`), many changes to a commit.
//!
//! Built by `cli::wire`; use-cases see [`crate::ports::StateStore`].

mod read;
mod rows;
mod schema;
mod thread;
mod uploads;
mod write;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use crate::model::{Key, Millis, Record, RelPath};
use crate::plan::DeleteItem;
use crate::ports::{
    BackupRow, Change, Fut, KeyRange, ProblemRow, StateError, StateStore, Tally, UploadJournal,
};
use thread::Thread;

/// Name of the database in the state folder.
pub const FILE_NAME: &str = "state.db";

/// Why the state database cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error(
        "the state database {} was written by a newer keepwatch (schema {found}, this program \
         knows {known})",
        path.display()
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("the state database {} belongs to another program", path.display())]
    Foreign { path: PathBuf },
    #[error("the disk under the state database {} is full", path.display())]
    Full { path: PathBuf },
    #[error("cannot open the state database {}", path.display())]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    #[error("cannot move the damaged state database {} aside", path.display())]
    MoveAside { path: PathBuf, source: std::io::Error },
}

/// The open database. Cheap to clone; the last clone closes it.
#[derive(Clone)]
pub struct State {
    thread: Thread,
    /// When it was opened: not after any row that is made in it from now on.
    opened: Millis,
}

/// What the records of a backup hang on: another destination under the same name starts anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupId {
    /// Canonical path of the source.
    pub source: Vec<u8>,
    /// Endpoint URL, or the store's folder; empty for AWS itself.
    pub endpoint: String,
    pub bucket: String,
    pub prefix: String,
}

/// What opening found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The damaged database was moved here, and a new one was begun.
    pub moved_to: Option<PathBuf>,
}

impl BackupId {
    /// Whether the source is a bucket: folders have absolute paths.
    pub fn is_mirror(&self) -> bool {
        !self.source.starts_with(b"/")
    }
}

impl State {
    /// Opens or creates the database in `folder`, which must exist and be locked by this process.
    pub fn open(folder: &Path, now: Millis) -> Result<(Self, Opened), OpenError> {
        let (connection, opened) = schema::open(&folder.join(FILE_NAME), now)?;
        Ok((Self { thread: Thread::start(connection), opened: now }, opened))
    }

    /// Opens the database in `folder` without changing anything: damage is told, not mended. `None`
    /// where an earlier program made it, so that its form is another.
    pub fn open_to_read(folder: &Path) -> Result<Option<Self>, OpenError> {
        let connection = schema::open_to_read(&folder.join(FILE_NAME))?;
        let state =
            |connection| Self { thread: Thread::start(connection), opened: Millis::default() };
        Ok(connection.map(state))
    }

    /// A database that nobody keeps, for runs that must leave no trace.
    pub fn scratch() -> Result<Self, OpenError> {
        Ok(Self { thread: Thread::start(schema::scratch()?), opened: Millis::default() })
    }

    /// Names and identities of all backups on record.
    pub async fn backups(&self) -> Result<Vec<(String, BackupId)>, StateError> {
        self.thread.query(read::backups).await
    }

    /// The records of one backup; its row is made when it is new, and takes the name it has now.
    pub async fn backup(&self, name: &str, id: BackupId) -> Result<BackupState, StateError> {
        let name = name.to_owned();
        let now = self.opened;
        let backup = self.thread.query(move |c| write::backup_row_id(c, &name, &id, now)).await?;
        Ok(BackupState { thread: self.thread.clone(), backup, tallied: Arc::default() })
    }

    /// The records of one backup, if it is on record.
    pub async fn known_backup(&self, id: BackupId) -> Result<Option<BackupState>, StateError> {
        let backup = self.thread.query(move |c| read::backup_id(c, &id)).await?;
        Ok(backup.map(|backup| BackupState {
            thread: self.thread.clone(),
            backup,
            tallied: Arc::default(),
        }))
    }

    /// Drops all that is known of one backup, which nobody uses now; answers with whether it was on
    /// record. What `default` stands for stays.
    pub async fn forget(&self, id: BackupId) -> Result<bool, StateError> {
        self.thread.query(move |c| write::forget_backup(c, &id)).await
    }

    /// The bucket that `default` stood for when this source was first backed up to this endpoint.
    pub async fn default_bucket(
        &self,
        source: Vec<u8>,
        endpoint: String,
    ) -> Result<Option<String>, StateError> {
        self.thread.query(move |c| read::default_bucket(c, &source, &endpoint)).await
    }

    /// Whether any backup has ever had this bucket.
    pub async fn knows_bucket(&self, bucket: String) -> Result<bool, StateError> {
        self.thread.query(move |c| read::knows_bucket(c, &bucket)).await
    }

    pub async fn set_default_bucket(
        &self,
        source: Vec<u8>,
        endpoint: String,
        bucket: String,
    ) -> Result<(), StateError> {
        self.thread.query(move |c| write::set_default_bucket(c, &source, &endpoint, &bucket)).await
    }

    /// Returns when its thread has come to this: one that does not hangs.
    pub async fn ping(&self) -> Result<(), StateError> {
        self.thread.query(|_| Ok(())).await
    }

    /// A fault for tests: its thread does nothing any more.
    #[cfg(feature = "sim")]
    pub fn hang(&self) {
        let thread = self.thread.clone();
        let for_ever = |_: &rusqlite::Connection| -> rusqlite::Result<()> {
            loop {
                std::thread::park();
            }
        };
        tokio::spawn(async move { thread.query(for_ever).await });
    }

    /// Commits what is queued, and notes that the database was closed in order.
    pub fn close(&self) {
        self.thread.close();
    }
}

/// The records of one backup.
#[derive(Clone)]
pub struct BackupState {
    thread: Thread,
    backup: i64,
    tallied: Arc<Tallied>,
}

/// The numbers over all rows as they were counted last: who asks every few seconds does not make
/// the database count again what has not changed.
#[derive(Default)]
struct Tallied {
    /// Raised before and after each change.
    revision: AtomicU64,
    /// With the revision and the hour that it is of.
    last: Mutex<Option<(u64, i64, Tally)>>,
}

impl Tallied {
    fn changes(&self) {
        self.revision.fetch_add(1, Ordering::SeqCst);
    }

    fn last(&self) -> MutexGuard<'_, Option<(u64, i64, Tally)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BackupState {
    fn query<T: Send + 'static>(
        &self,
        f: impl FnOnce(&rusqlite::Connection, i64) -> rusqlite::Result<T> + Send + 'static,
    ) -> Fut<'_, Result<T, StateError>> {
        let backup = self.backup;
        Box::pin(self.thread.query(move |c| f(c, backup)))
    }
}

impl StateStore for BackupState {
    fn apply(&self, changes: Vec<Change>) -> Fut<'_, Result<(), StateError>> {
        Box::pin(async {
            self.tallied.changes();
            let applied = self.thread.apply(self.backup, changes).await;
            self.tallied.changes();
            applied
        })
    }

    fn backup(&self) -> Fut<'_, Result<BackupRow, StateError>> {
        self.query(read::backup)
    }

    fn page(
        &self,
        range: KeyRange,
        after: Option<Key>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<(Key, Record)>, StateError>> {
        self.query(move |c, backup| read::page(c, backup, &range, after.as_ref(), limit))
    }

    fn get(&self, keys: Vec<Key>) -> Fut<'_, Result<Vec<Option<Record>>, StateError>> {
        self.query(move |c, backup| keys.iter().map(|key| read::record(c, backup, key)).collect())
    }

    fn split(&self, parts: usize) -> Fut<'_, Result<Vec<Key>, StateError>> {
        self.query(move |c, backup| read::split(c, backup, parts))
    }

    fn tally(&self, now: Millis) -> Fut<'_, Result<Tally, StateError>> {
        Box::pin(async move {
            let revision = self.tallied.revision.load(Ordering::SeqCst);
            let hour = now.0.div_euclid(write::HOUR_MS);
            if let Some((of, at, tally)) = *self.tallied.last()
                && (of, at) == (revision, hour)
            {
                return Ok(tally);
            }
            let tally = self.query(move |c, backup| read::tally(c, backup, now)).await?;
            *self.tallied.last() = Some((revision, hour, tally));
            Ok(tally)
        })
    }

    fn owes(&self, missing: bool) -> Fut<'_, Result<bool, StateError>> {
        self.query(move |c, backup| read::owes(c, backup, missing))
    }

    fn due(&self, before: Millis, limit: usize) -> Fut<'_, Result<Vec<DeleteItem>, StateError>> {
        self.query(move |c, backup| read::due(c, backup, before, limit))
    }

    fn racy(&self, before: Millis, limit: usize) -> Fut<'_, Result<Vec<RelPath>, StateError>> {
        self.query(move |c, backup| read::racy(c, backup, before, limit))
    }

    fn named(&self, inodes: BTreeSet<u64>) -> Fut<'_, Result<Vec<RelPath>, StateError>> {
        self.query(move |c, backup| read::named(c, backup, &inodes))
    }

    fn upload(&self, key: &Key) -> Fut<'_, Result<Option<UploadJournal>, StateError>> {
        let key = key.clone();
        self.query(move |c, backup| uploads::journal(c, backup, &key))
    }

    fn uploads(&self) -> Fut<'_, Result<Vec<Key>, StateError>> {
        self.query(uploads::keys)
    }

    fn problems(
        &self,
        after: Option<Key>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<ProblemRow>, StateError>> {
        self.query(move |c, backup| read::problems(c, backup, after.as_ref(), limit))
    }

    fn unclaimed(
        &self,
        after: Option<Key>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<(Key, crate::model::Object)>, StateError>> {
        self.query(move |c, backup| read::unclaimed(c, backup, after.as_ref(), limit))
    }
}

#[cfg(test)]
mod tests;
