//! What `docs` tells of status and logs is what the program says.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use keepwatch::app::status::CONDITIONS;
use serde_json::Value;

use crate::support::program::User;
use crate::support::scene::Scene;
use crate::support::server::Fault;
use crate::support::wait_for;

/// The first column of the tables of a page that begin with this head, below this heading.
pub fn documented(page: &str, heading: &str, head: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines = text.lines().skip_while(|line| *line != heading).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('#'));
    let (mut names, mut inside) = (BTreeSet::new(), false);
    for line in lines {
        let mut cells = line.split('|').map(str::trim).skip(1);
        match cells.next() {
            Some(cell) if cell == head => inside = true,
            Some(cell) if inside => {
                let quoted = cell.split('`').skip(1).step_by(2).map(str::to_owned);
                names.extend(quoted);
            }
            Some(_) => {}
            None => inside = false,
        }
    }
    assert!(!names.is_empty(), "{page} has no table of {head} below {heading:?}");
    names
}

fn names(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_names_of_a_status() {
    let whole = documented("status.md", "# Status", "name");
    let mut of_backup = documented("status.md", "## A backup", "name");
    assert!(of_backup.remove("every_ms"), "of mirrors only");
    let conditions = documented("status.md", "## A backup", "condition");
    assert_eq!(conditions, CONDITIONS.map(str::to_owned).into());
    let scene = Scene::with_files(2);
    let status = || scene.user.run(&["status", "--json", "--files"]).json();
    let daemon = scene.follow(&[]);
    let live = status();
    assert_eq!((names(&live), live["version"].as_u64()), (whole.clone(), Some(1)));
    assert_eq!(names(&live["backups"][0]), of_backup);
    assert!(conditions.contains(live["backups"][0]["condition"].as_str().unwrap()));
    assert_eq!(daemon.stop(), 0);
    let recorded = status();
    assert_eq!(names(&recorded["backups"][0]), of_backup);
    let without = whole.into_iter().filter(|name| name != "process").collect();
    assert_eq!(names(&recorded), without, "nobody answers");
}

/// Lines that a daemon logs while files are kept, one fails, and a name tries to forge a line.
fn logged(scene: &Scene, more: &[&str]) -> String {
    scene.tree.write("a\nERROR forged\u{1b}[31m\u{202e}", b"1");
    scene.tree.write("f/1", b"refused");
    scene.server.rule(|seen| match seen.method == "PUT" && seen.path.ends_with("f/1") {
        true => Fault::Error(403, "AccessDenied"),
        false => Fault::Pass,
    });
    let args = [&scene.quick(&["--settle", "50ms"])[..], more].concat();
    let daemon = scene.user.watch(&args);
    wait_for("the failure", || daemon.backup()["failing"] == 1);
    daemon.signal("HUP");
    wait_for("the answer", || {
        daemon.log().contains("read the configuration again")
            || daemon.log().contains("the configuration stays as it was")
    });
    let log = daemon.log();
    assert_eq!(daemon.stop(), 0);
    log
}

#[test]
fn a_log_in_json() {
    let fields = documented("logs.md", "## Forms", "field");
    let scene = Scene::with_files(3);
    let log = logged(&scene, &["--log-format", "json"]);
    let mut levels = BTreeSet::new();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(names(&line).is_subset(&fields), "{line}");
        for name in ["time", "level", "target", "message"] {
            assert!(line[name].is_string(), "{line}");
        }
        let message = line["message"].as_str().unwrap();
        assert!(!message.contains(['\n', '\u{1b}', '\u{202e}']), "{line}");
        levels.insert(line["level"].as_str().unwrap().to_owned());
    }
    assert!(levels.contains("info") && levels.contains("warn"), "{log}");
    let of_file = log.lines().find(|line| line.contains("keepwatch::file")).unwrap();
    assert!(of_file.contains("\"bytes\""), "{of_file}");
}

/// A user whose daemons believe that standard error is this stream of the journal.
fn with_journal(scene: Scene, stream: impl Fn(&std::fs::Metadata) -> String) -> Scene {
    let file = std::fs::File::create(scene.user.home.path().join("daemon.log")).unwrap();
    let stream = stream(&file.metadata().unwrap());
    scene.by(|user: User| user.with_variable("JOURNAL_STREAM", &stream))
}

#[test]
fn a_log_for_people_and_one_for_the_journal() {
    let is_dated = |line: &&str| {
        let form = b"dddd-dd-dd dd:dd:dd ";
        let fits = |(have, want): (u8, &u8)| match want {
            b'd' => have.is_ascii_digit(),
            other => have == *other,
        };
        line.len() > form.len() && line.bytes().zip(form).all(fits)
    };
    // A variable that is inherited says nothing of where standard error leads now.
    let other = with_journal(Scene::with_files(3), |_| "1:1".to_owned());
    let log = logged(&other, &[]);
    assert!(log.lines().all(|line| is_dated(&line)), "{log}");
    assert!(log.contains("forged") && !log.contains('\u{1b}'), "{log}");

    let own = |m: &std::fs::Metadata| format!("{}:{}", m.dev(), m.ino());
    let scene = with_journal(Scene::with_files(3), own);
    let log = logged(&scene, &[]);
    if Path::new("/run/systemd/journal/socket").exists() {
        return assert_eq!(log, "", "the journal has it");
    }
    assert!(log.lines().any(|line| line.starts_with("<6>")), "{log}");
    for line in log.lines() {
        let rest = line.strip_prefix('<').and_then(|line| line.get(1..)?.strip_prefix('>'));
        assert!(rest.is_some_and(|rest| !is_dated(&rest)), "{line}");
    }
}

#[test]
fn trouble_that_is_said_again_is_counted() {
    let scene = Scene::new(&[("a", b"1")]);
    let daemon = scene.follow(&["--settle", "50ms"]);
    // Strangers at the socket are told of; the same one again is counted.
    let folder = scene.user.state_folder();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let open = |path: &Path| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .unwrap();
    };
    let above = folder.ancestors().take_while(|path| path.starts_with(scene.user.home.path()));
    above.for_each(open);
    open(&folder.join("control.sock"));
    // Strangers may not get to where it was built.
    let program = scene.user.home.path().join("program");
    std::fs::copy(env!("CARGO_BIN_EXE_keepwatch"), &program).unwrap();
    for _ in 0..3 {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&program);
        let output = command.args(["status", "--state-dir"]).arg(&folder).output().unwrap();
        assert_ne!(output.status.code(), Some(0), "a stranger is not answered");
    }
    wait_for("it to be told", || daemon.log().contains("a stranger was turned away"));
    let mine = scene.user.run(&["status", "--json"]).json();
    assert_eq!(mine["daemon"], true, "its own user is");
    let log = daemon.log();
    assert_eq!(log.matches("a stranger was turned away").count(), 1, "{log}");
    let path = scene.user.home.path().join("daemon.log");
    assert_eq!(daemon.stop(), 0);
    let log = std::fs::read_to_string(path).unwrap();
    assert!(log.contains("(said 2 times more)"), "{log}");
}
