//! Objects: what is put comes back, whole and in parts, under conditions, with its head.

use std::time::SystemTime;

use aws_sdk_s3::primitives::{ByteStream, DateTime, DateTimeFormat};
use aws_sdk_s3::types::{ServerSideEncryption, StorageClass};

use super::{BUCKET, NOON_MS, Rig, assert_refused, both, md5_hex, noise, refusal};

#[tokio::test]
async fn what_is_put_comes_back() {
    both(async |rig| {
        // Around the sizes at which the store reads and writes in pieces.
        for size_bytes in
            [0, 1, 4096, 512 << 10, (512 << 10) + 1, (1 << 20) - 1, 1 << 20, 3_000_001]
        {
            let body = noise(size_bytes as u64, size_bytes);
            let etag = rig.put("some/key", &body).await;
            assert_eq!(etag, format!("\"{}\"", md5_hex(&body)));
            assert!(rig.get("some/key").await == body, "{size_bytes} bytes");
            let head = rig.client.head_object().bucket(BUCKET).key("some/key").send().await;
            let head = head.unwrap();
            assert_eq!(head.content_length(), Some(size_bytes as i64));
            assert_eq!(head.e_tag(), Some(etag.as_str()));
            assert_eq!(head.last_modified().unwrap().secs(), (NOON_MS / 1000) as i64);
            assert_eq!(head.accept_ranges(), Some("bytes"));
            assert_eq!(head.storage_class(), None, "STANDARD is not shown");
            assert_eq!(head.version_id(), None);
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    both(async |rig| {
        let get = rig.client.get_object().bucket(BUCKET).key("no");
        assert_refused(get.send().await, 404, "NoSuchKey");
        let get = rig.client.get_object().bucket("nothere").key("no");
        assert_refused(get.send().await, 404, "NoSuchBucket");
        let head = rig.client.head_object().bucket(BUCKET).key("no");
        assert_eq!(refusal(head.send().await), (404, "NotFound".to_owned()));
        let put = rig.client.put_object().bucket("nothere").key("a");
        assert_refused(put.body(ByteStream::from_static(b"x")).send().await, 404, "NoSuchBucket");
    })
    .await;
}

#[tokio::test]
async fn ranges_are_cut_out() {
    both(async |rig| {
        let body = noise(7, 2_000_000);
        rig.put("r", &body).await;
        for (range, expected, shown) in [
            ("bytes=0-0", 0..1, "bytes 0-0/2000000"),
            ("bytes=10-1500000", 10..1_500_001, "bytes 10-1500000/2000000"),
            ("bytes=1999990-", 1_999_990..2_000_000, "bytes 1999990-1999999/2000000"),
            ("bytes=-5", 1_999_995..2_000_000, "bytes 1999995-1999999/2000000"),
            ("bytes=-9000000", 0..2_000_000, "bytes 0-1999999/2000000"),
            ("bytes=5-9000000", 5..2_000_000, "bytes 5-1999999/2000000"),
        ] {
            let get = rig.client.get_object().bucket(BUCKET).key("r").range(range);
            let answer = get.send().await.unwrap();
            assert_eq!(answer.content_range(), Some(shown));
            assert!(answer.body.collect().await.unwrap().to_vec() == body[expected], "{range}");
        }
        for range in ["bytes=2000000-", "bytes=2000000-2000001", "bytes=-0"] {
            let get = rig.client.get_object().bucket(BUCKET).key("r").range(range);
            assert_refused(get.send().await, 416, "InvalidRange");
        }
        rig.put("empty", b"").await;
        let get = rig.client.get_object().bucket(BUCKET).key("empty").range("bytes=0-");
        assert_refused(get.send().await, 416, "InvalidRange");
        let head = rig.client.head_object().bucket(BUCKET).key("r").range("bytes=2-4");
        let head = head.send().await.unwrap();
        assert_eq!(
            (head.content_length(), head.content_range()),
            (Some(3), Some("bytes 2-4/2000000"))
        );
    })
    .await;
}

#[tokio::test]
async fn reads_can_be_conditional() {
    both(async |rig| {
        let etag = rig.put("c", b"body").await;
        let get = || rig.client.get_object().bucket(BUCKET).key("c");
        let head = || rig.client.head_object().bucket(BUCKET).key("c");
        let at = |offset_s: i64| DateTime::from_secs((NOON_MS / 1000) as i64 + offset_s);

        get().if_match(&etag).send().await.unwrap();
        get().if_match(etag.trim_matches('"')).send().await.expect("without quotes too");
        get().if_match("*").send().await.unwrap();
        get().if_none_match("\"other\"").send().await.unwrap();
        get().if_modified_since(at(-1)).send().await.unwrap();
        get().if_unmodified_since(at(0)).send().await.unwrap();
        get().if_match(&etag).if_unmodified_since(at(-9)).send().await.expect("the ETag wins");

        assert_refused(get().if_match("\"no\"").send().await, 412, "PreconditionFailed");
        let late = get().if_unmodified_since(at(-1)).send().await;
        assert_refused(late, 412, "PreconditionFailed");
        assert_eq!(refusal(head().if_match("\"no\"").send().await).0, 412);
        for not_modified in [
            get().if_none_match(&etag),
            get().if_none_match("*"),
            get().if_modified_since(at(0)),
            get().if_none_match(&etag).if_modified_since(at(-9)),
        ] {
            let error = not_modified.send().await.unwrap_err();
            let response = error.raw_response().unwrap();
            assert_eq!(response.status().as_u16(), 304);
            assert_eq!(response.headers().get("etag"), Some(etag.as_str()));
            assert!(response.headers().contains_key("last-modified"));
        }
        assert_eq!(refusal(head().if_none_match(&etag).send().await).0, 304);
    })
    .await;
}

#[tokio::test]
async fn writes_can_be_conditional() {
    both(async |rig| {
        let put = || {
            let put = rig.client.put_object().bucket(BUCKET).key("w");
            put.body(ByteStream::from_static(b"new"))
        };
        let absent = put().if_match("\"any\"").send().await;
        assert_refused(absent, 404, "NoSuchKey");
        put().if_none_match("*").send().await.unwrap();
        assert_refused(put().if_none_match("*").send().await, 412, "PreconditionFailed");
        assert_refused(put().if_match("\"no\"").send().await, 412, "PreconditionFailed");
        assert_refused(put().if_none_match("\"no\"").send().await, 501, "NotImplemented");
        put().if_match(format!("\"{}\"", md5_hex(b"new"))).send().await.unwrap();
        assert_eq!(rig.get("w").await, b"new");
        // What was refused left nothing on disk.
        assert_eq!(rig.on_their_way(), 0);
    })
    .await;
}

#[tokio::test]
async fn heads_are_kept_as_they_came() {
    both(async |rig| {
        let expires = DateTime::from_str("Sun, 06 Nov 2033 08:49:37 GMT", DateTimeFormat::HttpDate);
        let expires = expires.unwrap();
        let put = rig.client.put_object().bucket(BUCKET).key("h").content_type("text/x; a=b");
        let put = put.cache_control("no-cache").content_disposition("inline; filename=\"x\"");
        let put = put.content_encoding("gzip").content_language("de").expires(expires);
        let put = put.metadata("mtime", "1.000000001").metadata("Mixed-Case", "a  b");
        put.metadata("word", "=?UTF-8?Q?caf=C3=A9?=").send().await.unwrap();
        let head = rig.client.head_object().bucket(BUCKET).key("h").send().await.unwrap();
        assert_eq!(head.content_type(), Some("text/x; a=b"));
        assert_eq!(head.cache_control(), Some("no-cache"));
        assert_eq!(head.content_disposition(), Some("inline; filename=\"x\""));
        assert_eq!(head.content_encoding(), Some("gzip"));
        assert_eq!(head.content_language(), Some("de"));
        assert_eq!(head.expires_string(), Some("Sun, 06 Nov 2033 08:49:37 GMT"));
        let metadata = head.metadata().unwrap();
        assert_eq!(metadata.get("mtime").unwrap(), "1.000000001");
        assert_eq!(metadata.get("mixed-case").unwrap(), "a  b");
        assert_eq!(metadata.get("word").unwrap(), "=?UTF-8?Q?caf=C3=A9?=");
        assert_eq!(metadata.len(), 3);

        let get = rig.client.get_object().bucket(BUCKET).key("h");
        let get = get.response_content_type("a/b").response_cache_control("max-age=1");
        let answer = get.send().await.unwrap();
        assert_eq!(answer.content_type(), Some("a/b"));
        assert_eq!(answer.cache_control(), Some("max-age=1"));
        assert_eq!(answer.content_language(), Some("de"));

        rig.put("plain", b"").await;
        let head = rig.client.head_object().bucket(BUCKET).key("plain").send().await.unwrap();
        assert_eq!(head.content_type(), Some("application/octet-stream"), "the SDK's default");
        assert!(head.metadata().is_none_or(|metadata| metadata.is_empty()));
    })
    .await;
}

#[tokio::test]
async fn metadata_has_a_limit() {
    let rig = Rig::new().await;
    let put = |size: usize| {
        let put = rig.client.put_object().bucket(BUCKET).key("m");
        put.metadata("abcd", "v".repeat(size)).send()
    };
    put(2044).await.unwrap();
    assert_refused(put(2045).await, 400, "MetadataTooLarge");
}

#[tokio::test]
async fn storage_classes_are_kept() {
    let rig = Rig::new().await;
    for class in [
        "STANDARD_IA",
        "ONEZONE_IA",
        "INTELLIGENT_TIERING",
        "GLACIER_IR",
        "GLACIER",
        "DEEP_ARCHIVE",
        "REDUCED_REDUNDANCY",
    ] {
        let put = rig.client.put_object().bucket(BUCKET).key(class);
        put.storage_class(StorageClass::from(class)).send().await.unwrap();
        let head = rig.client.head_object().bucket(BUCKET).key(class).send().await.unwrap();
        assert_eq!(head.storage_class().unwrap().as_str(), class);
    }
    rig.put("STANDARD", b"").await;
    let list = rig.client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    for object in list.contents() {
        assert_eq!(object.storage_class().unwrap().as_str(), object.key().unwrap());
    }
    let put = rig.client.put_object().bucket(BUCKET).key("x");
    let put = put.storage_class(StorageClass::from("LUKEWARM"));
    assert_refused(put.send().await, 400, "InvalidStorageClass");
}

#[tokio::test]
async fn encryption_is_echoed_and_kms_hides_the_md5() {
    let rig = Rig::new().await;
    let put = || {
        let put = rig.client.put_object().bucket(BUCKET).key("e");
        put.body(ByteStream::from_static(b"secret"))
    };
    let answer = put().server_side_encryption(ServerSideEncryption::Aes256).send().await.unwrap();
    assert_eq!(answer.server_side_encryption(), Some(&ServerSideEncryption::Aes256));
    assert_eq!(answer.e_tag(), Some(format!("\"{}\"", md5_hex(b"secret")).as_str()));

    let kms = put().server_side_encryption(ServerSideEncryption::AwsKms).ssekms_key_id("key-1");
    let answer = kms.send().await.unwrap();
    assert_ne!(answer.e_tag(), Some(format!("\"{}\"", md5_hex(b"secret")).as_str()));
    let head = rig.client.head_object().bucket(BUCKET).key("e").send().await.unwrap();
    assert_eq!(head.server_side_encryption(), Some(&ServerSideEncryption::AwsKms));
    assert_eq!(head.ssekms_key_id(), Some("key-1"));
    assert_eq!(head.e_tag(), answer.e_tag());

    let unknown = put().server_side_encryption(ServerSideEncryption::from("rot13"));
    assert_refused(unknown.send().await, 400, "InvalidEncryptionAlgorithmError");
}

#[tokio::test]
async fn a_reader_keeps_reading_what_it_opened() {
    let rig = Rig::new().await;
    let old = noise(1, 8 << 20);
    rig.put("k", &old).await;
    let get = || rig.client.get_object().bucket(BUCKET).key("k").send();
    let (overwritten, deleted) = (get().await.unwrap(), get().await.unwrap());
    rig.put("k", &noise(2, 8 << 20)).await;
    assert!(overwritten.body.collect().await.unwrap().to_vec() == old);
    rig.client.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert!(deleted.body.collect().await.unwrap().to_vec() == old);
}

#[tokio::test]
async fn times_follow_the_store_s_clock() {
    let rig = Rig::new().await;
    rig.pass_ms(61_500);
    rig.put("t", b"").await;
    let head = rig.client.head_object().bucket(BUCKET).key("t").send().await.unwrap();
    let expected = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(NOON_MS + 61_000);
    assert_eq!(*head.last_modified().unwrap(), DateTime::from(expected), "in whole seconds");
}
