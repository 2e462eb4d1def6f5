//! The options of a backup, each written down once: its name in the file and on the command line,
//! its variable, and its words for both.

use super::file::Table;
use super::status::Loopback;
use super::units::{Rate, Size, Span, Sse, Transfers};
use super::words::{EndpointUrl, FileName, Line, Namespace, Pattern, StorageClass};
use crate::plan::{Compare, Deletions, MaxDelete, MirrorCompare, Symlinks};

macro_rules! options {
    ($(#[$of_all:meta])+ $options:ident;
     $($(#[$attribute:meta])+ $name:ident: [$($type:tt)+] $read:ident;)+) => {
        #[derive(Clone, Debug, Default, PartialEq, clap::Args, schemars::JsonSchema)]
        $(#[$of_all])+
        pub struct $options {
            $($(#[$attribute])+
            pub $name: Option<$($type)+>,)+
        }

        impl $options {
            /// Names of all options, as the file has them.
            pub const NAMES: &[&str] = &[$(stringify!($name)),+];

            pub(in crate::config) fn read(table: &mut Table<'_, '_>) -> Self {
                Self { $($name: table.$read(stringify!($name))),+ }
            }

            /// These options, and where one is not set, the other's.
            pub fn or(self, other: &Self) -> Self {
                Self { $($name: self.$name.or_else(|| other.$name.clone())),+ }
            }

            /// Names and values of what is set, as the file would have them.
            pub fn shown(&self) -> Vec<(&'static str, String)> {
                let mut shown = vec![];
                $(if let Some(value) = &self.$name {
                    shown.push((stringify!($name), value.to_toml()));
                })+
                shown
            }
        }
    };
}

pub(super) use options;

/// A value as the file would have it.
pub(super) trait ToToml {
    fn to_toml(&self) -> String;
}

macro_rules! to_toml {
    (quoted $($kind:ty),+) => {
        $(impl ToToml for $kind {
            fn to_toml(&self) -> String {
                toml::Value::from(self.to_string()).to_string()
            }
        })+
    };
    (bare $($kind:ty),+) => {
        $(impl ToToml for $kind {
            fn to_toml(&self) -> String {
                self.to_string()
            }
        })+
    };
}

to_toml!(quoted Span, Size, Rate, Symlinks, Deletions, Compare, MirrorCompare, MaxDelete, Sse);
to_toml!(quoted Line, EndpointUrl, StorageClass, Namespace, Loopback);
to_toml!(bare bool, Transfers);

impl<T: ToString> ToToml for Vec<T> {
    fn to_toml(&self) -> String {
        let texts: Vec<String> = self.iter().map(ToString::to_string).collect();
        toml::Value::from(texts).to_string()
    }
}

options! {
    /// What may be set for a backup, as far as it was set in one place.
    #[command(next_help_heading = "Backup options")]
    BackupOptions;
    /// Back up only files that match, or lie below a folder that does (gitignore rules)
    #[arg(long, env = "KEEPWATCH_INCLUDE", hide_env = true, value_name = "PATTERN",
        allow_hyphen_values = true)]
    include: [Vec<Pattern>] list;
    /// Leave out what matches (gitignore rules)
    #[arg(long, env = "KEEPWATCH_EXCLUDE", hide_env = true, value_name = "PATTERN",
        allow_hyphen_values = true)]
    exclude: [Vec<Pattern>] list;
    /// Leave out folders that hold a file of this name
    #[arg(long, env = "KEEPWATCH_EXCLUDE_IF_PRESENT", hide_env = true, value_name = "NAME")]
    exclude_if_present: [Vec<FileName>] list;
    /// Leave out larger files
    #[arg(long, env = "KEEPWATCH_MAX_FILE_SIZE", hide_env = true, value_name = "SIZE",
        allow_hyphen_values = true)]
    max_file_size: [Size] parsed;
    /// Leave out what is mounted below the source
    #[arg(long, env = "KEEPWATCH_ONE_FILE_SYSTEM", hide_env = true, value_name = "BOOL",
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    one_file_system: [bool] switch;
    /// Store symbolic links as they are, or skip them: store, skip
    #[arg(long, env = "KEEPWATCH_SYMLINKS", hide_env = true, value_name = "WHAT")]
    symlinks: [Symlinks] parsed;
    /// What happens to objects whose file is gone: delete, tag, keep
    #[arg(long, env = "KEEPWATCH_DELETIONS", hide_env = true, value_name = "WHAT")]
    deletions: [Deletions] parsed;
    /// How long a file must be gone before its object is deleted (60s; 0s in one-shot commands)
    #[arg(long, env = "KEEPWATCH_DELETE_DELAY", hide_env = true, value_name = "DURATION",
        allow_hyphen_values = true)]
    delete_delay: [Span] parsed;
    /// How many files may be deleted within 24 hours without asking (25%)
    #[arg(long, env = "KEEPWATCH_MAX_DELETE", hide_env = true, value_name = "SHARE",
        allow_hyphen_values = true)]
    max_delete: [MaxDelete] parsed;
    /// How long a file must be quiet before it is uploaded (2s)
    #[arg(long, env = "KEEPWATCH_SETTLE", hide_env = true, value_name = "DURATION",
        allow_hyphen_values = true)]
    settle: [Span] parsed;
    /// How long a file that is never quiet waits at most (60s)
    #[arg(long, env = "KEEPWATCH_MAX_WAIT", hide_env = true, value_name = "DURATION",
        allow_hyphen_values = true)]
    max_wait: [Span] parsed;
    /// How often everything is looked at, whatever the watcher says (1h)
    #[arg(long, env = "KEEPWATCH_RESCAN", hide_env = true, value_name = "DURATION",
        allow_hyphen_values = true)]
    rescan: [Span] parsed;
    /// How often the bucket is listed and compared (7d)
    #[arg(long, env = "KEEPWATCH_VERIFY_EVERY", hide_env = true, value_name = "DURATION",
        allow_hyphen_values = true)]
    verify_every: [Span] parsed;
    /// What makes a file count as unchanged: fingerprint, md5, size
    #[arg(long, env = "KEEPWATCH_COMPARE", hide_env = true, value_name = "WHAT")]
    compare: [Compare] parsed;
    /// Storage class of new objects
    #[arg(long, env = "KEEPWATCH_STORAGE_CLASS", hide_env = true, value_name = "CLASS")]
    storage_class: [StorageClass] parsed;
    /// Server-side encryption: AES256, aws:kms, aws:kms:dsse
    #[arg(long, env = "KEEPWATCH_SSE", hide_env = true, value_name = "WHAT")]
    sse: [Sse] parsed;
    /// Key for aws:kms
    #[arg(long, env = "KEEPWATCH_SSE_KMS_KEY_ID", hide_env = true, value_name = "KEY")]
    sse_kms_key_id: [Line] parsed;
    /// Larger files are sent in parts (16MiB)
    #[arg(long, env = "KEEPWATCH_MULTIPART_THRESHOLD", hide_env = true, value_name = "SIZE",
        allow_hyphen_values = true)]
    multipart_threshold: [Size] parsed;
    /// Size of a part (8MiB, more for very large files)
    #[arg(long, env = "KEEPWATCH_PART_SIZE", hide_env = true, value_name = "SIZE",
        allow_hyphen_values = true)]
    part_size: [Size] parsed;
    /// Transfers at the same time (16)
    #[arg(long, env = "KEEPWATCH_TRANSFERS", hide_env = true, value_name = "N",
        allow_hyphen_values = true)]
    transfers: [Transfers] parsed;
    /// Bytes a second to send at most (off)
    #[arg(long, env = "KEEPWATCH_BANDWIDTH", hide_env = true, value_name = "RATE",
        allow_hyphen_values = true)]
    bandwidth: [Rate] parsed;
    /// The account that must own the bucket
    #[arg(long, env = "KEEPWATCH_BUCKET_OWNER", hide_env = true, value_name = "ACCOUNT")]
    bucket_owner: [Line] parsed;
    /// Make the bucket if it is not there
    #[arg(long, env = "KEEPWATCH_CREATE_BUCKET", hide_env = true, value_name = "BOOL",
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    create_bucket: [bool] switch;
    /// URL of the S3 endpoint
    #[arg(skip)]
    endpoint_url: [EndpointUrl] parsed;
    /// Region of the bucket
    #[arg(skip)]
    region: [Line] parsed;
    /// Profile in the shared AWS configuration
    #[arg(skip)]
    profile: [Line] parsed;
    /// Put the bucket's name in the path, not in the host name
    #[arg(skip)]
    path_style: [bool] switch;
    /// File with credentials, in the format of ~/.aws/credentials
    #[arg(skip)]
    credentials_file: [Line] parsed;
}
