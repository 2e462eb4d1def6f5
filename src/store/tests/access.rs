//! The endpoint: who may, what is not carried, and the log of it all.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::types::{BucketCannedAcl, ObjectCannedAcl, ObjectLockMode};

use super::{BUCKET, InProcess, KEYS, NOON_MS, Rig, assert_refused, both};
use super::{in_process, key_pairs, noise};
use crate::store::Access;

fn connector(rig: &Rig) -> InProcess {
    InProcess::new(rig.store.endpoint(&key_pairs()))
}

fn client_as(rig: &Rig, key: &str, secret: &str) -> Client {
    let credentials = Credentials::new(key, secret, None, None, "test");
    Client::from_conf(in_process(&rig.store).credentials_provider(credentials).build())
}

#[tokio::test]
async fn signatures_are_verified() {
    let rig = Rig::new().await;
    let wrong_secret = client_as(&rig, KEYS.0, "wrong");
    let result = wrong_secret.list_buckets().send().await;
    assert_refused(result, 403, "SignatureDoesNotMatch");
    let unknown = client_as(&rig, "AKIDUNKNOWN", KEYS.1);
    assert_refused(unknown.list_buckets().send().await, 403, "InvalidAccessKeyId");
    let config = aws_sdk_s3::Config::builder().behavior_version(BehaviorVersion::latest());
    let config = config.region(Region::new("us-east-1")).force_path_style(true).allow_no_auth();
    let config = config.endpoint_url("http://store.invalid").http_client(connector(&rig));
    let anonymous = Client::from_conf(config.build());
    let unsigned = anonymous.put_object().bucket(BUCKET).key("k").send().await;
    assert_refused(unsigned, 403, "AccessDenied");
    assert!(rig.keys().await.is_empty());

    let pairs = [("one", "1"), ("two", "2")].map(|(k, s)| (k.to_owned(), s.to_owned()));
    let connector = InProcess::new(rig.store.endpoint(&pairs));
    for (key, secret) in &pairs {
        let credentials = Credentials::new(key, secret, None, None, "test");
        let config = in_process(&rig.store).http_client(connector.clone());
        let client = Client::from_conf(config.credentials_provider(credentials).build());
        client.list_buckets().send().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_not_carried_says_so() {
    let rig = Rig::new().await;
    let put = || rig.client.put_object().bucket(BUCKET).key("k");
    let locked = put().object_lock_mode(ObjectLockMode::Governance).send().await;
    assert_refused(locked, 501, "NotImplemented");
    let customer = put().sse_customer_algorithm("AES256").send().await;
    assert_refused(customer, 501, "NotImplemented");
    let website = put().website_redirect_location("/x").send().await;
    assert_refused(website, 501, "NotImplemented");
    assert_refused(put().write_offset_bytes(3).send().await, 501, "NotImplemented");
    let public = put().acl(ObjectCannedAcl::PublicRead).send().await;
    assert_refused(public, 400, "AccessControlListNotSupported");
    put().acl(ObjectCannedAcl::BucketOwnerFullControl).send().await.unwrap();
    let public = rig.client.create_bucket().bucket("public").acl(BucketCannedAcl::PublicRead);
    assert_refused(public.send().await, 400, "AccessControlListNotSupported");
    let locked = rig.client.create_bucket().bucket("locked").object_lock_enabled_for_bucket(true);
    assert_refused(locked.send().await, 501, "NotImplemented");
    let lifecycle = rig.client.get_bucket_lifecycle_configuration().bucket(BUCKET);
    assert_refused(lifecycle.send().await, 501, "NotImplemented");
}

#[tokio::test]
async fn another_owner_is_refused() {
    let rig = Rig::new().await;
    let get = || rig.client.get_bucket_location().bucket(BUCKET);
    get().expected_bucket_owner("000000000000").send().await.unwrap();
    let other = get().expected_bucket_owner("123456789012").send().await;
    assert_refused(other, 403, "AccessDenied");
}

fn access(operation: &str, status: u16) -> Access {
    Access {
        time_ms: NOON_MS as i64,
        operation: operation.to_owned(),
        bucket: Some(BUCKET.to_owned()),
        status,
        ..Access::default()
    }
}

#[tokio::test]
async fn every_request_is_logged() {
    both(async |rig| {
        rig.accesses();
        let etag = rig.put("a+b c", &noise(1, 1000)).await.trim_matches('"').to_owned();
        rig.get("a+b c").await;
        let head = rig.client.head_object().bucket(BUCKET).key("no").send().await;
        assert!(head.is_err());
        let get = rig.client.get_object().bucket(BUCKET).key("a+b c").if_none_match("*");
        assert!(get.send().await.is_err());
        let copy = rig.client.copy_object().bucket(BUCKET).key("copy");
        copy.copy_source(format!("{BUCKET}/a%2Bb%20c")).send().await.unwrap();
        let upload = rig.client.create_multipart_upload().bucket(BUCKET).key("m").send().await;
        let upload = upload.unwrap().upload_id().unwrap().to_owned();
        let part = rig.client.upload_part().bucket(BUCKET).key("m").upload_id(&upload);
        part.part_number(7).body(b"part".to_vec().into()).send().await.unwrap();

        let keyed = |operation: &str, status: u16, key: &str| Access {
            key: Some(key.to_owned()),
            ..access(operation, status)
        };
        let log = rig.accesses();
        let expected = Access {
            received_bytes: 1000,
            etag: Some(etag.clone()),
            ..keyed("PutObject", 200, "a+b c")
        };
        assert_eq!(log[0], expected);
        let expected = Access {
            sent_bytes: 1000,
            etag: Some(etag.clone()),
            ..keyed("GetObject", 200, "a+b c")
        };
        assert_eq!(log[1], expected);
        let no_such_key = Some("NoSuchKey".to_owned());
        let expected = Access { error: no_such_key, ..keyed("HeadObject", 404, "no") };
        assert_eq!(log[2], expected);
        let expected = Access {
            error: Some("NotModified".to_owned()),
            etag: Some(etag.clone()),
            ..keyed("GetObject", 304, "a+b c")
        };
        assert_eq!(log[3], expected);
        let expected = Access {
            etag: Some(etag),
            sent_bytes: log[4].sent_bytes,
            ..keyed("CopyObject", 200, "copy")
        };
        assert_eq!(log[4], expected);
        assert!(log[4].sent_bytes > 100);
        assert_eq!(log[5].operation, "CreateMultipartUpload");
        let expected = Access {
            received_bytes: 4,
            upload_id: Some(upload),
            part_number: Some(7),
            etag: Some(super::md5_hex(b"part")),
            ..keyed("UploadPart", 200, "m")
        };
        assert_eq!(log[6], expected);
        assert_eq!(log.len(), 7);
        let line = serde_json::to_string(&log[0]).unwrap();
        assert!(
            line.starts_with("{\"time_ms\":1795262400000,\"operation\":\"PutObject\""),
            "{line}"
        );
    })
    .await;
}

#[tokio::test]
async fn large_answers_are_logged_when_they_end_or_are_given_up() {
    let rig = Rig::new().await;
    rig.put("big", &noise(1, 3 << 20)).await;
    rig.accesses();
    let get = || rig.client.get_object().bucket(BUCKET).key("big").send();
    let answer = get().await.unwrap();
    assert!(rig.accesses().is_empty(), "not finished yet");
    answer.body.collect().await.unwrap();
    assert_eq!(rig.accesses()[0].sent_bytes, 3 << 20);
    let mut answer = get().await.unwrap();
    answer.body.next().await.unwrap().unwrap();
    drop(answer);
    let log = rig.accesses();
    assert_eq!((log.len(), log[0].status), (1, 200));
    assert!((1..3 << 20).contains(&log[0].sent_bytes));
}

#[tokio::test]
async fn refused_signatures_are_logged_too() {
    let rig = Rig::new().await;
    rig.accesses();
    let _ = client_as(&rig, KEYS.0, "wrong").list_buckets().send().await;
    let log = rig.accesses();
    assert_eq!((log[0].status, log[0].operation.as_str()), (403, ""));
    assert_eq!(log[0].error.as_deref(), Some("SignatureDoesNotMatch"));
}
