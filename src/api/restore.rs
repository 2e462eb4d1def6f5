//! A backup brought back into a folder.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::app::backup::PlannedAction;
use crate::app::restore::{Counts, End, RestoreSettings};
use crate::app::status::Summary;
use crate::config::Destination;
use crate::model::{Millis, RelPath};
use crate::plan::{ErrorClass, MaxDelete, Overwrite};
use crate::ports::Tier;
use crate::service::machine;
use crate::wire::{Error, RestorePlan, patterns, restore};

use super::report::{Report, problems};
use super::run::{Access, Progress, Run, Stop, absolute, block_on, dry, shared};

/// Brings a backup back into a folder, as `keepwatch restore` does. Each method is the option of
/// that name. No state and no configuration are needed.
///
/// ```no_run
/// use keepwatch::Restore;
/// use std::time::{Duration, SystemTime};
///
/// # async fn example() -> Result<(), keepwatch::Error> {
/// let report = Restore::new("s3://my-bucket/documents", "/tmp/reports")
///     .at(SystemTime::now() - Duration::from_secs(2 * 86_400))
///     .path("reports/2026")
///     .run()
///     .await?;
/// println!("{} files are back", report.numbers.downloaded);
/// # Ok(())
/// # }
/// ```
pub struct Restore {
    source: String,
    target: PathBuf,
    include: Vec<String>,
    exclude: Vec<String>,
    within: Option<PathBuf>,
    at: Option<SystemTime>,
    poll: Duration,
    settings: RestoreSettings,
    run: Run,
}

impl Restore {
    /// A place (`s3://bucket/prefix`, `bucket::prefix` or `file:///folder`) and the folder that it
    /// comes back into. The folder is made where the one above it exists.
    pub fn new(source: impl Into<String>, target: impl Into<PathBuf>) -> Self {
        let settings = RestoreSettings {
            at: None,
            within: None,
            overwrite: Overwrite::default(),
            delete: false,
            max_delete: MaxDelete::default(),
            owner: machine::is_root(),
            setuid: false,
            outside_links: false,
            transfers: 0,
            tier: Tier::default(),
            days: 7,
            wait: true,
            poll_ms: 0,
            retry_for_ms: 0,
        };
        Self {
            source: source.into(),
            target: target.into(),
            include: vec![],
            exclude: vec![],
            within: None,
            at: None,
            poll: Duration::from_secs(300),
            settings,
            run: Run::default(),
        }
    }

    /// As it was then. The bucket must keep versions.
    pub fn at(mut self, moment: SystemTime) -> Self {
        self.at = Some(moment);
        self
    }

    /// Only this file, or this folder and what is below it, as it was below the source.
    pub fn path(mut self, path: impl Into<PathBuf>) -> Self {
        self.within = Some(path.into());
        self
    }

    /// Only what matches this gitignore rule, or lies below a folder that does. May be called more
    /// than once.
    pub fn include(mut self, pattern: &str) -> Self {
        self.include.push(pattern.to_owned());
        self
    }

    /// Leaves out what matches this gitignore rule. May be called more than once.
    pub fn exclude(mut self, pattern: &str) -> Self {
        self.exclude.push(pattern.to_owned());
        self
    }

    /// What happens to files that are there already (those that are newer are kept).
    pub fn overwrite(mut self, overwrite: Overwrite) -> Self {
        self.settings.overwrite = overwrite;
        self
    }

    /// Deletes what is in the target and not in the backup.
    pub fn delete(mut self, delete: bool) -> Self {
        self.settings.delete = delete;
        self
    }

    /// How many files [`delete`](Self::delete) may delete without asking (25 %).
    pub fn max_delete(mut self, max_delete: MaxDelete) -> Self {
        self.settings.max_delete = max_delete;
        self
    }

    /// Gives files their owner and group (as root, the default; else not).
    pub fn owner(mut self, owner: bool) -> Self {
        self.settings.owner = owner;
        self
    }

    /// Gives files their setuid and setgid bits.
    pub fn setuid(mut self, setuid: bool) -> Self {
        self.settings.setuid = setuid;
        self
    }

    /// Makes symbolic links that lead out of the target.
    pub fn outside_links(mut self, outside_links: bool) -> Self {
        self.settings.outside_links = outside_links;
        self
    }

    /// How fast archived objects are thawed.
    pub fn tier(mut self, tier: Tier) -> Self {
        self.settings.tier = tier;
        self
    }

    /// How many days thawed objects stay readable, 1 to 3650 (7).
    pub fn days(mut self, days: u32) -> Self {
        self.settings.days = days;
        self
    }

    /// Whether archived objects are waited for, which takes minutes to days (they are).
    pub fn wait(mut self, wait: bool) -> Self {
        self.settings.wait = wait;
        self
    }

    /// How often to look whether archived objects are thawed (five minutes).
    pub fn poll(mut self, span: Duration) -> Self {
        self.poll = span;
        self
    }

    /// Runs to the end. Wants a runtime of tokio with timers and IO; files are written on its
    /// blocking threads.
    ///
    /// There is never half a file under a name; a restore that was cut short, or a future that was
    /// dropped, is run again and goes on.
    pub async fn run(mut self) -> Result<Report, Error> {
        let started = Instant::now();
        let config = self.run.config("restore", None, &self.source)?;
        if config.destination == Destination::Default {
            let message = "`default` does not say which bucket";
            return Err(Error::new(ErrorClass::Configuration, message).hint("name the bucket"));
        }
        if !(1..=3650).contains(&self.settings.days) {
            let message = format!("days = {}: 1 to 3650", self.settings.days);
            return Err(Error::new(ErrorClass::Configuration, message));
        }
        let settings = RestoreSettings {
            at: self.at.map(millis),
            within: self.within.as_deref().map(below).transpose()?.flatten(),
            transfers: config.transfers,
            poll_ms: u64::try_from(self.poll.as_millis()).unwrap_or(u64::MAX).max(100),
            retry_for_ms: self.run.retry_for_ms(),
            ..self.settings
        };
        let plan = RestorePlan {
            config,
            target: absolute(&self.target)?,
            patterns: patterns(self.include, self.exclude)?,
            settings,
            plan: self.run.plan.clone(),
        };
        let restore = Arc::new(restore(plan).await?);
        let stop = || restore.cancel.cancel();
        let stopped = match self.run.drive(restore.run(), &restore.progress, stop).await {
            End::Done => false,
            End::Interrupted => true,
            // Nothing was begun: a person is to say how it goes on.
            End::Held(failure) | End::Failed(failure) => return Err(failure.into()),
        };
        let counts = restore.tally.counts();
        let mut numbers = numbers(&counts);
        numbers.requests = restore.reader.requests().into();
        Ok(Report {
            failed: problems(counts.failed.named),
            skipped: problems(counts.skipped.named),
            kept: problems(counts.kept.named),
            ..Report::new(numbers, started, stopped).of_restore(counts.frozen, counts.untold)
        })
    }
}

shared!(Restore);
dry!(Restore);

fn numbers(counts: &Counts) -> Summary {
    Summary {
        scanned: counts.scanned,
        downloaded: counts.downloaded,
        downloaded_bytes: counts.downloaded_bytes,
        retouched: counts.retouched,
        folders: counts.folders,
        unchanged: counts.unchanged,
        deleted: counts.deleted,
        skipped: counts.skipped.count,
        failed: counts.failed.count,
        held: counts.held,
        verified: counts.verified_crc64 + counts.verified_md5 + counts.verified_parts,
        ..Summary::default()
    }
}

fn millis(moment: SystemTime) -> Millis {
    let clamp = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    match moment.duration_since(UNIX_EPOCH) {
        Ok(since) => Millis(clamp(since)),
        Err(before) => Millis(-clamp(before.duration())),
    }
}

/// A path below the backup; `None` for all of it.
fn below(path: &Path) -> Result<Option<RelPath>, Error> {
    let bytes = path.as_os_str().as_bytes();
    let path = RelPath::new(bytes.strip_suffix(b"/").unwrap_or(bytes)).map_err(|error| {
        let message = format!("{} is no path below the backup", path.display());
        Error::new(ErrorClass::Configuration, message)
            .caused_by(&error)
            .hint("write it as it is below the source: photos/2026")
    })?;
    Ok((!path.is_root()).then_some(path))
}
