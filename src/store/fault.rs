//! Why an operation of the store did not succeed: S3's rules refused it, or there was trouble with
//! the index or with a file.
//!
//! Every layer below `api` returns a [`Fault`]; the S3 operations turn it into an S3 error with
//! `?`. Trouble keeps its cause in the message of the error. Nothing is logged here.

use std::io;
use std::path::Path;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use rusqlite::ErrorCode;
use s3s::{S3Error, S3ErrorCode};

/// A refusal or a trouble.
#[derive(Debug)]
pub(super) enum Fault {
    /// The request breaks a rule of S3, or names what is not there.
    Refused(S3Error),
    /// SQLite failed.
    Index(rusqlite::Error),
    /// The disk of the store, or the room that its user may have there, is full.
    Full(String),
    /// The store's path leads to another folder now, or nowhere.
    Away(String),
    /// The store is open for reading only.
    ReadOnly(String),
    /// The file of a body is gone, or not what was stored.
    Damaged(String),
    /// Anything else that is not the client's doing: what was tried, and the cause.
    Trouble(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Index(error) => error.fmt(f),
            Self::Full(words)
            | Self::Away(words)
            | Self::ReadOnly(words)
            | Self::Damaged(words)
            | Self::Trouble(words) => f.write_str(words),
        }
    }
}

pub(super) type Outcome<T> = Result<T, Fault>;

impl Fault {
    /// `doing` names the act, such as `"open"`.
    pub(super) fn file(doing: &str, path: &Path, cause: &io::Error) -> Self {
        let message = format!("cannot {doing} {}: {cause}", path.display());
        match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(message),
            _ => Self::Trouble(message),
        }
    }
}

impl From<S3Error> for Fault {
    fn from(error: S3Error) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Index(error)
    }
}

impl From<Fault> for S3Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(error) => error,
            Fault::Index(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                refuse(S3ErrorCode::SlowDown, format!("the store's index is busy: {error}"))
            }
            Fault::Index(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                full(format!("cannot write the store's index: {error}"))
            }
            Fault::Full(message) => full(message),
            Fault::Away(message) => away(message),
            Fault::ReadOnly(message) => refuse_as("StoreReadOnly", 403, message),
            // No 5xx: to try again is no use.
            Fault::Damaged(message) => refuse_as("ObjectDamaged", 422, message),
            Fault::Index(error) => {
                refuse(S3ErrorCode::InternalError, format!("the store's index failed: {error}"))
            }
            Fault::Trouble(message) => refuse(S3ErrorCode::InternalError, message),
        }
    }
}

/// An S3 error with a message of our own.
pub(super) fn refuse(code: S3ErrorCode, message: impl Into<String>) -> S3Error {
    S3Error::with_message(code, message.into())
}

/// An S3 error whose code s3s has no name for. `status` is an HTTP status.
pub(super) fn refuse_as(code: &'static str, status: u16, message: impl Into<String>) -> S3Error {
    let mut error = refuse(S3ErrorCode::Custom(code.into()), message);
    if let Ok(status) = http::StatusCode::from_u16(status) {
        error.set_status_code(status);
    }
    error
}

/// 507, as other stores on disks have it.
fn full(message: String) -> S3Error {
    refuse_as("InsufficientStorage", 507, message)
}

/// 503 with a code of our own, also in a header, as replies to HEAD have no body. The client side
/// (`s3::error`) takes it for a server that cannot be reached.
fn away(message: String) -> S3Error {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(message.as_bytes()) {
        headers.insert(HeaderName::from_static("x-keepwatch-store-away"), value);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    let mut error = refuse_as("StoreAway", 503, message);
    error.set_headers(headers);
    error
}

/// 501 for a part of S3 that this store does not carry.
pub(super) fn not_carried(what: &str) -> S3Error {
    refuse(S3ErrorCode::NotImplemented, format!("This store does not carry {what}."))
}

/// 400 InvalidArgument.
pub(super) fn invalid_argument(message: impl Into<String>) -> S3Error {
    refuse(S3ErrorCode::InvalidArgument, message)
}

/// 400 InvalidRequest.
pub(super) fn invalid_request(message: impl Into<String>) -> S3Error {
    refuse(S3ErrorCode::InvalidRequest, message)
}

pub(super) fn no_such_bucket() -> S3Error {
    refuse(S3ErrorCode::NoSuchBucket, "The specified bucket does not exist.")
}

pub(super) fn no_such_key() -> S3Error {
    refuse(S3ErrorCode::NoSuchKey, "The specified key does not exist.")
}

pub(super) fn no_such_version() -> S3Error {
    refuse(S3ErrorCode::NoSuchVersion, "The specified version does not exist.")
}

pub(super) fn no_such_upload() -> S3Error {
    refuse(
        S3ErrorCode::NoSuchUpload,
        "The specified upload does not exist. It may have been aborted or completed.",
    )
}

pub(super) fn precondition_failed(condition: &str) -> S3Error {
    refuse(
        S3ErrorCode::PreconditionFailed,
        format!("At least one of the preconditions you specified did not hold: {condition}."),
    )
}
