//! What is in the bucket already: adopted when it is right, written over when it is not, and left
//! alone when it is nobody's; and who may write to a prefix at all.

use std::collections::BTreeSet;

use crate::support::bucket::Bucket;
use crate::support::external::{garage, moto};
use crate::support::program::{Said, User};
use crate::support::scene::{Scene, TO};
use crate::support::server::{Embedded, Reach};
use crate::support::tree::{Tree, differences};
use crate::support::{rclone, wait_for};

const OWNER: &str = "/.keepwatch/owner.json";

/// Keys that requests of this operation were about, the owner record's left out.
fn keys(server: &Embedded, operation: &str) -> BTreeSet<String> {
    let log = server.log().into_iter().filter(|access| access.operation == operation);
    let keys = log.filter_map(|access| access.key);
    keys.filter(|key| !key.contains(".keepwatch/")).collect()
}

fn set<const N: usize>(keys: [&str; N]) -> BTreeSet<String> {
    keys.map(str::to_owned).into()
}

#[test]
fn a_prefix_that_is_not_empty() {
    let files: [(&str, &[u8]); 6] = [
        ("equal", b"the same"),
        ("differs", b"12345678"),
        ("longer", b"123456789"),
        ("sub/equal", b"below"),
        ("new", b"new"),
        ("empty", b""),
    ];
    let scene = Scene::new(&files);
    for (key, body) in [
        ("p/equal", &b"the same"[..]),
        ("p/differs", b"abcdefgh"),
        ("p/longer", b"1"),
        ("p/sub/equal", b"below"),
        ("p/empty", b""),
        ("p/stranger", b"nobody's"),
        ("p/sub/stranger", b"nobody's"),
        ("p-not/new", b"beside the prefix"),
    ] {
        scene.bucket.put(key, body);
    }
    // A dry run tells, and writes nothing.
    let said = scene.sync(&["--dry-run"], 0);
    for line in ["\"adopt\",\"path\":\"equal\"", "\"put\",\"path\":\"longer\""] {
        assert!(said.stdout.contains(line), "{line} in {said:?}");
    }
    assert_eq!(scene.server.count("PutObject"), 0);

    let said = scene.sync(&[], 0);
    assert_eq!((said.number("adopted"), said.number("uploaded")), (3, 3), "{said:?}");
    assert_eq!(said.number("unclaimed"), 2);
    assert_eq!(keys(&scene.server, "PutObject"), set(["p/differs", "p/longer", "p/new"]));
    // What was adopted gets its times and mode without its bytes.
    assert_eq!(keys(&scene.server, "CopyObject"), set(["p/equal", "p/sub/equal", "p/empty"]));
    assert!(!keys(&scene.server, "HeadObject").contains("p/longer"), "its size tells enough");
    let strangers = ["p-not/new", "p/stranger", "p/sub/stranger"];
    let wrong = strangers.map(|key| format!("{key:?} should not be there"));
    assert_eq!(scene.differences(), wrong);
    assert_eq!(scene.sync(&[], 0).number("requests.get"), 1);
    assert_eq!(scene.server.log().len(), 1);

    // What was adopted is ours to delete; what is nobody's is not.
    for name in ["equal", "sub", "new"] {
        scene.tree.remove(name);
    }
    assert_eq!(scene.sync(&[], 0).number("deleted"), 3);
    let left: Vec<String> = scene.bucket.objects().into_keys().collect();
    let expected = ["p-not/new", "p/differs", "p/empty", "p/longer", "p/stranger"];
    assert_eq!(left, [&expected[..], &["p/sub/stranger"]].concat());
}

#[test]
fn keys_that_no_file_has_are_nobodys() {
    let scene = Scene::new(&[("new\nline", b"1"), ("hex \u{201b}", b"2"), ("full", b"3")]);
    std::fs::create_dir(scene.tree.path("folder")).unwrap();
    let strange = [
        "a//b",
        "/a",
        "../up",
        "a/./b",
        "‛41",
        "‛ff",
        "␀",
        "x/‛2F/y",
        "new\nline",
        "\u{7f}",
        "full/",
        "full/below",
        "..",
    ];
    for key in strange {
        scene.bucket.put(&format!("p/{key}"), b"strange");
    }
    // A folder's marker that is not empty is not right.
    scene.bucket.put("p/folder/", b"no marker of ours");
    let said = scene.sync(&[], 0);
    assert_eq!(said.number("unclaimed"), strange.len() as u64, "{said:?}");
    assert_eq!((said.number("uploaded"), said.number("folders")), (3, 1), "{said:?}");
    let mut wrong: Vec<String> =
        strange.iter().map(|key| format!("{:?} should not be there", format!("p/{key}"))).collect();
    let mut found = scene.differences();
    wrong.sort();
    found.sort();
    assert_eq!(found, wrong);
    for name in ["full", "new\nline", "folder"] {
        scene.tree.remove(name);
    }
    assert_eq!(scene.sync(&[], 0).number("unclaimed"), strange.len() as u64);
    for key in strange {
        assert!(scene.has(key), "{key:?} is not ours to delete");
    }
}

#[test]
fn a_lost_state_costs_requests_and_no_bytes() {
    let scene = Scene::with_files(20);
    scene.tree.write("large", &vec![7; 11 << 20]);
    scene.tree.write("odd", &vec![8; 6 << 20]);
    std::os::unix::fs::symlink("nowhere", scene.tree.path("link")).unwrap();
    std::fs::create_dir(scene.tree.path("folder")).unwrap();
    scene.tree.chmod("f/1", 0o600);
    let parts = ["--multipart-threshold", "5MiB", "--part-size", "5MiB"];
    scene.sync(&parts, 0);
    scene.is_kept();

    std::fs::remove_dir_all(scene.user.state_folder()).unwrap();
    // Another part size is set now: the object itself tells the one that was used.
    let said = scene.sync(&["--multipart-threshold", "16MiB", "--part-size", "8MiB"], 0);
    assert_eq!((said.number("adopted"), said.number("uploaded")), (23, 0), "{said:?}");
    assert_eq!(keys(&scene.server, "PutObject"), set([]));
    for operation in ["CopyObject", "UploadPart", "CreateMultipartUpload", "DeleteObjects"] {
        assert_eq!(scene.server.count(operation), 0, "{operation}");
    }
    let bytes: u64 = scene.server.log().iter().map(|access| access.received_bytes).sum();
    assert!(bytes < 2_000, "the owner record only: {bytes} bytes");
    scene.is_settled(0);

    // Lost again, with changes meanwhile.
    std::fs::remove_dir_all(scene.user.state_folder()).unwrap();
    scene.tree.write("f/3", b"changed");
    scene.tree.write("new", b"new");
    scene.tree.remove("f/4");
    scene.tree.chmod("f/5", 0o640);
    let file = std::fs::File::options().write(true).open(scene.tree.path("f/6")).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let said = scene.sync(&parts, 0);
    assert_eq!((said.number("uploaded"), said.number("unclaimed")), (2, 1), "{said:?}");
    assert_eq!(keys(&scene.server, "PutObject"), set(["p/f/3", "p/new"]));
    assert_eq!(keys(&scene.server, "CopyObject"), set(["p/f/5", "p/f/6"]));
    assert_eq!(scene.differences(), ["\"p/f/4\" should not be there"]);
}

#[test]
fn what_rclone_has_uploaded_is_adopted() {
    for metadata in [true, false] {
        let scene = Scene::with_files(5);
        scene.tree.write("sub/large", &vec![3; 12 << 20]);
        scene.tree.chmod("f/1", 0o600);
        let mut options = vec!["--s3-upload-cutoff", "5Mi", "--s3-chunk-size", "5Mi"];
        options.extend(metadata.then_some("--metadata"));
        let to = rclone::remote(&scene.server.reach, "bucket/p");
        rclone::run(&[&["copy", scene.source(), &to], &options[..]].concat());
        let said = scene.sync(&[], 0);
        assert_eq!((said.number("adopted"), said.number("uploaded")), (6, 0), "{said:?}");
        assert_eq!(keys(&scene.server, "PutObject"), set([]));
        assert_eq!(scene.server.count("UploadPart"), 0);
        // rclone's metadata is ours; without it, the modes are missing.
        let copies = if metadata { 0 } else { 6 };
        assert_eq!(scene.server.count("CopyObject"), copies, "{:?}", scene.server.log());
        assert_eq!(scene.sync(&[], 0).number("unchanged"), 6);
        assert_eq!(scene.server.log().len(), 1);
    }
}

/// A user of another machine.
fn elsewhere(reach: &Reach) -> User {
    User::of(reach).with_variable("KEEPWATCH_MACHINE_ID", "elsewhere")
}

fn is_refused(said: &Said, words: &[&str]) {
    assert_eq!(said.code, 4, "{said:?}");
    for word in words {
        assert!(said.stderr.contains(word), "{word:?} is not in:\n{}", said.stderr);
    }
}

/// One machine on a prefix; answers with its source, user and bucket.
fn settled(reach: &Reach) -> (Tree, User, Bucket) {
    let bucket = Bucket::create(reach, "bucket");
    let tree = Tree::new(&[("a", b"1"), ("b", b"2")]);
    let user = User::of(reach).with_variable("KEEPWATCH_MACHINE_ID", "here");
    user.sync(tree.folder.path(), TO, &[], 0);
    (tree, user, bucket)
}

fn second_machine_is_refused(reach: &Reach, owner: &str) {
    let (tree, user, bucket) = settled(reach);
    let status = user.run(&["status", "--json"]).json();
    assert_eq!(status["backups"][0]["owner"], owner, "{status}");
    let before = bucket.objects();
    let (other, others_tree) = (elsewhere(reach), Tree::new(&[("a", b"others"), ("c", b"3")]));
    let source = others_tree.folder.path().to_str().unwrap();
    let path = tree.folder.path().to_str().unwrap();
    let owned = format!("(machine here), which backs up {path}");
    let words = ["error: this destination belongs to ", &owned, "hint: use another prefix"];
    for args in [&["sync"][..], &["watch"], &["sync", "--dry-run"]] {
        let said = other.run(&[args, &[source, TO]].concat());
        is_refused(&said, &words);
        is_refused(&said, &["--take-over"]);
    }
    assert_eq!(bucket.objects(), before);
    // Another folder of the same machine is another owner too.
    is_refused(&user.sync(others_tree.folder.path(), TO, &[], 4), &words);
    // Taken over, it is the first one that is refused.
    other.sync(others_tree.folder.path(), TO, &["--take-over"], 0);
    assert_eq!(bucket.get("p/a").unwrap().body, b"others");
    is_refused(&user.sync(tree.folder.path(), TO, &[], 4), &["(machine elsewhere)"]);
    other.sync(others_tree.folder.path(), TO, &[], 0);
    assert!(bucket.get("p/b").is_some(), "nobody's now, and kept");
}

#[test]
fn a_second_machine_is_refused() {
    let server = Embedded::start();
    second_machine_is_refused(&server.reach, "exclusive");
}

#[test]
fn a_second_machine_is_refused_on_moto() {
    let server = moto();
    second_machine_is_refused(&server.reach, "exclusive");
}

#[test]
fn the_owner_record_is_advisory_on_garage() {
    let server = garage();
    second_machine_is_refused(&server.reach, "advisory");
    let user = elsewhere(&server.reach);
    let tree = Tree::new(&[("a", b"1")]);
    user.sync(tree.folder.path(), "s3://bucket/q", &[], 0);
    let status = user.run(&["status"]).stdout;
    let told = "owner record: advisory (this server has no conditional writes)";
    assert!(status.contains(told), "{status}");
}

#[test]
fn the_same_owner_goes_on_with_a_fresh_state() {
    let server = Embedded::start();
    let (tree, user, bucket) = settled(&server.reach);
    let record = |bucket: &Bucket| -> serde_json::Value {
        serde_json::from_slice(&bucket.get("p/.keepwatch/owner.json").unwrap().body).unwrap()
    };
    assert_eq!(record(&bucket)["generation"], 1);
    let path = tree.folder.path().to_str().unwrap();
    assert_eq!(record(&bucket)["source"], path);
    let old = user.home.path().join("old");
    std::fs::rename(user.state_folder(), &old).unwrap();
    user.sync(tree.folder.path(), TO, &[], 0);
    assert_eq!(record(&bucket)["generation"], 2);
    // The old state comes back from a backup: it is not the owner any more.
    let said = user.run(&["sync", path, TO, "--state-dir", old.to_str().unwrap()]);
    is_refused(&said, &["error: another state database of this machine has taken over"]);
    user.sync(tree.folder.path(), TO, &[], 0);
    assert_eq!(differences(&tree, &bucket, "p/"), [""; 0]);
    // Something else in its place is not written over.
    bucket.put("p/.keepwatch/owner.json", b"not a record");
    let said = user.sync(tree.folder.path(), TO, &[], 4);
    is_refused(&said, &["is not an owner record of keepwatch", "hint: "]);
}

#[test]
fn one_backup_inside_another_is_refused() {
    let server = Embedded::start();
    let bucket = Bucket::create(&server.reach, "bucket");
    let (outer, inner) = (Tree::new(&[("d/x", b"outer")]), Tree::new(&[("x", b"inner")]));
    let user = User::of(&server.reach);
    let sync = |user: &User, tree: &Tree, to: &str, more: &[&str], code| {
        user.sync(tree.folder.path(), to, more, code)
    };
    for (first, second) in
        [(("one", &outer), ("one/d", &inner)), (("two/d/e", &inner), ("two", &outer))]
    {
        let to = |prefix: &str| format!("s3://bucket/{prefix}");
        sync(&user, first.1, &to(first.0), &[], 0);
        let before = bucket.keys();
        let path = first.1.folder.path().display();
        let names = format!("backs up {path}");
        let record = format!("{}/.keepwatch/owner.json", first.0);
        let record = record.trim_start_matches("two/");
        let words =
            ["overlaps that of another backup", &names, record, "hint: use a prefix beside"];
        let other = elsewhere(&server.reach);
        for user in [&user, &other] {
            is_refused(&sync(user, second.1, &to(second.0), &["--dry-run"], 4), &words);
            is_refused(&sync(user, second.1, &to(second.0), &["--take-over"], 4), &words);
            let source = second.1.folder.path().to_str().unwrap();
            is_refused(&user.run(&["watch", source, &to(second.0)]), &words);
        }
        assert_eq!(bucket.keys(), before);
        // Where the other is gone for good, its record is all that is in the way.
        bucket.delete(&format!("{}/.keepwatch/owner.json", first.0));
        sync(&user, second.1, &to(second.0), &[], 0);
    }
    // A copy of a record in the source is a file like any other, also once the state is lost.
    let record = bucket.get("two/.keepwatch/owner.json").unwrap().body;
    outer.write("copy/.keepwatch/owner.json", &record);
    sync(&user, &outer, "s3://bucket/three", &[], 0);
    bucket.delete("three/.keepwatch/owner.json");
    std::fs::remove_dir_all(user.state_folder()).unwrap();
    sync(&user, &outer, "s3://bucket/three", &[], 0);
    assert!(bucket.get("three/copy/.keepwatch/owner.json").is_some());
}

#[test]
fn two_that_overlap_and_begin_at_once_do_not_both_win() {
    let server = Embedded::start();
    let bucket = Bucket::create(&server.reach, "bucket");
    let (outer, inner) = (Tree::new(&[("d/x", b"outer")]), Tree::new(&[("x", b"inner")]));
    let (left, right) = (User::of(&server.reach), elsewhere(&server.reach));
    let run = |user: &User, tree: &Tree, to: &str| {
        user.run(&["sync", tree.folder.path().to_str().unwrap(), to]).code
    };
    for round in 0..4 {
        let (one, two) = (format!("s3://bucket/{round}"), format!("s3://bucket/{round}/d"));
        let codes = std::thread::scope(|threads| {
            let first = threads.spawn(|| run(&left, &outer, &one));
            let second = threads.spawn(|| run(&right, &inner, &two));
            [first.join().unwrap(), second.join().unwrap()]
        });
        assert!(codes.contains(&4), "{codes:?}");
        let own = |key: &String| key.starts_with(&format!("{round}/")) && key.ends_with(OWNER);
        let records = bucket.keys().into_iter().filter(own).count();
        assert_eq!(records, codes.iter().filter(|&&code| code == 0).count(), "{codes:?}");
    }
}

#[test]
fn disks_that_take_turns_are_compared_anew() {
    let user = User::new();
    let tree = Tree::new(&[("a", b"1"), ("b", b"1"), ("c", b"1")]);
    let disks = tempfile::tempdir().unwrap();
    let (here, other) = (disks.path().join("usb"), disks.path().join("other"));
    let to = format!("file://{}", here.display());
    let create = ["--create-bucket"];
    let keep = || user.sync(tree.folder.path(), &to, &create, 0);
    let exchange = || {
        let aside = disks.path().join("aside");
        std::fs::rename(&here, &aside).unwrap();
        std::fs::rename(&other, &here).unwrap();
        std::fs::rename(&aside, &other).unwrap();
    };
    keep();
    std::fs::rename(&here, &other).unwrap();
    // None is made in the place of one that was: its disk may not be mounted.
    std::fs::create_dir(&here).unwrap();
    for more in [&create[..], &[]] {
        let said = user.sync(tree.folder.path(), &to, more, 4);
        is_refused(
            &said,
            &["there is no store in", "any more", "hint: check that its disk is mounted"],
        );
    }
    assert_eq!(std::fs::read_dir(&here).unwrap().count(), 0);
    // A second disk, with another store on it.
    std::fs::remove_dir(&here).unwrap();
    User::new().sync(tree.folder.path(), &format!("{to}#another"), &create, 0);
    tree.write("a", b"22");
    tree.write("d", b"2");
    assert_eq!(keep().number("uploaded"), 4);
    exchange();
    assert_eq!(keep().number("uploaded"), 2);
    tree.write("b", b"333");
    assert_eq!(keep().number("uploaded"), 1);
    exchange();
    assert_eq!(keep().number("uploaded"), 1);
    assert_eq!(keep().number("requests.list"), 0);
}

#[test]
fn of_two_that_begin_at_once_one_wins() {
    let server = Embedded::start();
    let bucket = Bucket::create(&server.reach, "bucket");
    for round in 0..3 {
        let to = format!("s3://bucket/{round}");
        let trees = [Tree::new(&[("a", b"left")]), Tree::new(&[("a", b"right")])];
        let users = [User::of(&server.reach), elsewhere(&server.reach)];
        let began: Vec<_> = users
            .iter()
            .zip(&trees)
            .map(|(user, tree)| {
                let mut command =
                    user.command(&["sync", tree.folder.path().to_str().unwrap(), &to]);
                command.stderr(std::process::Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let outputs: Vec<_> = began.into_iter().map(|c| c.wait_with_output().unwrap()).collect();
        let codes: Vec<_> = outputs.iter().map(|output| output.status.code()).collect();
        let winner = codes.iter().position(|code| *code == Some(0)).expect("one of them wins");
        assert_eq!(codes[1 - winner], Some(4), "{outputs:?}");
        let prefix = format!("{round}/");
        let body = bucket.get(&format!("{prefix}a")).unwrap().body;
        assert_eq!(body, std::fs::read(trees[winner].path("a")).unwrap());
    }
}

#[test]
fn a_daemon_that_was_taken_over_stops_writing() {
    let scene = Scene::with_files(2);
    let daemon = scene.watch(&["--settle", "50ms", "--delete-delay", "0s", "--rescan", "1s"]);
    wait_for("the first pass", || scene.differences().is_empty());
    let (other, tree) = (elsewhere(&scene.server.reach), Tree::new(&[("a", b"others")]));
    other.sync(tree.folder.path(), TO, &["--take-over"], 0);
    let waiting = || daemon.backup()["waiting_for"].to_string();
    wait_for("the daemon to notice", || waiting().contains("(machine elsewhere)"));
    scene.tree.remove("f/0");
    scene.tree.write("f/1", b"changed");
    // It asks again and again, and writes nothing.
    let asked = scene.server.count("GetObject");
    wait_for("another question", || scene.server.count("GetObject") > asked + 1);
    assert_eq!(scene.bucket.get("p/f/1").unwrap().body, b"1");
    assert!(scene.has("f/0"));
    // Taken back.
    assert_eq!(daemon.stop(), 0);
    scene.sync(&["--take-over"], 0);
    assert_eq!(scene.differences(), ["\"p/a\" should not be there"]);
}
