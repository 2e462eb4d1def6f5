//! What is said to be in the destination is there: the watermark of a pass, of a daemon, and of
//! what is on record when nothing runs.

use std::process::Command;
use std::time::SystemTime;

use serde_json::Value;

use crate::support::program::User;
use crate::support::scene::Scene;
use crate::support::server::Fault;
use crate::support::wait_for;

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// What is on record of the only backup.
fn recorded(scene: &Scene) -> Value {
    let status = scene.user.run(&["status", "--json"]).json();
    assert_eq!(status["daemon"], false);
    status["backups"][0].clone()
}

fn check(scene: &Scene, max_age: &str) -> i32 {
    scene.user.run(&["status", "--check", "--max-age", max_age]).code
}

#[test]
fn a_sync_proves_what_was_there_when_it_began() {
    let scene = Scene::with_files(3);
    let before = now_ms();
    scene.sync(&[], 0);
    let backup = recorded(&scene);
    let (watermark, pass) = (&backup["watermark_ms"], &backup["last_pass_ms"]);
    let (watermark, pass) = (watermark.as_i64().unwrap(), pass.as_i64().unwrap());
    assert!(before <= watermark && watermark <= pass && pass <= now_ms(), "{before} {backup}");
    assert_eq!((check(&scene, "15m"), check(&scene, "0s")), (0, 6));
    let text = scene.user.run(&["status"]).stdout;
    assert!(text.contains("is in the destination"), "{text}");
    // A run that looks at nothing but what failed proves nothing of the rest.
    scene.tree.write("new", b"1");
    scene.sync(&["--failed-only"], 0);
    scene.sync(&["--dry-run"], 0);
    assert_eq!(recorded(&scene), backup);
}

/// A run with this end does not move the watermark, and one that ends well does.
fn proves_nothing(scene: &Scene, more: &[&str], code: i32) {
    let before = recorded(scene)["watermark_ms"].clone();
    scene.sync(more, code);
    let after = recorded(scene);
    assert_eq!(after["watermark_ms"], before, "{after}");
    assert!(after["last_pass_ms"].as_i64() > before.as_i64(), "{after}");
}

#[test]
fn a_pass_that_leaves_something_out_proves_nothing() {
    let scene = Scene::with_files(3).by(User::bound_by_modes);
    scene.tree.chmod("f/0", 0);
    proves_nothing(&scene, &[], 3);
    assert_eq!(recorded(&scene)["watermark_ms"], Value::Null);
    scene.tree.chmod("f/0", 0o644);
    scene.sync(&[], 0);

    for n in 0..4 {
        scene.tree.write(format!("f/{n}"), b"another");
    }
    scene.server.rule(|seen| match seen.method == "PUT" && seen.path.ends_with("f/1") {
        true => Fault::Error(403, "AccessDenied"),
        false => Fault::Pass,
    });
    proves_nothing(&scene, &[], 1);
    scene.server.no_rule();
    scene.sync(&[], 0);

    scene.tree.remove("f/2");
    proves_nothing(&scene, &["--delete-delay", "1h"], 0);
    proves_nothing(&scene, &["--max-delete", "0%"], 7);
    // With that policy nothing is to be deleted.
    let before = recorded(&scene)["watermark_ms"].clone();
    scene.sync(&["--deletions", "keep"], 0);
    assert!(recorded(&scene)["watermark_ms"].as_i64() > before.as_i64());
    // What can never be backed up is no reason to know nothing.
    assert_eq!(scene.user.run(&["deletions", "discard", "--all"]).code, 0);
    let made = Command::new("mkfifo").arg(scene.tree.path("fifo")).status().unwrap();
    assert!(made.success());
    let before = recorded(&scene)["watermark_ms"].clone();
    scene.sync(&[], 3);
    assert!(recorded(&scene)["watermark_ms"].as_i64() > before.as_i64());
}

#[test]
fn a_daemon_says_nothing_of_what_it_found_at_its_start() {
    let scene = Scene::with_files(2);
    scene.sync(&[], 0);
    let known = recorded(&scene)["watermark_ms"].as_i64().unwrap();
    scene.tree.write("late", b"1");
    scene.server.rule(|seen| match seen.method == "PUT" && seen.path.ends_with("late") {
        true => Fault::Hang,
        false => Fault::Pass,
    });
    let daemon = scene.watch(&["--settle", "50ms"]);
    wait_for("the pass", || daemon.backup()["last_pass_ms"].as_i64() > Some(known + 100));
    wait_for("the backlog", || daemon.backup()["in_flight"] == 1);
    assert_eq!(daemon.backup()["watermark_ms"], known, "as it was before");
    scene.server.no_rule();
    let daemon = {
        daemon.kill();
        scene.follow(&[])
    };
    wait_for("the rest", || daemon.backup()["watermark_ms"].as_i64() > Some(known));
    // A deletion that waits holds it back, and what was known before is still known.
    let known = daemon.backup()["watermark_ms"].as_i64().unwrap();
    assert_eq!(daemon.stop(), 0);
    assert!(recorded(&scene)["watermark_ms"].as_i64() >= Some(known), "a stop keeps it");
}

#[test]
fn a_deletion_that_waits_holds_the_watermark() {
    let scene = Scene::with_files(3);
    let daemon = scene.follow(&["--delete-delay", "1h"]);
    wait_for("the proof", || daemon.backup()["watermark_ms"].is_number());
    let removed = now_ms();
    scene.tree.remove("f/1");
    wait_for("it to be missed", || daemon.backup()["missing"] == 1);
    let known = daemon.backup()["watermark_ms"].as_i64().unwrap();
    // Between the removal and its event nobody knows of it.
    assert!(known <= removed + 1_000, "{known} {removed}");
    daemon.flush();
    assert_eq!(daemon.backup()["watermark_ms"], known);
    scene.tree.write("f/1", b"back");
    daemon.flush();
    wait_for("it to go on", || daemon.backup()["watermark_ms"].as_i64() > Some(removed));
}
