//! Keys: where they are found, who may read them, what happens when they are changed or expire, and
//! that nobody is ever told them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::support::program::User;
use crate::support::scene::{Scene, TO};
use crate::support::server::Fault;
use crate::support::{wait_for, write_secret};

/// A user who has keys in a file only.
struct Keys {
    scene: Scene,
    user: User,
    file: PathBuf,
}

impl Keys {
    fn new() -> Self {
        let scene = Scene::new(&[("a", b"1"), ("b", b"2")]);
        let user = User::new()
            .with_variable("AWS_ENDPOINT_URL", &scene.server.reach.endpoint)
            .with_variable("AWS_REGION", "us-east-1");
        let file = user.home.path().join("keys");
        let keys = Self { scene, user, file };
        keys.write(&keys.scene.server.reach.secret_key);
        keys
    }

    fn write(&self, secret: &str) {
        let key = &self.scene.server.reach.access_key;
        let text =
            format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
        write_secret(&self.file, &text);
    }

    fn sync(&self, code: i32) -> String {
        let file = self.file.to_str().unwrap();
        let more = ["--credentials-file", file];
        self.user.sync(self.scene.tree.folder.path(), TO, &more, code).stderr
    }
}

#[test]
fn a_file_that_others_can_read_is_refused_with_what_mends_it() {
    let keys = Keys::new();
    for mode in [0o644, 0o640, 0o604] {
        std::fs::set_permissions(&keys.file, Permissions::from_mode(mode)).unwrap();
        let said = keys.sync(4);
        let mend = format!("hint: chmod 600 '{}'", keys.file.display());
        assert!(said.contains("and there is a secret in it"), "{said}");
        assert!(said.contains(&mend), "{mend} is not in {said}");
        assert!(!said.contains(&keys.scene.server.reach.secret_key), "{said}");
    }
    assert_eq!(keys.scene.bucket.keys(), [""; 0]);
    std::fs::set_permissions(&keys.file, Permissions::from_mode(0o600)).unwrap();
    keys.sync(0);
    // Without a secret in it there is nothing to hide.
    let text = "[default]\ncredential_process = /bin/false\n";
    std::fs::write(&keys.file, text).unwrap();
    std::fs::set_permissions(&keys.file, Permissions::from_mode(0o644)).unwrap();
    assert!(!keys.sync(4).contains("and there is a secret in it"));
}

#[test]
fn what_systemd_gives_is_found_by_its_name() {
    let keys = Keys::new();
    let config = keys.user.home.path().join("keepwatch.toml");
    let sync = |user: &User, name: &str| {
        let text = format!(
            "[[backup]]\nname = \"n\"\nsource = {:?}\ndestination = \"{TO}\"\n\
             credentials_file = \"{name}\"\n",
            keys.scene.tree.folder.path()
        );
        std::fs::write(&config, text).unwrap();
        user.run(&["sync", "-c", config.to_str().unwrap(), "--json"])
    };
    let said = sync(&keys.user, "%d/keys");
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.stderr.contains("there is no $CREDENTIALS_DIRECTORY"), "{said:?}");
    assert_eq!(sync(&keys.user, "keys").code, 4, "no folder to be relative to");
    // There the mode says nothing: it is the folder that keeps others out.
    std::fs::set_permissions(&keys.file, Permissions::from_mode(0o440)).unwrap();
    let Keys { scene, user, file } = &keys;
    let service = User::new()
        .with_variable("AWS_ENDPOINT_URL", &scene.server.reach.endpoint)
        .with_variable("AWS_REGION", "us-east-1")
        .with_variable("CREDENTIALS_DIRECTORY", user.home.path().to_str().unwrap());
    for name in ["%d/keys", "keys", file.to_str().unwrap()] {
        let said = sync(&service, name);
        assert_eq!(said.code, 0, "{name}: {said:?}");
    }
    scene.is_kept();
}

/// The file is replaced while it runs, and a session ends: the work waits and goes on by itself.
#[test]
fn keys_that_change_while_it_runs() {
    let keys = Keys::new();
    let Keys { scene, user, file } = &keys;
    let more = ["--credentials-file", file.to_str().unwrap()];
    let daemon = user.watch(&scene.quick(&more));
    scene.comes_right(&daemon);
    let waits_for = |what: &str| daemon.backup()["waiting_for"].to_string().contains(what);
    let changes: [(&str, &dyn Fn(), &dyn Fn()); 2] = [
        ("ExpiredToken", &|| scene.server.rule(|_| Fault::Error(400, "ExpiredToken")), &|| {
            scene.server.no_rule()
        }),
        (
            "InvalidAccessKeyId",
            &|| scene.server.rule(|_| Fault::Error(403, "InvalidAccessKeyId")),
            &|| {
                keys.write(&scene.server.reach.secret_key);
                scene.server.no_rule();
            },
        ),
    ];
    for (n, (what, breaks, mends)) in changes.into_iter().enumerate() {
        breaks();
        scene.tree.write(format!("new-{n}"), b"3");
        wait_for("the wait to be told", || waits_for(what));
        mends();
        scene.comes_right(&daemon);
        wait_for("the wait to be over", || daemon.backup()["waiting_for"].is_null());
    }
    assert!(!daemon.log().contains("failed: "), "{}", daemon.log());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_crash_leaves_no_memory_behind() {
    let scene = Scene::with_files(1);
    let daemon = scene.watch(&[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let numbers: Vec<&str> = core.split_whitespace().filter(|word| *word == "0").collect();
    assert_eq!(numbers.len(), 2, "{core}");
    let line = std::fs::read(format!("/proc/{}/cmdline", daemon.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&line).contains(&scene.server.reach.secret_key));
    assert_eq!(daemon.stop(), 0);
}

const PLANTED: &str = "Pl4nted+S3cret/Value";

/// All that a user who has this secret in the environment and in a file is told, whatever goes
/// wrong.
#[test]
fn a_secret_is_told_to_nobody() {
    let keys = Keys::new();
    keys.write(PLANTED);
    let (source, file) = (keys.scene.source(), keys.file.to_str().unwrap());
    let endpoint = keys.scene.server.reach.endpoint.as_str();
    let user = User::new()
        .with_variable("AWS_ENDPOINT_URL", endpoint)
        .with_variable("AWS_REGION", "us-east-1")
        .with_variable("AWS_ACCESS_KEY_ID", &keys.scene.server.reach.access_key)
        .with_variable("AWS_SECRET_ACCESS_KEY", PLANTED)
        .with_variable("AWS_SESSION_TOKEN", PLANTED)
        .with_variable("RUST_LOG", "trace")
        .with_variable("KEEPWATCH_RETRY_FOR", "100ms");
    let back = user.home.path().join("back");
    let back = back.to_str().unwrap();
    let configs = [
        format!("secret_access_key = \"{PLANTED}\"\n"),
        format!("endpoint_url = \"https://key:{PLANTED}@host\"\n"),
        format!("endpoint_url = 7\naws_session_token = \"{PLANTED}\n"),
        format!("[[backup]]\npassword = '{PLANTED}'\n"),
    ];
    for (n, text) in configs.iter().enumerate() {
        std::fs::write(user.home.path().join(format!("{n}.toml")), text).unwrap();
    }
    let config = |n: usize| user.home.path().join(format!("{n}.toml")).display().to_string();
    let runs = |fault: Fault| {
        keys.scene.server.rule(move |_| fault.clone());
        let config: Vec<String> = (0..configs.len()).map(config).collect();
        let mut commands: Vec<Vec<&str>> = vec![
            vec!["sync", source, TO],
            vec!["sync", source, TO, "--credentials-file", file],
            vec!["sync", source, TO, "--profile", "none"],
            vec!["restore", TO, back],
            vec!["ls", TO],
            vec!["status", "--json"],
        ];
        commands.extend(config.iter().map(|file| vec!["config", "check", "-c", file]));
        for command in commands {
            for more in [&["-vv"][..], &["-v", "--log-format", "json"]] {
                let said = user.run(&[&command[..], more].concat());
                for text in [&said.stdout, &said.stderr] {
                    assert!(!text.contains(PLANTED), "{command:?}: {said:?}");
                }
            }
        }
    };
    runs(Fault::Pass);
    runs(Fault::Error(400, "ExpiredToken"));
    runs(Fault::Error(403, "AccessDenied"));
    runs(Fault::Error(500, "InternalError"));
    runs(Fault::Html(200));
    runs(Fault::Close);
}
