//! The daemon: every backup driven at once, signals, the control socket, a configuration that is
//! read again on SIGHUP.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::app::control::{self, Command};
use crate::app::{CONDITION, Driver, Ended};
use crate::config::{BackupConfig, Defaults, MirrorConfig};
use crate::engine::Mode;
use crate::report::progress::Work;
use crate::service::notify::ServiceManager;
use crate::service::paths;
use crate::service::signals::{self, Wish};
use crate::service::socket;
use crate::wire::{OpenState, RunOptions, check, open_state_of, wire};

use super::args::{Global, Run};
use super::doors::{Desk, Door, Doors, Role};
use super::error::{CliError, Code};
use super::exposed::{self, Exposed};
use super::health::Health;
use super::mirror::{Mirrors, Start, configured_for};
use super::run::{Audience, Following};
use super::sync::choose;

struct Running {
    config: BackupConfig,
    commands: mpsc::Sender<Command>,
    driving: JoinHandle<Ended>,
    following: Following,
}

type Backups = BTreeMap<String, Running>;

pub async fn run(global: &Global, run: Run) -> Result<Code, CliError> {
    let mut audience = Audience::new(global, true);
    let configs = choose(global, &run, Defaults::DAEMON, false)?;
    let mirrored = configured_for(global, &run)?;
    let failed =
        |what: &str, e: &std::io::Error| CliError::new(Code::NeedsPerson, what).caused_by(e);
    let mut wishes = signals::listen(1).map_err(|e| failed("cannot listen for signals", &e))?;
    let state = open_state_of(global.state_dir.as_deref(), &configs)?;
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
    let doors = Doors::default();
    configs.iter().for_each(|config| doors.set(Door::opening(config)));
    let desk = Desk { role: Role::Daemon, state: state.state.clone(), doors: doors.clone() };
    let mut exposed = Exposed::new(desk.clone());
    exposed.serve_on(exposed::wanted(global, &run)?).await?;
    let serving = tokio::spawn(desk.serve(listener));
    let manager = Arc::new(ServiceManager::from_env());
    let health =
        Health { manager: manager.clone(), doors: doors.clone(), state: state.state.clone() };
    let telling = tokio::spawn(health.tell());
    audience.published.follow_file(global).await;
    let exposed = tokio::sync::Mutex::new(exposed);
    let mut daemon = Daemon { global, state: &state, options, audience, doors, exposed };
    let (mut backups, refused) = daemon.start_all(configs).await;
    let (mut mirrors, unwired) = Mirrors::start(&daemon.mirrors(), mirrored).await;
    if let (true, Some(error)) = (backups.is_empty() && mirrors.is_empty(), refused.or(unwired)) {
        return Err(error);
    }
    loop {
        tokio::select! {
            biased;
            Some(wish) = wishes.recv() => match wish {
                Wish::Stop => break,
                Wish::Reload => {
                    manager.reloading();
                    daemon.reload(&run, &mut backups, &mut mirrors).await;
                    manager.ready();
                }
            },
            () = died(&mut backups) => {
                let bug = "a backup ended unexpectedly: this is a bug";
                return Err(CliError::new(Code::Failed, bug));
            }
        }
    }
    telling.abort();
    manager.stopping();
    tracing::info!("stopping: waiting for what is in flight");
    mirrors.stop().await;
    stop_all(backups).await;
    serving.abort();
    serving.await.ok();
    daemon.audience.leave(Code::Done).await;
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
    audience: Audience,
    doors: Doors,
    exposed: tokio::sync::Mutex<Exposed>,
}

impl Daemon<'_> {
    /// Starts what can be started: one backup that belongs to another machine does not keep the
    /// others from running. Where none runs there is nothing to stay for.
    async fn start_all(&self, configs: Vec<BackupConfig>) -> (Backups, Option<CliError>) {
        let mut backups = Backups::new();
        let mut first = None;
        for started in join_all(configs.into_iter().map(|config| self.start(config))).await {
            match started {
                Ok(running) => {
                    backups.insert(running.config.name.clone(), running);
                }
                Err((config, error)) => {
                    self.not_started(&config, &error);
                    first = first.or(Some(error));
                }
            }
        }
        (backups, first)
    }

    fn mirrors(&self) -> Start<'_> {
        let Self { state, audience, doors, .. } = self;
        Start { state, audience, doors }
    }

    async fn start(&self, config: BackupConfig) -> Result<Running, (BackupConfig, CliError)> {
        match self.try_start(&config).await {
            Ok(running) => Ok(running),
            Err(error) => {
                self.doors.set(Door::shut(&config, error.clone()));
                Err((config, error))
            }
        }
    }

    async fn try_start(&self, config: &BackupConfig) -> Result<Running, CliError> {
        check(config, &self.state.folder)?;
        let wired = wire(config, self.state, &self.options).await?;
        // A pause holds from the first request on.
        let is_paused = wired.backup.state.backup().await?.paused_at.is_some();
        if !is_paused
            && let Err(failure) = wired.backup.check_owner().await
            && wired.backup.owner.is_refused()
        {
            control::note_end(&*wired.backup.state, Some(failure.to_string())).await;
            return Err(failure.into());
        }
        let (name, source) = (&config.name, config.source.display());
        tracing::info!(backup = name, "keeping {source} in {}", wired.destination);
        let following = self.audience.follow(name, &wired.backup.progress, Work::Keep);
        let (commands, inbox) = mpsc::channel(8);
        self.doors.set(Door::open(&wired, commands.clone()));
        let driving = tokio::spawn(Driver::new(wired.backup, wired.watching).run(inbox));
        Ok(Running { config: config.clone(), commands, driving, following })
    }

    fn not_started(&self, config: &BackupConfig, error: &CliError) {
        let why = error.with_hints();
        tracing::error!(target: CONDITION, backup = config.name, "not started: {why}");
    }

    /// What did not change keeps running; a file with faults is refused as a whole.
    async fn reload(&mut self, run: &Run, backups: &mut Backups, mirrors: &mut Mirrors) {
        let (configs, mirrored) = match self.read_again(run).await {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(target: CONDITION, "the configuration stays as it was:");
                for line in error.render(false).lines() {
                    tracing::error!(target: CONDITION, "{line}");
                }
                self.doors.refuse(Some(error.told()));
                return;
            }
        };
        self.doors.refuse(None);
        self.audience.published.follow_file(self.global).await;
        let mut gone = std::mem::take(backups);
        let mut new = vec![];
        for config in configs {
            match gone.remove(&config.name) {
                Some(running) if running.config == config => {
                    backups.insert(config.name, running);
                }
                Some(running) => {
                    new.push((config, Some(running.config.clone())));
                    stop(running).await;
                }
                None => new.push((config, None)),
            }
        }
        let kept = backups.len();
        let changed = new.iter().filter(|(_, former)| former.is_some()).count();
        let ended = gone.len() + changed;
        let is_mirror = |name: &str| mirrored.iter().any(|mirror| mirror.name == name);
        self.doors
            .keep(|name| backups.contains_key(name) || (mirrors.has(name) && is_mirror(name)));
        new.iter().for_each(|(config, _)| self.doors.set(Door::opening(config)));
        stop_all(gone).await;
        let (started, restored, failed) = self.start_new(new, backups).await;
        mirrors.reload(&self.mirrors(), mirrored).await;
        let (kept, ended) = (kept + restored, ended - restored);
        let failed = match failed {
            0 => String::new(),
            failed => format!(", {failed} could not be started"),
        };
        tracing::info!(
            "read the configuration again: {kept} kept, {ended} ended, {started} started{failed}"
        );
    }

    /// The backups of the file, if all that it says can be used.
    async fn read_again(
        &self,
        run: &Run,
    ) -> Result<(Vec<BackupConfig>, Vec<MirrorConfig>), CliError> {
        let configs = choose(self.global, run, Defaults::DAEMON, false)?;
        for config in &configs {
            check(config, &self.state.folder)?;
        }
        let mirrors = configured_for(self.global, run)?;
        let wanted = exposed::wanted(self.global, run)?;
        self.exposed.lock().await.serve_on(wanted).await?;
        Ok((configs, mirrors))
    }

    /// Starts backups that are new or were changed. One that ran and cannot be started as it is
    /// written now goes on as it was. Counts what was started, goes on as before, and was not
    /// started.
    async fn start_new(
        &self,
        new: Vec<(BackupConfig, Option<BackupConfig>)>,
        backups: &mut Backups,
    ) -> (usize, usize, usize) {
        let (mut started, mut restored, mut failed) = (0, 0, 0);
        for (config, former) in new {
            let outcome = match self.start(config).await {
                Ok(running) => {
                    started += 1;
                    Some(running)
                }
                Err((config, error)) => {
                    failed += 1;
                    self.not_started(&config, &error);
                    match former {
                        Some(former) => self.start(former).await.ok(),
                        None => None,
                    }
                    .inspect(|running| {
                        restored += 1;
                        let name = &running.config.name;
                        tracing::warn!(target: CONDITION, backup = name, "goes on as it was");
                    })
                }
            };
            if let Some(running) = outcome {
                backups.insert(running.config.name.clone(), running);
            }
        }
        (started, restored, failed)
    }
}

async fn stop_all(backups: Backups) {
    for running in backups.values() {
        running.commands.try_send(Command::Stop).ok();
    }
    for (_, running) in backups {
        stop(running).await;
    }
}

async fn stop(running: Running) {
    // A command may have been in the way of a first try.
    running.commands.send(Command::Stop).await.ok();
    running.driving.await.ok();
    running.following.finish();
}
