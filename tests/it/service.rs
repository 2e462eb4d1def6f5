//! keepwatch as a service: what the service manager hears, what it is given, and installing it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::notify::Manager;
use crate::support::program::{Daemon, Said, User};
use crate::support::scene::Scene;
use crate::support::server::Fault;
use crate::support::tools::python_tool;
use crate::support::wait_for;

const WATCHDOG_USEC: &str = "2000000";

fn under(manager: &Manager, scene: Scene) -> Scene {
    scene.by(|user| user.with_variable("NOTIFY_SOCKET", manager.name()))
}

#[test]
fn the_service_manager_hears_of_every_turn() {
    let manager = Manager::new();
    let scene = under(&manager, Scene::new(&[("a", b"1")]));
    let let_on = Arc::new(AtomicBool::new(false));
    let gate = let_on.clone();
    scene.server.rule(move |_| Fault::Until(gate.clone()));
    let daemon = scene.user.start(&scene.quick(&["--settle", "100ms"]));
    manager.until(|line| line == "STATUS=starting");
    assert_eq!(daemon.status().unwrap()["backups"][0]["condition"], "starting");
    let heard = manager.heard();
    assert!(!heard.contains(&"READY=1".to_owned()), "nothing is compared yet: {heard:?}");
    assert!(heard.contains(&"EXTEND_TIMEOUT_USEC=120000000".to_owned()), "{heard:?}");
    let_on.store(true, Ordering::SeqCst);
    manager.until(|line| line == "READY=1");
    let well = format!("STATUS={} is up to date", scene.name());
    manager.until(|line| line == well);

    daemon.signal("HUP");
    let heard = manager.until(|line| line == "READY=1");
    let at = heard.iter().position(|line| line == "RELOADING=1").unwrap();
    let usec: u128 = heard[at + 1].strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let now: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let age = now - usec as f64 / 1e6;
    assert!((-1.0..60.0).contains(&age), "{usec} at {now}");

    // A file that cannot be sent is told of.
    scene.server.rule(|seen| match seen.method {
        "PUT" => Fault::Error(403, "AccessDenied"),
        _ => Fault::Pass,
    });
    scene.tree.write("b", b"2");
    manager.until(|line| line.starts_with("STATUS=") && line.contains(" fails with "));
    scene.server.no_rule();
    assert_eq!(daemon.stop(), 0);
    let heard = manager.until(|line| line == "STOPPING=1");
    assert!(!heard.contains(&"WATCHDOG=1".to_owned()), "nobody asked for it: {heard:?}");
}

/// A daemon with a watchdog, and the file that makes it hang.
fn watched(manager: &Manager) -> (Scene, PathBuf) {
    let scene = under(manager, Scene::new(&[("a", b"1")]));
    let hang = scene.user.home.path().join("hang");
    let name = hang.to_str().unwrap().to_owned();
    let scene = scene.by(|user| {
        user.with_variable("WATCHDOG_USEC", WATCHDOG_USEC).with_variable("KEEPWATCH_HANG", &name)
    });
    (scene, hang)
}

fn is_fed(line: &str) -> bool {
    line == "WATCHDOG=1"
}

/// Fed while all is well, and no more once this hangs.
fn starves(what: &str, told: &str) {
    let manager = Manager::new();
    let (scene, hang) = watched(&manager);
    let daemon = scene.user.start(&scene.quick(&[]));
    let heard = manager.until(is_fed);
    assert!(heard.contains(&"READY=1".to_owned()), "not before it is ready: {heard:?}");
    manager.until(is_fed);
    std::fs::write(&hang, what).unwrap();
    wait_for("it to be missed", || daemon.log().contains("for 1 s"));
    assert!(daemon.log().contains(told), "{}", daemon.log());
    manager.heard();
    let later = manager.next(Duration::from_millis(2_500));
    assert_eq!(later, None, "the watchdog is not fed any more");
}

#[test]
fn the_watchdog_starves_when_the_state_thread_hangs() {
    starves("state", "no sign of life from the thread of the state database");
}

#[test]
fn the_watchdog_starves_when_the_readers_hang() {
    starves("readers", "no sign of life from the threads that read files");
}

#[test]
fn the_watchdog_starves_when_a_driver_hangs() {
    starves("driver", "no sign of life from the backup ");
}

#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    let manager = Manager::new();
    let (scene, _) = watched(&manager);
    let scene = scene.by(|user| user.with_variable("WATCHDOG_PID", "1"));
    let daemon = scene.user.start(&scene.quick(&[]));
    manager.until(|line| line.ends_with("is up to date"));
    assert_eq!(manager.next(Duration::from_millis(1_500)), None);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn what_cannot_start_is_never_ready() {
    let manager = Manager::new();
    let user = User::new().with_variable("NOTIFY_SOCKET", manager.name());
    for (args, code) in [(&["watch"][..], 4), (&["watch", "--colour"], 2)] {
        assert_eq!(user.run(args).code, code);
        assert!(!manager.heard().contains(&"READY=1".to_owned()));
    }
}

/// A user with a configuration, who has a `systemctl` and a `launchctl` that only take notes.
struct Installer {
    user: User,
    notes: PathBuf,
}

impl Installer {
    fn new(folder: &str) -> Self {
        let user = User::new();
        let tools = user.home.path().join("tools");
        std::fs::create_dir(&tools).unwrap();
        let notes = user.home.path().join("notes");
        for tool in ["systemctl", "launchctl"] {
            // Whether the service is active is asked, not told.
            let script = format!(
                "#!/bin/sh\ncase \"$*\" in *is-active*) exec test -e '{0}.active';; esac\n\
                 echo {tool} \"$@\" >> '{0}'\n",
                notes.display()
            );
            std::fs::write(tools.join(tool), script).unwrap();
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(tools.join(tool), mode).unwrap();
        }
        let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
        let config = user.home.path().join(folder);
        std::fs::create_dir_all(config.join("keepwatch")).unwrap();
        let text = "[[backup]]\nname = \"d\"\nsource = \"~/d\"\ndestination = \"s3://bucket/d\"\n";
        std::fs::write(config.join("keepwatch/keepwatch.toml"), text).unwrap();
        let user = user.with_variable("PATH", &path);
        let user = user.with_variable("XDG_CONFIG_HOME", config.to_str().unwrap());
        Self { user, notes }
    }

    fn run(&self, words: &[&str], code: i32) -> Said {
        let said = self.user.run(&[&["service"], words].concat());
        assert_eq!(said.code, code, "{words:?}: {said:?}");
        said
    }

    /// What the service manager was told since the last look.
    fn notes(&self) -> Vec<String> {
        let notes = std::fs::read_to_string(&self.notes).unwrap_or_default();
        std::fs::remove_file(&self.notes).ok();
        notes.lines().map(str::to_owned).collect()
    }
}

#[test]
fn installed_for_a_user_and_undone() {
    let installer = Installer::new("con fig 100%");
    let config = installer.user.home.path().join("con fig 100%");
    let unit = config.join("systemd/user/keepwatch.service");
    let shown = installer.run(&["show", "--user"], 0).stdout;
    assert!(!unit.exists(), "nothing is written");
    let said = installer.run(&["install", "--user"], 0);
    assert_eq!(std::fs::read_to_string(&unit).unwrap(), shown);
    let quoted = config.display().to_string().replace('%', "%%");
    let exec = format!("--config \"{quoted}/keepwatch/keepwatch.toml\"");
    assert!(shown.contains(&exec), "{shown}");
    assert_eq!(
        installer.notes(),
        ["systemctl --user daemon-reload", "systemctl --user enable keepwatch.service"]
    );
    for words in [
        "wrote ",
        "it starts at every login",
        "start it now: systemctl --user start keepwatch.service",
        "loginctl enable-linger",
    ] {
        assert!(said.stdout.contains(words), "{words}: {said:?}");
    }

    // What a person has written into it is kept aside, and goes with it.
    let old = unit.with_extension("service.old");
    assert!(!old.exists());
    std::fs::write(&unit, format!("{shown}Environment=MINE=1\n")).unwrap();
    let said = installer.run(&["install", "--user"], 0);
    assert!(said.stdout.contains(&format!("kept as {}", old.display())), "{said:?}");
    assert!(std::fs::read_to_string(&old).unwrap().contains("MINE=1"));
    assert_eq!(std::fs::read_to_string(&unit).unwrap(), shown);
    installer.notes();

    // One that runs already has the former unit.
    std::fs::write(installer.notes.with_extension("active"), "").unwrap();
    let said = installer.run(&["install", "--user"], 0);
    installer.notes();
    let words = "take this up: systemctl --user restart keepwatch.service";
    assert!(said.stdout.contains(words) && !said.stdout.contains("start it now"), "{said:?}");

    let said = installer.run(&["install", "--user", "--start", "--no-enable"], 0);
    assert_eq!(
        installer.notes(),
        ["systemctl --user daemon-reload", "systemctl --user restart keepwatch.service"]
    );
    assert!(said.stdout.contains("started"), "{said:?}");

    installer.run(&["uninstall", "--user"], 0);
    assert_eq!(
        installer.notes(),
        ["systemctl --user disable --now keepwatch.service", "systemctl --user daemon-reload"]
    );
    assert!(!unit.exists() && !old.exists());
    let said = installer.run(&["uninstall", "--user"], 0);
    assert!(said.stdout.contains("nothing is installed"), "{said:?}");
    assert!(installer.notes().is_empty());
    // Where systemd is gone, its unit can still be undone.
    installer.run(&["install", "--user"], 0);
    let mut undo = installer.user.command(&["service", "uninstall", "--user"]);
    assert!(undo.env("PATH", "/nowhere").output().unwrap().status.success());
    assert!(!unit.exists());
}

#[test]
fn what_must_not_be_installed_is_refused_with_the_next_step() {
    let installer = Installer::new("config");
    let config = installer.user.home.path().join("config");
    let unit = config.join("systemd/user/keepwatch.service");
    std::fs::create_dir_all(unit.parent().unwrap()).unwrap();
    std::fs::write(&unit, "[Service]\nExecStart=/bin/other\n").unwrap();
    for verb in ["install", "uninstall"] {
        let said = installer.run(&[verb, "--user"], 4);
        assert!(said.stderr.contains("hint: "), "{said:?}");
    }
    // Nor does a dry run promise it, nor does a file that is no plain text count as none.
    installer.run(&["install", "--user", "--dry-run"], 4);
    std::fs::write(&unit, b"# f\xfcr uns\n[Service]\nExecStart=/bin/other\n").unwrap();
    installer.run(&["install", "--user"], 4);
    assert!(unit.exists(), "somebody else's file stays");
    std::fs::remove_file(&unit).unwrap();

    let file = config.join("keepwatch/keepwatch.toml");
    std::fs::write(&file, "colour = 1\n").unwrap();
    assert!(installer.run(&["install", "--user"], 4).stderr.contains("colour"));
    std::fs::remove_file(&file).unwrap();
    let said = installer.run(&["install", "--user"], 4);
    assert!(said.stderr.contains("keepwatch config example > "), "{said:?}");
    assert!(!unit.exists() && installer.notes().is_empty());
    installer.run(&["install", "--user", "--system"], 2);
    // State inside a source would be backed up for ever.
    let text = "[[backup]]\nname = \"d\"\nsource = \"~\"\ndestination = \"s3://bucket/d\"\n";
    std::fs::write(&file, text).unwrap();
    let said = installer.run(&["install", "--user"], 4);
    assert!(said.stderr.contains("is inside the source"), "{said:?}");
    let said = installer.run(&["install", "--user", "--profile", "p"], 2);
    assert!(said.stderr.contains("write profile there"), "{said:?}");
}

#[test]
fn two_users_have_two_services_that_do_not_meet() {
    let (one, two) = (Scene::new(&[("a", b"1")]), Scene::new(&[("b", b"2")]));
    let (first, second) = (one.follow(&[]), two.follow(&[]));
    let names = |daemon: &Daemon<'_>| daemon.status().unwrap()["backups"].clone();
    assert_eq!(names(&first).as_array().unwrap().len(), 1);
    assert_eq!(names(&first)[0]["name"], one.name());
    assert_eq!(names(&second)[0]["name"], two.name());
    let path = |scene: &Scene| {
        let said = scene.user.run(&["service", "show", "--user"]);
        let home = scene.user.home.path().display().to_string();
        assert!(said.stdout.contains(&home), "its own configuration: {said:?}");
        home
    };
    assert_ne!(path(&one), path(&two));
    assert_eq!((first.stop(), second.stop()), (0, 0));
}

#[test]
fn a_stranger_cannot_talk_to_the_daemon() {
    let scene = Scene::new(&[("a", b"1")]);
    if !rustix::process::geteuid().is_root() {
        println!("not root: there is nobody else to be");
        return;
    }
    let daemon = scene.follow(&[]);
    let state = scene.user.state_folder();
    // Even where every folder on the way is open.
    for folder in state.ancestors().take_while(|folder| folder.starts_with(std::env::temp_dir())) {
        if folder != std::env::temp_dir() {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let program = env!("CARGO_BIN_EXE_keepwatch");
    let copy = scene.user.home.path().join("program");
    std::fs::copy(program, &copy).unwrap();
    let ask = |uid: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", uid, "--regid", uid, "--clear-groups"]).arg(&copy);
        command.args(["status", "--json", "--state-dir"]).arg(&state).output().unwrap()
    };
    let said = ask("12345");
    let told = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(!told.contains(scene.name()), "{told}");
    assert!(String::from_utf8_lossy(&ask("0").stdout).contains(scene.name()), "root may");
    assert_eq!(daemon.stop(), 0);
}

/// As the unit of the machine has it: a user of its own, and one capability.
#[test]
fn one_capability_is_enough_to_keep_what_others_own() {
    const USER: u32 = 64_000;
    if !rustix::process::geteuid().is_root() {
        println!("not root: there is nobody else to be");
        return;
    }
    let (uid, caps) = (USER.to_string(), "-all,+dac_read_search");
    let as_service = [
        &["setpriv", "--reuid", &*uid, "--regid", &*uid, "--clear-groups", "--no-new-privs"][..],
        &["--bounding-set", caps, "--inh-caps", caps, "--ambient-caps", caps],
    ];
    let scene = Scene::new(&[("private/a", b"1")]).by(|user| user.wrapped(&as_service.concat()));
    std::os::unix::fs::chown(scene.user.home.path(), Some(USER), Some(USER)).unwrap();
    scene.tree.chmod("private/a", 0o600);
    scene.tree.chmod("private", 0o700);
    let daemon = scene.follow(&[]);
    scene.tree.write("private/b", b"2");
    scene.tree.write("private/new/c", b"3");
    scene.comes_right(&daemon);
    assert_eq!(daemon.backup()["watcher"], "full", "{}", daemon.backup());
    assert_eq!(daemon.stop(), 0);
}

/// The folder of the units that are shipped.
fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

/// Every unit of the folder, with this program in place of the installed one.
fn every_unit() -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let mut all = vec![];
    for (from, below) in [(units(), ""), (units().join("user"), "user")] {
        std::fs::create_dir_all(folder.path().join(below)).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.replace("/usr/bin/keepwatch", env!("CARGO_BIN_EXE_keepwatch"));
            let copy = folder.path().join(below).join(path.file_name().unwrap());
            std::fs::write(&copy, text).unwrap();
            all.push(copy);
        }
    }
    (folder, all)
}

fn has_analyzer() -> bool {
    let there = Command::new("systemd-analyze").arg("--version").output().is_ok();
    if !there {
        println!("systemd-analyze is not installed: the units are not verified");
    }
    there
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    if !has_analyzer() {
        return;
    }
    let (folder, all) = every_unit();
    assert!(all.len() >= 3, "{all:?}");
    for unit in all {
        let is_user = unit.parent().unwrap().ends_with("user");
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no", if is_user { "--user" } else { "--system" }]);
        let output = command.arg(&unit).env("XDG_RUNTIME_DIR", folder.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.is_empty(), "{}: {said}", unit.display());
    }
}

#[test]
fn the_service_of_the_machine_is_shut_in() {
    if !has_analyzer() {
        return;
    }
    let security = |unit: &str, most: &str| {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=true", "--no-pager", "--threshold", most]);
        let output = command.arg(units().join(unit)).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{unit}: {said}");
    };
    // In tenths: 2.5 of 10.
    security("keepwatch.service", "25");
    security("keepwatch-restore.service", "35");
}

#[test]
fn the_property_lists_are_property_lists() {
    let script = "import plistlib, sys; p = plistlib.load(open(sys.argv[1], 'rb')); \
                  assert p['KeepAlive'] is True and p['ProcessType'] == 'Background', p; \
                  assert p['LowPriorityIO'] is True and p['StandardErrorPath'], p; \
                  print(p['Label']); print('\\n'.join(p['ProgramArguments']))";
    let read = |path: &Path| {
        let mut command = Command::new(python_tool("python"));
        let output = command.args(["-c", script]).arg(path).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {errors}", path.display());
        String::from_utf8(output.stdout).unwrap()
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("launchd");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let label = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(read(&path).starts_with(&format!("{label}\n")), "the file has its label's name");
    }
    // Rendered for odd paths, by the program.
    let installer = Installer::new("a & <b>");
    for (who, label) in [("--user", "agent"), ("--system", "daemon")] {
        let config = installer.user.home.path().join("a & <b>/keepwatch/keepwatch.toml");
        let config = config.to_str().unwrap();
        let said = installer.run(&["show", who, "--manager", "launchd", "--config", config], 0);
        let path = installer.user.home.path().join("shown.plist");
        std::fs::write(&path, said.stdout).unwrap();
        let read = read(&path);
        let program = env!("CARGO_BIN_EXE_keepwatch");
        let expected = format!("io.github.keepwatch.{label}\n{program}\n--config\n{config}\n");
        assert!(read.starts_with(&expected), "{read}");
    }
}

#[test]
fn installed_with_launchd() {
    let installer = Installer::new(".config");
    let home = installer.user.home.path();
    let path = home.join("Library/LaunchAgents/io.github.keepwatch.agent.plist");
    let launchd = ["--user", "--manager", "launchd"];
    let said = installer.run(&[&["install", "--start"], &launchd[..]].concat(), 0);
    let uid = rustix::process::getuid().as_raw();
    let told = installer.notes();
    let bootstrap = format!("launchctl bootstrap gui/{uid} {}", path.display());
    assert_eq!(told.last(), Some(&bootstrap), "{told:?}");
    assert!(said.stdout.contains("Full Disk Access"), "{said:?}");
    assert!(path.exists());
    installer.run(&[&["uninstall"], &launchd[..]].concat(), 0);
    assert_eq!(
        installer.notes(),
        [format!("launchctl bootout gui/{uid}/io.github.keepwatch.agent")]
    );
    assert!(!path.exists());
}

#[test]
fn shells_and_man_are_given_what_they_need() {
    let user = User::new();
    for (shell, words) in
        [("bash", "complete -F"), ("zsh", "#compdef keepwatch"), ("fish", "complete -c")]
    {
        let said = user.run(&["completions", shell]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.stdout.contains(words), "{shell}: {said:?}");
    }
    let said = user.run(&["man"]);
    assert!(said.stdout.contains(".TH keepwatch 1"), "{said:?}");
    assert!(!said.stdout.contains("max\\-delete"), "what `restore` has is told of there: {said:?}");
    assert!(user.run(&["man", "restore"]).stdout.contains("max\\-delete"));
    assert_eq!(user.run(&["man", "nothing"]).code, 2);
    let folder = user.home.path().join("man");
    assert_eq!(user.run(&["man", "--to", folder.to_str().unwrap()]).code, 0);
    for page in ["keepwatch.1", "keepwatch-watch.1", "keepwatch-service-install.1"] {
        let text = std::fs::read_to_string(folder.join(page)).unwrap();
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{page}: {text}");
    }
}
