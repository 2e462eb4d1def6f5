//! `sync`: one pass over each backup, then a summary and an exit code.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::app::backup::PlanSink;
use crate::app::control::Command;
use crate::app::deletions;
use crate::app::status::Summary;
use crate::app::{Driver, PlannedAction};
use crate::config::{
    BackupConfig, BackupOptions, ConfigFile, Defaults, Faults, real_path, resolve, resolve_one,
};
use crate::engine::Mode;
use crate::report::progress::Work;
use crate::report::text;
use crate::service::signals::Wish;
use crate::service::{paths, socket};
use crate::wire::{OpenState, RunOptions, check, find, open_state_of, wire};

use super::args::{Global, Run, Sync};
use super::ask::{Called, no_such_backup};
use super::doors::{Desk, Door, Doors, Role, Starting};
use super::error::{CliError, Code, Ends, of_exit};
use super::opening::told_to_stop;
use super::out::print_line;
use super::run::{Audience, code_of, conclude, list_failed, list_more, listen, until_end};

/// Failed paths that are listed by name.
const LISTED_MAX: usize = 20;

pub async fn run(global: &Global, sync: Sync) -> Result<Code, CliError> {
    let started = Instant::now();
    let mut audience = Audience::new(global, false);
    let result = run_all(global, &sync, &mut audience).await;
    let (mut summary, code, error) = match result {
        Ok((summary, code, error)) => (summary, code, error),
        Err(error) => (Summary::default(), error.code, Some(error)),
    };
    conclude(&mut summary, code, error.as_ref(), started);
    if global.json {
        let line = serde_json::to_string(&summary).unwrap_or_default();
        print_line(&line);
    } else if !global.quiet
        && !global.dry_run
        && error.as_ref().is_none_or(|e| e.code == Code::Interrupted)
    {
        print_line(&text::summary(&summary));
    }
    audience.leave(code).await;
    match error {
        Some(error) => Err(CliError { code, ..error }),
        None => Ok(code),
    }
}

async fn run_all(
    global: &Global,
    sync: &Sync,
    audience: &mut Audience,
) -> Result<(Summary, Code, Option<CliError>), CliError> {
    let configs = choose(global, &sync.run, Defaults::ONE_SHOT, true)?;
    let mut wishes = listen()?;
    let state = open_state_of(global.state_dir.as_deref(), &configs)?;
    audience.published.follow_file(global).await;
    let options = RunOptions {
        mode: Mode::OneShot { retry_for_ms: sync.retry_for.millis() },
        take_over: sync.run.take_over,
        failed_only: sync.failed_only,
        new_bucket: sync.run.new_bucket,
        plan: global.dry_run.then(|| plan_sink(global.json)),
    };
    let (mut sum, mut ends) = (Summary::default(), Ends::new(global.color()));
    let doors = Doors::default();
    let serving = serve(&state, &doors);
    for config in &configs {
        let run = OneRun { global, state: &state, options: &options, audience, doors: &doors };
        let one = run.drive(config, &mut wishes).await;
        doors.keep(|_| false);
        let one = one.map(|(summary, code, error)| {
            sum.add(&summary);
            (code, error)
        });
        if !ends.take(one) {
            break;
        }
    }
    if let Some(serving) = serving {
        serving.abort();
        serving.await.ok();
    }
    state.state.close();
    Ok((sum, ends.code, ends.first))
}

/// Tells whoever asks how far this run is, for the state is in use.
fn serve(state: &OpenState, doors: &Doors) -> Option<JoinHandle<()>> {
    let path = paths::control_socket(&state.folder);
    match socket::Listener::bind(&path) {
        Ok(listener) => {
            let desk = Desk { role: Role::Sync, state: state.state.clone(), doors: doors.clone() };
            Some(tokio::spawn(desk.serve(listener)))
        }
        // The run itself does not need it.
        Err(error) => {
            tracing::warn!("`status` has no answer meanwhile: {}: {error}", path.display());
            None
        }
    }
}

/// The pair of the file that has the places of the arguments. Its options hold, too: what is kept
/// there must not be deleted because it is asked for by its places.
pub fn as_configured<C>(
    global: &Global,
    resolve: impl FnOnce(&ConfigFile) -> Result<Vec<C>, Faults>,
    is_asked: impl Fn(&C) -> bool,
    name: impl Fn(&C) -> &str,
) -> Option<C> {
    let file = config_file(global).ok()??;
    let found = resolve(&file).ok()?.into_iter().find(is_asked)?;
    let (name, path) = (name(&found), &file.path);
    tracing::info!(backup = name, "these are its places: its options in {path} hold");
    Some(found)
}

/// The backups that a command is about: those of its arguments, or those of the file.
pub fn choose(
    global: &Global,
    run: &Run,
    defaults: Defaults,
    one_shot: bool,
) -> Result<Vec<BackupConfig>, CliError> {
    let flags = global.clone().into_options(run.options.clone());
    let home = paths::home();
    if let (Some(source), Some(destination)) = (&run.source, &run.destination) {
        let asked = from_arguments(source, destination, flags.clone(), defaults, home.as_deref())?;
        let is_asked = |one: &BackupConfig| {
            one.source == asked.source
                && one.destination == asked.destination
                && one.endpoint_url == asked.endpoint_url
        };
        let all = |file: &ConfigFile| resolve(file, &flags, defaults, home.as_deref());
        let configured = as_configured(global, all, is_asked, |one| &one.name);
        return Ok(vec![configured.unwrap_or(asked)]);
    }
    let file = config_file(global)?;
    let Some(source) = &run.source else {
        return match file {
            Some(file) => {
                let configs = resolve(&file, &flags, defaults, home.as_deref())
                    .map_err(|faults| faulty(&faults, global))?;
                if one_shot && configs.is_empty() {
                    let message = format!("there is no backup in {}, only mirrors", file.path);
                    return Err(CliError::new(Code::NeedsPerson, message)
                        .hint("run them with: keepwatch mirror"));
                }
                Ok(configs)
            }
            None if one_shot => {
                Ok(vec![from_arguments(".", "default", flags, defaults, home.as_deref())?])
            }
            None => Err(no_config()),
        };
    };
    // A configured backup by its name, or by its folder.
    let mut names = vec![];
    let folder = std::path::absolute(source).map(|folder| real_path(&folder));
    if let Some(file) = file {
        let mut configs = resolve(&file, &flags, defaults, home.as_deref())
            .map_err(|faults| faulty(&faults, global))?;
        names.extend(configs.iter().map(|config| config.name.clone()));
        let is_meant = |config: &BackupConfig| {
            config.name == *source || folder.as_ref().is_ok_and(|folder| config.source == *folder)
        };
        configs.retain(is_meant);
        if !configs.is_empty() {
            return Ok(configs);
        }
    }
    let is_there = folder.is_ok_and(|folder| folder.exists());
    Err(match is_there || names.is_empty() {
        true => no_destination(source),
        false => no_such_backup(source, names.iter().map(String::as_str)),
    })
}

/// A new bucket is made for whoever says so, never for a word that was forgotten.
fn no_destination(source: &str) -> CliError {
    CliError::new(
        Code::Usage,
        format!("{source:?} has no destination: no backup of it is configured"),
    )
    .hint(format!("write where it goes: {source} s3://bucket/prefix"))
    .hint(format!("or, for a new bucket of its own: {source} default"))
}

fn from_arguments(
    source: &str,
    destination: &str,
    flags: BackupOptions,
    defaults: Defaults,
    home: Option<&Path>,
) -> Result<BackupConfig, CliError> {
    let absolute = std::path::absolute(source)
        .map_err(|e| CliError::new(Code::Usage, format!("{source:?} is no path")).caused_by(&e))?;
    let name = absolute.file_name().map_or_else(
        || "root".to_owned(),
        |name| crate::model::Escaped(name.as_encoded_bytes()).to_string(),
    );
    resolve_one(&name, Some(&absolute), destination, flags, defaults, home)
        .map_err(|lines| CliError::new(Code::Usage, lines))
}

fn no_config() -> CliError {
    let places: Vec<String> =
        paths::config_files().iter().map(|path| path.display().to_string()).collect();
    CliError::new(Code::NeedsPerson, "there is no configuration file")
        .hint(format!("keepwatch looks for {}", places.join(" and ")))
        .hint("`keepwatch config example` prints one; or: keepwatch watch SOURCE DESTINATION")
}

/// The configuration file that was named, or the first that is found.
pub fn config_file(global: &Global) -> Result<Option<ConfigFile>, CliError> {
    let found = match &global.config {
        Some(path) => Some(path.clone()),
        None => paths::config_files().into_iter().find(|path| path.exists()),
    };
    let Some(path) = found else { return Ok(None) };
    let text = std::fs::read_to_string(&path).map_err(|e| {
        CliError::new(Code::NeedsPerson, format!("cannot read {}", path.display()))
            .caused_by(&e)
            .hint("`keepwatch config example` prints a file to begin with")
    })?;
    let file = crate::config::read(&path.display().to_string(), &text);
    file.map(Some).map_err(|faults| faulty(&faults, global))
}

pub fn faulty(faults: &Faults, global: &Global) -> CliError {
    let count = text::count(faults.faults.len() as u64, "fault");
    CliError::new(Code::NeedsPerson, format!("{} has {count}", faults.path))
        .detail(faults.render(global.color()))
        .hint("`keepwatch config check` tells them again; nothing was started")
}

pub fn plan_sink(json: bool) -> PlanSink {
    Arc::new(move |planned: PlannedAction| {
        let PlannedAction { action, path, why } = planned;
        if json {
            let line = serde_json::json!({ "action": action, "path": path, "why": why });
            print_line(&line.to_string());
        } else {
            print_line(&format!("{action:<7} {path}  ({why})"));
        }
    })
}

/// What the runs of one command share.
struct OneRun<'a> {
    global: &'a Global,
    state: &'a OpenState,
    options: &'a RunOptions,
    audience: &'a Audience,
    doors: &'a Doors,
}

impl OneRun<'_> {
    async fn drive(
        &self,
        config: &BackupConfig,
        wishes: &mut mpsc::Receiver<Wish>,
    ) -> Result<(Summary, Code, Option<CliError>), CliError> {
        let global = self.global;
        let start = Starting::begin();
        start.waits_for(format!("its source {}", config.source.display()));
        self.doors.set(Door::opening(Called::of(config), start));
        check(config, &self.state.folder)?;
        let found = tokio::select! {
            found = find(config, self.options.mode) => found?,
            // Its disk may not answer.
            () = told_to_stop(wishes) => {
                return Err(CliError::new(Code::Interrupted, "interrupted"));
            }
        };
        let wired = wire(config, found, self.state, self.options).await?;
        let following = self.audience.follow(&config.name, &wired.backup.progress, Work::Keep);
        let (commands, inbox) = mpsc::channel(8);
        self.doors.set(Door::of(&wired, commands.clone()));
        let backup = wired.backup;
        let driving = Driver::new(backup.clone(), None).run(inbox);
        let ended = until_end(driving, wishes, || {
            tracing::info!("stopping: waiting for what is in flight");
            commands.try_send(Command::Stop).ok();
        });
        let ended = ended.await;
        following.finish();
        let tally = backup.state.tally(backup.clock.now()).await?;
        let mut summary = Summary::new(backup.progress.counts(), backup.store.requests().into());
        summary.held = ended.held;
        let planned = summary.deleted + summary.tagged;
        if self.options.plan.is_some() && planned > 0 {
            let hold = deletions::would_hold(&backup, planned, summary.scanned).await?;
            if let Some(hold) = hold {
                let what = text::count(hold.pending, "deletion");
                tracing::warn!("{what} would be held: {}", hold.why());
                summary.held = hold.pending;
                let left = planned.saturating_sub(hold.pending);
                // One policy holds: what is deleted is not tagged.
                summary.deleted = summary.deleted.min(left);
                summary.tagged = summary.tagged.min(left);
            }
        }
        summary.unclaimed = tally.unclaimed;
        if !global.quiet {
            list_failed(&ended.failed, LISTED_MAX);
            list_more(ended.failed.len() as u64, LISTED_MAX);
        }
        let code = code_of(&summary);
        let error = of_exit(ended.exit);
        let code = error.as_ref().map_or(code, |error| code.and(error.code));
        Ok((summary, code, error))
    }
}
