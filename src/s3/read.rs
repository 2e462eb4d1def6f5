//! Objects read back: looked at, opened whole or in ranges, received as they come.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::config::{ResponseChecksumValidation, StalledStreamProtectionConfig};
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumMode;
use bytes::Bytes;

use crate::model::ETag;
use crate::plan::ErrorClass;
use crate::ports::{Body, Fetched, Fut, ObjectId, ReadHead, Reading, StoreError};

use super::body::Pace;
use super::error::{SdkFailure, What};
use super::get::shows;
use super::head::told;
use super::{S3Store, error, foreign};

/// A body of which nothing comes for so long is given up.
const STALL: Duration = Duration::from_secs(30);

impl S3Store {
    pub(super) async fn look_at(&self, id: &ObjectId) -> Result<Fetched<ReadHead>, StoreError> {
        let what = self.about("look at", id);
        let key = self.absolute(&id.key)?;
        let sent = self
            .ask(|client| {
                client
                    .head_object()
                    .bucket(&self.options.bucket)
                    .key(&key)
                    .set_version_id(id.version.clone())
                    .set_if_match(id.etag.as_ref().map(ETag::quoted))
                    .checksum_mode(ChecksumMode::Enabled)
                    .set_expected_bucket_owner(self.options.bucket_owner.clone())
                    .send()
            })
            .await;
        let reply = match sent {
            Ok(reply) => reply,
            Err(e) if error::is_wordless(&e) => return Err(self.why_refused(&what, id).await),
            Err(e) => return self.instead(&what, &e),
        };
        if !shows(reply.e_tag(), id) {
            return Ok(Fetched::Changed);
        }
        let mut head = self.head_of(&what, &told!(reply), id.version.is_some())?;
        // Where objects move into an archive by themselves, the class does not tell.
        if reply.archive_status().is_some() {
            head.object.archived = true;
            head.thaw = Some(super::head::thaw(reply.restore()));
        }
        Ok(Fetched::Found(head))
    }

    pub(super) async fn open(
        &self,
        id: &ObjectId,
        range: Option<Range<u64>>,
    ) -> Result<Fetched<Reading>, StoreError> {
        let what = self.about("read", id);
        let key = self.absolute(&id.key)?;
        let asked = range.as_ref().map(|r| format!("bytes={}-{}", r.start, r.end - 1));
        let sent = self
            .ask(|client| {
                client
                    .get_object()
                    .bucket(&self.options.bucket)
                    .key(&key)
                    .set_version_id(id.version.clone())
                    .set_if_match(id.etag.as_ref().map(ETag::quoted))
                    .set_range(asked.clone())
                    .set_expected_bucket_owner(self.options.bucket_owner.clone())
                    .customize()
                    .config_override(as_it_comes())
                    .mutate_request(|request| {
                        request.headers_mut().insert("x-amz-checksum-mode", "ENABLED");
                    })
                    .send()
            })
            .await;
        let reply = match sent {
            Ok(reply) => reply,
            Err(e) => return self.instead(&what, &e),
        };
        if !shows(reply.e_tag(), id) {
            return Ok(Fetched::Changed);
        }
        let mut head = self.head_of(&what, &told!(reply), id.version.is_some())?;
        // Before this it is the length of the body.
        let length = head.object.size_bytes;
        if let Some(range) = range {
            let Some(shown) = reply.content_range().and_then(content_range) else {
                let words = "the server ignores ranges: it answers without Content-Range";
                return Err(StoreError::Unsupported(words.to_owned()));
            };
            let expected = range.start..range.end.min(shown.size_bytes);
            if shown.range != expected || length != expected.end - expected.start {
                let cause = format!("it sends the bytes {:?} instead of {expected:?}", shown.range);
                return Err(StoreError::Failed(what.failed(ErrorClass::Server, cause)));
            }
            head.object.size_bytes = shown.size_bytes;
            // A range that happens to be a part may come with the checksum of the part.
            head.checksum = head.checksum.filter(|_| length == shown.size_bytes);
        }
        let pace = self.pace.clone();
        let body = Content { stream: reply.body, what, length, received: 0, pace };
        Ok(Fetched::Found(Reading { head, body: Box::new(body) }))
    }

    pub(super) fn head_of(
        &self,
        what: &What,
        told: &super::head::Told<'_>,
        is_version: bool,
    ) -> Result<ReadHead, StoreError> {
        let Some(mut head) = told.head() else {
            return Err(error::not_s3(what, "its reply has no ETag or no length"));
        };
        head.meta = foreign::supplement(head.meta, told.pairs());
        head.tags = self.count_of_tags(head.tags, is_version);
        Ok(head)
    }

    /// What came instead of the object.
    pub(super) fn instead<T, E>(
        &self,
        what: &What,
        error: &SdkFailure<E>,
    ) -> Result<Fetched<T>, StoreError>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let status = error.raw_response().map(|reply| reply.status().as_u16());
        match (error.code(), status) {
            _ if is_gone(error) => Ok(Fetched::Gone),
            // Too short for the range: not the object that was meant.
            (Some("PreconditionFailed" | "InvalidRange"), _) | (None, Some(412)) => {
                Ok(Fetched::Changed)
            }
            (Some("InvalidObjectState"), _) => Ok(Fetched::Archived),
            _ => Err(self.explained(what, error)),
        }
    }
}

/// Whether there is no such object, no such version, or only the mark of its deletion.
pub(super) fn is_gone<E: ProvideErrorMetadata>(error: &SdkFailure<E>) -> bool {
    let marked = error.raw_response().and_then(|r| r.headers().get("x-amz-delete-marker"));
    // HEAD has no body that says what was not found.
    matches!(error.code(), Some("NoSuchKey" | "NoSuchVersion" | "NotFound"))
        || marked == Some("true")
}

/// Who reads verifies, and how long nothing may come is judged here.
fn as_it_comes() -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::Config::builder()
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
}

/// What a `Content-Range` says.
#[derive(Debug, PartialEq, Eq)]
struct ContentRange {
    range: Range<u64>,
    /// Of the whole object.
    size_bytes: u64,
}

/// Reads `bytes 0-9/100`.
fn content_range(text: &str) -> Option<ContentRange> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let last: u64 = last.parse().ok()?;
    Some(ContentRange {
        range: first.parse().ok()?..last.checked_add(1)?,
        size_bytes: size.parse().ok()?,
    })
}

/// The content of a reply.
struct Content {
    stream: ByteStream,
    what: What,
    /// How much was announced.
    length: u64,
    received: u64,
    pace: Option<Arc<Pace>>,
}

impl Content {
    async fn receive(&mut self) -> Option<Result<Bytes, StoreError>> {
        let Ok(next) = tokio::time::timeout(STALL, self.stream.next()).await else {
            return Some(Err(self.broke_off(&format!("nothing came for {} s", STALL.as_secs()))));
        };
        match next {
            Some(Ok(bytes)) => {
                self.received += bytes.len() as u64;
                if self.received > self.length {
                    return Some(Err(self.broke_off("more came than was announced")));
                }
                if let Some(pace) = &self.pace {
                    pace.pass(bytes.len()).await;
                }
                Some(Ok(bytes))
            }
            Some(Err(e)) => Some(Err(self.broke_off(&error::in_words(&e)))),
            None if self.received < self.length => Some(Err(self.broke_off("it ended early"))),
            None => None,
        }
    }

    fn broke_off(&self, why: &str) -> StoreError {
        let Self { received, length, .. } = self;
        error::unreachable(
            &self.what,
            &format!("its content broke off after {received} of {length} bytes: {why}"),
        )
    }
}

impl Body for Content {
    fn next(&mut self) -> Fut<'_, Option<Result<Bytes, StoreError>>> {
        Box::pin(self.receive())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_s3::primitives::SdkBody;
    use http_body_util::StreamBody;
    use tokio::time::Instant;

    #[test]
    fn content_ranges_are_read() {
        let expected = ContentRange { range: 2..10, size_bytes: 12 };
        assert_eq!(content_range("bytes 2-9/12"), Some(expected));
        for text in ["bytes */12", "bytes 2-9/*", "2-9/12", "bytes 2-/12", "bytes 9/12", ""] {
            assert_eq!(content_range(text), None, "{text:?}");
        }
    }

    fn content(stream: ByteStream, length: u64, pace: Option<u64>) -> Content {
        let what = What { request: "read it".to_owned(), ..What::default() };
        let pace = pace.map(|limit| Arc::new(Pace::new(limit)));
        Content { stream, what, length, received: 0, pace }
    }

    fn why(next: Option<Result<Bytes, StoreError>>) -> String {
        match next {
            Some(Err(StoreError::Failed(failure))) => {
                assert_eq!(failure.class, ErrorClass::Unreachable);
                failure.cause.unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_body_of_another_length_is_an_error() {
        let mut exact = content(ByteStream::from_static(b"12345"), 5, None);
        assert_eq!(exact.next().await, Some(Ok(Bytes::from_static(b"12345"))));
        assert_eq!(exact.next().await, None);
        let mut short = content(ByteStream::from_static(b"12345"), 6, None);
        assert!(short.next().await.unwrap().is_ok());
        let cause = "its content broke off after 5 of 6 bytes: it ended early";
        assert_eq!(why(short.next().await), cause);
        let mut long = content(ByteStream::from_static(b"12345"), 4, None);
        assert!(why(long.next().await).ends_with("more came than was announced"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_of_which_nothing_comes_is_given_up() {
        type Frame = Result<http_body::Frame<Bytes>, std::io::Error>;
        let silent = StreamBody::new(futures_util::stream::pending::<Frame>());
        let mut silent = content(ByteStream::new(SdkBody::from_body_1_x(silent)), 5, None);
        let started = Instant::now();
        assert!(why(silent.next().await).ends_with("0 of 5 bytes: nothing came for 30 s"));
        assert_eq!(started.elapsed(), STALL);
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_are_received_at_the_pace() {
        let frames = (0..10).map(|_| {
            Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from_static(&[7; 1_000])))
        });
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let body = ByteStream::new(SdkBody::from_body_1_x(body));
        let mut paced = content(body, 10_000, Some(1_000));
        let started = Instant::now();
        while let Some(bytes) = paced.next().await {
            bytes.unwrap();
        }
        let took = started.elapsed().as_millis();
        assert!((8_900..=10_100).contains(&took), "{took} ms");
    }
}
