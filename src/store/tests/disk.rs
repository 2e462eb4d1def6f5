//! Where bodies lie, and what opening a store cleans up.

use std::fs;
use std::path::Path;

use rusqlite::Connection;

use super::{BUCKET, Rig, Store, assert_refused, noise};
use crate::store::StoreOpenError;

/// The files below a folder, with their paths relative to it, in order.
pub(super) fn files(folder: &Path) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

impl Rig {
    fn plain_files(&self) -> Vec<String> {
        files(&self.path(BUCKET))
    }

    fn blobs(&self) -> usize {
        files(&self.path(".keepwatch-store/blobs")).len()
    }
}

#[tokio::test]
async fn legal_keys_are_plain_files_and_others_blobs() {
    let rig = Rig::new().await;
    for key in ["a", "b/c d/é", "b/e+%41", "f/"] {
        rig.put(key, key.as_bytes()).await;
    }
    assert_eq!(rig.plain_files(), ["a", "b/c d/é", "b/e+%41"]);
    assert_eq!(fs::read(rig.path("bkt/b/c d/é")).unwrap(), "b/c d/é".as_bytes());
    assert_eq!((rig.blobs(), rig.on_their_way()), (1, 0));
    rig.put("a", b"new").await;
    rig.put("f/", b"new").await;
    assert_eq!(fs::read(rig.path("bkt/a")).unwrap(), b"new");
    assert_eq!((rig.blobs(), rig.on_their_way()), (1, 0), "what was overwritten is gone");
    for key in ["a", "b/c d/é", "b/e+%41", "f/"] {
        rig.client.delete_object().bucket(BUCKET).key(key).send().await.unwrap();
    }
    assert_eq!(fs::read_dir(rig.path(BUCKET)).unwrap().count(), 0);
    assert_eq!(fs::read_dir(rig.path(".keepwatch-store/blobs")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_in_the_way_of_a_folder_moves_to_the_blobs() {
    let rig = Rig::new().await;
    rig.put("x", b"file").await;
    rig.put("x/y/z", b"below").await;
    assert_eq!(rig.plain_files(), ["x/y/z"]);
    rig.put("x/y", b"between").await;
    assert_eq!(rig.plain_files(), ["x/y/z"], "a folder stays one");
    assert_eq!(rig.blobs(), 2);
    for (key, body) in [("x", "file"), ("x/y", "between"), ("x/y/z", "below")] {
        assert_eq!(rig.get(key).await, body.as_bytes());
    }
    rig.client.delete_object().bucket(BUCKET).key("x/y/z").send().await.unwrap();
    rig.put("x", b"plain again").await;
    assert_eq!(rig.plain_files(), ["x"]);
    assert_eq!(rig.get("x/y").await, b"between");
}

#[tokio::test]
async fn older_versions_are_blobs() {
    let rig = Rig::new().await;
    rig.enable_versions().await;
    for body in [b"1", b"2", b"3"] {
        rig.put("k", body).await;
    }
    assert_eq!(fs::read(rig.path("bkt/k")).unwrap(), b"3");
    assert_eq!(rig.blobs(), 2);
    rig.client.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert!(rig.plain_files().is_empty());
    assert_eq!(rig.blobs(), 3);
    let list = rig.client.list_object_versions().bucket(BUCKET).send().await.unwrap();
    for version in list.versions() {
        let delete = rig.client.delete_object().bucket(BUCKET).key("k");
        delete.version_id(version.version_id().unwrap()).send().await.unwrap();
    }
    assert_eq!((rig.blobs(), rig.on_their_way()), (0, 0));
}

#[tokio::test]
async fn files_made_by_hand_are_not_touched() {
    let rig = Rig::new().await;
    fs::write(rig.path("bkt/mine"), "by hand").unwrap();
    fs::write(rig.path("bkt/folder"), "by hand").unwrap();
    rig.put("mine", b"stored").await;
    rig.put("folder/x", b"stored too").await;
    assert_eq!(fs::read(rig.path("bkt/mine")).unwrap(), b"by hand");
    assert_eq!(fs::read(rig.path("bkt/folder")).unwrap(), b"by hand");
    assert_eq!(rig.get("mine").await, b"stored");
    assert_eq!(rig.get("folder/x").await, b"stored too");
    assert_eq!((rig.blobs(), rig.on_their_way()), (2, 0));
    rig.client.delete_object().bucket(BUCKET).key("mine").send().await.unwrap();
    assert_eq!(fs::read(rig.path("bkt/mine")).unwrap(), b"by hand");
    rig.client.delete_object().bucket(BUCKET).key("folder/x").send().await.unwrap();
    rig.client.delete_bucket().bucket(BUCKET).send().await.unwrap();
    assert!(rig.path("bkt/mine").exists());
}

/// Closes the rig's store, so that the next one to open it is alone.
pub(super) fn closed(rig: Rig) -> (std::sync::Arc<tempfile::TempDir>, crate::store::StoreOptions) {
    let options = rig.store.options().clone();
    (rig.folder.clone(), options)
}

#[tokio::test]
async fn opening_sweeps_what_nobody_names_and_brings_home_what_is_named() {
    let rig = Rig::new().await;
    rig.put("k", b"plain").await;
    rig.put("l/", b"blob").await;
    let create = rig.client.create_multipart_upload().bucket(BUCKET).key("m").send().await;
    let upload = create.unwrap().upload_id().unwrap().to_owned();
    let part = rig.client.upload_part().bucket(BUCKET).key("m").upload_id(&upload);
    part.part_number(1).body(b"part".to_vec().into()).send().await.unwrap();
    let (folder, options) = closed(rig);

    // As a kill leaves it: both bodies on their way out or in, half a body, and a stranger.
    let inner = folder.path().join(".keepwatch-store");
    let index = Connection::open(inner.join("index.db")).unwrap();
    let body_of = |key: &str| {
        let sql = "SELECT printf('%016x', body) FROM versions WHERE key = CAST(?1 AS BLOB)";
        index.query_row(sql, [key], |row| row.get::<_, String>(0)).unwrap()
    };
    fs::rename(folder.path().join("bkt/k"), inner.join("tmp").join(body_of("k"))).unwrap();
    let blob = files(&inner.join("blobs")).remove(0);
    fs::rename(inner.join("blobs").join(blob), inner.join("tmp").join(body_of("l/"))).unwrap();
    fs::write(inner.join("tmp/00000000000000ff"), "half").unwrap();
    fs::write(inner.join("tmp/stranger"), "?").unwrap();
    drop(index);

    let store = Store::open(folder.path(), options).unwrap();
    let client = aws_sdk_s3::Client::from_conf(super::in_process(&store).build());
    let on_their_way = fs::read_dir(inner.join("tmp")).unwrap().count();
    assert_eq!(on_their_way, 1, "the part stays");
    assert_eq!(fs::read(folder.path().join("bkt/k")).unwrap(), b"plain");
    for (key, body) in [("k", "plain"), ("l/", "blob")] {
        let answer = client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
        assert_eq!(answer.body.collect().await.unwrap().to_vec(), body.as_bytes());
    }
    let parts = client.list_parts().bucket(BUCKET).key("m").upload_id(&upload).send().await;
    assert_eq!(parts.unwrap().parts().len(), 1);
}

#[tokio::test]
async fn a_store_in_use_is_not_swept() {
    let rig = Rig::new().await;
    let foreign = rig.path(".keepwatch-store/tmp/00000000000000ff");
    fs::write(&foreign, "being written by the first").unwrap();
    let second = Store::open(rig.folder.path(), rig.store.options().clone()).unwrap();
    assert!(foreign.exists());
    let (folder, options) = closed(rig);
    drop(second);
    drop(Store::open(folder.path(), options).unwrap());
    assert!(!foreign.exists(), "but when nobody is left");
}

#[tokio::test]
async fn a_body_is_found_wherever_it_is_on_its_way() {
    let rig = Rig::new().await;
    let body = noise(1, 2 << 20);
    rig.put("k", &body).await;
    let index = Connection::open(rig.path(".keepwatch-store/index.db")).unwrap();
    let sql = "SELECT printf('%016x', body) FROM versions";
    let name: String = index.query_row(sql, [], |row| row.get(0)).unwrap();
    let (home, tmp) = (rig.path("bkt/k"), rig.path(".keepwatch-store/tmp").join(name));
    fs::rename(&home, &tmp).unwrap();
    fs::write(&home, noise(2, 2 << 20)).unwrap();
    assert!(rig.get("k").await == body, "what lies at the plain path is another's");
    rig.client.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert!(!tmp.exists());
    assert!(home.exists());
    assert_refused(rig.client.get_object().bucket(BUCKET).key("k").send().await, 404, "NoSuchKey");
}

#[test]
fn what_cannot_be_opened_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let options = || crate::store::StoreOptions { sync: false, ..Default::default() };
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&file, options()).err().unwrap();
    assert!(matches!(error, StoreOpenError::Folder { .. }), "{error:?}");
    assert!(error.to_string().contains("file"));

    let store = folder.path().join("store");
    drop(Store::open(&store, options()).unwrap());
    let index = store.join(".keepwatch-store/index.db");
    let conn = Connection::open(&index).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    drop(conn);
    let error = Store::open(&store, options()).err().unwrap();
    assert!(matches!(error, StoreOpenError::Newer { found: 99, .. }), "{error:?}");

    fs::write(&index, "this is no database, and never was one; it is some text").unwrap();
    let error = Store::open(&store, options()).err().unwrap();
    assert!(matches!(error, StoreOpenError::Index { .. }), "{error:?}");
}
