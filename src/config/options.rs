//! The options of a backup, each written down once: its name in the file and on the command line,
//! its variable, and its words for both.

use super::file::Table;
use super::units::{Rate, Size, Span};
use crate::plan::{Compare, Deletions, MaxDelete, Symlinks};

macro_rules! options {
    ($($(#[doc = $doc:literal])+ $name:ident: [$($type:tt)+] $read:ident, $env:literal, $value:literal
        $(, $extra:ident = $extra_value:expr)*;)+) => {
        /// What may be set for a backup, as far as it was set in one place.
        #[derive(Clone, Debug, Default, PartialEq, clap::Args, schemars::JsonSchema)]
        #[command(next_help_heading = "Backup options")]
        pub struct BackupOptions {
            $($(#[doc = $doc])+
            #[arg(long, env = $env, value_name = $value, hide_env = true $(, $extra = $extra_value)*)]
            pub $name: Option<$($type)+>,)+
        }

        impl BackupOptions {
            /// Names of all options, as the file has them.
            pub const NAMES: &[&str] = &[$(stringify!($name)),+];

            pub(super) fn read(table: &mut Table<'_, '_>) -> Self {
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

/// A value as the file would have it.
trait ToToml {
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

to_toml!(quoted String, Span, Size, Rate, Symlinks, Deletions, Compare, MaxDelete);
to_toml!(bare bool, usize);

impl ToToml for Vec<String> {
    fn to_toml(&self) -> String {
        toml::Value::from(self.clone()).to_string()
    }
}

options! {
    /// Back up only files that match, or lie below a folder that does (gitignore rules)
    include: [Vec<String>] list, "KEEPWATCH_INCLUDE", "PATTERN";
    /// Leave out what matches (gitignore rules)
    exclude: [Vec<String>] list, "KEEPWATCH_EXCLUDE", "PATTERN";
    /// Leave out folders that hold a file of this name
    exclude_if_present: [Vec<String>] list, "KEEPWATCH_EXCLUDE_IF_PRESENT", "NAME";
    /// Leave out larger files
    max_file_size: [Size] parsed, "KEEPWATCH_MAX_FILE_SIZE", "SIZE";
    /// Leave out what is mounted below the source
    one_file_system: [bool] switch, "KEEPWATCH_ONE_FILE_SYSTEM", "BOOL",
        num_args = 0..=1, require_equals = true, default_missing_value = "true";
    /// Store symbolic links as they are, or skip them: store, skip
    symlinks: [Symlinks] parsed, "KEEPWATCH_SYMLINKS", "WHAT";
    /// What happens to objects whose file is gone: delete, tag, keep
    deletions: [Deletions] parsed, "KEEPWATCH_DELETIONS", "WHAT";
    /// How long a file must be gone before its object is deleted (60s; 0s in one-shot commands)
    delete_delay: [Span] parsed, "KEEPWATCH_DELETE_DELAY", "DURATION";
    /// How many files may be deleted within 24 hours without asking (25%)
    max_delete: [MaxDelete] parsed, "KEEPWATCH_MAX_DELETE", "SHARE";
    /// How long a file must be quiet before it is uploaded (2s)
    settle: [Span] parsed, "KEEPWATCH_SETTLE", "DURATION";
    /// How long a file that is never quiet waits at most (60s)
    max_wait: [Span] parsed, "KEEPWATCH_MAX_WAIT", "DURATION";
    /// How often everything is looked at, whatever the watcher says (1h)
    rescan: [Span] parsed, "KEEPWATCH_RESCAN", "DURATION";
    /// How often the bucket is listed and compared (7d)
    verify_every: [Span] parsed, "KEEPWATCH_VERIFY_EVERY", "DURATION";
    /// What makes a file count as unchanged: fingerprint, md5, size
    compare: [Compare] parsed, "KEEPWATCH_COMPARE", "WHAT";
    /// Storage class of new objects
    storage_class: [String] parsed, "KEEPWATCH_STORAGE_CLASS", "CLASS";
    /// Server-side encryption: AES256, aws:kms
    sse: [String] parsed, "KEEPWATCH_SSE", "WHAT";
    /// Key for aws:kms
    sse_kms_key_id: [String] parsed, "KEEPWATCH_SSE_KMS_KEY_ID", "KEY";
    /// Larger files are sent in parts (16MiB)
    multipart_threshold: [Size] parsed, "KEEPWATCH_MULTIPART_THRESHOLD", "SIZE";
    /// Size of a part (8MiB, more for very large files)
    part_size: [Size] parsed, "KEEPWATCH_PART_SIZE", "SIZE";
    /// Transfers at the same time (16)
    transfers: [usize] count, "KEEPWATCH_TRANSFERS", "N";
    /// Bytes a second to send at most (off)
    bandwidth: [Rate] parsed, "KEEPWATCH_BANDWIDTH", "RATE";
    /// The account that must own the bucket
    bucket_owner: [String] parsed, "KEEPWATCH_BUCKET_OWNER", "ACCOUNT";
    /// Make the bucket if it is not there
    create_bucket: [bool] switch, "KEEPWATCH_CREATE_BUCKET", "BOOL",
        num_args = 0..=1, require_equals = true, default_missing_value = "true";
    /// URL of the S3 endpoint
    endpoint_url: [String] parsed, "KEEPWATCH_ENDPOINT_URL", "URL";
    /// Region of the bucket
    region: [String] parsed, "KEEPWATCH_REGION", "REGION";
    /// Profile in the shared AWS configuration
    profile: [String] parsed, "KEEPWATCH_PROFILE", "PROFILE";
    /// Put the bucket's name in the path, not in the host name
    path_style: [bool] switch, "KEEPWATCH_PATH_STYLE", "BOOL",
        num_args = 0..=1, require_equals = true, default_missing_value = "true";
    /// File with credentials, in the format of ~/.aws/credentials
    credentials_file: [String] parsed, "KEEPWATCH_CREDENTIALS_FILE", "FILE";
}
