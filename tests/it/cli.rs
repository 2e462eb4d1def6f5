//! The command line: what can be typed, what is said, and how it ends.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::support::bucket::Bucket;
use crate::support::program::{Said, User};
use crate::support::scene::{Scene, TO};
use crate::support::server::{Fault, Reach};
use crate::support::tree::{Tree, differences};
use crate::support::wait_for;

fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// The command must end with this code, and its words be among what was said on stderr.
fn ends(user: &User, args: &[&str], code: i32, words: &[&str]) -> Said {
    let said = user.run(args);
    assert_eq!(said.code, code, "{args:?}: {said:?}");
    for word in words {
        assert!(said.stderr.contains(word), "{args:?}: {word:?} is not in:\n{}", said.stderr);
    }
    said
}

/// What is planned is told as it is found, several at a time.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

fn configure(user: &User, text: &str) {
    let folder = user.home.path().join(".config/keepwatch");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("keepwatch.toml"), text).unwrap();
}

#[test]
fn what_cannot_be_meant_is_usage() {
    let (user, tree) = (User::new(), Tree::new(&[("a", b"1")]));
    let source = &path(tree.folder.path());
    let inside = format!("file://{source}/store");
    let name = tree.folder.path().file_name().unwrap().to_str().unwrap();
    let by_dots = format!("file://{source}/../{name}/./store");
    let link = path(&user.home.path().join("link"));
    std::os::unix::fs::symlink(tree.folder.path(), &link).unwrap();
    let by_link = format!("file://{link}/new/store");
    let contain = &["contain each other", "back up itself"];
    for (args, words) in [
        (&["frobnicate"][..], &["unrecognized subcommand 'frobnicate'", "--help"][..]),
        (&["sync", source, TO, "more"], &["unexpected argument 'more'"]),
        (&["sync", source, TO, "--retry"], &["unexpected argument '--retry'", "--retry-for"]),
        (&["sync", source, "nowhere"], &["\"nowhere\" is not a destination; write s3://bucket"]),
        (&["sync", source, "s3://x"], &["\"x\" is not a bucket name: 3 to 63 characters"]),
        (&["sync", source, "file://here"], &["an absolute path: file:///folder"]),
        (&["sync", source, &inside], contain),
        (&["sync", source, &by_dots], contain),
        (&["sync", source, &by_link], contain),
        (&["sync", &link, &inside], contain),
        (&["sync", source], &["has no destination", "hint: ", "s3://bucket/prefix", "default"]),
        (&["watch", source], &["has no destination", "hint: ", "s3://bucket/prefix", "default"]),
        (&["sync", source, "s3://bucket/a/../b"], &["\"a/../b\" has a part that is"]),
        (&["sync", source, "bucket::a//b"], &["\"a//b\" has a part that is"]),
        (&["sync", source, "bucket::a/.keepwatch"], &["or \".keepwatch\""]),
        (&["sync", source, "file:///x#bucket/."], &["\".\" has a part"]),
        (&["sync", source, TO, "--settle", "-1s"], &["'-1s' for '--settle", "write a duration"]),
        (&["sync", source, TO, "--sse", "all"], &["write one of \"AES256\" \"aws:kms\""]),
        (&["sync", source, TO, "--storage-class", "very cold"], &["STANDARD_IA", "capitals"]),
        (&["sync", source, TO, "--endpoint-url", "foo"], &["'foo'", "write a URL such as https"]),
        (&["sync", source, TO, "--endpoint-url", "http://:9000"], &["write a URL such as https"]),
        (&["sync", source, TO, "--region", ""], &["--region", "one line of text"]),
        (&["sync", source, TO, "--exclude", ""], &["--exclude", "an empty pattern"]),
        (&["sync", source, TO, "--exclude", "[z-a]"], &["the range z-a is empty: write a-z"]),
        (&["sync", source, TO, "--settle", "soon"], &["'soon'", "write a duration such as 2s"]),
        (&["sync", source, TO, "--deletions", "no"], &["write one of \"delete\" \"tag\" \"keep\""]),
        (&["sync", source, TO, "--part-size", "1KiB"], &["--part-size", "parts of 5MiB to 5GiB"]),
        (&["sync", source, TO, "--transfers", "0"], &["--transfers", "1 to 1000"]),
        (&["watch", source, TO, "--dry-run"], &["a daemon has no dry run", "hint: ", "sync"]),
        (&["deletions", "approve"], &["name the backups, or say --all", "hint: "]),
        (&["deletions", "approve", "x"], &["there is no backup \"x\""]),
        (&["serve", TO], &["only the embedded store can be served", "file:///folder"]),
        (&["config", "improve"], &["invalid value 'improve'", "check, show, schema, example"]),
    ] {
        ends(&user, args, 2, words);
    }
    // With --json there is still an object to read.
    let said = ends(&user, &["sync", source, "nowhere", "--json"], 2, &["is not a destination"]);
    assert_eq!(said.json()["result"], "error");
    assert!(said.json()["error"].as_str().unwrap().contains("is not a destination"));
    for args in [&["--help"][..], &["sync", "--help"], &["--version"]] {
        let said = ends(&user, args, 0, &[]);
        assert!(said.stdout.contains("keepwatch"), "{said:?}");
    }
}

#[test]
fn options_stand_where_they_count() {
    let user = User::new();
    for args in [&["--exclude", "x", "sync", "a", "b"][..], &["--overwrite", "never"]] {
        let said = user.run(args);
        assert_eq!(said.code, 2, "{args:?}: {said:?}");
        let expected = format!("{} belongs behind its command, or with --restore", args[0]);
        assert!(said.stderr.contains(&expected), "{said:?}");
    }
    let said = user.run(&["--restore", "x", "sync"]);
    assert_eq!(said.code, 4, "a backup of this name is restored: {said:?}");
}

#[test]
fn what_is_missing_needs_a_person() {
    let (user, tree) = (User::new(), Tree::new(&[("a", b"1")]));
    let (source, file) = (&path(tree.folder.path()), &path(&tree.path("a")));
    let store = &format!("file://{}", path(&user.home.path().join("store")));
    for (args, words) in [
        (
            &["sync", "/not/there", store][..],
            &["the source /not/there cannot be used", "mounted"][..],
        ),
        (&["sync", file, store], &["is not a folder", "hint: name a folder to keep"]),
        (&["sync", source, store], &["there is no store in", "hint: ", "--create-bucket"]),
        (&["watch"], &["there is no configuration file", "config example", "SOURCE DESTINATION"]),
        (&[], &["there is no configuration file", ".config/keepwatch/keepwatch.toml"]),
        (&["config", "check"], &["there is no configuration file", "/etc/keepwatch/"]),
        (&["-c", "/nope", "sync"], &["cannot read /nope", "caused by: No such file", "hint: "]),
        (&["flush"], &["no daemon is running", "hint: "]),
    ] {
        ends(&user, args, 4, words);
    }
    assert!(!user.home.path().join("store").exists(), "nothing is made that was not asked for");
    for (args, code) in
        [(&["status"][..], 0), (&["deletions", "list"], 0), (&["status", "--check"], 6)]
    {
        let said = ends(&user, args, code, &[]);
        assert!(said.stdout.starts_with("no backup is on record; start one with: "), "{said:?}");
    }
}

#[test]
fn a_person_reads_a_summary() {
    let scene = Scene::new(&[("a", b"1"), ("b/c", b"22"), ("b/d", b"")]);
    let sync = |more: &[&str]| scene.user.run(&[&["sync", scene.source(), TO], more].concat());
    let dry = sync(&["-n"]);
    assert_eq!(
        sorted(&dry.stdout),
        ["put     a  (new)", "put     b/c  (new)", "put     b/d  (new)"]
    );
    let said = sync(&[]);
    assert_eq!(said.stderr, "");
    assert!(said.stdout.starts_with("uploaded 3 files (3 B) in 0."), "{said:?}");
    scene.tree.remove("a");
    scene.tree.write("b/c", b"333");
    let said = sync(&[]);
    let expected = "uploaded 1 file (3 B), 1 unchanged, 1 deleted in ";
    assert!(said.stdout.starts_with(expected) && said.stderr.is_empty(), "{said:?}");
    assert_eq!((sync(&["-q"]).stdout, sync(&["--quiet"]).stderr), (String::new(), String::new()));
    let said = sync(&["-v"]);
    assert!(said.stderr.contains("DEBUG"), "{said:?}");
    scene.tree.write("new", b"new");
    let said = sync(&["-v", "--log-format", "json"]);
    let lines = said.stderr.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told: Vec<Value> = lines.collect();
    let uploaded = told.iter().find(|line| line["message"] == "uploaded new").unwrap();
    assert_eq!((&uploaded["level"], &uploaded["bytes"]), (&"info".into(), &3.into()));
    assert!(uploaded["time"].is_string() && uploaded["backup"] == scene.name(), "{uploaded}");
}

#[test]
fn the_shapes_of_json() {
    let scene = Scene::new(&[("a", b"1"), ("b", b"22")]);
    let said = scene.sync(&[], 0);
    let summary = said.json();
    let numbers = [
        "scanned",
        "uploaded",
        "uploaded_bytes",
        "downloaded",
        "downloaded_bytes",
        "copied",
        "adopted",
        "deleted",
        "tagged",
        "retouched",
        "folders",
        "unchanged",
        "skipped",
        "failed",
        "held",
        "unclaimed",
        "verified",
        "elapsed_ms",
    ];
    for name in numbers {
        assert!(summary[name].is_u64(), "{name} in {summary}");
    }
    for kind in ["put", "get", "head", "list", "copy", "delete", "multipart", "other"] {
        assert!(summary["requests"][kind].is_u64(), "{kind} in {summary}");
    }
    assert_eq!((said.number("scanned"), said.number("uploaded_bytes")), (2, 3));
    assert_eq!(summary["result"], "ok");
    assert_eq!(said.stdout.lines().count(), 1);

    let status = scene.user.run(&["status", "--json", "--files"]).json();
    assert_eq!((&status["daemon"], &status["version"]), (&false.into(), &1.into()));
    let backup = &status["backups"][0];
    assert_eq!(backup["name"], scene.name());
    assert_eq!(
        (&backup["source"], &backup["destination"]),
        (&scene.source().into(), &"s3://bucket/p/".into())
    );
    assert_eq!((&backup["files"], &backup["condition"]), (&2.into(), &"stopped".into()));
    let file = &backup["paths"][0];
    assert_eq!(
        (&file["path"], &file["uploaded"], &file["size"]),
        (&"a".into(), &true.into(), &1.into())
    );
    assert_eq!(file["md5"], "c4ca4238a0b923820dcc509a6f75849b");
    let list = scene.user.run(&["deletions", "list", "--json"]).json();
    for name in ["waiting", "approved", "unclaimed"] {
        assert_eq!(list["backups"][0][name], 0, "{list}");
    }
    let files = scene.user.run(&["status", "--files"]).stdout;
    assert!(files.contains("uploaded  c4ca4238a0b923820dcc509a6f75849b  a"), "{files}");

    // The daemon answers in the same shape, and knows how far it is.
    let daemon = scene.watch(&[]);
    wait_for("the first pass", || daemon.backup()["watermark_ms"].is_number());
    let live = scene.user.run(&["status", "--json"]).json()["backups"][0].clone();
    let names =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    let recorded: Vec<String> = names(backup).into_iter().filter(|name| name != "paths").collect();
    assert_eq!(names(&live), recorded);
    assert_eq!(ends(&scene.user, &["status", "--check"], 0, &[]).code, 0);
    let flushed = scene.user.run(&["flush", "--json"]);
    assert_eq!((flushed.code, flushed.json()["failed"].as_u64()), (0, Some(0)), "{flushed:?}");
    assert_eq!(daemon.stop(), 0);
    ends(&scene.user, &["status", "--check"], 0, &[]);
}

#[test]
fn a_dry_run_makes_nothing() {
    let (user, tree) = (User::new(), Tree::new(&[("a", b"1"), ("empty/x", b"2")]));
    tree.remove("empty/x");
    let folder = user.home.path().join("store");
    let store = format!("file://{}", path(&folder));
    let source = path(tree.folder.path());
    let said = ends(&user, &["sync", "-n", &source, &store, "--create-bucket"], 0, &[]);
    assert_eq!(sorted(&said.stdout), ["put     a  (new)", "put     empty/  (new)"]);
    assert!(!folder.exists());
    ends(&user, &["sync", "-n", &source, &store], 4, &["there is no store in"]);
    let said = ends(&user, &["sync", &source, &store, "--create-bucket"], 0, &[]);
    assert!(said.stdout.contains("uploaded 1 file (1 B), 1 folder marker in "), "{said:?}");
    assert_eq!(std::fs::read(folder.join("keepwatch/a")).unwrap(), b"1");
    // Later the disk with the store is not mounted: it is not made anew.
    std::fs::rename(&folder, user.home.path().join("elsewhere")).unwrap();
    ends(&user, &["sync", &source, &store], 4, &["there is no store in", "its disk is mounted"]);
}

#[test]
fn without_arguments_the_folder_one_is_in_goes_to_a_bucket_of_its_own() {
    let scene = Scene::with_files(2);
    let sync = |more: &[&str]| {
        let mut command = scene.user.command(&[&["sync", "--json"], more].concat());
        let output = command.current_dir(scene.tree.folder.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let named = |text: &str| {
        let (_, rest) = text.split_once("the new bucket ").unwrap();
        rest.split_whitespace().next().unwrap().to_owned()
    };
    let name = named(&sync(&[]));
    let shape: String = name.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "keepwatch-00-00-00-000000");
    let bucket = Bucket::open(&scene.server.reach, &name);
    assert_eq!(differences(&scene.tree, &bucket, ""), [""; 0]);
    // It is remembered, until another is asked for; also within one second.
    scene.tree.write("new", b"new");
    assert_eq!(sync(&[]), "");
    assert_eq!(differences(&scene.tree, &bucket, ""), [""; 0]);
    let mut names = vec![name];
    names.extend((0..3).map(|_| named(&sync(&["--new-bucket"]))));
    for (at, name) in names.iter().enumerate() {
        assert!(!names[..at].contains(name), "{names:?}");
        let bucket = Bucket::open(&scene.server.reach, name);
        assert_eq!(differences(&scene.tree, &bucket, ""), [""; 0]);
    }
}

#[test]
fn one_missing_source_does_not_keep_the_others_from_being_synced() {
    let scene = Scene::with_files(2);
    let text = format!(
        "[[backup]]\nname = \"a\"\nsource = \"/not/there\"\ndestination = \"s3://bucket/a\"\n\
         [[backup]]\nname = \"b\"\nsource = {:?}\ndestination = \"{TO}\"\n",
        scene.source()
    );
    configure(&scene.user, &text);
    let said = ends(&scene.user, &["sync", "--json"], 4, &["the source /not/there cannot be used"]);
    assert_eq!((said.number("uploaded"), said.json()["result"].as_str()), (2, Some("error")));
    scene.is_kept();
}

#[test]
fn a_state_folder_that_is_only_asked_about_is_not_made() {
    let user = User::new();
    let folder = user.home.path().join("mistyped");
    for args in [&["status"][..], &["status", "--files"], &["deletions", "list"], &["flush"]] {
        user.run(&[&["--state-dir", folder.to_str().unwrap()], args].concat());
        assert!(!folder.exists(), "{args:?}");
    }
}

#[test]
fn serving_says_what_it_makes_and_who_can_listen() {
    let user = User::new();
    let store = format!("file://{}", path(&user.home.path().join("store")));
    let serve = |listen: &str, words: &[&str], not: &str| {
        let served = user.spawn(user.command(&["serve", &store, "--listen", listen]));
        wait_for("it to be said", || words.iter().all(|word| served.log().contains(word)));
        assert!(not.is_empty() || !served.log().contains(not), "{}", served.log());
        served.kill();
    };
    let new = "there was no store in ";
    serve("127.0.0.1:0", &[new, "a new, empty one is made"], "TLS");
    serve("0.0.0.0:0", &["there is no TLS"], "");
}

#[test]
fn interrupting_twice_leaves_at_once() {
    let scene = Scene::with_files(1);
    scene.server.rule(|seen| match seen.path.contains("/p/f/") {
        true => Fault::Hang,
        false => Fault::Pass,
    });
    let mut command = scene.user.command(&["sync", scene.source(), TO]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let interrupt = |child: &Child| {
        let pid = child.id().to_string();
        assert!(
            std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success()
        );
    };
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    wait_for("the owner record", || scene.has(".keepwatch/owner.json"));
    interrupt(&child);
    let line = lines.next().unwrap().unwrap();
    assert!(line.contains("stopping: waiting for what is in flight"), "{line}");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    scene.server.no_rule();
    scene.sync(&[], 0);
    scene.is_kept();
}

/// The embedded store as a server of its own, with keys that it made up.
struct Served {
    reach: Reach,
    child: Child,
}

impl Served {
    fn start(user: &User) -> Self {
        let store = format!("file://{}", path(&user.home.path().join("served")));
        let args = ["serve", &store, "--listen", "127.0.0.1:0", "--json", "--no-sync"];
        let mut child = user.command(&args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        let text = |name: &str| told[name].as_str().unwrap().to_owned();
        let reach = Reach {
            endpoint: text("endpoint"),
            access_key: text("access_key"),
            secret_key: text("secret_key"),
            region: "us-east-1".to_owned(),
        };
        Self { reach, child }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn two_backups_each_with_its_own_endpoint_and_credentials() {
    let (scene, other) = (Scene::with_files(3), User::new());
    let served = Served::start(&other);
    let second = Bucket::create(&served.reach, "second");
    let tree = Tree::new(&[("x", b"1"), ("skipped.tmp", b"2"), ("y/z", b"3")]);
    let user = User::new();
    let keys = |name: &str, reach: &Reach| {
        let file = user.home.path().join(name);
        let Reach { access_key, secret_key, .. } = reach;
        let text = format!(
            "[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n"
        );
        crate::support::write_secret(&file, &text);
        path(&file)
    };
    let text = format!(
        "delete_delay = \"0s\"\nsettle = \"50ms\"\nregion = \"us-east-1\"\n\
         [[backup]]\nname = \"first\"\nsource = \"{}\"\ndestination = \"bucket::p\"\n\
         endpoint_url = \"{}\"\ncredentials_file = \"{}\"\n\
         [[backup]]\nname = \"second\"\nsource = \"{}\"\ndestination = \"s3://second\"\n\
         endpoint_url = \"{}\"\ncredentials_file = \"{}\"\nexclude = [\"*.tmp\"]\n",
        scene.source(),
        scene.server.reach.endpoint,
        keys("one", &scene.server.reach),
        path(tree.folder.path()),
        served.reach.endpoint,
        keys("two", &served.reach),
    );
    configure(&user, &text);
    let said = ends(&user, &["config", "check"], 0, &[]);
    assert!(said.stdout.ends_with("keepwatch.toml: 2 backups, no faults\n"), "{said:?}");
    let said = ends(&user, &["sync", "--json"], 0, &[]);
    assert_eq!(said.number("uploaded"), 5);
    scene.is_kept();
    std::fs::remove_file(tree.path("skipped.tmp")).unwrap();
    assert_eq!(differences(&tree, &second, ""), [""; 0]);
    // One of them, by its name or by its folder; and a name that nobody has.
    scene.tree.write("new", b"new");
    tree.write("new", b"new");
    for one in ["second", &path(tree.folder.path())] {
        let said = ends(&user, &["sync", one, "--json"], 0, &[]);
        assert_eq!(said.number("scanned"), 3, "{said:?}");
    }
    assert!(!scene.has("new"));
    let words = ["there is no backup \"third\"", "hint: there are: first, second"];
    ends(&user, &["sync", "third"], 2, &words);
    // Both in one daemon.
    let daemon = user.watch(&[]);
    wait_for("the first to be kept", || scene.differences().is_empty());
    tree.write("later", b"later");
    wait_for("the second to be kept", || differences(&tree, &second, "").is_empty());
    assert_eq!(daemon.status().unwrap()["backups"].as_array().unwrap().len(), 2);
    assert_eq!(daemon.stop(), 0);
    // One that cannot be reached does not keep the other from its turn.
    drop(served);
    scene.tree.write("last", b"last");
    ends(&user, &["sync", "--retry-for", "1s"], 5, &["cannot read s3://second/", "refused"]);
    scene.is_kept();
}

#[test]
fn flags_beat_variables_beat_the_file_beats_the_default() {
    let user = User::new();
    configure(
        &user,
        "settle = \"3s\"\nmax_wait = \"40s\"\n[[backup]]\nname = \"a\"\nsource = \"~/a\"\n\
         destination = \"s3://bucket/a\"\nmax_wait = \"50s\"\nregion = \"eu-west-1\"\n",
    );
    let shown = |user: &User, flags: &[&str]| -> Value {
        let said = ends(user, &[&["config", "show", "--json"], flags].concat(), 0, &[]);
        said.json()["backup"][0].clone()
    };
    let plain = shown(&user, &[]);
    assert_eq!(plain["source"], path(&user.home.path().join("a")));
    let values = ["settle", "max_wait", "rescan", "region"].map(|name| plain[name].clone());
    assert_eq!(values, ["3s", "50s", "1h", "eu-west-1"]);
    let user = user.with_variable("KEEPWATCH_SETTLE", "4s").with_variable("KEEPWATCH_REGION", "r");
    let values = ["settle", "max_wait", "region"].map(|name| shown(&user, &[])[name].clone());
    assert_eq!(values, ["4s", "50s", "r"]);
    assert_eq!(shown(&user, &["--region", "s"])["region"], "s");
    // What is shown can be read again.
    let text = ends(&user, &["config", "show"], 0, &[]).stdout;
    let again = User::new();
    configure(&again, &text);
    assert_eq!(ends(&again, &["config", "show"], 0, &[]).stdout, text);
}

#[test]
fn the_example_and_the_schema() {
    let user = User::new();
    let example = ends(&user, &["config", "example"], 0, &[]).stdout;
    configure(&user, &example);
    let said = ends(&user, &["config", "check"], 0, &[]);
    assert!(said.stdout.ends_with(": 3 backups, 1 mirror, no faults\n"), "{said:?}");
    let schema: Value =
        serde_json::from_str(&ends(&user, &["config", "schema"], 0, &[]).stdout).unwrap();
    assert_eq!(schema["title"], "keepwatch.toml");
    assert!(schema["properties"]["settle"]["description"].is_string(), "{schema}");
    // A file in a folder of its own, and one that is named.
    let text = example.replace("settle", "settel");
    let named = user.home.path().join("other.toml");
    std::fs::write(&named, text.replace("#settel", "settel")).unwrap();
    let named = &path(&named);
    let words = ["unknown key settel", "there is an option settle", ":", "^^^^^^", "has 1 fault\n"];
    ends(&user, &["config", "check", "-c", named], 4, &words);
}
