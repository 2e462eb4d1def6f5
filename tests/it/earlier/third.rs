//! The third earlier system: `backup [DIRECTORY [BUCKET]]`, with the keys of the AWS CLI, a bucket
//! of its own named after the moment, and sizes alone to tell what changed.

use std::time::{Duration, SystemTime};

use super::tells;
use crate::support::bucket::Bucket;
use crate::support::program::User;
use crate::support::scene::Scene;
use crate::support::server::Embedded;
use crate::support::tree::{Tree, differences};

#[test]
fn a_profile_of_the_aws_cli_is_enough() {
    let server = Embedded::start();
    let bucket = Bucket::create(&server.reach, "bucket");
    let tree = Tree::new(&[("a", b"one")]);
    let user = User::new();
    let aws = user.home.path().join(".aws");
    std::fs::create_dir(&aws).unwrap();
    let keys = "[default]\naws_access_key_id = other\naws_secret_access_key = other\n\
        [backup]\naws_access_key_id = test-key\naws_secret_access_key = test-secret\n";
    std::fs::write(aws.join("credentials"), keys).unwrap();
    let config = format!(
        "[default]\nregion = us-east-1\n[profile backup]\nregion = us-east-1\nendpoint_url = {}\n",
        server.reach.endpoint
    );
    std::fs::write(aws.join("config"), config).unwrap();
    user.sync(tree.folder.path(), "s3://bucket", &["--profile", "backup"], 0);
    assert_eq!(differences(&tree, &bucket, ""), [""; 0]);
    let user = user.with_variable("AWS_PROFILE", "backup");
    tree.write("b", b"two");
    user.sync(tree.folder.path(), "s3://bucket", &[], 0);
    assert_eq!(differences(&tree, &bucket, ""), [""; 0]);
}

#[test]
fn the_word_default_makes_a_bucket_for_a_folder_and_keeps_to_it() {
    let scene = Scene::with_files(2);
    let sync = || scene.user.run(&["sync", scene.source(), "default"]);
    let said = sync();
    assert_eq!(said.code, 0, "{said:?}");
    tells(&said, &["the new bucket keepwatch-", scene.source()]);
    let (_, name) = said.stderr.split_once("the new bucket ").unwrap();
    let name = name.split_whitespace().next().unwrap();
    let shape: String = name.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "keepwatch-00-00-00-000000");
    let bucket = Bucket::open(&scene.server.reach, name);
    assert_eq!(differences(&scene.tree, &bucket, ""), [""; 0]);
    scene.tree.write("f/new", b"new");
    scene.tree.remove("f/0");
    let said = sync();
    assert!(!said.stderr.contains("the new bucket"), "{said:?}");
    assert!(said.stdout.starts_with("uploaded 1 file (3 B), 1 unchanged, 1 deleted"), "{said:?}");
    assert_eq!(differences(&scene.tree, &bucket, ""), [""; 0]);
}

#[test]
fn paths_with_spaces_and_an_empty_folder() {
    let scene = Scene::new(&[("My Documents/a letter.txt", b"dear"), ("My Documents/b", b"2")]);
    std::fs::create_dir(scene.tree.path("My Documents/an empty folder")).unwrap();
    let source = scene.tree.path("My Documents");
    scene.user.sync(&source, "s3://bucket/My Documents", &[], 0);
    assert_eq!(differences(&scene.tree, &scene.bucket, ""), [""; 0]);
    let keys = scene.bucket.keys();
    let empty = "My Documents/an empty folder/";
    assert!(keys.iter().any(|key| key == empty), "{keys:?}");
    let back = Tree::new(&[]);
    let target = back.path("My Documents back");
    let said = scene.user.run(&["restore", "bucket::My Documents", target.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(std::fs::read(target.join("a letter.txt")).unwrap(), b"dear");
    assert!(target.join("an empty folder").read_dir().unwrap().next().is_none());
}

#[test]
fn sizes_alone_may_tell_what_changed() {
    let scene = Scene::new(&[("a", b"one"), ("b", b"two")]);
    let by_size = ["--compare", "size"];
    scene.sync(&by_size, 0);
    scene.tree.write("a", b"ONE");
    scene.tree.write("b", b"longer");
    let said = scene.sync(&by_size, 0);
    assert_eq!(said.number("uploaded"), 1, "{said:?}");
    assert_eq!(scene.get("b").unwrap().body, b"longer");
    assert_eq!(
        scene.get("a").unwrap().body,
        b"one",
        "the size is the same, and is all that counts"
    );
    // By default times and more count, and the change is found after all.
    let scene = Scene::new(&[("a", b"one")]);
    scene.sync(&[], 0);
    scene.tree.write("a", b"ONE");
    scene.sync(&[], 0);
    assert_eq!(scene.get("a").unwrap().body, b"ONE");
}

#[test]
fn a_files_own_time_is_kept_with_it() {
    let scene = Scene::new(&[("a", b"one")]);
    let back = Tree::new(&[]);
    for seconds in [1_000_000_000, 1_600_000_000] {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let file = std::fs::File::options().append(true).open(scene.tree.path("a")).unwrap();
        file.set_modified(at).unwrap();
        scene.sync(&[], 0);
        let kept = scene.get("a").unwrap();
        assert_eq!(kept.meta["mtime"], format!("{seconds}"), "not when it was uploaded");
        let target = back.path(format!("{seconds}"));
        let said = scene.user.run(&["restore", "bucket::p", target.to_str().unwrap()]);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(target.join("a").metadata().unwrap().modified().unwrap(), at);
    }
    // One upload: what had another time only was given that time.
    assert_eq!(scene.server.count("PutObject"), 0);
    scene.is_kept();
}
