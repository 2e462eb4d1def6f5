//! `mirror`, `verify`, and `restore` into a bucket: buckets copied to buckets and compared.

pub mod args;
mod back;
mod daemon;
mod summary;
mod verify;

use std::time::Instant;

use tokio::sync::mpsc;

use crate::app::mirror::End;
use crate::config::{
    Bucket, ConfigFile, MirrorConfig, MirrorOptions, resolve_mirror, resolve_mirrors,
};
use crate::report::progress::Work;
use crate::service::paths;
use crate::service::signals::Wish;
use crate::wire::mirror::{MirrorRun, wire};
use crate::wire::{OpenState, open_state};

use super::args::Global;
use super::ask::no_such_backup;
use super::error::{CliError, Code, Ends};
use super::run::{Audience, end, listen, until_end};
use super::sync::{as_configured, config_file, faulty, plan_sink};

use summary::MirrorSummary;

pub use back::{is_bucket, restore};
pub use daemon::{StartMirror, called, configured, configured_for};
pub use verify::verify;

pub async fn run(global: &Global, mirror: args::Mirror) -> Result<Code, CliError> {
    let started = Instant::now();
    let (mut audience, mut sum) = (Audience::new(global, true), MirrorSummary::default());
    let result = run_all(global, &mirror, &mut audience, &mut sum).await;
    end(global, audience, sum, result, started).await
}

async fn run_all(
    global: &Global,
    mirror: &args::Mirror,
    audience: &mut Audience,
    sum: &mut MirrorSummary,
) -> Result<(Code, Option<CliError>), CliError> {
    let configs = choose(
        global,
        "mirror",
        mirror.source.as_deref(),
        mirror.destination.as_deref(),
        mirror.options.clone(),
    )?;
    let mut wishes = listen()?;
    let state = open_state(global.state_dir.as_deref())?;
    audience.published.follow_file(global).await;
    let run = MirrorRun {
        take_over: mirror.take_over,
        retry_for_ms: mirror.retry_for.millis(),
        plan: global.dry_run.then(|| plan_sink(global.json)),
        on_event: None,
    };
    let mut ends = Ends::new(global.color());
    for config in &configs {
        let one = run_one(config, &state, &run, audience, &mut wishes, sum).await;
        if !ends.take(one) {
            break;
        }
    }
    state.state.close();
    Ok((ends.code, ends.first))
}

/// The mirrors that a command is about: that of its arguments, or those of the file.
fn choose(
    global: &Global,
    verb: &str,
    source: Option<&str>,
    destination: Option<&str>,
    options: MirrorOptions,
) -> Result<Vec<MirrorConfig>, CliError> {
    let flags = global.clone().into_mirror_options(options);
    let home = paths::home();
    if let (Some(source), Some(destination)) = (source, destination) {
        let asked = resolve_mirror(source, destination, flags.clone(), home.as_deref())
            .map_err(|lines| CliError::new(Code::Usage, lines))?;
        let same = |one: &Bucket, asked: &Bucket| {
            one.place == asked.place && one.endpoint_url == asked.endpoint_url
        };
        let is_asked = |one: &MirrorConfig| {
            same(&one.source, &asked.source) && same(&one.destination, &asked.destination)
        };
        let all = |file: &ConfigFile| resolve_mirrors(file, &flags, home.as_deref());
        let configured = as_configured(global, all, is_asked, |one| &one.name);
        return Ok(vec![configured.unwrap_or(asked)]);
    }
    let no_mirror = |what: String| {
        let hint = format!("keepwatch {verb} s3://source s3://destination");
        CliError::new(Code::Usage, what).hint(hint)
    };
    let Some(file) = config_file(global)? else {
        return Err(no_mirror(match source {
            Some(source) if source.contains(':') => format!("{source:?} has no destination"),
            Some(name) => format!("there is no mirror {name:?}: no configuration was found"),
            None => format!("{verb} needs a source and a destination"),
        }));
    };
    let mut configs = resolve_mirrors(&file, &flags, home.as_deref())
        .map_err(|faults| faulty(&faults, global))?;
    let names: Vec<String> = configs.iter().map(|config| config.name.clone()).collect();
    if let Some(name) = source {
        configs.retain(|config| config.name == name);
        if configs.is_empty() && !names.is_empty() && !name.contains("://") {
            return Err(no_such_backup(name, names.iter().map(String::as_str)));
        }
    }
    match (configs.is_empty(), source) {
        (false, _) => Ok(configs),
        (true, Some(source)) => Err(no_mirror(format!("{source:?} has no destination"))),
        (true, None) => Err(no_mirror(format!("there is no mirror in {}", file.path))),
    }
}

async fn run_one(
    config: &MirrorConfig,
    state: &OpenState,
    run: &MirrorRun,
    audience: &Audience,
    wishes: &mut mpsc::Receiver<Wish>,
    sum: &mut MirrorSummary,
) -> Result<(Code, Option<CliError>), CliError> {
    let mirror = wire(config, state, run).await?;
    let following = audience.follow(&config.name, &mirror.copier.progress, Work::Copy);
    let end = until_end(mirror.run(), wishes, || {
        tracing::info!("stopping; what is copied stays, run it again to go on");
        mirror.copier.cancel.cancel();
    });
    let end = end.await;
    following.finish();
    let now = mirror.clock.now();
    let unclaimed = mirror.state.tally(now).await?.unclaimed;
    let code = sum.add(&mirror.copier, mirror.held(), unclaimed);
    Ok(ended(end, code))
}

/// The code and the error of a run's end.
fn ended(end: End, code: Code) -> (Code, Option<CliError>) {
    match end {
        End::Done { .. } => (code, None),
        End::Interrupted => {
            let error = CliError::new(Code::Interrupted, "interrupted")
                .hint("run it again to go on: what is copied is not copied again");
            (code.and(Code::Interrupted), Some(error))
        }
        End::Failed(failure) => {
            let error = CliError::from(failure);
            (code.and(error.code), Some(error))
        }
    }
}
