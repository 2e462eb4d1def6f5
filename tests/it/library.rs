//! The crate as a library: the same work without the program, and the examples.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keepwatch::choices::{Deletions, Overwrite};
use keepwatch::{Access, Compare, Error, ErrorClass, Mirror, Outcome, Progress};
use keepwatch::{Report, Restore, Stop, Sync};

use crate::support::bucket::Bucket;
use crate::support::server::{Embedded, Fault, Reach};
use crate::support::tree::{Tree, differences};

/// A program's own folder: its state, and a file with keys.
struct Program {
    folder: tempfile::TempDir,
}

impl Program {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn access(&self, reach: &Reach) -> Access {
        let keys = self.path("keys");
        let text = format!(
            "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            reach.access_key, reach.secret_key
        );
        crate::support::write_secret(&keys, &text);
        Access::default().endpoint_url(&reach.endpoint).region("us-east-1").credentials_file(keys)
    }

    fn sync(&self, source: &Tree, reach: &Reach) -> Sync {
        Sync::new(source.folder.path(), "s3://bucket/p")
            .access(self.access(reach))
            .state_folder(self.path("state"))
    }
}

fn numbers(report: &Report) -> (u64, u64, u64) {
    let numbers = &report.numbers;
    (numbers.uploaded, numbers.unchanged, numbers.deleted)
}

#[test]
fn a_sync_and_a_restore() {
    let server = Embedded::start();
    let bucket = Bucket::create(&server.reach, "bucket");
    let (program, tree) = (Program::new(), Tree::new(&[("a", b"one"), ("b/c", b"three")]));
    tree.write("left.tmp", b"out");
    let told: Arc<Mutex<Vec<Progress>>> = Arc::default();
    let heard = told.clone();
    let sync = || program.sync(&tree, &server.reach).exclude("*.tmp");
    let first = sync().on_progress(move |now| heard.lock().unwrap().push(*now));
    let report = first.run_blocking().unwrap();
    assert_eq!((report.outcome, numbers(&report)), (Outcome::Done, (2, 0, 0)));
    assert_eq!((report.numbers.result.as_str(), report.numbers.uploaded_bytes), ("ok", 8));
    assert!(report.numbers.requests.put >= 2, "{report:?}");
    let last = *told.lock().unwrap().last().unwrap();
    assert_eq!((last.done, last.known, last.done_bytes, last.known_bytes), (2, 2, 8, 8));
    tree.remove("left.tmp");
    assert_eq!(differences(&tree, &bucket, "p/"), [""; 0]);

    tree.remove("a");
    let keep = sync().deletions(Deletions::Keep).run_blocking().unwrap();
    assert_eq!(numbers(&keep), (0, 1, 0));
    assert_eq!(numbers(&sync().run_blocking().unwrap()), (0, 1, 1));

    let back = program.path("back");
    let restore = || Restore::new("s3://bucket/p", &back).access(program.access(&server.reach));
    let report = restore().run_blocking().unwrap();
    assert_eq!((report.outcome, report.numbers.downloaded), (Outcome::Done, 1), "{report:?}");
    assert_eq!(std::fs::read(back.join("b/c")).unwrap(), b"three");
    std::fs::write(back.join("b/c"), b"mine").unwrap();
    let report = restore().overwrite(Overwrite::Never).run_blocking().unwrap();
    assert_eq!((report.numbers.downloaded, report.kept[0].path.as_str()), (0, "b/c"), "{report:?}");
    assert_eq!(std::fs::read(back.join("b/c")).unwrap(), b"mine");
}

#[test]
fn what_fails_is_named_and_the_rest_goes_on() {
    let server = Embedded::start();
    Bucket::create(&server.reach, "bucket");
    let (program, tree) = (Program::new(), Tree::new(&[("good", b"1"), ("bad", b"2")]));
    server.rule(|seen| match seen.path.as_str() {
        "/bucket/p/bad" => Fault::Error(403, "AccessDenied"),
        _ => Fault::Pass,
    });
    let report = program.sync(&tree, &server.reach).run_blocking().unwrap();
    assert_eq!((report.outcome, report.numbers.uploaded), (Outcome::Failed, 1), "{report:?}");
    let [failed] = &report.failed[..] else { panic!("{report:?}") };
    assert_eq!(failed.path, "bad");
    assert!(failed.why.contains("AccessDenied"), "{failed:?}");
    server.no_rule();
    let again = program.sync(&tree, &server.reach).failed_only(true).run_blocking().unwrap();
    assert_eq!((again.outcome, numbers(&again)), (Outcome::Done, (1, 0, 0)));
}

#[test]
fn errors_have_a_class_a_cause_and_a_next_step() {
    let server = Embedded::start();
    let (program, tree) = (Program::new(), Tree::new(&[("a", b"1")]));
    let of = |run: Result<Report, Error>| {
        let error = run.unwrap_err();
        (error.class(), error.to_string(), error.hints().join("; "))
    };
    let sync = || program.sync(&tree, &server.reach);
    let (class, told, hints) = of(sync().run_blocking());
    assert_eq!(class, ErrorClass::Configuration);
    assert!(told.contains("bucket") && hints.contains("--create-bucket"), "{told} {hints}");
    // Values that make no sense, all at once.
    let odd = sync().exclude("").transfers(0).storage_class("very cold");
    let (class, told, _) = of(odd.run_blocking());
    assert_eq!(class, ErrorClass::Configuration);
    for word in ["exclude = ", "transfers = ", "storage_class = "] {
        assert!(told.contains(word), "{word} in {told}");
    }
    let nobody = Reach { secret_key: "wrong".to_owned(), ..server.reach.clone() };
    let (class, told, hints) = of(program.sync(&tree, &nobody).run_blocking());
    assert_eq!(class, ErrorClass::Credentials, "{told}");
    assert!(!told.contains("wrong") && !hints.is_empty(), "{told}");
    let gone = Reach { endpoint: "http://127.0.0.1:9".to_owned(), ..server.reach.clone() };
    let soon = program.sync(&tree, &gone).retry_for(Duration::ZERO);
    assert_eq!(of(soon.run_blocking()).0, ErrorClass::Unreachable);
    let nowhere = Restore::new("default", program.path("back")).run_blocking();
    assert_eq!(of(nowhere).0, ErrorClass::Configuration);
    // Not inside a runtime, where it would block everything else.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_, told, hints) = of(runtime.block_on(async { sync().run_blocking() }));
    assert!(told.contains("runtime") && hints.contains("`run`"), "{told} {hints}");
}

#[test]
fn stopped_and_gone_on_with() {
    let server = Embedded::start();
    let bucket = Bucket::create(&server.reach, "bucket");
    let (program, tree) = (Program::new(), Tree::new(&[]));
    (0..60).for_each(|n| tree.write(format!("{n}"), format!("{n}").as_bytes()));
    server.rule(|seen| match seen.method {
        "PUT" => Fault::Late(20),
        _ => Fault::Pass,
    });
    let stop = Stop::new();
    let on_first = stop.clone();
    let cut = program.sync(&tree, &server.reach).transfers(1).stop(&stop);
    let cut = cut.every(Duration::from_millis(5)).on_progress(move |now| {
        if now.done > 0 {
            on_first.now();
        }
    });
    let report = cut.run_blocking().unwrap();
    assert_eq!(report.outcome, Outcome::Stopped);
    let (first, ..) = numbers(&report);
    assert!((1..60).contains(&first), "{report:?}");
    server.no_rule();
    let report = program.sync(&tree, &server.reach).run_blocking().unwrap();
    assert_eq!((report.outcome, numbers(&report).0), (Outcome::Done, 60 - first));
    assert_eq!(differences(&tree, &bucket, "p/"), [""; 0]);

    let back = program.path("back");
    let restore = Restore::new("s3://bucket/p", &back).access(program.access(&server.reach));
    assert_eq!(restore.stop(&stop).run_blocking().unwrap().outcome, Outcome::Stopped);
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let (program, tree) = (Program::new(), Tree::new(&[("a", b"1"), ("b", b"2")]));
    let store = format!("file://{}", program.path("store").display());
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = told.clone();
    let sync = Sync::new(tree.folder.path(), store).state_folder(program.path("state"));
    let sync = sync.create_bucket(true).dry_run(move |planned| {
        let line = format!("{} {} {}", planned.action, planned.path, planned.why);
        heard.lock().unwrap().push(line);
    });
    sync.run_blocking().unwrap();
    told.lock().unwrap().sort();
    assert_eq!(*told.lock().unwrap(), ["put a new", "put b new"]);
    assert!(!program.path("store").exists());
}

/// Programs with many threads may run them, too.
#[test]
fn runs_can_be_moved_between_threads() {
    fn is_send(_: impl Send) {}
    is_send(Sync::new("/a", "s3://bucket").run());
    is_send(Restore::new("s3://bucket", "/a").run());
    is_send(Mirror::new("s3://a-bucket", "s3://b-bucket").run());
    is_send(Compare::new("s3://a-bucket", "s3://b-bucket").run());
}

/// The example of this name, as cargo builds it beside the tests.
fn example(name: &str, home: &Path) -> Command {
    let this = std::env::current_exe().unwrap();
    let program = this.parent().unwrap().with_file_name("examples").join(name);
    assert!(program.exists(), "{} is not there: cargo build --examples", program.display());
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home).env("AWS_EC2_METADATA_DISABLED", "true");
    command.stdin(std::process::Stdio::null());
    command
}

fn says(command: &mut Command) -> (bool, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_mirror_and_a_comparison() {
    let server = Embedded::start();
    let (from, to) = (Bucket::create(&server.reach, "from"), Bucket::open(&server.reach, "copies"));
    let program = Program::new();
    ["a", "b", "c"].iter().for_each(|key| from.put(key, key.as_bytes()));
    let mirror = || {
        let mirror = Mirror::new("s3://from", "s3://copies").access(program.access(&server.reach));
        mirror.state_folder(program.path("state")).create_bucket(true)
    };
    let report = mirror().run_blocking().unwrap();
    assert_eq!((report.outcome, report.numbers.copied), (Outcome::Done, 3), "{report:?}");
    assert_eq!(to.objects().len(), 3);
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let compare = || {
        let heard = told.clone();
        let compare =
            Compare::new("s3://from", "s3://copies").access(program.access(&server.reach));
        let tell = move |key: &str, _: &str| heard.lock().unwrap().push(key.to_owned());
        compare.on_difference(tell).run_blocking().unwrap()
    };
    let report = compare();
    assert_eq!((report.outcome, report.numbers.unchanged), (Outcome::Done, 3), "{report:?}");
    from.delete("a");
    from.put("b", b"longer");
    from.put("d", b"new");
    let report = compare();
    assert_eq!((report.outcome, report.numbers.result.as_str()), (Outcome::Different, "failed"));
    let found = report.differences;
    assert_eq!((found.missing, found.differing, found.extra), (1, 1, 1));
    told.lock().unwrap().sort();
    assert_eq!(*told.lock().unwrap(), ["a", "b", "d"]);
    let report = mirror().run_blocking().unwrap();
    assert_eq!((report.numbers.copied, report.numbers.tagged), (2, 1), "{report:?}");
    assert_eq!(compare().outcome, Outcome::Done);
}

#[test]
fn the_examples_of_mirror_and_compare() {
    let (program, tree) = (Program::new(), Tree::new(&[("a", b"1"), ("b", b"22")]));
    let home = program.folder.path();
    let store = |name: &str| format!("file://{}", program.path(name).display());
    let (from, to) = (store("from"), store("to"));
    let (good, said, told) = says(example("sync", home).arg(tree.folder.path()).arg(&from));
    assert!(good, "{said}{told}");
    let (good, said, told) = says(example("mirror", home).arg(&from).arg(&to));
    assert_eq!((good, said.as_str()), (true, "2 copied, 0 tagged\n"), "{told}");
    assert!(told.ends_with("2 of 2 copied\n"), "{told}");
    let (good, said, told) = says(example("compare", home).arg(&from).arg(&to));
    assert_eq!((good, said.as_str(), told.as_str()), (true, "2 the same\n", ""));
    tree.write("c", b"333");
    says(example("sync", home).arg(tree.folder.path()).arg(&from));
    let (good, said, _) = says(example("compare", home).arg(&from).arg(&to));
    assert!(!good && said.starts_with("c: ") && said.ends_with("\n2 the same\n"), "{said}");
}

#[test]
fn the_examples_of_sync_and_restore() {
    let (program, tree) = (Program::new(), Tree::new(&[("a", b"1"), ("b/c", b"22")]));
    tree.write("x.tmp", b"out");
    let (home, source) = (program.folder.path(), tree.folder.path());
    let store = format!("file://{}", program.path("store").display());
    let back = program.path("back");
    let (good, said, told) = says(example("sync", home).arg(source).arg(&store));
    assert!(good, "{said}{told}");
    // Nothing is said but by the example itself.
    assert_eq!(said, "2 files uploaded, 0 unchanged\n");
    assert!(told.ends_with("2 of 2 files, 3 of 3 bytes\n"), "{told}");
    assert!(told.lines().all(|line| line.ends_with(" bytes")), "{told}");
    for expected in ["2 files are back, 0 were here\n", "0 files are back, 0 were here\n"] {
        let (good, said, told) = says(example("restore", home).arg(&store).arg(&back));
        assert_eq!((good, said.as_str(), told.as_str()), (true, expected, ""));
    }
    assert_eq!(std::fs::read(back.join("b/c")).unwrap(), b"22");
    std::fs::write(back.join("a"), b"mine").unwrap();
    let (good, said, told) = says(example("restore", home).arg(&store).arg(&back));
    assert_eq!((good, said.as_str()), (true, "0 files are back, 1 were here\n"));
    assert!(told.starts_with("a is kept: "), "{told}");
    let nowhere = format!("file://{}", program.path("nowhere").display());
    let (good, _, told) = says(example("restore", home).arg(&nowhere).arg(&back));
    assert!(!good && told.contains("there is no store in"), "{told}");
}
