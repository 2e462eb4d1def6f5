//! Nobody is told a secret: whatever goes wrong, at every level, in every form, by one-shot
//! commands and by a daemon. The secrets are good ones: the store verifies what they sign.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::external::free_port;
use crate::support::program::{Said, User};
use crate::support::scene::{Scene, TO};
use crate::support::server::Fault;
use crate::support::{wait_for, write_secret};

const KEY: &str = "AKIDPLANTED";
const SECRET: &str = "Pl4nted+S3cret/Value";
const TOKEN: &str = "Pl4nted+T0ken/Value";
/// What both begin with, however the rest may be encoded.
const PLANTED: &str = "Pl4nted";

/// What a server may answer.
const FAULTS: [Fault; 19] = [
    Fault::Error(400, "ExpiredToken"),
    Fault::Error(400, "InvalidToken"),
    Fault::Error(403, "InvalidAccessKeyId"),
    Fault::Error(403, "SignatureDoesNotMatch"),
    Fault::Error(403, "AccessDenied"),
    Fault::Error(403, "RequestTimeTooSkewed"),
    Fault::Error(404, "NoSuchBucket"),
    Fault::Error(412, "PreconditionFailed"),
    Fault::Error(400, "InvalidRequest"),
    Fault::Error(500, "InternalError"),
    Fault::Error(501, "NotImplemented"),
    Fault::Error(503, "SlowDown"),
    Fault::Error(507, "InsufficientStorage"),
    Fault::Html(200),
    Fault::Html(403),
    Fault::Moved,
    Fault::InRegion("eu-west-1"),
    Fault::DropReply,
    Fault::Close,
];

/// Every level: errors, information, debugging, traces, and those of libraries.
const LEVELS: [&[&str]; 6] =
    [&["-q"], &[], &["-v"], &["-vv"], &["-vvv"], &["-vvv", "--log-format", "json"]];

/// Somebody with secrets in the environment, in a file of keys, in the AWS CLI's own, and in the
/// comments of the configuration.
struct Holder {
    scene: Scene,
    user: User,
    file: PathBuf,
    config: PathBuf,
}

impl Holder {
    fn new(more: &str) -> Self {
        let scene = Scene::with_files(2);
        scene.server.knows(&[(KEY, SECRET)]);
        let user = User::new()
            .with_variable("AWS_ENDPOINT_URL", &scene.server.reach.endpoint)
            .with_variable("AWS_REGION", "us-east-1")
            .with_variable("AWS_ACCESS_KEY_ID", KEY)
            .with_variable("AWS_SECRET_ACCESS_KEY", SECRET)
            .with_variable("AWS_SESSION_TOKEN", TOKEN)
            .with_variable("KEEPWATCH_RETRY_FOR", "50ms");
        let home = user.home.path();
        let folder = home.join(".config/keepwatch");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::create_dir(home.join(".aws")).unwrap();
        let (file, config) = (home.join("keys"), folder.join("keepwatch.toml"));
        let holder = Self { file, config, scene, user };
        write_secret(&holder.file, &Self::keys());
        write_secret(&holder.user.home.path().join(".aws/credentials"), &Self::keys());
        holder.configure(more);
        holder
    }

    fn keys() -> String {
        format!(
            "[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n\
             aws_session_token = {TOKEN}\n"
        )
    }

    fn configure(&self, more: &str) {
        let (source, file) = (self.scene.source(), self.file.display());
        let text = format!(
            "# aws_secret_access_key = \"{SECRET}\"\nsettle = \"50ms\"\n[[backup]]\n\
             name = \"n\"\nsource = \"{source}\"\ndestination = \"{TO}\"\n\
             credentials_file = \"{file}\" # {TOKEN}\n{more}"
        );
        std::fs::write(&self.config, text).unwrap();
    }

    /// Requests meet this fate; how many did so far.
    fn meet(&self, fault: &Fault) -> Arc<AtomicUsize> {
        let (fault, met) = (fault.clone(), Arc::new(AtomicUsize::new(0)));
        let count = met.clone();
        self.scene.server.rule(move |seen| match seen.key == KEY {
            true => {
                count.fetch_add(1, Ordering::SeqCst);
                fault.clone()
            }
            false => Fault::Pass,
        });
        met
    }

    fn run(&self, words: &[&str]) -> Said {
        let said = self.user.run(words);
        tells_nothing(&format!("{words:?}"), &said.stdout);
        tells_nothing(&format!("{words:?}"), &said.stderr);
        said
    }

    /// At every level, with keys of the file and of the environment; it must end with this code.
    fn fails(&self, more: &[&str], code: Option<i32>) {
        for level in LEVELS {
            let words = [&["sync", "-c", self.config.to_str().unwrap()], level, more].concat();
            let said = self.run(&words);
            let is_so = code.map_or(said.code > 0, |code| said.code == code);
            assert!(is_so, "{words:?}: {said:?}");
        }
        let back = self.user.home.path().join("back");
        for command in [
            &["sync", self.scene.source(), TO][..],
            &["restore", TO, back.to_str().unwrap()],
            &["ls", TO],
            &["status"],
        ] {
            self.run(&[command, &["-vvv"], more].concat());
        }
    }
}

#[track_caller]
fn tells_nothing(what: &str, text: &str) {
    assert!(!text.contains(PLANTED), "{what} tells a secret:\n{text}");
}

/// Nothing below this folder has it.
fn keeps_nothing(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            keeps_nothing(&path);
        } else if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            tells_nothing(&path.display().to_string(), &String::from_utf8_lossy(&bytes));
        }
    }
}

/// In a few threads at once, each with its share.
fn shared_out<T: Sync>(all: &[T], share: usize, work: impl Fn(&[T]) + Sync) {
    std::thread::scope(|scope| {
        all.chunks(share).for_each(|chunk| {
            scope.spawn(|| work(chunk));
        });
    });
}

#[test]
fn by_one_shot_commands_when_the_server_fails() {
    shared_out(&FAULTS, 5, |faults| {
        let holder = Holder::new("");
        assert_eq!(holder.run(&["sync", "-vvv"]).code, 0, "the secrets are good");
        let objects = holder.scene.bucket.objects();
        assert!(!objects.is_empty());
        for (key, seen) in objects {
            tells_nothing(
                &key,
                &format!("{:?} {}", seen.meta, String::from_utf8_lossy(&seen.body)),
            );
        }
        for fault in faults {
            let met = holder.meet(fault);
            holder.scene.tree.write("new", format!("{fault:?}").as_bytes());
            holder.fails(&[], None);
            assert!(met.load(Ordering::SeqCst) > 0, "{fault:?}");
        }
        keeps_nothing(&holder.user.state_folder());
    });
}

#[test]
fn by_one_shot_commands_when_keys_cannot_be_read() {
    let files = [
        // Not of the right form, and it is the secret that is in the way.
        format!("[default]\n{SECRET}\n"),
        format!("aws_secret_access_key = {SECRET}\n"),
        format!("[default\naws_secret_access_key = {SECRET}\n"),
        format!("[default]\naws_secret_access_key = {SECRET}\naws_session_token = {TOKEN}\n"),
        format!("[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}x\n"),
        // A program is given it, and prints it.
        format!("[default]\ncredential_process = false --password {SECRET}\n"),
        format!("[default]\ncredential_process = echo {SECRET}\n"),
        format!(
            "[default]\ncredential_process = echo '{{\"Version\":1,\"AccessKeyId\":\"{KEY}\",\
             \"SecretAccessKey\":\"{SECRET}\",\"Expiration\":\"{TOKEN}\"}}'\n"
        ),
        format!(
            "[default]\nrole_arn = {SECRET}\nsource_profile = none\naws_session_token = {TOKEN}"
        ),
        format!(
            "[default]\nrole_arn = arn:aws:iam::1:role/r\nexternal_id = {TOKEN}\n\
             source_profile = base\n[base]\ncredential_process = false\n"
        ),
    ];
    shared_out(&files, 3, |files| {
        let holder = Holder::new("");
        for text in files {
            write_secret(&holder.file, text);
            holder.fails(&[], Some(4));
        }
    });
    let holder = Holder::new("");
    holder.fails(&["--profile", "none"], Some(4));
    let nobody = format!("http://127.0.0.1:{}", free_port());
    holder.fails(&["--endpoint-url", &nobody], Some(5));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&holder.file, mode).unwrap();
    holder.fails(&[], Some(4));
}

/// Configurations with a secret where none belongs.
fn refused() -> [String; 6] {
    [
        format!("secret_access_key = \"{SECRET}\"\n"),
        format!("endpoint_url = \"https://key:{SECRET}@host\"\n"),
        format!("endpoint_url = 7\naws_session_token = \"{TOKEN}\n"),
        format!("[[backup]]\npassword = '{SECRET}'\n"),
        format!(
            "[[backup]]\nname = \"n\"\nsource = \"/s\"\ndestination = \"s3://k:{SECRET}@b/p\"\n"
        ),
        format!("[[backup]]\nname = \"n\"\nsecret = '{SECRET}'\ndestination = 7\n"),
    ]
}

#[test]
fn by_one_shot_commands_when_the_configuration_is_wrong() {
    let holder = Holder::new("");
    for text in refused() {
        std::fs::write(&holder.config, &text).unwrap();
        holder.fails(&[], None);
        for command in [&["config", "check"][..], &["config", "show"], &["service", "show"]] {
            holder.run(command);
        }
    }
    // In URLs, wherever they come from.
    holder.configure("");
    let secret = format!("http://key:{SECRET}@127.0.0.1:{}", free_port());
    holder.fails(&["--endpoint-url", &secret], Some(2));
    for scheme in ["s3", "https"] {
        let bucket = format!("{scheme}://key:{SECRET}@bucket/p");
        assert_eq!(holder.run(&["sync", holder.scene.source(), &bucket, "-vvv"]).code, 2);
        assert_ne!(holder.run(&["mirror", &bucket, "s3://bucket/q", "-vvv"]).code, 0);
    }
    for variable in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "KEEPWATCH_ENDPOINT_URL"] {
        let mut holder = Holder::new("");
        holder.user = holder.user.with_variable(variable, &secret);
        holder.fails(&[], None);
        keeps_nothing(&holder.user.state_folder());
    }
    let text = format!("[default]\nservices = x\n[services x]\ns3 =\n  endpoint_url = {secret}\n");
    let mut holder = Holder::new("");
    let nowhere = User::new().with_variable("AWS_REGION", "us-east-1");
    let _home = std::mem::replace(&mut holder.user, nowhere);
    std::fs::create_dir(holder.user.home.path().join(".aws")).unwrap();
    write_secret(&holder.user.home.path().join(".aws/config"), &text);
    holder.fails(&[], None);
}

#[test]
fn by_a_daemon_whatever_goes_wrong() {
    shared_out(&FAULTS, 5, |faults| {
        let port = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let holder = Holder::new(&format!("[status]\nlisten = \"{port}\"\n"));
        let Holder { scene, user, file, config } = &holder;
        let daemon = user.watch(&["-vvv", "--log-format", "json"]);
        daemon.flush();
        let look = || {
            for words in [&["status"][..], &["status", "--json", "--files"], &["status", "-v"]] {
                holder.run(words);
            }
            let metrics = crate::metrics::metrics(port);
            assert!(metrics.contains("keepwatch_requests_total"), "{metrics}");
            tells_nothing("/metrics", &metrics);
            let line = std::fs::read(format!("/proc/{}/cmdline", daemon.pid())).unwrap();
            tells_nothing("its command line", &String::from_utf8_lossy(&line));
        };
        for (n, fault) in faults.iter().enumerate() {
            let met = holder.meet(fault);
            scene.tree.write(format!("new/{n}"), format!("{fault:?}").as_bytes());
            wait_for("the fault", || met.load(Ordering::SeqCst) > 0);
            look();
            scene.server.no_rule();
            wait_for("the wait to be over", || daemon.backup()["waiting_for"].is_null());
        }
        // Keys that cannot be read any more, once those that it knows are refused.
        let met = holder.meet(&Fault::Error(403, "InvalidAccessKeyId"));
        write_secret(file, &format!("[default]\n{SECRET}\n"));
        scene.tree.write("last", b"1");
        wait_for("the fault", || met.load(Ordering::SeqCst) > 0);
        let unread = || daemon.backup()["waiting_for"].to_string().contains("no usable");
        wait_for("the keys to be missed", unread);
        look();
        for (n, text) in refused().iter().enumerate() {
            std::fs::write(config, text).unwrap();
            daemon.signal("HUP");
            let refusals = || daemon.log().matches("\"keepwatch::condition\"").count();
            wait_for("the refusal", || refusals() > n);
            look();
        }
        let log = daemon.log();
        assert!(log.contains("\"level\":\"trace\"") && log.contains("\"aws_"), "all levels: {log}");
        tells_nothing("the log", &log);
        assert_eq!(daemon.stop(), 0);
        keeps_nothing(&user.state_folder());
    });
}
