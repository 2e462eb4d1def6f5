//! Keys that change, expire or are wrong while it runs: the work waits, says what for, and goes on
//! by itself. Nothing is started anew, sent twice, or counted as a failure of a file.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::bucket::Bucket;
use crate::support::external::garage;
use crate::support::program::{Daemon, User};
use crate::support::scene::{Scene, TO};
use crate::support::server::Fault;
use crate::support::tools;
use crate::support::tree::{Tree, differences};
use crate::support::{wait_for, write_secret};

/// An access key and its secret.
type Pair = (&'static str, &'static str);

const FIRST: Pair = ("key-1", "secret-1");
const SECOND: Pair = ("key-2", "secret-2");
const THIRD: Pair = ("key-3", "secret-3");

fn text((key, secret): Pair, token: &str) -> String {
    let token =
        if token.is_empty() { "".to_owned() } else { format!("aws_session_token={token}\n") };
    format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n{token}")
}

type Replace = fn(&Path, &str);

/// As careful people replace a file, and careless ones.
fn renamed(file: &Path, text: &str) {
    let new = file.with_extension("new");
    write_secret(&new, text);
    std::fs::rename(new, file).unwrap();
}

fn in_place(file: &Path, text: &str) {
    write_secret(file, text);
}

/// A user who has keys in a file only.
fn holder(endpoint: &str) -> (User, PathBuf) {
    let user = User::new()
        .with_variable("AWS_ENDPOINT_URL", endpoint)
        .with_variable("AWS_REGION", "us-east-1");
    let file = user.home.path().join("keys");
    (user, file)
}

fn waits_for(daemon: &Daemon<'_>, what: &str) {
    let waiting = || daemon.backup()["waiting_for"].to_string();
    wait_for("the wait to be told", || waiting().contains(what));
    assert_eq!(daemon.backup()["condition"], "waiting");
}

/// All is kept again, by nobody's doing but the daemon's.
fn goes_on(daemon: &Daemon<'_>) {
    wait_for("the wait to be over", || daemon.backup()["waiting_for"].is_null());
    let backup = daemon.backup();
    assert_eq!(backup["failing"], 0, "{backup}");
    assert!(!daemon.log().contains("failed"), "{}", daemon.log());
}

#[test]
fn a_file_of_keys_is_replaced_while_it_runs() {
    let scene = Scene::new(&[("a", b"1"), ("b", b"2"), ("folder/c", b"3")]);
    let (user, file) = holder(&scene.server.reach.endpoint);
    scene.server.knows(&[FIRST]);
    write_secret(&file, &text(FIRST, ""));
    let daemon = user.watch(&scene.quick(&["--credentials-file", file.to_str().unwrap()]));
    scene.comes_right(&daemon);
    for (replace, keys) in [(renamed as Replace, SECOND), (in_place, THIRD)] {
        scene.server.knows(&[keys]);
        scene.tree.write(keys.0, b"written meanwhile");
        scene.tree.remove(if keys == SECOND { "a" } else { "b" });
        waits_for(&daemon, "InvalidAccessKeyId");
        replace(&file, &text(keys, ""));
        scene.comes_right(&daemon);
        goes_on(&daemon);
    }
    // A slip of the pen, mended.
    scene.server.knows(&[FIRST]);
    scene.tree.write("mended", b"5");
    for (wrong, told) in [
        (text((FIRST.0, "secret-?"), ""), "SignatureDoesNotMatch"),
        ("[default\n".to_owned(), "no usable credentials"),
        ("[other]\n".to_owned(), "no credentials in"),
    ] {
        renamed(&file, &wrong);
        waits_for(&daemon, told);
    }
    // Good keys that others can read are not taken, until they cannot.
    let (new, mode) = (file.with_extension("new"), std::fs::Permissions::from_mode);
    write_secret(&new, &text(FIRST, ""));
    std::fs::set_permissions(&new, mode(0o644)).unwrap();
    std::fs::rename(new, &file).unwrap();
    waits_for(&daemon, "others can read");
    std::fs::set_permissions(&file, mode(0o600)).unwrap();
    scene.comes_right(&daemon);
    goes_on(&daemon);
    for key in ["a", "b", "folder/c", SECOND.0, THIRD.0, "mended"] {
        assert_eq!(scene.requests("PutObject", key), 1, "{key} was sent twice");
    }
    assert!(!daemon.log().contains("reload"), "{}", daemon.log());
    assert_eq!(daemon.stop(), 0);
}

/// The parts that were sent stay, and no second upload is begun.
#[test]
fn a_session_ends_in_the_middle_of_a_large_file() {
    const PART: usize = 5 * 1024 * 1024;
    let scene = Scene::new(&[("small", b"1")]);
    let (user, file) = holder(&scene.server.reach.endpoint);
    scene.server.knows(&[FIRST]);
    write_secret(&file, &text(FIRST, "session-1"));
    let (good, parts) = (Arc::new(Mutex::new("session-1")), Arc::new(AtomicUsize::new(0)));
    let current = good.clone();
    scene.server.rule(move |seen| {
        let mut good = current.lock().unwrap();
        let is_part = seen.query.contains("partNumber");
        if is_part && parts.fetch_add(1, Ordering::SeqCst) == 2 {
            *good = "session-2";
        }
        // The test's own look.
        let is_own = seen.key != FIRST.0;
        if is_own || seen.token == *good { Fault::Pass } else { Fault::Error(400, "ExpiredToken") }
    });
    let more = ["--credentials-file", file.to_str().unwrap(), "--transfers", "1"];
    let more = [&more[..], &["--part-size", "5MiB", "--multipart-threshold", "5MiB"]].concat();
    let daemon = user.watch(&scene.quick(&more));
    daemon.flush();
    scene.tree.write("large", &vec![7; 4 * PART]);
    waits_for(&daemon, "ExpiredToken");
    assert_eq!(*good.lock().unwrap(), "session-2");
    renamed(&file, &text(FIRST, "session-2"));
    scene.comes_right(&daemon);
    goes_on(&daemon);
    assert_eq!(scene.uploads("CreateMultipartUpload").len(), 1);
    assert_eq!(scene.uploads("UploadPart").len(), 4);
    assert_eq!(scene.requests("PutObject", "small"), 1);
    assert_eq!(daemon.stop(), 0);
}

/// A server of others, which has one code for what may not be done and for keys that are wrong.
#[test]
fn keys_of_garage_are_deleted_and_new_ones_made() {
    let server = garage();
    let command = |words: &[&str]| {
        let config = server.folder.path().join("garage.toml");
        let done =
            Command::new(tools::garage()).arg("-c").arg(config).args(words).output().unwrap();
        assert!(done.status.success(), "{words:?}: {done:?}");
    };
    let allow = |key: &str| {
        command(&["bucket", "allow", "--read", "--write", "bucket", "--key", key]);
    };
    let make = |key: &str, secret: &str| {
        command(&["key", "import", "--yes", key, secret, "-n", "rotated"]);
        allow(key);
    };
    command(&["bucket", "create", "bucket"]);
    allow(&server.reach.access_key);
    let bucket = Bucket::open(&server.reach, "bucket");
    let ids = ["01", "02"].map(|n| (format!("GK{}", n.repeat(12)), n.repeat(32)));
    let (user, file) = holder(&server.reach.endpoint);
    let user = user.with_variable("AWS_REGION", &server.reach.region);
    let file_of = |(key, secret): &(String, String)| {
        format!("[default]\naws_access_key_id={key}\naws_secret_access_key={secret}\n")
    };
    make(&ids[0].0, &ids[0].1);
    write_secret(&file, &file_of(&ids[0]));
    let tree = Tree::new(&[("a", b"1"), ("b", b"2")]);
    let source = tree.folder.path().to_str().unwrap();
    let args = ["--settle", "100ms", "--credentials-file", file.to_str().unwrap()];
    let daemon = user.watch(&[&[source, TO], &args[..]].concat());
    let is_kept = || differences(&tree, &bucket, "p/").is_empty();
    wait_for("the first keys to do", is_kept);
    command(&["key", "delete", "--yes", &ids[0].0]);
    tree.write("c", b"3");
    tree.write("d", b"4");
    waits_for(&daemon, "No such key");
    make(&ids[1].0, &ids[1].1);
    renamed(&file, &file_of(&(ids[1].0.clone(), "00".repeat(32))));
    waits_for(&daemon, "Invalid signature");
    renamed(&file, &file_of(&ids[1]));
    wait_for("the second keys to do", is_kept);
    goes_on(&daemon);
    assert_eq!(daemon.stop(), 0);
}
