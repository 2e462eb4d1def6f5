//! What a daemon meets when it starts one of many: servers that say nothing, disks and states that
//! are not there yet. Nothing else waits for it, and it comes right by itself.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::mounts::Hung;
use crate::support::notify::Manager;
use crate::support::program::{Daemon, User};
use crate::support::scene::{Scene, TO};
use crate::support::server::Fault;
use crate::support::tree::Tree;
use crate::support::wait_for;

/// A server that accepts, and never answers.
struct Silent(TcpListener);

impl Silent {
    fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }
}

/// A scene under a service manager, with a configuration.
struct Service {
    manager: Manager,
    scene: Scene,
    silent: Silent,
    other: Tree,
}

impl Service {
    fn new() -> Self {
        let manager = Manager::new();
        let scene = Scene::new(&[("a", b"1")]);
        let scene = scene.by(|user| user.with_variable("NOTIFY_SOCKET", manager.name()));
        Self { manager, scene, silent: Silent::new(), other: Tree::new(&[("b", b"2")]) }
    }

    fn backup(&self, name: &str, source: &Path, more: &str) -> String {
        format!(
            "[[backup]]\nname = \"{name}\"\nsource = \"{}\"\n\
             destination = \"s3://bucket/{name}\"\n{more}\n",
            source.display()
        )
    }

    fn good(&self) -> String {
        self.backup("good", self.scene.tree.folder.path(), "")
    }

    fn stuck(&self) -> String {
        let more = format!("endpoint_url = \"{}\"", self.silent.url());
        self.backup("stuck", self.other.folder.path(), &more)
    }

    fn mirror(&self) -> String {
        "[[mirror]]\nname = \"copied\"\nsource = \"s3://bucket/good\"\n\
         destination = \"s3://bucket/copied\"\n"
            .to_owned()
    }

    fn configure(&self, parts: &[String]) {
        let folder = self.scene.user.home.path().join(".config/keepwatch");
        std::fs::create_dir_all(&folder).unwrap();
        let text = format!("settle = \"50ms\"\n{}", parts.concat());
        std::fs::write(folder.join("keepwatch.toml"), text).unwrap();
    }

    fn has(&self, key: &str) -> bool {
        self.scene.bucket.get(key).is_some()
    }

    /// It ends within seconds, and the manager hears of it first.
    fn ends_at_once(&self, daemon: Daemon<'_>) {
        let told = Instant::now();
        daemon.signal("TERM");
        self.manager.until(|line| line == "STOPPING=1");
        assert_eq!(daemon.wait(), 0);
        let took = told.elapsed();
        assert!(took < Duration::from_secs(6), "{took:?}");
        let after = self.manager.heard();
        assert!(after.is_empty(), "no time is asked for: {after:?}");
    }
}

fn backup(daemon: &Daemon<'_>, name: &str) -> Value {
    let status = daemon.status().unwrap_or_default();
    let backups = status["backups"].as_array().cloned().unwrap_or_default();
    backups.into_iter().find(|backup| backup["name"] == name).unwrap_or_default()
}

fn promptly(user: &User, args: &[&str], code: i32) -> String {
    let started = Instant::now();
    let said = user.run(args);
    assert_eq!(said.code, code, "{args:?}: {said:?}");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "{args:?} took {took:?}");
    said.stdout
}

#[test]
fn a_server_that_says_nothing_holds_up_nothing_but_its_own_backup() {
    let service = Service::new();
    service.configure(&[service.stuck(), service.good(), service.mirror()]);
    let daemon = service.scene.user.watch(&[]);
    wait_for("the other backup", || service.has("good/a"));
    wait_for("the mirror", || backup(&daemon, "copied")["last_pass_ms"].is_i64());
    let heard = service.manager.until(|line| line == "READY=1");
    let told = |words: &str| heard.iter().any(|line| line.contains(words));
    assert!(told("STATUS=") && told("stuck is being started"), "{heard:?}");
    let waits = format!("stuck waits for an answer from {}", service.silent.url());
    service.manager.until(|line| line.starts_with("STATUS=") && line.contains(&waits));
    let user = &service.scene.user;
    assert_eq!(promptly(user, &["pause", "good"], 0), "good: paused; what changes is remembered\n");
    let all = promptly(user, &["resume", "--all"], 0);
    assert!(all.contains("good: goes on") && all.contains("stuck: is being started"), "{all}");
    promptly(user, &["deletions", "approve", "good"], 0);
    assert!(promptly(user, &["deletions", "list"], 0).contains("stuck: is being started"));
    service.ends_at_once(daemon);
}

#[test]
fn a_daemon_is_ready_before_its_server_is_and_claims_nothing() {
    let service = Service::new();
    service.configure(&[service.stuck()]);
    let user = &service.scene.user;
    let begun = Instant::now();
    let daemon = user.start(&[]);
    let heard = service.manager.until(|line| line == "READY=1");
    let took = begun.elapsed();
    assert!(heard.contains(&"STATUS=starting".to_owned()), "{heard:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    let answer = format!("an answer from {}", service.silent.url());
    service.manager.until(|line| line == format!("STATUS=stuck waits for {answer}"));
    let seen = backup(&daemon, "stuck");
    assert_eq!((&seen["condition"], &seen["waiting_for"]), (&"waiting".into(), &answer.into()));
    assert!(seen["watermark_ms"].is_null() && seen["files"] == 0, "{seen}");
    promptly(user, &["status", "--check"], 6);
    assert!(promptly(user, &["status"], 0).contains("waiting: an answer from http://"));
    service.ends_at_once(daemon);
}

#[test]
fn what_is_wrong_for_good_ends_the_daemon_however_late_it_is_known() {
    let service = Service::new();
    let stranger = User::of(&service.scene.server.reach).with_variable("KEEPWATCH_MACHINE_ID", "x");
    stranger.sync(service.other.folder.path(), "s3://bucket/good", &[], 0);
    service.configure(&[service.good()]);
    for is_late in [false, true] {
        let let_on = Arc::new(AtomicBool::new(!is_late));
        let gate = let_on.clone();
        service.scene.server.rule(move |_| Fault::Until(gate.clone()));
        let daemon = service.scene.user.start(&[]);
        if is_late {
            service.manager.until(|line| line == "READY=1");
            let_on.store(true, Ordering::SeqCst);
        }
        assert_eq!(daemon.wait(), 4);
        let heard = service.manager.heard();
        assert!(!heard.contains(&"READY=1".to_owned()), "{heard:?}");
    }
}

#[test]
fn a_source_on_a_mount_that_hangs_holds_up_nothing_but_its_own_backup() {
    let service = Service::new();
    let source = service.other.folder.path();
    let Some(hung) = Hung::over(source) else { return };
    let user = &service.scene.user;
    let third = Tree::new(&[("c", b"3")]);
    let third = |n| service.backup(&format!("third-{n}"), third.folder.path(), "");
    for is_let_go in [false, true] {
        service.configure(&[service.backup("hung", source, ""), service.good()]);
        let daemon = user.spawn(hung.beside(&user.command(&["watch"])));
        service.manager.until(|line| line == "READY=1");
        wait_for("the other backup", || service.has("good/a"));
        let waits = "hung waits for an answer from the disk of its source /";
        service.manager.until(|line| line.starts_with("STATUS=") && line.contains(waits));
        assert_eq!(backup(&daemon, "hung")["condition"], "waiting");
        // A reload looks at it, too.
        let n = u8::from(is_let_go);
        service.configure(&[service.backup("hung", source, ""), service.good(), third(n)]);
        daemon.signal("HUP");
        let file = format!("while it reads {n}");
        service.scene.tree.write(&file, b"1");
        wait_for("what changes meanwhile", || service.has(&format!("good/{file}")));
        promptly(user, &["pause", "good"], 0);
        promptly(user, &["resume", "good"], 0);
        wait_for("the third", || service.has(&format!("third-{n}/c")));
        if is_let_go {
            hung.let_go();
            wait_for("it to go on", || service.has("hung/b"));
        }
        service.ends_at_once(daemon);
    }
}

#[test]
fn a_sync_of_a_source_that_hangs_can_be_stopped() {
    let scene = Scene::new(&[("a", b"1")]);
    let Some(hung) = Hung::over(scene.tree.folder.path()) else { return };
    let sync = scene.user.command(&["sync", scene.source(), TO]);
    let sync = scene.user.spawn(hung.beside(&sync));
    wait_for("it to begin", || scene.user.state_folder().join("control.sock").exists());
    let told = Instant::now();
    assert_eq!(sync.stop(), 130);
    assert!(told.elapsed() < Duration::from_secs(6), "{:?}", told.elapsed());
}

#[test]
fn a_listing_that_is_denied_is_waited_for_and_no_other_owner() {
    let service = Service::new();
    service.scene.server.rule(|seen| match seen.query.contains("list-type=2") {
        true => Fault::Error(403, "AccessDenied"),
        false => Fault::Pass,
    });
    service.configure(&[service.good()]);
    let daemon = service.scene.user.watch(&[]);
    wait_for("it to wait", || backup(&daemon, "good")["condition"] == "waiting");
    let seen = backup(&daemon, "good");
    let why = seen["waiting_for"].as_str().unwrap();
    assert!(why.contains("cannot list s3://bucket/good") && why.contains("AccessDenied"), "{seen}");
    assert!(seen["error"].is_null() && !service.has("good/a"), "{seen}");
    // Another is seen as soon as it can be.
    service.scene.server.no_rule();
    wait_for("it to go on", || backup(&daemon, "good")["condition"] == "up-to-date");
    assert!(service.has("good/a"));
    service.ends_at_once(daemon);
}

#[test]
fn a_reload_waits_for_nothing() {
    let service = Service::new();
    service.configure(&[service.good()]);
    let daemon = service.scene.user.watch(&[]);
    service.manager.until(|line| line == "READY=1");
    let silent = Service { silent: Silent::new(), ..Service::new() };
    let reloaded = || {
        let told = Instant::now();
        daemon.signal("HUP");
        service.manager.until(|line| line == "RELOADING=1");
        service.manager.until(|line| line == "READY=1");
        let took = told.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
    };
    service.configure(&[service.good(), service.stuck()]);
    reloaded();
    assert_eq!(backup(&daemon, "stuck")["condition"], "starting");
    assert_eq!(backup(&daemon, "good")["condition"], "up-to-date");
    // More come, and are taken up, while that one is being started.
    let third = service.backup("third", silent.other.folder.path(), "");
    service.configure(&[service.good(), service.stuck(), third.clone()]);
    (0..9).for_each(|_| daemon.signal("HUP"));
    wait_for("the third", || service.has("third/b"));
    // What is being started ends as soon as it is not wanted any more.
    service.configure(&[service.good(), third]);
    reloaded();
    wait_for("it to go", || backup(&daemon, "stuck").is_null());
    service.configure(&[service.good(), service.stuck()]);
    daemon.signal("HUP");
    service.manager.heard();
    service.ends_at_once(daemon);
}

#[test]
fn a_disk_that_is_not_there_yet_is_waited_for() {
    let service = Service::new();
    let store = service.scene.user.home.path().join("store");
    let at = format!("file://{}", store.display());
    let source = service.other.folder.path().to_str().unwrap();
    let user = &service.scene.user;
    assert_eq!(user.run(&["sync", source, &at, "--create-bucket"]).code, 0);
    let aside = service.scene.user.home.path().join("aside");
    let entry =
        format!("[[backup]]\nname = \"disk\"\nsource = \"{source}\"\ndestination = \"{at}\"\n");
    service.configure(std::slice::from_ref(&entry));
    // Alone, and beside one that runs.
    for beside in [vec![], vec![service.good()]] {
        std::fs::rename(&store, &aside).unwrap();
        service.configure(&[vec![entry.clone()], beside].concat());
        let daemon = user.watch(&[]);
        let heard = service.manager.until(|line| line == "READY=1");
        let waits = "STATUS=disk waits to be started: there is no store in";
        if !heard.iter().any(|line| line.starts_with(waits)) {
            service.manager.until(|line| line.starts_with(waits));
        }
        let seen = backup(&daemon, "disk");
        assert_eq!(seen["condition"], "waiting", "{seen}");
        assert!(seen["waiting_for"].as_str().unwrap().contains("its disk is mounted"), "{seen}");
        service.other.write("while away", b"3");
        std::fs::rename(&aside, &store).unwrap();
        wait_for("it to go on", || backup(&daemon, "disk")["condition"] == "up-to-date");
        assert_eq!(user.run(&["flush"]).code, 0);
        service.ends_at_once(daemon);
    }
}

#[test]
fn a_sync_that_has_the_state_is_waited_for() {
    let service = Service::new();
    service.configure(&[service.good()]);
    let user = &service.scene.user;
    let state = user.state_folder();
    let source = service.other.folder.path().to_str().unwrap();
    let silent = service.silent.url();
    let sync = ["sync", source, TO, "--endpoint-url", &silent];
    let sync = user.spawn(user.command(&sync));
    wait_for("the sync to begin", || state.join("control.sock").exists());
    let holder = format!("another keepwatch (process {}) uses the state", sync.pid());
    let waits = format!("STATUS=waits to be started: {holder}");
    // A stop is heard meanwhile.
    let daemon = user.start(&[]);
    service.manager.until(|line| line.starts_with(&waits));
    service.ends_at_once(daemon);
    let daemon = user.start(&[]);
    service.manager.until(|line| line.starts_with(&waits));
    let heard = service.manager.until(|line| line.starts_with("EXTEND_TIMEOUT_USEC="));
    assert!(!heard.contains(&"READY=1".to_owned()), "{heard:?}");
    assert!(daemon.log().contains(&format!("waiting to be started: {holder}")), "{}", daemon.log());
    sync.kill();
    service.manager.until(|line| line == "READY=1");
    wait_for("the backup", || service.has("good/a"));
    service.ends_at_once(daemon);
}

#[test]
fn a_port_that_somebody_has_keeps_no_backup_from_its_work() {
    let service = Service::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    service.configure(&[service.good(), format!("[status]\nlisten = \"{at}\"\n")]);
    let daemon = service.scene.user.watch(&[]);
    wait_for("the backup", || service.has("good/a"));
    let log = daemon.log();
    assert!(log.contains("ERROR no metrics for now: cannot listen on"), "{log}");
    drop(taken);
    wait_for("the metrics", || daemon.log().contains("metrics are at"));
    assert!(crate::metrics::metrics(at).contains("keepwatch_"));
    service.ends_at_once(daemon);
}

#[test]
fn a_reload_takes_a_file_whose_port_somebody_has() {
    let service = Service::new();
    service.configure(&[service.good()]);
    let user = &service.scene.user;
    let daemon = user.watch(&[]);
    service.manager.until(|line| line == "READY=1");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let other = service.backup("other", service.other.folder.path(), "");
    service.configure(&[service.good(), other, format!("[status]\nlisten = \"{at}\"\n")]);
    daemon.signal("HUP");
    wait_for("the new backup", || service.has("other/b"));
    let status = daemon.status().unwrap();
    let why = format!("cannot listen on {at}");
    assert!(status["listen_error"].as_str().unwrap().starts_with(&why), "{status}");
    assert!(status["config_error"].is_null(), "{status}");
    let line = format!("STATUS=no metrics for now: {why}");
    service.manager.until(|told| told.starts_with(&line));
    let said = promptly(user, &["status"], 0);
    assert!(said.contains(&format!("no metrics for now: {why}")), "{said}");
    assert!(daemon.log().contains(&format!("ERROR no metrics for now: {why}")));
    drop(taken);
    wait_for("the metrics", || daemon.status().unwrap()["listen_error"].is_null());
    assert!(crate::metrics::metrics(at).contains("keepwatch_"));
    service.ends_at_once(daemon);
}

#[test]
fn a_source_that_cannot_be_looked_at_is_waited_for() {
    let service = Service::new();
    let Service { manager, scene, silent, other } = service;
    let scene = scene.by(User::bound_by_modes);
    let service = Service { manager, scene, silent, other };
    let source = service.other.path("deep/source");
    std::fs::create_dir_all(&source).unwrap();
    std::fs::write(source.join("file"), b"1").unwrap();
    let set_mode = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(service.other.path("deep"), mode).unwrap();
    };
    set_mode(0o000);
    service.configure(&[service.backup("closed", &source, "rescan = \"1s\"")]);
    let daemon = service.scene.user.watch(&[]);
    wait_for("it to wait", || backup(&daemon, "closed")["condition"] == "waiting");
    service.manager.until(|line| line.starts_with("STATUS=closed waits: "));
    set_mode(0o700);
    wait_for("it to go on", || service.has("closed/file"));
    service.ends_at_once(daemon);
}

#[test]
fn the_line_of_the_status_hides_nothing() {
    let service = Service::new();
    let Service { manager, scene, silent, other } = service;
    let scene = scene.by(User::bound_by_modes);
    let service = Service { manager, scene, silent, other };
    service.scene.tree.write("closed/file", b"1");
    let set_mode = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(service.scene.tree.path("closed"), mode).unwrap();
    };
    set_mode(0o000);
    service.configure(&[service.good()]);
    let daemon = service.scene.user.watch(&[]);
    service.manager.until(|line| line == "STATUS=good cannot read 1 path");
    service.configure(&["colour = 1\n".to_owned(), service.good()]);
    daemon.signal("HUP");
    let line = "STATUS=the configuration file is refused, see: keepwatch status; good cannot read";
    service.manager.until(|told| told.starts_with(line));
    set_mode(0o700);
    service.ends_at_once(daemon);
}

#[test]
fn an_unknown_request_has_an_answer() {
    let scene = Scene::new(&[("a", b"1")]);
    let daemon = scene.follow(&[]);
    for request in ["{\"request\":\"dance\"}\n", "no json\n"] {
        let mut socket =
            UnixStream::connect(scene.user.state_folder().join("control.sock")).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let lines: Vec<String> = BufReader::new(socket).lines().map(Result::unwrap).collect();
        let answer: Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!(answer["error"]["message"], "this daemon does not know that request");
        let hint = answer["error"]["hint"].as_str().unwrap();
        assert!(hint.contains("older keepwatch") && hint.contains("restart it"), "{answer}");
    }
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn what_ends_the_daemon_is_an_error_in_the_journal() {
    let user = User::new();
    for (args, code) in [(&["watch"][..], 4), (&["watch", "--colour"], 2)] {
        let (mut journal, stderr) = UnixStream::pair().unwrap();
        let stderr = std::os::fd::OwnedFd::from(stderr);
        let is = std::fs::File::from(stderr.try_clone().unwrap()).metadata().unwrap();
        let mut command = user.command(args);
        command.env("JOURNAL_STREAM", format!("{}:{}", is.dev(), is.ino()));
        let mut child = command.stderr(Stdio::from(stderr)).stdin(Stdio::null()).spawn().unwrap();
        drop(command);
        assert_eq!(child.wait().unwrap().code(), Some(code));
        let mut said = String::new();
        journal.read_to_string(&mut said).unwrap();
        assert!(said.lines().count() > 1 && said.contains("<3>error: "), "{said}");
        assert!(said.lines().all(|line| line.starts_with("<3>")), "{said}");
    }
}
