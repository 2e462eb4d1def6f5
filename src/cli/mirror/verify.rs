//! `verify SOURCE DESTINATION`: two buckets compared, and nothing written.

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use crate::app::mirror::{Difference, Report, Verify};
use crate::config::MirrorOptions;
use crate::model::Key;
use crate::report::progress::Work;
use crate::report::text;
use crate::wire::mirror::{connect, copier, filter};

use super::super::args::Global;
use super::super::error::{CliError, Code};
use super::super::out::print_line;
use super::super::run::{Audience, conclude, listen, until_end};
use super::summary::MirrorSummary;
use super::{args, choose, ended};

pub async fn verify(global: &Global, options: args::Verify) -> Result<Code, CliError> {
    let started = Instant::now();
    let (audience, mut sum) = (Audience::new(global, false), MirrorSummary::default());
    let result = compare(global, options, &audience, &mut sum).await;
    let (report, code, error) = match result {
        Ok((report, code, error)) => (report, code, error),
        Err(error) => (Report::default(), error.code, Some(error)),
    };
    sum.common.scanned = report.scanned;
    sum.common.unchanged = report.same;
    sum.common.verified = report.same;
    sum.common.tagged = report.tagged;
    conclude(&mut sum.common, code, error.as_ref(), started);
    if global.json {
        let mut line = serde_json::to_value(&sum).unwrap_or_default();
        for (name, number) in [
            ("missing", report.missing),
            ("differing", report.differing),
            ("unknown", report.unknown),
            ("extra", report.extra),
        ] {
            line[name] = number.into();
        }
        print_line(&line.to_string());
    } else if !global.quiet && error.is_none() {
        print_line(&words(&report));
    }
    match error {
        Some(error) => Err(CliError { code, ..error }),
        None => Ok(code),
    }
}

fn words(report: &Report) -> String {
    let mut parts = vec![format!("{} the same", text::count(report.same, "object"))];
    for (number, what) in [
        (report.missing, "missing in the destination"),
        (report.differing, "different"),
        (report.unknown, "of which nobody can tell"),
        (report.extra, "only in the destination"),
        (report.tagged, "tagged as deleted there"),
    ] {
        if number > 0 {
            parts.push(format!("{} {what}", text::grouped(number)));
        }
    }
    parts.join(", ")
}

async fn compare(
    global: &Global,
    options: args::Verify,
    audience: &Audience,
    sum: &mut MirrorSummary,
) -> Result<(Report, Code, Option<CliError>), CliError> {
    let args::Verify { source, destination, compare, include, exclude, transfers, .. } = options;
    let some = |patterns: Vec<_>| (!patterns.is_empty()).then_some(patterns);
    let set = MirrorOptions {
        compare,
        include: some(include),
        exclude: some(exclude),
        transfers,
        ..MirrorOptions::default()
    };
    let set = options.source_side.into_options(set);
    let configs = choose(global, "verify", Some(&source), destination.as_deref(), set)?;
    let Some(config) = configs.first() else {
        return Err(CliError::new(Code::Usage, "name two buckets to compare"));
    };
    let mut wishes = listen()?;
    let sides = connect(config, true).await?;
    let copier = copier(config, &sides, None, options.retry_for.millis(), None);
    let json = global.json;
    let wanted = filter(&config.include, &config.exclude)?;
    let on_difference = Arc::new(move |key: &Key, difference: Difference| {
        let (word, why, path) = (difference.word(), difference.why(), key.to_string());
        print_line(&match json {
            true => json!({ "difference": word, "path": path, "why": why }).to_string(),
            false => format!("{word:<8} {path}  ({why})"),
        });
    });
    let verify = Verify::new(copier.clone(), config.compare, wanted, on_difference);
    let following = audience.follow(&config.name, &copier.progress, Work::Copy);
    let ended_with = until_end(verify.run(), &mut wishes, || copier.cancel.cancel());
    let (report, end) = ended_with.await;
    following.finish();
    let left = sum.add(&copier, 0, 0);
    let code = if report.is_same() { left } else { Code::Failed };
    let (code, error) = ended(end, code);
    Ok((report, code, error))
}
