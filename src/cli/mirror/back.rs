//! `restore SOURCE BUCKET`: a backup brought back into a bucket.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::app::copy::back::{BackSettings, BringBack};
use crate::app::mirror::End;
use crate::app::owner::whose;
use crate::config::{MirrorConfig, MirrorOptions, Pattern, resolve_mirror};
use crate::report::progress::Work;
use crate::service::paths;
use crate::wire::mirror::{RestoreNotes, connect, copier, filter, scratch};

use super::super::args::Global;
use super::super::error::{CliError, Code};
use super::super::restore::args::RestoreOptions;
use super::super::restore::within;
use super::super::run::{Audience, end, listen, until_end};
use super::super::sync::plan_sink;
use super::args::SourceSide;
use super::ended;
use super::summary::MirrorSummary;

/// Whether a target is a bucket by the way it is written.
pub fn is_bucket(text: &str) -> bool {
    let is_path = text.starts_with(['/', '.', '~']);
    !is_path && (text.contains("://") || text.contains("::"))
}

pub async fn restore(
    global: &Global,
    source: &str,
    target: &str,
    create_bucket: bool,
    side: SourceSide,
    options: &RestoreOptions,
) -> Result<Code, CliError> {
    let started = Instant::now();
    let (mut audience, mut sum) = (Audience::new(global, true), MirrorSummary::default());
    let flags = flags(create_bucket, side, options)?;
    let asked = Asked { global, source, target, flags, options };
    let result = asked.bring_back(&mut audience, &mut sum).await;
    end(global, audience, sum, result, started).await
}

struct Asked<'a> {
    global: &'a Global,
    source: &'a str,
    target: &'a str,
    flags: MirrorOptions,
    options: &'a RestoreOptions,
}

fn flags(
    create_bucket: bool,
    side: SourceSide,
    options: &RestoreOptions,
) -> Result<MirrorOptions, CliError> {
    for (option, is_given, why) in [
        ("delete", options.delete, "a bucket keeps what the backup does not have"),
        ("owner", options.owner, "objects keep all of their metadata"),
        ("no-owner", options.no_owner, "objects keep all of their metadata"),
        ("setuid", options.setuid, "objects keep all of their metadata"),
        ("outside-links", options.outside_links, "links are objects as they are in a bucket"),
    ] {
        if is_given {
            let message = format!("--{option} belongs to a restore into a folder");
            return Err(CliError::new(Code::Usage, message).hint(why));
        }
    }
    let patterns = |texts: &[String]| -> Result<Option<Vec<Pattern>>, CliError> {
        let read = texts.iter().map(|text| text.parse::<Pattern>());
        let read: Result<Vec<Pattern>, String> = read.collect();
        let read = read.map_err(|error| CliError::new(Code::Usage, error))?;
        Ok((!read.is_empty()).then_some(read))
    };
    let set = MirrorOptions {
        include: patterns(&options.include)?,
        exclude: patterns(&options.exclude)?,
        transfers: options.transfers,
        bandwidth: options.bandwidth,
        create_bucket: create_bucket.then_some(true),
        ..MirrorOptions::default()
    };
    Ok(side.into_options(set))
}

impl Asked<'_> {
    async fn bring_back(
        &self,
        audience: &mut Audience,
        sum: &mut MirrorSummary,
    ) -> Result<(Code, Option<CliError>), CliError> {
        let (global, options) = (self.global, self.options);
        let flags = global.clone().into_mirror_options(self.flags.clone());
        let config = resolve_mirror(self.source, self.target, flags, paths::home().as_deref())
            .map_err(|lines| CliError::new(Code::Usage, lines))?;
        let config = MirrorConfig { name: "restore".to_owned(), ..config };
        let mut wishes = listen()?;
        audience.published.follow_file(global).await;
        let sides = connect(&config, global.dry_run).await?;
        if let Some(owner) = whose(&*sides.target).await {
            tracing::warn!("the target is the destination of {owner}: its next pass sees to this");
        }
        let notes = match global.dry_run {
            true => None,
            false => RestoreNotes::open(&config, &sides, global.state_dir.as_deref())
                .await
                .inspect_err(|why| {
                    tracing::warn!("a large copy that is cut short begins anew next time: {why}");
                })
                .ok(),
        };
        let journal = notes.as_ref().map(RestoreNotes::journal);
        let copier = copier(&config, &sides, journal, options.retry_for.millis(), None);
        let settings = BackSettings {
            at: options.at.map(|at| at.0),
            within: within(options.path.as_ref())?,
            overwrite: options.overwrite.into(),
            create_bucket: config.create_bucket,
            goes_on: notes.as_ref().is_some_and(|notes| notes.goes_on),
            tier: options.tier.into(),
            days: options.days,
            wait: !options.no_wait,
            poll_ms: options.poll.millis().max(100),
        };
        let wanted = filter(&config.include, &config.exclude)?;
        let plan = global.dry_run.then(|| plan_sink(global.json));
        let scratch = scratch(&std::env::temp_dir());
        let back = Arc::new(BringBack::new(settings, copier.clone(), scratch, wanted, plan));
        let following = audience.follow("restore", &copier.progress, Work::Copy);
        let end = until_end(back.run(), &mut wishes, || {
            tracing::info!("stopping; what is copied stays, run it again to go on");
            copier.cancel.cancel();
        });
        let end = end.await;
        following.finish();
        if let (End::Done { .. }, Some(notes), false) = (&end, notes, copier.leaves_open()) {
            notes.remove();
        }
        let mut code = sum.add(&copier, 0, 0);
        let get = |counter: &std::sync::atomic::AtomicU64| Some(counter.load(Ordering::Relaxed));
        sum.left_out = get(&back.tally.left_out);
        sum.kept = get(&back.tally.kept);
        sum.frozen = get(&back.tally.frozen);
        sum.untold = Some(copier.untold.count());
        if sum.frozen > Some(0) || sum.untold > Some(0) {
            code = code.and(Code::Skipped);
        }
        Ok(ended(end, code))
    }
}
