//! Files of keys: who may read them, and where systemd puts them. Where else keys come from is in
//! `chain`, what happens when they change in `rotation`, that nobody is told them in `secrets`.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::support::program::User;
use crate::support::scene::{Scene, TO};
use crate::support::write_secret;

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

/// The AWS CLI takes them, and so must we; it is said once, by whoever uses them.
#[test]
fn keys_of_the_aws_cli_that_others_can_read_are_told_of() {
    let keys = Keys::new();
    let Keys { scene, user, file } = &keys;
    let aws = user.home.path().join(".aws");
    std::fs::create_dir(&aws).unwrap();
    let shared = aws.join("credentials");
    std::fs::rename(file, &shared).unwrap();
    let said = |user: &User, mode: u32| {
        std::fs::set_permissions(&shared, Permissions::from_mode(mode)).unwrap();
        let config = user.home.path().join("keepwatch.toml");
        let backup = |name: &str| {
            let source = scene.tree.folder.path();
            format!(
                "[[backup]]\nname = \"{name}\"\nsource = {source:?}\n\
                 destination = \"s3://bucket/{name}\"\n"
            )
        };
        std::fs::write(&config, backup("one") + &backup("two")).unwrap();
        let said = user.run(&["sync", "-c", config.to_str().unwrap()]);
        assert_eq!(said.code, 0, "{said:?}");
        said.stderr.matches(&format!("chmod 600 '{}'", shared.display())).count()
    };
    assert_eq!(said(user, 0o600), 0);
    assert_eq!(said(user, 0o644), 1);
    // Who signs with other keys is not bothered.
    let other = User::of(&scene.server.reach)
        .with_variable("AWS_SHARED_CREDENTIALS_FILE", shared.to_str().unwrap());
    assert_eq!(said(&other, 0o644), 0);
    std::fs::write(&shared, "[default]\ncredential_process = /bin/false\n").unwrap();
    assert_eq!(said(&other, 0o644), 0);
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
    // Outside of the service it is where systemd places it for that: a file can be checked.
    for name in ["%d/keys", "keys"] {
        let said = sync(&keys.user, name);
        assert_eq!(said.code, 4, "{said:?}");
        assert!(said.stderr.contains("/run/credentials/keepwatch.service/keys"), "{said:?}");
        let said = keys.user.run(&["config", "check", "-c", config.to_str().unwrap()]);
        assert_eq!(said.code, 0, "{said:?}");
    }
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
    for name in ["%d/keys", "keys"] {
        let said = service.sync(scene.tree.folder.path(), TO, &["--credentials-file", name], 0);
        assert_eq!(said.number("unchanged"), scene.tree.expected("").len() as u64, "{said:?}");
    }
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

/// As the AWS tools have it: compose files and units often leave a variable empty.
#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    let scene = Scene::new(&[("a", b"1")]);
    let reach = &scene.server.reach;
    let folder = || {
        let user = User::new();
        let aws = user.home.path().join(".aws");
        std::fs::create_dir(&aws).unwrap();
        let (key, secret) = (&reach.access_key, &reach.secret_key);
        let keys =
            format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
        write_secret(&aws.join("credentials"), &keys);
        let config = format!("[default]\nregion = us-east-1\nendpoint_url = {}\n", reach.endpoint);
        std::fs::write(aws.join("config"), config).unwrap();
        user
    };
    let emptied = [
        &["AWS_ENDPOINT_URL"][..],
        &["AWS_ENDPOINT_URL_S3"],
        &["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_REGION"],
        &["AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_CA_BUNDLE"],
        &["AWS_SESSION_TOKEN", "KEEPWATCH_ENDPOINT_URL", "KEEPWATCH_REGION", "KEEPWATCH_CONFIG"],
        &["KEEPWATCH_TRANSFERS", "KEEPWATCH_STATE_DIR", "KEEPWATCH_PROFILE", "KEEPWATCH_EXCLUDE"],
        &["KEEPWATCH_RETRY_FOR", "KEEPWATCH_LOG_FORMAT", "KEEPWATCH_JSON", "STATE_DIRECTORY"],
    ];
    for (n, names) in emptied.into_iter().enumerate() {
        let user = names.iter().fold(folder(), |user, name| user.with_variable(name, ""));
        let to = format!("s3://bucket/{n}");
        user.sync(scene.tree.folder.path(), &to, &[], 0);
        assert!(scene.bucket.get(&format!("{n}/a")).is_some(), "{names:?}");
        assert!(user.state_folder().join("state.db").exists(), "{names:?}");
    }
    // What is set for all services counts, where that for S3 alone is empty.
    let user = User::of(reach).with_variable("AWS_ENDPOINT_URL_S3", "");
    user.sync(scene.tree.folder.path(), TO, &[], 0);
    // Two machines do not become one by it.
    let stranger = User::of(reach).with_variable("KEEPWATCH_MACHINE_ID", "other");
    stranger.sync(scene.tree.folder.path(), TO, &[], 4);
    let same = User::of(reach).with_variable("KEEPWATCH_MACHINE_ID", "");
    same.sync(scene.tree.folder.path(), TO, &[], 0);
}
