//! The one thread that owns the connection. It takes what is waiting, applies it in one
//! transaction, and answers when the commit is on disk: ten thousand small files cost a few hundred
//! syncs.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

use crate::ports::{Change, StateError};

use super::{schema, write};

/// How long the first change of a transaction waits for others. Short for a person, long against a
/// sync.
const GATHER: Duration = Duration::from_millis(3);
/// Lists of changes in one transaction at most.
const BATCH: usize = 512;

type Answer<T> = oneshot::Sender<Result<T, StateError>>;
type Query = Box<dyn FnOnce(&Connection) + Send>;

enum Request {
    Apply { backup: i64, changes: Vec<Change>, answer: Answer<()> },
    Query(Query),
    Close(mpsc::Sender<()>),
}

/// Changes that wait for a commit, and for whom.
struct Pending {
    backup: i64,
    changes: Vec<Change>,
    answer: Answer<()>,
}

/// Handle of the thread. Its inbox has no bound of its own: every caller waits for its answer, and
/// the engine bounds the callers.
#[derive(Clone)]
pub struct Thread {
    inbox: mpsc::Sender<Request>,
    join: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Thread {
    pub fn start(connection: Connection) -> Self {
        let (inbox, requests) = mpsc::channel();
        let join = std::thread::Builder::new()
            .name("state".to_owned())
            .spawn(move || {
                Owner { caches: write::Caches::load(&connection), connection }.run(requests)
            })
            .ok();
        Self { inbox, join: Arc::new(Mutex::new(join)) }
    }

    /// Applies the changes as a whole; returns when they are durable.
    pub async fn apply(&self, backup: i64, changes: Vec<Change>) -> Result<(), StateError> {
        if changes.is_empty() {
            return Ok(());
        }
        let (answer, result) = oneshot::channel();
        self.send(Request::Apply { backup, changes, answer }, result).await
    }

    /// Runs a query between the changes.
    pub async fn query<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StateError> {
        let (answer, result) = oneshot::channel();
        let query: Query = Box::new(move |connection| {
            // The asker may have gone away; then nobody wants the answer.
            answer.send(f(connection).map_err(|e| explain(connection, &e))).ok();
        });
        self.send(Request::Query(query), result).await
    }

    async fn send<T>(
        &self,
        request: Request,
        result: oneshot::Receiver<Result<T, StateError>>,
    ) -> Result<T, StateError> {
        let gone = || StateError::Broken("its thread has ended".to_owned());
        self.inbox.send(request).map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }

    /// Waits until everything queued is durable, and closes the database.
    pub fn close(&self) {
        let (done, closed) = mpsc::channel();
        if self.inbox.send(Request::Close(done)).is_err() {
            return;
        }
        closed.recv().ok();
        let join = self.join.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(join) = join {
            join.join().ok();
        }
    }
}

struct Owner {
    connection: Connection,
    caches: write::Caches,
}

impl Owner {
    fn run(mut self, requests: mpsc::Receiver<Request>) {
        let mut changes = Vec::with_capacity(BATCH);
        while let Ok(first) = requests.recv() {
            let close = self.gather(first, &requests, &mut changes);
            self.commit(&mut changes);
            if let Some(done) = close {
                self.finish();
                drop(self);
                done.send(()).ok();
                return;
            }
        }
        self.finish();
    }

    /// Collects changes for one transaction. Queries among them are answered at once.
    fn gather(
        &mut self,
        first: Request,
        requests: &mpsc::Receiver<Request>,
        changes: &mut Vec<Pending>,
    ) -> Option<mpsc::Sender<()>> {
        let mut next = first;
        let mut until: Option<Instant> = None;
        loop {
            match next {
                Request::Query(query) => query(&self.connection),
                Request::Close(done) => return Some(done),
                Request::Apply { backup, changes: list, answer } => {
                    changes.push(Pending { backup, changes: list, answer });
                    until = until.or_else(|| Some(Instant::now() + GATHER));
                }
            }
            let until = until?;
            if changes.len() >= BATCH {
                return None;
            }
            let left = until.saturating_duration_since(Instant::now());
            next = match requests.recv_timeout(left) {
                Ok(next) => next,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            };
        }
    }

    fn finish(&self) {
        let closed = schema::note_closed(&self.connection)
            .and_then(|()| self.connection.pragma_update(None, "wal_checkpoint", "TRUNCATE"));
        if let Err(error) = closed {
            tracing::debug!(%error, "closing the state database");
        }
    }

    /// Applies everything in one transaction, and answers when it is on disk.
    fn commit(&mut self, pending: &mut Vec<Pending>) {
        if pending.is_empty() {
            return;
        }
        let result = self.apply_all(pending).map_err(|error| {
            if !self.connection.is_autocommit() {
                self.connection.execute_batch("ROLLBACK").ok();
            }
            self.caches = write::Caches::load(&self.connection);
            explain(&self.connection, &error)
        });
        for Pending { answer, .. } in pending.drain(..) {
            answer.send(result.clone()).ok();
        }
    }

    fn apply_all(&mut self, pending: &[Pending]) -> rusqlite::Result<()> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        for Pending { backup, changes, .. } in pending {
            for change in changes {
                write::apply(&self.connection, &mut self.caches, *backup, change)?;
            }
        }
        self.connection.execute_batch("COMMIT")
    }
}

/// The error with its database named. One that was found damaged is checked when it is opened next.
fn explain(connection: &Connection, error: &rusqlite::Error) -> StateError {
    let cause = format!("{}: {error}", connection.path().unwrap_or("the database"));
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StateError::Full(cause),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            schema::note_damaged(connection).ok();
            StateError::Broken(cause)
        }
        _ => StateError::Broken(cause),
    }
}
