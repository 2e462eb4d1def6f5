//! What can be typed. Each option has a variable `KEEPWATCH_…`; a flag beats it.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::units::Span;
use crate::config::{BackupOptions, EndpointUrl, Line, MirrorOptions, given_by_systemd};
use crate::report::log::{Format, LogOptions};
use crate::report::progress::When;
use crate::service::socket::DeletionVerb;
use crate::wire;

use super::mirror::args as mirror;
use super::restore::args as restore;

/// Keeps folders backed up to S3, all the time
#[derive(Debug, Parser)]
#[command(name = "keepwatch", version, about, long_about = None, max_term_width = 100)]
#[command(after_help = "Without a command, keepwatch runs the daemon for every backup in the \
    configuration file. With --restore it takes the options of `keepwatch help restore`.\n\n\
    Each option that can be typed anywhere has a variable, too: KEEPWATCH_ and its name in \
    capitals, such as KEEPWATCH_STATE_DIR. A flag beats the variable, which beats the \
    configuration.")]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(flatten)]
    pub restore: restore::Configured,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Keep a folder in a bucket, from now on
    Watch(Run),
    /// Bring a bucket up to date once, then exit
    Sync(Sync),
    /// Bring a backup back into a folder, or into a bucket
    Restore(restore::Restore),
    /// Back up a bucket to a bucket once, then exit
    Mirror(Box<mirror::Mirror>),
    /// Compare two buckets, and change nothing
    Verify(mirror::Verify),
    /// List what is in a backup
    Ls(restore::Ls),
    /// Say how far the backups are
    Status(Status),
    /// Wait until all that exists now is in the destination
    Flush(Flush),
    /// Send nothing for now: what changes is remembered
    ///
    /// Holds for the daemon. A `sync` that is started by hand, or by cron, sends all the same.
    Pause(Named),
    /// Go on after a pause
    Resume(Named),
    /// Drop what is on record of a backup that is not wanted any more; its objects stay
    Forget(Forget),
    /// See, approve or discard deletions that are held
    Deletions(Deletions),
    /// Check, show or explain the configuration
    Config(Config),
    /// Offer the embedded store as an S3 endpoint on loopback
    Serve(Serve),
    /// Install keepwatch as a service of systemd or launchd
    Service(Service),
    /// Print completions for a shell
    Completions(Completions),
    /// Print the manual
    Man(Man),
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Configuration file
    #[arg(
        short,
        long,
        global = true,
        env = "KEEPWATCH_CONFIG",
        hide_env = true,
        value_name = "FILE"
    )]
    pub config: Option<PathBuf>,
    /// Folder of the state database
    #[arg(long, global = true, env = "KEEPWATCH_STATE_DIR", hide_env = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// URL of the S3 endpoint
    #[arg(
        long,
        global = true,
        env = "KEEPWATCH_ENDPOINT_URL",
        hide_env = true,
        value_name = "URL"
    )]
    pub endpoint_url: Option<EndpointUrl>,
    /// Region of the bucket
    #[arg(long, global = true, env = "KEEPWATCH_REGION", hide_env = true, value_name = "REGION")]
    pub region: Option<Line>,
    /// Profile in the shared AWS configuration
    #[arg(long, global = true, env = "KEEPWATCH_PROFILE", hide_env = true, value_name = "PROFILE")]
    pub profile: Option<Line>,
    /// Put the bucket's name in the path, not in the host name
    #[arg(long, global = true, env = "KEEPWATCH_PATH_STYLE", hide_env = true)]
    pub path_style: bool,
    /// File with credentials, in the format of ~/.aws/credentials
    #[arg(
        long,
        global = true,
        env = "KEEPWATCH_CREDENTIALS_FILE",
        hide_env = true,
        value_name = "FILE"
    )]
    pub credentials_file: Option<Line>,
    /// Say what would be done, and do nothing
    #[arg(short = 'n', long, global = true, env = "KEEPWATCH_DRY_RUN", hide_env = true)]
    pub dry_run: bool,
    /// Results as JSON on standard output
    #[arg(long, global = true, env = "KEEPWATCH_JSON", hide_env = true)]
    pub json: bool,
    /// Say nothing but errors
    #[arg(short, long, global = true, env = "KEEPWATCH_QUIET", hide_env = true)]
    pub quiet: bool,
    /// Say more; twice for yet more
    #[arg(short, long, global = true, env = "KEEPWATCH_VERBOSE", hide_env = true,
        action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Form of the log
    #[arg(long, global = true, env = "KEEPWATCH_LOG_FORMAT", hide_env = true, value_enum,
        default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// When to show progress bars; elsewhere a line now and then
    #[arg(long, global = true, env = "KEEPWATCH_PROGRESS", hide_env = true, value_enum,
        default_value_t = When::Auto)]
    pub progress: When,
    /// When to use colours
    #[arg(long, global = true, env = "KEEPWATCH_COLOR", hide_env = true, value_enum,
        default_value_t = When::Auto)]
    pub color: When,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, Default, Args)]
pub struct Run {
    /// Folder to keep, or the name of a configured backup
    pub source: Option<String>,
    /// s3://bucket/prefix, bucket::prefix, file:///folder, or default
    pub destination: Option<String>,
    /// Make another bucket for the destination `default`
    #[arg(long)]
    pub new_bucket: bool,
    /// Take the destination over from another machine or user
    #[arg(long)]
    pub take_over: bool,
    #[command(flatten)]
    pub options: BackupOptions,
}

#[derive(Clone, Debug, Args)]
pub struct Sync {
    #[command(flatten)]
    pub run: Run,
    /// Transfer only what failed before
    #[arg(long)]
    pub failed_only: bool,
    /// How long to wait for a destination that is away
    #[arg(
        long,
        env = "KEEPWATCH_RETRY_FOR",
        hide_env = true,
        value_name = "DURATION",
        allow_hyphen_values = true,
        default_value = "60s"
    )]
    pub retry_for: Span,
}

#[derive(Clone, Debug, Args)]
pub struct Status {
    /// List the files too: path, whether uploaded, MD5
    #[arg(long)]
    pub files: bool,
    /// Exit with 6 when the protection is older than --max-age
    #[arg(long)]
    pub check: bool,
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, default_value = "15m")]
    pub max_age: Span,
}

#[derive(Clone, Debug, Args)]
pub struct Flush {
    /// How long to wait at most
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, default_value = "60s")]
    pub timeout: Span,
}

#[derive(Clone, Debug, Args)]
pub struct Named {
    /// Backups, by name, source or destination
    pub names: Vec<String>,
    /// Every backup
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Forget {
    /// Backups and mirrors, by name, source or destination
    #[arg(required = true)]
    pub names: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub struct Deletions {
    #[arg(value_enum)]
    pub verb: Verb,
    /// Backups, by name, source or destination
    pub names: Vec<String>,
    /// Every backup
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
    /// With `approve`: accept the folder that is there now as the source
    #[arg(long)]
    pub new_root: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Verb {
    /// List the deletions that are held
    List,
    /// Approve all that wait at that moment, also those that came since they were listed
    Approve,
    /// Keep the objects: they are not this backup's any more
    Discard,
}

impl From<Verb> for DeletionVerb {
    fn from(verb: Verb) -> Self {
        match verb {
            Verb::List => Self::List,
            Verb::Approve => Self::Approve,
            Verb::Discard => Self::Discard,
        }
    }
}

#[derive(Clone, Debug, Args)]
pub struct Config {
    #[arg(value_enum)]
    pub what: ConfigVerb,
    /// Flags and variables hold here as they do elsewhere.
    #[command(flatten)]
    pub options: BackupOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConfigVerb {
    /// Tell every fault of the file
    Check,
    /// Show what holds, with all layers joined
    Show,
    /// Print the JSON Schema of the file
    Schema,
    /// Print a commented example
    Example,
}

#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// The store: file:///folder
    pub store: String,
    /// Address to listen on
    #[arg(
        long,
        env = "KEEPWATCH_LISTEN",
        hide_env = true,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8484"
    )]
    pub listen: String,
    /// Write a line of JSON for every request to this file
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<PathBuf>,
    /// Answer before writes are on disk: they survive a crash of the program, not of the machine
    #[arg(long)]
    pub no_sync: bool,
    /// How long an archived object takes to thaw once it was asked for
    #[arg(long, value_name = "TIME", default_value = "3s")]
    pub thaw_after: Span,
}

/// `service install|uninstall|show`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Root installs for the machine, everybody else for themselves, unless \
    --user or --system says otherwise. The service runs this program with the configuration that \
    --config names, else with ~/.config/keepwatch/keepwatch.toml or, for the machine, \
    /etc/keepwatch/keepwatch.toml.")]
pub struct Service {
    #[command(subcommand)]
    pub verb: ServiceVerb,
    /// For this user
    #[arg(long, global = true, conflicts_with = "system")]
    pub user: bool,
    /// For the machine
    #[arg(long, global = true)]
    pub system: bool,
    /// The service manager, where it is not that of this system
    #[arg(long, global = true, value_enum, value_name = "NAME", hide = true)]
    pub manager: Option<ManagerWord>,
}

#[derive(Clone, Debug, Subcommand)]
pub enum ServiceVerb {
    /// Write the service, and let it start by itself from now on
    Install {
        /// Start it now, too
        #[arg(long)]
        start: bool,
        /// Do not let it start by itself
        #[arg(long)]
        no_enable: bool,
    },
    /// Stop the service and remove it; configuration and state stay
    Uninstall,
    /// Print what `install` would write
    Show,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ManagerWord {
    Systemd,
    Launchd,
}

#[derive(Clone, Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[derive(Clone, Debug, Args)]
pub struct Man {
    /// The page of this command, not of the program
    pub command: Option<String>,
    /// Write all pages into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub to: Option<PathBuf>,
}

impl Global {
    pub fn color(&self) -> bool {
        match self.color {
            When::Always => true,
            When::Never => false,
            When::Auto => {
                let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
                is_wanted && std::io::stderr().is_terminal()
            }
        }
    }

    /// `files`: whether single files are worth a line.
    pub fn log(&self, files: bool) -> LogOptions {
        let format = match self.log_format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        };
        let color = self.color();
        let (quiet, verbose, hushed) = (self.quiet, self.verbose, wire::TELLS_OF_ROLES);
        LogOptions { format, color, quiet, verbose, files, hushed }
    }

    /// The options of a mirror that can be typed anywhere.
    pub fn into_mirror_options(self, options: MirrorOptions) -> MirrorOptions {
        let source_credentials_file = options.source_credentials_file.map(absolute);
        MirrorOptions {
            endpoint_url: self.endpoint_url,
            region: self.region,
            profile: self.profile,
            path_style: self.path_style.then_some(true),
            credentials_file: self.credentials_file.map(absolute),
            source_credentials_file,
            ..options
        }
    }

    /// The options of a backup that can be typed anywhere.
    pub fn into_options(self, options: BackupOptions) -> BackupOptions {
        BackupOptions {
            endpoint_url: self.endpoint_url,
            region: self.region,
            profile: self.profile,
            path_style: self.path_style.then_some(true),
            credentials_file: self.credentials_file.map(absolute),
            ..options
        }
    }
}

/// A file that was typed is found from the folder one is in; `~/` is the home folder, and what is
/// not there may be a name that systemd knows, as in the configuration.
fn absolute(file: Line) -> Line {
    let text = file.to_string();
    let is_here = || Path::new(&text).exists();
    if text.starts_with("%d/") || (given_by_systemd(&text).is_some() && !is_here()) {
        return file;
    }
    let found = std::path::absolute(&text).ok().filter(|_| !text.starts_with("~/"));
    found.and_then(|path| path.to_str()?.parse().ok()).unwrap_or(file)
}
