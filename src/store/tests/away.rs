//! Another folder at the store's path while it is open: a disk that was pulled and another one
//! mounted in its place, or a folder that was moved.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use aws_sdk_s3::Client;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::TempDir;

use super::disk::files;
use super::{BUCKET, Rig, Store, assert_refused, in_process};
use crate::store::bodies::{Arrival, Home, Place};

/// Every file below a folder, with what is in it.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |name: String| (name.clone(), fs::read(folder.join(name)).unwrap());
    files(folder).into_iter().map(read).collect()
}

/// The store of a rig, with `k` in it, and another one with another `k`, which is closed.
async fn two() -> (Rig, TempDir) {
    let (rig, other) = (Rig::new().await, tempfile::tempdir().unwrap());
    rig.put("k", b"of one").await;
    let store = Store::open(other.path(), rig.store.options().clone()).unwrap();
    let client = Client::from_conf(in_process(&store).build());
    client.create_bucket().bucket(BUCKET).send().await.unwrap();
    let put = client.put_object().bucket(BUCKET).key("k");
    put.body(b"of the other".to_vec().into()).send().await.unwrap();
    (rig, other)
}

impl Rig {
    /// Each store lies at the path of the other one.
    fn swap(&self, other: &TempDir) {
        let (one, other) = (self.folder.path(), other.path());
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
    }
}

#[tokio::test]
async fn nothing_is_read_or_written_while_another_store_is_at_its_path() {
    let (rig, other) = two().await;
    let before = contents(other.path());
    rig.swap(&other);
    let object = |key: &str| (BUCKET.to_owned(), key.to_owned());
    for key in ["k", "new"] {
        let (bucket, key) = object(key);
        let put = rig.client.put_object().bucket(&bucket).key(&key);
        assert_refused(put.body(b"lost?".to_vec().into()).send().await, 503, "StoreAway");
        let get = rig.client.get_object().bucket(&bucket).key(&key);
        assert_refused(get.send().await, 503, "StoreAway");
        let delete = rig.client.delete_object().bucket(&bucket).key(&key);
        assert_refused(delete.send().await, 503, "StoreAway");
    }
    let list = rig.client.list_objects_v2().bucket(BUCKET).send().await;
    assert_refused(list, 503, "StoreAway");
    let head = rig.client.head_object().bucket(BUCKET).key("k").send().await.unwrap_err();
    let reply = head.raw_response().unwrap();
    let why = reply.headers().get("x-keepwatch-store-away").unwrap();
    assert!(why.contains("another folder is there now"), "{why}");
    assert_eq!(contents(rig.folder.path()), before);

    rig.swap(&other);
    assert_eq!(rig.get("k").await, b"of one");
    rig.put("k", b"newer").await;
    assert_eq!(rig.get("k").await, b"newer");
    assert_eq!(rig.keys().await, ["k"]);
    assert_eq!(contents(other.path()), before);
}

#[tokio::test]
async fn a_write_under_way_goes_to_no_other_store() {
    let (rig, other) = two().await;
    let before = contents(other.path());
    let bodies = rig.store.bodies().clone();
    let mut draft = bodies.create().unwrap();
    draft.write(b"begun").unwrap();
    rig.swap(&other);
    // As after the last look at the path.
    draft.finish().unwrap();
    let body = draft.keep();
    let place = Place { body, home: Home::Plain, bucket: BUCKET, key: "new/one" };
    assert_eq!(bodies.bring_home(place), Arrival::Home);
    assert_eq!(fs::read(other.path().join("bkt/new/one")).unwrap(), b"begun");
    bodies.take_out(place, true).unwrap();
    assert!(!other.path().join("bkt/new").exists());
    bodies.discard(body);
    assert_eq!(contents(rig.folder.path()), before);
}

#[tokio::test]
async fn a_store_whose_folder_or_index_is_gone_is_away() {
    let rig = Rig::new().await;
    rig.put("k", b"kept").await;
    let list = || rig.client.list_objects_v2().bucket(BUCKET).send();
    for name in [".keepwatch-store/index.db", ".keepwatch-store"] {
        let (from, aside) = (rig.path(name), rig.path("aside"));
        fs::rename(&from, &aside).unwrap();
        assert_refused(list().await, 503, "StoreAway");
        fs::rename(&aside, &from).unwrap();
        list().await.unwrap();
    }
}
