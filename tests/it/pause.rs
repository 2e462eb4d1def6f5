//! A paused backup sends nothing and forgets nothing, until a person lets it go on.

use serde_json::Value;

use crate::support::program::{Daemon, Said};
use crate::support::scene::Scene;
use crate::support::wait_for;

const QUICK: [&str; 2] = ["--settle", "50ms"];

fn run(scene: &Scene, args: &[&str], code: i32) -> Said {
    let said = scene.user.run(args);
    assert_eq!(said.code, code, "{args:?}: {said:?}");
    said
}

/// Requests of any kind, but for those that were on their way.
fn is_silent(scene: &Scene) {
    scene.server.clear_log();
    std::thread::sleep(std::time::Duration::from_millis(700));
    let log = scene.server.log();
    assert!(log.is_empty(), "{log:?}");
}

fn condition(daemon: &Daemon<'_>) -> Value {
    daemon.backup()["condition"].clone()
}

#[test]
fn nothing_is_sent_and_nothing_forgotten() {
    let scene = Scene::new(&[("a", b"1")]);
    let daemon = scene.follow(&QUICK);
    wait_for("the proof", || daemon.backup()["watermark_ms"].is_number());
    let said = run(&scene, &["pause", scene.name()], 0);
    assert_eq!(said.stdout, format!("{}: paused; what changes is remembered\n", scene.name()));
    assert_eq!(condition(&daemon), "paused");
    assert!(run(&scene, &["pause", "--all"], 0).stdout.contains("was paused already"));
    let known = || daemon.backup()["watermark_ms"].as_i64().unwrap();
    scene.tree.write("b", b"2");
    scene.tree.remove("a");
    wait_for("the changes to be seen", || daemon.backup()["dirty"].as_u64() >= Some(2));
    is_silent(&scene);
    let (before, backup) = (known(), daemon.backup());
    assert!(backup["oldest_waiting_ms"].as_u64() > Some(600), "{backup}");
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(known() <= before + 10, "the watermark stands still");
    let status = run(&scene, &["status"], 0).stdout;
    assert!(status.contains("let it go on with: keepwatch resume"), "{status}");
    let said = run(&scene, &["flush"], 4);
    assert!(said.stderr.contains("it is paused, and sends nothing"), "{said:?}");
    run(&scene, &["status", "--check", "--max-age", "0s"], 6);

    let said = run(&scene, &["resume", "--all", "--json"], 0).json();
    assert_eq!(said["backups"][0]["new"], true, "{said}");
    scene.comes_right(&daemon);
    assert!(run(&scene, &["resume", scene.name()], 0).stdout.contains("was not paused"));
    assert!(daemon.backup()["paused_since_ms"].is_null());
    let log = daemon.log();
    assert!(log.contains("paused: nothing is sent") && log.contains("goes on after"), "{log}");
}

#[test]
fn a_pause_outlives_restarts() {
    let scene = Scene::new(&[("a", b"1")]);
    let daemon = scene.follow(&QUICK);
    run(&scene, &["pause", "--all"], 0);
    daemon.kill();
    let recorded = run(&scene, &["status", "--json"], 0).json();
    assert!(recorded["backups"][0]["paused_since_ms"].is_number(), "{recorded}");
    scene.server.clear_log();
    let daemon = scene.user.watch(&scene.quick(&QUICK));
    wait_for("it to begin", || condition(&daemon) == "paused");
    scene.tree.write("b", b"2");
    is_silent(&scene);
    assert_eq!(daemon.stop(), 0);
    // Without a daemon, for the next one. A sync is asked for by name.
    scene.sync(&[], 0);
    assert!(scene.has("b"));
    scene.tree.write("c", b"3");
    assert!(run(&scene, &["resume", scene.name()], 0).stdout.contains("goes on"));
    let daemon = scene.user.watch(&scene.quick(&QUICK));
    scene.comes_right(&daemon);
    assert_eq!(daemon.stop(), 0);
    run(&scene, &["pause", "nobody"], 2);
    run(&scene, &["pause"], 2);
}

#[test]
fn a_large_upload_stops_at_the_next_part_and_goes_on() {
    use crate::support::server::Fault;
    const MIB: usize = 1024 * 1024;
    let scene = Scene::new(&[("large", &vec![7; 40 * MIB])]);
    scene.server.rule(|seen| match seen.query.contains("partNumber=") {
        true => Fault::Late(300),
        false => Fault::Pass,
    });
    let options = ["--multipart-threshold", "5MiB", "--part-size", "5MiB", "--transfers", "1"];
    let daemon = scene.user.watch(&scene.quick(&options));
    wait_for("a part", || !scene.uploads("UploadPart").is_empty());
    run(&scene, &["pause", "--all"], 0);
    wait_for("it to stop", || daemon.backup()["in_flight"] == 0);
    let sent = scene.uploads("UploadPart").len();
    assert!(sent < 8, "{sent} parts");
    scene.server.no_rule();
    is_silent(&scene);
    run(&scene, &["resume", "--all"], 0);
    scene.comes_right(&daemon);
    assert_eq!(scene.server.count("CreateMultipartUpload"), 0, "it goes on from its parts");
    assert_eq!(scene.uploads("UploadPart").len(), 8 - sent);
    assert_eq!(scene.bucket.open_uploads(), [""; 0]);
}
