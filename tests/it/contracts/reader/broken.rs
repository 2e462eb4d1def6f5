//! Servers that break off, ignore what is asked, or do not know it.

use keepwatch::ports::{ObjectPage, ObjectStore};

use super::*;
use crate::support::scripted::Scripted;

const ETAG: &str = "\"900150983cd24fb0d6963f7d28e17f72\"";

fn reply(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\netag: {ETAG}\r\n{headers}\r\n\r\n{body}")
}

async fn reader_of(server: &Scripted) -> S3Store {
    Subject::new(ALL, &server.reach, None).await.reader("")
}

/// Opens `a` on a server that always says the same.
async fn opened(
    reply: String,
    id: &ObjectId,
    range: Option<std::ops::Range<u64>>,
) -> Result<Fetched<Reading>, StoreError> {
    let server = Scripted::start(move |_| reply.clone());
    reader_of(&server).await.read(id, range).await
}

#[test]
fn a_body_that_breaks_off_is_an_error() {
    in_runtime(async {
        let short = reply("200 OK", "content-length: 10", "12345");
        let Ok(Fetched::Found(reading)) = opened(short, &current("a"), None).await else {
            panic!("the reply begins well");
        };
        let (body, failure) = received(reading).await;
        let failure = failure.expect("an end that is none");
        assert_eq!((&body[..], failure.class), (&b"12345"[..], ErrorClass::Unreachable));
        assert!(failure.message.starts_with("cannot read s3://reader/a at http://127."));
        assert!(failure.cause.unwrap().contains("broke off after 5 of 10 bytes"));
    });
}

#[test]
fn a_body_of_unknown_length_is_not_begun() {
    in_runtime(async {
        let chunked = reply("200 OK", "transfer-encoding: chunked", "5\r\n12345\r\n0\r\n\r\n");
        match outcome(opened(chunked, &current("a"), None).await) {
            Err(StoreError::Failed(failure)) => {
                assert_eq!(failure.cause.unwrap(), "its reply has no ETag or no length");
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_server_that_ignores_conditions_is_seen_through() {
    in_runtime(async {
        let known = ObjectId { etag: Some(ETag::new("another")), ..current("a") };
        let abc = || reply("200 OK", "content-length: 3", "abc");
        assert_eq!(outcome(opened(abc(), &known, None).await), Ok(Fetched::Changed));
        let server = Scripted::start(|_| reply("200 OK", "content-length: 3", ""));
        let reader = reader_of(&server).await;
        assert_eq!(ObjectReader::head(&reader, &known).await, Ok(Fetched::Changed));
    });
}

#[test]
fn a_server_that_ignores_ranges_is_seen_through() {
    in_runtime(async {
        let whole = reply("200 OK", "content-length: 3", "abc");
        let refused = outcome(opened(whole, &current("a"), Some(1..2)).await);
        assert!(matches!(refused, Err(StoreError::Unsupported(_))), "{refused:?}");
        let headers = "content-length: 2\r\ncontent-range: bytes 0-1/3";
        let other = reply("206 Partial Content", headers, "ab");
        match outcome(opened(other, &current("a"), Some(1..3)).await) {
            Err(StoreError::Failed(failure)) => {
                assert_eq!(failure.class, ErrorClass::Server);
                assert_eq!(failure.cause.unwrap(), "it sends the bytes 0..2 instead of 1..3");
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn what_a_server_refuses_to_list_is_asked_for_once() {
    const PAGE: &str = "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>\
        <Contents><Key>a</Key><Size>1</Size><ETag>\"e\"</ETag>\
        <StorageClass>GLACIER</StorageClass></Contents></ListBucketResult>";
    in_runtime(async {
        for status in ["400 Bad Request", "501 Not Implemented"] {
            let script = move |request: &str| match request.contains("x-amz-optional") {
                true => {
                    let error = "<Error><Code>Unknown</Code><Message>no</Message></Error>";
                    reply(status, &format!("content-length: {}", error.len()), error)
                }
                false => reply("200 OK", &format!("content-length: {}", PAGE.len()), PAGE),
            };
            let server = Scripted::start(script);
            let reader = reader_of(&server).await;
            for _ in 0..2 {
                let page: ObjectPage = ObjectReader::list(&reader, None).await.unwrap();
                assert!(page.objects[0].object.archived && page.objects[0].thaw.is_none());
            }
            let requests = server.requests.lock().unwrap();
            let asked = requests.iter().filter(|r| r.contains("x-amz-optional")).count();
            assert!(asked < requests.len() - 1 && requests.len() - asked == 2, "{requests:?}");
            assert!(!requests.last().unwrap().contains("x-amz-optional"));
        }
    });
}

#[test]
fn another_region_is_followed_by_every_request() {
    in_runtime(async {
        let server = Scripted::start(|request| match request.contains("/eu-north-1/s3/") {
            true => reply("200 OK", "content-length: 3", ""),
            // HEAD: no code in a body.
            false => {
                reply("400 Bad Request", "x-amz-bucket-region: eu-north-1\r\ncontent-length: 0", "")
            }
        });
        let reader = reader_of(&server).await;
        found(ObjectReader::head(&reader, &current("a")).await);
    });
}

/// HEAD's refusals have no words: keys that have changed must not be taken for an object that may
/// not be read, which would be its own failure.
#[test]
fn what_a_refused_head_means_is_asked_for() {
    in_runtime(async {
        let words = |status: &str, code: &str| {
            let error = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
            reply(status, &format!("content-length: {}", error.len()), &error)
        };
        for (status, get, expected) in [
            ("403 Forbidden", Some("InvalidAccessKeyId"), ErrorClass::Credentials),
            ("400 Bad Request", Some("ExpiredToken"), ErrorClass::Credentials),
            ("403 Forbidden", Some("AccessDenied"), ErrorClass::Denied),
            // Good keys were found meanwhile.
            ("403 Forbidden", None, ErrorClass::Server),
        ] {
            let server = Scripted::start(move |request| match (request.split(' ').next(), get) {
                (Some("HEAD"), _) => reply(status, "x-amz-request-id: 1\r\ncontent-length: 0", ""),
                (_, Some(code)) => words(status, code),
                (_, None) => reply("206 Partial Content", "content-length: 1", "a"),
            });
            let reader = reader_of(&server).await;
            let refused = ObjectReader::head(&reader, &current("a")).await;
            match refused.unwrap_err() {
                StoreError::Failed(failure) => assert_eq!(failure.class, expected, "{failure:?}"),
                other => panic!("{other:?}"),
            }
            let refused = ObjectStore::head(&reader, &Key::literal("a")).await;
            match refused.unwrap_err() {
                StoreError::Failed(failure) => assert_eq!(failure.class, expected, "{failure:?}"),
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn a_denied_question_names_the_permission() {
    in_runtime(async {
        let error = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>";
        let denied = reply("403 Forbidden", &format!("content-length: {}", error.len()), error);
        let server = Scripted::start(move |_| denied.clone());
        let reader = reader_of(&server).await;
        let hint = |error: StoreError| match error {
            StoreError::Failed(failure) => {
                assert_eq!(failure.class, ErrorClass::Denied);
                failure.hint.unwrap()
            }
            other => panic!("{other:?}"),
        };
        assert!(
            hint(reader.keeps_versions().await.unwrap_err()).contains("s3:GetBucketVersioning")
        );
        let deleted = reader.deleted_at(&current("a")).await;
        assert!(hint(deleted.unwrap_err()).contains("s3:GetObjectTagging"));
        let thawed = reader.thaw(&current("a"), keepwatch::ports::Tier::Bulk, 1).await;
        assert_eq!(hint(thawed.unwrap_err()), "allow s3:RestoreObject");
    });
}
