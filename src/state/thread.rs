//! The one thread that owns the connection. It takes what is waiting, applies it in one
//! transaction, and answers when the commit is on disk: ten thousand small files cost a few hundred
//! syncs.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use crate::ports::{Change, StateError};

use super::{schema, write};

/// Requests waiting for the thread; a caller waits for room.
const INBOX: usize = 256;
/// Requests in one transaction at most.
const BATCH: usize = 512;

type Answer<T> = oneshot::Sender<Result<T, StateError>>;
type Query = Box<dyn FnOnce(&Connection) + Send>;

enum Request {
    Apply { backup: i64, changes: Vec<Change>, answer: Answer<()> },
    Query(Query),
    Close(std::sync::mpsc::Sender<()>),
}

/// Handle of the thread.
#[derive(Clone)]
pub struct Thread {
    inbox: mpsc::Sender<Request>,
    join: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Thread {
    pub fn start(connection: Connection) -> Self {
        let (inbox, requests) = mpsc::channel(INBOX);
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
            answer.send(f(connection).map_err(explain)).ok();
        });
        self.send(Request::Query(query), result).await
    }

    async fn send<T>(
        &self,
        request: Request,
        result: oneshot::Receiver<Result<T, StateError>>,
    ) -> Result<T, StateError> {
        let gone = || StateError::Broken("its thread has ended".to_owned());
        self.inbox.send(request).await.map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }

    /// Waits until everything queued is durable, and closes the database.
    pub fn close(&self) {
        let (done, closed) = std::sync::mpsc::channel();
        let mut request = Request::Close(done);
        // From a blocking context: the inbox may be full for a moment.
        loop {
            match self.inbox.try_send(request) {
                Ok(()) => break,
                Err(mpsc::error::TrySendError::Full(back)) => {
                    request = back;
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        }
        closed.recv().ok();
        if let Some(join) = self.join.lock().ok().and_then(|mut join| join.take()) {
            join.join().ok();
        }
    }
}

struct Owner {
    connection: Connection,
    caches: write::Caches,
}

impl Owner {
    fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(first) = requests.blocking_recv() {
            batch.push(first);
            while batch.len() < BATCH
                && let Ok(next) = requests.try_recv()
            {
                batch.push(next);
            }
            if let Some(done) = self.serve(&mut batch) {
                self.finish();
                drop(self);
                done.send(()).ok();
                return;
            }
        }
        self.finish();
    }

    fn finish(&self) {
        let closed = schema::note_closed(&self.connection, true)
            .and_then(|()| self.connection.pragma_update(None, "wal_checkpoint", "TRUNCATE"));
        if let Err(error) = closed {
            tracing::debug!(%error, "closing the state database");
        }
    }

    /// Serves a batch in one transaction. Answers with the request to close, if there was one.
    fn serve(&mut self, batch: &mut Vec<Request>) -> Option<std::sync::mpsc::Sender<()>> {
        let writes = batch.iter().any(|r| matches!(r, Request::Apply { .. }));
        let mut result = match writes {
            true => self.connection.execute_batch("BEGIN IMMEDIATE").map_err(explain),
            false => Ok(()),
        };
        let mut answers = vec![];
        let mut close = None;
        for request in batch.drain(..) {
            match request {
                Request::Query(query) => query(&self.connection),
                Request::Close(done) => close = Some(done),
                Request::Apply { backup, changes, answer } => {
                    answers.push(answer);
                    if result.is_ok() {
                        result = self.apply(backup, &changes);
                    }
                }
            }
        }
        if writes {
            if result.is_ok() {
                result = self.connection.execute_batch("COMMIT").map_err(explain);
            }
            if result.is_err() && !self.connection.is_autocommit() {
                self.connection.execute_batch("ROLLBACK").ok();
                self.caches = write::Caches::load(&self.connection);
            }
        }
        for answer in answers {
            answer.send(result.clone()).ok();
        }
        close
    }

    fn apply(&mut self, backup: i64, changes: &[Change]) -> Result<(), StateError> {
        for change in changes {
            write::apply(&self.connection, &mut self.caches, backup, change).map_err(explain)?;
        }
        Ok(())
    }
}

fn explain(error: rusqlite::Error) -> StateError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StateError::Full(error.to_string()),
        _ => StateError::Broken(error.to_string()),
    }
}
