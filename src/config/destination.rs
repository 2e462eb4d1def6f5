//! Destinations as people write them: `s3://bucket/prefix`, `bucket::prefix`, `file:///folder`,
//! `default`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

use crate::model::key::RESERVED_NAME;
use crate::model::{Escaped, Prefix};

use super::fault::without_secrets;
use super::place::real_path;

/// Bucket of the embedded store where the URL names none.
pub const STORE_BUCKET: &str = "keepwatch";

/// Where bytes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    S3 {
        bucket: String,
        prefix: Prefix,
    },
    /// The embedded store: `file:///folder`, or `file:///folder#bucket/prefix`.
    Store {
        folder: PathBuf,
        bucket: String,
        prefix: Prefix,
    },
    /// A new bucket with a generated name, remembered for the source.
    Default,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum DestinationError {
    #[error(
        "{0:?} is not a destination; write s3://bucket/prefix, bucket::prefix, file:///folder, \
         or default"
    )]
    Shape(String),
    #[error("{0:?} is not a bucket name: 3 to 63 characters, a-z, 0-9, '-' and '.'")]
    Bucket(String),
    #[error(
        "no keys belong in a destination, and no bucket has ':' or '@' in its name: write \
         s3://bucket/prefix, and name a profile or a credentials_file"
    )]
    Keys,
    #[error("file: destinations need an absolute path: file:///folder")]
    Relative,
    #[error("the prefix {0:?} has a part that is empty, \".\", \"..\" or \".keepwatch\"")]
    Prefix(String),
    #[error("the prefix is longer than S3 allows for a whole key (1024 bytes)")]
    PrefixTooLong,
}

impl Destination {
    /// The store's folder without links and dots.
    pub fn in_real_folder(self) -> Self {
        match self {
            Self::Store { folder, bucket, prefix } => {
                Self::Store { folder: real_path(&folder), bucket, prefix }
            }
            other => other,
        }
    }
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        if text == "default" {
            return Ok(Self::Default);
        }
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            return s3(bucket, prefix);
        }
        if let Some(rest) = text.strip_prefix("file://") {
            return store(rest);
        }
        match text.split_once("::") {
            Some((bucket, prefix)) => s3(bucket, prefix),
            None => Err(DestinationError::Shape(without_keys(text))),
        }
    }
}

/// As it was typed, without what may be a key: users before an @, and what a signed URL ends with.
fn without_keys(text: &str) -> String {
    let text = without_secrets(text);
    let text = match text.rsplit_once('@') {
        Some((_, place)) => format!("***@{place}"),
        None => text,
    };
    match text.split_once('?') {
        Some((place, _)) => format!("{place}?***"),
        None => text,
    }
}

fn s3(bucket: &str, prefix: &str) -> Result<Destination, DestinationError> {
    check_bucket(bucket)?;
    let (bucket, prefix) = (bucket.to_owned(), check_prefix(prefix)?);
    Ok(Destination::S3 { bucket, prefix })
}

fn store(rest: &str) -> Result<Destination, DestinationError> {
    let (folder, inside) = rest.split_once('#').unwrap_or((rest, STORE_BUCKET));
    if !folder.starts_with('/') || folder.trim_matches('/').is_empty() {
        return Err(DestinationError::Relative);
    }
    let (bucket, prefix) = inside.split_once('/').unwrap_or((inside, ""));
    check_bucket(bucket)?;
    let folder = PathBuf::from(format!("/{}", folder.trim_matches('/')));
    let (bucket, prefix) = (bucket.to_owned(), check_prefix(prefix)?);
    Ok(Destination::Store { folder, bucket, prefix })
}

fn check_bucket(bucket: &str) -> Result<(), DestinationError> {
    let fits = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        && bucket.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    match fits {
        true => Ok(()),
        false if bucket.contains([':', '@']) => Err(DestinationError::Keys),
        false => Err(DestinationError::Bucket(bucket.to_owned())),
    }
}

/// The owner record must fit behind the prefix, and so should names of some length.
fn check_prefix(prefix: &str) -> Result<Prefix, DestinationError> {
    let checked = Prefix::new(prefix);
    let mut parts = checked.as_str().split_terminator('/');
    // Tools resolve dots away, and records of other prefixes live under `.keepwatch`.
    if parts.any(|part| matches!(part.as_bytes(), b"" | b"." | b".." | RESERVED_NAME)) {
        return Err(DestinationError::Prefix(prefix.to_owned()));
    }
    if checked.as_str().len() > 900 { Err(DestinationError::PrefixTooLong) } else { Ok(checked) }
}

impl Destination {
    /// What can be written in a configuration.
    pub fn url(&self) -> String {
        match self {
            Self::S3 { bucket, prefix } => format!("s3://{bucket}/{}", prefix.as_str()),
            Self::Store { folder, bucket, prefix } => {
                let mut url = format!("file://{}", folder.display());
                if bucket != STORE_BUCKET || !prefix.as_str().is_empty() {
                    url += &format!("#{bucket}/{}", prefix.as_str());
                }
                url
            }
            Self::Default => "default".to_owned(),
        }
    }
}

/// What can be shown: nothing in a prefix acts on a terminal.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(self.url().as_bytes()).fmt(f)
    }
}
