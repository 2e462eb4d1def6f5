//! What a daemon runs by its configuration, backups and mirrors alike: started, kept or changed by
//! a new configuration, stopped. What they do is no matter of this file.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::app::control::Command;
use crate::app::{CONDITION, Ended};

use super::ask::Called;
use super::doors::{Door, Doors};
use super::error::CliError;
use super::run::Following;

/// One that is driven, and how to reach its driver.
pub struct Driven {
    pub commands: mpsc::Sender<Command>,
    pub driving: JoinHandle<Ended>,
    pub following: Following,
}

/// How those of one kind are started.
pub trait Kind {
    /// What is configured of one.
    type Config: Clone + PartialEq;

    /// What a person may call it.
    fn called(&self, config: &Self::Config) -> Called;

    /// Puts one together and has it driven; its door is open then.
    async fn start(&self, config: &Self::Config) -> Result<Driven, CliError>;
}

struct Running<C> {
    config: C,
    driven: Driven,
}

/// Those of one kind that run, by their names.
pub struct Group<C>(BTreeMap<String, Running<C>>);

/// What a new configuration asks to start: with what ran under that name before, if anything did.
pub type Wanted<C> = Vec<(C, Option<C>)>;

/// What came of a new configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub kept: usize,
    pub ended: usize,
    pub started: usize,
    pub failed: usize,
}

impl std::ops::Add for Changes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            kept: self.kept + other.kept,
            ended: self.ended + other.ended,
            started: self.started + other.started,
            failed: self.failed + other.failed,
        }
    }
}

impl<C: Clone + PartialEq> Group<C> {
    /// Starts what can be started, at the same time: one that belongs to another machine does not
    /// keep the others from running. Answers with the first error too.
    pub async fn start(
        kind: &impl Kind<Config = C>,
        doors: &Doors,
        configs: Vec<C>,
    ) -> (Self, Option<CliError>) {
        let starting = configs.into_iter().map(|config| start(kind, doors, config));
        let (mut group, mut first) = (BTreeMap::new(), None);
        for started in join_all(starting).await {
            match started {
                Ok((name, running)) => {
                    group.insert(name, running);
                }
                Err((_, error)) => first = first.or(Some(error)),
            }
        }
        (Self(group), first)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Returns when a driver has ended by itself, which none should.
    pub async fn died(&mut self) {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let all = self.0.values_mut().map(|running| &mut running.driven.driving);
        let (ended, ..) = futures_util::future::select_all(all).await;
        if let Err(error) = ended {
            tracing::error!(%error, "a driver ended unexpectedly");
        }
    }

    /// Ends what is gone from the configuration or was changed in it; the others go on. Answers
    /// with what is to be started.
    pub async fn end_changed(
        &mut self,
        kind: &impl Kind<Config = C>,
        configs: Vec<C>,
    ) -> (Wanted<C>, Changes) {
        let (mut gone, mut ending, mut wanted) = (std::mem::take(&mut self.0), vec![], vec![]);
        for config in configs {
            let name = kind.called(&config).name;
            match gone.remove(&name) {
                Some(running) if running.config == config => {
                    self.0.insert(name, running);
                }
                Some(running) => {
                    wanted.push((config, Some(running.config.clone())));
                    ending.push(running);
                }
                None => wanted.push((config, None)),
            }
        }
        ending.extend(gone.into_values());
        let changes = Changes { kept: self.0.len(), ended: ending.len(), ..Changes::default() };
        stop_all(ending).await;
        (wanted, changes)
    }

    /// Starts what is new or was changed. One that ran and cannot be started as it is written now
    /// goes on as it was.
    pub async fn start_new(
        &mut self,
        kind: &impl Kind<Config = C>,
        doors: &Doors,
        wanted: Wanted<C>,
        mut changes: Changes,
    ) -> Changes {
        for (config, former) in wanted {
            let running = match start(kind, doors, config).await {
                Ok(running) => {
                    changes.started += 1;
                    Some(running)
                }
                Err(_) => {
                    changes.failed += 1;
                    let again = match former {
                        Some(former) => start(kind, doors, former).await.ok(),
                        None => None,
                    };
                    again.inspect(|(name, _)| {
                        changes.kept += 1;
                        changes.ended -= 1;
                        tracing::warn!(target: CONDITION, backup = name, "goes on as it was");
                    })
                }
            };
            self.0.extend(running);
        }
        changes
    }

    /// Stops all, and waits for what is in flight.
    pub async fn stop(self) {
        stop_all(self.0.into_values().collect()).await;
    }
}

async fn start<K: Kind>(
    kind: &K,
    doors: &Doors,
    config: K::Config,
) -> Result<(String, Running<K::Config>), (K::Config, CliError)> {
    let called = kind.called(&config);
    let name = called.name.clone();
    doors.set(Door::opening(called.clone()));
    match kind.start(&config).await {
        Ok(driven) => Ok((name, Running { config, driven })),
        Err(error) => {
            let why = error.with_hints();
            tracing::error!(target: CONDITION, backup = name, "not started: {why}");
            doors.set(Door::shut(called, error.clone()));
            Err((config, error))
        }
    }
}

async fn stop_all<C>(all: Vec<Running<C>>) {
    for running in &all {
        running.driven.commands.try_send(Command::Stop).ok();
    }
    for Running { driven, .. } in all {
        // A command may have been in the way of a first try.
        driven.commands.send(Command::Stop).await.ok();
        driven.driving.await.ok();
        driven.following.finish();
    }
}
