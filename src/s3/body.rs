//! Bodies of requests, in memory, and the pace at which bodies are sent and received.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// Bytes in one frame of a paced body: small, so that the pace is even.
const FRAME_BYTES: usize = 64 * 1024;

/// A limit of bytes a second, shared by all requests of a destination.
#[derive(Debug)]
pub struct Pace {
    bytes_per_s: u64,
    /// When the next frame may be sent.
    next: Mutex<Option<Instant>>,
}

impl Pace {
    pub fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s: bytes_per_s.max(1), next: Mutex::new(None) }
    }

    /// Waits until so many bytes may pass.
    pub async fn pass(&self, bytes: usize) {
        tokio::time::sleep_until(self.turn(bytes)).await;
    }

    /// Takes a turn for so many bytes; answers with when to send them.
    fn turn(&self, bytes: usize) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = Instant::now();
        let at = next.map_or(now, |at| at.max(now));
        let cost_ns = u128::from(bytes as u64) * 1_000_000_000 / u128::from(self.bytes_per_s);
        *next = Some(at + Duration::from_nanos(u64::try_from(cost_ns).unwrap_or(u64::MAX)));
        at
    }
}

/// A body that can be sent again on a retry.
pub fn body(bytes: Bytes, pace: Option<&Arc<Pace>>) -> ByteStream {
    match pace {
        None => ByteStream::from(bytes),
        Some(pace) => {
            let pace = pace.clone();
            ByteStream::new(SdkBody::retryable(move || {
                let (bytes, pace) = (bytes.clone(), pace.clone());
                SdkBody::from_body_1_x(Paced { bytes, pace, wait: None })
            }))
        }
    }
}

struct Paced {
    bytes: Bytes,
    pace: Arc<Pace>,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Body for Paced {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.bytes.len().min(FRAME_BYTES);
        if self.wait.is_none() {
            let at = self.pace.turn(length);
            self.wait = Some(Box::pin(tokio::time::sleep_until(at)));
        }
        if let Some(wait) = &mut self.wait {
            std::task::ready!(wait.as_mut().poll(cx));
        }
        self.wait = None;
        Poll::Ready(Some(Ok(Frame::data(self.bytes.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test(start_paused = true)]
    async fn two_bodies_share_the_pace() {
        let pace = Arc::new(Pace::new(1024 * 1024));
        let started = Instant::now();
        let send =
            || Paced { bytes: Bytes::from(vec![7; 1024 * 1024]), pace: pace.clone(), wait: None };
        let (a, b) = tokio::join!(send().collect(), send().collect());
        assert_eq!(a.unwrap().to_bytes().len() + b.unwrap().to_bytes().len(), 2 * 1024 * 1024);
        let took = started.elapsed().as_millis();
        assert!((1_900..=2_100).contains(&took), "{took} ms");
    }
}
