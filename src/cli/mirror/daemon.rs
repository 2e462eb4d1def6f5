//! The mirrors of a daemon, beside its backups.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::app::mirror::MirrorDriver;
use crate::config::{MirrorConfig, MirrorOptions, resolve_mirrors};
use crate::report::progress::Work;
use crate::service::paths;
use crate::wire::OpenState;
use crate::wire::mirror::{MirrorRun, wire};

use super::super::args::{Global, Run};
use super::super::ask::Called;
use super::super::doors::{Door, Doors, Starting};
use super::super::error::CliError;
use super::super::run::Audience;
use super::super::running::{Driven, Kind};
use super::super::sync::{config_file, faulty};

/// For how long a run waits for a bucket; then the daemon tries it again later.
const RETRY_FOR_MS: u64 = 60_000;

/// How a daemon starts its mirrors.
pub struct StartMirror {
    pub state: Arc<OpenState>,
    pub audience: Arc<Audience>,
    pub doors: Doors,
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
        source: config.source.place.url(),
        destination: config.destination.place.to_string(),
    }
}

impl Kind for StartMirror {
    type Config = MirrorConfig;

    fn called(&self, config: &MirrorConfig) -> Called {
        called(config)
    }

    async fn start(&self, config: &MirrorConfig, start: &Starting) -> Result<Driven, CliError> {
        let (from, to) = (&config.source.place, &config.destination.place);
        start.waits_for(format!("an answer from {from} or {to}"));
        let run =
            MirrorRun { take_over: false, retry_for_ms: RETRY_FOR_MS, plan: None, on_event: None };
        let mirror = wire(config, &self.state, &run).await?;
        let (name, source) = (&config.name, &mirror.settings.owner.source);
        tracing::info!(
            backup = name,
            "mirroring {source} to {} every {}",
            config.destination.place,
            config.every
        );
        let following = self.audience.follow(name, &mirror.copier.progress, Work::Copy);
        let (commands, inbox) = mpsc::channel(8);
        self.doors.set(Door::open(called(config), commands.clone()));
        let driving = tokio::spawn(MirrorDriver::new(mirror, config.every.millis()).run(inbox));
        Ok(Driven { commands, driving, following: Some(following) })
    }
}
