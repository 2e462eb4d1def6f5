//! What a running daemon, or a running `sync`, answers on its control socket.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::app::control::{self, Command, Verdict};
use crate::app::pulse::PATIENCE;
use crate::app::status::{self, BackupStatus};
use crate::model::{Escaped, Key};
use crate::ports::Clock as _;
use crate::report::metrics;
use crate::service::socket::{self, Answer, DeletionVerb, Request};
use crate::state::State;
use crate::wire::{SystemClock, Wired, destination_of};

use super::ask::{Called, chosen};
use super::error::{CliError, Code};
use super::forget::forget;

/// Names in a list of deletions.
const NAMES_MAX: usize = 100;

/// Where to reach a backup of this process.
#[derive(Clone)]
pub struct Door {
    called: Called,
    way: Way,
}

#[derive(Clone)]
pub enum Way {
    /// It is being started.
    Opening(Starting),
    Open(mpsc::Sender<Command>),
    /// It could not be started.
    Shut(CliError),
}

/// A start that is under way: since when, and what it waits for.
#[derive(Clone)]
pub struct Starting {
    since: Instant,
    what: Arc<Mutex<String>>,
}

impl Starting {
    pub fn begin() -> Self {
        Self { since: Instant::now(), what: Arc::default() }
    }

    /// From now on it waits for this.
    pub fn waits_for(&self, what: impl Into<String>) {
        *self.what.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
    }

    /// What it waits for, if it takes so long that a person should know.
    pub fn late(&self) -> Option<String> {
        let is_late = self.since.elapsed() >= PATIENCE;
        is_late.then(|| self.what.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Door {
    pub fn opening(called: Called, start: Starting) -> Self {
        Self { called, way: Way::Opening(start) }
    }

    pub fn shut(called: Called, error: CliError) -> Self {
        Self { called, way: Way::Shut(error) }
    }

    pub fn open(called: Called, commands: mpsc::Sender<Command>) -> Self {
        Self { called, way: Way::Open(commands) }
    }

    /// The open door of a backup, by what its configuration came to.
    pub fn of(wired: &Wired, commands: mpsc::Sender<Command>) -> Self {
        let settings = &wired.backup.settings;
        let called = Called {
            name: settings.name.clone(),
            source: settings.owner.source.clone(),
            destination: wired.destination.clone(),
        };
        Self::open(called, commands)
    }

    fn is_opening(&self) -> bool {
        matches!(self.way, Way::Opening(_))
    }

    /// What is said of it among all, where it cannot be asked: that it is being started. What was
    /// not started at all has nothing to say there.
    fn absent(&self) -> Option<Value> {
        self.is_opening().then(|| json!({ "name": self.called.name, "starting": true }))
    }

    /// Sends a command and waits for its answer.
    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, CliError> {
        let name = &self.called.name;
        let door = match &self.way {
            Way::Open(door) => door,
            Way::Shut(error) => return Err(not_started(name, error)),
            Way::Opening(_) => {
                return Err(CliError::new(Code::Failed, format!("{name} is being started")));
            }
        };
        let gone = || CliError::new(Code::Failed, format!("{name} is being stopped"));
        let (answer, answered) = oneshot::channel();
        door.send(command(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }
}

/// The line may have been cut off, too; then nobody reads this.
fn unknown() -> CliError {
    CliError::new(Code::NeedsPerson, "this daemon does not know that request")
        .hint("is it an older keepwatch? restart it")
}

fn not_started(name: &str, error: &CliError) -> CliError {
    let what = if error.may_pass { "waits to be started" } else { "was not started" };
    let message = format!("{name} {what}: {}", error.line());
    CliError { message, causes: vec![], ..error.clone() }
}

/// The backups of this process by name.
#[derive(Clone, Default)]
pub struct Doors {
    by_name: Arc<Mutex<BTreeMap<String, Door>>>,
    changed: Arc<Notify>,
    /// Why the file, as it was last read, is not in force.
    refused: Arc<Mutex<Option<String>>>,
    /// Why nothing is served where pages are wanted.
    unserved: Arc<Mutex<Option<String>>>,
}

impl Doors {
    pub fn set(&self, door: Door) {
        self.lock().insert(door.called.name.clone(), door);
        self.changed.notify_waiters();
    }

    /// Closes all but these.
    pub fn keep(&self, is_kept: impl Fn(&str) -> bool) {
        self.lock().retain(|name, _| is_kept(name));
        self.changed.notify_waiters();
    }

    /// Notes what came of reading the file again.
    pub fn refuse(&self, why: Option<String>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    pub fn refused(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what came of serving pages.
    pub fn serve(&self, trouble: Option<String>) {
        *self.unserved.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    pub fn unserved(&self) -> Option<String> {
        self.unserved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The names of all, and how each is reached.
    pub fn ways(&self) -> Vec<(String, Way)> {
        self.all().into_iter().map(|door| (door.called.name, door.way)).collect()
    }

    fn all(&self) -> Vec<Door> {
        self.lock().values().cloned().collect()
    }

    /// All of them, once none is being started any more.
    async fn settled(&self) -> Vec<Door> {
        loop {
            let changed = self.changed.notified();
            let all = self.all();
            if !all.iter().any(Door::is_opening) {
                return all;
            }
            changed.await;
        }
    }

    /// Those that are meant, once none of them is being started any more: what else is, is none of
    /// their business.
    async fn named(&self, names: &[String]) -> Result<Vec<Door>, CliError> {
        loop {
            let changed = self.changed.notified();
            let all = self.all();
            let called: Vec<Called> = all.iter().map(|door| door.called.clone()).collect();
            let places = chosen(&called, names)?;
            let meant: Vec<Door> = places.into_iter().map(|at| all[at].clone()).collect();
            if !meant.iter().any(Door::is_opening) {
                return Ok(meant);
            }
            changed.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Door>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Daemon,
    /// It tells of everything on record, and takes no orders: it ends by itself.
    Sync,
}

/// What is needed to answer.
#[derive(Clone)]
pub struct Desk {
    pub role: Role,
    pub state: State,
    pub doors: Doors,
}

impl Desk {
    /// Answers until it is dropped.
    pub async fn serve(self, listener: socket::Listener) {
        let mut asked = JoinSet::new();
        loop {
            tokio::select! {
                connection = listener.accept() => match connection {
                    Ok(stream) => {
                        asked.spawn(self.clone().answer(stream));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the control socket");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = asked.join_next() => {}
            }
        }
    }

    async fn answer(self, mut stream: UnixStream) {
        let request = match socket::receive(&mut stream).await {
            Ok(request) => request,
            Err(error) => {
                tracing::debug!(%error, "a request on the control socket");
                return;
            }
        };
        let reply = match request {
            Some(request) => self.reply(request).await,
            None => Err(unknown()),
        };
        let answer = match reply {
            Ok(value) => Answer::Ok(value),
            Err(error) => {
                let (code, message) = (error.code.number(), error.line());
                Answer::Error { code, message, hint: error.hints.into_iter().next() }
            }
        };
        socket::send_answer(&mut stream, &answer).await.ok();
    }

    async fn reply(&self, request: Request) -> Result<Value, CliError> {
        match request {
            Request::Status => self.status().await,
            Request::Files { source, destination, after } => {
                let after = after.map(|key| Key::literal(&key));
                files(&self.state, &source, &destination, after).await
            }
            Request::Flush
            | Request::Pause { .. }
            | Request::Forget { .. }
            | Request::Deletions { .. }
                if self.role == Role::Sync =>
            {
                let message = format!("a sync is running (process {})", std::process::id());
                Err(CliError::new(Code::NeedsPerson, message).hint("ask again when it has ended"))
            }
            Request::Flush => self.flush().await,
            Request::Pause { paused, names, all } => self.pause(paused, &names, all).await,
            Request::Forget { names } => {
                let kept: Vec<Called> =
                    self.doors.all().into_iter().map(|door| door.called).collect();
                forget(&self.state, &kept, &names).await
            }
            Request::Deletions { verb, names, all, new_root } => {
                self.deletions(verb, &names, all, new_root).await
            }
        }
    }

    /// The backups as metrics.
    pub async fn metrics(&self) -> Result<String, CliError> {
        let refused = self.doors.refused().is_some();
        Ok(metrics::text(&self.backups().await?, refused))
    }

    async fn backups(&self) -> Result<Vec<BackupStatus>, CliError> {
        let mut all = vec![];
        for door in self.doors.all() {
            let Door { called, way } = &door;
            let mut status = match way {
                Way::Open(_) => match door.ask(Command::Status).await {
                    Ok(status) => status,
                    Err(_) => self.on_record(called, "stopping").await?,
                },
                Way::Opening(start) => match start.late() {
                    None => self.on_record(called, "starting").await?,
                    what => BackupStatus {
                        waiting_for: what,
                        ..self.on_record(called, "waiting").await?
                    },
                },
                Way::Shut(error) if error.may_pass => BackupStatus {
                    waiting_for: Some(error.with_hints()),
                    ..self.on_record(called, "waiting").await?
                },
                Way::Shut(error) => BackupStatus {
                    error: Some(error.with_hints()),
                    ..self.on_record(called, "failed").await?
                },
            };
            let Called { name, source, destination } = called.clone();
            (status.name, status.source, status.destination) = (name, source, destination);
            all.push(status);
        }
        Ok(all)
    }

    async fn status(&self) -> Result<Value, CliError> {
        let mut all = self.backups().await?;
        if self.role == Role::Sync {
            let is_told = |s: &BackupStatus| {
                all.iter().any(|t| t.source == s.source && t.destination == s.destination)
            };
            let recorded = recorded(&self.state).await?;
            let others: Vec<_> = recorded.into_iter().filter(|s| !is_told(s)).collect();
            all.extend(others);
        }
        let is = |role| self.role == role;
        let (daemon, sync, process) = (is(Role::Daemon), is(Role::Sync), std::process::id());
        let report = json!({ "version": 1, "daemon": daemon, "sync": sync, "process": process });
        let Value::Object(mut report) = report else { return Ok(Value::Null) };
        report.insert("config_error".to_owned(), json!(self.doors.refused()));
        report.insert("listen_error".to_owned(), json!(self.doors.unserved()));
        report.insert("backups".to_owned(), json!(all));
        Ok(Value::Object(report))
    }

    /// What is known of a backup that has no driver to ask.
    async fn on_record(&self, called: &Called, condition: &str) -> Result<BackupStatus, CliError> {
        let mut recorded = recorded(&self.state).await?.into_iter();
        let status = recorded.find(|s| called.has_record(&Called::told_by(s))).unwrap_or_default();
        Ok(BackupStatus { condition: condition.to_owned(), ..status })
    }

    /// What can be flushed is, also where another backup was not started.
    async fn flush(&self) -> Result<Value, CliError> {
        let doors = self.doors.settled().await;
        let flushes = doors.iter().map(|door| async {
            let failed: Result<u64, CliError> =
                async { Ok(door.ask(Command::Flush).await??) }.await;
            failed.map_err(|error| match door.way {
                Way::Open(_) => {
                    let message = format!("{}: {}", door.called.name, error.message);
                    CliError { message, ..error }
                }
                Way::Opening(_) | Way::Shut(_) => error,
            })
        });
        let mut failed = 0;
        for flushed in futures_util::future::join_all(flushes).await {
            failed += flushed?;
        }
        let skipped: u64 = self.backups().await?.iter().map(|backup| backup.skipped).sum();
        let config_error = self.doors.refused();
        Ok(json!({ "failed": failed, "skipped": skipped, "config_error": config_error }))
    }

    async fn pause(&self, paused: bool, names: &[String], all: bool) -> Result<Value, CliError> {
        let doors = if all { self.doors.all() } else { self.doors.named(names).await? };
        let mut done = vec![];
        for door in &doors {
            if all && !matches!(door.way, Way::Open(_)) {
                done.extend(door.absent());
                continue;
            }
            let new = door.ask(|answer| Command::Pause { paused, answer }).await??;
            done.push(json!({ "name": door.called.name, "paused": paused, "new": new }));
        }
        Ok(json!({ "backups": done }))
    }

    async fn deletions(
        &self,
        verb: DeletionVerb,
        names: &[String],
        all: bool,
        new_root: bool,
    ) -> Result<Value, CliError> {
        let everything = all || (verb == DeletionVerb::List && names.is_empty());
        let doors = if everything { self.doors.all() } else { self.doors.named(names).await? };
        let mut done = vec![];
        for door in &doors {
            // What is meant by name must be there.
            if everything && !matches!(door.way, Way::Open(_)) {
                done.extend(door.absent());
                continue;
            }
            let name = &door.called.name;
            done.push(match verb {
                DeletionVerb::List => {
                    let list = door.ask(|answer| Command::List { max: NAMES_MAX, answer });
                    serde_json::to_value(list.await??).unwrap_or_default()
                }
                DeletionVerb::Approve => {
                    let verdict = door.ask(|answer| Command::Approve { new_root, answer });
                    let Verdict { files, new_root } = verdict.await??;
                    json!({ "name": name, "files": files, "new_root": new_root })
                }
                DeletionVerb::Discard => {
                    let verdict = door.ask(|answer| Command::Discard { answer }).await??;
                    json!({ "name": name, "files": verdict.files })
                }
            });
        }
        Ok(json!({ "backups": done }))
    }
}

/// What is on record of every backup.
pub async fn recorded(state: &State) -> Result<Vec<BackupStatus>, CliError> {
    let mut all = vec![];
    for (name, id) in state.backups().await? {
        let Some(records) = state.known_backup(id.clone()).await? else { continue };
        let mut status = status::recorded(&records, SystemClock.now()).await?;
        status.name = name;
        status.source = Escaped(&id.source).to_string();
        if id.is_mirror() {
            status.kind = "mirror".to_owned();
        }
        status.destination = destination_of(&id);
        all.push(status);
    }
    Ok(all)
}

/// A page of the files on record of one backup.
pub async fn files(
    state: &State,
    source: &str,
    destination: &str,
    after: Option<Key>,
) -> Result<Value, CliError> {
    let all = state.backups().await?;
    let meant = all
        .into_iter()
        .map(|(_, id)| id)
        .find(|id| Escaped(&id.source).to_string() == source && destination_of(id) == destination);
    let Some(id) = meant else { return Ok(json!({ "files": [] })) };
    let Some(records) = state.known_backup(id).await? else { return Ok(Value::Null) };
    Ok(json!(control::files(&records, after).await?))
}
