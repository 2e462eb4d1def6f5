//! Configuration: what the user wrote, checked as a whole, and resolved.
//!
//! Every fault is reported at once, with its line and a caret. A flag beats the environment, which
//! beats the `[[backup]]` entry, which beats the file's top level, which beats the default. Knows
//! policies, never adapters; only `cli` uses it.

mod cloudwatch;
pub mod destination;
mod fault;
mod file;
mod mirror;
mod options;
mod place;
mod resolve;
mod status;
pub mod units;
mod words;

pub use cloudwatch::{CloudWatchConfig, CloudWatchOptions, resolve_cloudwatch};
pub use destination::{Destination, DestinationError};
pub use fault::{Fault, Faults, without_secrets};
pub use file::{ConfigFile, Finding, NamedBackup, NamedMirror, read};
pub use mirror::{Bucket, MirrorConfig, MirrorOptions, resolve_mirror, resolve_mirrors};
pub use options::BackupOptions;
pub use place::real_path;
pub use resolve::{BackupConfig, Defaults, given_by_systemd, resolve, resolve_one, settle};
pub use status::{Loopback, StatusOptions};
pub use words::{EndpointUrl, Line, Pattern};

/// The commented example, as `config example` prints it.
pub const EXAMPLE: &str = include_str!("../../config/keepwatch.toml");

/// Whether a file may have a key, or a table, of this name.
fn is_key(name: &str) -> bool {
    const OTHERS: [&str; 7] =
        ["backup", "mirror", "status", "cloudwatch", "name", "source", "destination"];
    let options = [
        BackupOptions::NAMES,
        MirrorOptions::NAMES,
        StatusOptions::NAMES,
        CloudWatchOptions::NAMES,
        &OTHERS,
    ];
    options.concat().contains(&name)
}

/// JSON Schema of the configuration file.
pub fn schema() -> serde_json::Value {
    file::schema()
}

#[cfg(test)]
mod tests;
