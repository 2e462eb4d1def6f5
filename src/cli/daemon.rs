//! The daemon: every backup driven at once, signals, the control socket, a configuration that is
//! read again on SIGHUP.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::MultiProgress;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use crate::app::control::{Command, Verdict};
use crate::app::{Driver, Ended, owner};
use crate::config::{BackupConfig, Defaults};
use crate::engine::Mode;
use crate::model::Key;
use crate::report::log;
use crate::report::progress::{Show, When};
use crate::service::paths;
use crate::service::signals::{self, Wish};
use crate::service::socket::{self, Answer, DeletionVerb, Request};

use super::args::{Global, Run};
use super::commands::no_such_backup;
use super::error::{CliError, Code};
use super::sync::choose;
use super::wire::{OpenState, RunOptions, Wired, open_state_of, wire};

/// Names in a list of deletions.
const NAMES_MAX: usize = 100;

struct Running {
    config: BackupConfig,
    destination: String,
    commands: mpsc::Sender<Command>,
    driving: JoinHandle<Ended>,
    show: Show,
}

type Backups = BTreeMap<String, Running>;

pub async fn run(global: &Global, run: Run) -> Result<Code, CliError> {
    let bars = MultiProgress::new();
    log::init(global.log(true), &bars);
    if global.dry_run {
        return Err(CliError::new(Code::Usage, "a daemon has no dry run")
            .hint("see what would be done with: keepwatch sync --dry-run"));
    }
    let configs = choose(global, &run, Defaults::DAEMON, false)?;
    let failed =
        |what: &str, e: &std::io::Error| CliError::new(Code::NeedsPerson, what).caused_by(e);
    let mut wishes = signals::listen(1).map_err(|e| failed("cannot listen for signals", &e))?;
    let state = open_state_of(global, &configs)?;
    let socket_path = paths::control_socket(&state.folder);
    let listener = socket::Listener::bind(&socket_path)
        .map_err(|e| failed(&format!("cannot listen on {}", socket_path.display()), &e))?;
    let options = RunOptions {
        mode: Mode::Daemon,
        take_over: run.take_over,
        failed_only: false,
        new_bucket: run.new_bucket,
        plan: None,
    };
    let daemon = Daemon { global, state: &state, options, bars };
    let mut backups = daemon.start_all(configs).await?;
    let mut asked = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(wish) = wishes.recv() => match wish {
                Wish::Stop => break,
                Wish::Reload => daemon.reload(&run, &mut backups).await,
            },
            connection = listener.accept() => match connection {
                Ok(stream) => {
                    let doors = doors(&backups);
                    asked.spawn(answer(stream, doors));
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = asked.join_next() => {}
            () = died(&mut backups) => {
                let bug = "a backup ended unexpectedly: this is a bug";
                return Err(CliError::new(Code::Failed, bug));
            }
        }
    }
    tracing::info!("stopping: waiting for what is in flight");
    stop_all(backups).await;
    state.state.close();
    tracing::info!("stopped");
    Ok(Code::Done)
}

/// Ready when a driver ended by itself, which none should.
async fn died(backups: &mut Backups) {
    if backups.is_empty() {
        return std::future::pending().await;
    }
    let all = backups.values_mut().map(|running| &mut running.driving);
    let (ended, ..) = futures_util::future::select_all(all).await;
    if let Err(error) = ended {
        tracing::error!(%error, "a backup ended unexpectedly");
    }
}

struct Daemon<'a> {
    global: &'a Global,
    state: &'a OpenState,
    options: RunOptions,
    bars: MultiProgress,
}

impl Daemon<'_> {
    /// Starts what can be started. One backup that belongs to another machine does not keep the
    /// others from running; when it is the only one, there is nothing to run.
    async fn start_all(&self, configs: Vec<BackupConfig>) -> Result<Backups, CliError> {
        let alone = configs.len() == 1;
        let mut backups = Backups::new();
        let mut first = None;
        for config in configs {
            let name = config.name.clone();
            match self.start(config).await {
                Ok(running) => {
                    backups.insert(name, running);
                }
                Err(error) if alone => return Err(error),
                Err(error) => {
                    tracing::error!(backup = name, "not started: {}", error.line());
                    first = first.or(Some(error));
                }
            }
        }
        match first {
            Some(error) if backups.is_empty() => Err(error),
            _ => Ok(backups),
        }
    }

    async fn start(&self, config: BackupConfig) -> Result<Running, CliError> {
        let Wired { backup, watching, destination } =
            wire(&config, self.state, &self.options).await?;
        if let Err(failure) = owner::check(&backup).await
            && backup.owner.is_refused()
        {
            return Err(failure.into());
        }
        let source = config.source.display();
        tracing::info!(backup = config.name, "keeping {source} in {destination}");
        let when = if self.global.quiet { When::Never } else { self.global.progress };
        let show = Show::start(&config.name, backup.progress.clone(), when, &self.bars);
        let (commands, inbox) = mpsc::channel(8);
        let driving = tokio::spawn(Driver::new(backup, watching).run(inbox));
        Ok(Running { config, destination, commands, driving, show })
    }

    /// What did not change keeps running; a file with faults is refused as a whole.
    async fn reload(&self, run: &Run, backups: &mut Backups) {
        let configs = match choose(self.global, run, Defaults::DAEMON, false) {
            Ok(configs) => configs,
            Err(error) => {
                tracing::error!("the configuration stays as it was:\n{}", error.render(false));
                return;
            }
        };
        let same = |config: &BackupConfig| {
            backups.get(&config.name).is_some_and(|running| running.config == *config)
        };
        let (kept, new): (Vec<_>, Vec<_>) = configs.into_iter().partition(same);
        let mut gone = std::mem::take(backups);
        for config in &kept {
            if let Some(running) = gone.remove(&config.name) {
                backups.insert(config.name.clone(), running);
            }
        }
        let ended = gone.len();
        stop_all(gone).await;
        let started = new.len();
        for config in new {
            let name = config.name.clone();
            match self.start(config).await {
                Ok(running) => {
                    backups.insert(name, running);
                }
                Err(error) => tracing::error!(backup = name, "not started: {}", error.line()),
            }
        }
        tracing::info!(
            "read the configuration again: {} kept, {ended} ended, {started} started",
            kept.len()
        );
    }
}

async fn stop_all(backups: Backups) {
    for running in backups.values() {
        running.commands.try_send(Command::Stop).ok();
    }
    for (_, running) in backups {
        // A command may have been in the way of the first try.
        running.commands.send(Command::Stop).await.ok();
        running.driving.await.ok();
        running.show.finish();
    }
}

/// Where to reach each backup: its destination, and its driver.
type Doors = Vec<(String, String, mpsc::Sender<Command>)>;

fn doors(backups: &Backups) -> Doors {
    let door = |(name, running): (&String, &Running)| {
        (name.clone(), running.destination.clone(), running.commands.clone())
    };
    backups.iter().map(door).collect()
}

async fn answer(mut stream: tokio::net::UnixStream, doors: Doors) {
    let request = match socket::receive(&mut stream).await {
        Ok(request) => request,
        Err(error) => {
            tracing::debug!(%error, "a request on the control socket");
            return;
        }
    };
    let answer = match reply(request, &doors).await {
        Ok(value) => Answer::Ok(value),
        Err(error) => {
            let (code, message) = (error.code.number(), error.line());
            Answer::Error { code, message, hint: error.hints.into_iter().next() }
        }
    };
    socket::send_answer(&mut stream, &answer).await.ok();
}

async fn reply(request: Request, doors: &Doors) -> Result<serde_json::Value, CliError> {
    match request {
        Request::Status => status(doors).await,
        Request::Flush => flush(doors).await,
        Request::Files { name, after } => files(doors, &name, after).await,
        Request::Deletions { verb, names, all, new_root } => {
            deletions(doors, verb, &names, all, new_root).await
        }
    }
}

/// Sends a command and waits for its answer.
async fn ask<T>(
    door: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Result<T, CliError> {
    let gone = || CliError::new(Code::Failed, "the backup is being stopped");
    let (answer, answered) = oneshot::channel();
    door.send(command(answer)).await.map_err(|_| gone())?;
    answered.await.map_err(|_| gone())
}

async fn status(doors: &Doors) -> Result<serde_json::Value, CliError> {
    let mut all = vec![];
    for (_, destination, door) in doors {
        let mut status = ask(door, Command::Status).await?;
        status.destination.clone_from(destination);
        all.push(status);
    }
    Ok(serde_json::json!({ "version": 1, "daemon": true, "backups": all }))
}

async fn flush(doors: &Doors) -> Result<serde_json::Value, CliError> {
    let flushes = doors.iter().map(|(_, _, door)| ask(door, Command::Flush));
    let failed = futures_util::future::try_join_all(flushes).await?;
    Ok(serde_json::json!({ "failed": failed.iter().sum::<u64>() }))
}

async fn files(
    doors: &Doors,
    name: &str,
    after: Option<String>,
) -> Result<serde_json::Value, CliError> {
    let door = doors.iter().find(|(known, ..)| known == name);
    let (_, _, door) = door.ok_or_else(|| unknown(name, doors))?;
    let after = after.map(|key| Key::literal(&key));
    let page = ask(door, |answer| Command::Files { after, answer }).await??;
    Ok(serde_json::to_value(page).unwrap_or_default())
}

fn unknown(name: &str, doors: &Doors) -> CliError {
    no_such_backup(name, doors.iter().map(|(name, ..)| name.as_str()))
}

async fn deletions(
    doors: &Doors,
    verb: DeletionVerb,
    names: &[String],
    all: bool,
    new_root: bool,
) -> Result<serde_json::Value, CliError> {
    if let Some(name) = names.iter().find(|name| !doors.iter().any(|(known, ..)| known == *name)) {
        return Err(unknown(name, doors));
    }
    let everything = all || (verb == DeletionVerb::List && names.is_empty());
    let mut done = vec![];
    for (name, _, door) in doors.iter().filter(|(name, ..)| everything || names.contains(name)) {
        done.push(match verb {
            DeletionVerb::List => {
                let list = ask(door, |answer| Command::List { max: NAMES_MAX, answer }).await??;
                serde_json::to_value(list).unwrap_or_default()
            }
            DeletionVerb::Approve => {
                let approve = |answer| Command::Approve { new_root, answer };
                let verdict = ask(door, approve).await??;
                let Verdict { files, new_root } = verdict;
                serde_json::json!({ "name": name, "files": files, "new_root": new_root })
            }
            DeletionVerb::Discard => {
                let verdict = ask(door, |answer| Command::Discard { answer }).await??;
                serde_json::json!({ "name": name, "files": verdict.files })
            }
        });
    }
    Ok(serde_json::json!({ "backups": done }))
}
