//! The access log: one record for each finished request.
//!
//! Tests use it as a witness, `serve --access-log` writes it down. A request is finished when its
//! answer is: at once when the answer is in memory, else when its body was sent or given up. Fed by
//! [`super::endpoint`].

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use s3s::path::S3Path;
use s3s::{Body, HttpRequest, HttpResponse, StdError};
use serde::Serialize;

use super::api::ResultEtag;
use super::head::form_decoded;

/// Hears of every finished request, on the thread that finished it.
pub type OnAccess = Arc<dyn Fn(&Access) + Send + Sync>;

/// One finished request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Access {
    /// When the request came, in milliseconds since the epoch, by the store's clock.
    pub time_ms: i64,
    /// As S3 names it, such as `PutObject`; empty when the request was refused before that was
    /// known (a bad signature, no operation at all).
    pub operation: String,
    pub bucket: Option<String>,
    pub key: Option<String>,
    pub version_id: Option<String>,
    pub upload_id: Option<String>,
    pub part_number: Option<u32>,
    pub status: u16,
    /// S3's error code. HEAD requests have one too, though S3 does not send it.
    pub error: Option<String>,
    /// Of the body as it came, with aws-chunked's framing if there was any.
    pub received_bytes: u64,
    /// Of the body as it was sent.
    pub sent_bytes: u64,
    /// Of the object or part that was read or written, without quotes.
    pub etag: Option<String>,
}

/// What is learned of a request inside s3s, by way of the request's extensions.
#[derive(Clone, Default)]
pub(super) struct Note(Arc<Mutex<Access>>);

impl Note {
    pub(super) fn operation(&self, name: &str, path: &S3Path) {
        let mut access = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        access.operation = name.to_owned();
        access.bucket = path.get_bucket_name().map(str::to_owned);
        access.key = path.get_object_key().map(str::to_owned);
    }
}

/// The record of a request that is under way.
pub(super) struct Pending {
    note: Note,
    received: Arc<AtomicU64>,
    on_access: OnAccess,
}

impl Pending {
    /// Begins a record, and counts the body of the request.
    pub(super) fn begin(req: &mut HttpRequest, on_access: OnAccess, time_ms: i64) -> Self {
        let mut access = Access { time_ms, ..Access::default() };
        for pair in req.uri().query().unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = || form_decoded(value).ok();
            match name {
                "uploadId" => access.upload_id = value(),
                "versionId" => access.version_id = value(),
                "partNumber" => access.part_number = value().and_then(|v| v.parse().ok()),
                _ => {}
            }
        }
        let note = Note(Arc::new(Mutex::new(access)));
        req.extensions_mut().insert(note.clone());
        let received = Arc::new(AtomicU64::new(0));
        let body = std::mem::take(req.body_mut());
        *req.body_mut() = Body::http_body(Counted { body, count: received.clone(), pending: None });
        Self { note, received, on_access }
    }

    /// Ends the record with the answer, or when the answer's body ends. `headers_only`: the body is
    /// not sent.
    pub(super) fn end(self, response: HttpResponse, headers_only: bool) -> HttpResponse {
        let (parts, body) = response.into_parts();
        let in_memory = body.bytes();
        {
            let mut access = self.note.0.lock().unwrap_or_else(PoisonError::into_inner);
            access.status = parts.status.as_u16();
            access.etag = match (parts.extensions.get::<ResultEtag>(), parts.headers.get("etag")) {
                (Some(ResultEtag(etag)), _) => Some(etag.clone()),
                (None, Some(etag)) => etag.to_str().ok().map(|e| e.trim_matches('"').to_owned()),
                (None, None) => None,
            };
            access.error = in_memory.as_ref().and_then(|xml| error_code(parts.status, xml));
        }
        let count = Arc::new(AtomicU64::new(0));
        let pending = Finished { pending: self, sent: count.clone() };
        let body = match in_memory {
            Some(bytes) => {
                let sent_bytes = if headers_only { 0 } else { bytes.len() as u64 };
                count.store(sent_bytes, Ordering::Relaxed);
                drop(pending);
                Body::from(bytes)
            }
            None => Body::http_body(Counted { body, count, pending: Some(pending) }),
        };
        HttpResponse::from_parts(parts, body)
    }
}

/// The code in an error's XML, which s3s has written by now.
fn error_code(status: StatusCode, xml: &Bytes) -> Option<String> {
    if status.is_success() {
        return None;
    }
    let text = std::str::from_utf8(xml).ok()?;
    let (_, rest) = text.split_once("<Code>")?;
    rest.split_once("</Code>").map(|(code, _)| code.to_owned())
}

/// Tells of the request when it is dropped: with the end of the answer, however that came.
struct Finished {
    pending: Pending,
    sent: Arc<AtomicU64>,
}

impl Drop for Finished {
    fn drop(&mut self) {
        let mut access = self.pending.note.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        access.received_bytes = self.pending.received.load(Ordering::Relaxed);
        access.sent_bytes = self.sent.load(Ordering::Relaxed);
        (self.pending.on_access)(&access);
    }
}

/// A body whose bytes are counted.
struct Counted {
    body: Body,
    count: Arc<AtomicU64>,
    pending: Option<Finished>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                let size_bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                self.count.fetch_add(size_bytes, Ordering::Relaxed);
            }
            Poll::Ready(None) => drop(self.pending.take()),
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
