//! `watch`: what happens in a folder happens in the bucket.

use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant, SystemTime};

use crate::support::stage::Stage;
use crate::support::wait_for;

#[test]
fn files_are_created_edited_deleted_and_made_again() {
    let stage = Stage::new(&[("kept", b"kept"), ("sub/old", b"old")]);
    let daemon = stage.watch(&[]);
    assert!(stage.bucket.get("sub/old").is_some());

    stage.tree.write("sub/new", b"new");
    stage.tree.write("another/deep/folder/file", b"deep");
    stage.settle(&daemon);

    let mut file = File::options().write(true).open(stage.tree.path("sub/old")).unwrap();
    file.write_all(b"OLD and longer").unwrap();
    drop(file);
    stage.settle(&daemon);

    stage.tree.remove("sub/new");
    stage.tree.remove("another");
    stage.settle(&daemon);

    stage.tree.write("sub/new", b"again");
    stage.tree.write("another/deep/folder/file", b"again");
    stage.settle(&daemon);

    // A file becomes a folder, and a folder a file.
    stage.tree.remove("sub/new");
    stage.tree.write("sub/new/inside", b"folder");
    stage.tree.remove("another");
    stage.tree.write("another", b"file");
    stage.settle(&daemon);
    assert_eq!(stage.requests("PutObject", "kept"), 1, "what did not change is sent once");
    let status = daemon.backup();
    assert_eq!((&status["watcher"], &status["missed"]), (&"full".into(), &0.into()), "{status}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn an_atomic_save_deletes_nothing() {
    let stage = Stage::new(&[("letter.txt", b"first")]);
    let daemon = stage.watch(&[]);
    for draft in ["second", "third"] {
        // As editors do it: write beside, then rename over.
        let beside = stage.tree.path(".letter.txt.swp");
        fs::write(&beside, draft).unwrap();
        fs::rename(&beside, stage.tree.path("letter.txt")).unwrap();
        stage.settle(&daemon);
        assert_eq!(stage.bucket.get("letter.txt").unwrap().body, draft.as_bytes());
    }
    // And as others do it: rename the old one away first.
    fs::rename(stage.tree.path("letter.txt"), stage.tree.path("letter.txt~")).unwrap();
    stage.tree.write("letter.txt", b"fourth");
    stage.tree.remove("letter.txt~");
    stage.settle(&daemon);
    assert_eq!(stage.requests("PutObject", "letter.txt"), 4);
    let deletes = stage.server.count("DeleteObject") + stage.server.count("DeleteObjects");
    assert_eq!(deletes, 0, "{:?}", stage.server.log());
    assert_eq!(stage.requests("PutObject", ".letter.txt.swp"), 0);
}

#[test]
fn files_folders_and_trees_move() {
    let stage = Stage::new(&[
        ("a/one", b"1"),
        ("a/sub/two", b"2"),
        ("a/sub/deep/three", b"3"),
        ("single", b"s"),
    ]);
    let outside = tempfile::tempdir_in(stage.tree.folder.path().parent().unwrap()).unwrap();
    let daemon = stage.watch(&[]);
    let rename = |from: &str, to: &str| {
        fs::rename(stage.tree.path(from), stage.tree.path(to)).unwrap();
    };
    rename("single", "renamed");
    rename("a", "b");
    stage.settle(&daemon);
    // What is below a moved folder is watched under its new name.
    stage.tree.write("b/sub/deep/four", b"4");
    stage.tree.write("b/sub/two", b"changed");
    stage.settle(&daemon);

    fs::rename(stage.tree.path("b/sub"), outside.path().join("sub")).unwrap();
    stage.settle(&daemon);
    // What went out of sight is none of our business, and comes back changed.
    fs::write(outside.path().join("sub/two"), "changed outside").unwrap();
    fs::rename(outside.path().join("sub"), stage.tree.path("b/back")).unwrap();
    stage.settle(&daemon);
    stage.tree.write("b/back/deep/five", b"5");
    stage.settle(&daemon);

    // Two folders change places.
    stage.tree.write("c/sub/other", b"other");
    stage.settle(&daemon);
    rename("b", "between");
    rename("c", "b");
    rename("between", "c");
    stage.tree.write("b/sub/more", b"more");
    stage.tree.write("c/back/more", b"more");
    stage.settle(&daemon);
    assert_eq!(daemon.backup()["missed"], 0);
}

/// Random changes of every kind, from a seed.
struct Churn<'a> {
    stage: &'a Stage,
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
        let (path, other) = (self.stage.tree.path(name), self.stage.tree.path(other));
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
    let stage = Stage::new(&[]);
    let outside = tempfile::tempdir_in(stage.tree.folder.path().parent().unwrap()).unwrap();
    let chance = fastrand::Rng::with_seed(seed);
    let mut churn = Churn { stage: &stage, chance, outside, made: 0 };
    for _ in 0..300 {
        churn.step();
    }
    let daemon = stage.watch(&[]);
    for _ in 0..4 {
        for _ in 0..1_000 {
            churn.step();
            if churn.chance.u8(0..20) == 0 {
                std::thread::sleep(Duration::from_millis(churn.chance.u64(0..40)));
            }
        }
        stage.settle(&daemon);
    }
    let status = daemon.backup();
    assert_eq!((&status["failing"], &status["overflows"]), (&0.into(), &0.into()), "{status}");
}

#[test]
fn a_thousand_writes_in_five_seconds_are_few_uploads() {
    let stage = Stage::new(&[("busy", b"")]);
    let daemon = stage.watch(&["--settle", "2s"]);
    stage.server.clear_log();
    let started = Instant::now();
    for n in 1_u32..=1_000 {
        stage.tree.write("busy", format!("write {n}").as_bytes());
        let due = Duration::from_millis(u64::from(n) * 5);
        std::thread::sleep(due.saturating_sub(started.elapsed()));
    }
    stage.settle(&daemon);
    assert_eq!(stage.bucket.get("busy").unwrap().body, b"write 1000");
    let puts = stage.requests("PutObject", "busy");
    assert!((1..=5).contains(&puts), "{puts} PUTs");
}

#[test]
fn a_file_that_is_never_quiet_is_uploaded_every_max_wait() {
    let stage = Stage::new(&[("log", b"")]);
    let daemon = stage.watch(&["--settle", "1500ms", "--max-wait", "3s"]);
    stage.server.clear_log();
    let mut file = File::options().append(true).open(stage.tree.path("log")).unwrap();
    let mut lines = 0;
    // Never quiet for as long as `settle`, so that only `max_wait` can be the reason.
    wait_for("three uploads while the file is being written", || {
        lines += 1;
        writeln!(file, "line {lines}").unwrap();
        stage.requests("PutObject", "log") >= 3
    });
    let body = stage.bucket.get("log").unwrap().body;
    assert!(body.starts_with(b"line 1\nline 2\n") && body.ends_with(b"\n"));
    drop(file);
    stage.settle(&daemon);
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
    let stage = Stage::new(&[("file", b"before")]);
    let path = stage.tree.path("file");
    let old = SystemTime::now() - Duration::from_secs(86_400);
    File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
    let daemon = stage.watch(&[]);
    edit_quietly(&path, b"AFTER!");
    stage.settle(&daemon);
    assert_eq!(stage.bucket.get("file").unwrap().body, b"AFTER!");
    assert_eq!(daemon.stop(), 0);

    // While nothing runs, and found by one pass.
    edit_quietly(&path, b"later!");
    let said = stage.user.sync(stage.tree.folder.path(), "s3://bucket", &[], 0);
    assert_eq!(said.number("uploaded"), 1);
    assert_eq!(stage.bucket.get("file").unwrap().body, b"later!");
}
