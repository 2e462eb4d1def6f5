//! The daemon: every backup driven at once, signals, the control socket, a configuration that is
//! read again on SIGHUP.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::app::control;
use crate::app::{CONDITION, Driver};
use crate::config::{BackupConfig, Defaults, MirrorConfig};
use crate::engine::Mode;
use crate::report::progress::Work;
use crate::service::notify::ServiceManager;
use crate::service::paths;
use crate::service::signals::{self, Wish};
use crate::service::socket;
use crate::wire::{OpenState, RunOptions, check, open_state_of, wire};

use super::args::{Global, Run};
use super::ask::Called;
use super::doors::{Desk, Door, Doors, Role};
use super::error::{CliError, Code};
use super::exposed::{self, Exposed};
use super::health::Health;
use super::mirror::{StartMirror, called, configured_for};
use super::run::Audience;
use super::running::{Changes, Driven, Group, Kind};
use super::sync::choose;

type Backups = Group<BackupConfig>;
type Mirrors = Group<MirrorConfig>;

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
    configs.iter().for_each(|config| doors.set(Door::opening(Called::of(config))));
    mirrored.iter().for_each(|config| doors.set(Door::opening(called(config))));
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
    let (mut backups, refused) = Backups::start(&daemon.backups(), &daemon.doors, configs).await;
    let (mut mirrors, unwired) = Mirrors::start(&daemon.mirrors(), &daemon.doors, mirrored).await;
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
            () = backups.died() => return Err(died("backup")),
            () = mirrors.died() => return Err(died("mirror")),
        }
    }
    telling.abort();
    manager.stopping();
    tracing::info!("stopping: waiting for what is in flight");
    tokio::join!(mirrors.stop(), backups.stop());
    serving.abort();
    serving.await.ok();
    daemon.audience.leave(Code::Done).await;
    state.state.close();
    tracing::info!("stopped");
    Ok(Code::Done)
}

/// The service manager starts all of it anew.
fn died(what: &str) -> CliError {
    CliError::new(Code::Failed, format!("a {what} ended unexpectedly: this is a bug"))
}

struct Daemon<'a> {
    global: &'a Global,
    state: &'a OpenState,
    options: RunOptions,
    audience: Audience,
    doors: Doors,
    exposed: tokio::sync::Mutex<Exposed>,
}

/// How a daemon starts its backups.
struct Start<'a> {
    state: &'a OpenState,
    options: &'a RunOptions,
    audience: &'a Audience,
    doors: &'a Doors,
}

impl Kind for Start<'_> {
    type Config = BackupConfig;

    fn called(&self, config: &BackupConfig) -> Called {
        Called::of(config)
    }

    async fn start(&self, config: &BackupConfig) -> Result<Driven, CliError> {
        check(config, &self.state.folder)?;
        let wired = wire(config, self.state, self.options).await?;
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
        self.doors.set(Door::of(&wired, commands.clone()));
        let driving = tokio::spawn(Driver::new(wired.backup, wired.watching).run(inbox));
        Ok(Driven { commands, driving, following })
    }
}

impl Daemon<'_> {
    fn backups(&self) -> Start<'_> {
        let Self { state, options, audience, doors, .. } = self;
        Start { state, options, audience, doors }
    }

    fn mirrors(&self) -> StartMirror<'_> {
        let Self { state, audience, doors, .. } = self;
        StartMirror { state, audience, doors }
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
        let (of_backups, of_mirrors, doors) = (self.backups(), self.mirrors(), &self.doors);
        // All that ends has ended before anything starts: what was a mirror may be a backup now.
        let (new, changed) = backups.end_changed(&of_backups, configs).await;
        let (new_mirrors, changed_mirrors) = mirrors.end_changed(&of_mirrors, mirrored).await;
        doors.keep(|name| backups.has(name) || mirrors.has(name));
        let changed = backups.start_new(&of_backups, doors, new, changed).await;
        let changed_mirrors =
            mirrors.start_new(&of_mirrors, doors, new_mirrors, changed_mirrors).await;
        let Changes { kept, ended, started, failed } = changed + changed_mirrors;
        let failed = match failed {
            0 => String::new(),
            failed => format!(", {failed} could not be started"),
        };
        tracing::info!(
            "read the configuration again: {kept} kept, {ended} ended, {started} started{failed}"
        );
    }

    /// What the file says, if all of it can be used.
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
}
