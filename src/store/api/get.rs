//! GetObject and HeadObject: conditions, ranges, parts.

use std::ops::Range as ByteRange;

use http::{HeaderMap, HeaderName, HeaderValue};
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::checksums::{parsed, set_checksum_and_type};
use crate::store::digest::Checksum;
use crate::store::fault::{Outcome, invalid_request, precondition_failed, refuse, refuse_as};
use crate::store::fetch::{self, Found, ThawState, check_readable, thaw_state};
use crate::store::head::STANDARD;
use crate::store::rows::Version;
use crate::store::uploads::check_part_number;
use crate::store::{Store, clock};

/// What GetObject and HeadObject ask alike. Their structs in s3s are two.
macro_rules! asked {
    ($input:expr) => {
        Asked {
            conditions: ReadConditions {
                if_match: $input.if_match,
                if_none_match: $input.if_none_match,
                if_modified_since: $input.if_modified_since,
                if_unmodified_since: $input.if_unmodified_since,
            },
            range: $input.range,
            part_number: $input.part_number,
            with_checksum: $input.checksum_mode.is_some_and(|mode| mode.as_str() == "ENABLED"),
        }
    };
}

/// What they answer alike.
macro_rules! shown {
    ($output:ident, $found:expr, $view:expr, $now_ms:expr) => {{
        let (version, view): (&Version, View) = (&$found.version, $view);
        let head = &version.head;
        let mut output = $output {
            accept_ranges: Some("bytes".to_owned()),
            bucket_key_enabled: head.encryption.bucket_key,
            cache_control: head.cache_control.clone(),
            content_disposition: head.content_disposition.clone(),
            content_encoding: head.content_encoding.clone(),
            content_language: head.content_language.clone(),
            content_length: i64::try_from(view.range.end - view.range.start).ok(),
            content_range: view.content_range,
            content_type: Some(head.content_type()),
            e_tag: Some(ETag::Strong(version.etag.clone())),
            expires: expires(version),
            last_modified: Some(clock::timestamp_of_s(version.modified_s)),
            metadata: Some(head.metadata.clone().into_iter().collect()),
            parts_count: view.parts_count,
            restore: restore_header(version, $now_ms),
            server_side_encryption: head.encryption.sse.clone().map(Into::into),
            ssekms_key_id: head.encryption.kms_key.clone(),
            storage_class: (version.class != STANDARD).then(|| version.class.clone().into()),
            version_id: $found.version_id(),
            ..$output::default()
        };
        set_checksum_and_type!(output, view.checksum.as_ref());
        output
    }};
}

pub(super) async fn get_object(
    store: &Store,
    req: S3Request<GetObjectInput>,
) -> S3Result<S3Response<GetObjectOutput>> {
    let input = req.input;
    let asked = asked!(input);
    let now_ms = clock::millis(store.now());
    let bodies = store.bodies().clone();
    let (found, view, opening) = store
        .read(move |conn| {
            let admit = |found: &Found| -> Outcome<()> {
                asked.conditions.check(&found.version)?;
                check_readable(&found.version, now_ms)
            };
            let target = (input.bucket.as_str(), input.key.as_str(), input.version_id.as_deref());
            let (mut found, file) = fetch::open(conn, &bodies, target, admit)?;
            let view = asked.view(&found.version)?;
            asked.conditions.echo(&mut found.version);
            let opening = fetch::begin(file, view.range.clone())?;
            Ok((found, view, opening))
        })
        .await?;
    let mut output = shown!(GetObjectOutput, found, view, now_ms);
    output.body = Some(opening.into_stream());
    output.tag_count = Some(tag_count(&found.version));
    Ok(S3Response::new(output))
}

pub(super) async fn head_object(
    store: &Store,
    req: S3Request<HeadObjectInput>,
) -> S3Result<S3Response<HeadObjectOutput>> {
    let input = req.input;
    let asked = asked!(input);
    let now_ms = clock::millis(store.now());
    let bodies = store.bodies().clone();
    let (found, view) = store
        .read(move |conn| {
            let target = (input.bucket.as_str(), input.key.as_str(), input.version_id.as_deref());
            let mut found = fetch::look(conn, &bodies, target)?;
            asked.conditions.check(&found.version)?;
            let mut view = asked.view(&found.version)?;
            if found.damaged {
                view.checksum = None;
            }
            asked.conditions.echo(&mut found.version);
            Ok((found, view))
        })
        .await?;
    let mut response = S3Response::new(shown!(HeadObjectOutput, found, view, now_ms));
    // s3s has no field for it.
    let name = HeaderName::from_static("x-amz-tagging-count");
    response.headers.insert(name, HeaderValue::from(tag_count(&found.version)));
    Ok(response)
}

/// What a request wants of an object.
struct Asked {
    conditions: ReadConditions,
    range: Option<Range>,
    part_number: Option<i32>,
    with_checksum: bool,
}

/// The part of an object that is shown.
struct View {
    range: ByteRange<u64>,
    content_range: Option<String>,
    parts_count: Option<i32>,
    checksum: Option<Checksum>,
}

impl Asked {
    fn view(&self, version: &Version) -> Outcome<View> {
        let size_bytes = version.size_bytes;
        let mut view = View {
            range: 0..size_bytes,
            content_range: None,
            parts_count: None,
            checksum: self.with_checksum.then(|| version.checksum.clone()),
        };
        match (&self.range, self.part_number) {
            (None, None) => return Ok(view),
            (Some(_), Some(_)) => {
                return Err(invalid_request(
                    "Cannot specify both Range header and partNumber query parameter",
                )
                .into());
            }
            (Some(range), None) => {
                view.range = range.check(size_bytes).map_err(|_| no_such_range(size_bytes))?;
                view.checksum = None;
            }
            (None, Some(number)) => self.narrow_to_part(&mut view, version, number)?,
        }
        // An empty object has no range that could be named.
        if !view.range.is_empty() {
            let (first, last) = (view.range.start, view.range.end - 1);
            view.content_range = Some(format!("bytes {first}-{last}/{size_bytes}"));
        }
        Ok(view)
    }

    /// An object that was not uploaded in parts is its own part 1.
    fn narrow_to_part(&self, view: &mut View, version: &Version, number: i32) -> Outcome<()> {
        check_part_number(number)?;
        if version.parts.is_empty() && number == 1 {
            return Ok(());
        }
        let mut start = 0;
        for part in &version.parts {
            let end = start + part.size_bytes;
            if part.number == number {
                view.range = start..end;
                view.parts_count = i32::try_from(version.parts.len()).ok();
                view.checksum = self.with_checksum.then(|| parsed(&part.checksum)).flatten();
                return Ok(());
            }
            start = end;
        }
        let message = "The requested partnumber is not satisfiable";
        Err(refuse_as("InvalidPartNumber", 416, message).into())
    }
}

fn no_such_range(size_bytes: u64) -> S3Error {
    let mut error = refuse(S3ErrorCode::InvalidRange, "The requested range is not satisfiable");
    let mut headers = HeaderMap::new();
    if let Ok(range) = HeaderValue::try_from(format!("bytes */{size_bytes}")) {
        headers.insert(http::header::CONTENT_RANGE, range);
    }
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    error.set_headers(headers);
    error
}

/// Conditions of a read, or of the source of a copy.
#[derive(Default)]
pub(super) struct ReadConditions {
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
    pub(super) if_modified_since: Option<Timestamp>,
    pub(super) if_unmodified_since: Option<Timestamp>,
}

/// How an object meets the conditions.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Proceed,
    NotModified,
    Failed(&'static str),
}

impl ReadConditions {
    /// The ETag conditions win over those on time (RFC 9110, 13.2.2).
    pub(super) fn verdict(&self, version: &Version) -> Verdict {
        let modified = clock::timestamp_of_s(version.modified_s);
        let matches = |condition: &ETagCondition| {
            condition.as_etag().is_none_or(|etag| etag.value() == version.etag)
        };
        let names = |condition: &ETagCondition| {
            condition.as_etag().is_none_or(|etag| version.is_named(etag.value()))
        };
        match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) if !names(condition) => return Verdict::Failed("If-Match"),
            (None, Some(time)) if modified > *time => {
                return Verdict::Failed("If-Unmodified-Since");
            }
            _ => {}
        }
        match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) if matches(condition) => Verdict::NotModified,
            (None, Some(time)) if modified <= *time => Verdict::NotModified,
            _ => Verdict::Proceed,
        }
    }

    /// Who named the object by the ETag of a damaged one, as a listing showed it, hears of that one
    /// again, whatever came out since.
    fn echo(&self, version: &mut Version) {
        if let Some(etag) = self.if_match.as_ref().and_then(ETagCondition::as_etag) {
            etag.value().clone_into(&mut version.etag);
        }
    }

    fn check(&self, version: &Version) -> Outcome<()> {
        match self.verdict(version) {
            Verdict::Proceed => Ok(()),
            Verdict::Failed(condition) => Err(precondition_failed(condition).into()),
            Verdict::NotModified => Err(not_modified(version).into()),
        }
    }
}

fn not_modified(version: &Version) -> S3Error {
    let mut headers = HeaderMap::new();
    let modified = clock::http_date(&clock::timestamp_of_s(version.modified_s));
    if let Ok(etag) = ETag::Strong(version.etag.clone()).to_http_header() {
        headers.insert(http::header::ETAG, etag);
    }
    if let Ok(modified) = HeaderValue::try_from(modified) {
        headers.insert(http::header::LAST_MODIFIED, modified);
    }
    let mut error = refuse(S3ErrorCode::NotModified, "Not Modified");
    error.set_headers(headers);
    error
}

/// Told also where it is 0, which S3 leaves out: so nobody needs to ask.
fn tag_count(version: &Version) -> i32 {
    i32::try_from(version.tags.0.len()).unwrap_or(i32::MAX)
}

fn expires(version: &Version) -> Option<Timestamp> {
    Timestamp::parse(TimestampFormat::HttpDate, version.head.expires.as_deref()?).ok()
}

/// `x-amz-restore`.
fn restore_header(version: &Version, now_ms: i64) -> Option<String> {
    match thaw_state(version.thaw, now_ms) {
        ThawState::Frozen => None,
        ThawState::Ongoing => Some("ongoing-request=\"true\"".to_owned()),
        ThawState::Thawed { until_ms } => {
            let until = clock::http_date(&clock::timestamp_of_ms(until_ms));
            Some(format!("ongoing-request=\"false\", expiry-date=\"{until}\""))
        }
    }
}
