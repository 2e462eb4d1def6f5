//! `sync`: one pass, and what it costs.

use crate::support::bucket::Bucket;
use crate::support::program::User;
use crate::support::scene::Scene;
use crate::support::server::Embedded;
use crate::support::tree::{Tree, differences};

#[test]
fn a_second_pass_costs_one_request() {
    let server = Embedded::start();
    let bucket = Bucket::create(&server.reach, "bucket");
    let tree = Tree::new(&[("a.txt", b"hello"), ("sub/b", b"world"), ("sub/c/d", b"")]);
    std::fs::create_dir(tree.path("empty")).unwrap();
    std::os::unix::fs::symlink("nowhere", tree.path("link")).unwrap();
    let user = User::of(&server.reach);
    let said = user.sync(tree.folder.path(), "s3://bucket/p", &[], 0);
    assert_eq!((said.number("uploaded"), said.number("folders")), (4, 1), "{said:?}");
    assert_eq!(differences(&tree, &bucket, "p/"), [""; 0]);

    server.clear_log();
    let said = user.sync(tree.folder.path(), "s3://bucket/p", &[], 0);
    assert_eq!((said.number("uploaded"), said.number("unchanged")), (0, 4));
    let log = server.log();
    assert_eq!(log.len(), 1, "one GET of the owner record: {log:?}");
    assert_eq!(log[0].key.as_deref(), Some("p/.keepwatch/owner.json"));
    assert_eq!(said.number("requests.get"), 1);

    tree.write("a.txt", b"other");
    server.clear_log();
    user.sync(tree.folder.path(), "s3://bucket/p", &[], 0);
    assert_eq!((server.count("PutObject"), server.log().len()), (1, 2));
    assert_eq!(differences(&tree, &bucket, "p/"), [""; 0]);
}

#[test]
fn an_emptied_destination_is_not_believed_to_be_full() {
    let scene = Scene::with_files(3);
    scene.sync(&[], 0);
    scene.bucket.keys().iter().for_each(|key| scene.bucket.delete(key));
    let said = scene.sync(&[], 0);
    assert!(said.stderr.contains("the owner record is gone"), "{said:?}");
    assert_eq!(said.number("uploaded"), 3, "{said:?}");
    scene.is_settled(0);
}
