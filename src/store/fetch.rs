//! Finding a version of an object and opening its body; and the body as a stream.
//!
//! Changes nothing. A body that is opened stays readable whatever is written meanwhile. Called by
//! the operations that read objects: get, head, copy, attributes, tags.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use http::{HeaderMap, HeaderName, HeaderValue};
use rusqlite::Connection;
use s3s::dto::StreamingBlob;
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{Body, S3Error, S3ErrorCode};

use super::bodies::{Bodies, Home};
use super::clock::{http_date, timestamp_of_s};
use super::damage;
use super::fault::{Fault, Outcome, no_such_key, no_such_version, refuse};
use super::head::is_archive;
use super::rows::{self, Bucket, Thaw, Version};
use super::versions::{check_version_id, shown};

/// How much is read at once: what a small object takes, it costs one trip to a blocking thread.
const CHUNK_BYTES: u64 = 512 * 1024;
/// A body can move between finding and opening it, but not this often.
const TRIES: usize = 32;

/// A version that is an object.
pub(super) struct Found {
    pub(super) bucket: Bucket,
    pub(super) version: Version,
    /// Its body is not what was stored; the ETag says so.
    pub(super) damaged: bool,
}

impl Found {
    /// Its version id, as answers show it.
    pub(super) fn version_id(&self) -> Option<String> {
        shown(&self.bucket, &self.version.version)
    }
}

/// Finds the object that a request for `key`, with or without a version id, is about.
///
/// # Errors
/// `NoSuchBucket`, `NoSuchKey`, `NoSuchVersion`; `MethodNotAllowed` for a delete marker.
pub(super) fn find(
    conn: &Connection,
    bucket: &str,
    key: &str,
    version: Option<&str>,
) -> Outcome<Found> {
    let bucket = rows::bucket(conn, bucket)?;
    let found = match version {
        None => rows::latest(conn, bucket.id, key)?.ok_or_else(no_such_key)?,
        Some(version) => {
            check_version_id(version)?;
            rows::version(conn, bucket.id, key, version)?.ok_or_else(no_such_version)?
        }
    };
    if found.marker {
        return Err(hidden_by(&found, version.is_some()).into());
    }
    Ok(Found { bucket, version: found, damaged: false })
}

fn hidden_by(marker: &Version, asked_for: bool) -> S3Error {
    let mut headers = HeaderMap::new();
    let mut add = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    add("x-amz-delete-marker", "true");
    add("x-amz-version-id", &marker.version);
    add("content-type", "application/xml");
    let mut error = no_such_key();
    if asked_for {
        add("allow", "DELETE");
        add("last-modified", &http_date(&timestamp_of_s(marker.modified_s)));
        error = refuse(
            S3ErrorCode::MethodNotAllowed,
            "The specified method is not allowed against this resource.",
        );
    }
    error.set_headers(headers);
    error
}

/// Finds an object and opens its body. `admit` may refuse what was found before it is opened.
pub(super) fn open(
    conn: &Connection,
    bodies: &Bodies,
    (bucket, key, version): (&str, &str, Option<&str>),
    admit: impl Fn(&Found) -> Outcome<()>,
) -> Outcome<(Found, File)> {
    for _ in 0..TRIES {
        let found = find(conn, bucket, key, version)?;
        admit(&found)?;
        let Some(place) = found.version.place(bucket, key) else { break };
        let Some(mut opened) = bodies.open_body(place)? else { continue };
        if opened.by_plain_path {
            // The path may have changed hands before it was opened; if not by now, it had not.
            let home = rows::place_of(conn, place.body)?.map(|(home, ..)| home);
            if home != Some(Home::Plain) {
                continue;
            }
        }
        if !damage::is_whole(bodies, &found.version, &mut opened.file)? {
            return Err(changed_by_hand(bucket, key));
        }
        return Ok((found, opened.file));
    }
    Err(Fault::Damaged(format!("the body of {bucket}/{key} is missing from the store's folder")))
}

/// Finds an object, and tells whether its body is what was stored.
pub(super) fn look(
    conn: &Connection,
    bodies: &Bodies,
    target: (&str, &str, Option<&str>),
) -> Outcome<Found> {
    let (bucket, key, version) = target;
    match open(conn, bodies, target, |_| Ok(())) {
        Ok((found, _)) => Ok(found),
        Err(Fault::Damaged(_)) => {
            let mut found = find(conn, bucket, key, version)?;
            found.version.etag = found.version.body.map(damage::etag).unwrap_or_default();
            found.damaged = true;
            Ok(found)
        }
        Err(fault) => Err(fault),
    }
}

/// The file of a body is not what was stored.
pub(super) fn changed_by_hand(bucket: &str, key: &str) -> Fault {
    Fault::Damaged(format!("the file of {bucket}/{key} was changed behind the store's back"))
}

/// What can be said of the copy of an archived object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ThawState {
    /// Not restored, or the copy has expired.
    Frozen,
    Ongoing,
    /// Readable until then, in ms since the epoch.
    Thawed {
        until_ms: i64,
    },
}

pub(super) fn thaw_state(thaw: Option<Thaw>, now_ms: i64) -> ThawState {
    match thaw {
        Some(thaw) if now_ms < thaw.from_ms => ThawState::Ongoing,
        Some(thaw) if now_ms < thaw.until_ms => ThawState::Thawed { until_ms: thaw.until_ms },
        _ => ThawState::Frozen,
    }
}

/// # Errors
/// `InvalidObjectState` when the object is archived and has no readable copy.
pub(super) fn check_readable(version: &Version, now_ms: i64) -> Outcome<()> {
    let thawed = matches!(thaw_state(version.thaw, now_ms), ThawState::Thawed { .. });
    if !is_archive(&version.class) || thawed {
        return Ok(());
    }
    Err(refuse(
        S3ErrorCode::InvalidObjectState,
        "The operation is not valid for the object's storage class",
    )
    .into())
}

/// The start of a body, read while it is opened; the rest is read as it is asked for.
pub(super) struct Opening {
    first: Bytes,
    file: File,
    rest_bytes: u64,
}

/// Begins to read a range of a body. Blocks.
pub(super) fn begin(mut file: File, range: Range<u64>) -> Outcome<Opening> {
    let unreadable = |e| Fault::Trouble(format!("cannot read a body: {e}"));
    if range.start > 0 {
        file.seek(SeekFrom::Start(range.start)).map_err(unreadable)?;
    }
    let size_bytes = range.end - range.start;
    let first = read_chunk(&mut file, size_bytes).map_err(unreadable)?;
    Ok(Opening { rest_bytes: size_bytes - first.len() as u64, first, file })
}

fn read_chunk(file: &mut File, rest_bytes: u64) -> std::io::Result<Bytes> {
    // INVARIANT: no larger than CHUNK_BYTES, which a usize can hold.
    let mut chunk = vec![0; rest_bytes.min(CHUNK_BYTES) as usize];
    file.read_exact(&mut chunk)?;
    Ok(chunk.into())
}

impl Opening {
    pub(super) fn into_stream(self) -> StreamingBlob {
        if self.rest_bytes == 0 {
            return StreamingBlob::from(Body::from(self.first));
        }
        let remaining_bytes = self.rest_bytes + self.first.len() as u64;
        let chunks =
            try_unfold((self.file, self.rest_bytes), |(mut file, rest_bytes)| async move {
                if rest_bytes == 0 {
                    return Ok(None);
                }
                let read = move || {
                    let chunk = read_chunk(&mut file, rest_bytes)?;
                    let rest_bytes = rest_bytes - chunk.len() as u64;
                    Ok(Some((chunk, (file, rest_bytes))))
                };
                tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)?
            });
        let chunks = Box::pin(chunks);
        StreamingBlob::new(BodyStream { first: Some(self.first), chunks, remaining_bytes })
    }
}

type Chunks = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send + Sync>>;

/// A stream that knows how many bytes are to come.
struct BodyStream {
    first: Option<Bytes>,
    chunks: Chunks,
    remaining_bytes: u64,
}

impl Stream for BodyStream {
    type Item = Result<Bytes, s3s::StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => self.chunks.as_mut().poll_next(cx),
        };
        if let Poll::Ready(Some(Ok(chunk))) = &next {
            self.remaining_bytes -= chunk.len() as u64;
        }
        next.map_err(Into::into)
    }
}

impl ByteStream for BodyStream {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(usize::try_from(self.remaining_bytes).unwrap_or(usize::MAX))
    }
}
