//! CopyObject and UploadPartCopy.

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload, CompletedPart, MetadataDirective,
    StorageClass, TaggingDirective,
};

use super::{BUCKET, NOON_MS, Rig, assert_refused, both, md5_hex, noise};

fn source(key: &str) -> String {
    let all = percent_encoding::NON_ALPHANUMERIC;
    format!("{BUCKET}/{}", percent_encoding::utf8_percent_encode(key, all))
}

#[tokio::test]
async fn a_copy_takes_everything_but_the_storage_class() {
    both(async |rig| {
        let put = rig.client.put_object().bucket(BUCKET).key("from").content_type("text/x");
        let put = put.metadata("m", "1").tagging("t=1").cache_control("no-cache");
        let put = put.storage_class(StorageClass::StandardIa);
        put.body(noise(1, 100_000).into()).send().await.unwrap();
        rig.pass_ms(5000);
        let copy = rig.client.copy_object().bucket(BUCKET).key("to").copy_source(source("from"));
        let answer = copy.send().await.unwrap();
        let result = answer.copy_object_result().unwrap();
        assert_eq!(result.e_tag(), Some(format!("\"{}\"", md5_hex(&noise(1, 100_000))).as_str()));
        assert_eq!(result.last_modified().unwrap().secs(), (NOON_MS / 1000 + 5) as i64);
        assert!(result.checksum_crc64_nvme().is_some());
        assert!(rig.get("to").await == noise(1, 100_000));
        let head = rig.client.head_object().bucket(BUCKET).key("to").send().await.unwrap();
        assert_eq!(head.content_type(), Some("text/x"));
        assert_eq!(head.cache_control(), Some("no-cache"));
        assert_eq!(head.metadata().unwrap().get("m").unwrap(), "1");
        assert_eq!(head.storage_class(), None);
        let tags = rig.client.get_object_tagging().bucket(BUCKET).key("to").send().await.unwrap();
        assert_eq!(tags.tag_set()[0].value(), "1");
    })
    .await;
}

#[tokio::test]
async fn directives_replace() {
    let rig = Rig::new().await;
    let put = rig.client.put_object().bucket(BUCKET).key("k").metadata("m", "1").tagging("t=1");
    put.content_type("text/x").send().await.unwrap();
    let copy = rig.client.copy_object().bucket(BUCKET).key("k").copy_source(source("k"));
    let copy = copy.metadata_directive(MetadataDirective::Replace).metadata("n", "2");
    copy.storage_class(StorageClass::GlacierIr).send().await.unwrap();
    let head = rig.client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(head.metadata().unwrap().get("n").unwrap(), "2");
    assert_eq!(head.metadata().unwrap().len(), 1);
    assert_eq!(head.content_type(), Some("binary/octet-stream"));
    assert_eq!(head.storage_class(), Some(&StorageClass::GlacierIr));
    let tags = || rig.client.get_object_tagging().bucket(BUCKET).key("k").send();
    assert_eq!(tags().await.unwrap().tag_set()[0].key(), "t", "kept");

    let copy = rig.client.copy_object().bucket(BUCKET).key("l").copy_source(source("k"));
    let copy = copy.tagging_directive(TaggingDirective::Replace).tagging("u=2");
    copy.clone().send().await.unwrap();
    let tags = rig.client.get_object_tagging().bucket(BUCKET).key("l").send().await.unwrap();
    assert_eq!(tags.tag_set().len(), 1);
    assert_eq!(tags.tag_set()[0].key(), "u");
    let unknown = copy.metadata_directive(MetadataDirective::from("SHRED")).send().await;
    assert_refused(unknown, 400, "InvalidArgument");
}

#[tokio::test]
async fn a_copy_onto_itself_must_change_something() {
    let rig = Rig::new().await;
    rig.put("k", b"x").await;
    let copy = || rig.client.copy_object().bucket(BUCKET).key("k").copy_source(source("k"));
    assert_refused(copy().send().await, 400, "InvalidRequest");
    copy().metadata_directive(MetadataDirective::Replace).send().await.unwrap();
    copy().storage_class(StorageClass::Standard).send().await.unwrap();
    rig.enable_versions().await;
    assert_refused(copy().send().await, 400, "InvalidRequest");
    let from_version = format!("{}?versionId=null", source("k"));
    let answer = copy().copy_source(from_version).send().await.expect("an old one comes back");
    assert_eq!(answer.copy_source_version_id(), Some("null"));
    assert_ne!(answer.version_id(), Some("null"));
}

#[tokio::test]
async fn sources_are_url_decoded_as_s3_does_it() {
    both(async |rig| {
        let keys = ["a b", "a+b", "p%41", "p%2541", "ü/é", "//lead", "q?versionId=1", "x\ny"];
        for key in keys {
            rig.put(key, key.as_bytes()).await;
        }
        for key in keys {
            let copy = rig.client.copy_object().bucket(BUCKET).key("copy");
            copy.copy_source(source(key)).send().await.unwrap();
            assert_eq!(rig.get("copy").await, key.as_bytes());
        }
        let copy = |source: &str| {
            rig.client.copy_object().bucket(BUCKET).key("copy").copy_source(source).send()
        };
        copy(&format!("/{BUCKET}/a%20b")).await.expect("a leading slash is no harm");
        copy(&format!("{BUCKET}/a+b")).await.unwrap();
        assert_eq!(rig.get("copy").await, b"a b", "a plus is a space");
        assert_refused(copy(&format!("{BUCKET}/no")).await, 404, "NoSuchKey");
        assert_refused(copy("nothere/no").await, 404, "NoSuchBucket");
        assert_refused(copy("nothere").await, 400, "InvalidArgument");
    })
    .await;
}

#[tokio::test]
async fn conditions_on_the_source_and_on_the_target() {
    both(async |rig| {
        let etag = rig.put("k", b"x").await;
        let copy = || rig.client.copy_object().bucket(BUCKET).key("to").copy_source(source("k"));
        let at = |offset_s: i64| DateTime::from_secs((NOON_MS / 1000) as i64 + offset_s);
        copy().copy_source_if_match(&etag).send().await.unwrap();
        copy().copy_source_if_modified_since(at(-1)).send().await.unwrap();
        for refused in [
            copy().copy_source_if_match("\"no\""),
            copy().copy_source_if_none_match(&etag),
            copy().copy_source_if_modified_since(at(0)),
            copy().copy_source_if_unmodified_since(at(-1)),
            copy().if_none_match("*"),
            copy().if_match("\"no\""),
        ] {
            assert_refused(refused.send().await, 412, "PreconditionFailed");
        }
        copy().if_match(&etag).send().await.unwrap();
        copy().key("new").if_none_match("*").send().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn versions_can_be_copied_and_markers_cannot() {
    let rig = Rig::new().await;
    rig.enable_versions().await;
    let put = rig.client.put_object().bucket(BUCKET).key("k").body(b"old".to_vec().into());
    let old = put.send().await.unwrap().version_id().unwrap().to_owned();
    rig.put("k", b"new").await;
    let copy = |version: &str| {
        let source = format!("{}?versionId={version}", source("k"));
        rig.client.copy_object().bucket(BUCKET).key("to").copy_source(source).send()
    };
    assert_eq!(copy(&old).await.unwrap().copy_source_version_id(), Some(old.as_str()));
    assert_eq!(rig.get("to").await, b"old");
    let marker = rig.client.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_refused(copy(marker.version_id().unwrap()).await, 400, "InvalidRequest");
    let hidden = rig.client.copy_object().bucket(BUCKET).key("to").copy_source(source("k"));
    assert_refused(hidden.send().await, 404, "NoSuchKey");
}

#[tokio::test]
async fn a_copy_has_the_checksum_of_its_source_or_the_one_asked_for() {
    let rig = Rig::new().await;
    let put = rig.hashing().put_object().bucket(BUCKET).key("k").body(b"x".to_vec().into());
    let put = put.checksum_algorithm(ChecksumAlgorithm::Sha256).send().await.unwrap();
    let copy = || rig.client.copy_object().bucket(BUCKET).key("to").copy_source(source("k"));
    copy().send().await.unwrap();
    let head = rig.client.head_object().bucket(BUCKET).key("to");
    let head = head.checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
    assert_eq!(head.checksum_sha256(), put.checksum_sha256());
    assert!(head.checksum_sha256().is_some() && head.checksum_crc64_nvme().is_none());
    let answer = copy().checksum_algorithm(ChecksumAlgorithm::Crc32C).send().await.unwrap();
    let result = answer.copy_object_result().unwrap();
    assert!(result.checksum_crc32_c().is_some() && result.checksum_sha256().is_none());
}

#[tokio::test]
async fn a_file_changed_by_hand_is_not_copied_nor_read() {
    let rig = Rig::new().await;
    rig.put("k", b"right").await;
    std::fs::write(rig.path("bkt/k"), "wrong").unwrap();
    let copy = || rig.client.copy_object().bucket(BUCKET).key("to").copy_source(source("k"));
    assert_refused(copy().send().await, 422, "ObjectDamaged");
    std::fs::write(rig.path("bkt/k"), "longer").unwrap();
    let get = || rig.client.get_object().bucket(BUCKET).key("k").send();
    assert_refused(get().await, 422, "ObjectDamaged");
    std::fs::remove_file(rig.path("bkt/k")).unwrap();
    assert_refused(get().await, 422, "ObjectDamaged");
    rig.put("k", b"again").await;
    assert_eq!(rig.get("k").await, b"again");
}

#[tokio::test]
async fn five_gibibytes_are_the_most_to_be_copied_at_once() {
    let rig = Rig::new().await;
    rig.put("k", b"x").await;
    let size = |bytes: i64| {
        let index = rusqlite::Connection::open(rig.path(".keepwatch-store/index.db")).unwrap();
        index.execute("UPDATE versions SET size = ?1", [bytes]).unwrap();
    };
    let copy = || rig.client.copy_object().bucket(BUCKET).key("to").copy_source(source("k"));
    size((5 << 30) + 1);
    assert_refused(copy().send().await, 400, "InvalidRequest");
    size(1);
    copy().send().await.unwrap();
}

#[tokio::test]
async fn parts_can_be_copied_whole_and_in_ranges() {
    both(async |rig| {
        let body = noise(3, 6 << 20);
        rig.put("from", &body).await;
        rig.put("small", b"small").await;
        let upload = rig.client.create_multipart_upload().bucket(BUCKET).key("to").send().await;
        let upload = upload.unwrap().upload_id().unwrap().to_owned();
        let copy = |number: i32, key: &str, range: Option<&str>| {
            let copy = rig.client.upload_part_copy().bucket(BUCKET).key("to").upload_id(&upload);
            let copy = copy.part_number(number).copy_source(source(key));
            copy.set_copy_source_range(range.map(str::to_owned)).send()
        };
        let mut parts = Vec::new();
        for (number, key, range) in
            [(1, "from", Some("bytes=100-5999999")), (2, "from", None), (3, "small", None)]
        {
            let answer = copy(number, key, range).await.unwrap();
            let etag = answer.copy_part_result().unwrap().e_tag().unwrap().to_owned();
            parts.push(CompletedPart::builder().part_number(number).e_tag(etag).build());
        }
        for wrong in ["bytes=0-", "bytes=-5", "0-1", "bytes=5-1"] {
            assert_refused(copy(4, "from", Some(wrong)).await, 400, "InvalidArgument");
        }
        let beyond = copy(4, "from", Some("bytes=0-6291456")).await;
        assert_refused(beyond, 400, "InvalidRequest");
        assert_refused(copy(4, "small", Some("bytes=0-1")).await, 400, "InvalidRequest");
        assert_refused(copy(4, "no", None).await, 404, "NoSuchKey");

        let complete = rig.client.complete_multipart_upload().bucket(BUCKET).key("to");
        let list = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        complete.upload_id(&upload).multipart_upload(list).send().await.unwrap();
        let expected = [&body[100..6_000_000], &body, b"small"].concat();
        assert!(rig.get("to").await == expected);
    })
    .await;
}
