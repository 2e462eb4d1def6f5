//! Bodies that were removed or changed by hand: how they are listed, read, and replaced.

use std::fs;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::types::ChecksumMode;
use rusqlite::Connection;

use super::disk::closed;
use super::{BUCKET, Rig, Store, assert_refused, in_process};

impl Rig {
    /// Each key with its ETag, as listed, and whether it is shown as damaged.
    async fn listed(&self) -> Vec<(String, String, bool)> {
        let list = self.client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
        let mut listed = Vec::new();
        for object in list.contents() {
            let etag = object.e_tag().unwrap().to_owned();
            let damaged = etag.starts_with("\"damaged-");
            listed.push((object.key().unwrap().to_owned(), etag, damaged));
        }
        listed
    }

    async fn damaged(&self) -> Vec<String> {
        self.listed().await.into_iter().filter(|l| l.2).map(|(key, ..)| key).collect()
    }
}

#[tokio::test]
async fn damaged_bodies_are_listed_with_an_etag_of_no_content() {
    let rig = Rig::new().await;
    for key in ["altered", "blob/", "longer", "removed", "whole"] {
        rig.put(key, b"right").await;
    }
    assert_eq!(rig.damaged().await, [""; 0]);
    fs::write(rig.path("bkt/altered"), "wrong").unwrap();
    fs::write(rig.path("bkt/longer"), "right, and more").unwrap();
    fs::remove_file(rig.path("bkt/removed")).unwrap();
    fs::create_dir(rig.path("bkt/removed")).unwrap();
    fs::write(rig.path("bkt/removed/mine"), "by hand").unwrap();
    fs::remove_dir_all(rig.path(".keepwatch-store/blobs")).unwrap();
    let wrong = ["altered", "blob/", "longer", "removed"];
    assert_eq!(rig.damaged().await, wrong);
    let versions = rig.client.list_object_versions().bucket(BUCKET).send().await.unwrap();
    let shown = versions.versions().iter().filter(|v| v.e_tag().unwrap().contains("damaged"));
    assert_eq!(shown.count(), wrong.len());

    for (key, etag, damaged) in rig.listed().await {
        let head = rig.client.head_object().bucket(BUCKET).key(&key);
        let head = head.checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
        assert_eq!(head.e_tag(), Some(etag.as_str()));
        assert_eq!(head.checksum_crc64_nvme().is_none(), damaged, "{key}");
        if damaged {
            let get = || rig.client.get_object().bucket(BUCKET).key(&key);
            assert_refused(get().send().await, 422, "ObjectDamaged");
            assert_refused(get().if_match(&etag).send().await, 422, "ObjectDamaged");
            let put = rig.client.put_object().bucket(BUCKET).key(&key).if_match(&etag);
            put.body(b"again".to_vec().into()).send().await.unwrap();
            assert_eq!(rig.get(&key).await, b"again");
        }
    }
    assert_eq!(rig.damaged().await, [""; 0]);
    assert_eq!(fs::read(rig.path("bkt/removed/mine")).unwrap(), b"by hand");
}

#[tokio::test]
async fn a_bucket_folder_that_was_removed_is_made_again() {
    let rig = Rig::new().await;
    rig.put("a/b", b"one").await;
    rig.put("c", b"two").await;
    fs::remove_dir_all(rig.path(BUCKET)).unwrap();
    assert_eq!(rig.damaged().await, ["a/b", "c"]);
    rig.put("a/b", b"one").await;
    assert_eq!(rig.damaged().await, ["c"]);
    assert_eq!(fs::read(rig.path("bkt/a/b")).unwrap(), b"one");
    rig.client.delete_object().bucket(BUCKET).key("c").send().await.unwrap();
    assert_eq!(rig.keys().await, ["a/b"]);
}

/// As in a store that was copied with a tool that does not keep times.
#[tokio::test]
async fn a_file_with_another_time_is_whole_when_its_content_is() {
    let rig = Rig::new().await;
    let etag = rig.put("k", b"right").await;
    let touch = || {
        let file = fs::File::options().write(true).open(rig.path("bkt/k")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(77)).unwrap();
    };
    touch();
    let (_, shown, damaged) = rig.listed().await.remove(0);
    assert!(damaged);
    let get = rig.client.get_object().bucket(BUCKET).key("k").if_match(&shown).send().await;
    let get = get.unwrap();
    assert_eq!(get.e_tag(), Some(shown.as_str()), "it is the one that was meant");
    assert_eq!(get.body.collect().await.unwrap().to_vec(), b"right");
    assert_eq!(rig.listed().await, [("k".to_owned(), etag.clone(), false)], "and it is mended");
    touch();
    let head = rig.client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(head.e_tag(), Some(etag.as_str()));
    assert_eq!(rig.damaged().await, [""; 0]);
}

#[tokio::test]
async fn what_moves_while_it_is_listed_is_not_damaged() {
    let rig = Rig::new().await;
    rig.put("x", b"there").await;
    let (client, writer) = (rig.client.clone(), rig.client.clone());
    let writing = tokio::spawn(async move {
        for n in 0..300_usize {
            // `x` moves between its plain path, the blobs and back; `y` changes.
            for (key, body) in [("x", vec![1; n % 7]), ("y", vec![2; n % 5]), ("x/z", vec![3; 3])] {
                let put = writer.put_object().bucket(BUCKET).key(key);
                put.body(body.into()).send().await.unwrap();
            }
            writer.delete_object().bucket(BUCKET).key("x/z").send().await.unwrap();
        }
    });
    while !writing.is_finished() {
        let list = client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
        for object in list.contents() {
            assert!(!object.e_tag().unwrap().contains("damaged"), "{object:?}");
        }
    }
    writing.await.unwrap();
}

#[tokio::test]
async fn an_index_of_before_is_brought_up_to_date() {
    let rig = Rig::new().await;
    rig.put("altered", b"right").await;
    rig.put("removed", b"right").await;
    let (folder, options) = closed(rig);
    let index = folder.path().join(".keepwatch-store/index.db");
    let conn = Connection::open(&index).unwrap();
    conn.execute_batch("ALTER TABLE versions DROP COLUMN stamped_s; PRAGMA user_version = 1;")
        .unwrap();
    drop(conn);
    fs::write(folder.path().join("bkt/altered"), "wrong").unwrap();
    fs::remove_file(folder.path().join("bkt/removed")).unwrap();
    let store = Store::open(folder.path(), options).unwrap();
    let client = aws_sdk_s3::Client::from_conf(in_process(&store).build());
    let list = client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    let damaged: Vec<_> =
        list.contents().iter().map(|o| o.e_tag().unwrap().contains("damaged")).collect();
    assert_eq!(damaged, [false, true], "the times of what was there before are not known");
    let put = client.put_object().bucket(BUCKET).key("removed");
    put.body(b"again".to_vec().into()).send().await.unwrap();
}
