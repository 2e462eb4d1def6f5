//! Versions: kept, hidden by delete markers, brought back, listed, suspended.

use aws_sdk_s3::operation::list_object_versions::ListObjectVersionsOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::BucketVersioningStatus::Suspended;

use super::{BUCKET, Rig, assert_refused, both, refusal};

impl Rig {
    async fn put_version(&self, key: &str, body: &[u8]) -> Option<String> {
        let put = self.client.put_object().bucket(BUCKET).key(key);
        let answer = put.body(ByteStream::from(body.to_vec())).send().await.unwrap();
        answer.version_id().map(str::to_owned)
    }

    async fn get_version(&self, key: &str, version: &str) -> Vec<u8> {
        let get = self.client.get_object().bucket(BUCKET).key(key).version_id(version);
        get.send().await.unwrap().body.collect().await.unwrap().to_vec()
    }

    /// Deletes, and returns the delete marker or what else the answer names.
    async fn delete(&self, key: &str, version: Option<&str>) -> (bool, Option<String>) {
        let delete = self.client.delete_object().bucket(BUCKET).key(key);
        let answer = delete.set_version_id(version.map(str::to_owned)).send().await.unwrap();
        (answer.delete_marker() == Some(true), answer.version_id().map(str::to_owned))
    }

    /// `key version[*]` for each version, `-` before delete markers, `*` after the latest.
    async fn history(&self) -> Vec<String> {
        let list = self.client.list_object_versions().bucket(BUCKET).send().await.unwrap();
        entries(&list)
    }
}

fn entries(page: &ListObjectVersionsOutput) -> Vec<String> {
    let star = |latest: Option<bool>| if latest == Some(true) { "*" } else { "" };
    let objects = page.versions().iter().map(|v| {
        format!("{} {}{}", v.key().unwrap(), v.version_id().unwrap(), star(v.is_latest()))
    });
    let markers = page.delete_markers().iter().map(|m| {
        format!("-{} {}{}", m.key().unwrap(), m.version_id().unwrap(), star(m.is_latest()))
    });
    objects.chain(markers).collect()
}

#[tokio::test]
async fn every_version_stays_readable() {
    both(async |rig| {
        rig.enable_versions().await;
        let first = rig.put_version("k", b"one").await.unwrap();
        let second = rig.put_version("k", b"two").await.unwrap();
        assert_ne!(first, second);
        assert_eq!(rig.get("k").await, b"two");
        assert_eq!(rig.get_version("k", &first).await, b"one");
        assert_eq!(rig.get_version("k", &second).await, b"two");
        assert_eq!(rig.history().await, [format!("k {second}*"), format!("k {first}")]);

        let head = rig.client.head_object().bucket(BUCKET).key("k").version_id(&first);
        assert_eq!(head.send().await.unwrap().version_id(), Some(first.as_str()));
        let get = || rig.client.get_object().bucket(BUCKET).key("k");
        let unknown = get().version_id("0".repeat(32)).send().await;
        assert_refused(unknown, 404, "NoSuchVersion");
        assert_refused(get().version_id("nonsense").send().await, 400, "InvalidArgument");
    })
    .await;
}

#[tokio::test]
async fn a_delete_hides_and_deleting_the_marker_brings_back() {
    both(async |rig| {
        rig.enable_versions().await;
        let object = rig.put_version("k", b"kept").await.unwrap();
        let (is_marker, marker) = rig.delete("k", None).await;
        let marker = marker.unwrap();
        assert!(is_marker);
        assert!(rig.keys().await.is_empty());
        assert_eq!(rig.history().await, [format!("k {object}"), format!("-k {marker}*")]);

        let get = || rig.client.get_object().bucket(BUCKET).key("k");
        let hidden = get().send().await.unwrap_err();
        let headers = hidden.raw_response().unwrap().headers();
        assert_eq!(headers.get("x-amz-delete-marker"), Some("true"));
        assert_eq!(headers.get("x-amz-version-id"), Some(marker.as_str()));
        assert_refused(get().send().await, 404, "NoSuchKey");
        assert_refused(get().version_id(&marker).send().await, 405, "MethodNotAllowed");
        let head = rig.client.head_object().bucket(BUCKET).key("k");
        assert_eq!(refusal(head.clone().send().await).0, 404);
        assert_eq!(refusal(head.version_id(&marker).send().await).0, 405);
        assert_eq!(rig.get_version("k", &object).await, b"kept");

        assert_eq!(rig.delete("k", Some(&marker)).await, (true, Some(marker.clone())));
        assert_eq!(rig.get("k").await, b"kept");
        assert_eq!(rig.history().await, [format!("k {object}*")]);
        assert_eq!(rig.delete("k", Some(&marker)).await, (false, Some(marker)), "idempotent");
        assert_eq!(rig.delete("k", Some(&object)).await, (false, Some(object)));
        assert!(rig.history().await.is_empty());
        // A delete of nothing makes a marker, too.
        assert!(rig.delete("never", None).await.0);
        assert_eq!(rig.history().await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn the_newest_of_what_is_left_is_the_latest() {
    let rig = Rig::new().await;
    rig.enable_versions().await;
    let mut versions = Vec::new();
    for body in [b"1", b"2", b"3"] {
        versions.push(rig.put_version("k", body).await.unwrap());
    }
    rig.delete("k", Some(&versions[1])).await;
    assert_eq!(rig.get("k").await, b"3");
    rig.delete("k", Some(&versions[2])).await;
    assert_eq!(rig.get("k").await, b"1");
    assert_eq!(rig.history().await, [format!("k {}*", versions[0])]);
    let again = rig.put_version("k", b"4").await.unwrap();
    assert!(!versions.contains(&again));
    assert_eq!(rig.history().await, [format!("k {again}*"), format!("k {}", versions[0])]);
}

#[tokio::test]
async fn a_suspended_bucket_has_one_null_version() {
    both(async |rig| {
        assert_eq!(rig.put_version("k", b"before").await, None);
        rig.enable_versions().await;
        assert_eq!(rig.history().await, ["k null*"]);
        let kept = rig.put_version("k", b"kept").await.unwrap();
        assert_eq!(rig.history().await, [format!("k {kept}*"), "k null".to_owned()]);
        assert_eq!(rig.get_version("k", "null").await, b"before");

        rig.set_versioning(Suspended).await;
        assert_eq!(rig.put_version("k", b"after").await.as_deref(), Some("null"));
        assert_eq!(rig.history().await, ["k null*".to_owned(), format!("k {kept}")]);
        assert_eq!(rig.get_version("k", "null").await, b"after");
        rig.put_version("k", b"again").await;
        assert_eq!(rig.get("k").await, b"again");
        assert_eq!(rig.get_version("k", &kept).await, b"kept");

        assert_eq!(rig.delete("k", None).await, (true, Some("null".to_owned())));
        assert_eq!(rig.history().await, [format!("k {kept}"), "-k null*".to_owned()]);
        rig.put_version("k", b"once more").await;
        assert_eq!(rig.history().await, ["k null*".to_owned(), format!("k {kept}")]);
        rig.enable_versions().await;
        let newest = rig.put_version("k", b"newest").await.unwrap();
        assert_eq!(rig.delete("k", Some("null")).await, (false, Some("null".to_owned())));
        assert_eq!(rig.history().await, [format!("k {newest}*"), format!("k {kept}")]);
    })
    .await;
}

#[tokio::test]
async fn version_listings_page_and_roll_up() {
    let rig = Rig::new().await;
    rig.enable_versions().await;
    for key in ["a", "b/1", "b/2", "c"] {
        for body in [b"1", b"2", b"3"] {
            rig.put_version(key, body).await;
        }
        rig.delete(key, None).await;
    }
    let list = || rig.client.list_object_versions().bucket(BUCKET);
    let whole = entries(&list().send().await.unwrap());
    assert_eq!(whole.len(), 16);
    let mut sorted = whole.clone();
    sorted.sort();
    for page_size in [1, 2, 3, 5, 16] {
        let (mut found, mut key, mut version) = (Vec::new(), None, None);
        loop {
            let page =
                list().max_keys(page_size).set_key_marker(key).set_version_id_marker(version);
            let page = page.send().await.unwrap();
            found.extend(entries(&page));
            (key, version) = (
                page.next_key_marker().map(str::to_owned),
                page.next_version_id_marker().map(str::to_owned),
            );
            assert_eq!(page.is_truncated(), Some(key.is_some()));
            if key.is_none() {
                break;
            }
        }
        found.sort();
        assert_eq!(found, sorted, "pages of {page_size}");
    }
    let page = list().delimiter("/").send().await.unwrap();
    assert_eq!(page.common_prefixes()[0].prefix(), Some("b/"));
    assert_eq!(page.versions().len() + page.delete_markers().len(), 8);
    let page = list().delimiter("/").key_marker("b/").send().await.unwrap();
    assert!(page.common_prefixes().is_empty());
    assert!(entries(&page).iter().all(|entry| entry.trim_start_matches('-').starts_with('c')));
    let page = list().prefix("b/2").send().await.unwrap();
    assert_eq!(entries(&page).len(), 4);
    let result = list().version_id_marker("null").send().await;
    assert_refused(result, 400, "InvalidArgument");
}

/// Whoever empties a bucket deletes each page before asking for the next one.
#[tokio::test]
async fn a_listing_goes_on_from_versions_that_are_gone() {
    let rig = Rig::new().await;
    rig.put_version("k", b"null").await;
    rig.enable_versions().await;
    for body in [b"1", b"2", b"3"] {
        rig.put_version("k", body).await;
    }
    rig.set_versioning(Suspended).await;
    rig.put_version("l", b"null too").await;
    let (mut key, mut version, mut deleted) = (None, None, 0);
    loop {
        let list = rig.client.list_object_versions().bucket(BUCKET).max_keys(1);
        let page = list.set_key_marker(key).set_version_id_marker(version).send().await.unwrap();
        for found in page.versions() {
            rig.delete(found.key().unwrap(), found.version_id()).await;
            deleted += 1;
        }
        key = page.next_key_marker().map(str::to_owned);
        version = page.next_version_id_marker().map(str::to_owned);
        if key.is_none() {
            break;
        }
    }
    assert_eq!(deleted, 5);
    assert!(rig.history().await.is_empty());
}
