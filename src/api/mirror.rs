//! A bucket backed up to a bucket, once; and two buckets compared.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::backup::PlannedAction;
use crate::app::copy::Copier;
use crate::app::mirror::{Difference, End, Verify};
use crate::app::status::{Requests, Summary};
use crate::config::units::Span;
use crate::config::{MirrorConfig, MirrorOptions, resolve_mirror};
use crate::model::Key;
use crate::plan::{Deletions, MaxDelete, MirrorCompare};
use crate::service::paths;
use crate::wire::mirror::{MirrorRun, connect, copier, filter, wire};
use crate::wire::{Error, open_state};

use super::report::{Differences, Outcome, Report, problems};
use super::run::{Access, Progress, Run, Stop, block_on, dry, shared};

/// Two buckets, and what is set for them.
#[derive(Default)]
struct Pair {
    source: String,
    destination: String,
    source_access: Access,
    options: MirrorOptions,
}

impl Pair {
    fn include(&mut self, run: &mut Run, pattern: &str) {
        let mut patterns = self.options.include.take().unwrap_or_default();
        run.push("include", pattern, &mut patterns);
        self.options.include = Some(patterns);
    }

    fn exclude(&mut self, run: &mut Run, pattern: &str) {
        let mut patterns = self.options.exclude.take().unwrap_or_default();
        run.push("exclude", pattern, &mut patterns);
        self.options.exclude = Some(patterns);
    }

    fn config(self, run: &mut Run) -> Result<MirrorConfig, Error> {
        let (both, own) = (std::mem::take(&mut run.options), self.source_access.options);
        run.faults.extend(self.source_access.faults);
        let options = MirrorOptions {
            transfers: both.transfers,
            bandwidth: both.bandwidth,
            endpoint_url: both.endpoint_url,
            region: both.region,
            profile: both.profile,
            path_style: both.path_style,
            credentials_file: both.credentials_file,
            source_endpoint_url: own.endpoint_url,
            source_region: own.region,
            source_profile: own.profile,
            source_path_style: own.path_style,
            source_credentials_file: own.credentials_file,
            ..self.options
        };
        let home = paths::home();
        run.settled(resolve_mirror(&self.source, &self.destination, options, home.as_deref()))
    }
}

/// Brings a bucket up to date with another one, as `keepwatch mirror` does: within the server where
/// it can, and what is gone from the source is tagged. Each method is the option of that name.
///
/// ```no_run
/// let report = keepwatch::Mirror::new("s3://my-bucket", "s3://my-bucket-offsite")
///     .create_bucket(true)
///     .run_blocking()?;
/// println!("{} copied, {} tagged", report.numbers.copied, report.numbers.tagged);
/// # Ok::<(), keepwatch::Error>(())
/// ```
pub struct Mirror {
    pair: Pair,
    state_folder: Option<PathBuf>,
    take_over: bool,
    run: Run,
}

impl Mirror {
    /// A place to copy from, and one to copy to: `s3://bucket/prefix`, `bucket::prefix`, or
    /// `file:///folder` for the embedded store.
    pub fn new(source: impl Into<String>, destination: impl Into<String>) -> Self {
        let (source, destination) = (source.into(), destination.into());
        let pair = Pair { source, destination, ..Pair::default() };
        Self { pair, state_folder: None, take_over: false, run: Run::default() }
    }

    /// How the source is reached, where that is not as the destination is.
    pub fn source_access(mut self, access: Access) -> Self {
        self.pair.source_access = access;
        self
    }

    /// Only keys that match this gitignore rule, or lie below a folder that does. May be called
    /// more than once.
    pub fn include(mut self, pattern: &str) -> Self {
        self.pair.include(&mut self.run, pattern);
        self
    }

    /// Leaves out keys that match this gitignore rule. May be called more than once.
    pub fn exclude(mut self, pattern: &str) -> Self {
        self.pair.exclude(&mut self.run, pattern);
        self
    }

    /// Copies only what was modified so lately.
    pub fn modified_within(mut self, span: Duration) -> Self {
        self.pair.options.modified_within = Some(Span(span));
        self
    }

    /// What makes a copy count as out of date.
    pub fn compare(mut self, compare: MirrorCompare) -> Self {
        self.pair.options.compare = Some(compare);
        self
    }

    /// What happens to copies whose source is gone (they are tagged).
    pub fn deletions(mut self, deletions: Deletions) -> Self {
        self.pair.options.deletions = Some(deletions);
        self
    }

    /// How many copies may be tagged or deleted within 24 hours without asking (25 %).
    pub fn max_delete(mut self, max_delete: MaxDelete) -> Self {
        self.pair.options.max_delete = Some(max_delete);
        self
    }

    /// Storage class of copies, in S3's words (that of their source).
    pub fn storage_class(mut self, class: &str) -> Self {
        self.pair.options.storage_class = self.run.read("storage_class", class);
        self
    }

    /// Makes the destination's bucket if it is not there.
    pub fn create_bucket(mut self, create: bool) -> Self {
        self.pair.options.create_bucket = Some(create);
        self
    }

    /// Takes the destination over from another machine or user.
    pub fn take_over(mut self, take_over: bool) -> Self {
        self.take_over = take_over;
        self
    }

    /// Folder of the state database (the program's). One process at a time can have it.
    pub fn state_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.state_folder = Some(folder.into());
        self
    }

    /// Runs to the end. Wants a runtime of tokio with timers and IO. A future that is dropped
    /// leaves what a kill would leave: the next run goes on from there.
    pub async fn run(mut self) -> Result<Report, Error> {
        let started = Instant::now();
        let config = self.pair.config(&mut self.run)?;
        let state = open_state(self.state_folder.as_deref())?;
        let run = MirrorRun {
            take_over: self.take_over,
            retry_for_ms: self.run.retry_for_ms(),
            plan: self.run.plan.clone(),
            on_event: None,
        };
        let mirror = wire(&config, &state, &run).await?;
        let copier = mirror.copier.clone();
        let stop = || copier.cancel.cancel();
        let end = self.run.drive(mirror.run(), &copier.progress, stop).await;
        let stopped = is_stopped(end)?;
        let unclaimed = mirror.state.tally(mirror.clock.now()).await?.unclaimed;
        let numbers = Summary { held: mirror.held(), unclaimed, ..numbers(&copier) };
        state.state.close();
        Ok(report(&copier, numbers, started, stopped))
    }
}

shared!(Mirror);
dry!(Mirror);

/// Takes a key, and what is not as it should be with it.
type Tell = dyn Fn(&str, &str) + Send + Sync;

/// Compares two buckets and writes nothing, as `keepwatch verify` does. The outcome is
/// [`Outcome::Different`] where they are not the same.
///
/// ```no_run
/// let report = keepwatch::Compare::new("s3://my-bucket", "s3://my-bucket-offsite")
///     .on_difference(|key, why| println!("{key}: {why}"))
///     .run_blocking()?;
/// println!("{} are missing", report.differences.missing);
/// # Ok::<(), keepwatch::Error>(())
/// ```
pub struct Compare {
    pair: Pair,
    tell: Arc<Tell>,
    run: Run,
}

impl Compare {
    /// A place that was copied, and the place with the copies.
    pub fn new(source: impl Into<String>, destination: impl Into<String>) -> Self {
        let (source, destination) = (source.into(), destination.into());
        let pair = Pair { source, destination, ..Pair::default() };
        Self { pair, tell: Arc::new(|_, _| {}), run: Run::default() }
    }

    /// How the source is reached, where that is not as the destination is.
    pub fn source_access(mut self, access: Access) -> Self {
        self.pair.source_access = access;
        self
    }

    /// Only keys that match this gitignore rule, or lie below a folder that does. May be called
    /// more than once.
    pub fn include(mut self, pattern: &str) -> Self {
        self.pair.include(&mut self.run, pattern);
        self
    }

    /// Leaves out keys that match this gitignore rule. May be called more than once.
    pub fn exclude(mut self, pattern: &str) -> Self {
        self.pair.exclude(&mut self.run, pattern);
        self
    }

    /// What makes a copy count as out of date.
    pub fn compare(mut self, compare: MirrorCompare) -> Self {
        self.pair.options.compare = Some(compare);
        self
    }

    /// Is called with each key that is not as it should be, and why.
    pub fn on_difference(mut self, tell: impl Fn(&str, &str) + Send + Sync + 'static) -> Self {
        self.tell = Arc::new(tell);
        self
    }

    /// Runs to the end. Wants a runtime of tokio with timers and IO.
    pub async fn run(mut self) -> Result<Report, Error> {
        let started = Instant::now();
        let config = self.pair.config(&mut self.run)?;
        let sides = connect(&config, true).await?;
        let copier = copier(&config, &sides, None, self.run.retry_for_ms(), None);
        let tell = self.tell.clone();
        let wanted = filter(&config.include, &config.exclude)?;
        let on_difference = Arc::new(move |key: &Key, difference: Difference| {
            tell(&key.to_string(), difference.why());
        });
        let verify = Verify::new(copier.clone(), config.compare, wanted, on_difference);
        let stop = || copier.cancel.cancel();
        let (found, end) = self.run.drive(verify.run(), &copier.progress, stop).await;
        let stopped = is_stopped(end)?;
        let numbers = Summary {
            scanned: found.scanned,
            unchanged: found.same,
            verified: found.same,
            tagged: found.tagged,
            ..numbers(&copier)
        };
        let mut report = report(&copier, numbers, started, stopped);
        report.differences = Differences {
            missing: found.missing,
            differing: found.differing,
            unknown: found.unknown,
            extra: found.extra,
        };
        if report.outcome == Outcome::Done && !found.is_same() {
            report.outcome = Outcome::Different;
            report.numbers.result = report.outcome.word().to_owned();
        }
        Ok(report)
    }
}

shared!(Compare);

fn is_stopped(end: End) -> Result<bool, Error> {
    match end {
        End::Done { .. } => Ok(false),
        End::Interrupted => Ok(true),
        End::Failed(failure) => Err(failure.into()),
    }
}

fn numbers(copier: &Copier) -> Summary {
    let mut requests = Requests::from(copier.source.requests());
    requests.add(&copier.target.requests().into());
    Summary::new(copier.progress.counts(), requests)
}

fn report(copier: &Copier, numbers: Summary, started: Instant, stopped: bool) -> Report {
    Report {
        failed: problems(copier.failed()),
        skipped: problems(copier.skipped()),
        ..Report::new(numbers, started, stopped)
    }
}
