//! When the destination is not as it should be: each trouble has its exit code, or is waited for;
//! and the error names the thing, the cause and the next step.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Mutex;

use crate::support::bucket::Bucket;
use crate::support::external::{free_port, garage};
use crate::support::program::{Said, User};
use crate::support::scene::{Scene, TO};
use crate::support::server::{Fault, Reach, Seen};
use crate::support::tree::{Tree, differences};
use crate::support::wait_for;

/// All of these words are in what was said to the person.
fn tells(said: &Said, words: &[&str]) {
    for word in words {
        assert!(said.stderr.contains(word), "{word:?} is not in:\n{}", said.stderr);
    }
}

/// What is asked for first.
const OWNER: &str = "error: cannot read s3://bucket/p/.keepwatch/owner.json";
/// A destination is given up after a second.
const SOON: [&str; 2] = ["--retry-for", "1s"];

fn is_put(seen: &Seen<'_>) -> bool {
    seen.method == "PUT" && !seen.path.contains(".keepwatch/")
}

#[test]
fn wrong_credentials() {
    let scene = Scene::with_files(2);
    for (reach, code) in [
        (
            Reach { access_key: "nobody".to_owned(), ..scene.server.reach.clone() },
            "InvalidAccessKeyId",
        ),
        (
            Reach { secret_key: "wr0ng".to_owned(), ..scene.server.reach.clone() },
            "SignatureDoesNotMatch",
        ),
    ] {
        let said = User::of(&reach).sync(scene.tree.folder.path(), TO, &["-vvv"], 4);
        let hint = "hint: check the access key and the secret key";
        tells(&said, &[OWNER, &format!("caused by: {code}"), hint]);
        assert_eq!(said.json()["result"], "error");
        assert!(said.json()["error"].as_str().unwrap().contains(code));
        assert!(!said.stderr.contains(&reach.secret_key), "a secret was told");
    }
    assert_eq!(scene.bucket.keys(), [""; 0]);
    let nobody = User::new().with_variable("AWS_ENDPOINT_URL", &scene.server.reach.endpoint);
    let said = nobody.sync(scene.tree.folder.path(), TO, &[], 4);
    let hint = "hint: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
    tells(&said, &["caused by: there are no credentials: not in the environment", hint]);
    let said = nobody.sync(scene.tree.folder.path(), TO, &["--profile", "nightly"], 4);
    tells(&said, &["caused by: there are no credentials in the profile nightly", hint]);
    let missing = ["--credentials-file", "/not/there"];
    let said = nobody.sync(scene.tree.folder.path(), TO, &missing, 4);
    tells(&said, &["caused by: no usable credentials", "/not/there", hint]);
}

#[test]
fn wrong_credentials_on_garage() {
    let server = garage();
    Bucket::create(&server.reach, "bucket");
    let tree = Tree::new(&[("a", b"1")]);
    let reach = Reach { access_key: format!("GK{}", "00".repeat(12)), ..server.reach.clone() };
    let said = User::of(&reach).sync(tree.folder.path(), TO, &[], 4);
    tells(&said, &[OWNER, "AccessDenied", "hint: "]);
    let reach = Reach { secret_key: "00".repeat(32), ..server.reach.clone() };
    let said = User::of(&reach).sync(tree.folder.path(), TO, &[], 4);
    tells(&said, &[OWNER, "AccessDenied", "hint: "]);
}

#[test]
fn a_daemon_waits_for_the_right_credentials() {
    let scene = Scene::with_files(2);
    let file = scene.user.home.path().join("keys");
    let write = |secret: &str| {
        let key = &scene.server.reach.access_key;
        let text =
            format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
        crate::support::write_secret(&file, &text);
    };
    write("wrong");
    let daemon = scene.watch(&["--credentials-file", file.to_str().unwrap()]);
    let waits_for = |what: &str| daemon.backup()["waiting_for"].to_string().contains(what);
    wait_for("the wait to be told", || waits_for("SignatureDoesNotMatch"));
    assert_eq!(daemon.backup()["condition"], "waiting");
    assert!(daemon.log().contains("waiting: cannot read s3://bucket/p/"), "{}", daemon.log());
    write(&scene.server.reach.secret_key);
    wait_for("the backup to go on", || scene.differences().is_empty());
    wait_for("the wait to be over", || daemon.backup()["waiting_for"].is_null());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_missing_bucket() {
    let scene = Scene::with_files(2);
    let source = scene.tree.folder.path();
    let said = scene.user.sync(source, "s3://nowhere/p", &[], 4);
    let hint = "hint: check the bucket's name, or have it made with --create-bucket";
    tells(&said, &["error: ", "s3://nowhere/p/", "NoSuchBucket", hint]);
    // Asked for, it is made.
    scene.user.sync(source, "s3://nowhere/p", &["--create-bucket"], 0);
    let bucket = Bucket::open(&scene.server.reach, "nowhere");
    assert_eq!(differences(&scene.tree, &bucket, "p/"), [""; 0]);
    // A daemon waits for it.
    let daemon = scene.user.watch(&[scene.source(), "s3://later/p"]);
    let waiting = || daemon.backup()["waiting_for"].to_string();
    wait_for("the wait to be told", || waiting().contains("NoSuchBucket"));
    let bucket = Bucket::create(&scene.server.reach, "later");
    wait_for("the backup to go on", || differences(&scene.tree, &bucket, "p/").is_empty());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_bucket_in_another_region() {
    let scene = Scene::with_files(2);
    scene.server.rule(|seen| match seen.region.as_str() {
        "eu-north-1" => Fault::Pass,
        _ => Fault::InRegion("eu-north-1"),
    });
    scene.sync(&[], 0);
    scene.server.no_rule();
    scene.is_kept();
    // One that cannot be corrected.
    scene.server.rule(|_| Fault::Error(400, "IllegalLocationConstraintException"));
    let said = scene.sync(&[], 4);
    tells(&said, &["IllegalLocationConstraintException", "hint: the bucket is in another region"]);
    scene.server.rule(|_| Fault::InRegion("mars-west-1"));
    let said = scene.sync(&[], 4);
    tells(
        &said,
        &["PermanentRedirect", "hint: the bucket is in mars-west-1: set --region mars-west-1"],
    );

    let server = garage();
    let bucket = Bucket::create(&server.reach, "bucket");
    let user = User::of(&Reach { region: "us-east-1".to_owned(), ..server.reach.clone() });
    user.sync(scene.tree.folder.path(), TO, &[], 0);
    assert_eq!(differences(&scene.tree, &bucket, "p/"), [""; 0]);
}

#[test]
fn a_closed_port() {
    let tree = Tree::new(&[("a", b"1"), ("b", b"2")]);
    let port = free_port();
    let reach = Reach {
        endpoint: format!("http://127.0.0.1:{port}"),
        access_key: "key".to_owned(),
        secret_key: "secret-secret".to_owned(),
        region: "us-east-1".to_owned(),
    };
    let user = User::of(&reach);
    let said = user.sync(tree.folder.path(), TO, &SOON, 5);
    tells(&said, &[OWNER, &format!("127.0.0.1:{port}"), "refused", "hint: "]);
    let said = user.sync(
        tree.folder.path(),
        TO,
        &["--endpoint-url", "http://nowhere.invalid", "--retry-for", "1s"],
        5,
    );
    tells(&said, &["nowhere.invalid", "hint: check the network and the endpoint"]);

    // A daemon waits until somebody listens.
    let daemon = user.watch(&[tree.folder.path().to_str().unwrap(), TO, "--create-bucket"]);
    wait_for("the wait to be told", || {
        daemon.backup()["waiting_for"].to_string().contains("refused")
    });
    let said = user.run(&["flush", "--timeout", "1s"]);
    assert_eq!(said.code, 5, "{said:?}");
    tells(&said, &["not done in time", "refused"]);
    let store = format!("file://{}", user.home.path().join("store").display());
    let mut serve = user.command(&["serve", &store, "--listen", &format!("127.0.0.1:{port}")]);
    let mut serve = serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let bucket = Bucket::open(&reach, "bucket");
    wait_for("the backup to go on", || {
        let is_there = bucket.client.head_bucket().bucket("bucket").send();
        bucket.run(is_there).is_ok() && differences(&tree, &bucket, "p/").is_empty()
    });
    assert!(daemon.log().contains("going on after"), "{}", daemon.log());
    assert_eq!(daemon.stop(), 0);
    serve.kill().unwrap();
    serve.wait().unwrap();
}

#[test]
fn answers_in_html() {
    let scene = Scene::with_files(3);
    for status in [200, 403, 404, 503] {
        scene.server.rule(move |_| Fault::Html(status));
        let said = scene.sync(&SOON, 5);
        tells(&said, &[OWNER, "hint: "]);
    }
    // One in place of a listing does not mean that the bucket is empty.
    let is_list = |seen: &Seen<'_>| seen.query.contains("list-type=2");
    scene.server.rule(move |seen| if is_list(seen) { Fault::Html(200) } else { Fault::Pass });
    assert_eq!(scene.sync(&SOON, 5).number("uploaded"), 0);
    // A page in place of an upload's reply is no upload; likewise with a deletion.
    scene.server.rule(|seen| if is_put(seen) { Fault::Html(200) } else { Fault::Pass });
    let said = scene.sync(&[], 1);
    assert_eq!((said.number("uploaded"), said.number("failed")), (0, 3), "{said:?}");
    scene.server.no_rule();
    assert_eq!(scene.sync(&[], 0).number("uploaded"), 3);
    scene.is_settled(0);
    scene.tree.remove("f/1");
    let is_delete = |seen: &Seen<'_>| seen.method == "DELETE" || seen.method == "POST";
    scene.server.rule(move |seen| if is_delete(seen) { Fault::Html(200) } else { Fault::Pass });
    let said = scene.sync(&SOON, 5);
    assert_eq!((said.number("deleted"), scene.has("f/1")), (0, true), "{said:?}");
    scene.server.no_rule();
    assert_eq!(scene.sync(&[], 0).number("deleted"), 1);
    scene.is_settled(0);
}

#[test]
fn a_server_that_takes_no_checksums() {
    for (status, code) in [(400, "InvalidArgument"), (501, "NotImplemented")] {
        let scene = Scene::with_files(3);
        scene.tree.write("large", &vec![7; 20 << 20]);
        scene.server.rule(move |seen| match seen.has_checksum {
            true => Fault::Error(status, code),
            false => Fault::Pass,
        });
        let said = scene.sync(&["--multipart-threshold", "8MiB"], 0);
        assert_eq!((said.number("uploaded"), said.number("failed")), (4, 0), "{said:?}");
        scene.is_kept();
    }
}

#[test]
fn a_redirect_to_nowhere() {
    let scene = Scene::with_files(3);
    scene.server.rule(|_| Fault::Moved);
    let said = scene.sync(&SOON, 4);
    tells(
        &said,
        &["status 301", "hint: the endpoint redirects: check --endpoint-url and --region"],
    );
    // It is no success either where only uploads meet it.
    scene.server.rule(|seen| if is_put(seen) { Fault::Moved } else { Fault::Pass });
    let said = scene.sync(&SOON, 4);
    assert_eq!(said.number("uploaded"), 0, "{said:?}");
    scene.server.no_rule();
    assert_eq!(scene.sync(&[], 0).number("uploaded"), 3);
    scene.is_settled(0);
}

/// A fault for the first request on each path.
fn once_each(fault: Fault, fits: fn(&Seen<'_>) -> bool) -> impl Fn(&Seen<'_>) -> Fault {
    let met: Mutex<BTreeSet<String>> = Mutex::default();
    move |seen| match fits(seen) && met.lock().unwrap().insert(seen.path.clone()) {
        true => fault.clone(),
        false => Fault::Pass,
    }
}

#[test]
fn replies_that_are_lost() {
    let scene = Scene::with_files(20);
    scene.tree.write("large", &vec![7; 12 << 20]);
    let parts = ["--multipart-threshold", "5MiB", "--part-size", "5MiB"];
    for fault in [Fault::DropReply, Fault::Close, Fault::Error(500, "InternalError")] {
        scene.server.rule(once_each(fault, |seen| seen.method != "GET"));
        let said = scene.sync(&parts, 0);
        assert_eq!(said.number("failed"), 0, "{said:?}");
        scene.server.no_rule();
        scene.is_settled(0);
        assert_eq!(scene.bucket.open_uploads(), [""; 0]);
        // Everything changes for the next kind of trouble.
        scene.tree.write("large", &vec![said.number("uploaded") as u8; 11 << 20]);
        (0..10).for_each(|n| scene.tree.write(format!("f/{n}"), said.stdout.as_bytes()));
        (10..20).for_each(|n| drop(std::fs::remove_file(scene.tree.path(format!("f/{n}")))));
    }
}

#[test]
fn one_key_that_is_always_failed() {
    let scene = Scene::with_files(8);
    let bad = |seen: &Seen<'_>| match seen.path.as_str() {
        "/bucket/p/f/3" => Fault::Error(503, "ServiceUnavailable"),
        _ => Fault::Pass,
    };
    scene.server.rule(bad);
    let said = scene.sync(&[], 1);
    assert_eq!((said.number("uploaded"), said.number("failed")), (7, 1), "{said:?}");
    tells(&said, &["failed: f/3: ", "s3://bucket/p/f/3", "status 503"]);
    assert_eq!(said.json()["result"], "failed");
    // Only that one is tried again.
    scene.tree.write("new", b"new");
    scene.server.no_rule();
    let said = scene.sync(&["--failed-only"], 0);
    assert_eq!((said.number("uploaded"), said.number("failed")), (1, 0), "{said:?}");
    assert!(!scene.has("new"));
    assert_eq!(scene.sync(&[], 0).number("uploaded"), 1);
    scene.is_settled(0);

    // A daemon goes on with the others, says so, and tries that one again.
    scene.server.rule(bad);
    let daemon = scene.watch(&["--settle", "50ms"]);
    scene.tree.write("f/3", b"changed");
    scene.tree.write("f/4", b"changed too");
    let is_there = |key: &str, body: &[u8]| scene.bucket.get(key).is_some_and(|o| o.body == body);
    scene.server.rule(move |seen| match bad(seen) {
        Fault::Error(..) if seen.method == "PUT" => Fault::Error(503, "ServiceUnavailable"),
        _ => Fault::Pass,
    });
    wait_for("the other file", || is_there("p/f/4", b"changed too"));
    wait_for("the failure to be told", || daemon.backup()["failing"] == 1);
    assert_eq!(daemon.backup()["condition"], "failing");
    assert!(daemon.log().contains("f/3: "), "{}", daemon.log());
    assert!(daemon.backup()["waiting_for"].is_null(), "the destination is there");
    scene.server.no_rule();
    wait_for("that file too", || is_there("p/f/3", b"changed"));
    wait_for("the failure to be over", || daemon.backup()["failing"] == 0);
}

#[test]
fn one_key_that_something_else_answers() {
    // A firewall that does not like one file: the destination is there all the same.
    for fault in [Fault::Html(403), Fault::Close] {
        let scene = Scene::with_files(6);
        scene.server.rule(move |seen| match (seen.method, seen.path.as_str()) {
            ("PUT", "/bucket/p/f/3") => fault.clone(),
            _ => Fault::Pass,
        });
        let said = scene.sync(&[], 1);
        assert_eq!((said.number("uploaded"), said.number("failed")), (5, 1), "{said:?}");
        tells(&said, &["failed: f/3: cannot upload s3://bucket/p/f/3"]);
    }
}

#[test]
fn deletions_that_are_refused() {
    let scene = Scene::with_files(3);
    scene.sync(&[], 0);
    scene.tree.remove("f/1");
    for (code, exit) in [("AccessDenied", 4), ("InternalError", 5)] {
        let status = if exit == 4 { 403 } else { 500 };
        scene.server.rule(move |seen| match seen.method {
            "POST" | "DELETE" => Fault::Error(status, code),
            _ => Fault::Pass,
        });
        let said = scene.sync(&[], exit);
        tells(&said, &["error: cannot delete 1 object", "s3://bucket/p/", code]);
        assert!(scene.has("f/1"));
    }
    scene.server.no_rule();
    assert_eq!(scene.sync(&[], 0).number("deleted"), 1);
    scene.is_kept();
}

#[test]
fn one_key_that_is_denied() {
    let scene = Scene::with_files(4);
    scene.server.rule(|seen| match seen.path.as_str() {
        "/bucket/p/f/3" => Fault::Error(403, "AccessDenied"),
        _ => Fault::Pass,
    });
    let said = scene.sync(&[], 1);
    assert_eq!((said.number("uploaded"), said.number("failed")), (3, 1), "{said:?}");
    tells(&said, &["failed: f/3: ", "AccessDenied"]);
    // Denied altogether, a person must act.
    scene.server.rule(|_| Fault::Error(403, "AccessDenied"));
    let said = scene.sync(&[], 4);
    tells(
        &said,
        &[OWNER, "caused by: AccessDenied", "hint: check the credentials, and that their user"],
    );
}

#[test]
fn a_server_that_fails_or_asks_for_patience() {
    let scene = Scene::with_files(30);
    scene.server.rule(once_each(Fault::Error(503, "SlowDown"), is_put));
    let said = scene.sync(&[], 0);
    assert_eq!((said.number("uploaded"), said.number("failed")), (30, 0), "{said:?}");
    scene.server.no_rule();
    scene.is_settled(0);
    scene.tree.write("new", b"new");
    scene.server.rule(|_| Fault::Error(500, "InternalError"));
    let said = scene.sync(&SOON, 5);
    tells(&said, &[OWNER, "InternalError"]);
    scene.server.rule(|seen| match is_put(seen) {
        true => Fault::Error(503, "ServiceUnavailable"),
        false => Fault::Pass,
    });
    // The server answers, only not to this.
    let said = scene.sync(&SOON, 1);
    assert_eq!(said.number("failed"), 1, "{said:?}");
}

#[test]
fn all_that_lies_beyond_the_file_is_told_at_its_entry() {
    let user = User::new();
    let home = user.home.path().display().to_string();
    let entry = |source: &str, name: &str| {
        let to = format!("destination = \"s3://bucket/{name}\"");
        format!("[[backup]]\nname = \"{name}\"\nsource = \"{source}\"\n{to}\n")
    };
    let file = [
        entry(&home, "all"),
        entry(&format!("{home}/docs"), "docs"),
        entry(&format!("{home}/.local"), "more"),
        "colour = 1\n".to_owned(),
    ];
    let path = user.home.path().join("keepwatch.toml");
    let path = path.to_str().unwrap();
    for wrong in [2, 3] {
        std::fs::write(path, file[..wrong.max(3) + wrong - 2].concat()).unwrap();
        let said = user.run(&["config", "check", "-c", path]);
        assert_eq!(said.code, 4, "{said:?}");
        // Beside what is wrong with its words, if anything is.
        assert!(said.stderr.contains(&format!("has {wrong} faults")), "{said:?}");
        for line in [3, 11] {
            let at = format!("keepwatch.toml:{line}:");
            let told = said.stderr.split("error: ").find(|told| told.contains(&at));
            let told = told.unwrap_or_else(|| panic!("nothing is told of {line}: {said:?}"));
            assert!(told.contains("is inside the source"), "{told}");
            assert!(told.contains("help: keepwatch would back up its own notes"), "{told}");
        }
    }
}
