//! The state database: damaged, full, newer, foreign, in use; and a configuration with faults.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::notify::Manager;
use crate::support::program::Said;
use crate::support::scene::{Scene, TO};
use crate::support::wait_for;

fn tells(said: &Said, words: &[&str]) {
    for word in words {
        assert!(said.stderr.contains(word), "{word:?} is not in:\n{}", said.stderr);
    }
}

fn database(scene: &Scene) -> PathBuf {
    scene.user.state_folder().join("state.db")
}

/// Names in the state folder that begin with this.
fn named(scene: &Scene, start: &str) -> Vec<String> {
    let entries = std::fs::read_dir(scene.user.state_folder()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(start)).collect()
}

#[test]
fn a_damaged_database_is_rebuilt_and_deletions_are_held() {
    let damages: [fn(&Path); 3] = [
        |path| std::fs::write(path, "not a database, but a text of some length").unwrap(),
        // The first pages are well, the rest is not.
        |path| {
            let mut bytes = std::fs::read(path).unwrap();
            bytes[8192..].fill(0xa5);
            std::fs::write(path, bytes).unwrap();
        },
        |path| {
            let size = std::fs::metadata(path).unwrap().len();
            std::fs::File::options().write(true).open(path).unwrap().set_len(size / 2).unwrap();
        },
    ];
    for damage in damages {
        let scene = Scene::with_files(60);
        scene.sync(&[], 0);
        damage(&database(&scene));
        scene.tree.remove("f/1");
        scene.tree.write("new", b"new");
        // Damage in the middle is met on the way; the next start looks for it.
        let source = scene.source().to_owned();
        let mut said = scene.user.run(&["sync", &source, TO, "--json"]);
        if said.code == 4 {
            tells(&said, &["error: the state database failed", "state.db", "hint: "]);
            said = scene.user.run(&["sync", &source, TO, "--json"]);
        }
        assert_eq!(said.code, 0, "{said:?}");
        tells(&said, &["damaged and is rebuilt from the bucket", "state.db.bad-", "are held"]);
        assert_eq!(named(&scene, "state.db.bad-").len(), 1);
        assert_eq!((said.number("adopted"), said.number("uploaded")), (59, 1), "{said:?}");
        // What vanished before is nobody's; what vanishes now waits for a person.
        assert_eq!(said.number("unclaimed"), 1);
        assert!(scene.has("f/1"));
        scene.tree.remove("f/2");
        let said = scene.sync(&[], 7);
        tells(&said, &["the state database was corrupt and was rebuilt"]);
        assert!(scene.has("f/2"));
        assert_eq!(scene.user.run(&["deletions", "approve", "--all"]).code, 0);
        assert_eq!(scene.sync(&[], 0).number("deleted"), 1);
        scene.tree.remove("f/3");
        assert_eq!(scene.sync(&[], 0).number("deleted"), 1, "approved once, trusted from then on");
    }
}

#[test]
fn a_newer_or_foreign_database_is_refused() {
    let scene = Scene::with_files(2);
    scene.sync(&[], 0);
    let sql = |text: &str| {
        rusqlite::Connection::open(database(&scene)).unwrap().execute_batch(text).unwrap();
    };
    sql("PRAGMA user_version = 99");
    let said = scene.sync(&[], 4);
    let hint = "hint: upgrade keepwatch, or use another --state-dir";
    tells(&said, &["state.db was written by a newer keepwatch (schema 99", hint]);
    assert_eq!(scene.server.log(), []);
    sql("PRAGMA user_version = 1; PRAGMA application_id = 1234");
    let said = scene.sync(&[], 4);
    tells(&said, &["state.db belongs to another program", "hint: use another --state-dir"]);
    assert_eq!(named(&scene, "state.db.bad-"), [""; 0]);
    let other = scene.user.home.path().join("other");
    scene.sync(&["--state-dir", other.to_str().unwrap()], 0);
}

/// Words that run a program with a small disk under its state, where mounting is permitted; and
/// else with a limit on the size of files, which is another error with the same consequence.
fn with_a_small_disk(scene: &Scene, size: &str) -> (bool, Vec<String>) {
    let state = scene.user.state_folder();
    std::fs::create_dir_all(&state).unwrap();
    let own: &[&str] = if rustix::process::geteuid().is_root() { &["-m"] } else { &["-rm"] };
    let mount = format!("mount -t tmpfs -o size={size} small '{}'", state.display());
    let mut trial = Command::new("unshare");
    let permitted = trial.args(own).args(["sh", "-c", &mount]).status().unwrap().success();
    let words: Vec<&str> = match permitted {
        true => [&["unshare"], own, &["sh", "-c"]].concat(),
        false => vec!["sh", "-c"],
    };
    let script = match permitted {
        true => format!("{mount} && exec \"$0\" \"$@\""),
        // In blocks of 512 bytes.
        false => "trap '' XFSZ; ulimit -f 500; exec \"$0\" \"$@\"".to_owned(),
    };
    (permitted, words.into_iter().map(str::to_owned).chain([script]).collect())
}

#[test]
fn a_full_disk_under_the_database() {
    let scene = Scene::with_files(0);
    // Names long enough to fill a small database with few of them.
    let name = |n: usize| format!("{}/{n}", "long name ".repeat(20));
    (0..1_500).for_each(|n| scene.tree.write(name(n), b"x"));
    let (mounted, words) = with_a_small_disk(&scene, "256k");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let scene = scene.by(|user| user.wrapped(&words));
    let said = scene.sync(&["--transfers", "4"], 4);
    match mounted {
        true => tells(&said, &["error: the disk under the state database", "state.db", "is full"]),
        false => tells(&said, &["error: the state database failed", "state.db"]),
    }
    tells(&said, &["  caused by: ", "hint: "]);
    assert_eq!(said.json()["result"], "error");
    // Nothing was sent that is not on record.
    assert!(said.number("uploaded") < 1_500);
    if !mounted {
        return;
    }
    // A daemon waits for room, says so once, and goes on.
    let manager = Manager::new();
    let scene = scene.by(|user| user.with_variable("NOTIFY_SOCKET", manager.name()));
    let daemon = scene.user.start(&[scene.source(), TO, "--settle", "50ms"]);
    wait_for("the disk to be full", || daemon.log().contains("waiting: free some space"));
    let waits = format!("STATUS={} waits: the disk under the state database is full", scene.name());
    manager.until(|line| line.starts_with(&waits));
    assert_eq!(daemon.log().matches("free some space").count(), 1, "{}", daemon.log());
    let state = scene.user.state_folder();
    let is_root = rustix::process::geteuid().is_root();
    let into: &[&str] = if is_root { &["-m"] } else { &["-U", "-m", "--preserve-credentials"] };
    let mut larger = Command::new("nsenter");
    larger.args(into).args(["-t", &daemon.pid().to_string(), "mount", "-o", "remount,size=64m"]);
    assert!(larger.arg(state).status().unwrap().success());
    wait_for("the backup to go on", || scene.bucket.keys().len() == 1_501);
    assert!(daemon.log().contains("the state disk has room again"), "{}", daemon.log());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_daemon_waits_for_room_to_begin() {
    let scene = Scene::with_files(1);
    let (mounted, words) = with_a_small_disk(&scene, "64k");
    if !mounted {
        println!("NOT TESTED: mounting is not permitted here");
        return;
    }
    let state = scene.user.state_folder();
    let fill = format!("{}/fill", state.display());
    let [.., script] = &words[..] else { panic!("no script: {words:?}") };
    let script =
        script.replace(" && exec", &format!(" && (cat /dev/zero > '{fill}'; true) && exec"));
    let words: Vec<&str> = words[..words.len() - 1].iter().map(String::as_str).collect();
    let scene = scene.by(|user| user.wrapped(&[&words[..], &[&script]].concat()));
    let daemon = scene.user.start(&[scene.source(), TO, "--settle", "50ms"]);
    wait_for("it to wait", || daemon.log().contains("waiting to be started"));
    let is_root = rustix::process::geteuid().is_root();
    let into: &[&str] = if is_root { &["-m"] } else { &["-U", "-m", "--preserve-credentials"] };
    let mut more = Command::new("nsenter");
    more.args(into).args(["-t", &daemon.pid().to_string()]);
    let script = format!("rm '{fill}'; mount -o remount,size=16m '{}'", state.display());
    assert!(more.args(["sh", "-c", &script]).status().unwrap().success());
    wait_for("the backup to go on", || scene.has("f/0"));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn one_process_for_one_state() {
    let scene = Scene::with_files(2);
    let daemon = scene.watch(&[]);
    let holder = format!("another keepwatch (process {}) uses the state in", daemon.pid());
    for command in ["watch", "sync"] {
        let said = scene.user.run(&[command, scene.source(), TO]);
        assert_eq!(said.code, 4, "{said:?}");
        tells(&said, &[&format!("error: {holder}"), "hint: ", "--state-dir"]);
    }
    // Commands for a running daemon go to it.
    assert_eq!(scene.user.run(&["flush"]).code, 0);
    assert_eq!(scene.user.run(&["deletions", "list"]).code, 0);
    assert_eq!(daemon.stop(), 0);
    scene.sync(&[], 0);
    // A lock that a killed process held is free.
    scene.watch(&[]).kill();
    scene.sync(&[], 0);
    // Without a daemon, flushing says so.
    let said = scene.user.run(&["flush"]);
    assert_eq!(said.code, 4, "{said:?}");
    tells(&said, &["error: no daemon is running", "hint: "]);
}

#[test]
fn the_state_is_never_inside_the_source() {
    let scene = Scene::with_files(1);
    let inside = scene.tree.path("state");
    let said = scene.sync(&["--state-dir", inside.to_str().unwrap()], 4);
    tells(&said, &["is inside the source", "hint: ", "choose another --state-dir"]);
    assert_eq!(scene.server.log(), []);
    let watch = [scene.source(), TO, "--state-dir", inside.to_str().unwrap()];
    assert_eq!(scene.user.run(&[&["watch"], &watch[..]].concat()).code, 4);
    assert!(!inside.exists(), "nothing is left behind");
}

#[test]
fn a_configuration_with_five_faults() {
    let scene = Scene::with_files(1);
    let path = scene.user.home.path().join("keepwatch.toml");
    let text = "settle = \"soon\"\n\
        [[backup]]\n\
        name = \"one\"\n\
        source = \"/srv\"\n\
        destination = \"nowhere\"\n\
        exlude = [\"*.tmp\"]\n\
        [[backup]]\n\
        name = 2\n\
        destination = \"s3://bucket/two\"\n";
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    for command in [&["sync"][..], &["watch"], &["config", "check"]] {
        let said = scene.user.run(&[&["-c", path], command].concat());
        assert_eq!(said.code, 4, "{said:?}");
        tells(
            &said,
            &[
                "settle cannot be \"soon\"",
                "write a duration such as 2s",
                &format!("{path}:1:10"),
                "\"nowhere\" is not a destination; write s3://bucket/prefix",
                "unknown key exlude",
                "there is an option exclude",
                "name must be text",
                "this entry has no source",
                "^^^^^^",
                &format!("error: {path} has 5 faults"),
                "hint: ",
            ],
        );
    }
    assert_eq!(scene.bucket.keys(), [""; 0]);
}
