//! The daemon: every backup driven at once, signals, the control socket, a configuration that is
//! read again on SIGHUP.
//!
//! What takes time has a task of its own: the loop here waits for nothing but the next wish.

use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::app::control;
use crate::app::{CONDITION, Driver};
use crate::config::BackupConfig;
use crate::engine::Mode;
use crate::model::Escaped;
use crate::report::progress::Work;
use crate::service::notify::ServiceManager;
use crate::service::signals::{self, Wish};
use crate::wire::{OpenState, RunOptions, check, find, wire};

use super::args::{Global, Run};
use super::ask::Called;
use super::configured::Configured;
use super::doors::{Desk, Door, Doors, Role, Starting};
use super::error::{CliError, Code};
use super::exposed::Exposed;
use super::health::Health;
use super::mirror::StartMirror;
use super::opening::{self, Opened};
use super::published::InTime;
use super::run::Audience;
use super::running::{Driven, Group, Kind, Leaving, News};

pub async fn run(global: &Global, run: Run) -> Result<Code, CliError> {
    let mut audience = Audience::new(global, true);
    let configured = Configured::read(global, &run)?;
    let mut wishes = signals::listen(1)
        .map_err(|e| CliError::new(Code::NeedsPerson, "cannot listen for signals").caused_by(&e))?;
    let manager = Arc::new(ServiceManager::from_env());
    let opened = opening::open(global, &configured.backups, &manager, &mut wishes).await?;
    let Some(Opened { state, listener }) = opened else {
        manager.stopping();
        tracing::info!("stopped");
        return Ok(Code::Done);
    };
    let state = Arc::new(state);
    let doors = Doors::default();
    let desk = Desk { role: Role::Daemon, state: state.state.clone(), doors: doors.clone() };
    let mut exposed = Exposed::new(desk.clone());
    exposed.serve_on(configured.listen).await;
    let published = InTime::of(&mut audience.published, global);
    published.follow_file();
    let audience = Arc::new(audience);
    let options = RunOptions {
        mode: Mode::Daemon,
        take_over: run.take_over,
        failed_only: false,
        new_bucket: run.new_bucket,
        plan: None,
    };
    let backups =
        Start { state: state.clone(), options, audience: audience.clone(), doors: doors.clone() };
    let mirrors = StartMirror { state: state.clone(), audience, doors: doors.clone() };
    let mut daemon = Daemon {
        global,
        run: &run,
        state: &state,
        published: &published,
        backups: Group::new(backups, doors.clone()),
        mirrors: Group::new(mirrors, doors.clone()),
        leaving: Leaving::default(),
        doors: doors.clone(),
        exposed,
        reading: None,
        reloaded: false,
    };
    daemon.begin(configured);
    let serving = tokio::spawn(desk.serve(listener));
    let health = Health { manager: manager.clone(), doors, state: state.state.clone() };
    let telling = tokio::spawn(health.tell());
    daemon.until_told_to_stop(&mut wishes, &manager).await?;
    telling.abort();
    manager.stopping();
    tracing::info!("stopping: waiting for what is in flight");
    tokio::join!(daemon.mirrors.stop(), daemon.backups.stop());
    serving.abort();
    serving.await.ok();
    published.end().await;
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
    run: &'a Run,
    state: &'a OpenState,
    published: &'a InTime,
    backups: Group<Start>,
    mirrors: Group<StartMirror>,
    leaving: Leaving,
    doors: Doors,
    exposed: Exposed,
    /// The configuration is being read again.
    reading: Option<JoinHandle<Result<Configured, CliError>>>,
    /// The configuration was read again since the start.
    reloaded: bool,
}

/// How a daemon starts its backups.
struct Start {
    state: Arc<OpenState>,
    options: RunOptions,
    audience: Arc<Audience>,
    doors: Doors,
}

impl Kind for Start {
    type Config = BackupConfig;

    fn called(&self, config: &BackupConfig) -> Called {
        Called::of(config)
    }

    async fn start(&self, config: &BackupConfig, start: &Starting) -> Result<Driven, CliError> {
        check(config, &self.state.folder)?;
        let place = Escaped(config.source.as_os_str().as_bytes());
        start.waits_for(format!("an answer from the disk of its source {place}"));
        let found = find(config, self.options.mode).await?;
        start.waits_for(format!("an answer from {}", config.destination));
        let wired = wire(config, found, &self.state, &self.options).await?;
        start.waits_for(format!("an answer from {}", wired.server));
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
        Ok(Driven { commands, driving, following: Some(following) })
    }
}

impl Daemon<'_> {
    fn begin(&mut self, configured: Configured) {
        let leaving = &mut self.leaving;
        let (new, _) = self.backups.end_changed(configured.backups, leaving);
        self.backups.start(new, leaving);
        let (new, _) = self.mirrors.end_changed(configured.mirrors, leaving);
        self.mirrors.start(new, leaving);
    }

    /// Returns when a stop is wished; or with why nothing can be done any more.
    async fn until_told_to_stop(
        &mut self,
        wishes: &mut mpsc::Receiver<Wish>,
        manager: &ServiceManager,
    ) -> Result<(), CliError> {
        loop {
            let (what, news) = tokio::select! {
                biased;
                Some(wish) = wishes.recv() => match wish {
                    Wish::Stop => return Ok(()),
                    Wish::Reload => {
                        manager.reloading();
                        self.read_again();
                        continue;
                    }
                },
                read = read_to_the_end(&mut self.reading) => {
                    self.take_up(read).await;
                    manager.reloaded();
                    continue;
                }
                Some(news) = self.backups.news() => ("backup", news),
                Some(news) = self.mirrors.news() => ("mirror", news),
            };
            match news {
                News::Died => return Err(died(what)),
                News::Stopped => self.close_doors(),
                News::Returned => {}
                // With what it was started for it can do nothing at all.
                News::Refused(error) => {
                    let idle = self.backups.is_idle() && self.mirrors.is_idle();
                    if idle && !self.reloaded {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Those of what has gone.
    fn close_doors(&self) {
        let Self { backups, mirrors, leaving, .. } = self;
        let is_kept = |name: &str| backups.has(name) || mirrors.has(name) || leaving.has(name);
        self.doors.keep(is_kept);
    }

    /// Begins to read the configuration again, on a thread that may wait for a disk. What was begun
    /// before has read an earlier file.
    fn read_again(&mut self) {
        let (global, run) = (self.global.clone(), self.run.clone());
        let state = self.state.folder.clone();
        let reading = move || Configured::read_whole(&global, &run, &state);
        self.reading = Some(tokio::task::spawn_blocking(reading));
    }

    /// What did not change keeps running; a file with faults is refused as a whole. Nothing is
    /// waited for: what ends does so by itself, and what is new begins after it.
    async fn take_up(&mut self, read: Result<Configured, CliError>) {
        let Configured { backups, mirrors, listen } = match read {
            Ok(configured) => configured,
            Err(error) => {
                tracing::error!(target: CONDITION, "the configuration stays as it was:");
                for line in error.render(false).lines() {
                    tracing::error!(target: CONDITION, "{line}");
                }
                self.doors.refuse(Some(error.told()));
                return;
            }
        };
        self.reloaded = true;
        self.doors.refuse(None);
        self.exposed.serve_on(listen).await;
        self.published.follow_file();
        // What was a mirror may be a backup now.
        let leaving = &mut self.leaving;
        let (new, changes) = self.backups.end_changed(backups, leaving);
        let (new_mirrors, changed_mirrors) = self.mirrors.end_changed(mirrors, leaving);
        self.backups.start(new, leaving);
        self.mirrors.start(new_mirrors, leaving);
        self.close_doors();
        let changes = changes + changed_mirrors;
        tracing::info!(
            "read the configuration again: {} kept, {} ended, {} to start",
            changes.kept,
            changes.ended,
            changes.begun
        );
    }
}

/// Returns when what is being read was read; never, where nothing is.
async fn read_to_the_end(
    reading: &mut Option<JoinHandle<Result<Configured, CliError>>>,
) -> Result<Configured, CliError> {
    let Some(handle) = reading else { return std::future::pending().await };
    let read = handle.await;
    *reading = None;
    read.unwrap_or_else(|e| {
        let message = "reading the configuration ended unexpectedly: this is a bug";
        Err(CliError::new(Code::Failed, message).caused_by(&e))
    })
}
