//! What a person is told is true: of runs that were cut off, backups that did not start, processes
//! that do not answer, and results that cannot be written.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::program::{Daemon, Said};
use crate::support::scene::{Scene, TO};
use crate::support::server::Fault;
use crate::support::tree::Tree;
use crate::support::wait_for;

fn tells(said: &Said, code: i32, words: &[&str]) {
    assert_eq!(said.code, code, "{said:?}");
    let all = format!("{}{}", said.stdout, said.stderr);
    words.iter().for_each(|word| assert!(all.contains(word), "{word:?} is not in {said:?}"));
}

/// Requests for files whose names have this in them never end.
fn hangs(scene: &Scene, name: &'static str) {
    scene.server.rule(move |seen| match seen.method == "PUT" && seen.path.contains(name) {
        true => Fault::Hang,
        false => Fault::Pass,
    });
}

fn only_backup(scene: &Scene) -> Value {
    let status = scene.user.run(&["status", "--json"]).json();
    assert_eq!(status["backups"].as_array().unwrap().len(), 1, "{status}");
    status["backups"][0].clone()
}

fn spawn_sync(scene: &Scene) -> Daemon<'_> {
    scene.user.spawn(scene.user.command(&["sync", scene.source(), TO]))
}

#[test]
fn a_first_run_that_was_cut_off_is_told_of() {
    let scene = Scene::new(&[("a", b"1"), ("b", b"22"), ("hangs", b"333")]);
    hangs(&scene, "hangs");
    let sync = spawn_sync(&scene);
    wait_for("the others", || scene.has("a") && scene.has("b"));
    wait_for("their records", || {
        let running = scene.user.run(&["status", "--json"]).json();
        running["backups"][0]["files"] == 2
    });
    sync.kill();
    let backup = only_backup(&scene);
    let numbers = ["files", "bytes", "pending_files", "pending_bytes"].map(|n| &backup[n]);
    assert_eq!(numbers, [&2.into(), &3.into(), &1.into(), &3.into()] as [&Value; 4], "{backup}");
    assert_eq!(backup["condition"], "stopped");
    let said = scene.user.run(&["status"]);
    tells(&said, 0, &["2 files (3 B) in the destination", "1 file waiting (3 B)"]);
}

#[test]
fn a_file_that_is_being_replaced_is_still_there() {
    let scene = Scene::new(&[("a", b"1"), ("b", b"1")]);
    scene.sync(&[], 0);
    hangs(&scene, "/a");
    scene.tree.write("a", b"another");
    let sync = spawn_sync(&scene);
    wait_for("its record", || {
        let paths = scene.user.run(&["status", "--json", "--files"]).json();
        paths["backups"][0]["paths"][0]["uploaded"] == false
    });
    sync.kill();
    let backup = only_backup(&scene);
    assert_eq!((&backup["condition"], &backup["files"]), (&"stopped".into(), &2.into()));
    assert_eq!(backup["pending_files"], 1, "{backup}");
}

#[test]
fn a_sync_that_runs_tells_how_far_it_is() {
    let scene = Scene::new(&[("a", b"1"), ("hangs", b"22")]);
    hangs(&scene, "hangs");
    let sync = spawn_sync(&scene);
    wait_for("the first file", || scene.has("a"));
    wait_for("its progress to be told", || only_backup(&scene)["condition"] == "uploading");
    let status = scene.user.run(&["status", "--json", "--files"]).json();
    assert_eq!((&status["daemon"], &status["sync"]), (&false.into(), &true.into()));
    assert_eq!(status["process"], sync.pid());
    assert_eq!(status["backups"][0]["paths"][0]["path"], "a");
    let running = format!("a sync is running (process {})", sync.pid());
    tells(&scene.user.run(&["status"]), 0, &[&running, "1 file waiting (2 B)"]);
    tells(&scene.user.run(&["flush"]), 4, &[&running, "hint: ask again when it has ended"]);
    sync.kill();
    scene.server.no_rule();
    assert_eq!(only_backup(&scene)["condition"], "stopped");
    assert_eq!(scene.sync(&[], 0).number("uploaded"), 1);
    assert!(!scene.user.state_folder().join("control.sock").exists());
}

/// A file of configuration with entries of a name and a source, each in a prefix of its name.
fn configure(scene: &Scene, head: &str, entries: &[(&str, &str)]) {
    let entry = |(name, source): &(&str, &str)| {
        format!(
            "[[backup]]\nname = \"{name}\"\nsource = \"{source}\"\n\
             destination = \"s3://bucket/{name}\"\n"
        )
    };
    let folder = scene.user.home.path().join(".config/keepwatch");
    std::fs::create_dir_all(&folder).unwrap();
    let entries: String = entries.iter().map(entry).collect();
    std::fs::write(folder.join("keepwatch.toml"), format!("settle = \"50ms\"\n{head}{entries}"))
        .unwrap();
}

fn conditions(daemon: &Daemon<'_>) -> Vec<(String, String)> {
    let status = daemon.status().unwrap_or_default();
    let backups = status["backups"].as_array().cloned().unwrap_or_default();
    let text = |backup: &Value, name: &str| backup[name].as_str().unwrap().to_owned();
    backups.iter().map(|backup| (text(backup, "name"), text(backup, "condition"))).collect()
}

fn are(daemon: &Daemon<'_>, wanted: &[(&str, &str)]) -> bool {
    let found = conditions(daemon);
    found
        .iter()
        .map(|(name, condition)| (name.as_str(), condition.as_str()))
        .eq(wanted.iter().copied())
}

#[test]
fn a_backup_that_did_not_start_is_told_of() {
    let scene = Scene::new(&[("a", b"1")]);
    let other = Tree::new(&[("b", b"2")]);
    let file = scene.tree.path("a");
    let (file, other) = (file.to_str().unwrap(), other.folder.path().to_str().unwrap());
    scene.user.sync(other.as_ref(), "s3://bucket/owned", &[], 0);
    let stranger = crate::support::program::User::of(&scene.server.reach);
    stranger.sync(other.as_ref(), "s3://bucket/owned", &["--take-over"], 0);
    let good = ("good", scene.source());
    configure(&scene, "", &[good, ("file", file), ("owned", other)]);
    let daemon = scene.user.watch(&[]);
    let wanted = [("file", "failed"), ("good", "up-to-date"), ("owned", "failed")];
    wait_for("each to be told of", || are(&daemon, &wanted));
    let words = ["is not a folder", "name a folder to keep", "has taken over this destination"];
    tells(&scene.user.run(&["status"]), 0, &words);
    assert_eq!(scene.user.run(&["status", "--check"]).code, 4);
    tells(&scene.user.run(&["flush"]), 4, &["file was not started", "is not a folder", "hint: "]);
    tells(&scene.user.run(&["deletions", "approve", "file"]), 4, &["file was not started"]);
    assert!(scene.bucket.get("good/a").is_some(), "the others are kept");

    configure(&scene, "", &[good]);
    daemon.signal("HUP");
    wait_for("the rest to be gone", || are(&daemon, &[("good", "up-to-date")]));
    assert_eq!(scene.user.run(&["status", "--check"]).code, 0);
    assert_eq!(scene.user.run(&["flush"]).code, 0);
    assert_eq!(daemon.stop(), 0);

    configure(&scene, "", &[("file", file), ("owned", other)]);
    let started = scene.user.start(&[]);
    assert_eq!(started.wait(), 4, "with nothing to keep it does not stay");
}

#[test]
fn a_refused_file_is_told_of_until_a_good_one_is_read() {
    let scene = Scene::new(&[("a", b"1")]);
    let good = ("good", scene.source());
    configure(&scene, "", &[good]);
    let daemon = scene.user.watch(&[]);
    wait_for("the first pass", || are(&daemon, &[("good", "up-to-date")]));
    let error = || daemon.status().unwrap()["config_error"].clone();
    assert_eq!(error(), Value::Null);
    assert_eq!(scene.user.run(&["status", "--check"]).code, 0);

    configure(&scene, "colour = 1\n", &[good]);
    daemon.signal("HUP");
    wait_for("the refusal", || error().is_string());
    let words = ["what was read before stays in force", "unknown key colour", "hint: "];
    tells(&scene.user.run(&["status"]), 0, &words);
    tells(&scene.user.run(&["status", "--check"]), 4, &words);
    // What exists is flushed: that the file is refused is no reason to say otherwise.
    tells(&scene.user.run(&["flush"]), 0, &["is refused", "unknown key colour"]);

    configure(&scene, "", &[good]);
    daemon.signal("HUP");
    wait_for("the good file", || error().is_null());
    assert_eq!(scene.user.run(&["status", "--check"]).code, 0);
    assert_eq!(scene.user.run(&["flush"]).stderr, "");
    assert_eq!(daemon.stop(), 0);

    configure(&scene, "colour = 1\n", &[good]);
    let words = ["the configuration file cannot be used", "unknown key colour", "stopped"];
    tells(&scene.user.run(&["status", "--check"]), 4, &words);
}

#[test]
fn a_backup_that_never_ran_is_told_of() {
    let scene = Scene::new(&[("a", b"1")]);
    let other = Tree::new(&[("b", b"2")]);
    let other = other.folder.path().to_str().unwrap();
    configure(&scene, "", &[("one", scene.source()), ("two", other)]);
    let conditions = || {
        let status = scene.user.run(&["status", "--json"]).json();
        let backups = status["backups"].as_array().unwrap().clone();
        let told = |b: &Value| format!("{} {}", b["name"], b["condition"]).replace('"', "");
        backups.iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(conditions(), ["one never-started", "two never-started"]);
    assert_eq!(scene.user.run(&["sync", "one"]).code, 0);
    assert_eq!(conditions(), ["one stopped", "two never-started"]);
    let said = scene.user.run(&["status", "--check"]);
    tells(&said, 6, &["two  ", "never-started", "s3://bucket/two/"]);
    assert_eq!(scene.user.run(&["sync"]).code, 0);
    assert_eq!(conditions(), ["one stopped", "two stopped"]);
    assert_eq!(scene.user.run(&["status", "--check"]).code, 0);
}

#[test]
fn a_file_that_cannot_be_used_changes_nothing() {
    let scene = Scene::new(&[("a", b"1")]);
    let new = Tree::new(&[("b", b"2")]);
    let new = new.folder.path().to_str().unwrap();
    let home = scene.user.home.path().to_str().unwrap();
    let good = ("good", scene.source());
    configure(&scene, "", &[good]);
    let daemon = scene.user.watch(&[]);
    wait_for("the first pass", || are(&daemon, &[("good", "up-to-date")]));
    let refused = |times: usize| {
        let what = "the configuration stays as it was";
        wait_for("the refusal", || daemon.log().matches(what).count() == times);
        wait_for("what ran to go on", || are(&daemon, &[("good", "up-to-date")]));
    };
    // A pattern that is none, the state inside a source.
    configure(&scene, "exclude = [\"[z-a]\"]\n", &[good, ("new", new)]);
    daemon.signal("HUP");
    refused(1);
    configure(&scene, "", &[good, ("new", home)]);
    daemon.signal("HUP");
    refused(2);
    assert!(!daemon.log().contains("read the configuration again"), "{}", daemon.log());
    assert!(!daemon.log().contains("\\n"), "lines are lines: {}", daemon.log());

    // What ran and cannot be started as it is written now goes on; what is new is told of.
    let file = scene.tree.path("a");
    let file = file.to_str().unwrap();
    configure(&scene, "", &[("good", file), ("new", file)]);
    daemon.signal("HUP");
    wait_for("it to be read", || daemon.log().contains("0 kept, 1 ended, 2 to start"));
    wait_for("the return", || daemon.log().contains("goes on as it was"));
    wait_for("both", || are(&daemon, &[("good", "up-to-date"), ("new", "failed")]));
    scene.tree.write("later", b"3");
    wait_for("it to go on", || scene.bucket.get("good/later").is_some());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn who_does_not_answer_is_named_in_time() {
    let scene = Scene::new(&[("a", b"1")]);
    let daemon = scene.follow(&[]);
    daemon.signal("STOP");
    let pid = format!("process {}", daemon.pid());
    let in_time = |args: &[&str], limit: u64| {
        let started = Instant::now();
        tells(&scene.user.run(args), 4, &[&pid, "does not answer", "hint: ", "kill -CONT"]);
        let took = started.elapsed();
        assert!(took < Duration::from_secs(limit), "{args:?} took {took:?}");
    };
    in_time(&["flush", "--timeout", "500ms"], 5);
    in_time(&["flush", "--timeout", "0s"], 5);
    in_time(&["status"], 15);
    in_time(&["status", "--check"], 15);
    in_time(&["deletions", "list"], 15);
    daemon.signal("CONT");
    assert_eq!(scene.user.run(&["status"]).code, 0);
    let said = scene.user.run(&["flush", "--timeout", "0s"]);
    tells(&said, 6, &["not done in time"]);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_source_that_is_missing_cannot_be_flushed() {
    let scene = Scene::new(&[("a", b"1")]);
    let daemon = scene.follow(&[]);
    let (here, away) = (scene.tree.folder.path(), scene.user.home.path().join("away"));
    std::fs::rename(here, &away).unwrap();
    let said = scene.user.run(&["flush", "--timeout", "60s"]);
    tells(&said, 4, &[scene.name(), "the source", "hint: "]);
    wait_for("the reason", || daemon.backup()["condition"] == "waiting");
    assert!(daemon.backup()["waiting_ms"].is_u64(), "{}", daemon.backup());
    std::fs::rename(&away, here).unwrap();
    wait_for("its return", || scene.user.run(&["flush"]).code == 0);
    assert_eq!(daemon.backup()["waiting_for"], Value::Null);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_dry_run_counts_deletions_and_leaves_no_record() {
    let scene = Scene::with_files(3);
    scene.sync(&["-n"], 0);
    tells(&scene.user.run(&["status"]), 0, &["no backup is on record"]);
    scene.sync(&[], 0);
    scene.tree.remove("f/1");
    let said = scene.sync(&["-n"], 0);
    assert_eq!((said.number("deleted"), said.number("unchanged")), (1, 2), "{said:?}");
    assert!(scene.has("f/1"));
}

#[test]
fn what_cannot_be_read_is_not_flushed_and_not_up_to_date() {
    let scene = Scene::new(&[("d/.keepwatchignore/x", b"1"), ("d/a", b"2"), ("b", b"3")]);
    let daemon = scene.watch(&["--settle", "100ms"]);
    wait_for("the other", || scene.has("b"));
    let said = scene.user.run(&["flush", "--timeout", "60s"]);
    tells(&said, 3, &["1 path skipped; see: keepwatch status"]);
    assert_eq!(scene.user.run(&["flush", "--json"]).json()["skipped"], 1);
    let backup = daemon.backup();
    assert_eq!((&backup["condition"], &backup["unread"]), (&"failing".into(), &1.into()));
    let words = ["failing", "1 path cannot be read, and nothing is known of what is there"];
    tells(&scene.user.run(&["status"]), 0, &words);
    scene.tree.remove("d/.keepwatchignore");
    wait_for("the rest", || scene.has("d/a"));
    daemon.flush();
    wait_for("the end of it", || daemon.backup()["condition"] == "up-to-date");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let scene = Scene::with_files(1);
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    for args in [
        &["status"][..],
        &["sync", scene.source(), TO, "--json"],
        &["config", "example"],
        &["--help"],
    ] {
        let output = scene.user.command(args).stdout(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("cannot write to standard output"), "{told}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = scene.user.command(args).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    }
}

#[test]
fn the_state_is_its_owners_only() {
    let scene = Scene::with_files(1);
    std::fs::create_dir_all(scene.user.state_folder().parent().unwrap()).unwrap();
    scene.sync(&[], 0);
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let (folder, database) =
        (scene.user.state_folder(), scene.user.state_folder().join("state.db"));
    assert_eq!((mode(&folder), mode(&database)), (0o700, 0o600));
    // One of former times, that others may read.
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o644)).unwrap();
    let daemon = scene.follow(&[]);
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_name_of_two_backups_means_neither() {
    let scene = Scene::new(&[("one/docs/a", b"1"), ("two/docs/b", b"2")]);
    let sources = ["one/docs", "two/docs"].map(|name| scene.tree.path(name));
    for (source, to) in sources.iter().zip(["s3://bucket/1", "s3://bucket/2"]) {
        scene.user.sync(source, to, &[], 0);
    }
    let [one, two] = sources.each_ref().map(|source| source.to_str().unwrap());
    let words = ["may be any of 2 backups", one, two, "s3://bucket/2/", "hint: "];
    tells(&scene.user.run(&["deletions", "discard", "docs"]), 2, &words);
    for word in [one, "s3://bucket/1/"] {
        let said = scene.user.run(&["deletions", "discard", word, "--json"]);
        assert_eq!(said.json()["backups"].as_array().unwrap().len(), 1, "{said:?}");
    }
    tells(&scene.user.run(&["deletions", "approve", "--all", "docs"]), 2, &["--all"]);
    let files = scene.user.run(&["status", "--files"]).stdout;
    assert!(files.contains("  a\n") && files.contains("  b\n"), "each has its own: {files}");
}

#[test]
fn nothing_in_a_prefix_acts_on_a_terminal() {
    let scene = Scene::with_files(1);
    let said = scene.user.sync(scene.tree.folder.path(), "s3://bucket/a\nb\u{1b}[31m", &[], 0);
    assert_eq!(said.number("uploaded"), 1);
    let shown = scene.user.run(&["status"]).stdout;
    assert!(shown.contains("s3://bucket/a\\nb\\u{1b}[31m/"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown}");
}

#[test]
fn asking_changes_nothing() {
    let scene = Scene::with_files(2);
    scene.sync(&[], 0);
    let folder = scene.user.state_folder();
    let contents = || {
        let mut all = vec![];
        for entry in std::fs::read_dir(&folder).unwrap() {
            let (path, metadata) =
                (entry.as_ref().unwrap().path(), entry.unwrap().metadata().unwrap());
            // A killed daemon leaves its socket behind.
            if metadata.is_file() {
                all.push((
                    path.clone(),
                    std::fs::read(path).unwrap(),
                    metadata.modified().unwrap(),
                ));
            }
        }
        all.sort();
        all
    };
    let ask = |files: u64| {
        let said = scene.user.run(&["status", "--json", "--files"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(said.json()["backups"][0]["files"], files, "{said:?}");
    };
    let before = contents();
    ask(2);
    assert_eq!(contents(), before);
    // What a kill left in the log counts, and stays there.
    scene.tree.write("f/2", b"new");
    let daemon = scene.follow(&[]);
    daemon.kill();
    let log = folder.join("state.db-wal");
    assert!(log.metadata().unwrap().len() > 0);
    let before = contents();
    ask(3);
    ask(3);
    assert_eq!(contents(), before);
    scene.is_settled(0);
    // Where nothing may be written at all, and where there is nothing.
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o500)).unwrap();
    ask(3);
    let new = crate::support::program::User::of(&scene.server.reach);
    assert_eq!(new.run(&["status"]).code, 0);
    assert!(!new.state_folder().exists());
}

#[test]
fn a_daemon_that_ends_while_it_is_asked_is_none() {
    let scene = Scene::with_files(3);
    scene.sync(&[], 0);
    // The kernel answers for one that is being killed: it accepts, and closes at once.
    let socket = scene.user.state_folder().join("control.sock");
    let ending = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let user = &scene.user;
    std::thread::scope(|threads| {
        threads.spawn(|| drop(ending.accept().unwrap()));
        let said = user.run(&["status", "--json"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(said.json()["backups"][0]["files"], 3, "{said:?}");
    });
    drop(ending);
    scene.watch(&[]).stop();
}

#[test]
fn one_that_was_just_killed_is_not_taken_for_another() {
    let scene = Scene::with_files(1);
    let first = scene.watch(&[]);
    first.signal("KILL");
    let second = scene.watch(&[]);
    first.wait();
    assert_eq!(second.stop(), 0);
}
