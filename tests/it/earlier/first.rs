//! The first earlier system: `backup DIRECTORY bucket::directory`, and `restore` back again.

use super::tells;
use crate::support::bucket::Bucket;
use crate::support::external::moto;
use crate::support::program::User;
use crate::support::scene::Scene;
use crate::support::server::{Embedded, Reach};
use crate::support::tree::{Tree, differences};

/// The same place as `s3://bucket/home/docs`.
const TO: &str = "bucket::home/docs";

fn scene() -> Scene {
    let files: &[(&str, &[u8])] =
        &[("report.txt", b"one"), ("photos/2026/a.jpg", b"two"), ("photos/b.jpg", b"three")];
    Scene::new(files)
}

#[test]
fn a_first_backup_of_a_new_folder() {
    let scene = scene();
    let said = scene.user.run(&["sync", scene.source(), TO, "-v"]);
    assert_eq!(said.code, 0, "{said:?}");
    let files = ["uploaded report.txt", "uploaded photos/2026/a.jpg", "uploaded photos/b.jpg"];
    tells(&said, &files);
    assert!(said.stdout.starts_with("uploaded 3 files (11 B) in "), "{said:?}");
    assert_eq!(differences(&scene.tree, &scene.bucket, "home/docs/"), [""; 0]);
}

#[test]
fn only_what_is_new_or_changed_goes_up() {
    let scene = Scene::with_files(3);
    scene.sync(&[], 0);
    scene.tree.write("f/1", b"changed");
    scene.tree.write("f/new", b"new");
    let said = scene.sync(&[], 0);
    assert_eq!((said.number("uploaded"), said.number("unchanged")), (2, 2), "{said:?}");
    assert_eq!(scene.server.count("PutObject"), 2);
    let puts = |key: &str| scene.requests("PutObject", key);
    assert_eq!((puts("f/1"), puts("f/new"), puts("f/0")), (1, 1, 0));
    scene.is_kept();
}

#[test]
fn a_missing_bucket_is_made_in_the_region_of_the_session() {
    let server = moto();
    let reach = Reach { region: "eu-west-1".to_owned(), ..server.reach.clone() };
    let (user, tree) = (User::of(&reach), Tree::new(&[("a", b"1")]));
    let bucket = Bucket::open(&reach, "brand-new");
    let is_there = || {
        let head = bucket.client.head_bucket().bucket("brand-new");
        bucket.run(head.send()).is_ok()
    };
    let said = user.sync(tree.folder.path(), "brand-new::d", &[], 4);
    tells(&said, &["brand-new", "--create-bucket"]);
    assert!(!is_there(), "nothing is made that was not asked for");
    user.sync(tree.folder.path(), "brand-new::d", &["--create-bucket"], 0);
    let location = bucket.client.get_bucket_location().bucket("brand-new");
    let location = bucket.run(location.send()).unwrap();
    assert_eq!(location.location_constraint().map(|c| c.as_str()), Some("eu-west-1"));
    assert_eq!(differences(&tree, &bucket, "d/"), [""; 0]);
    // The same again: it is there, and used as it is.
    tree.write("b", b"2");
    user.sync(tree.folder.path(), "brand-new::d", &["--create-bucket"], 0);
    assert_eq!(differences(&tree, &bucket, "d/"), [""; 0]);
}

#[test]
fn restored_with_folders_made() {
    let scene = scene();
    scene.user.sync(scene.tree.folder.path(), TO, &[], 0);
    let back = Tree::new(&[]);
    let target = back.path("home");
    let said = scene.user.run(&["restore", TO, target.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{said:?}");
    tells(&said, &["has 3 objects: 3 to fetch (11 B)"]);
    assert!(said.stdout.contains("restored 3 files (11 B)"), "{said:?}");
    for (file, content) in
        [("report.txt", "one"), ("photos/2026/a.jpg", "two"), ("photos/b.jpg", "three")]
    {
        assert_eq!(std::fs::read_to_string(target.join(file)).unwrap(), content, "{file}");
    }
}

#[test]
fn a_restore_makes_no_bucket_and_needs_a_place() {
    let server = Embedded::start();
    let user = User::of(&server.reach);
    let back = Tree::new(&[]);
    let said = user.run(&["restore", "nowhere::d", back.folder.path().to_str().unwrap()]);
    assert_eq!(said.code, 4, "{said:?}");
    tells(&said, &["nowhere", "hint: "]);
    assert_eq!(server.count("CreateBucket"), 0);
    Bucket::create(&server.reach, "bucket").put("d/a", b"1");
    let lost = back.path("not/there/home");
    let said = user.run(&["restore", "bucket::d", lost.to_str().unwrap()]);
    assert_eq!(said.code, 4, "{said:?}");
    tells(&said, &["there is no folder to make", "hint: "]);
    let said = user.run(&["restore", "bucket::d"]);
    assert_eq!(said.code, 2, "{said:?}");
    tells(&said, &["<TARGET>", "Usage: keepwatch restore"]);
    let said = user.run(&["restore", "bucket:d", back.folder.path().to_str().unwrap()]);
    assert_eq!(said.code, 2, "{said:?}");
    tells(&said, &["write s3://bucket"]);
}
