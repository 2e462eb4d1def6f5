//! The index: SQLite in WAL mode, a pool of connections for reading, one thread for writing.
//!
//! The writing thread takes whatever is queued into one transaction, so that many small writes
//! share one sync. Every write runs in a savepoint of its own: one that is refused leaves nothing
//! behind. After the commit the bodies it named are brought home, in a transaction that seldom has
//! anything to write; until then they lie in `tmp`, where everyone looks first. Then the caller
//! hears of its write.
//!
//! Crash: before the commit nothing names a new body, and the sweep removes it; after the commit
//! the body lies in `tmp`, complete, and the sweep brings it home. Several processes can use one
//! index: `BEGIN IMMEDIATE` is the lock.
//!
//! Every read and every write asks first whether the store's path still leads to the folder that
//! was opened ([`super::folder`]). If not, the store is away, and nothing is read or written.
//!
//! Knows no rules of S3. Called by every operation.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use s3s::S3Result;
use tokio::sync::oneshot;

use super::bodies::{Arrival, Bodies, Home, Place};
use super::crash_point::crash_point;
use super::fault::{Fault, Outcome};
use super::layout::BodyId;
use super::reading::Readable;
use super::rows;

/// How long a transaction waits for those of other processes.
const BUSY_MS: i32 = 30_000;
/// Writes that share one transaction at most: bounds how long readers of replies wait.
const BATCH_MAX: usize = 256;

/// Prepares one write inside the open transaction; what it returns is called after the commit.
/// Dropping either tells the caller that the index failed.
type Job = Box<dyn FnOnce(&mut Tx<'_>) -> Reply + Send>;
type Reply = Box<dyn FnOnce()>;

/// Where readers find the index.
enum Source {
    Own(PathBuf),
    ReadOnly(Readable),
}

impl Source {
    fn connect(&self) -> rusqlite::Result<Connection> {
        match self {
            Self::Own(path) => connect(path, Mode::Read),
            Self::ReadOnly(found) => connect(&found.path, found.mode()),
        }
    }
}

pub(super) struct Index {
    source: Source,
    bodies: Arc<Bodies>,
    readers: Mutex<Vec<Connection>>,
    /// `None` when it is read only, and while dropping.
    jobs: Option<Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

impl Index {
    /// Opens an index whose schema is there, and starts its thread.
    pub(super) fn start(
        path: PathBuf,
        writer: Connection,
        bodies: Arc<Bodies>,
    ) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let mut writer = Writer { conn: writer, bodies: bodies.clone(), queue };
        let thread = thread::Builder::new().name("store index".to_owned());
        let thread = thread.spawn(move || writer.run())?;
        let (source, writer) = (Source::Own(path), Some(thread));
        Ok(Self { source, bodies, readers: Mutex::default(), jobs: Some(jobs), writer })
    }

    /// An index that is read only.
    pub(super) fn reading(found: Readable, bodies: Arc<Bodies>) -> Self {
        let source = Source::ReadOnly(found);
        Self { source, bodies, readers: Mutex::default(), jobs: None, writer: None }
    }

    /// Reads; every statement sees the last commit. Blocks.
    ///
    /// # Errors
    /// Those of `work`; [`Fault::Away`].
    pub(super) fn read<T>(&self, work: impl FnOnce(&Connection) -> Outcome<T>) -> Outcome<T> {
        self.bodies.check()?;
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let is_new = idle.is_none();
        let conn = match idle {
            Some(conn) => conn,
            None => self.source.connect()?,
        };
        let result = work(&conn);
        // Its files were opened by their paths, the log not before the first statement.
        if is_new {
            self.bodies.check()?;
        }
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
        result
    }

    /// Writes, together with others, and returns after the commit. When the caller gives up
    /// waiting, the write happens all the same.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Outcome<T> + Send + 'static,
    ) -> S3Result<T> {
        self.bodies.check_writable()?;
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |tx| {
            let result = tx.attempt(work);
            Box::new(move || {
                let _ = answer.send(result);
            })
        });
        let failed = || Fault::Trouble("the store's index could not be written".to_owned());
        self.jobs.as_ref().ok_or_else(failed)?.send(job).map_err(|_| failed())?;
        Ok(answered.await.map_err(|_| failed())??)
    }
}

impl Drop for Index {
    /// Waits until what is queued is written.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
        let readers = self.readers.get_mut().unwrap_or_else(PoisonError::into_inner);
        readers.iter().for_each(|conn| leave_log_if_away(conn, &self.bodies));
    }
}

/// The last connection to close removes the log by its path: not when that is another store's.
fn leave_log_if_away(conn: &Connection, bodies: &Bodies) {
    if bodies.check().is_err() {
        // It fails on a connection that is closed only.
        let _ = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    }
}

/// What a connection is for.
pub(super) enum Mode {
    Read,
    /// Reads a file that nobody changes, without any lock or log.
    Frozen,
    /// `durable`: commits survive a power loss, and not only the end of the process.
    Write {
        durable: bool,
    },
}

/// Opens a connection to an index, creating the file when writing.
pub(super) fn connect(path: &Path, mode: Mode) -> rusqlite::Result<Connection> {
    let flags = match mode {
        // Where that is not allowed, SQLite reads.
        Mode::Read => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Mode::Frozen => OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
        Mode::Write { .. } => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    };
    let path = match mode {
        Mode::Frozen => frozen_uri(path),
        Mode::Read | Mode::Write { .. } => path.to_owned(),
    };
    let mut conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.set_prepared_statement_cache_capacity(64);
    // SQLite's own handler backs off for up to 100 ms, ours never misses a gap for that long.
    conn.busy_handler(Some(|tries: i32| {
        thread::sleep(Duration::from_millis(1));
        tries < BUSY_MS
    }))?;
    match mode {
        Mode::Read | Mode::Frozen => conn.pragma_update(None, "query_only", true)?,
        Mode::Write { durable } => {
            conn.pragma_update(None, "journal_mode", "WAL")?;
            conn.pragma_update(None, "synchronous", if durable { "FULL" } else { "OFF" })?;
        }
    }
    Ok(conn)
}

/// SQLite's name of a file that nobody changes.
fn frozen_uri(path: &Path) -> PathBuf {
    let mut uri = b"file:".to_vec();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'%' | b'?' | b'#' => uri.extend(format!("%{byte:02X}").bytes()),
            _ => uri.push(*byte),
        }
    }
    uri.extend(b"?immutable=1");
    OsString::from_vec(uri).into()
}

/// An open write transaction: the only place where rows change and plain paths change hands.
pub(super) struct Tx<'a> {
    pub(super) conn: &'a Connection,
    bodies: &'a Bodies,
    /// Bodies in `tmp` to be brought home after the commit.
    arriving: Vec<BodyId>,
    /// Bodies in `tmp` that no row names after the commit.
    leaving: Vec<BodyId>,
}

impl<'a> Tx<'a> {
    fn begin(conn: &'a Connection, bodies: &'a Bodies) -> Self {
        Self { conn, bodies, arriving: Vec::new(), leaving: Vec::new() }
    }

    /// Runs one write in a savepoint: if it fails, it leaves nothing behind.
    ///
    /// # Errors
    /// Those of `work`; [`Fault::Away`]. Should the store's folder be moved from its path after
    /// this look, the write goes there, index and body.
    pub(super) fn attempt<T>(&mut self, work: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        self.bodies.check()?;
        let left_before = self.leaving.len();
        rows::execute(self.conn, "SAVEPOINT one", [])?;
        let result = work(self);
        if result.is_err() {
            rows::execute(self.conn, "ROLLBACK TO one", [])?;
            // Their rows are back, so they go home again.
            let staying = self.leaving.split_off(left_before);
            self.arriving.extend(staying);
        }
        rows::execute(self.conn, "RELEASE one", [])?;
        result
    }

    /// A row names this body now; it lies in `tmp`. Parts stay there, objects go home.
    pub(super) fn arrives(&mut self, body: BodyId) {
        self.arriving.push(body);
    }

    /// The row that named this body goes; with `prune`, so do folders that become empty.
    pub(super) fn leaves(&mut self, place: Place<'_>, prune: bool) -> Outcome<()> {
        self.bodies.take_out(place, prune)?;
        self.leaving.push(place.body);
        Ok(())
    }

    /// The row that named this part goes; parts lie in `tmp`.
    pub(super) fn part_leaves(&mut self, body: BodyId) {
        self.leaving.push(body);
    }

    /// A body that stays gives up its plain path.
    pub(super) fn moves_to_blob(&mut self, place: Place<'_>) -> Outcome<()> {
        if place.home == Home::Plain {
            self.bodies.take_out(place, false)?;
            rows::set_home_blob(self.conn, place.body)?;
            self.arriving.push(place.body);
        }
        Ok(())
    }

    pub(super) fn bodies(&self) -> &Bodies {
        self.bodies
    }

    /// Brings a body home, if a version still names it. What is in the way moves to the blobs; a
    /// body that cannot have its plain path becomes a blob itself.
    ///
    /// INVARIANT: a body leaves `tmp` only for the home its row has had since an earlier commit, as
    /// readers go by what is committed. What gets another home here goes there in the next round.
    fn bring_home(&mut self, body: BodyId) -> Outcome<()> {
        if self.arriving.contains(&body) {
            return Ok(());
        }
        let Some((home, bucket, key)) = rows::place_of(self.conn, body)? else { return Ok(()) };
        let place = Place { body, home, bucket: &bucket, key: &key };
        loop {
            match self.bodies.bring_home(place) {
                Arrival::Home | Arrival::NotThere => return Ok(()),
                // It stays in tmp, where it is found; the next sweep tries again.
                Arrival::Unfit if home == Home::Blob => return Ok(()),
                Arrival::Blocked(other) if self.make_way(&bucket, &other)? => {}
                Arrival::Unfit | Arrival::Blocked(_) => return self.moves_to_blob(place),
            }
        }
    }

    /// Moves the plain file of another key out of the way. `false` when what lies there is not
    /// that key's.
    fn make_way(&mut self, bucket: &str, key: &str) -> Outcome<bool> {
        let Some(body) = rows::plain_body(self.conn, bucket, key)? else { return Ok(false) };
        let place = Place { body, home: Home::Plain, bucket, key };
        if !self.bodies.lies_at_home(place) {
            return Ok(false);
        }
        self.moves_to_blob(place)?;
        Ok(true)
    }
}

/// The thread that writes.
struct Writer {
    conn: Connection,
    bodies: Arc<Bodies>,
    queue: Receiver<Job>,
}

impl Writer {
    fn run(&mut self) {
        while let Ok(first) = self.queue.recv() {
            let jobs = std::iter::once(first).chain(self.queue.try_iter()).take(BATCH_MAX);
            let jobs = jobs.collect();
            if let Err(fault) = self.commit(jobs) {
                // The callers hear of it as their replies are dropped.
                tracing::error!("the store's index failed: {fault}");
            }
        }
        leave_log_if_away(&self.conn, &self.bodies);
    }

    /// One transaction for all the jobs; then their bodies go home, and the callers are told.
    fn commit(&mut self, jobs: Vec<Job>) -> Outcome<()> {
        let sql = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut tx = Tx::begin(&sql, &self.bodies);
        let replies: Vec<Reply> = jobs.into_iter().map(|job| job(&mut tx)).collect();
        let Tx { arriving, leaving, .. } = tx;
        if !arriving.is_empty() {
            self.bodies.sync_names()?;
        }
        crash_point();
        sql.commit()?;
        crash_point();
        if let Err(fault) = bring_home(&mut self.conn, &self.bodies, arriving) {
            // They are found where they are, and the next sweep tries again.
            tracing::warn!("bodies stay in the store's tmp folder: {fault:?}");
        }
        leaving.into_iter().for_each(|body| self.bodies.discard(body));
        replies.into_iter().for_each(|reply| reply());
        Ok(())
    }
}

/// Brings bodies home from `tmp`, and those that had to make way for them.
fn bring_home(conn: &mut Connection, bodies: &Bodies, mut arriving: Vec<BodyId>) -> Outcome<()> {
    while !arriving.is_empty() {
        let sql = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut tx = Tx::begin(&sql, bodies);
        for body in arriving {
            tx.bring_home(body)?;
        }
        arriving = tx.arriving;
        if !arriving.is_empty() {
            bodies.sync_names()?;
        }
        crash_point();
        sql.commit()?;
        crash_point();
    }
    Ok(())
}

/// Brings home what a kill left in `tmp`, and removes what no row names. Only when nobody else
/// uses the store.
pub(super) fn sweep(conn: &mut Connection, bodies: &Bodies) -> Outcome<()> {
    let unlisted = |e| Fault::Trouble(format!("cannot list the store's tmp folder: {e}"));
    let mut arriving = Vec::new();
    for body in bodies.on_their_way().map_err(unlisted)? {
        if rows::place_of(conn, body)?.is_some() {
            arriving.push(body);
        } else if !super::uploads::has_part(conn, body)? {
            bodies.discard(body);
        }
    }
    bring_home(conn, bodies, arriving)
}
