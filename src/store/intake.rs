//! Takes in a body: from the request to a complete, checked and durable file in `tmp`.
//!
//! Streams: frames are gathered up to a batch, and one trip to a blocking thread hashes and writes
//! it while the next one is gathered. No trip waits for the network, so a slow client holds no
//! thread. Nothing names the file yet: dropping what is returned removes it. Called by the
//! operations that upload: `api::put` and `api::multipart`.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result, TrailingHeaders};
use tokio::task::{JoinHandle, spawn_blocking};

use super::bodies::{Bodies, Draft};
use super::digest::{Claim, Digests, Sums};
use super::fault::{Outcome, refuse, refuse_as};

/// The largest body of one request, in bytes: 5 GiB.
pub(super) const PUT_MAX_BYTES: u64 = 5 << 30;
const BATCH_BYTES: usize = 1 << 20;

/// A body as it comes in.
pub(super) struct Incoming {
    body: Option<StreamingBlob>,
    /// As announced, in bytes, without aws-chunked's framing.
    length: Option<u64>,
    claim: Claim,
    trailers: Option<TrailingHeaders>,
}

impl Incoming {
    /// Takes the body, the claims and the trailers of a request apart.
    ///
    /// # Errors
    /// Malformed claims; a body that is too large.
    pub(super) fn of_request<T>(
        request: &mut S3Request<T>,
        body: Option<StreamingBlob>,
        length: Option<i64>,
    ) -> S3Result<Self> {
        let claim = Claim::of_headers(&request.headers)?;
        let length = length.and_then(|bytes| u64::try_from(bytes).ok());
        check_size(length.unwrap_or(0))?;
        Ok(Self { body, length, claim, trailers: request.trailing_headers.take() })
    }

    pub(super) fn claim(&self) -> &Claim {
        &self.claim
    }
}

/// A body that is complete and is what the client claimed.
pub(super) struct Received {
    pub(super) draft: Draft,
    pub(super) sums: Sums,
}

/// # Errors
/// `BadDigest`, `IncompleteBody`, what the stream itself says, and trouble with the file.
pub(super) async fn receive(bodies: &Arc<Bodies>, mut incoming: Incoming) -> S3Result<Received> {
    let digests = Box::new(Digests::new(incoming.claim.algorithm()));
    let mut sink = Turn::Here(Sink { bodies: bodies.clone(), draft: None, digests });
    let mut received_bytes = 0;
    loop {
        let (batch, size_bytes) = gather(incoming.body.as_mut()).await?;
        received_bytes += size_bytes as u64;
        check_size(received_bytes)?;
        let ready = sink.back().await?;
        if size_bytes < BATCH_BYTES {
            if incoming.length.is_some_and(|length| length != received_bytes) {
                return Err(incomplete());
            }
            let trailers = incoming.trailers.as_ref().and_then(TrailingHeaders::take);
            incoming.claim.add_trailers(trailers.as_ref())?;
            return super::blocking(move || ready.finish(&batch, &incoming.claim)).await;
        }
        sink = Turn::Away(spawn_blocking(move || ready.write(&batch)));
    }
}

fn check_size(size_bytes: u64) -> S3Result<()> {
    if size_bytes <= PUT_MAX_BYTES {
        return Ok(());
    }
    Err(refuse(
        S3ErrorCode::EntityTooLarge,
        "Your proposed upload exceeds the maximum allowed object size.",
    ))
}

fn incomplete() -> S3Error {
    refuse(
        S3ErrorCode::IncompleteBody,
        "You did not provide the number of bytes specified by the Content-Length HTTP header.",
    )
}

/// Frames worth at least [`BATCH_BYTES`]; less at the end of the body only.
async fn gather(body: Option<&mut StreamingBlob>) -> S3Result<(Vec<Bytes>, usize)> {
    let (mut frames, mut size_bytes) = (Vec::new(), 0);
    let Some(body) = body else { return Ok((frames, 0)) };
    while size_bytes < BATCH_BYTES {
        let Some(frame) = body.next().await else { break };
        let frame = frame.map_err(|cause| broken_stream(&cause.to_string()))?;
        size_bytes += frame.len();
        frames.push(frame);
    }
    Ok((frames, size_bytes))
}

/// s3s checks the payload's hash and the chunks' signatures while the body streams; its error types
/// are private, so their text is what there is to go by.
fn broken_stream(cause: &str) -> S3Error {
    if cause.contains("Sha256Mismatch") {
        return refuse_as(
            "XAmzContentSHA256Mismatch",
            400,
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        );
    }
    if cause.contains("SignatureMismatch") {
        let message = "The signature of a chunk of the body does not match.";
        return refuse(S3ErrorCode::SignatureDoesNotMatch, message);
    }
    refuse(S3ErrorCode::IncompleteBody, format!("The body could not be read: {cause}"))
}

/// A body as far as it is written and hashed.
struct Sink {
    bodies: Arc<Bodies>,
    /// `None` before the first byte.
    draft: Option<Draft>,
    digests: Box<Digests>,
}

impl Sink {
    fn write(self, batch: &[Bytes]) -> Outcome<Self> {
        let Self { bodies, draft, mut digests } = self;
        let mut draft = draft.map_or_else(|| bodies.create(), Ok)?;
        for bytes in batch {
            digests.update(bytes);
            draft.write(bytes)?;
        }
        Ok(Self { bodies, draft: Some(draft), digests })
    }

    /// Writes the last batch, checks the claim, and makes the file durable.
    fn finish(self, batch: &[Bytes], claim: &Claim) -> Outcome<Received> {
        let Self { bodies, draft, digests } = self.write(batch)?;
        let mut draft = draft.map_or_else(|| bodies.create(), Ok)?;
        let sums = digests.finish();
        claim.check(&sums)?;
        draft.finish()?;
        Ok(Received { draft, sums })
    }
}

/// Whose turn it is with the sink: ours, or that of a blocking thread.
enum Turn {
    Here(Sink),
    Away(JoinHandle<Outcome<Sink>>),
}

impl Turn {
    async fn back(self) -> S3Result<Sink> {
        match self {
            Self::Here(sink) => Ok(sink),
            Self::Away(task) => super::joined(task.await),
        }
    }
}
