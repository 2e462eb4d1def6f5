//! Copies from one prefix to another: whole, in parts, streamed, with all that belongs to them.

use std::collections::BTreeMap;

use aws_sdk_s3::primitives::DateTime;
use bytes::Bytes;
use keepwatch::model::checksum::{Algorithm, Form, Over};
use keepwatch::model::{Checksum, Crc64, Md5, Millis};
use keepwatch::ports::{
    Complete, Condition, Copy, CopyPart, CopySource, CopyTarget, CreateCopy, FullHead, Headers,
    JournaledPart, ObjectStore, PartDigest, PutCopy, PutPart, Tags,
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
        body: Bytes::from_static(b"some words"),
        md5: Md5::of(b"some words"),
        crc64: Crc64::of(b"some words"),
        checksum: full.head.checksum.clone(),
        headers: full.headers.clone(),
        tags: if subject.can.tags { tags() } else { vec![] },
    };
    let stored = target.put_copy(put).await.unwrap();
    assert_eq!(stored.etag, full.head.object.etag);
    let copy = look(&target, "x").await;
    assert_eq!(kept(&copy), kept(&full));
    assert_eq!(sorted_tags(subject, &target, "x").await, tags());

    // The checksum is that of the source, and what it does not agree with is not written.
    let sha256 = Checksum {
        form: Form { algorithm: Algorithm::Sha256, over: Over::Content },
        digest: <sha2::Sha256 as sha2::Digest>::digest(b"some words").as_slice().into(),
    };
    let with = |key: &str, body: &'static [u8]| PutCopy {
        key: Key::literal(key),
        body: Bytes::from_static(body),
        md5: Md5::of(body),
        crc64: Crc64::of(body),
        checksum: Some(sha256.clone()),
        headers: Headers::default(),
        tags: vec![],
    };
    target.put_copy(with("sha", b"some words")).await.unwrap();
    assert_eq!(look(&target, "sha").await.head.checksum, Some(sha256.clone()));
    match target.put_copy(with("wrong", b"some wordS")).await {
        Err(StoreError::Failed(failure)) => {
            assert_eq!(failure.class, ErrorClass::Path);
            assert!(failure.to_string().contains("is not what the source's SHA256 says"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(target.look(&current("wrong")).await, Ok(Fetched::Gone));
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

/// Checksums that an object in parts can have, and what the copies of one in parts have.
const FORMS: [Form; 5] = [
    Form { algorithm: Algorithm::Crc32, over: Over::Content },
    Form { algorithm: Algorithm::Crc32c, over: Over::Parts },
    Form { algorithm: Algorithm::Crc64Nvme, over: Over::Content },
    Form { algorithm: Algorithm::Sha1, over: Over::Parts },
    Form { algorithm: Algorithm::Sha256, over: Over::Parts },
];

/// A copy in three parts that is opened and completed here.
struct InParts {
    copy: CreateCopy,
    upload_id: String,
    parts: Vec<JournaledPart>,
}

impl InParts {
    async fn open(target: &S3Store, copy: CreateCopy) -> Self {
        let upload_id = target.create_copy(copy.clone()).await.unwrap();
        Self { copy, upload_id, parts: vec![] }
    }

    /// The server knows the parts, and their checksums where it told any.
    async fn is_listed(&self, target: &S3Store) {
        let listed = target.list_parts(&self.copy.key, &self.upload_id).await.unwrap();
        assert_eq!(listed.len(), self.parts.len());
        for (listed, JournaledPart { stored, .. }) in listed.iter().zip(&self.parts) {
            assert!(listed.is(stored), "{listed:?}: {stored:?}");
            let told = stored.checksum.as_ref().or(listed.checksum.as_ref());
            assert_eq!(listed.checksum.as_ref(), told, "{:?}", self.copy.checksum);
        }
    }

    async fn complete(self, target: &S3Store, body: &[u8]) -> ReadHead {
        let key = self.copy.key;
        let complete = Complete {
            key: key.clone(),
            upload_id: self.upload_id,
            parts: self.parts,
            size_bytes: body.len() as u64,
            crc64: Crc64::of(body),
            condition: Condition::None,
        };
        target.complete_upload(complete).await.unwrap();
        let copy = look(target, key.as_str()).await;
        assert_eq!(copy.headers, self.copy.headers);
        assert!(content(target, &current(key.as_str())).await == body);
        copy.head
    }
}

fn opening(subject: &Subject, full: &FullHead, key: &str, form: Form) -> CreateCopy {
    CreateCopy {
        key: Key::literal(key),
        headers: full.headers.clone(),
        tags: if subject.can.tags { tags() } else { vec![] },
        checksum: Some(form),
        streamed: false,
    }
}

fn large_body() -> Vec<u8> {
    (0..12 * MIB).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

const CUTS: [(u32, u64, u64); 3] = [(1, 0, 5), (2, 5, 5), (3, 10, 2)];

pub async fn large_objects_are_copied_in_parts(subject: &Subject) {
    let (source, target) = (subject.reader("copy-g"), subject.reader("copy-h"));
    let body = large_body();
    rich(subject, "copy-g/large", &body).await;
    let full = look(&source, "large").await;
    let id = ObjectId { etag: Some(full.head.object.etag.clone()), ..current("large") };
    for form in FORMS {
        let mut copy =
            InParts::open(&target, opening(subject, &full, form.algorithm.name(), form)).await;
        for (number, offset, length) in CUTS {
            let part = CopyPart {
                key: copy.copy.key.clone(),
                upload_id: copy.upload_id.clone(),
                number,
                origin: source.origin(&id).unwrap(),
                offset: offset * MIB,
                length: length * MIB,
            };
            let stored = found(target.copy_part(part).await);
            assert_eq!((stored.number, stored.size_bytes), (number, length * MIB));
            let digest = PartDigest { bytes: length, md5: Md5([0; 16]), crc64: Crc64::EMPTY };
            copy.parts.push(JournaledPart { stored, digest });
        }
        // moto's lists of parts cannot be read.
        if subject.can.crc64 {
            copy.is_listed(&target).await;
        }
        let head = copy.complete(&target, &body).await;
        has_form(subject, &head, form, &body);
        let name = form.algorithm.name();
        assert_eq!(sorted_tags(subject, &target, name).await, tags());
    }
}

pub async fn parts_that_are_streamed_carry_the_checksum_of_the_source(subject: &Subject) {
    let target = subject.reader("copy-s");
    let body = large_body();
    rich(subject, "copy-s/large", &body).await;
    let full = look(&target, "large").await;
    for form in FORMS {
        let opening = opening(subject, &full, form.algorithm.name(), form);
        let streamed = CreateCopy { streamed: true, ..opening };
        let mut copy = InParts::open(&target, streamed).await;
        for (number, offset, length) in CUTS {
            let (from, to) = ((offset * MIB) as usize, ((offset + length) * MIB) as usize);
            let part = Bytes::copy_from_slice(&body[from..to]);
            let (md5, crc64) = (Md5::of(&part), Crc64::of(&part));
            let put = PutPart {
                key: copy.copy.key.clone(),
                upload_id: copy.upload_id.clone(),
                number,
                body: part,
                md5,
                crc64,
            };
            let stored = target.put_part(put).await.unwrap();
            assert_eq!((stored.number, stored.size_bytes), (number, length * MIB));
            let digest = PartDigest { bytes: length * MIB, md5, crc64 };
            copy.parts.push(JournaledPart { stored, digest });
        }
        if subject.can.crc64 {
            copy.is_listed(&target).await;
        }
        let head = copy.complete(&target, &body).await;
        // moto does not show that it has any.
        if subject.can.crc64 {
            has_form(subject, &head, form, &body);
        }
    }
}

/// The copy has a checksum of this form, and where that is of the content, it is right.
fn has_form(subject: &Subject, head: &ReadHead, form: Form, body: &[u8]) {
    let checksum = head.checksum.clone().unwrap_or_else(|| panic!("{form:?}: none"));
    assert_eq!(checksum.form, form);
    if form == Form::USUAL && subject.can.crc64 {
        assert_eq!(head.crc64(), Some(Crc64::of(body)), "of the whole");
    }
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
