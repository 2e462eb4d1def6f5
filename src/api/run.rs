//! What all builders share: how S3 is reached, progress, and the way to stop.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::app::backup::{PlanSink, PlannedAction};
use crate::app::progress::Progress as Counters;
use crate::config::{BackupConfig, BackupOptions, Defaults, resolve_one};
use crate::plan::ErrorClass;
use crate::service::paths;
use crate::wire::Error;

/// How a server is reached. What is not set comes from the environment and `~/.aws`, as in the AWS
/// CLI.
///
/// ```
/// let access = keepwatch::Access::default()
///     .endpoint_url("https://s3.example.com")
///     .region("garage")
///     .profile("backup");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Access {
    pub(super) options: BackupOptions,
    pub(super) faults: Vec<String>,
}

impl Access {
    /// URL of an endpoint other than Amazon's.
    pub fn endpoint_url(mut self, url: &str) -> Self {
        self.options.endpoint_url = read(&mut self.faults, "endpoint_url", url);
        self
    }

    /// Region of the bucket. A wrong one is corrected where the server says so.
    pub fn region(mut self, region: &str) -> Self {
        self.options.region = read(&mut self.faults, "region", region);
        self
    }

    /// Profile in the shared AWS configuration.
    pub fn profile(mut self, profile: &str) -> Self {
        self.options.profile = read(&mut self.faults, "profile", profile);
        self
    }

    /// File with credentials, in the format of `~/.aws/credentials`.
    pub fn credentials_file(mut self, file: impl AsRef<Path>) -> Self {
        let file = file.as_ref().to_string_lossy();
        self.options.credentials_file = read(&mut self.faults, "credentials_file", &file);
        self
    }

    /// Puts the bucket's name in the path, not in the host name. Elsewhere than on AWS it is so
    /// anyway.
    pub fn path_style(mut self, path_style: bool) -> Self {
        self.options.path_style = Some(path_style);
        self
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Everything is being looked at: `known` still grows.
    pub scanning: bool,
    /// Files or objects that were looked at.
    pub scanned: u64,
    /// Transfers that are done, and of how many that are known of.
    pub done: u64,
    pub known: u64,
    /// Bytes of these that the other side has, and of how many.
    pub done_bytes: u64,
    pub known_bytes: u64,
    /// Archived objects that are waited for.
    pub frozen: u64,
}

impl Progress {
    fn of(counters: &Counters) -> Self {
        let ((done, known), (done_bytes, known_bytes)) = (counters.files(), counters.bytes());
        Self {
            scanning: counters.scanning.load(Ordering::Relaxed),
            scanned: counters.scanned.load(Ordering::Relaxed),
            frozen: counters.frozen.load(Ordering::Relaxed),
            done,
            known,
            done_bytes,
            known_bytes,
        }
    }
}

/// Ends a run early, from any thread. What is in flight is waited for; what is complete stays.
///
/// ```
/// let stop = keepwatch::Stop::new();
/// let sync = keepwatch::Sync::new("/home/me/Documents", "s3://bucket/documents").stop(&stop);
/// // Elsewhere:
/// stop.now();
/// ```
#[derive(Clone, Debug, Default)]
pub struct Stop {
    token: CancellationToken,
}

impl Stop {
    /// One that has not been used.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the runs that were given this one, and those that will be.
    pub fn now(&self) {
        self.token.cancel();
    }
}

/// Takes the progress, now and then.
type Tell = Box<dyn FnMut(&Progress) + Send>;

/// The part of a builder that is the same in all of them.
#[derive(Default)]
pub(super) struct Run {
    pub options: BackupOptions,
    pub faults: Vec<String>,
    pub on_progress: Option<Tell>,
    pub every: Option<Duration>,
    pub stop: Stop,
    pub plan: Option<PlanSink>,
    pub retry_for: Option<Duration>,
}

impl Run {
    pub fn set_access(&mut self, access: Access) {
        self.options = access.options.or(&self.options);
        self.faults.extend(access.faults);
    }

    /// Takes a word of an option; what is wrong with it is told by `run`.
    pub fn read<T: FromStr<Err: Display>>(&mut self, name: &str, text: &str) -> Option<T> {
        read(&mut self.faults, name, text)
    }

    /// The same for one of several.
    pub fn push<T: FromStr<Err: Display>>(&mut self, name: &str, text: &str, to: &mut Vec<T>) {
        to.extend(self.read(name, text));
    }

    pub fn set_plan(&mut self, plan: impl Fn(PlannedAction) + Send + Sync + 'static) {
        self.plan = Some(Arc::new(plan));
    }

    /// For how long a destination may be away.
    pub fn retry_for_ms(&self) -> u64 {
        let span = self.retry_for.unwrap_or(Duration::from_secs(60));
        u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
    }

    /// Every value settled, or all that is wrong.
    pub fn config(
        &mut self,
        name: &str,
        source: Option<PathBuf>,
        destination: &str,
    ) -> Result<BackupConfig, Error> {
        let (options, home) = (std::mem::take(&mut self.options), paths::home());
        let defaults = Defaults::ONE_SHOT;
        let source = source.as_deref();
        self.settled(resolve_one(name, source, destination, options, defaults, home.as_deref()))
    }

    /// What was settled, unless there is something wrong with it or with a word before it.
    pub fn settled<T>(&mut self, config: Result<T, String>) -> Result<T, Error> {
        match config {
            Ok(config) if self.faults.is_empty() => Ok(config),
            config => {
                self.faults.extend(config.err());
                Err(Error::new(ErrorClass::Configuration, self.faults.join("; ")))
            }
        }
    }

    /// Runs `work`, tells of its progress, and says once when it is to stop.
    pub async fn drive<T>(
        &mut self,
        work: impl Future<Output = T>,
        counters: &Counters,
        stop_it: impl FnOnce(),
    ) -> T {
        let every = self.every.unwrap_or(Duration::from_millis(500));
        let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
        let (mut work, mut stop_it) = (pin!(work), Some(stop_it));
        let tell = |on_progress: &mut Option<Tell>| {
            if let Some(tell) = on_progress {
                tell(&Progress::of(counters));
            }
        };
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut work => break ended,
                () = self.stop.token.cancelled(), if stop_it.is_some() => {
                    if let Some(stop_it) = stop_it.take() {
                        stop_it();
                    }
                }
                _ = ticks.tick() => tell(&mut self.on_progress),
            }
        };
        tell(&mut self.on_progress);
        ended
    }
}

fn read<T: FromStr<Err: Display>>(faults: &mut Vec<String>, name: &str, text: &str) -> Option<T> {
    text.parse().map_err(|error| faults.push(format!("{name} = {text:?}: {error}"))).ok()
}

/// An absolute path.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|error| {
        let message = format!("cannot use {}", path.display());
        Error::new(ErrorClass::Configuration, message).caused_by(&error)
    })
}

/// Runs to the end in a runtime of its own.
pub(super) fn block_on<T>(run: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    if tokio::runtime::Handle::try_current().is_ok() {
        let message = "a run that blocks cannot begin inside an asynchronous runtime";
        return Err(Error::new(ErrorClass::Configuration, message).hint("call `run` instead"));
    }
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().max_blocking_threads(8).build();
    let runtime =
        runtime.map_err(|e| Error::new(ErrorClass::Configuration, "cannot start").caused_by(&e))?;
    runtime.block_on(run)
}

/// The methods that all builders have.
macro_rules! shared {
    ($builder:ident) => {
        impl $builder {
            /// How the server is reached, where the environment and `~/.aws` do not say it.
            pub fn access(mut self, access: Access) -> Self {
                self.run.set_access(access);
                self
            }

            /// Is called with the progress every half second, or every so often as [`every`]
            /// says, and once at the end. It holds everything up: it should be short.
            ///
            /// [`every`]: Self::every
            pub fn on_progress(mut self, tell: impl FnMut(&Progress) + Send + 'static) -> Self {
                self.run.on_progress = Some(Box::new(tell));
                self
            }

            /// How often progress is told.
            pub fn every(mut self, span: Duration) -> Self {
                self.run.every = Some(span);
                self
            }

            /// Ends it early when [`Stop::now`] is called. The report then says
            /// [`Outcome::Stopped`](crate::Outcome::Stopped).
            pub fn stop(mut self, stop: &Stop) -> Self {
                self.run.stop = stop.clone();
                self
            }

            /// Transfers at the same time, 1 to 1000 (16).
            pub fn transfers(mut self, number: usize) -> Self {
                self.run.options.transfers = self.run.read("transfers", &number.to_string());
                self
            }

            /// Bytes a second at most (no limit).
            pub fn bandwidth(mut self, bytes_per_second: u64) -> Self {
                let rate = bytes_per_second.to_string();
                self.run.options.bandwidth = self.run.read("bandwidth", &rate);
                self
            }

            /// How long to wait for a bucket that is away (a minute).
            pub fn retry_for(mut self, span: Duration) -> Self {
                self.run.retry_for = Some(span);
                self
            }

            /// [`run`](Self::run) in a runtime of its own, for programs that have none. Within a
            /// runtime it is an error.
            pub fn run_blocking(self) -> Result<Report, Error> {
                block_on(self.run())
            }
        }
    };
}

/// The same, of those that change something.
macro_rules! dry {
    ($builder:ident) => {
        impl $builder {
            /// Nothing is changed on either side; each action that would be taken is told.
            pub fn dry_run(
                mut self,
                tell: impl Fn(PlannedAction) + Send + std::marker::Sync + 'static,
            ) -> Self {
                self.run.set_plan(tell);
                self
            }
        }
    };
}

pub(super) use {dry, shared};
