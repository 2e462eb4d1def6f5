//! DeleteObject and DeleteObjects.

use aws_sdk_s3::types::{Delete, ObjectIdentifier};

use super::{BUCKET, Rig, assert_refused, both};

fn identifier(key: &str) -> ObjectIdentifier {
    ObjectIdentifier::builder().key(key).build().unwrap()
}

fn batch(objects: Vec<ObjectIdentifier>) -> Delete {
    Delete::builder().set_objects(Some(objects)).build().unwrap()
}

#[tokio::test]
async fn a_delete_is_idempotent_and_can_be_conditional() {
    both(async |rig| {
        let etag = rig.put("k", b"x").await;
        let delete = || rig.client.delete_object().bucket(BUCKET).key("k");
        assert_refused(delete().if_match("\"no\"").send().await, 412, "PreconditionFailed");
        assert_eq!(rig.keys().await, ["k"]);
        let answer = delete().if_match(&etag).send().await.unwrap();
        assert_eq!((answer.delete_marker(), answer.version_id()), (None, None));
        assert!(rig.keys().await.is_empty());
        delete().send().await.unwrap();
        delete().if_match(&etag).send().await.expect("nothing there: success, as S3 says");
        let nowhere = rig.client.delete_object().bucket("nothere").key("k").send().await;
        assert_refused(nowhere, 404, "NoSuchBucket");
    })
    .await;
}

#[tokio::test]
async fn a_conditional_delete_of_nothing_makes_no_marker() {
    let rig = Rig::new().await;
    rig.enable_versions().await;
    let delete = rig.client.delete_object().bucket(BUCKET).key("k").if_match("\"e\"");
    assert_eq!(delete.send().await.unwrap().delete_marker(), None);
    let versions = rig.client.list_object_versions().bucket(BUCKET).send().await.unwrap();
    assert!(versions.delete_markers().is_empty());
}

#[tokio::test]
async fn many_are_deleted_at_once_each_with_its_own_result() {
    both(async |rig| {
        let mut objects = Vec::new();
        for n in 0..20 {
            rig.put(&format!("k{n}"), b"x").await;
            objects.push(identifier(&format!("k{n}")));
        }
        let etag = rig.put("right", b"x").await;
        rig.put("wrong", b"x").await;
        for (key, etag) in [("right", etag.as_str()), ("wrong", "\"no\"")] {
            objects.push(ObjectIdentifier::builder().key(key).e_tag(etag).build().unwrap());
        }
        objects.push(identifier("never there"));
        let delete = rig.client.delete_objects().bucket(BUCKET).delete(batch(objects));
        let answer = delete.send().await.unwrap();
        assert_eq!(answer.deleted().len(), 22);
        assert_eq!(answer.errors().len(), 1);
        assert_eq!(answer.errors()[0].key(), Some("wrong"));
        assert_eq!(answer.errors()[0].code(), Some("PreconditionFailed"));
        assert_eq!(rig.keys().await, ["wrong"]);
    })
    .await;
}

#[tokio::test]
async fn quiet_tells_of_errors_only() {
    let rig = Rig::new().await;
    rig.put("a", b"x").await;
    let wrong = ObjectIdentifier::builder().key("a").e_tag("\"no\"").build().unwrap();
    let delete = Delete::builder().objects(identifier("b")).objects(wrong).quiet(true);
    let request = rig.client.delete_objects().bucket(BUCKET).delete(delete.build().unwrap());
    let answer = request.send().await.unwrap();
    assert_eq!((answer.deleted().len(), answer.errors().len()), (0, 1));
}

#[tokio::test]
async fn versions_and_markers_are_told_apart() {
    let rig = Rig::new().await;
    rig.enable_versions().await;
    rig.put("a", b"1").await;
    rig.put("b", b"1").await;
    let list = rig.client.list_object_versions().bucket(BUCKET).send().await.unwrap();
    let version = list.versions()[0].version_id().unwrap().to_owned();
    let by_version = ObjectIdentifier::builder().key("a").version_id(&version).build().unwrap();
    let request = rig.client.delete_objects().bucket(BUCKET);
    let answer = request.delete(batch(vec![by_version, identifier("b")])).send().await.unwrap();
    let [a, b] = answer.deleted() else { panic!("{answer:?}") };
    assert_eq!((a.version_id(), a.delete_marker()), (Some(version.as_str()), None));
    assert_eq!((b.version_id(), b.delete_marker()), (None, Some(true)));
    let marker = b.delete_marker_version_id().unwrap();
    let by_version = ObjectIdentifier::builder().key("b").version_id(marker).build().unwrap();
    let request = rig.client.delete_objects().bucket(BUCKET).delete(batch(vec![by_version]));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.deleted()[0].delete_marker(), Some(true));
    assert_eq!(answer.deleted()[0].delete_marker_version_id(), Some(marker));
    assert_eq!(rig.keys().await, ["b"]);
}

#[tokio::test]
async fn many_are_deleted_only_with_a_digest_of_the_list() {
    let rig = Rig::new().await;
    rig.put("a", b"x").await;
    let delete = || rig.client.delete_objects().bucket(BUCKET).delete(batch(vec![identifier("a")]));
    let without = delete().customize().mutate_request(|request| {
        request.headers_mut().remove("x-amz-checksum-crc32");
    });
    assert_refused(without.send().await, 400, "InvalidRequest");
    assert_eq!(rig.keys().await, ["a"]);
    delete().send().await.unwrap();
    assert!(rig.keys().await.is_empty());
}

#[tokio::test]
async fn a_thousand_is_the_most() {
    let rig = Rig::new().await;
    let many = |count: usize| (0..count).map(|n| identifier(&n.to_string())).collect();
    let delete = |count| rig.client.delete_objects().bucket(BUCKET).delete(batch(many(count)));
    assert_eq!(delete(1000).send().await.unwrap().deleted().len(), 1000);
    assert_refused(delete(1001).send().await, 400, "MalformedXML");
}
