//! `restore` and `--restore`: a backup brought back into a folder, then a summary and an exit code.

pub mod args;
mod ls;
mod moment;
mod summary;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::app::restore::{End, Filter, Restore, RestoreSettings};
use crate::config::{
    BackupConfig, BackupOptions, Defaults, Destination, real_path, resolve, resolve_one,
};
use crate::model::RelPath;
use crate::report::progress;
use crate::service::lock::Lock;
use crate::service::signals::Wish;
use crate::service::{machine, paths};
use crate::wire::{RestorePlan, lock_state, patterns, restore, state_folder};

use super::args::Global;
use super::ask::no_such_backup;
use super::error::{CliError, Code, Ends};
use super::mirror;
use super::run::{Audience, end, listen, until_end};
use super::sync::{config_file, faulty, plan_sink};

use args::RestoreOptions;
use summary::RestoreSummary;

pub use ls::ls;

/// One backup to bring back.
struct Job {
    config: BackupConfig,
    target: PathBuf,
}

/// What is to be done, and the lock that keeps others away meanwhile.
struct Work {
    jobs: Vec<Job>,
    _lock: Option<Lock>,
}

/// `restore SOURCE TARGET`: no configuration, no state.
pub async fn run(global: &Global, restore: args::Restore) -> Result<Code, CliError> {
    let args::Restore { source, target, create_bucket, options, source_side } = restore;
    if let Some(bucket) = target.to_str().filter(|text| mirror::is_bucket(text)) {
        return mirror::restore(global, &source, bucket, create_bucket, source_side, &options)
            .await;
    }
    run_jobs(global, &options, || {
        if create_bucket {
            return Err(CliError::new(Code::Usage, "--create-bucket makes buckets, not folders")
                .hint("a folder is made when it is not there"));
        }
        let config = from_argument(global, &source, &options)?;
        Ok(Work { jobs: vec![Job { config, target }], _lock: None })
    })
    .await
}

/// `--restore [NAME...] [--to DIR]`: the configured backups.
pub async fn run_configured(global: &Global, asked: &args::Configured) -> Result<Code, CliError> {
    let args::Configured { restore, to, options } = asked;
    let (names, to) = (restore.as_deref().unwrap_or_default(), to.as_deref());
    run_jobs(global, options, || {
        let jobs = configured(global, names, to, options)?;
        // Over the sources themselves, no daemon may watch meanwhile.
        let lock = match to {
            None if !global.dry_run => Some(lock_state(global.state_dir.as_deref())?.1),
            _ => None,
        };
        Ok(Work { jobs, _lock: lock })
    })
    .await
}

/// What is restored among the notes of a backup would take their place.
fn refuse_state(global: &Global, target: &Path) -> Result<(), CliError> {
    let state = state_folder(global.state_dir.as_deref())?;
    if !real_path(target).starts_with(&state) || !state.join(crate::state::FILE_NAME).exists() {
        return Ok(());
    }
    let message = format!("{} is in the state folder {}", target.display(), state.display());
    Err(CliError::new(Code::NeedsPerson, message).hint("name another folder to restore into"))
}

fn flags(global: &Global, options: &RestoreOptions) -> BackupOptions {
    global.clone().into_options(BackupOptions {
        transfers: options.transfers,
        bandwidth: options.bandwidth,
        ..BackupOptions::default()
    })
}

/// The place that an argument names.
fn from_argument(
    global: &Global,
    source: &str,
    options: &RestoreOptions,
) -> Result<BackupConfig, CliError> {
    let (flags, home) = (flags(global, options), paths::home());
    let config = resolve_one("restore", None, source, flags, Defaults::ONE_SHOT, home.as_deref())
        .map_err(|lines| CliError::new(Code::Usage, lines))?;
    if config.destination == Destination::Default {
        return Err(CliError::new(Code::Usage, "`default` does not say which bucket")
            .hint("name it: keepwatch restore s3://bucket DIR"));
    }
    Ok(config)
}

fn configured(
    global: &Global,
    names: &[String],
    to: Option<&Path>,
    options: &RestoreOptions,
) -> Result<Vec<Job>, CliError> {
    let file = config_file(global)?.ok_or_else(|| {
        CliError::new(Code::NeedsPerson, "there is no configuration file")
            .hint("without one: keepwatch restore s3://bucket/prefix DIR")
    })?;
    let (flags, home) = (flags(global, options), paths::home());
    let configs = resolve(&file, &flags, Defaults::ONE_SHOT, home.as_deref())
        .map_err(|faults| faulty(&faults, global))?;
    if let Some(unknown) = names.iter().find(|name| configs.iter().all(|c| c.name != **name)) {
        let known: Vec<String> = configs.iter().map(|config| config.name.clone()).collect();
        return Err(no_such_backup(unknown, known.iter().map(String::as_str)));
    }
    let chosen: Vec<BackupConfig> =
        configs.into_iter().filter(|c| names.is_empty() || names.contains(&c.name)).collect();
    let several = chosen.len() > 1;
    if let Some(folder) = to.filter(|_| several && !global.dry_run) {
        make_folder(folder)?;
    }
    chosen
        .into_iter()
        .map(|config| {
            if config.destination == Destination::Default {
                let message = format!("the destination of {} is `default`", config.name);
                return Err(CliError::new(Code::NeedsPerson, message)
                    .hint("`keepwatch status` shows its bucket")
                    .hint("then: keepwatch restore s3://bucket DIR"));
            }
            let target = match to {
                Some(folder) if several => folder.join(&config.name),
                Some(folder) => folder.to_owned(),
                None => config.source.clone(),
            };
            Ok(Job { config, target })
        })
        .collect()
}

/// Makes the folder that the folders of several backups come into.
fn make_folder(folder: &Path) -> Result<(), CliError> {
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            let message = format!("cannot make the folder {}", folder.display());
            Err(CliError::new(Code::NeedsPerson, message)
                .caused_by(&error)
                .hint("check the path, or make the folder above it first"))
        }
        _ => Ok(()),
    }
}

async fn run_jobs(
    global: &Global,
    options: &RestoreOptions,
    work: impl FnOnce() -> Result<Work, CliError>,
) -> Result<Code, CliError> {
    let started = Instant::now();
    let (mut audience, mut sum) = (Audience::new(global, true), RestoreSummary::default());
    let result = run_all(global, options, work, &mut audience, &mut sum).await;
    end(global, audience, sum, result, started).await
}

async fn run_all(
    global: &Global,
    options: &RestoreOptions,
    work: impl FnOnce() -> Result<Work, CliError>,
    audience: &mut Audience,
    sum: &mut RestoreSummary,
) -> Result<(Code, Option<CliError>), CliError> {
    let work = work()?;
    work.jobs.iter().try_for_each(|job| refuse_state(global, &job.target))?;
    let mut wishes = listen()?;
    audience.published.follow_file(global).await;
    let mut ends = Ends::new(global.color());
    for job in &work.jobs {
        if !ends.take(run_one(global, options, job, audience, &mut wishes, sum).await) {
            break;
        }
    }
    Ok((ends.code, ends.first))
}

async fn run_one(
    global: &Global,
    options: &RestoreOptions,
    job: &Job,
    audience: &Audience,
    wishes: &mut mpsc::Receiver<Wish>,
    sum: &mut RestoreSummary,
) -> Result<(Code, Option<CliError>), CliError> {
    let restore = Arc::new(wire_one(global, options, job).await?);
    let work = progress::Work::Restore;
    let following = audience.follow(&job.config.name, &restore.progress, work);
    let end = until_end(restore.run(), wishes, || {
        tracing::info!("stopping; what is complete stays, run it again to go on");
        restore.cancel.cancel();
    });
    let end = end.await;
    following.finish();
    let code = sum.add(&restore.tally.counts(), restore.reader.requests());
    Ok(match end {
        End::Done => (code, None),
        End::Interrupted => {
            let error = CliError::new(Code::Interrupted, "interrupted")
                .hint("run it again to go on: what is complete is not fetched again");
            (code.and(Code::Interrupted), Some(error))
        }
        End::Held(failure) => {
            let error = CliError { code: Code::Held, ..CliError::from(failure) };
            (code.and(Code::Held), Some(error))
        }
        End::Failed(failure) => {
            let error = CliError::from(failure);
            (code.and(error.code), Some(error))
        }
    })
}

async fn wire_one(
    global: &Global,
    options: &RestoreOptions,
    job: &Job,
) -> Result<Restore, CliError> {
    let target = std::path::absolute(&job.target).map_err(|e| {
        let message = format!("cannot use {}", job.target.display());
        CliError::new(Code::NeedsPerson, message).caused_by(&e)
    })?;
    let rules = |include: &[String], exclude: &[String]| {
        patterns(include.to_owned(), exclude.to_owned())
            .map_err(|error| CliError { code: Code::Usage, ..error.into() })
    };
    let patterns = rules(&options.include, &options.exclude)?;
    let mut includes: Vec<(String, Filter)> = vec![];
    for include in &options.include {
        let rules = rules(std::slice::from_ref(include), &[])?;
        let matches: Filter = Arc::new(move |path, is_folder| rules.lets_in(path, is_folder));
        includes.push((include.clone(), matches));
    }
    let plan = RestorePlan {
        config: job.config.clone(),
        target,
        patterns,
        settings: settings(options, job.config.transfers)?,
        plan: global.dry_run.then(|| plan_sink(global.json)),
    };
    let mut restore = restore(plan).await?;
    restore.includes = includes;
    Ok(restore)
}

/// A path below the backup, as typed.
pub fn within(path: Option<&PathBuf>) -> Result<Option<RelPath>, CliError> {
    use std::os::unix::ffi::OsStrExt as _;
    let Some(path) = path else { return Ok(None) };
    let bytes = path.as_os_str().as_bytes();
    let bytes = bytes.strip_suffix(b"/").unwrap_or(bytes);
    match RelPath::new(bytes) {
        Ok(path) if !path.is_root() => Ok(Some(path)),
        Ok(_) => Ok(None),
        Err(error) => {
            let message = format!("--path {} is no path below the backup", path.display());
            Err(CliError::new(Code::Usage, message)
                .caused_by(&error)
                .hint("write it as it is below the source: photos/2026"))
        }
    }
}

fn settings(options: &RestoreOptions, transfers: usize) -> Result<RestoreSettings, CliError> {
    Ok(RestoreSettings {
        at: options.at.map(|at| at.0),
        within: within(options.path.as_ref())?,
        overwrite: options.overwrite.into(),
        delete: options.delete,
        max_delete: options.max_delete,
        owner: options.owner || (!options.no_owner && machine::is_root()),
        setuid: options.setuid,
        outside_links: options.outside_links,
        transfers,
        tier: options.tier.into(),
        days: options.days,
        wait: !options.no_wait,
        poll_ms: options.poll.millis().max(100),
        retry_for_ms: options.retry_for.millis(),
    })
}
