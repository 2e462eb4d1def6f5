//! The daemon as a process: signals, its configuration, its socket, and who else may run.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::program::{Daemon, Said};
use crate::support::scene::{Scene, TO};
use crate::support::server::{Embedded, Fault};
use crate::support::tree::{Tree, differences};
use crate::support::wait_for;

/// A configuration with these backups, each of a tree in a prefix of its name.
fn configure(scene: &Scene, backups: &[(&str, &Tree)]) {
    let entry = |(name, tree): &(&str, &Tree)| {
        let source = tree.folder.path().display();
        format!(
            "[[backup]]\nname = \"{name}\"\nsource = \"{source}\"\n\
             destination = \"s3://bucket/{name}\"\n"
        )
    };
    let entries: String = backups.iter().map(entry).collect();
    write_config(scene, &format!("settle = \"100ms\"\n{entries}"));
}

fn write_config(scene: &Scene, text: &str) {
    let folder = scene.user.home.path().join(".config/keepwatch");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("keepwatch.toml"), text).unwrap();
}

fn names(daemon: &Daemon<'_>) -> Vec<String> {
    let status = daemon.status().unwrap_or_default();
    let backups = status["backups"].as_array().cloned().unwrap_or_default();
    backups.iter().map(|backup| backup["name"].as_str().unwrap().to_owned()).collect()
}

/// The next PUT meets this fate; the number of PUTs is counted.
fn puts_meet(server: &Embedded, fate: impl Fn(usize) -> Fault + Send + Sync + 'static) -> Began {
    let began = Began::default();
    let count = began.clone();
    server.rule(move |seen| match seen.method == "PUT" {
        true => fate(count.0.fetch_add(1, Ordering::SeqCst)),
        false => Fault::Pass,
    });
    began
}

#[derive(Clone, Default)]
struct Began(Arc<AtomicUsize>);

impl Began {
    fn wait(&self) {
        wait_for("a PUT to begin", || self.0.load(Ordering::SeqCst) > 0);
    }
}

#[test]
fn a_hangup_reads_the_configuration_again() {
    let (scene, other) = (Scene::new(&[("a", b"1")]), Tree::new(&[("b", b"2")]));
    let has = |tree: &Tree, name: &str| {
        let prefix = format!("{name}/");
        let wrong = differences(tree, &scene.bucket, &prefix);
        wrong.iter().all(|line| !line.starts_with(&format!("\"{prefix}")))
    };
    configure(&scene, &[("one", &scene.tree)]);
    let daemon = scene.user.watch(&[]);
    wait_for("the first backup", || has(&scene.tree, "one"));

    configure(&scene, &[("one", &scene.tree), ("two", &other)]);
    scene.server.clear_log();
    daemon.signal("HUP");
    wait_for("the second backup", || has(&other, "two"));
    assert_eq!(names(&daemon), ["one", "two"]);
    let log = scene.server.log();
    let pass = log.iter().find(|a| a.key.as_deref() == Some("one/.keepwatch/owner.json"));
    assert_eq!(pass, None, "what did not change keeps running");

    write_config(&scene, "settle = \"soon\"\n[[backup]]\nname = \"three\"\ncolour = 1\n");
    daemon.signal("HUP");
    wait_for("the refusal", || daemon.log().contains("the configuration stays as it was"));
    for fault in ["soon", "colour", "source"] {
        assert!(daemon.log().contains(fault), "every fault at once: {}", daemon.log());
    }
    assert_eq!(names(&daemon), ["one", "two"]);
    scene.tree.write("c", b"3");
    wait_for("the first backup to go on", || has(&scene.tree, "one"));

    configure(&scene, &[("two", &other)]);
    daemon.signal("HUP");
    wait_for("the first backup to end", || names(&daemon) == ["two"]);
    wait_for("the end of the reload", || daemon.log().contains("1 kept, 1 ended, 0 to start"));
    assert!(has(&scene.tree, "one"), "its objects stay");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn told_to_stop_it_finishes_what_is_in_flight() {
    let scene = Scene::new(&[]);
    let daemon = scene.follow(&["--settle", "100ms"]);
    for signal in ["TERM", "INT"] {
        scene.server.no_rule();
        let daemon = match signal {
            "TERM" => &daemon,
            _ => &scene.follow(&["--settle", "100ms"]),
        };
        let began = puts_meet(&scene.server, |_| Fault::Late(1_500));
        scene.tree.write(signal, b"in flight");
        began.wait();
        daemon.signal(signal);
        wait_for("its end", || daemon.status().is_none() && daemon.log().contains("stopped"));
        assert!(scene.has(signal));
    }
    scene.server.no_rule();
    scene.is_settled(0);
}

#[test]
fn told_to_stop_it_does_not_wait_for_a_slow_line() {
    let scene = Scene::new(&[]);
    let daemon = scene.follow(&["--settle", "100ms", "--multipart-threshold", "5MiB"]);
    let began = puts_meet(&scene.server, |_| Fault::Hang);
    scene.tree.write("large", &vec![7; 20 * 1024 * 1024]);
    began.wait();
    let told = Instant::now();
    assert_eq!(daemon.stop(), 0);
    let took = told.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    scene.server.no_rule();
    assert_eq!(scene.sync(&["--multipart-threshold", "5MiB"], 0).number("uploaded"), 1);
    scene.is_settled(0);
}

#[test]
fn told_twice_it_leaves_at_once() {
    let scene = Scene::new(&[]);
    let daemon = scene.follow(&["--settle", "100ms"]);
    let began = puts_meet(&scene.server, |_| Fault::Hang);
    scene.tree.write("hangs", b"for ever");
    began.wait();
    daemon.signal("TERM");
    wait_for("it to be told", || daemon.log().contains("stopping"));
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), 1, "not the end of a drain, which is 0");
    scene.server.no_rule();
    assert_eq!(scene.sync(&[], 0).number("uploaded"), 1);
    scene.is_settled(0);
}

#[test]
fn an_interrupted_sync_ends_with_130() {
    let scene = Scene::with_files(60);
    puts_meet(&scene.server, |_| Fault::Late(100));
    let mut command = scene.user.command(&["sync", scene.source(), TO, "--json"]);
    command.args(["--transfers", "1"]);
    let sync = scene.user.spawn(command);
    wait_for("some files", || scene.server.count("PutObject") > 4);
    sync.signal("INT");
    assert_eq!(sync.wait(), 130);
    let done = scene.bucket.objects().len() as u64;
    assert!((1..60).contains(&done), "{done} files");
    scene.server.no_rule();
    assert_eq!(scene.sync(&[], 0).number("uploaded"), 60 - done);
    scene.is_settled(0);
}

#[test]
fn flush_waits_until_all_is_in_the_bucket() {
    let scene = Scene::new(&[]);
    let said = scene.user.run(&["flush"]);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.stderr.contains("no daemon is running"), "{said:?}");

    // Nothing is uploaded by itself within the hour.
    let daemon = scene.follow(&["--settle", "1h", "--max-wait", "1h"]);
    for round in 0..10_u32 {
        for n in 0..50 {
            scene.tree.write(format!("f{}/{n}", n % 7), &round.to_le_bytes());
        }
        daemon.flush();
        scene.is_kept();
    }
    scene.tree.write("more", b"more");
    let began = puts_meet(&scene.server, |_| Fault::Hang);
    let said = scene.user.run(&["flush", "--timeout", "1s"]);
    began.wait();
    assert_eq!(said.code, 6, "{said:?}");
    assert!(said.stderr.contains("not done in time"), "{said:?}");
}

#[test]
fn status_with_and_without_a_daemon() {
    let scene = Scene::new(&[("file", b"content"), ("folder/other", b"")]);
    let status = |more: &[&str], code: i32| -> Said {
        let said = scene.user.run(&[&["status"], more].concat());
        assert_eq!(said.code, code, "{said:?}");
        said
    };
    assert_eq!(status(&["--json"], 0).json()["backups"], serde_json::json!([]));
    status(&["--check"], 6);

    let daemon = scene.follow(&[]);
    let seen = status(&["--json", "--files"], 0).json();
    assert_eq!(seen["daemon"], true);
    let backup = &seen["backups"][0];
    for (name, value) in [
        ("name", scene.name()),
        ("source", scene.source()),
        ("destination", "s3://bucket/p/"),
        ("condition", "up-to-date"),
        ("watcher", "full"),
        ("owner", "exclusive"),
    ] {
        assert_eq!(backup[name], value, "{backup}");
    }
    assert_eq!((&backup["files"], &backup["bytes"]), (&2.into(), &7.into()));
    assert_eq!(backup["paths"][0]["path"], "file");
    assert_eq!(backup["paths"][0]["md5"], "9a0364b9e99bb480dd25e1f0284c8555");
    assert_eq!(backup["paths"][1]["uploaded"], true);
    // What was young when it was first seen is looked at once more.
    let all = "everything until now is in the destination";
    wait_for("nothing to be left to look at", || status(&[], 0).stdout.contains(all));
    status(&["--check"], 0);

    let socket = scene.user.state_folder().join("control.sock");
    let mode = socket.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(daemon.stop(), 0);
    assert!(!socket.exists());

    let recorded = status(&["--json", "--files"], 0).json();
    assert_eq!(recorded["daemon"], false);
    assert_eq!(recorded["backups"][0]["condition"], "stopped");
    assert_eq!(recorded["backups"][0]["paths"], seen["backups"][0]["paths"]);
    assert!(status(&["--files"], 0).stdout.contains("uploaded  9a0364b9"));
}

#[test]
fn a_second_daemon_is_refused() {
    let scene = Scene::new(&[("a", b"1")]);
    let daemon = scene.follow(&[]);
    let pid = daemon.pid().to_string();
    for command in ["watch", "sync"] {
        let said = scene.user.run(&[command, scene.source(), TO]);
        assert_eq!(said.code, 4, "{said:?}");
        for words in [&*format!("process {pid}"), "uses the state in", "hint: ", "--state-dir"] {
            assert!(said.stderr.contains(words), "{words}: {said:?}");
        }
    }
    // The first one has lost neither its lock nor its socket.
    scene.tree.write("b", b"2");
    scene.comes_right(&daemon);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn discarded_through_the_daemon() {
    let scene = Scene::with_files(3);
    let daemon = scene.follow(&[]);
    scene.tree.remove("f");
    wait_for("the hold", || daemon.backup()["held"] == 3);
    let list = scene.user.run(&["deletions", "list", "--json"]).json();
    assert_eq!(list["backups"][0]["waiting"], 3, "{list}");
    assert_eq!(scene.user.run(&["deletions", "discard", "nobody"]).code, 2);
    let said = scene.user.run(&["deletions", "discard", scene.name()]);
    let told = format!("{}: 3 deletions discarded: the objects stay\n", scene.name());
    assert_eq!((said.code, said.stdout), (0, told));
    wait_for("the hold to end", || daemon.backup()["held"] == 0);
    let status = daemon.backup();
    assert_eq!((&status["unclaimed"], &status["missing"]), (&3.into(), &0.into()), "{status}");
    assert_eq!(scene.bucket.objects().len(), 3);
}

#[test]
fn the_store_goes_away_and_comes_back() {
    let mut scene = Scene::with_files(3);
    let user = crate::support::program::User::of(&scene.server.reach);
    let args: Vec<String> = scene.quick(&[]).iter().map(|&arg| arg.to_owned()).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let daemon = user.watch(&args);
    daemon.flush();
    scene.server.stop();
    scene.tree.write("while away", b"1");
    scene.tree.write("f/0", b"changed");
    scene.tree.remove("f/1");
    wait_for("the wait to be told", || daemon.backup()["condition"] == "waiting");
    let waiting = daemon.backup();
    assert!(waiting["waiting_for"].as_str().unwrap().contains("refused"), "{waiting}");
    let behind = waiting["watermark_ms"].as_i64().unwrap();
    scene.tree.write("f/3", b"later");
    assert_eq!(user.run(&["flush", "--timeout", "500ms"]).code, 5);
    let now = daemon.backup();
    // Two clocks are read in turn: they may be a moment apart.
    let stands_still = now["watermark_ms"].as_i64().unwrap() <= behind + 10;
    assert!(stands_still, "nothing is promised meanwhile: {waiting}, then {now}");
    scene.server.go_on();
    scene.comes_right(&daemon);
    assert!(daemon.backup()["waiting_for"].is_null());
    assert!(daemon.log().contains("going on after"), "{}", daemon.log());
    assert_eq!(daemon.stop(), 0);
}
