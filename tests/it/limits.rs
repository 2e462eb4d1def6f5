//! What the kernel does not tell the watcher: the bucket equals the tree all the same, and a person
//! is told why it took longer.

use std::process::Command;
use std::time::Duration;

use keepwatch::model::Md5;

use crate::support::program::Daemon;
use crate::support::scene::Scene;
use crate::support::{wait_at_most, wait_for};

/// Whether names, sizes and contents are the tree's, by a listing: cheap for many files.
fn lists_the_tree(scene: &Scene) -> bool {
    let expected = scene.tree.expected("p/").into_iter();
    let expected = expected
        .map(|(key, (body, _))| (key, (body.len() as u64, Md5::of(&body).to_string())))
        .collect();
    scene.bucket.listed() == expected
}

#[test]
fn the_watchers_queue_overflows() {
    let scene = Scene::new(&[("kept", b"kept"), ("old/file", b"old"), ("old/gone", b"gone")]);
    (0..50).for_each(|n| scene.tree.write(format!("many{n}/first"), b""));
    let daemon = scene.follow(&[]);
    daemon.signal("STOP");
    // More events than the queue holds, and after those, changes that make no event any more.
    for n in 0..20_000 {
        scene.tree.write(format!("many{}/{n}", n % 50), format!("{n}").as_bytes());
    }
    scene.tree.write("new/folder/file", b"new");
    scene.tree.write("old/file", b"changed");
    scene.tree.remove("old/gone");
    std::fs::rename(scene.tree.path("kept"), scene.tree.path("moved")).unwrap();
    daemon.signal("CONT");
    wait_for("the overflow to be told", || daemon.backup()["overflows"].as_u64() >= Some(1));
    let told = "the watcher's queue overflowed: looking at everything";
    assert!(daemon.log().contains(told), "{}", daemon.log());
    let said = scene.user.run(&["status"]).stdout;
    assert!(said.contains("overflow of the watcher's queue"), "{said}");
    let sent = &mut || scene.server.count("PutObject") > 20_000;
    wait_at_most(Duration::from_secs(180), "the files to be sent", sent);
    let right = &mut || daemon.backup()["condition"] == "up-to-date" && lists_the_tree(&scene);
    wait_at_most(Duration::from_secs(180), "the bucket to equal the tree", right);

    // The watcher is as good as new: what was made unseen is watched, and no pass is needed.
    let passes = daemon.backup()["last_pass_ms"].clone();
    scene.tree.write("new/folder/file", b"seen");
    scene.tree.write("many7/another", b"seen too");
    wait_for("what changes now", || {
        let body = |key: &str| scene.get(key).map(|seen| seen.body);
        body("new/folder/file") == Some(b"seen".to_vec()) && scene.has("many7/another")
    });
    let status = daemon.backup();
    let drift = status["last_pass_ms"].as_i64().unwrap() - passes.as_i64().unwrap();
    assert!(drift.abs() < 10, "no further pass: {passes}, then {status}");
    assert_eq!(status["watcher"], "full");
}

/// A namespace of one's own has limits of its own, which may be lowered.
fn with_limit(scene: Scene, name: &str, limit: u32) -> Scene {
    let lower = format!("echo {limit} > /proc/sys/user/{name} && exec \"$0\" \"$@\"");
    scene.by(|user| user.wrapped(&["unshare", "-Ur", "sh", "-c", &lower]))
}

fn raise_limit(daemon: &Daemon<'_>, name: &str) {
    let raise = format!("echo 100000 > /proc/sys/user/{name}");
    let mut command = Command::new("nsenter");
    command.args(["-U", "--preserve-credentials", "-t", &daemon.pid().to_string()]);
    assert!(command.args(["sh", "-c", &raise]).status().unwrap().success());
}

/// Changes in every folder, watched or not, are found by passes.
fn changes_are_found(scene: &Scene) {
    for round in 0..2 {
        for n in 0..40 {
            scene.tree.write(format!("folder{n}/file"), format!("{round} {n}").as_bytes());
        }
        scene.tree.write(format!("folder{round}/new/file"), b"new");
        scene.tree.remove(&format!("folder{}", 38 + round));
        wait_for("the bucket to equal the tree", || lists_the_tree(scene));
    }
}

fn with_folders() -> Scene {
    let scene = Scene::new(&[]);
    (0..40).for_each(|n| scene.tree.write(format!("folder{n}/file"), b"first"));
    scene
}

#[test]
fn some_folders_cannot_be_watched() {
    let scene = with_limit(with_folders(), "max_inotify_watches", 11);
    let daemon = scene.follow(&["--rescan", "1s"]);
    wait_for("the sight to be told", || daemon.backup()["watcher"] == "partial");
    let message = daemon.backup()["watcher_message"].as_str().unwrap().to_owned();
    for words in ["watching 11 of 41 folders", "fs.inotify.max_user_watches", "sysctl -w"] {
        assert!(message.contains(words), "{message}");
    }
    assert!(scene.user.run(&["status"]).stdout.contains(&message));
    changes_are_found(&scene);
    assert!(daemon.backup()["missed"].as_u64() > Some(0), "{}", daemon.backup());
    assert_eq!(daemon.log().matches("sysctl").count(), 1, "told once: {}", daemon.log());

    raise_limit(&daemon, "max_inotify_watches");
    wait_for("every folder to be watched", || daemon.backup()["watcher"] == "full");
    assert!(daemon.log().contains("every folder is watched again"), "{}", daemon.log());
    assert_eq!(daemon.backup()["watcher_message"], serde_json::Value::Null);
}

#[test]
fn no_folder_can_be_watched() {
    let scene = with_limit(with_folders(), "max_inotify_instances", 0);
    let daemon = scene.follow(&["--rescan", "1s"]);
    wait_for("the sight to be told", || daemon.backup()["watcher"] == "none");
    let message = daemon.backup()["watcher_message"].as_str().unwrap().to_owned();
    for words in ["no folder is watched", "fs.inotify.max_user_instances", "sysctl -w"] {
        assert!(message.contains(words), "{message}");
    }
    changes_are_found(&scene);
    assert_eq!(daemon.log().matches("sysctl").count(), 1, "told once: {}", daemon.log());
    raise_limit(&daemon, "max_inotify_instances");
    wait_for("every folder to be watched", || daemon.backup()["watcher"] == "full");
}
