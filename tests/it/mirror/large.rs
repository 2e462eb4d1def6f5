//! Large objects: copied in parts, cut and gone on with, and never half old and half new.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart, ServerSideEncryption,
};

use super::Pair;
use crate::support::bucket::Bucket;
use crate::support::external::{External, garage, moto, served};
use crate::support::passage::Passage;
use crate::support::program::User;
use crate::support::server::{Embedded, Fault};
use crate::support::wait_for;

pub(super) const MIB: usize = 1 << 20;

pub(super) fn bytes(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from((n / 7 + n * seed) % 251).unwrap()).collect()
}

/// Sent in parts of this size, with a header, metadata and a tag; answers with its ETag.
pub(super) fn put_in_parts(bucket: &Bucket, key: &str, body: &[u8], part: usize) -> String {
    put_in_parts_with(bucket, key, body, part, &[])
}

/// The same with more metadata.
pub(super) fn put_in_parts_with(
    bucket: &Bucket,
    key: &str,
    body: &[u8],
    part: usize,
    metadata: &[(&str, &str)],
) -> String {
    bucket.run(async {
        let upload = bucket.client.create_multipart_upload().bucket(&bucket.name).key(key);
        let upload = metadata.iter().fold(upload, |upload, (k, v)| upload.metadata(*k, *v));
        let upload = upload.content_type("text/large").metadata("own", "word").tagging("a=b");
        let upload = upload.send().await.unwrap();
        let id = upload.upload_id().unwrap();
        let mut done = vec![];
        for (number, chunk) in (1..).zip(body.chunks(part)) {
            let sent = bucket.client.upload_part().bucket(&bucket.name).key(key).upload_id(id);
            let sent = sent.part_number(number).body(chunk.to_vec().into()).send().await.unwrap();
            let etag = sent.e_tag().unwrap();
            done.push(CompletedPart::builder().part_number(number).e_tag(etag).build());
        }
        let parts = CompletedMultipartUpload::builder().set_parts(Some(done)).build();
        let complete = bucket.client.complete_multipart_upload().bucket(&bucket.name).key(key);
        let complete = complete.upload_id(id).multipart_upload(parts).send().await.unwrap();
        complete.e_tag().unwrap().trim_matches('"').to_owned()
    })
}

pub(super) const SMALL_PARTS: [&str; 4] = ["--multipart-threshold", "5MiB", "--part-size", "5MiB"];

#[test]
fn parts_are_cut_as_the_source_was_and_prove_the_copy() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    let body = bytes(20 * MIB, 3);
    let etag = put_in_parts(&pair.source, "parts", &body, 6 * MIB);
    pair.source.put("whole", &bytes(11 * MIB, 5));
    server.clear_log();
    let said = pair.mirror(&SMALL_PARTS, 0);
    assert_eq!(said.number("copied"), 2);
    assert_eq!(server.count("UploadPartCopy"), 4 + 3, "as it was cut, and as was asked");
    assert_eq!((server.count("GetObject"), server.count("UploadPart")), (1, 0), "the owner record");
    assert_eq!(pair.copies.listed()["parts"].1, etag, "the same cuts, the same ETag");
    pair.is_kept();
    pair.is_settled(&SMALL_PARTS);
    assert_eq!(pair.copies.open_uploads(), [""; 0]);
    // Its ETag is another, and the records know that.
    pair.is_settled(&["--compare", "checksum"]);
}

/// The same with a checksum of this algorithm and kind.
pub(super) fn put_with_checksum(
    bucket: &Bucket,
    key: &str,
    body: &[u8],
    part: usize,
    checksum: (&str, ChecksumType),
) {
    put_cut(bucket, key, &body.chunks(part).collect::<Vec<_>>(), checksum, false);
}

/// Sent in these parts; `hides_md5`: under a key, so that the ETag is no MD5.
pub(super) fn put_cut(
    bucket: &Bucket,
    key: &str,
    parts: &[&[u8]],
    (algorithm, kind): (&str, ChecksumType),
    hides_md5: bool,
) {
    let algorithm = ChecksumAlgorithm::from(algorithm);
    bucket.run(async {
        let upload = bucket.client.create_multipart_upload().bucket(&bucket.name).key(key);
        let upload = upload.checksum_algorithm(algorithm.clone()).checksum_type(kind);
        let sse = hides_md5.then_some(ServerSideEncryption::AwsKms);
        let upload = upload.set_server_side_encryption(sse).send().await.unwrap();
        let id = upload.upload_id().unwrap();
        let mut done = vec![];
        for (number, chunk) in (1..).zip(parts) {
            let sent = bucket.client.upload_part().bucket(&bucket.name).key(key).upload_id(id);
            let sent = sent.part_number(number).checksum_algorithm(algorithm.clone());
            let sent = sent.body(chunk.to_vec().into()).send().await.unwrap();
            let part = CompletedPart::builder()
                .part_number(number)
                .e_tag(sent.e_tag().unwrap())
                .set_checksum_crc32(sent.checksum_crc32().map(str::to_owned))
                .set_checksum_crc32_c(sent.checksum_crc32_c().map(str::to_owned))
                .set_checksum_sha1(sent.checksum_sha1().map(str::to_owned))
                .set_checksum_sha256(sent.checksum_sha256().map(str::to_owned));
            done.push(part.build());
        }
        let parts = CompletedMultipartUpload::builder().set_parts(Some(done)).build();
        let complete = bucket.client.complete_multipart_upload().bucket(&bucket.name).key(key);
        complete.upload_id(id).multipart_upload(parts).send().await.unwrap();
    });
}

pub(super) const CHECKSUMS: [(&str, ChecksumType); 7] = [
    ("CRC32", ChecksumType::FullObject),
    ("CRC32C", ChecksumType::FullObject),
    ("CRC64NVME", ChecksumType::FullObject),
    ("CRC32", ChecksumType::Composite),
    ("CRC32C", ChecksumType::Composite),
    ("SHA1", ChecksumType::Composite),
    ("SHA256", ChecksumType::Composite),
];

/// One object of 12 MiB with each checksum that one in parts can have, and two that only a whole
/// one can have.
pub(super) fn put_with_all_checksums(bucket: &Bucket, left_out: &[&str]) -> usize {
    let body = bytes(12 * MIB, 3);
    let checksums = CHECKSUMS.into_iter().filter(|(name, _)| !left_out.contains(name));
    let checksums: Vec<_> = checksums.collect();
    let count = checksums.len() + 2;
    for (n, checksum) in checksums.into_iter().enumerate() {
        put_with_checksum(bucket, &format!("parts-{n}"), &body, 5 * MIB, checksum);
    }
    for algorithm in ["SHA1", "SHA256"] {
        let put = bucket.client.put_object().bucket(&bucket.name).key(format!("whole-{algorithm}"));
        let put = put.checksum_algorithm(algorithm.into()).body(body.clone().into());
        bucket.run(put.send()).unwrap();
    }
    count
}

fn checksums_are_kept(server: &External, left_out: &[&str]) {
    let pair = Pair::new(&server.reach);
    let count = put_with_all_checksums(&pair.source, left_out);
    let args = [&SMALL_PARTS[..], &["--deletions", "keep"]].concat();
    let said = pair.mirror(&args, 0);
    assert_eq!(usize::try_from(said.number("copied")), Ok(count));
    pair.is_kept();
    pair.is_settled(&args);
    // A copy by one request has a checksum of the content instead of one of parts.
    let pair = Pair { copies: Bucket::create(&server.reach, "again"), ..pair };
    let args = ["mirror", "s3://source", "s3://again", "--json", "--deletions", "keep"];
    let said = pair.user.run(&args);
    assert_eq!((said.code, usize::try_from(said.number("copied"))), (0, Ok(count)), "{said:?}");
    let algorithm = |bucket: &Bucket, key: &str| super::checksum(bucket, key).unwrap().0;
    for key in pair.copies.keys().iter().filter(|key| !key.starts_with(".keepwatch/")) {
        assert_eq!(algorithm(&pair.source, key), algorithm(&pair.copies, key), "{key}");
    }
}

#[test]
fn checksums_are_kept_on_the_embedded_store() {
    checksums_are_kept(&served(), &[]);
}

#[test]
fn checksums_are_kept_on_moto() {
    // Without further libraries moto takes these for CRC32.
    checksums_are_kept(&moto(), &["CRC32C", "CRC64NVME"]);
}

#[test]
fn checksums_are_kept_on_garage() {
    checksums_are_kept(&garage(), &[]);
}

/// Three parts, of which the first tells their number, and not their sizes.
pub(super) fn put_uneven(bucket: &Bucket) {
    let body = bytes(17 * MIB, 3);
    let parts = [&body[..6 * MIB], &body[6 * MIB..11 * MIB], &body[11 * MIB..]];
    for (n, checksum) in CHECKSUMS.into_iter().enumerate() {
        put_cut(bucket, &format!("uneven-{n}"), &parts, checksum, false);
    }
}

#[test]
fn parts_of_several_sizes_are_no_damage() {
    let server = served();
    let pair = Pair::new(&server.reach);
    put_uneven(&pair.source);
    let said = pair.mirror(&SMALL_PARTS, 0);
    assert_eq!(usize::try_from(said.number("copied")), Ok(CHECKSUMS.len()));
    let (source, copies) = (super::whole(&pair.source), super::whole(&pair.copies));
    for (key, object) in &source {
        assert!(object.body == copies[key].body, "{key}");
    }
    pair.is_settled(&SMALL_PARTS);
    let back = pair.user.home.path().join("back");
    let said = pair.user.run(&["restore", "s3://source", back.to_str().unwrap(), "--json"]);
    assert_eq!((said.code, said.number("failed")), (0, 0), "{said:?}");
    for (key, object) in &source {
        assert!(std::fs::read(back.join(key)).unwrap() == object.body, "{key}");
    }
}

#[test]
fn a_copy_that_was_cut_goes_on_with_the_checksums_of_its_parts() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    let body = bytes(30 * MIB, 3);
    put_with_checksum(&pair.source, "large", &body, 5 * MIB, ("SHA256", ChecksumType::Composite));
    let seen_parts = Arc::new(AtomicUsize::new(0));
    let parts = seen_parts.clone();
    server.rule(move |seen| match seen.method == "PUT" && seen.query.contains("partNumber") {
        true if seen_parts.fetch_add(1, Ordering::SeqCst) >= 3 => Fault::Hang,
        _ => Fault::Pass,
    });
    let args = [&["mirror", "s3://source", "s3://copies"], &SMALL_PARTS[..]].concat();
    let running = pair.user.spawn(pair.user.command(&args));
    wait_for("the rest to hang", || parts.load(Ordering::SeqCst) > 3);
    running.kill();
    server.no_rule();
    let said = pair.mirror(&SMALL_PARTS, 0);
    assert!(said.stderr.contains("going on with the copy of large"), "{said:?}");
    pair.is_kept();
}

#[test]
fn a_copy_that_was_cut_goes_on_with_the_parts_that_are_there() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    put_in_parts(&pair.source, "large", &bytes(60 * MIB, 3), 5 * MIB);
    let copied = Arc::new(AtomicUsize::new(0));
    let seen_copied = copied.clone();
    server.rule(move |seen| match seen.method == "PUT" && seen.query.contains("partNumber") {
        true if seen_copied.fetch_add(1, Ordering::SeqCst) >= 5 => Fault::Hang,
        _ => Fault::Pass,
    });
    for signal in ["KILL", "INT"] {
        let args = [&["mirror", "s3://source", "s3://copies"], &SMALL_PARTS[..]].concat();
        let running = pair.user.spawn(pair.user.command(&args));
        let before = server.count("UploadPartCopy");
        wait_for("some parts", || server.count("UploadPartCopy") >= 5);
        if before == 0 {
            wait_for("the rest to hang", || copied.load(Ordering::SeqCst) > 5);
        }
        running.signal(signal);
        running.wait();
    }
    assert_eq!(pair.copies.open_uploads(), ["large"]);
    server.no_rule();
    server.clear_log();
    let said = pair.mirror(&SMALL_PARTS, 0);
    assert_eq!(said.number("copied"), 1);
    assert!(said.stderr.contains("going on with the copy of large"), "{said:?}");
    let again = server.count("UploadPartCopy");
    assert!((1..=7).contains(&again), "of 12 parts {again} were copied again");
    assert_eq!(server.count("CreateMultipartUpload"), 0);
    pair.is_kept();
    assert_eq!(pair.copies.open_uploads(), [""; 0]);
}

#[test]
fn a_source_that_changes_meanwhile_is_never_half_old_and_half_new() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    let (old, new) = (bytes(30 * MIB, 3), bytes(30 * MIB, 11));
    pair.source.put("large", &old);
    let copied = Arc::new(AtomicUsize::new(0));
    let seen_copied = copied.clone();
    let go_on = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let goes_on = go_on.clone();
    server.rule(move |seen| match seen.method == "PUT" && seen.query.contains("partNumber") {
        true if seen_copied.fetch_add(1, Ordering::SeqCst) >= 3 => Fault::Until(goes_on.clone()),
        _ => Fault::Pass,
    });
    let args = [&["mirror", "s3://source", "s3://copies", "--json"], &SMALL_PARTS[..]].concat();
    let running = pair.user.spawn(pair.user.command(&args));
    wait_for("three parts", || copied.load(Ordering::SeqCst) > 3);
    pair.source.put("large", &new);
    go_on.store(true, Ordering::SeqCst);
    assert_eq!(running.wait(), 0);
    assert!(pair.copies.get("large").unwrap().body == new, "all of it is of one content");
    assert_eq!(pair.copies.open_uploads(), [""; 0], "the first try left nothing behind");
    pair.is_settled(&SMALL_PARTS);
}

/// moto heeds no condition on a part that it copies.
#[test]
fn a_server_that_heeds_no_condition_mixes_nothing_either() {
    let server = moto();
    let mut pair = Pair::new(&server.reach);
    for is_cut_the_same in [false, true] {
        let put = move |bucket: &Bucket, seed: usize| match is_cut_the_same {
            true => drop(put_in_parts(bucket, "large", &bytes(20 * MIB, seed), 5 * MIB)),
            false => bucket.put("large", &bytes(20 * MIB, seed)),
        };
        put(&pair.source, 3);
        let (other, parts) = (Bucket::open(&server.reach, "source"), AtomicUsize::new(0));
        let passage = Passage::to(&server.reach, move |line| {
            let is_part = line.starts_with("PUT ") && line.contains("partNumber");
            if is_part && parts.fetch_add(1, Ordering::SeqCst) == 2 {
                put(&other, 11);
            }
        });
        pair.user = User::of(&passage.reach);
        let said = pair.mirror(&[&SMALL_PARTS[..], &["--transfers", "1"]].concat(), 0);
        assert_eq!((said.number("copied"), said.number("failed")), (1, 0), "{said:?}");
        assert!(pair.copies.get("large").unwrap().body == bytes(20 * MIB, 11), "of one content");
        assert_eq!(pair.copies.open_uploads(), [""; 0], "the first try left nothing behind");
        pair.is_settled(&SMALL_PARTS);
    }
}

/// An object of fifteen parts of 10 MiB, put together within the server.
fn put_together(bucket: &Bucket, key: &str, seed: usize) -> Vec<u8> {
    let piece = bytes(10 * MIB, seed);
    bucket.put("piece", &piece);
    bucket.run(async {
        let upload = bucket.client.create_multipart_upload().bucket(&bucket.name).key(key);
        let upload = upload.send().await.unwrap();
        let id = upload.upload_id().unwrap();
        let mut done = vec![];
        for number in 1..=15 {
            let sent = bucket.client.upload_part_copy().bucket(&bucket.name).key(key).upload_id(id);
            let sent = sent.part_number(number).copy_source(format!("{}/piece", bucket.name));
            let sent = sent.send().await.unwrap();
            let etag = sent.copy_part_result().unwrap().e_tag().unwrap().to_owned();
            done.push(CompletedPart::builder().part_number(number).e_tag(etag).build());
        }
        let parts = CompletedMultipartUpload::builder().set_parts(Some(done)).build();
        let complete = bucket.client.complete_multipart_upload().bucket(&bucket.name).key(key);
        complete.upload_id(id).multipart_upload(parts).send().await.unwrap();
    });
    bucket.delete("piece");
    piece.repeat(15)
}

#[test]
fn a_restore_that_was_killed_goes_on_and_leaves_nothing_open() {
    let server = Embedded::start();
    let pair = Pair::new(&server.reach);
    let args = ["restore", "s3://copies", "s3://source/back", "--json"];
    let notes = pair.user.state_folder().join("restores");
    let is_clean = || std::fs::read_dir(&notes).is_ok_and(|mut left| left.next().is_none());
    let killed = |signal: &str| {
        let copied = AtomicUsize::new(0);
        server.rule(move |seen| match seen.method == "PUT" && seen.query.contains("partNumber") {
            true if copied.fetch_add(1, Ordering::SeqCst) >= 5 => Fault::Hang,
            _ => Fault::Pass,
        });
        server.clear_log();
        let running = pair.user.spawn(pair.user.command(&args));
        wait_for("some parts", || server.count("UploadPartCopy") >= 5);
        running.signal(signal);
        running.wait();
        server.no_rule();
        server.clear_log();
        assert_eq!(pair.source.open_uploads(), ["back/large"]);
    };
    let again = |code| {
        let said = pair.user.run(&args);
        assert_eq!(said.code, code, "{said:?}");
        assert_eq!(pair.source.open_uploads(), [""; 0]);
        said
    };

    let body = put_together(&pair.copies, "large", 3);
    killed("KILL");
    assert!(!is_clean());
    let said = again(0);
    assert!(said.stderr.contains("going on with the copy of large: 5 parts"), "{said:?}");
    let requests = (server.count("CreateMultipartUpload"), server.count("UploadPartCopy"));
    assert_eq!(requests, (0, 10));
    assert!(pair.source.get("back/large").unwrap().body == body);
    assert!(is_clean());

    // Its source is another by now: no part of the old one is in the new one.
    pair.source.delete("back/large");
    killed("INT");
    let body = put_together(&pair.copies, "large", 11);
    server.clear_log();
    again(0);
    let requests = (server.count("CreateMultipartUpload"), server.count("UploadPartCopy"));
    assert_eq!(requests, (1, 15));
    assert!(pair.source.get("back/large").unwrap().body == body, "all of it is of one content");

    // It is not wanted any more. What another program has open is left alone.
    pair.source.delete("back/large");
    killed("KILL");
    pair.copies.delete("large");
    pair.copies.put("small", b"small");
    let other = pair.source.client.create_multipart_upload().bucket("source").key("back/other");
    pair.source.run(other.send()).unwrap();
    let said = pair.user.run(&args);
    assert_eq!((said.code, said.number("copied")), (0, 1), "{said:?}");
    assert!(said.stderr.contains("aborted a copy of large that was left open"), "{said:?}");
    assert_eq!(pair.source.open_uploads(), ["back/other"]);
    assert!(is_clean());
}
