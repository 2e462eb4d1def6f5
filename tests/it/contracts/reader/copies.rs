//! Copies from one prefix to another: whole, in parts, streamed, with all that belongs to them.

use std::collections::BTreeMap;

use aws_sdk_s3::primitives::DateTime;
use keepwatch::model::{Crc64, Md5, Millis};
use keepwatch::ports::{
    Complete, Condition, Copy, CopyPart, CopySource, CopyTarget, FullHead, Headers, JournaledPart,
    ObjectStore, PartDigest, PutCopy, StoredPart, Tags,
};

use super::*;

const MIB: u64 = 1 << 20;

/// Names that a header of a copy could garble.
const NAMES: [&str; 5] = ["plain", "a b/c++", "ü/%2B&?#", "x=1;'\"", "deep/er/name.txt"];

/// An object with everything that a copy keeps.
async fn rich(subject: &Subject, key: &str, body: &[u8]) {
    let mut put = subject
        .put(key, body)
        .content_type("text/x-rich; charset=utf-8")
        .cache_control("max-age=7")
        .content_disposition("attachment; filename=\"a b.txt\"")
        .content_encoding("identity")
        .content_language("de-CH")
        .expires(DateTime::from_secs(1_900_000_000))
        .metadata("mtime", "1598548803.846034345")
        .metadata("own", "words and 1+1=2");
    if subject.can.tags {
        put = put.tagging("team=a%20b&sum=1%2B1%3D2");
    }
    put.send().await.unwrap();
}

fn tags() -> Tags {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    vec![pair("sum", "1+1=2"), pair("team", "a b")]
}

async fn look(store: &S3Store, key: &str) -> FullHead {
    found(store.look(&current(key)).await)
}

/// What must be the same on both sides.
fn kept(full: &FullHead) -> (u64, Headers) {
    (full.head.object.size_bytes, full.headers.clone())
}

async fn sorted_tags(subject: &Subject, store: &S3Store, key: &str) -> Tags {
    if !subject.can.tags {
        assert!(matches!(store.tags(&current(key)).await, Err(StoreError::Unsupported(_))));
        return tags();
    }
    let mut tags = found(store.tags(&current(key)).await);
    tags.sort();
    tags
}

fn copy_of(source: &S3Store, full: &FullHead, key: &str) -> Copy {
    let etag = Some(full.head.object.etag.clone());
    let id = ObjectId { version: full.version.clone(), etag, ..current(key) };
    Copy {
        key: Key::literal(key),
        origin: source.origin(&id).unwrap(),
        size_bytes: full.head.object.size_bytes,
        headers: full.headers.clone(),
    }
}

pub async fn whole_objects_are_copied_with_all_that_is_theirs(subject: &Subject) {
    let (source, target) = (subject.reader("copy-a"), subject.reader("copy-b"));
    for name in NAMES {
        rich(subject, &format!("copy-a/{name}"), name.as_bytes()).await;
        let full = look(&source, name).await;
        assert_eq!(full.headers.content_type.as_deref(), Some("text/x-rich; charset=utf-8"));
        assert_eq!(full.headers.metadata["own"], "words and 1+1=2");
        assert!(full.headers.expires.is_some());
        let etag = found(target.copy(copy_of(&source, &full, name)).await);
        let copy = look(&target, name).await;
        assert_eq!(kept(&copy), kept(&full), "{name}");
        assert_eq!(etag, copy.head.object.etag);
        assert_eq!(content(&target, &current(name)).await, name.as_bytes());
        assert_eq!(sorted_tags(subject, &target, name).await, tags(), "{name}");
    }
}

pub async fn streamed_objects_have_all_that_is_theirs(subject: &Subject) {
    let (source, target) = (subject.reader("copy-c"), subject.reader("copy-d"));
    rich(subject, "copy-c/x", b"some words").await;
    let full = look(&source, "x").await;
    let put = PutCopy {
        key: Key::literal("x"),
        body: bytes::Bytes::from_static(b"some words"),
        md5: Md5::of(b"some words"),
        crc64: Crc64::of(b"some words"),
        headers: full.headers.clone(),
        tags: if subject.can.tags { tags() } else { vec![] },
    };
    let stored = target.put_copy(put).await.unwrap();
    assert_eq!(stored.etag, full.head.object.etag);
    let copy = look(&target, "x").await;
    assert_eq!(kept(&copy), kept(&full));
    assert_eq!(sorted_tags(subject, &target, "x").await, tags());
}

pub async fn what_changed_or_went_is_not_copied(subject: &Subject) {
    let (source, target) = (subject.reader("copy-e"), subject.reader("copy-f"));
    subject.put("copy-e/x", b"one").send().await.unwrap();
    let full = look(&source, "x").await;
    let copy = copy_of(&source, &full, "x");
    subject.put("copy-e/x", b"two!").send().await.unwrap();
    let pinned = Copy {
        origin: keepwatch::ports::Origin { version: None, ..copy.origin.clone() },
        ..copy.clone()
    };
    // moto copies what is there, whatever ETag was asked for; it is one content in any case.
    match target.copy(pinned).await {
        Ok(Fetched::Changed) => {}
        Ok(Fetched::Found(_)) if !subject.can.crc64 => {}
        other => panic!("{other:?}"),
    }
    subject.client.delete_object().bucket(BUCKET).key("copy-e/x").send().await.unwrap();
    let gone = Copy {
        origin: keepwatch::ports::Origin { version: None, etag: None, ..copy.origin },
        ..copy
    };
    assert_eq!(target.copy(gone).await, Ok(Fetched::Gone));
}

pub async fn large_objects_are_copied_in_parts(subject: &Subject) {
    let (source, target) = (subject.reader("copy-g"), subject.reader("copy-h"));
    let body: Vec<u8> = (0..12 * MIB).map(|n| u8::try_from(n % 251).unwrap()).collect();
    rich(subject, "copy-g/large", &body).await;
    let full = look(&source, "large").await;
    let id = ObjectId { etag: Some(full.head.object.etag.clone()), ..current("large") };
    let tags_given = if subject.can.tags { tags() } else { vec![] };
    let key = Key::literal("large");
    let opened = target.create_copy(&key, full.headers.clone(), tags_given, false).await;
    let upload_id = opened.unwrap();
    let mut parts = vec![];
    for (number, offset) in [(1, 0), (2, 5 * MIB), (3, 10 * MIB)] {
        let length = (5 * MIB).min(12 * MIB - offset);
        let part = CopyPart {
            key: key.clone(),
            upload_id: upload_id.clone(),
            number,
            origin: source.origin(&id).unwrap(),
            offset,
            length,
        };
        let etag = found(target.copy_part(part).await);
        let stored = StoredPart { number, size_bytes: length, etag };
        let digest = PartDigest { bytes: length, md5: Md5([0; 16]), crc64: Crc64::EMPTY };
        parts.push(JournaledPart { stored, digest });
    }
    // moto's lists of parts cannot be read.
    if subject.can.crc64 {
        let listed = target.list_parts(&key, &upload_id).await.unwrap();
        assert_eq!(listed, parts.iter().map(|part| part.stored.clone()).collect::<Vec<_>>());
    }
    let complete = Complete {
        key: key.clone(),
        upload_id,
        parts,
        size_bytes: 12 * MIB,
        crc64: Crc64::EMPTY,
        condition: Condition::None,
    };
    target.complete_upload(complete).await.unwrap();
    let copy = look(&target, "large").await;
    assert_eq!(kept(&copy), kept(&full));
    if let Some(crc64) = copy.head.crc64 {
        assert_eq!(crc64, Crc64::of(&body), "of the whole");
    }
    assert!(content(&target, &current("large")).await == body);
    assert_eq!(sorted_tags(subject, &target, "large").await, tags());
}

pub async fn marks_are_put_beside_tags_and_taken_off_again(subject: &Subject) {
    let store = subject.reader("marks");
    assert_eq!(store.knows_tags().await, Ok(subject.can.tags));
    if !subject.can.tags {
        return;
    }
    rich(subject, "marks/x", b"1").await;
    subject.put("marks/bare", b"1").send().await.unwrap();
    let nine: String = (0..9).map(|n| format!("t{n}=v&")).collect();
    let put = subject.put("marks/full", b"1").tagging(nine.trim_end_matches('&'));
    put.send().await.unwrap();
    let at = Millis(1_795_262_459_999);
    for key in ["x", "bare"] {
        store.tag_deleted(&Key::literal(key), at).await.unwrap();
        let tags: BTreeMap<_, _> = found(store.tags(&current(key)).await).into_iter().collect();
        assert_eq!(
            (tags["Deleted"].as_str(), tags["DeletedAt"].as_str()),
            ("True", "2026-11-21T12:00")
        );
        assert_eq!(tags.len(), if key == "x" { 4 } else { 2 }, "{tags:?}");
        assert_eq!(store.untag_deleted(&Key::literal(key)).await, Ok(true));
        assert_eq!(store.untag_deleted(&Key::literal(key)).await, Ok(false));
    }
    assert_eq!(sorted_tags(subject, &store, "x").await, tags());
    assert_eq!(found(store.tags(&current("bare")).await), vec![]);
    let StoreError::Failed(failure) =
        store.tag_deleted(&Key::literal("full"), at).await.unwrap_err()
    else {
        panic!("no failure");
    };
    assert_eq!(failure.class, ErrorClass::Path);
    assert!(failure.to_string().contains("it has 9 tags of its own"), "{failure}");
    assert_eq!(found(store.tags(&current("full")).await).len(), 9, "nothing was replaced");
    assert_eq!(store.untag_deleted(&Key::literal("none")).await, Ok(false));
    store.tag_deleted(&Key::literal("none"), at).await.unwrap();
}
