//! What can be typed for `mirror` and `verify`.

use clap::Args;

use crate::config::units::{Span, Transfers};
use crate::config::{EndpointUrl, Line, MirrorOptions, Pattern};
use crate::plan::MirrorCompare;

/// `mirror [SOURCE [DESTINATION]]`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Copies what is missing or differs, within the server where it can, and \
    marks what is gone from the source: its copy is tagged Deleted=True and DeletedAt, and loses \
    these tags when it comes back. One run after the other is cheap: it costs the two listings.\n\n\
    keepwatch mirror s3://my-bucket s3://my-bucket-offsite --create-bucket\n\
    keepwatch mirror s3://a s3://b --dry-run\n\
    keepwatch mirror s3://a s3://b --source-endpoint-url https://minio.example:9000 \
    --source-profile minio")]
pub struct Mirror {
    /// Bucket to copy from: s3://bucket/prefix, bucket::prefix, file:///folder; or the name of a
    /// configured mirror
    pub source: Option<String>,
    /// Bucket to copy to
    pub destination: Option<String>,
    /// Take the destination over from another machine or user
    #[arg(long)]
    pub take_over: bool,
    #[command(flatten)]
    pub options: MirrorOptions,
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

/// `verify SOURCE DESTINATION`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Nothing is written. What is missing, differs, or is only in the destination \
    without being tagged as deleted is named, and the exit code is 1; otherwise it is 0.\n\n\
    --compare modified and size go by the two listings alone. --compare checksum also looks at \
    each copy, one request or two more for each object: whether it is tagged as deleted although \
    it is in the source, and where the ETags differ whether checksums are equal. Where no checksum \
    can be compared, that is said, and the exit code is 1."
)]
pub struct Verify {
    /// Bucket that was copied: s3://bucket/prefix, bucket::prefix, file:///folder; or the name of a
    /// configured mirror
    pub source: String,
    /// Bucket with the copies
    pub destination: Option<String>,
    /// What makes a copy count as out of date: modified (size, and a newer source), checksum, size
    #[arg(long, value_name = "WHAT")]
    pub compare: Option<MirrorCompare>,
    /// Compare only keys that match, or lie below a folder that does (gitignore rules)
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<Pattern>,
    /// Leave out what matches (gitignore rules)
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<Pattern>,
    /// Requests at the same time (16)
    #[arg(long, value_name = "N")]
    pub transfers: Option<Transfers>,
    #[command(flatten)]
    pub source_side: SourceSide,
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

/// How the source is reached, where that is not as the destination is.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "The source, where it is reached otherwise")]
pub struct SourceSide {
    /// URL of the source's S3 endpoint
    #[arg(long, env = "KEEPWATCH_SOURCE_ENDPOINT_URL", hide_env = true, value_name = "URL")]
    pub source_endpoint_url: Option<EndpointUrl>,
    /// Region of the source's bucket
    #[arg(long, env = "KEEPWATCH_SOURCE_REGION", hide_env = true, value_name = "REGION")]
    pub source_region: Option<Line>,
    /// Profile for the source
    #[arg(long, env = "KEEPWATCH_SOURCE_PROFILE", hide_env = true, value_name = "PROFILE")]
    pub source_profile: Option<Line>,
    /// Put the name of the source's bucket in the path
    #[arg(long, env = "KEEPWATCH_SOURCE_PATH_STYLE", hide_env = true)]
    pub source_path_style: bool,
    /// File with credentials for the source
    #[arg(long, env = "KEEPWATCH_SOURCE_CREDENTIALS_FILE", hide_env = true, value_name = "FILE")]
    pub source_credentials_file: Option<Line>,
}

impl SourceSide {
    /// As options of a mirror.
    pub fn into_options(self, options: MirrorOptions) -> MirrorOptions {
        MirrorOptions {
            source_endpoint_url: self.source_endpoint_url,
            source_region: self.source_region,
            source_profile: self.source_profile,
            source_path_style: self.source_path_style.then_some(true),
            source_credentials_file: self.source_credentials_file,
            ..options
        }
    }
}
