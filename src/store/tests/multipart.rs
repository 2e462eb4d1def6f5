//! Multipart uploads.

use aws_sdk_s3::operation::complete_multipart_upload::builders as complete;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart,
    EncodingType, ObjectAttributes, StorageClass,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{BUCKET, NOON_MS, Rig, assert_refused, both, md5_hex, noise};
use crate::store::digest::{Algorithm, Digests};

const PART_BYTES: usize = 5 << 20;

fn list(parts: &[CompletedPart]) -> CompletedMultipartUpload {
    CompletedMultipartUpload::builder().set_parts(Some(parts.to_vec())).build()
}

fn part(number: i32, etag: &str) -> CompletedPart {
    CompletedPart::builder().part_number(number).e_tag(etag).build()
}

impl Rig {
    async fn begin(&self, key: &str) -> String {
        let create = self.client.create_multipart_upload().bucket(BUCKET).key(key);
        create.send().await.unwrap().upload_id().unwrap().to_owned()
    }

    async fn upload(&self, key: &str, id: &str, number: i32, body: &[u8]) -> CompletedPart {
        let upload = self.client.upload_part().bucket(BUCKET).key(key).upload_id(id);
        let upload = upload.part_number(number).body(body.to_vec().into());
        part(number, upload.send().await.unwrap().e_tag().unwrap())
    }

    fn complete(
        &self,
        key: &str,
        id: &str,
        parts: &[CompletedPart],
    ) -> complete::CompleteMultipartUploadFluentBuilder {
        let complete = self.client.complete_multipart_upload().bucket(BUCKET).key(key);
        complete.upload_id(id).multipart_upload(list(parts))
    }
}

#[tokio::test]
async fn parts_become_one_object() {
    both(async |rig| {
        let create = rig.client.create_multipart_upload().bucket(BUCKET).key("d/big");
        let create = create.content_type("text/x").metadata("m", "1").tagging("t=1");
        let create = create.storage_class(StorageClass::StandardIa).send().await.unwrap();
        let id = create.upload_id().unwrap();
        let bodies = [noise(1, PART_BYTES), noise(2, PART_BYTES + 1), noise(3, 10)];
        let mut parts = Vec::new();
        // In any order, with gaps in the numbers, and one of them replaced.
        for (number, body) in [(7, &bodies[1]), (2, &bodies[2]), (9, &bodies[2]), (2, &bodies[0])] {
            parts.push(rig.upload("d/big", id, number, body).await);
        }
        let parts = [parts[3].clone(), parts[0].clone(), parts[2].clone()];
        assert!(rig.keys().await.is_empty(), "not before it is complete");
        rig.pass_ms(2000);
        let answer = rig.complete("d/big", id, &parts).send().await.unwrap();

        let md5s: Vec<u8> = bodies.iter().flat_map(|body| md5(body)).collect();
        let etag = format!("\"{}-3\"", md5_hex(&md5s));
        assert_eq!(answer.e_tag(), Some(etag.as_str()));
        assert_eq!((answer.bucket(), answer.key()), (Some(BUCKET), Some("d/big")));
        let whole = bodies.concat();
        assert!(rig.get("d/big").await == whole);
        assert!(std::fs::read(rig.path("bkt/d/big")).unwrap() == whole, "one plain file");
        assert_eq!(rig.on_their_way(), 0, "the parts are gone");

        let head = rig.client.head_object().bucket(BUCKET).key("d/big");
        let head = head.checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
        assert_eq!(head.e_tag(), Some(etag.as_str()));
        assert_eq!(head.content_type(), Some("text/x"));
        assert_eq!(head.metadata().unwrap().get("m").unwrap(), "1");
        assert_eq!(head.storage_class(), Some(&StorageClass::StandardIa));
        assert_eq!(head.tag_count(), Some(1));
        assert_eq!(head.last_modified().unwrap().secs(), (NOON_MS / 1000 + 2) as i64);
        assert_eq!(head.checksum_type(), Some(&ChecksumType::FullObject));
        assert_eq!(head.checksum_crc64_nvme(), answer.checksum_crc64_nvme());
        let crc64 = checksum(Algorithm::Crc64Nvme, &whole);
        assert_eq!(head.checksum_crc64_nvme(), Some(crc64.as_str()));

        let again = rig.complete("d/big", id, &parts).send().await;
        assert_refused(again, 404, "NoSuchUpload");
    })
    .await;
}

fn md5(bytes: &[u8]) -> [u8; 16] {
    use ::md5::Digest as _;
    ::md5::Md5::digest(bytes).into()
}

fn checksum(algorithm: Algorithm, bytes: &[u8]) -> String {
    let mut digests = Digests::new(Some(algorithm));
    digests.update(bytes);
    digests.finish().checksum().value
}

#[tokio::test]
async fn parts_can_be_read_by_number() {
    both(async |rig| {
        let id = rig.begin("k").await;
        let bodies = [noise(1, PART_BYTES), noise(2, 1000)];
        let mut parts = Vec::new();
        for (number, body) in [(1, &bodies[0]), (2, &bodies[1])] {
            parts.push(rig.upload("k", &id, number, body).await);
        }
        rig.complete("k", &id, &parts).send().await.unwrap();
        let get = |number: i32| rig.client.get_object().bucket(BUCKET).key("k").part_number(number);
        let second = get(2).send().await.unwrap();
        assert_eq!(second.parts_count(), Some(2));
        let range = format!("bytes {PART_BYTES}-{}/{}", PART_BYTES + 999, PART_BYTES + 1000);
        assert_eq!(second.content_range(), Some(range.as_str()));
        assert!(second.body.collect().await.unwrap().to_vec() == bodies[1]);
        assert_refused(get(3).send().await, 416, "InvalidPartNumber");
        assert_refused(get(0).send().await, 400, "InvalidArgument");
        assert_refused(get(1).range("bytes=0-1").send().await, 400, "InvalidRequest");
        let head = rig.client.head_object().bucket(BUCKET).key("k").part_number(1);
        let head = head.send().await.unwrap();
        assert_eq!(head.content_length(), Some(PART_BYTES as i64));
        assert_eq!(head.parts_count(), Some(2));

        rig.put("single", b"whole").await;
        let get = rig.client.get_object().bucket(BUCKET).key("single").part_number(1);
        let answer = get.send().await.unwrap();
        assert_eq!((answer.content_length(), answer.parts_count()), (Some(5), None));
    })
    .await;
}

#[tokio::test]
async fn every_kind_of_checksum_is_combined_from_the_parts() {
    use Algorithm::*;
    let rig = Rig::new().await;
    let bodies = [noise(1, PART_BYTES), noise(2, PART_BYTES + 7), noise(3, 11)];
    let whole = bodies.concat();
    for (algorithm, kind) in [
        (Crc64Nvme, ChecksumType::FullObject),
        (Crc32c, ChecksumType::FullObject),
        (Crc32, ChecksumType::FullObject),
        (Crc32c, ChecksumType::Composite),
        (Crc32, ChecksumType::Composite),
        (Sha1, ChecksumType::Composite),
        (Sha256, ChecksumType::Composite),
    ] {
        let name = ChecksumAlgorithm::from(algorithm.name());
        let client = rig.hashing();
        let create = client.create_multipart_upload().bucket(BUCKET).key("k");
        let create = create.checksum_algorithm(name.clone()).checksum_type(kind.clone());
        let create = create.send().await.unwrap();
        assert_eq!(create.checksum_type(), Some(&kind));
        let id = create.upload_id().unwrap();
        let (mut parts, mut digests) = (Vec::new(), Vec::new());
        for (number, body) in (1..).zip(&bodies) {
            let upload = client.upload_part().bucket(BUCKET).key("k").upload_id(id);
            let upload = upload.checksum_algorithm(name.clone()).part_number(number);
            let answer = upload.body(body.clone().into()).send().await.unwrap();
            let completed = part(number, answer.e_tag().unwrap());
            let value = checksum(algorithm, body);
            digests.extend(BASE64.decode(&value).unwrap());
            parts.push(with_checksum(completed, algorithm, &value));
        }
        let expected = match kind {
            ChecksumType::Composite => format!("{}-3", checksum(algorithm, &digests)),
            _ => checksum(algorithm, &whole),
        };
        let complete = || rig.complete("k", id, &parts).checksum_type(kind.clone());
        let wrong_value = match kind {
            ChecksumType::Composite => format!("{}-3", checksum(algorithm, b"other")),
            _ => checksum(algorithm, b"other"),
        };
        let wrong = claim(complete(), algorithm, &wrong_value).send().await;
        assert_refused(wrong, 400, "BadDigest");
        claim(complete(), algorithm, &expected).send().await.unwrap();
        let head = client.head_object().bucket(BUCKET).key("k");
        let head = head.checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
        let found = match algorithm {
            Crc32 => head.checksum_crc32(),
            Crc32c => head.checksum_crc32_c(),
            Crc64Nvme => head.checksum_crc64_nvme(),
            Sha1 => head.checksum_sha1(),
            Sha256 => head.checksum_sha256(),
        };
        assert_eq!(found, Some(expected.as_str()), "{algorithm:?} {kind}");
        assert_eq!(head.checksum_type(), Some(&kind));
        assert!(rig.get("k").await == whole, "the SDK verifies full-object checksums");
    }
}

fn with_checksum(completed: CompletedPart, algorithm: Algorithm, value: &str) -> CompletedPart {
    let builder = CompletedPart::builder()
        .set_part_number(completed.part_number())
        .set_e_tag(completed.e_tag().map(str::to_owned));
    match algorithm {
        Algorithm::Crc32 => builder.checksum_crc32(value),
        Algorithm::Crc32c => builder.checksum_crc32_c(value),
        Algorithm::Crc64Nvme => builder.checksum_crc64_nvme(value),
        Algorithm::Sha1 => builder.checksum_sha1(value),
        Algorithm::Sha256 => builder.checksum_sha256(value),
    }
    .build()
}

fn claim(
    request: complete::CompleteMultipartUploadFluentBuilder,
    algorithm: Algorithm,
    value: &str,
) -> complete::CompleteMultipartUploadFluentBuilder {
    match algorithm {
        Algorithm::Crc32 => request.checksum_crc32(value),
        Algorithm::Crc32c => request.checksum_crc32_c(value),
        Algorithm::Crc64Nvme => request.checksum_crc64_nvme(value),
        Algorithm::Sha1 => request.checksum_sha1(value),
        Algorithm::Sha256 => request.checksum_sha256(value),
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_the_upload_stays() {
    both(async |rig| {
        let id = rig.begin("k").await;
        let first = rig.upload("k", &id, 1, &noise(1, PART_BYTES)).await;
        let second = rig.upload("k", &id, 2, b"small").await;
        let third = rig.upload("k", &id, 3, b"small too").await;
        let complete = |parts: &[CompletedPart]| rig.complete("k", &id, parts);
        let (one, two, three) = (first.clone(), second.clone(), third.clone());
        let small = complete(&[one.clone(), two.clone(), three]).send().await;
        assert_refused(small, 400, "EntityTooSmall");
        for unordered in [[two.clone(), one.clone()], [one.clone(), one.clone()]] {
            assert_refused(complete(&unordered).send().await, 400, "InvalidPartOrder");
        }
        for unknown in [part(4, "\"x\""), part(2, first.e_tag().unwrap())] {
            let result = complete(&[one.clone(), unknown]).send().await;
            assert_refused(result, 400, "InvalidPart");
        }
        assert_refused(complete(&[]).send().await, 400, "MalformedXML");
        let good = || complete(&[one.clone(), two.clone()]);
        let wrong_size = good().mpu_object_size(7).send().await;
        assert_refused(wrong_size, 400, "InvalidRequest");
        let other_kind = good().checksum_type(ChecksumType::Composite).send().await;
        assert_refused(other_kind, 400, "InvalidRequest");
        let bad = good().checksum_crc64_nvme(BASE64.encode([0; 8])).send().await;
        assert_refused(bad, 400, "BadDigest");
        let none = rig.complete("k", "no-such-id", std::slice::from_ref(&one)).send().await;
        assert_refused(none, 404, "NoSuchUpload");
        let other_key = rig.complete("l", &id, std::slice::from_ref(&one)).send().await;
        assert_refused(other_key, 404, "NoSuchUpload");
        assert!(rig.keys().await.is_empty());
        assert_eq!(rig.on_their_way(), 3, "the parts, and nothing that was assembled");
        good().mpu_object_size((PART_BYTES + 5) as i64).send().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn completion_can_be_conditional() {
    let rig = Rig::new().await;
    let etag = rig.put("k", b"there").await;
    let id = rig.begin("k").await;
    let parts = [rig.upload("k", &id, 1, b"part").await];
    let complete = || rig.complete("k", &id, &parts);
    let exists = complete().if_none_match("*").send().await;
    assert_refused(exists, 412, "PreconditionFailed");
    let other = complete().if_match("\"no\"").send().await;
    assert_refused(other, 412, "PreconditionFailed");
    assert_eq!(rig.get("k").await, b"there");
    complete().if_match(etag).send().await.unwrap();
    assert_eq!(rig.get("k").await, b"part");
}

#[tokio::test]
async fn bad_parts_are_refused() {
    let rig = Rig::new().await;
    let create = rig.client.create_multipart_upload().bucket(BUCKET).key("k");
    let create = create.checksum_algorithm(ChecksumAlgorithm::Sha256).send().await.unwrap();
    let id = create.upload_id().unwrap();
    let upload = |number: i32| {
        let upload = rig.client.upload_part().bucket(BUCKET).key("k").upload_id(id);
        upload.part_number(number).body(b"x".to_vec().into())
    };
    for number in [0, -1, 10_001] {
        assert_refused(upload(number).send().await, 400, "InvalidArgument");
    }
    let md5 = upload(1).content_md5(BASE64.encode([0; 16])).send().await;
    assert_refused(md5, 400, "BadDigest");
    let sha256 = upload(1).checksum_sha256(BASE64.encode([0; 32])).send().await;
    assert_refused(sha256, 400, "BadDigest");
    assert_refused(upload(1).send().await, 400, "InvalidRequest");
    let other = upload(1).checksum_crc32("jNwUkg==").send().await;
    assert_refused(other, 400, "BadDigest");
    assert_eq!(rig.on_their_way(), 0);
    let good = upload(1).checksum_sha256(checksum(Algorithm::Sha256, b"x")).send().await.unwrap();
    // The list must repeat the checksums of a composite upload.
    let bare = [part(1, good.e_tag().unwrap())];
    assert_refused(rig.complete("k", id, &bare).send().await, 400, "InvalidRequest");
    let wrong = checksum(Algorithm::Sha256, b"y");
    let wrong = [with_checksum(bare[0].clone(), Algorithm::Sha256, &wrong)];
    assert_refused(rig.complete("k", id, &wrong).send().await, 400, "InvalidPart");

    let create = |algorithm: ChecksumAlgorithm, kind: ChecksumType| {
        let create = rig.client.create_multipart_upload().bucket(BUCKET).key("k");
        create.checksum_algorithm(algorithm).checksum_type(kind).send()
    };
    let sha = create(ChecksumAlgorithm::Sha256, ChecksumType::FullObject).await;
    assert_refused(sha, 400, "InvalidRequest");
    let crc64 = create(ChecksumAlgorithm::Crc64Nvme, ChecksumType::Composite).await;
    assert_refused(crc64, 400, "InvalidRequest");
}

#[tokio::test]
async fn parts_are_listed_in_pages() {
    both(async |rig| {
        let id = rig.begin("k").await;
        for number in [1, 3, 4, 10, 200] {
            rig.upload("k", &id, number, format!("{number}").as_bytes()).await;
        }
        let list = || rig.client.list_parts().bucket(BUCKET).key("k").upload_id(&id);
        let (mut numbers, mut marker) = (Vec::new(), None);
        loop {
            let page = list().max_parts(2).set_part_number_marker(marker).send().await.unwrap();
            assert!(page.parts().len() <= 2);
            numbers.extend(page.parts().iter().map(|part| part.part_number().unwrap()));
            if page.is_truncated() != Some(true) {
                break;
            }
            marker = page.next_part_number_marker().map(str::to_owned);
        }
        assert_eq!(numbers, [1, 3, 4, 10, 200]);
        let all = list().send().await.unwrap();
        let third = &all.parts()[2];
        let etag = format!("\"{}\"", md5_hex(b"4"));
        assert_eq!((third.size(), third.e_tag()), (Some(1), Some(etag.as_str())));
        assert_eq!(all.storage_class().unwrap().as_str(), "STANDARD");

        let abort = || rig.client.abort_multipart_upload().bucket(BUCKET).key("k").upload_id(&id);
        abort().send().await.unwrap();
        assert_eq!(rig.on_their_way(), 0);
        assert_refused(abort().send().await, 404, "NoSuchUpload");
        assert_refused(list().send().await, 404, "NoSuchUpload");
        let late = rig.client.upload_part().bucket(BUCKET).key("k").upload_id(&id).part_number(1);
        assert_refused(late.send().await, 404, "NoSuchUpload");
        assert_eq!(rig.on_their_way(), 0);
    })
    .await;
}

#[tokio::test]
async fn uploads_are_listed_in_pages_and_rolled_up() {
    let rig = Rig::new().await;
    let mut expected = Vec::new();
    for key in ["a b", "d/1", "d/1", "d/1", "d/2", "e+"] {
        expected.push((key.to_owned(), rig.begin(key).await));
        rig.pass_ms(1000);
    }
    let list = || rig.client.list_multipart_uploads().bucket(BUCKET);
    for page_size in [1, 2, 4, 1000] {
        let (mut found, mut key, mut id) = (Vec::new(), None, None);
        loop {
            let page = list().max_uploads(page_size).set_key_marker(key).set_upload_id_marker(id);
            let page = page.send().await.unwrap();
            found.extend(page.uploads().iter().map(|upload| {
                (upload.key().unwrap().to_owned(), upload.upload_id().unwrap().to_owned())
            }));
            if page.is_truncated() != Some(true) {
                break;
            }
            key = page.next_key_marker().map(str::to_owned);
            id = page.next_upload_id_marker().map(str::to_owned);
        }
        assert_eq!(found, expected, "pages of {page_size}");
    }
    let page = list().delimiter("/").send().await.unwrap();
    assert_eq!(page.uploads().len(), 2);
    assert_eq!(page.common_prefixes()[0].prefix(), Some("d/"));
    let page = list().prefix("d/").key_marker("d/1").send().await.unwrap();
    assert_eq!(page.uploads().len(), 1);
    assert_eq!(page.uploads()[0].key(), Some("d/2"));
    assert!(page.uploads()[0].initiated().is_some());
    let page = list().encoding_type(EncodingType::Url).send().await.unwrap();
    assert_eq!(page.uploads()[0].key(), Some("a+b"));
    assert_eq!(page.uploads()[5].key(), Some("e%2B"));
}

#[tokio::test]
async fn attributes_tell_of_the_parts() {
    let rig = Rig::new().await;
    let id = rig.begin("k").await;
    let mut parts = Vec::new();
    for (number, body) in [(1, noise(1, PART_BYTES)), (2, noise(2, PART_BYTES)), (3, vec![0; 3])] {
        parts.push(rig.upload("k", &id, number, &body).await);
    }
    let done = rig.complete("k", &id, &parts).send().await.unwrap();
    let ask = || {
        let ask = rig.client.get_object_attributes().bucket(BUCKET).key("k");
        let ask = ask.object_attributes(ObjectAttributes::ObjectParts);
        let ask = ask.object_attributes(ObjectAttributes::Etag);
        ask.object_attributes(ObjectAttributes::StorageClass)
    };
    let answer = ask().max_parts(2).send().await.unwrap();
    assert_eq!(answer.e_tag().unwrap().trim_matches('"'), done.e_tag().unwrap().trim_matches('"'));
    assert_eq!(answer.storage_class(), Some(&StorageClass::Standard));
    assert!(answer.checksum().is_none());
    let shown = answer.object_parts().unwrap();
    assert_eq!((shown.total_parts_count(), shown.is_truncated()), (Some(3), Some(true)));
    assert_eq!(shown.parts()[1].size(), Some(PART_BYTES as i64));
    assert!(shown.parts()[1].checksum_crc64_nvme().is_some());
    let rest = ask().part_number_marker(shown.next_part_number_marker().unwrap());
    let rest = rest.send().await.unwrap();
    let shown = rest.object_parts().unwrap();
    assert_eq!((shown.parts().len(), shown.is_truncated()), (1, Some(false)));
    assert_eq!(shown.parts()[0].part_number(), Some(3));
}
