//! A folder brought into a bucket, once.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::app::Driver;
use crate::app::backup::PlannedAction;
use crate::app::control::Command;
use crate::app::status::Summary;
use crate::config::units::{Size, Span};
use crate::engine::{Exit, Mode};
use crate::plan::{Compare, Deletions, MaxDelete, Symlinks};
use crate::wire::{Error, RunOptions, check, find, open_state_of, wire};

use super::report::{Report, problems};
use super::run::{Access, Progress, Run, Stop, absolute, block_on, dry, shared};

/// Brings a bucket up to date with a folder, as `keepwatch sync` does. Each method is the option of
/// that name.
///
/// ```no_run
/// use keepwatch::Sync;
/// use keepwatch::choices::Deletions;
///
/// # async fn example() -> Result<(), keepwatch::Error> {
/// let report = Sync::new("/home/me/Documents", "s3://my-bucket/documents")
///     .exclude("*.tmp")
///     .deletions(Deletions::Keep)
///     .on_progress(|progress| println!("{} of {}", progress.done, progress.known))
///     .run()
///     .await?;
/// println!("{} files uploaded", report.numbers.uploaded);
/// # Ok(())
/// # }
/// ```
pub struct Sync {
    source: PathBuf,
    destination: String,
    state_folder: Option<PathBuf>,
    take_over: bool,
    failed_only: bool,
    new_bucket: bool,
    run: Run,
}

impl Sync {
    /// A folder, and where it goes: `s3://bucket/prefix`, `bucket::prefix`, `file:///folder` for
    /// the embedded store, or `default` for a new bucket of its own.
    pub fn new(source: impl Into<PathBuf>, destination: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            destination: destination.into(),
            state_folder: None,
            take_over: false,
            failed_only: false,
            new_bucket: false,
            run: Run::default(),
        }
    }

    /// Only what matches this gitignore rule, or lies below a folder that does. May be called more
    /// than once.
    pub fn include(mut self, pattern: &str) -> Self {
        let mut patterns = self.run.options.include.take().unwrap_or_default();
        self.run.push("include", pattern, &mut patterns);
        self.run.options.include = Some(patterns);
        self
    }

    /// Leaves out what matches this gitignore rule. May be called more than once.
    pub fn exclude(mut self, pattern: &str) -> Self {
        let mut patterns = self.run.options.exclude.take().unwrap_or_default();
        self.run.push("exclude", pattern, &mut patterns);
        self.run.options.exclude = Some(patterns);
        self
    }

    /// Leaves out larger files, in bytes.
    pub fn max_file_size(mut self, bytes: u64) -> Self {
        self.run.options.max_file_size = Some(Size(bytes));
        self
    }

    /// Leaves out what is mounted below the source.
    pub fn one_file_system(mut self, only: bool) -> Self {
        self.run.options.one_file_system = Some(only);
        self
    }

    /// What happens to symbolic links.
    pub fn symlinks(mut self, symlinks: Symlinks) -> Self {
        self.run.options.symlinks = Some(symlinks);
        self
    }

    /// What happens to objects whose file is gone.
    pub fn deletions(mut self, deletions: Deletions) -> Self {
        self.run.options.deletions = Some(deletions);
        self
    }

    /// How long a file must be gone before its object is deleted (no time).
    pub fn delete_delay(mut self, span: Duration) -> Self {
        self.run.options.delete_delay = Some(Span(span));
        self
    }

    /// How many files may be deleted within 24 hours without asking (25 %).
    pub fn max_delete(mut self, max_delete: MaxDelete) -> Self {
        self.run.options.max_delete = Some(max_delete);
        self
    }

    /// What makes a file count as unchanged.
    pub fn compare(mut self, compare: Compare) -> Self {
        self.run.options.compare = Some(compare);
        self
    }

    /// Storage class of new objects, in S3's words.
    pub fn storage_class(mut self, class: &str) -> Self {
        self.run.options.storage_class = self.run.read("storage_class", class);
        self
    }

    /// Server-side encryption: `AES256`, `aws:kms` or `aws:kms:dsse`.
    pub fn sse(mut self, sse: &str) -> Self {
        self.run.options.sse = self.run.read("sse", sse);
        self
    }

    /// Key for `aws:kms`.
    pub fn sse_kms_key_id(mut self, key: &str) -> Self {
        self.run.options.sse_kms_key_id = self.run.read("sse_kms_key_id", key);
        self
    }

    /// Larger files are sent in parts, in bytes (16 MiB).
    pub fn multipart_threshold(mut self, bytes: u64) -> Self {
        self.run.options.multipart_threshold = Some(Size(bytes));
        self
    }

    /// Size of a part, in bytes (8 MiB, more for very large files).
    pub fn part_size(mut self, bytes: u64) -> Self {
        self.run.options.part_size = Some(Size(bytes));
        self
    }

    /// The account that must own the bucket.
    pub fn bucket_owner(mut self, account: &str) -> Self {
        self.run.options.bucket_owner = self.run.read("bucket_owner", account);
        self
    }

    /// Makes the bucket if it is not there.
    pub fn create_bucket(mut self, create: bool) -> Self {
        self.run.options.create_bucket = Some(create);
        self
    }

    /// Takes the destination over from another machine or user.
    pub fn take_over(mut self, take_over: bool) -> Self {
        self.take_over = take_over;
        self
    }

    /// Transfers only what failed before.
    pub fn failed_only(mut self, failed_only: bool) -> Self {
        self.failed_only = failed_only;
        self
    }

    /// Makes another bucket for the destination `default`.
    pub fn new_bucket(mut self, new_bucket: bool) -> Self {
        self.new_bucket = new_bucket;
        self
    }

    /// Folder of the state database (the program's). One process at a time can have it.
    pub fn state_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.state_folder = Some(folder.into());
        self
    }

    /// Runs to the end. Wants a runtime of tokio with timers and IO; files are read on its blocking
    /// threads. The calling thread waits up to three seconds for a state that is in use.
    ///
    /// A future that is dropped leaves what a kill would leave: the next run goes on from there.
    pub async fn run(mut self) -> Result<Report, Error> {
        let started = Instant::now();
        let source = absolute(&self.source)?;
        let name = source.file_name().map_or_else(
            || "root".to_owned(),
            |name| crate::model::Escaped(name.as_encoded_bytes()).to_string(),
        );
        let config = self.run.config(&name, Some(source), &self.destination)?;
        let folder = self.state_folder.as_deref();
        let state = open_state_of(folder, std::slice::from_ref(&config))?;
        check(&config, &state.folder)?;
        let options = RunOptions {
            mode: Mode::OneShot { retry_for_ms: self.run.retry_for_ms() },
            take_over: self.take_over,
            failed_only: self.failed_only,
            new_bucket: self.new_bucket,
            plan: self.run.plan.clone(),
        };
        let found = find(&config, options.mode).await?;
        let backup = wire(&config, found, &state, &options).await?.backup;
        let (commands, inbox) = mpsc::channel(8);
        let driving = Driver::new(backup.clone(), None).run(inbox);
        let stop = || {
            commands.try_send(Command::Stop).ok();
        };
        let ended = self.run.drive(driving, &backup.progress, stop).await;
        let stopped = match ended.exit {
            Exit::Done => false,
            Exit::Stopped => true,
            Exit::NeedsPerson(failure) | Exit::GaveUp(failure) => return Err(failure.into()),
        };
        let mut numbers = Summary::new(backup.progress.counts(), backup.store.requests().into());
        numbers.held = ended.held;
        numbers.unclaimed = backup.state.tally(backup.clock.now()).await?.unclaimed;
        state.state.close();
        Ok(Report {
            failed: problems(ended.failed),
            skipped: problems(ended.skipped),
            ..Report::new(numbers, started, stopped)
        })
    }
}

shared!(Sync);
dry!(Sync);
