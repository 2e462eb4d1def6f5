//! The fifth earlier system: `--bucketname B --backupfolder F`, its file of what was uploaded, and
//! `--crashrun 1` for what was not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{files, tells, uploaded};
use crate::support::bucket::Bucket;
use crate::support::external::moto;
use crate::support::program::User;
use crate::support::scene::{Scene, TO};
use crate::support::server::Fault;
use crate::support::tree::{Tree, differences};

const MIB: usize = 1024 * 1024;

#[test]
fn a_bucket_is_made_in_the_region_that_is_asked_for() {
    let server = moto();
    let (user, tree) = (User::of(&server.reach), Tree::new(&[("a", b"1"), ("b/c", b"2")]));
    let flags = ["--region", "eu-west-1", "--create-bucket"];
    for content in [b"1", b"3"] {
        tree.write("a", content);
        user.sync(tree.folder.path(), "s3://made-here", &flags, 0);
        let bucket = Bucket::open(&server.reach, "made-here");
        let location = bucket.client.get_bucket_location().bucket("made-here");
        let location = bucket.run(location.send()).unwrap();
        assert_eq!(location.location_constraint().map(|c| c.as_str()), Some("eu-west-1"));
        assert_eq!(differences(&tree, &bucket, ""), [""; 0]);
    }
}

#[test]
fn a_crash_run_transfers_only_what_failed() {
    let scene = Scene::with_files(5);
    scene.server.rule(|seen| match seen.path.as_str() {
        "/bucket/p/f/1" | "/bucket/p/f/3" if seen.method == "PUT" => {
            Fault::Error(403, "AccessDenied")
        }
        _ => Fault::Pass,
    });
    let said = scene.sync(&[], 1);
    assert_eq!((said.number("uploaded"), said.number("failed")), (3, 2), "{said:?}");
    tells(&said, &["failed: f/1: ", "failed: f/3: "]);
    let of = |number: usize| (format!("f/{number}"), !matches!(number, 1 | 3));
    assert_eq!(uploaded(&scene), (0..5).map(of).collect::<Vec<_>>());

    scene.server.no_rule();
    scene.tree.write("new", b"not now");
    let said = scene.sync(&["--failed-only"], 0);
    assert_eq!((said.number("uploaded"), said.number("failed")), (2, 0), "{said:?}");
    assert_eq!((scene.requests("PutObject", "f/1"), scene.requests("PutObject", "f/3")), (1, 1));
    assert_eq!(scene.server.count("PutObject"), 2);
    assert!(!scene.has("new"), "it is new, and did not fail");
    assert!(uploaded(&scene).iter().all(|(_, uploaded)| *uploaded), "the notes are up to date");

    let said = scene.sync(&["--failed-only"], 0);
    assert_eq!(said.number("uploaded"), 0, "nothing failed: {said:?}");
    assert_eq!(scene.sync(&[], 0).number("uploaded"), 1);
    scene.is_settled(0);
}

#[test]
fn what_the_server_computed_must_be_what_was_sent() {
    let scene = Scene::new(&[("a", b"hello")]);
    let lies = Arc::new(AtomicUsize::new(1));
    let left = lies.clone();
    scene.server.rule(move |seen| {
        let is_file = seen.method == "PUT" && seen.path == "/bucket/p/a";
        match is_file
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
        {
            true => Fault::ETag("\"00000000000000000000000000000000\""),
            false => Fault::Pass,
        }
    });
    let said = scene.sync(&[], 0);
    assert_eq!(lies.load(Ordering::SeqCst), 0, "it was told a wrong MD5");
    // It was not believed: the object was looked at, and found right after all.
    assert_eq!((said.number("uploaded"), said.number("adopted")), (0, 1), "{said:?}");
    assert_eq!(scene.requests("HeadObject", "a"), 1);
    let md5 = "5d41402abc4b2a76b9719d911017c592";
    assert_eq!(scene.get("a").unwrap().etag, md5);
    let known = files(&scene);
    assert_eq!((&known[0]["md5"], &known[0]["uploaded"]), (&md5.into(), &true.into()));
}

#[test]
fn large_files_go_in_parts_at_the_same_time() {
    let scene = Scene::new(&[("small", &vec![1; 5 * MIB])]);
    let large: Vec<u8> = (0..20 * MIB).map(|at| (at / 4096) as u8).collect();
    scene.tree.write("large", &large);
    let (parts, all) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
    scene.server.rule(move |seen| {
        if !seen.query.contains("partNumber=") {
            return Fault::Pass;
        }
        // No part is answered before all four are there.
        if parts.fetch_add(1, Ordering::SeqCst) + 1 == 4 {
            all.store(true, Ordering::SeqCst);
        }
        Fault::Until(all.clone())
    });
    let sizes = ["--multipart-threshold", "5MiB", "--part-size", "5MiB"];
    scene.sync(&sizes, 0);
    assert_eq!((scene.server.count("UploadPart"), scene.requests("PutObject", "large")), (4, 0));
    assert_eq!(scene.requests("PutObject", "small"), 1, "it is no larger than the threshold");
    let etag = scene.get("large").unwrap().etag;
    assert!(etag.ends_with("-4"), "{etag}");
    let known = files(&scene);
    assert_eq!((&known[0]["path"], &known[0]["md5"]), (&"large".into(), &etag.into()));
    scene.is_kept();
    let said = scene.user.run(&["sync", scene.source(), TO, "--json"]);
    assert_eq!(said.number("uploaded"), 0, "{said:?}");
}
