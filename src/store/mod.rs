//! The embedded S3 store: our own S3 server over a folder.
//!
//! It backs `file:///folder` destinations inside the process ([`InProcess`], no port), is
//! `keepwatch serve` on loopback ([`serve()`]), and is the server all our tests talk to; so it is
//! as strict as S3 is. The HTTP and XML of S3 are s3s's, everything behind is here:
//!
//! ```text
//! in_process, serve     requests from the SDK, or from a socket
//!   endpoint            SigV4, what is not carried at all, the access log
//!     api/*             one function for each operation: what S3 says
//!       intake, fetch   a body on its way in, on its way out
//!       versions, walk  what a write makes of the versions of a key; one page of a listing
//!         index         SQLite: one writing thread with group commit, many readers
//!         rows, uploads the tables
//!         bodies        files: tmp, blobs, plain paths
//!         folder        the store's folder by its handle, and whether its path still leads there
//! ```
//!
//! **On disk.** `<folder>/.keepwatch-store/index.db` is the truth. The body of a current object
//! lies at `<folder>/<bucket>/<key>`, to be read with ordinary tools, when every segment of the key
//! is a legal file name and no other key needs the path as a folder; else, like those of older
//! versions, at `.keepwatch-store/blobs/ab/cd/<id>`. A version that is the newest again because
//! newer ones were deleted stays a blob. A file that was changed or removed by hand is listed with
//! an ETag that no content has, and is `ObjectDamaged` when its object is read (`damage`); files
//! that were made by hand are not seen.
//!
//! **Where nothing may be written**, on a read-only disk or by another user, the store is read
//! only: no lock, no sweep, and writes are `StoreReadOnly` (`reading`).
//!
//! **Kill and power loss.** A body is complete (and with [`StoreOptions::sync`] durable) in `tmp`
//! before the index names it, and it is found in `tmp` until it is home (see `bodies`), so no row
//! ever points at half a body or at another one. What a kill leaves is in `tmp`, and the next
//! [`Store::open`] that finds itself alone sweeps it.
//!
//! **Not performed.** Server-side encryption is echoed; storage classes are kept, and archived ones
//! must be restored before they can be read, but nothing moves. Under `aws:kms` ETags are not MD5s,
//! as on S3. There is one account, `000000000000`, and every key pair has all rights.

mod access;
mod api;
mod bodies;
mod clock;
mod crash_point;
mod damage;
mod digest;
mod endpoint;
mod fault;
mod fetch;
mod folder;
mod head;
mod in_process;
mod index;
mod intake;
mod layout;
mod reading;
mod rows;
mod serve;
mod uploads;
mod versions;
mod walk;

#[cfg(test)]
mod tests;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, TransactionBehavior};
use s3s::S3Result;
use thiserror::Error;
use tokio::task::{JoinError, spawn_blocking};

pub use self::access::{Access, OnAccess};
pub use self::clock::{Clock, system_clock};
pub use self::endpoint::Endpoint;
pub use self::in_process::InProcess;
pub use self::serve::serve;

use self::bodies::Bodies;
use self::fault::{Fault, Outcome};
use self::folder::Folder;
use self::index::{Index, Mode};
use self::layout::Layout;
use self::reading::Readable;

/// How a store behaves.
#[derive(Clone)]
pub struct StoreOptions {
    /// Whether writes survive a power loss once they are answered. They survive the end of the
    /// process either way.
    pub sync: bool,
    /// How long a restored object takes to become readable.
    pub thaw_delay: Duration,
    /// Tells the time of objects and thaws.
    pub clock: Clock,
    /// Hears of every finished request.
    pub on_access: Option<OnAccess>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            sync: true,
            thaw_delay: Duration::from_secs(3),
            clock: system_clock(),
            on_access: None,
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, Error)]
pub enum StoreOpenError {
    #[error("cannot use {} as a store", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot open the store's index {}", path.display())]
    Index {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("the store's index {} is of a newer keepwatch (schema {found})", path.display())]
    Newer { path: PathBuf, found: i64 },
    #[error("cannot clean up what an earlier run left in {}: {cause}", path.display())]
    Sweep { path: PathBuf, cause: String },
}

/// An open store. Clones are the same store; several processes can open one folder.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    // Dropped in this order: the last writes are done before the lock goes.
    index: Index,
    bodies: Arc<Bodies>,
    options: StoreOptions,
    /// Shared by everyone who writes; whoever can have it alone may sweep. `None`: it is read only.
    _lock: Option<File>,
}

impl Store {
    /// Opens the store in `folder`, which is made if it is not there. One that may not be written
    /// to is read only. Blocks.
    pub fn open(folder: &Path, options: StoreOptions) -> Result<Self, StoreOpenError> {
        let unusable = |source| StoreOpenError::Folder { path: folder.to_owned(), source };
        // The folder stays the same one when the process changes its directory.
        let layout = Layout::new(std::path::absolute(folder).map_err(unusable)?);
        match Self::open_to_write(folder, layout.clone(), options.clone()) {
            Err(StoreOpenError::Folder { source, .. })
                if is_read_only(&source) && layout.index().is_file() =>
            {
                Self::open_to_read(folder, layout, options)
            }
            opened => opened,
        }
    }

    /// Opens a store without changing anything in its folder.
    fn open_to_read(
        folder: &Path,
        layout: Layout,
        options: StoreOptions,
    ) -> Result<Self, StoreOpenError> {
        let unusable = |source| StoreOpenError::Folder { path: folder.to_owned(), source };
        let path = layout.index();
        let failed = |source| StoreOpenError::Index { path: path.clone(), source };
        let mut held = Folder::open(layout.root(), layout.index()).map_err(unusable)?;
        let found = Readable::find(&path).map_err(failed)?;
        if found.is_copy() {
            let mode = Mode::Write { durable: false };
            prepare(&mut index::connect(&found.path, mode).map_err(failed)?, &path)?;
        }
        check_schema(&index::connect(&found.path, found.mode()).map_err(failed)?, &path)?;
        held.hold_index().map_err(|fault| unusable(io::Error::other(fault.to_string())))?;
        let bodies = Bodies::open(layout, held, false).map_err(unusable)?.read_only();
        let bodies = Arc::new(bodies);
        let index = Index::reading(found, bodies.clone());
        Ok(Self { inner: Arc::new(Inner { index, bodies, options, _lock: None }) })
    }

    fn open_to_write(
        folder: &Path,
        layout: Layout,
        options: StoreOptions,
    ) -> Result<Self, StoreOpenError> {
        let unusable = |source| StoreOpenError::Folder { path: folder.to_owned(), source };
        fs::create_dir_all(layout.tmp_folder()).map_err(unusable)?;
        fs::create_dir_all(layout.blob_folder()).map_err(unusable)?;
        let lock = File::create(layout.lock()).map_err(unusable)?;
        let is_alone = match lock.try_lock() {
            Ok(()) => true,
            // Someone else is using it.
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        };
        let mut held = Folder::open(layout.root(), layout.index()).map_err(unusable)?;
        let path = layout.index();
        let mode = Mode::Write { durable: options.sync };
        let mut conn = index::connect(&path, mode)
            .map_err(|source| StoreOpenError::Index { path: path.clone(), source })?;
        prepare(&mut conn, &path)?;
        held.hold_index().map_err(|fault| unusable(io::Error::other(fault.to_string())))?;
        let bodies = Bodies::open(layout, held, options.sync).map_err(unusable)?;
        if is_alone {
            sweep(&mut conn, &bodies, folder)?;
            lock.unlock().map_err(unusable)?;
        }
        lock.lock_shared().map_err(unusable)?;

        let bodies = Arc::new(bodies);
        let index = Index::start(path, conn, bodies.clone()).map_err(unusable)?;
        Ok(Self { inner: Arc::new(Inner { index, bodies, options, _lock: Some(lock) }) })
    }

    /// The store as an HTTP service that accepts these pairs of access key and secret key.
    pub fn endpoint(&self, credentials: &[(String, String)]) -> Endpoint {
        Endpoint::new(self.clone(), credentials)
    }

    fn index(&self) -> &Index {
        &self.inner.index
    }

    fn bodies(&self) -> &Arc<Bodies> {
        &self.inner.bodies
    }

    fn options(&self) -> &StoreOptions {
        &self.inner.options
    }

    fn now(&self) -> SystemTime {
        (self.inner.options.clock)()
    }

    fn thaw_delay_ms(&self) -> i64 {
        i64::try_from(self.inner.options.thaw_delay.as_millis()).unwrap_or(i64::MAX)
    }

    /// Reads the index, and what else `work` does, in one trip to a blocking thread.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Outcome<T> + Send + 'static,
    ) -> S3Result<T> {
        let inner = self.inner.clone();
        blocking(move || inner.index.read(work)).await
    }
}

/// Makes the schema where there is none, brings an earlier one up to date, refuses a newer one.
fn prepare(conn: &mut Connection, path: &Path) -> Result<(), StoreOpenError> {
    let failed = |source| StoreOpenError::Index { path: path.to_owned(), source };
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let found = tx.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    match found {
        0 => tx.execute_batch(rows::SCHEMA).map_err(failed)?,
        1 => tx.execute_batch(rows::FROM_1_TO_2).map_err(failed)?,
        _ => return check_schema(&tx, path),
    }
    tx.pragma_update(None, "user_version", rows::SCHEMA_VERSION).map_err(failed)?;
    tx.commit().map_err(failed)
}

/// Refuses the schema of a newer keepwatch.
fn check_schema(conn: &Connection, path: &Path) -> Result<(), StoreOpenError> {
    let failed = |source| StoreOpenError::Index { path: path.to_owned(), source };
    match conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)? {
        found if found > rows::SCHEMA_VERSION => {
            Err(StoreOpenError::Newer { path: path.to_owned(), found })
        }
        _ => Ok(()),
    }
}

/// Whether this is because nothing may be written.
fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

/// Removes temporaries, and brings home the bodies that a kill left on their way.
fn sweep(conn: &mut Connection, bodies: &Bodies, folder: &Path) -> Result<(), StoreOpenError> {
    index::sweep(conn, bodies).map_err(|fault| StoreOpenError::Sweep {
        path: folder.to_owned(),
        cause: s3s::S3Error::from(fault).message().unwrap_or_default().to_owned(),
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> S3Result<T> {
    joined(spawn_blocking(work).await)
}

fn joined<T>(result: Result<Outcome<T>, JoinError>) -> S3Result<T> {
    let ended = |e| Fault::Trouble(format!("a task of the store ended early: {e}"));
    Ok(result.map_err(ended)??)
}
