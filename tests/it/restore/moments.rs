//! Any moment: versions, the marks of deletions, tags; and `ls`, which shows them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_s3::types::{BucketVersioningStatus, Tag, Tagging, VersioningConfiguration};
use jiff::Timestamp;
use serde_json::Value;

use crate::support::bucket::Bucket;
use crate::support::external::{garage, moto};
use crate::support::program::{Said, User};
use crate::support::scene::{Scene, TO};
use crate::support::server::{Fault, Reach};
use crate::support::tree::Tree;
use crate::support::wait_for;

/// Restores into this folder; it must end with this code.
fn restore(user: &User, from: &str, back: &Tree, more: &[&str], code: i32) -> Said {
    let to = back.folder.path().to_str().unwrap();
    let said = user.run(&[&["restore", from, to, "--json"], more].concat());
    assert_eq!(said.code, code, "{more:?}: {said:?}");
    said
}

fn keep_versions(bucket: &Bucket, status: BucketVersioningStatus) {
    let versioning = VersioningConfiguration::builder().status(status).build();
    let put = bucket.client.put_bucket_versioning().bucket(&bucket.name);
    bucket.run(put.versioning_configuration(versioning).send()).unwrap();
}

fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed()
}

/// The end of this second, once it is over: servers tell times in seconds.
fn moment() -> String {
    let second = now_s();
    wait_for("the next second", || now_s() > second);
    Timestamp::new(second, 999_000_000).unwrap().to_string()
}

/// The tree of a generation: files come, go, come back and change; so do folders and links.
fn grow(tree: &Tree, generation: usize) {
    for n in 0..45 {
        let name = format!("d{}/f{n}", n % 5);
        let _ = std::fs::remove_file(tree.path(&name));
        if !(n + generation).is_multiple_of(3) {
            tree.write(&name, format!("{n} {}", (n + generation) / 4).as_bytes());
            tree.chmod(&name, if (n * generation).is_multiple_of(5) { 0o600 } else { 0o644 });
        }
    }
    let (link, empty) = (tree.path("link"), tree.path("empty"));
    let _ = std::fs::remove_file(&link);
    let _ = std::fs::remove_dir(&empty);
    match generation % 2 {
        0 => std::os::unix::fs::symlink(format!("d{generation}"), link).unwrap(),
        _ => std::fs::create_dir(empty).unwrap(),
    }
}

fn five_generations(reach: &Reach) {
    let (user, bucket) = (User::of(reach), Bucket::create(reach, "bucket"));
    keep_versions(&bucket, BucketVersioningStatus::Enabled);
    let tree = Tree::new(&[]);
    let mut moments = vec![];
    for generation in 0..5 {
        grow(&tree, generation);
        user.sync(tree.folder.path(), TO, &["--max-delete", "off"], 0);
        moments.push((moment(), tree.expected("")));
    }
    for (at, expected) in &moments {
        let back = Tree::new(&[]);
        let said = restore(&user, TO, &back, &["--at", at], 0);
        assert_eq!(back.expected(""), *expected, "{at}: {said:?}");
        let listed = user.run(&["ls", TO, "--at", at, "--json"]);
        let listed: Vec<String> = paths(&listed);
        let files: Vec<&String> = expected.keys().collect();
        assert_eq!(listed.iter().collect::<Vec<_>>(), files, "{at}");
    }
    // A part of it, and from one moment to another over what is there.
    let back = Tree::new(&[]);
    restore(&user, TO, &back, &["--at", &moments[1].0, "--path", "d3"], 0);
    let part = |all: &BTreeMap<String, _>| -> Vec<String> {
        all.iter().filter(|(key, _)| key.starts_with("d3/")).map(|(key, _)| key.clone()).collect()
    };
    assert_eq!(back.expected("").into_keys().collect::<Vec<_>>(), part(&moments[1].1));
    let over = ["--overwrite", "always", "--delete", "--max-delete", "off"];
    for (at, expected) in moments.iter().rev() {
        restore(&user, TO, &back, &[&["--at", at.as_str()], &over[..]].concat(), 0);
        assert_eq!(back.expected(""), *expected, "over what is there, {at}");
    }
}

fn paths(said: &Said) -> Vec<String> {
    assert_eq!(said.code, 0, "{said:?}");
    let path = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["path"].as_str().unwrap().to_owned()
    };
    said.stdout.lines().map(path).collect()
}

#[test]
fn every_generation_comes_back_from_the_embedded_store() {
    five_generations(&Scene::new(&[]).server.reach);
}

#[test]
fn every_generation_comes_back_from_moto() {
    five_generations(&moto().reach);
}

#[test]
fn a_bucket_without_versions_says_so() {
    let scene = Scene::with_files(2);
    scene.sync(&[], 0);
    let back = Tree::new(&[]);
    let words = "error: s3://bucket/p/ keeps no versions, so nothing is known of how it was before";
    let said = restore(&scene.user, TO, &back, &["--at", "1 second ago"], 4);
    assert!(said.stderr.contains(words) && said.stderr.contains("hint: leave --at out"));
    let said = scene.user.run(&["ls", TO, "--at", "1 second ago"]);
    assert_eq!((said.code, said.stdout.as_str()), (4, ""), "{said:?}");
    assert!(said.stderr.contains(words) && said.stderr.contains("hint: leave --at out"));
    assert!(back.expected("").is_empty());
    let said = scene.user.run(&["ls", TO, "--at", "yesterday"]);
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("write a time such as 2026-11-01T12:00Z"), "{said:?}");
}

#[test]
fn before_there_was_anything_is_no_empty_backup() {
    let scene = Scene::with_files(2);
    keep_versions(&scene.bucket, BucketVersioningStatus::Enabled);
    scene.sync(&[], 0);
    let back = Tree::new(&[]);
    let said = restore(&scene.user, TO, &back, &["--at", "2 days ago"], 4);
    assert!(said.stderr.contains("s3://bucket/p/ had nothing in it at that moment"), "{said:?}");
    let said = restore(&scene.user, TO, &back, &["--at", "2 days ago", "--path", "f/1"], 4);
    assert!(said.stderr.contains("s3://bucket/p/ had no f/1 at that moment"), "{said:?}");
}

/// While versions are suspended there is one version without a name, and it is replaced.
#[test]
fn versions_that_were_suspended() {
    let scene = Scene::new(&[]);
    let put = |body: &[u8]| scene.bucket.put("p/a", body);
    put(b"unversioned");
    let first = moment();
    keep_versions(&scene.bucket, BucketVersioningStatus::Enabled);
    put(b"version");
    let second = moment();
    keep_versions(&scene.bucket, BucketVersioningStatus::Suspended);
    let content = |at: &str, code: i32| {
        let back = Tree::new(&[]);
        restore(&scene.user, TO, &back, &["--at", at], code);
        std::fs::read_to_string(back.path("a")).unwrap_or_default()
    };
    assert_eq!((content(&first, 0), content(&second, 0)), ("unversioned".into(), "version".into()));
    put(b"suspended");
    let third = moment();
    assert_eq!(content(&first, 4), "", "it was replaced");
    assert_eq!((content(&second, 0), content(&third, 0)), ("version".into(), "suspended".into()));
    scene.bucket.delete("p/a");
    let fourth = moment();
    assert_eq!((content(&second, 0), content(&fourth, 4)), ("version".into(), String::new()));
}

fn tag(scene: &Scene, key: &str, tags: &[(&str, &str)]) {
    let tags = tags.iter().map(|(k, v)| Tag::builder().key(*k).value(*v).build().unwrap());
    let tagging = Tagging::builder().set_tag_set(Some(tags.collect())).build().unwrap();
    let put = scene.bucket.client.put_object_tagging().bucket("bucket").key(format!("p/{key}"));
    scene.bucket.run(put.tagging(tagging).send()).unwrap();
}

#[test]
fn what_is_tagged_as_deleted_is_left_out() {
    let scene = Scene::new(&[("a", b"1"), ("b", b"2"), ("c", b"3"), ("d/e", b"4"), ("f", b"5")]);
    std::fs::create_dir(scene.tree.path("empty")).unwrap();
    keep_versions(&scene.bucket, BucketVersioningStatus::Enabled);
    let policy = ["--deletions", "tag"];
    scene.sync(&policy, 0);
    scene.tree.remove("a");
    scene.tree.remove("d");
    scene.tree.remove("empty");
    assert_eq!(scene.sync(&policy, 0).number("tagged"), 2, "files; and a marker");
    let soon = Timestamp::new(now_s() + 3600, 0).unwrap();
    let soon = soon.strftime("%Y-%m-%dT%H:%M").to_string();
    // Others tag too: later, at no time that can be read, and with other things.
    tag(&scene, "b", &[("Deleted", "True"), ("DeletedAt", &soon)]);
    tag(&scene, "c", &[("Deleted", "True")]);
    tag(&scene, "f", &[("Deleted", "no"), ("project", "x")]);

    let back = Tree::new(&[("a", b"here"), ("z", b"here")]);
    let delete = ["--delete"];
    let said = restore(&scene.user, TO, &back, &delete, 0);
    assert_eq!((said.number("left_out"), said.number("deleted")), (5, 2), "{said:?}");
    assert_eq!(back.expected("").into_keys().collect::<Vec<_>>(), ["f"]);

    // A minute begins before what happened in it.
    let now = Timestamp::new(now_s() + 1, 0).unwrap().to_string();
    let back = Tree::new(&[]);
    let said = restore(&scene.user, TO, &back, &["--at", &now], 0);
    assert_eq!(said.number("left_out"), 4, "{said:?}");
    assert_eq!(back.expected("").into_keys().collect::<Vec<_>>(), ["b", "f"]);
}

#[test]
fn a_server_without_tags_has_nothing_that_is_tagged() {
    let scene = Scene::with_files(3);
    scene.sync(&[], 0);
    tag(&scene, "f/1", &[("Deleted", "True")]);
    scene.server.rule(|seen| match seen.query.contains("tagging") {
        true => Fault::Error(501, "NotImplemented"),
        false => Fault::Pass,
    });
    let back = Tree::new(&[]);
    assert_eq!(restore(&scene.user, TO, &back, &[], 0).number("downloaded"), 3);
}

#[test]
fn ls_shows_what_is_there() {
    let scene = Scene::new(&[("a", b"12345"), ("d/new\nline", b"1"), ("d/x", b"")]);
    std::fs::create_dir(scene.tree.path("empty")).unwrap();
    keep_versions(&scene.bucket, BucketVersioningStatus::Enabled);
    scene.sync(&[], 0);
    let run = |more: &[&str]| {
        let said = scene.user.run(&[&["ls", TO], more].concat());
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{more:?}: {said:?}");
        said
    };
    let rows = |said: &Said| -> Vec<Vec<String>> {
        said.stdout.lines().map(|l| l.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let plain = run(&[]);
    let columns: Vec<_> = rows(&plain).iter().map(|r| (r[2].clone(), r[3].clone())).collect();
    let expected = [("5", "a"), ("1", "d/new\\nline"), ("0", "d/x"), ("0", "empty/")];
    assert_eq!(columns, expected.map(|(size, path)| (size.to_owned(), path.to_owned())));
    let when = format!("{}T{}", rows(&plain)[0][0], rows(&plain)[0][1]);
    let when: jiff::civil::DateTime = when.parse().unwrap();
    let when = when.to_zoned(jiff::tz::TimeZone::system()).unwrap().timestamp().as_second();
    assert!((now_s() - when).abs() < 60, "{plain:?}");

    assert_eq!(paths(&run(&["--json", "--path", "d"])), ["d/new\\nline", "d/x"]);
    assert_eq!(paths(&run(&["--json", "--path", "d/x"])), ["d/x"]);
    let first: Value =
        serde_json::from_str(run(&["--json"]).stdout.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["path"], &first["key"], &first["size"]),
        (&"a".into(), &"a".into(), &5.into())
    );
    assert!((now_s() - first["modified_ms"].as_i64().unwrap() / 1000).abs() < 60);

    moment();
    scene.tree.remove("a");
    scene.tree.write("d/x", b"xyz");
    scene.sync(&[], 0);
    let versions = rows(&run(&["--versions"]));
    let shown: Vec<_> = versions.iter().map(|r| (r[2].as_str(), r[4].as_str())).collect();
    let expected = [
        ("deleted", "a"),
        ("5", "a"),
        ("1", "d/new\\nline"),
        ("3", "d/x"),
        ("0", "d/x"),
        ("0", "empty/"),
    ];
    assert_eq!(shown, expected);
    let lines = run(&["--versions", "--json", "--path", "a"]).stdout;
    let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let fields = |v: &Value| (v["deleted"].clone(), v["latest"].clone(), v["size"].clone());
    assert_eq!(fields(&lines[0]), (true.into(), true.into(), Value::Null));
    assert_eq!(fields(&lines[1]), (false.into(), false.into(), 5.into()));
    assert_eq!(lines[1]["version"], versions[1][3]);
    assert_eq!(paths(&run(&["--json"])), ["d/new\\nline", "d/x", "empty/"]);
}

#[test]
fn ls_goes_through_all_pages_or_as_far_as_it_is_read() {
    let scene = Scene::new(&[]);
    keep_versions(&scene.bucket, BucketVersioningStatus::Enabled);
    let name = |n: usize| format!("{n:04}-{}", "x".repeat(200));
    (0..2_500).for_each(|n| scene.tree.write(name(n), b""));
    scene.sync(&[], 0);
    for more in [&["--json"][..], &["--json", "--versions"]] {
        let listed = paths(&scene.user.run(&[&["ls", TO], more].concat()));
        assert!(listed.iter().enumerate().all(|(n, path)| *path == name(n)), "{more:?}");
        assert_eq!(listed.len(), 2_500);
    }
    for (more, request) in [(&[][..], "ListObjectsV2"), (&["--versions"], "ListObjectVersions")] {
        scene.server.clear_log();
        let mut command = scene.user.command(&[&["ls", TO], more].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        drop(out);
        let said = child.wait_with_output().unwrap();
        assert_eq!((said.status.code(), said.stderr.as_slice()), (Some(0), &b""[..]));
        assert_eq!(scene.server.count(request), 1, "nobody read more than a line");
    }
    // One file far down is not looked for from the beginning.
    scene.server.clear_log();
    let far = name(2_400);
    let at = Timestamp::new(now_s() + 1, 0).unwrap().to_string();
    assert_eq!(paths(&scene.user.run(&["ls", TO, "--json", "--path", &far, "--at", &at])), [far]);
    assert_eq!(scene.server.count("ListObjectVersions"), 1);
}

#[test]
fn ls_says_what_is_wrong() {
    let scene = Scene::with_files(1);
    scene.sync(&[], 0);
    let run = |args: &[&str], code: i32, words: &[&str]| {
        let said = scene.user.run(&[&["ls"], args].concat());
        assert_eq!((said.code, said.stdout.as_str()), (code, ""), "{args:?}: {said:?}");
        for word in words {
            assert!(said.stderr.contains(word), "{args:?}: {word:?} is not in:\n{}", said.stderr);
        }
    };
    run(&["s3://nobody"], 4, &["error: ", "nobody", "caused by: NoSuchBucket", "hint: "]);
    run(&["here"], 2, &["\"here\" is not a destination"]);
    run(&["default"], 2, &["`default` does not say which bucket", "hint: name it"]);
    run(&["file:///not/there"], 4, &["there is no store in /not/there"]);
    run(&["s3://bucket/q"], 4, &["error: there is nothing in s3://bucket/q/", "hint: "]);
    run(&[TO, "--path", "g"], 4, &["error: s3://bucket/p/ has no g", "hint: "]);
    run(&[TO, "--path", "../g"], 2, &["--path ../g is no path below the backup", "hint: "]);
    run(&[TO, "--versions", "--path", "g"], 4, &["error: s3://bucket/p/ has no g"]);
    run(&[TO, "--versions", "--at", "1 day ago"], 2, &["cannot be used with"]);
    run(&[TO, "--endpoint-url", "http://127.0.0.1:1"], 5, &["error: cannot list", "hint: "]);
}

#[test]
fn garage_has_no_other_moments() {
    let server = garage();
    let (user, bucket) = (User::of(&server.reach), Bucket::create(&server.reach, "bucket"));
    bucket.put("p/a", b"1");
    let back = Tree::new(&[]);
    let said = restore(&user, TO, &back, &["--at", "1 hour ago"], 4);
    assert!(said.stderr.contains("keeps no versions"), "{said:?}");
    assert_eq!(restore(&user, TO, &back, &[], 0).number("verified"), 1);
}
