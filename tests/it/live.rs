//! `watch`: what happens in a folder happens in the bucket.

use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant, SystemTime};

use crate::support::scene::Scene;
use crate::support::wait_for;

#[test]
fn files_are_created_edited_deleted_and_made_again() {
    let scene = Scene::new(&[("kept", b"kept"), ("sub/old", b"old")]);
    let daemon = scene.follow(&[]);
    assert!(scene.get("sub/old").is_some());

    scene.tree.write("sub/new", b"new");
    scene.tree.write("another/deep/folder/file", b"deep");
    scene.comes_right(&daemon);

    let mut file = File::options().write(true).open(scene.tree.path("sub/old")).unwrap();
    file.write_all(b"OLD and longer").unwrap();
    drop(file);
    scene.comes_right(&daemon);

    scene.tree.remove("sub/new");
    scene.tree.remove("another");
    scene.comes_right(&daemon);

    scene.tree.write("sub/new", b"again");
    scene.tree.write("another/deep/folder/file", b"again");
    scene.comes_right(&daemon);

    // A file becomes a folder, and a folder a file.
    scene.tree.remove("sub/new");
    scene.tree.write("sub/new/inside", b"folder");
    scene.tree.remove("another");
    scene.tree.write("another", b"file");
    scene.comes_right(&daemon);
    assert_eq!(scene.requests("PutObject", "kept"), 1, "what did not change is sent once");
    let status = daemon.backup();
    assert_eq!((&status["watcher"], &status["missed"]), (&"full".into(), &0.into()), "{status}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn an_atomic_save_deletes_nothing() {
    let scene = Scene::new(&[("letter.txt", b"first")]);
    let daemon = scene.follow(&[]);
    for draft in ["second", "third"] {
        // As editors do it: write beside, then rename over.
        let beside = scene.tree.path(".letter.txt.swp");
        fs::write(&beside, draft).unwrap();
        fs::rename(&beside, scene.tree.path("letter.txt")).unwrap();
        scene.comes_right(&daemon);
        assert_eq!(scene.get("letter.txt").unwrap().body, draft.as_bytes());
    }
    // And as others do it: rename the old one away first.
    fs::rename(scene.tree.path("letter.txt"), scene.tree.path("letter.txt~")).unwrap();
    scene.tree.write("letter.txt", b"fourth");
    scene.tree.remove("letter.txt~");
    scene.comes_right(&daemon);
    assert_eq!(scene.requests("PutObject", "letter.txt"), 4);
    let deletes = scene.server.count("DeleteObject") + scene.server.count("DeleteObjects");
    assert_eq!(deletes, 0, "{:?}", scene.server.log());
    assert_eq!(scene.requests("PutObject", ".letter.txt.swp"), 0);
}

#[test]
fn files_folders_and_trees_move() {
    let scene = Scene::new(&[
        ("a/one", b"1"),
        ("a/sub/two", b"2"),
        ("a/sub/deep/three", b"3"),
        ("single", b"s"),
    ]);
    let outside = tempfile::tempdir_in(scene.tree.folder.path().parent().unwrap()).unwrap();
    let daemon = scene.follow(&[]);
    let rename = |from: &str, to: &str| {
        fs::rename(scene.tree.path(from), scene.tree.path(to)).unwrap();
    };
    rename("single", "renamed");
    rename("a", "b");
    scene.comes_right(&daemon);
    // What is below a moved folder is watched under its new name.
    scene.tree.write("b/sub/deep/four", b"4");
    scene.tree.write("b/sub/two", b"changed");
    scene.comes_right(&daemon);

    fs::rename(scene.tree.path("b/sub"), outside.path().join("sub")).unwrap();
    scene.comes_right(&daemon);
    // What went out of sight is none of our business, and comes back changed.
    fs::write(outside.path().join("sub/two"), "changed outside").unwrap();
    fs::rename(outside.path().join("sub"), scene.tree.path("b/back")).unwrap();
    scene.comes_right(&daemon);
    scene.tree.write("b/back/deep/five", b"5");
    scene.comes_right(&daemon);

    // Two folders change places.
    scene.tree.write("c/sub/other", b"other");
    scene.comes_right(&daemon);
    rename("b", "between");
    rename("c", "b");
    rename("between", "c");
    scene.tree.write("b/sub/more", b"more");
    scene.tree.write("c/back/more", b"more");
    scene.comes_right(&daemon);
    assert_eq!(daemon.backup()["missed"], 0);
}

/// Random changes of every kind, from a seed.
struct Churn<'a> {
    scene: &'a Scene,
    chance: fastrand::Rng,
    outside: tempfile::TempDir,
    made: u32,
}

impl Churn<'_> {
    /// One of two hundred names in a few folders, some of which are folders at times.
    fn name(&mut self) -> String {
        let depth = self.chance.usize(0..4);
        let folders: String = (0..depth).map(|_| format!("d{}/", self.chance.u8(0..4))).collect();
        let kind = if self.chance.u8(0..8) == 0 { "d" } else { "f" };
        format!("{folders}{kind}{}", self.chance.u8(0..if kind == "d" { 4 } else { 50 }))
    }

    fn content(&mut self) -> Vec<u8> {
        self.made += 1;
        let mut content = format!("content {} ", self.made).into_bytes();
        content.resize(content.len() + self.chance.usize(0..20_000), b'.');
        content
    }

    /// Much of what is tried is impossible at that moment: that is part of it.
    fn step(&mut self) {
        let (name, other) = (self.name(), self.name());
        let (path, other) = (self.scene.tree.path(name), self.scene.tree.path(other));
        let content = self.content();
        match self.chance.u8(0..16) {
            0..=4 => {
                fs::create_dir_all(path.parent().unwrap()).ok();
                fs::write(path, content).ok();
            }
            5 | 6 => {
                let Ok(mut file) = File::options().read(true).write(true).open(path) else {
                    return;
                };
                let at = self.chance.u64(0..1 + file.metadata().unwrap().len());
                file.seek(std::io::SeekFrom::Start(at)).unwrap();
                file.write_all(&content[..content.len().min(100)]).ok();
            }
            7 | 8 => {
                let beside = path.with_extension("tmp");
                if fs::write(&beside, content).is_ok() && fs::rename(&beside, &path).is_err() {
                    fs::remove_file(beside).unwrap();
                }
            }
            9 | 10 => drop(fs::rename(path, other)),
            11 => {
                let away = self.outside.path().join(format!("{}", self.chance.u8(0..4)));
                match away.exists() {
                    true => fs::rename(away, path).ok(),
                    false => fs::rename(path, away).ok(),
                };
            }
            12 => drop(fs::remove_dir_all(path)),
            13 => drop(fs::create_dir(path)),
            14 => drop(std::os::unix::fs::symlink("somewhere", path)),
            _ => drop(fs::remove_file(path)),
        }
    }
}

#[test]
fn after_any_churn_the_bucket_equals_the_tree() {
    let seed = std::env::var("KEEPWATCH_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("KEEPWATCH_SEED={seed}");
    let scene = Scene::new(&[]);
    let outside = tempfile::tempdir_in(scene.tree.folder.path().parent().unwrap()).unwrap();
    let chance = fastrand::Rng::with_seed(seed);
    let mut churn = Churn { scene: &scene, chance, outside, made: 0 };
    for _ in 0..300 {
        churn.step();
    }
    let daemon = scene.follow(&[]);
    for _ in 0..4 {
        for _ in 0..1_000 {
            churn.step();
            if churn.chance.u8(0..20) == 0 {
                std::thread::sleep(Duration::from_millis(churn.chance.u64(0..40)));
            }
        }
        scene.comes_right(&daemon);
    }
    let status = daemon.backup();
    assert_eq!((&status["failing"], &status["overflows"]), (&0.into(), &0.into()), "{status}");
}

#[test]
fn a_thousand_writes_in_five_seconds_are_few_uploads() {
    let scene = Scene::new(&[("busy", b"")]);
    let daemon = scene.follow(&["--settle", "2s"]);
    scene.server.clear_log();
    let started = Instant::now();
    for n in 1_u32..=1_000 {
        scene.tree.write("busy", format!("write {n}").as_bytes());
        let due = Duration::from_millis(u64::from(n) * 5);
        std::thread::sleep(due.saturating_sub(started.elapsed()));
    }
    scene.comes_right(&daemon);
    assert_eq!(scene.get("busy").unwrap().body, b"write 1000");
    let puts = scene.requests("PutObject", "busy");
    assert!((1..=5).contains(&puts), "{puts} PUTs");
}

#[test]
fn a_file_that_is_never_quiet_is_uploaded_every_max_wait() {
    let scene = Scene::new(&[("log", b"")]);
    let daemon = scene.follow(&["--settle", "1500ms", "--max-wait", "3s"]);
    scene.server.clear_log();
    let mut file = File::options().append(true).open(scene.tree.path("log")).unwrap();
    let mut lines = 0;
    // Never quiet for as long as `settle`, so that only `max_wait` can be the reason.
    wait_for("three uploads while the file is being written", || {
        lines += 1;
        // In one write: a file that is only appended to is sent up to where it was.
        file.write_all(format!("line {lines}\n").as_bytes()).unwrap();
        scene.requests("PutObject", "log") >= 3
    });
    let body = scene.get("log").unwrap().body;
    assert!(body.starts_with(b"line 1\nline 2\n") && body.ends_with(b"\n"));
    drop(file);
    scene.comes_right(&daemon);
}

/// Changes a file so that only its ctime tells.
fn edit_quietly(path: &std::path::Path, content: &[u8]) {
    let before = path.metadata().unwrap();
    assert_eq!(before.len(), content.len() as u64);
    let mut file = File::options().write(true).open(path).unwrap();
    file.write_all(content).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    let after = path.metadata().unwrap();
    assert_eq!((before.mtime(), before.mtime_nsec()), (after.mtime(), after.mtime_nsec()));
}

#[test]
fn a_same_size_edit_with_its_mtime_put_back_is_found() {
    let scene = Scene::new(&[("file", b"before")]);
    let path = scene.tree.path("file");
    let old = SystemTime::now() - Duration::from_secs(86_400);
    File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
    let daemon = scene.follow(&[]);
    edit_quietly(&path, b"AFTER!");
    scene.comes_right(&daemon);
    assert_eq!(scene.get("file").unwrap().body, b"AFTER!");
    assert_eq!(daemon.stop(), 0);

    // While nothing runs, and found by one pass.
    edit_quietly(&path, b"later!");
    let said = scene.sync(&[], 0);
    assert_eq!(said.number("uploaded"), 1);
    assert_eq!(scene.get("file").unwrap().body, b"later!");
}

#[test]
fn what_was_skipped_is_forgiven_when_it_is_all_right() {
    let scene = Scene::new(&[("kept", b"kept"), ("sub/deep/file", b"file")]);
    let daemon = scene.follow(&[]);
    let becomes = |what: &str, paths: u64| {
        wait_for(what, || daemon.backup()["skipped"] == paths);
    };
    let fifo = scene.tree.path("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    becomes("the FIFO to be skipped", 1);
    fs::remove_file(&fifo).unwrap();
    becomes("it to be forgotten", 0);

    let rules = scene.tree.path("sub/.keepwatchignore");
    std::os::unix::fs::symlink("nowhere", &rules).unwrap();
    wait_for("the rules to be missed", || daemon.backup()["unread"] != 0);
    scene.tree.write("sub/deep/file", b"other");
    fs::remove_file(&rules).unwrap();
    becomes("the folder to be looked at again", 0);
    scene.comes_right(&daemon);
    wait_for("all to be well", || daemon.backup()["condition"] == "up-to-date");
}
