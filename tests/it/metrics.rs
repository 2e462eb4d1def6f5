//! `/metrics`: the documented names, true numbers, and nobody else served.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use crate::documented::documented;
use crate::support::external::free_port;
use crate::support::program::Daemon;
use crate::support::scene::Scene;
use crate::support::server::Fault;
use crate::support::wait_for;

fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

fn configure(scene: &Scene, listen: Option<SocketAddr>) {
    let listen = listen.map_or(String::new(), |at| format!("[status]\nlisten = \"{at}\"\n"));
    let folder = scene.user.home.path().join(".config/keepwatch");
    std::fs::create_dir_all(&folder).unwrap();
    let source = scene.source();
    let text = format!(
        "settle = \"50ms\"\n[[backup]]\nname = \"a\\\\b\"\nsource = \"{source}\"\n\
         destination = \"s3://bucket/p\"\n{listen}"
    );
    std::fs::write(folder.join("keepwatch.toml"), text).unwrap();
}

/// Status and body of the answer to a request for this path and host.
fn ask(at: SocketAddr, path: &str, host: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(at).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    assert!(!body.is_empty() || head.contains("content-length: 0"), "{answer}");
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

pub fn metrics(at: SocketAddr) -> String {
    let (status, body) = ask(at, "/metrics", &at.to_string()).unwrap();
    assert_eq!(status, 200, "{body}");
    body
}

/// The value of a line.
fn value(text: &str, line: &str) -> Option<f64> {
    let found = text.lines().find_map(|known| known.strip_prefix(line)?.strip_prefix(' '))?;
    Some(found.parse().unwrap())
}

fn of(text: &str, name: &str) -> Option<f64> {
    value(text, &format!("keepwatch_{name}{{backup=\"a\\\\b\"}}"))
}

fn start(scene: &Scene, at: SocketAddr) -> Daemon<'_> {
    configure(scene, Some(at));
    let daemon = scene.user.watch(&[]);
    daemon.flush();
    daemon
}

#[test]
fn the_documented_names_and_no_others() {
    let (scene, at) = (Scene::with_files(3), free_address());
    let daemon = start(&scene, at);
    wait_for("the proof", || of(&metrics(at), "watermark_timestamp_seconds").is_some());
    let text = metrics(at);
    let kinds: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let named: BTreeSet<String> = kinds.keys().map(|&name| name.to_owned()).collect();
    assert_eq!(named, documented("metrics.md", "# Metrics", "name"));
    for (name, kind) in &kinds {
        assert_eq!(*kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        let lines = || text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        let known = lines().count() > 0 || text.contains(&format!("\n{name} "));
        assert!(known, "{name} has no line:\n{text}");
    }
    promtool_accepts(&text);
    for (name, wanted) in [
        ("files", 3.0),
        ("files_bytes", 3.0),
        ("uploaded_files_total", 3.0),
        ("pending_files", 0.0),
        ("watcher_complete", 1.0),
        ("started", 1.0),
        ("paused", 0.0),
        ("held_deletions", 0.0),
    ] {
        assert_eq!(of(&text, name), Some(wanted), "{name}:\n{text}");
    }
    let condition =
        |word: &str| format!("keepwatch_condition{{backup=\"a\\\\b\",condition=\"{word}\"}}");
    assert_eq!(value(&text, &condition("up-to-date")), Some(1.0), "{text}");
    assert_eq!(value(&text, &condition("paused")), Some(0.0));
    assert_eq!(daemon.stop(), 0);
}

/// The linter of Prometheus, where it is installed.
fn promtool_accepts(text: &str) {
    let mut linter = Command::new("promtool");
    linter.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut child) = linter.stderr(Stdio::piped()).spawn() else {
        println!("promtool is not installed");
        return;
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn what_goes_wrong_is_counted() {
    let (scene, at) = (Scene::with_files(2), free_address());
    let daemon = start(&scene, at);
    let requests = |kind: &str, result: &str| {
        let labels = format!("backup=\"a\\\\b\",kind=\"{kind}\",result=\"{result}\"");
        value(&metrics(at), &format!("keepwatch_requests_total{{{labels}}}")).unwrap()
    };
    assert!(requests("put", "ok") >= 3.0, "two files and the owner record");
    assert_eq!((requests("put", "failed"), requests("put", "lost")), (0.0, 0.0));
    let puts = std::sync::atomic::AtomicUsize::new(0);
    scene.server.rule(move |seen| match seen.method {
        "PUT" => match puts.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Fault::Error(503, "ServiceUnavailable"),
            1 => Fault::Close,
            _ => Fault::Pass,
        },
        _ => Fault::Pass,
    });
    scene.tree.write("new", b"1");
    scene.comes_right(&daemon);
    wait_for("the counts", || requests("put", "failed") == 1.0 && requests("put", "lost") == 1.0);
    scene.user.run(&["pause", "--all"]);
    scene.tree.write("new", b"22");
    wait_for("the change to grow old", || {
        of(&metrics(at), "oldest_change_age_seconds") > Some(0.3)
    });
    assert_eq!(of(&metrics(at), "paused"), Some(1.0));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn on_loopback_where_it_is_wanted() {
    let (scene, at, next) = (Scene::with_files(1), free_address(), free_address());
    let daemon = start(&scene, at);
    assert_eq!(ask(at, "/", &at.to_string()).unwrap().0, 404);
    let (status, told) = ask(at, "/metrics", "example.com").unwrap();
    assert_eq!((status, told.contains("keepwatch_")), (403, false));
    configure(&scene, Some(next));
    daemon.signal("HUP");
    wait_for("the other address", || ask(next, "/metrics", "localhost").is_some());
    assert!(TcpStream::connect(at).is_err(), "the former one is left");
    // An address that somebody has: the file holds all the same.
    let taken = TcpListener::bind(at).unwrap();
    configure(&scene, Some(at));
    daemon.signal("HUP");
    wait_for("the trouble", || daemon.status().unwrap()["listen_error"].is_string());
    assert!(TcpStream::connect(next).is_err(), "the former one is left");
    drop(taken);
    // Read again, it is tried at once.
    daemon.signal("HUP");
    wait_for("the address", || ask(at, "/metrics", "localhost").is_some());
    assert_eq!(value(&metrics(at), "keepwatch_config_refused"), Some(0.0));
    configure(&scene, None);
    daemon.signal("HUP");
    wait_for("it to be off", || TcpStream::connect(at).is_err());
    assert!(daemon.status().unwrap()["listen_error"].is_null());
    assert_eq!(daemon.stop(), 0);
    let folder = scene.user.home.path().join(".config/keepwatch/keepwatch.toml");
    let text = std::fs::read_to_string(&folder).unwrap();
    for (wrong, words) in [
        ("listen = \"0.0.0.0:8385\"", "must be on this machine's loopback"),
        ("listen = \"8385\"", "write an address and a port"),
        ("lisen = \"127.0.0.1:8385\"", "there is an option listen"),
    ] {
        std::fs::write(&folder, format!("{text}[status]\n{wrong}\n")).unwrap();
        let said = scene.user.run(&["config", "check"]);
        assert_eq!(said.code, 4, "{said:?}");
        assert!(said.stderr.contains(words), "{said:?}");
    }
}
