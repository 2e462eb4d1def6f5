//! The program under test, with a home, a state and an environment of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::server::Reach;
use super::wait_for;

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// The last line of standard output as JSON.
    pub fn json(&self) -> Value {
        let last = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|e| panic!("no JSON ({e}) in {self:?}"))
    }

    /// A number of the last line.
    pub fn number(&self, name: &str) -> u64 {
        let json = self.json();
        let value = name.split('.').fold(&json, |value, part| &value[part]);
        value.as_u64().unwrap_or_else(|| panic!("no number {name} in {json}"))
    }
}

/// A user of keepwatch: home, state, keys.
pub struct User {
    pub home: TempDir,
    reach: Option<Reach>,
    variables: Vec<(String, String)>,
    wrapper: Vec<String>,
}

impl User {
    /// A user without any S3 account.
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        Self { home, reach: None, variables: vec![], wrapper: vec![] }
    }

    pub fn of(reach: &Reach) -> Self {
        Self { reach: Some(reach.clone()), ..Self::new() }
    }

    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Modes of files bind this user, even where the tests run as root.
    pub fn bound_by_modes(self) -> Self {
        match rustix::process::geteuid().is_root() {
            true => self.wrapped(&["setpriv", "--bounding-set=-dac_override,-dac_read_search"]),
            false => self,
        }
    }

    /// The program is run by these words, which come before it.
    pub fn wrapped(self, words: &[&str]) -> Self {
        Self { wrapper: words.iter().map(|&word| word.to_owned()).collect(), ..self }
    }

    pub fn state_folder(&self) -> PathBuf {
        self.home.path().join(".local/state/keepwatch")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_keepwatch");
        let words = self.wrapper.iter().map(String::as_str);
        let mut words = words.chain([program]).chain(args.iter().copied());
        let mut command = Command::new(words.next().unwrap_or(program));
        command.args(words).env_clear().env("HOME", self.home.path());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("AWS_EC2_METADATA_DISABLED", "true").env("RUST_BACKTRACE", "1");
        if let Some(reach) = &self.reach {
            command
                .env("AWS_ACCESS_KEY_ID", &reach.access_key)
                .env("AWS_SECRET_ACCESS_KEY", &reach.secret_key)
                .env("AWS_REGION", &reach.region)
                .env("AWS_ENDPOINT_URL", &reach.endpoint);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Said {
        let output = self.command(args).stdin(Stdio::null()).output().unwrap();
        Said {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// `sync SOURCE DESTINATION --json …`; it must end with this code.
    pub fn sync(&self, source: &Path, destination: &str, more: &[&str], code: i32) -> Said {
        let source = source.to_str().unwrap();
        let mut args = vec!["sync", source, destination, "--json"];
        args.extend(more);
        let said = self.run(&args);
        assert_eq!(said.code, code, "{args:?}: {said:?}");
        said
    }

    /// Starts a daemon with these arguments after `watch`, and waits until it answers.
    pub fn watch(&self, args: &[&str]) -> Daemon<'_> {
        let mut daemon = self.start(args);
        wait_for("the daemon to answer", || {
            let ended = daemon.child.try_wait().unwrap();
            assert!(ended.is_none(), "the daemon ended: {}", daemon.log());
            daemon.status().is_some()
        });
        daemon
    }

    /// Starts a daemon without waiting for anything.
    pub fn start(&self, args: &[&str]) -> Daemon<'_> {
        let mut command = self.command(&["watch"]);
        command.args(args);
        self.spawn(command)
    }

    /// Starts a command that is to be signalled; what it says goes to the log.
    pub fn spawn(&self, mut command: Command) -> Daemon<'_> {
        let log = self.home.path().join("daemon.log");
        let file = std::fs::File::options().append(true).create(true).open(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        Daemon { user: self, child: child.spawn().unwrap(), log }
    }
}

/// A running daemon. Killed when the test ends.
pub struct Daemon<'a> {
    user: &'a User,
    pub child: Child,
    log: PathBuf,
}

impl Daemon<'_> {
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Everything that daemons of this user have logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `status --json`, if it answers as a daemon.
    pub fn status(&self) -> Option<Value> {
        let said = self.user.run(&["status", "--json"]);
        let status: Value = serde_json::from_str(said.stdout.trim()).ok()?;
        (status["daemon"] == true).then_some(status)
    }

    /// Status of the only backup.
    pub fn backup(&self) -> Value {
        self.status().map(|status| status["backups"][0].clone()).unwrap_or_default()
    }

    /// Waits until all that exists now is in the destination; deletions follow their own delay.
    pub fn flush(&self) {
        let said = self.user.run(&["flush", "--timeout", "120s"]);
        assert_eq!(said.code, 0, "{said:?}\n{}", self.log());
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Asks it to stop and waits; answers with its exit code.
    pub fn stop(self) -> i32 {
        self.signal("TERM");
        self.wait()
    }

    /// Waits for its end; answers with its exit code.
    pub fn wait(mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
