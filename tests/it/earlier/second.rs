//! The second earlier system: a folder and a bucket kept in step by a file of notes, with keys and
//! the bucket's name in a file of their own.

use std::time::{Duration, SystemTime};

use super::{files, tells, uploaded};
use crate::support::bucket::Bucket;
use crate::support::program::User;
use crate::support::scene::Scene;
use crate::support::server::Embedded;
use crate::support::tree::{Tree, differences};

fn touch(scene: &Scene, name: &str, seconds: u64) {
    let file = std::fs::File::options().append(true).open(scene.tree.path(name)).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
}

#[test]
fn first_backup_deleted_file_modified_file() {
    let scene = Scene::new(&[("a", b"one"), ("b", b"two"), ("sub/c", b"three")]);
    let said = scene.sync(&[], 0);
    assert_eq!(said.number("uploaded"), 3, "{said:?}");
    scene.is_kept();

    scene.tree.remove("b");
    let said = scene.sync(&[], 0);
    assert_eq!((said.number("deleted"), said.number("uploaded")), (1, 0), "{said:?}");
    scene.is_kept();
    let known = [("a".to_owned(), true), ("sub/c".to_owned(), true)];
    assert_eq!(uploaded(&scene), known, "what is deleted is in no note any more");

    scene.tree.write("a", b"other");
    let said = scene.sync(&[], 0);
    assert_eq!((said.number("uploaded"), said.number("unchanged")), (1, 1), "{said:?}");
    scene.is_kept();
    assert_eq!(scene.requests("PutObject", "a"), 1);
}

#[test]
fn a_new_time_alone_sends_no_bytes() {
    let scene = Scene::new(&[("a", b"one"), ("b", b"two")]);
    scene.sync(&[], 0);
    touch(&scene, "a", 1_600_000_000);
    let said = scene.sync(&[], 0);
    assert_eq!((said.number("uploaded"), said.number("uploaded_bytes")), (0, 0), "{said:?}");
    assert_eq!(said.number("retouched"), 1, "{said:?}");
    assert_eq!(scene.server.count("PutObject"), 0);
    scene.is_kept();
}

#[test]
fn notes_are_made_on_the_first_run_and_read_on_the_next() {
    let scene = Scene::new(&[("a", b"one"), ("sub/b", b"two")]);
    touch(&scene, "a", 1_600_000_000);
    let state = scene.user.state_folder().join("state.db");
    assert!(!state.exists());
    scene.sync(&[], 0);
    assert!(state.exists());
    let known = files(&scene);
    assert_eq!(known.len(), 2, "{known:?}");
    assert_eq!((&known[0]["path"], &known[0]["uploaded"]), (&"a".into(), &true.into()));
    let mtime = known[0]["mtime"].as_str().unwrap();
    assert_eq!(mtime.split('.').next(), Some("1600000000"), "{mtime}");
    assert_eq!(known[0]["md5"], "f97c5d29941bfb1b2fdab0874906ab82");
    scene.is_settled(0);
}

#[test]
fn each_file_is_told_of() {
    let scene = Scene::new(&[("same", b"1"), ("changed", b"2"), ("gone", b"3")]);
    scene.sync(&[], 0);
    scene.tree.write("changed", b"22");
    scene.tree.write("new", b"4");
    scene.tree.remove("gone");
    let dry = scene.user.run(&["sync", scene.source(), "bucket::p", "--dry-run"]);
    let mut lines: Vec<&str> = dry.stdout.lines().collect();
    lines.sort_unstable();
    let known = ["put     changed  (changed)", "put     new  (new)"];
    assert_eq!(lines[lines.len() - 2..], known, "{dry:?}");
    assert!(lines[0].starts_with("delete  gone"), "{dry:?}");
    let said = scene.user.run(&["sync", scene.source(), "bucket::p", "-v"]);
    tells(&said, &["uploaded changed", "uploaded new", "deleted gone"]);
    assert!(said.stdout.starts_with("uploaded 2 files (3 B), 1 unchanged, 1 deleted in "));
}

#[test]
fn keys_and_the_bucket_come_from_files() {
    let server = Embedded::start();
    let bucket = Bucket::create(&server.reach, "bucket");
    let tree = Tree::new(&[("a", b"one"), ("sub/b", b"two")]);
    let user = User::new();
    let keys = user.home.path().join("keys");
    let text = "[default]\naws_access_key_id = test-key\naws_secret_access_key = test-secret\n";
    crate::support::write_secret(&keys, text);
    let folder = user.home.path().join(".config/keepwatch");
    std::fs::create_dir_all(&folder).unwrap();
    let text = format!(
        "credentials_file = {:?}\nendpoint_url = \"{}\"\nregion = \"us-east-1\"\n\
         [[backup]]\nname = \"work\"\nsource = {:?}\ndestination = \"bucket::backups\"\n",
        keys,
        server.reach.endpoint,
        tree.folder.path()
    );
    std::fs::write(folder.join("keepwatch.toml"), text).unwrap();
    let said = user.run(&["sync"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(differences(&tree, &bucket, "backups/"), [""; 0]);
    // Neither the keys nor their file are needed to tell how far it is.
    std::fs::remove_file(&keys).unwrap();
    assert!(user.run(&["status"]).stdout.contains("2 files (6 B) in the destination"));
}
