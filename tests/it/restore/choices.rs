//! What takes part in a restore, and what happens to what is there already.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::Value;

use crate::support::program::Said;
use crate::support::scene::{Scene, TO};
use crate::support::server::Fault;
use crate::support::wait_for;

use super::round_trip::{again, restore, set_mtime};
use super::same::{differences, seen};

/// Paths of the files below, in order.
fn files(root: &Path) -> Vec<String> {
    let seen = seen(root).into_iter().filter(|(_, seen)| seen.content.is_some());
    seen.map(|(name, _)| String::from_utf8(name).unwrap()).collect()
}

fn planned(said: &Said, action: &str) -> BTreeSet<String> {
    let lines = said.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter(|line| line["action"] == action)
        .map(|line| line["path"].as_str().unwrap().to_owned())
        .collect()
}

fn photos() -> Scene {
    let scene = Scene::new(&[
        ("a.txt", b"1"),
        ("photos", b""),
        ("photo/2025/x.jpg", b"22"),
        ("photo/2026/y.jpg", b"333"),
        ("photo/2026/y.tmp", b"4444"),
        ("photo/2026/deep/z.jpg", b"55555"),
        ("photo.txt", b"666666"),
        ("photo-old/w.jpg", b"7777777"),
        ("tmp/v.jpg", b"88888888"),
    ]);
    fs::create_dir(scene.tree.path("photo/2026/empty")).unwrap();
    scene.sync(&[], 0);
    scene
}

#[test]
fn a_part_is_restored() {
    let scene = photos();
    for (more, expected) in [
        (&["--path", "photo/2026"][..], &["deep/z.jpg", "y.jpg", "y.tmp"][..]),
        (&["--path", "photo/2026/"], &["deep/z.jpg", "y.jpg", "y.tmp"]),
        (&["--path", "photo/2026/y.jpg"], &["y.jpg"]),
        (&["--path", "photo/2026", "--exclude", "*.tmp"], &["deep/z.jpg", "y.jpg"]),
        (&["--path", "photo/2026", "--include", "deep/"], &["deep/z.jpg"]),
        (&["--include", "/photo/2026/*.jpg"], &["y.jpg"]),
    ] {
        let back = restore(&scene.user, TO, more, 0);
        let expected: Vec<String> = expected.iter().map(|n| format!("photo/2026/{n}")).collect();
        assert_eq!(files(&back.path()), expected, "{more:?}");
        assert_eq!(back.said.number("downloaded"), expected.len() as u64, "{more:?}");
        let bytes: u64 =
            expected.iter().map(|n| scene.tree.path(n).metadata().unwrap().len()).sum();
        assert_eq!(back.said.number("downloaded_bytes"), bytes, "{more:?}");
    }
    let back = restore(&scene.user, TO, &["--exclude", "tmp/", "--exclude", "/photo*"], 0);
    assert_eq!(files(&back.path()), ["a.txt"]);
    assert!(!back.path().join("photo").exists());
    let back = restore(&scene.user, TO, &["--path", "photo"], 0);
    assert!(back.path().join("photo/2026/empty").is_dir());
    assert_eq!(files(&back.path()).len(), 4);
    // A path that is typed wrong is not an empty success.
    let back = restore(&scene.user, TO, &["--path", "photo/2027"], 4);
    assert!(back.said.stderr.contains("has no photo/2027"), "{:?}", back.said);
    let back = restore(&scene.user, TO, &["--path", "../photo"], 2);
    assert!(back.said.stderr.contains("is no path below the backup"), "{:?}", back.said);
}

#[test]
fn what_matches_nothing_is_no_success() {
    let scene = photos();
    for more in [
        &["--include", "*.jpeg"][..],
        &["--include", "photo/2027/", "--include", "*.jpeg"],
        &["--exclude", "*"],
        &["--path", "photo/2026", "--include", "/y.jpg"],
        &["--include", "*.jpeg", "--dry-run"],
    ] {
        let back = restore(&scene.user, TO, more, 4);
        assert!(back.said.stderr.contains("and none of them is chosen"), "{:?}", back.said);
        assert!(back.said.stderr.contains("hint: check --include and --exclude"));
        assert!(!back.path().exists());
    }
    // One of two that is typed wrong.
    let back = restore(&scene.user, TO, &["--include", "*.tmp", "--include", "*.jpeg"], 3);
    assert_eq!(files(&back.path()), ["photo/2026/y.tmp"]);
    let words = "skipped: --include *.jpeg: it matches nothing in the backup";
    assert!(back.said.stderr.contains(words), "{:?}", back.said);
    assert_eq!(back.said.json()["result"], "warnings");

    // The same of a listing.
    for (place, words) in [
        ("s3://bucket/q", "there is nothing in s3://bucket/q/"),
        ("s3://bucket/p/photos-2027", "there is nothing in s3://bucket/p/photos-2027/"),
    ] {
        for more in [&[][..], &["--versions"], &["--json"]] {
            let said = scene.user.run(&[&["ls", place], more].concat());
            assert_eq!((said.code, said.stdout.as_str()), (4, ""), "{said:?}");
            assert!(said.stderr.contains(words) && said.stderr.contains("hint: "), "{said:?}");
        }
    }
    // A backup of nothing is one all the same.
    let empty = tempfile::tempdir().unwrap();
    scene.user.sync(empty.path(), "s3://bucket/empty", &[], 0);
    let said = scene.user.run(&["ls", "s3://bucket/empty"]);
    assert_eq!((said.code, said.stdout.as_str()), (0, ""), "{said:?}");
}

#[test]
fn a_dry_run_tells_and_writes_nothing() {
    let scene = photos();
    scene.server.clear_log();
    let back = restore(&scene.user, TO, &["--dry-run", "--exclude", "*.tmp"], 0);
    assert!(!back.path().exists(), "nothing is written");
    let mut expected: BTreeSet<String> = files(scene.tree.folder.path()).into_iter().collect();
    expected.remove("photo/2026/y.tmp");
    expected.insert("photo/2026/empty/".to_owned());
    assert_eq!(planned(&back.said, "fetch"), expected);
    let numbers = ["downloaded", "downloaded_bytes", "folders"].map(|n| back.said.number(n));
    assert_eq!(numbers, [8, 1 + 2 + 3 + 5 + 6 + 7 + 8, 1], "{:?}", back.said);
    assert_eq!(scene.server.count("GetObject"), 0, "nothing is fetched");
    // For a person: each path, and the sum.
    let target = back.path();
    let said = scene.user.run(&["restore", TO, target.to_str().unwrap(), "-n"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("a.txt"), "{said:?}");
    let last = said.stdout.lines().last().unwrap_or_default();
    assert!(last.starts_with("would restore 9 files (36 B), 1 folder in "), "{said:?}");

    // What is right already is left out of it.
    again(&scene.user, TO, &target, &["--path", "photo"], 0);
    fs::write(target.join("photo/2025/x.jpg"), b"another").unwrap();
    fs::write(target.join("stranger"), b"not in the backup").unwrap();
    let before = seen(&target);
    let more = ["--dry-run", "--overwrite", "always", "--delete"];
    let said = again(&scene.user, TO, &target, &more, 0);
    assert_eq!((said.number("downloaded"), said.number("unchanged")), (6, 3), "{said:?}");
    assert!(planned(&said, "fetch").contains("photo/2025/x.jpg"));
    assert_eq!(planned(&said, "delete"), BTreeSet::from(["stranger".to_owned()]));
    assert_eq!(said.number("deleted"), 1);
    assert!(seen(&target) == before, "nothing is written");
}

const KEPT_SECS: i64 = 1_700_000_000;

/// A file as it is here: content, and seconds between its time and that of the backup.
type Here = (&'static str, &'static [u8], i64);

/// All of these say `backup` there.
const HERE: [Here; 9] = [
    ("longer, newer", b"written here", 10),
    ("longer, older", b"written here", -10),
    ("longer, at once", b"written here", 0),
    ("other, newer", b"BACKUP", 10),
    ("other, older", b"BACKUP", -10),
    ("other, put back", b"BACKUP", 0),
    ("same, newer", b"backup", 10),
    ("same, older", b"backup", -10),
    ("same, at once", b"backup", 0),
];

/// What came of one restore over all of that.
struct Overwritten {
    /// Names whose content is the backup's now, and was not before.
    contents: Vec<&'static str>,
    /// The same of their times.
    times: Vec<&'static str>,
    /// Names that were told to be kept.
    kept: Vec<&'static str>,
    /// Downloaded, retouched, unchanged.
    numbers: [u64; 3],
}

fn overwritten(scene: &Scene, overwrite: &[&str]) -> Overwritten {
    let folder = tempfile::tempdir().unwrap();
    for (name, content, seconds) in HERE {
        fs::write(folder.path().join(name), content).unwrap();
        set_mtime(&folder.path().join(name), KEPT_SECS + seconds, 5);
    }
    let said = again(&scene.user, TO, folder.path(), overwrite, 0);
    assert_eq!(fs::read(folder.path().join("absent")).unwrap(), b"backup");
    let (mut contents, mut times, mut kept) = (vec![], vec![], vec![]);
    for (name, content, seconds) in HERE {
        let path = folder.path().join(name);
        let (now, mtime) = (fs::read(&path).unwrap(), path.metadata().unwrap().mtime());
        match now == b"backup" {
            true if content != b"backup" => contents.push(name),
            true => {}
            false => assert_eq!(now, content, "{name}"),
        }
        match mtime == KEPT_SECS {
            true if seconds != 0 => times.push(name),
            true => {}
            false => assert_eq!(mtime, KEPT_SECS + seconds, "{name}"),
        }
        let is_told = said.stderr.contains(&format!("kept: {name}: "));
        kept.extend(is_told.then_some(name));
    }
    assert_eq!(said.number("kept"), kept.len() as u64, "{said:?}");
    let numbers = ["downloaded", "retouched", "unchanged"].map(|name| said.number(name));
    Overwritten { contents, times, kept, numbers }
}

#[test]
fn what_is_here_is_overwritten_as_asked() {
    let scene = Scene::new(&[("absent", b"backup")]);
    for (name, ..) in HERE {
        scene.tree.write(name, b"backup");
        set_mtime(&scene.tree.path(name), KEPT_SECS, 5);
    }
    scene.sync(&[], 0);
    let different = ["longer, newer", "longer, older", "longer, at once", "other, newer"];
    let at_other_times = ["longer, newer", "longer, older", "other, newer", "other, older"];

    let done = overwritten(&scene, &["--overwrite", "always"]);
    assert_eq!(done.contents, [&different[..], &["other, older", "other, put back"]].concat());
    assert_eq!(done.times, [&at_other_times[..], &["same, newer", "same, older"]].concat());
    assert_eq!((done.numbers, done.kept), ([7, 2, 3], vec![]));

    // A time that was put back hides what was written.
    let done = overwritten(&scene, &["--overwrite", "if-changed"]);
    assert_eq!(done.contents, [&different[..], &["other, older"]].concat());
    assert_eq!(done.times, [&at_other_times[..], &["same, newer", "same, older"]].concat());
    assert_eq!((done.numbers, done.kept), ([6, 2, 4], vec![]));

    // A file that is newer than the backup is kept, with its time, and named.
    for more in [&["--overwrite", "if-newer"][..], &[]] {
        let done = overwritten(&scene, more);
        assert_eq!(done.contents, ["longer, older", "longer, at once", "other, older"]);
        assert_eq!(done.times, ["longer, older", "other, older", "same, older"]);
        assert_eq!((done.numbers, done.kept), ([4, 1, 4], vec!["longer, newer", "other, newer"]));
    }

    let done = overwritten(&scene, &["--overwrite", "never"]);
    assert_eq!((done.contents, done.times), (vec![], vec![]));
    // Without a look at the content, right is what has size and time of the backup.
    let kept = HERE.map(|(name, ..)| name).into_iter();
    let kept = kept.filter(|name| !["other, put back", "same, at once"].contains(name));
    assert_eq!((done.numbers, done.kept), ([1, 0, 2], kept.collect()));
}

#[test]
fn a_restore_that_was_cut_short_goes_on() {
    let scene = Scene::with_files(40);
    scene.sync(&[], 0);
    for signal in ["INT", "KILL"] {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        // The last ten never come.
        scene.server.rule(|seen| match seen.method == "GET" && seen.path.contains("/p/f/3") {
            true => Fault::Hang,
            false => Fault::Pass,
        });
        scene.server.clear_log();
        let command = scene.user.command(&["restore", TO, target.to_str().unwrap()]);
        let running = scene.user.spawn(command);
        let here = || fs::read_dir(target.join("f")).map_or(0, Iterator::count);
        wait_for("the files that come", || here() == 29);
        running.signal(signal);
        let code = running.wait();
        assert_eq!(code, if signal == "INT" { 130 } else { -1 });
        assert_eq!(here(), 29, "nothing half");
        assert_eq!(target.join(".keepwatch").exists(), signal == "KILL");

        scene.server.no_rule();
        scene.server.clear_log();
        let said = again(&scene.user, TO, &target, &[], 0);
        assert_eq!((said.number("downloaded"), said.number("unchanged")), (11, 29), "{said:?}");
        assert_eq!(scene.server.count("GetObject"), 11);
        assert_eq!(differences(scene.tree.folder.path(), &target), [""; 0]);
    }
}

#[test]
fn a_small_file_costs_one_request() {
    let scene = Scene::with_files(50);
    scene.sync(&[], 0);
    scene.server.clear_log();
    let back = restore(&scene.user, TO, &[], 0);
    assert_eq!(differences(scene.tree.folder.path(), &back.path()), [""; 0]);
    assert_eq!(scene.server.count("GetObject"), 50);
    // Beside these: the objects are listed to say how many there are, and again to fetch them.
    let counts = ["requests.get", "requests.list", "requests.head"].map(|n| back.said.number(n));
    assert_eq!(counts, [50, 2, 0], "{:?}", back.said);
    assert!(scene.server.log().len() <= 53, "{:?}", scene.server.log());
}

#[test]
fn in_place_nothing_is_taken_from_what_is_right() {
    let scene = Scene::new(&[("tool", b"x"), ("team/y", b"y")]);
    scene.tree.chmod("tool", 0o4755);
    scene.tree.chmod("team", 0o2775);
    scene.sync(&[], 0);
    let said = scene.user.run(&["restore", TO, scene.source(), "--json"]);
    assert_eq!((said.code, said.number("retouched")), (0, 0), "{said:?}");
    scene.is_settled(0);
}

#[test]
fn places_that_are_none_are_refused_with_the_next_step() {
    let scene = Scene::with_files(2);
    scene.sync(&[], 0);
    let dangling = scene.user.home.path().join("link");
    std::os::unix::fs::symlink("/not/there", &dangling).unwrap();
    let said = again(&scene.user, TO, &dangling, &[], 4);
    assert!(said.stderr.contains("is a link to nothing"), "{said:?}");
    assert!(dangling.is_symlink());

    let state = scene.user.state_folder();
    let through = scene.user.home.path().join("through");
    std::os::unix::fs::symlink(&state, &through).unwrap();
    let names =
        || fs::read_dir(&state).unwrap().map(|e| e.unwrap().file_name()).collect::<BTreeSet<_>>();
    let before = names();
    for target in [state.join("back"), state.clone(), through.join("back")] {
        let said = again(&scene.user, TO, &target, &[], 4);
        assert!(said.stderr.contains("is in the state folder"), "{said:?}");
    }
    assert_eq!(names(), before);
    scene.sync(&[], 0);
}

#[test]
fn a_key_that_is_quoted_in_another_way_is_not_taken_for_extra() {
    let scene = Scene::with_files(6);
    // Our own key for this file sorts between the foreign one and ours for the foreign one's file.
    scene.tree.write("\u{201b}\u{3044}", b"ours");
    scene.sync(&[], 0);
    scene.bucket.put("p/\u{201b}\u{3042}", b"foreign");
    scene.bucket.put("p/\u{201b}\u{3042}d/x", b"foreign");
    let back = restore(&scene.user, TO, &["--delete"], 0);
    assert_eq!(back.said.number("deleted"), 0, "{:?}", back.said);
    for name in ["\u{201b}\u{3042}", "\u{201b}\u{3042}d/x"] {
        assert_eq!(fs::read(back.path().join(name)).unwrap(), b"foreign");
    }
    fs::write(back.path().join("extra"), b"").unwrap();
    let said = again(&scene.user, TO, &back.path(), &["--delete"], 0);
    assert_eq!((said.number("deleted"), said.number("downloaded")), (1, 0), "{said:?}");
}
