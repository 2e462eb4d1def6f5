//! The mirrors of a daemon, beside its backups.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::app::control::Command;
use crate::app::mirror::MirrorDriver;
use crate::app::{CONDITION, Ended};
use crate::config::{MirrorConfig, MirrorOptions, resolve_mirrors};
use crate::model::Escaped;
use crate::report::progress::Work;
use crate::service::paths;
use crate::wire::OpenState;
use crate::wire::mirror::{MirrorRun, source_name, wire};

use super::super::args::{Global, Run};
use super::super::ask::Called;
use super::super::doors::{Door, Doors};
use super::super::error::CliError;
use super::super::run::{Audience, Following};
use super::super::sync::{config_file, faulty};

/// For how long a run waits for a bucket; then the daemon tries it again later.
const RETRY_FOR_MS: u64 = 60_000;

struct Running {
    config: MirrorConfig,
    commands: mpsc::Sender<Command>,
    driving: JoinHandle<Ended>,
    following: Following,
}

/// The mirrors that run.
#[derive(Default)]
pub struct Mirrors(BTreeMap<String, Running>);

/// What starting them needs.
pub struct Start<'a> {
    pub state: &'a OpenState,
    pub audience: &'a Audience,
    pub doors: &'a Doors,
}

/// The mirrors of the file, where the daemon runs by the file.
pub fn configured_for(global: &Global, run: &Run) -> Result<Vec<MirrorConfig>, CliError> {
    if run.source.is_some() {
        return Ok(vec![]);
    }
    let Some(file) = config_file(global)? else { return Ok(vec![]) };
    let flags = global.clone().into_mirror_options(MirrorOptions::default());
    resolve_mirrors(&file, &flags, paths::home().as_deref())
        .map_err(|faults| faulty(&faults, global))
}

/// The mirrors of the file, as far as it can be read.
pub fn configured(global: &Global) -> Vec<MirrorConfig> {
    configured_for(global, &Run::default()).unwrap_or_default()
}

/// What a person may call a mirror.
pub fn called(config: &MirrorConfig) -> Called {
    Called {
        name: config.name.clone(),
        source: Escaped(source_name(config).as_bytes()).to_string(),
        destination: config.destination.place.to_string(),
    }
}

impl Start<'_> {
    /// Starts one; answers with why that failed.
    async fn start(&self, config: &MirrorConfig) -> Result<Running, CliError> {
        self.doors.set(Door::of_mirror(called(config), None));
        match self.try_start(config).await {
            Ok(running) => Ok(running),
            Err(error) => {
                let why = error.with_hints();
                tracing::error!(target: CONDITION, backup = config.name, "not started: {why}");
                self.doors.set(Door::of_mirror(called(config), Some(Err(error.clone()))));
                Err(error)
            }
        }
    }

    async fn try_start(&self, config: &MirrorConfig) -> Result<Running, CliError> {
        let run =
            MirrorRun { take_over: false, retry_for_ms: RETRY_FOR_MS, plan: None, on_event: None };
        let mirror = wire(config, self.state, &run).await?;
        let (name, source) = (&config.name, source_name(config));
        tracing::info!(
            backup = name,
            "mirroring {source} to {} every {}",
            config.destination.place,
            config.every
        );
        let following = self.audience.follow(name, &mirror.copier.progress, Work::Copy);
        let (commands, inbox) = mpsc::channel(8);
        self.doors.set(Door::of_mirror(called(config), Some(Ok(commands.clone()))));
        let driving = tokio::spawn(MirrorDriver::new(mirror, config.every.millis()).run(inbox));
        Ok(Running { config: config.clone(), commands, driving, following })
    }
}

impl Mirrors {
    /// Starts what can be started; answers with the first error too.
    pub async fn start(start: &Start<'_>, configs: Vec<MirrorConfig>) -> (Self, Option<CliError>) {
        let (mut mirrors, mut first) = (Self::default(), None);
        for config in configs {
            match start.start(&config).await {
                Ok(running) => {
                    mirrors.0.insert(config.name, running);
                }
                Err(error) => first = first.or(Some(error)),
            }
        }
        (mirrors, first)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// What did not change keeps running.
    pub async fn reload(&mut self, start: &Start<'_>, configs: Vec<MirrorConfig>) {
        let mut gone = std::mem::take(&mut self.0);
        let mut new = vec![];
        for config in configs {
            match gone.remove(&config.name) {
                Some(running) if running.config == config => {
                    self.0.insert(config.name, running);
                }
                former => {
                    if let Some(running) = former {
                        stop(running).await;
                    }
                    new.push(config);
                }
            }
        }
        let ended = Self(gone);
        ended.stop().await;
        for config in new {
            if let Ok(running) = start.start(&config).await {
                self.0.insert(config.name, running);
            }
        }
    }

    pub async fn stop(self) {
        for running in self.0.values() {
            running.commands.try_send(Command::Stop).ok();
        }
        for running in self.0.into_values() {
            stop(running).await;
        }
    }
}

async fn stop(running: Running) {
    // A command may have been in the way of a first try.
    running.commands.send(Command::Stop).await.ok();
    running.driving.await.ok();
    running.following.finish();
}
