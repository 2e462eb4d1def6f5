//! Current objects: listed, looked at, read whole and in ranges.

use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use keepwatch::model::{Crc64, Meta, Millis, Timestamp};
use keepwatch::ports::RequestCounts;

use super::*;

pub async fn what_is_there_is_read(subject: &Subject) {
    let reader = subject.reader("plain");
    let large = vec![7; 700_000];
    for (name, body) in [("a", &b"hello"[..]), ("empty", b""), ("folder/", b""), ("b/c", &large)] {
        subject
            .put(&format!("plain/{name}"), body)
            .checksum_algorithm(aws_sdk_s3::types::ChecksumAlgorithm::Crc64Nvme)
            .metadata("mtime", "1598548803.846034345")
            .metadata("mode", "100640")
            .send()
            .await
            .unwrap();
        let id = current(name);
        let head = found(ObjectReader::head(&reader, &id).await);
        assert_eq!(head.object.size_bytes, body.len() as u64, "{name}");
        assert_eq!(head.object.etag, etag_of(body));
        assert_eq!((head.md5, head.etag_is_md5), (Some(Md5::of(body)), true));
        assert_eq!((head.object.archived, head.thaw), (false, None));
        assert_eq!(head.tags.unwrap_or(0), 0);
        let mtime = Some(Timestamp::new(1_598_548_803, 846_034_345));
        assert_eq!(head.meta, Meta { mtime, mode: Some(0o100_640), uid: None, gid: None });
        if subject.can.crc64 {
            assert_eq!(head.crc64(), Some(Crc64::of(body)), "{name}");
        }
        let Ok(Fetched::Found(reading)) = reader.read(&id, None).await else { panic!("{name}") };
        assert_eq!(reading.head, head);
        assert_eq!(received(reading).await, (body.to_vec(), None));
        let listed = all(&reader).await.into_iter().find(|l| l.key == id.key).unwrap();
        assert_eq!(listed.object.size_bytes, head.object.size_bytes);
        assert_eq!((listed.object.etag, listed.thaw), (head.object.etag, None));
        assert_eq!(listed.object.modified.0 / 1000, head.object.modified.0 / 1000);
    }
}

pub async fn ranges_are_read(subject: &Subject) {
    let reader = subject.reader("ranges");
    let body: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    subject.put("ranges/a", &body).send().await.unwrap();
    let id = ObjectId { etag: Some(etag_of(&body)), ..current("a") };
    for range in [0..1, 0..100_000, 99_999..100_000, 500..70_000, 99_000..200_000] {
        let Ok(Fetched::Found(reading)) = reader.read(&id, Some(range.clone())).await else {
            panic!("{range:?}");
        };
        assert_eq!(reading.head.object.size_bytes, 100_000, "of the whole object");
        assert_eq!(reading.head.md5, Some(Md5::of(&body)));
        assert!(reading.head.crc64().is_none_or(|crc64| crc64 == Crc64::of(&body)), "{range:?}");
        let end = 100_000.min(range.end) as usize;
        assert_eq!(received(reading).await, (body[range.start as usize..end].to_vec(), None));
    }
    // It was longer when it was looked at.
    let beyond = outcome(reader.read(&id, Some(100_000..100_001)).await);
    assert_eq!(beyond, Ok(Fetched::Changed));
}

pub async fn metadata_of_other_tools_is_understood(subject: &Subject) {
    let reader = subject.reader("tools");
    let md5 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [9; 16]);
    let put = subject.put("tools/a", b"x").metadata("s3cmd-attrs", "mode:33188/mtime:1598548803");
    put.metadata("md5chksum", md5).send().await.unwrap();
    let head = found(ObjectReader::head(&reader, &current("a")).await);
    assert_eq!(head.meta.mtime, Some(Timestamp::new(1_598_548_803, 0)));
    assert_eq!(head.meta.mode, Some(0o100_644));
    assert_eq!(head.md5, Some(Md5::of(b"x")), "the ETag is nearer");
}

pub async fn every_kind_of_name(subject: &Subject) {
    let reader = subject.reader("names");
    let mut names = vec![
        " leading",
        "two  spaces",
        "plus+plus",
        "percent%20",
        "percent%",
        "%2B",
        "question?",
        "amp&<>",
        "quote\"'`",
        "back\\slash",
        "\u{e9}",
        "e\u{301}",
        "\u{1f600}",
        "\u{fffd}",
        "a/",
        "a/b",
        "a-b",
        "..a",
        "x/.y/..z",
    ];
    if subject.can.controls {
        names.extend(["line\nbreak", "tab\t", "bell\u{7}"]);
    }
    names.sort_unstable();
    subject.fill(names.iter().map(|name| format!("names/{name}"))).await;
    let listed: Vec<String> =
        all(&reader).await.iter().map(|listed| listed.key.as_str().to_owned()).collect();
    assert_eq!(listed, names);
    for name in names {
        let id =
            ObjectId { etag: Some(etag_of(format!("names/{name}").as_bytes())), ..current(name) };
        found(ObjectReader::head(&reader, &id).await);
        assert_eq!(content(&reader, &id).await, format!("names/{name}").as_bytes());
    }
}

pub async fn long_listings_have_pages(subject: &Subject) {
    let reader = subject.reader("pages");
    subject.fill((0..1_100).map(|n| format!("pages/{n:04}+"))).await;
    // The destination's own records, at the top only.
    subject
        .fill([".keepwatch/owner.json", "z/.keepwatch/x"].iter().map(|n| format!("pages/{n}")))
        .await;
    let mut expected: Vec<String> = (0..1_100).map(|n| format!("{n:04}+")).collect();
    expected.push("z/.keepwatch/x".to_owned());
    let listed: Vec<String> =
        all(&reader).await.iter().map(|listed| listed.key.as_str().to_owned()).collect();
    assert_eq!(listed, expected);
    let behind = ObjectReader::list(&reader, Some(&Key::literal("1098+"))).await.unwrap();
    let keys: Vec<&str> = behind.objects.iter().map(|listed| listed.key.as_str()).collect();
    assert_eq!((keys, behind.more_after), (vec!["1099+", "z/.keepwatch/x"], None));
}

pub async fn what_is_not_there_is_gone(subject: &Subject) {
    let reader = subject.reader("gone");
    subject.put("gone/a/b", b"x").send().await.unwrap();
    for name in ["a", "a/", "a/b/", "b"] {
        let id = current(name);
        assert_eq!(ObjectReader::head(&reader, &id).await, Ok(Fetched::Gone), "{name}");
        assert_eq!(outcome(reader.read(&id, None).await), Ok(Fetched::Gone), "{name}");
        assert_eq!(outcome(reader.read(&id, Some(0..9)).await), Ok(Fetched::Gone), "{name}");
        assert_eq!(reader.deleted_at(&id).await, Ok(None), "{name}");
    }
}

pub async fn what_has_another_etag_is_changed(subject: &Subject) {
    let reader = subject.reader("changed");
    subject.put("changed/a", b"one").send().await.unwrap();
    let listed = all(&reader).await.remove(0);
    let id = ObjectId { etag: Some(listed.object.etag), ..current("a") };
    assert_eq!(content(&reader, &id).await, b"one");
    subject.put("changed/a", b"another").send().await.unwrap();
    assert_eq!(ObjectReader::head(&reader, &id).await, Ok(Fetched::Changed));
    assert_eq!(outcome(reader.read(&id, None).await), Ok(Fetched::Changed));
    assert_eq!(outcome(reader.read(&id, Some(0..2)).await), Ok(Fetched::Changed));
    assert_eq!(reader.part_size(&id, 1).await, Ok(None));
}

pub async fn tags_are_counted_and_deletions_read(subject: &Subject) {
    let reader = subject.reader("tags");
    subject.put("tags/none", b"x").send().await.unwrap();
    assert_eq!(reader.deleted_at(&current("none")).await, Ok(None));
    if !subject.can.tags {
        return;
    }
    let noon = Some(Millis(1_795_262_400_000));
    let cases = [
        ("deleted", "Deleted=True&DeletedAt=2026-11-21T12%3A00&more=1", noon),
        ("some-time", "Deleted=True", Some(Millis(0))),
        ("unreadable", "Deleted=True&DeletedAt=soon", Some(Millis(0))),
        ("lower-case", "Deleted=true&DeletedAt=2026-11-21T12%3A00", None),
        ("other", "DeletedAt=2026-11-21T12%3A00&deleted=True", None),
    ];
    for (name, tags, expected) in cases {
        subject.put(&format!("tags/{name}"), b"x").tagging(tags).send().await.unwrap();
        let id = current(name);
        assert_eq!(reader.deleted_at(&id).await, Ok(expected), "{name}");
        let head = found(outcome(reader.read(&id, None).await));
        assert_eq!(head.tags, Some(tags.split('&').count() as u32), "{name}");
    }
}

pub async fn the_size_of_the_first_part(subject: &Subject) {
    const PART: usize = 5 * 1024 * 1024;
    let reader = subject.reader("parts");
    subject.put("parts/whole", b"x").send().await.unwrap();
    // What was sent whole is its own first part, or has none.
    let size = reader.part_size(&current("whole"), 1).await.unwrap();
    assert!(size.is_none_or(|size| size == 1), "{size:?}");
    let (client, key) = (&subject.client, "parts/a");
    let upload = client.create_multipart_upload().bucket(BUCKET).key(key).send().await.unwrap();
    let upload = upload.upload_id().unwrap();
    let mut parts = vec![];
    for (number, body) in [(1, vec![1; PART]), (2, vec![2; 10])] {
        let part = client.upload_part().bucket(BUCKET).key(key).upload_id(upload);
        let part = part.part_number(number).body(body.into()).send().await.unwrap();
        let part = CompletedPart::builder().part_number(number).set_e_tag(part.e_tag);
        parts.push(part.build());
    }
    let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    let complete = client.complete_multipart_upload().bucket(BUCKET).key(key).upload_id(upload);
    complete.multipart_upload(parts).send().await.unwrap();
    let head = found(ObjectReader::head(&reader, &current("a")).await);
    assert_eq!((head.md5, head.etag_is_md5), (None, true));
    assert_eq!(head.object.size_bytes, PART as u64 + 10);
    let id = ObjectId { etag: Some(head.object.etag), ..current("a") };
    let expected = subject.can.part_sizes.then_some(PART as u64);
    assert_eq!(reader.part_size(&id, 1).await, Ok(expected));
    let reading = reader.read(&id, Some(PART as u64 - 1..PART as u64 + 1)).await;
    let Ok(Fetched::Found(reading)) = reading else { panic!() };
    assert_eq!(received(reading).await, (vec![1, 2], None), "across parts");
}

pub async fn without_a_bucket(subject: &Subject) {
    let reader = subject.reader_of("not-there", "");
    let listed = ObjectReader::list(&reader, None).await.map(|_| ());
    assert!(matches!(listed, Err(StoreError::NoSuchBucket(_))), "{listed:?}");
    let read = outcome(reader.read(&current("a"), None).await);
    assert!(matches!(read, Err(StoreError::NoSuchBucket(_))), "{read:?}");
}

pub async fn requests_are_counted(subject: &Subject) {
    let reader = subject.reader("counted");
    subject.put("counted/a", b"x").send().await.unwrap();
    all(&reader).await;
    content(&reader, &current("a")).await;
    found(ObjectReader::head(&reader, &current("a")).await);
    reader.keeps_versions().await.unwrap();
    reader.deleted_at(&current("a")).await.unwrap();
    let expected = RequestCounts { list: 1, get: 1, head: 1, other: 2, ..RequestCounts::default() };
    assert_eq!(ObjectReader::requests(&reader), expected);
    assert_eq!(ObjectReader::place(&reader), "s3://reader/counted/");
}
