//! What can be typed for `restore` and `--restore`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::config::units::{Rate, Span, Transfers};
use crate::plan::{MaxDelete, Overwrite};
use crate::ports::Tier;

use crate::cli::mirror::args::SourceSide;

use super::moment::Moment;

/// Heading of the options that `restore` and `--restore` share.
pub const RESTORE_OPTIONS: &str = "Restore options";

/// `restore SOURCE TARGET`
#[derive(Clone, Debug, Args)]
#[command(after_help = "A restore that was cut short is run again and goes on: what is right \
    already is not fetched. Nothing is deleted without --delete, and files that are newer than \
    the backup are kept, unless --overwrite says otherwise.\n\n\
    keepwatch restore s3://bucket/documents ~/Documents --dry-run\n\
    keepwatch restore s3://bucket/documents /tmp/old --at \"2 days ago\" --path reports/2026\n\
    keepwatch restore s3://my-bucket-offsite s3://my-new-bucket --create-bucket")]
pub struct Restore {
    /// What is restored: s3://bucket/prefix, bucket::prefix, or file:///folder
    pub source: String,
    /// Folder to restore into; or a bucket, which gets what is not tagged as deleted
    pub target: PathBuf,
    /// Make the target's bucket if it is not there
    #[arg(long)]
    pub create_bucket: bool,
    #[command(flatten)]
    pub options: RestoreOptions,
    #[command(flatten)]
    pub source_side: SourceSide,
}

/// `--restore [NAME...] [--to DIR]`
#[derive(Clone, Debug, Args)]
pub struct Configured {
    /// Restore the configured backups, or those named, and exit
    #[arg(long, num_args = 0.., value_name = "NAME", help_heading = "Restore")]
    pub restore: Option<Vec<String>>,
    /// With --restore: into this folder, not over the sources
    #[arg(long, value_name = "DIR", requires = "restore", help_heading = "Restore")]
    pub to: Option<PathBuf>,
    #[command(flatten)]
    pub options: RestoreOptions,
}

impl Configured {
    pub fn is_asked(&self) -> bool {
        self.restore.is_some()
    }
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = RESTORE_OPTIONS)]
pub struct RestoreOptions {
    /// As it was then: 2026-11-01T12:00Z, "2026-11-01 12:00", "2 days ago"
    #[arg(long, value_name = "TIME")]
    pub at: Option<Moment>,
    /// Only this file, or this folder and what is below it
    #[arg(long, value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Only files that match, or lie below a folder that does (gitignore rules)
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,
    /// Leave out what matches (gitignore rules)
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// What happens to files that are there already
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = OverwriteWord::IfNewer)]
    pub overwrite: OverwriteWord,
    /// Delete what is in the target and not in the backup
    #[arg(long)]
    pub delete: bool,
    /// How many files --delete may delete without asking: a share, a number, or off
    #[arg(long, value_name = "SHARE", default_value = "25%")]
    pub max_delete: MaxDelete,
    /// Give files their owner and group (the default for root)
    #[arg(long, overrides_with = "no_owner")]
    pub owner: bool,
    /// Leave files to the user who restores them (the default for all others)
    #[arg(long)]
    pub no_owner: bool,
    /// Give files their setuid and setgid bits
    #[arg(long)]
    pub setuid: bool,
    /// Make symbolic links that lead out of the target
    #[arg(long)]
    pub outside_links: bool,
    /// Transfers at once [default: 16, or as configured]
    #[arg(long, value_name = "NUMBER")]
    pub transfers: Option<Transfers>,
    /// Bytes a second at most, or off [default: off, or as configured]
    #[arg(long, value_name = "RATE")]
    pub bandwidth: Option<Rate>,
    /// How fast archived objects are thawed
    #[arg(long, value_enum, value_name = "TIER", default_value_t = TierWord::Standard)]
    pub tier: TierWord,
    /// How many days thawed objects stay readable
    #[arg(long, value_name = "DAYS", default_value_t = 7,
        value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
    /// Ask for archived objects to be thawed, and do not wait for them
    #[arg(long)]
    pub no_wait: bool,
    /// How often to look whether archived objects are thawed
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    pub poll: Span,
    /// How long to wait for a bucket that is away
    #[arg(
        long,
        env = "KEEPWATCH_RETRY_FOR",
        hide_env = true,
        value_name = "DURATION",
        default_value = "60s"
    )]
    pub retry_for: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OverwriteWord {
    /// Replace what differs in content
    Always,
    /// Replace what differs in size or time, and in content
    IfChanged,
    /// The same, but keep files that are newer than the backup
    IfNewer,
    /// Keep what is there
    Never,
}

impl From<OverwriteWord> for Overwrite {
    fn from(word: OverwriteWord) -> Self {
        match word {
            OverwriteWord::Always => Self::Always,
            OverwriteWord::IfChanged => Self::IfChanged,
            OverwriteWord::IfNewer => Self::IfNewer,
            OverwriteWord::Never => Self::Never,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TierWord {
    /// Cheapest: 5 to 48 hours
    Bulk,
    /// 3 to 12 hours
    Standard,
    /// Minutes, at a price; not from Deep Archive
    Expedited,
}

impl From<TierWord> for Tier {
    fn from(word: TierWord) -> Self {
        match word {
            TierWord::Bulk => Self::Bulk,
            TierWord::Standard => Self::Standard,
            TierWord::Expedited => Self::Expedited,
        }
    }
}

/// `ls DESTINATION`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Columns: when it was uploaded, bytes, with --versions the version, and the \
    path as it is below the source. A version that says `deleted` marks a deletion."
)]
pub struct Ls {
    /// What is listed: s3://bucket/prefix, bucket::prefix, or file:///folder
    pub destination: String,
    /// As it was then
    #[arg(long, value_name = "TIME")]
    pub at: Option<Moment>,
    /// Only this file, or this folder and what is below it
    #[arg(long, value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// All versions, and the marks of deletions
    #[arg(long, conflicts_with = "at")]
    pub versions: bool,
}
