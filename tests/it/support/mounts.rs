//! Tests that run once more in a mount namespace of their own, where that is permitted; and folders
//! on a disk that does not answer.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const INNER: &str = "KEEPWATCH_INNER_TEST";

/// Runs the test again behind these commands, which begin in a new folder that holds an empty
/// `target`. In that run, tells which folder it is.
pub fn behind(test: &str, commands: &str) -> Option<PathBuf> {
    behind_as("\"$0\"", test, commands)
}

/// The same with another program, that runs the test when it is given what `commands` sets.
pub fn behind_as(program: &str, test: &str, commands: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(INNER) {
        return Some(folder.into());
    }
    let own = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    let run = |end: &str| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("target")).unwrap();
        let script = format!("set -e; {commands}\n{end}");
        let mut command = Command::new("unshare");
        command.args([own, "sh", "-c", &script]).arg(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).current_dir(folder.path());
        command.env(INNER, folder.path()).status().unwrap().success()
    };
    match run("") {
        true => assert!(run(&format!("exec {program} \"$@\""))),
        false => println!("skipped: not permitted here"),
    }
    None
}

/// Mounts a file system of which nobody is at the other end, and lets go of it when it is told to.
/// What it is to run sees the mount, and knows nothing of the other end.
const HANG: &str = r#"
import ctypes, os, sys, time
folder, released = sys.argv[1:3]
libc = ctypes.CDLL(None)
fd = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fd},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
if libc.mount(b"hung", folder.encode(), b"fuse", 0, options.encode()):
    sys.exit(99)
program = os.getpid()
if os.fork() == 0:
    null = os.open("/dev/null", os.O_RDWR)
    for n in range(3):
        os.dup2(null, n)
    while os.getppid() == program and not os.path.exists(released):
        time.sleep(0.02)
    libc.umount2(folder.encode(), 2)
    os._exit(0)
os.close(fd)
os.execvp(sys.argv[3], sys.argv[3:])
"#;

/// A folder at which every look hangs for what is run beside it, as on a network mount whose server
/// is away.
pub struct Hung {
    folder: PathBuf,
    notes: TempDir,
}

impl Hung {
    /// `None` where no such thing can be mounted.
    pub fn over(folder: &Path) -> Option<Self> {
        let hung = Self { folder: folder.to_owned(), notes: tempfile::tempdir().unwrap() };
        let permitted = hung.beside(&Command::new("true")).output();
        match permitted.is_ok_and(|output| output.status.success()) {
            true => Some(hung),
            false => {
                println!("NOT TESTED: nothing that hangs can be mounted here");
                None
            }
        }
    }

    fn released(&self) -> PathBuf {
        self.notes.path().join("released")
    }

    /// The command, for which looks at the folder hang.
    pub fn beside(&self, command: &Command) -> Command {
        let own = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
        let mut hung = Command::new("unshare");
        hung.args([own, "python3", "-c", HANG]).arg(&self.folder).arg(self.released());
        hung.arg(command.get_program()).args(command.get_args()).env_clear();
        hung.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        hung.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        hung
    }

    /// What hangs fails, and from then on the folder is what it was before.
    pub fn let_go(&self) {
        std::fs::write(self.released(), b"").unwrap();
    }
}
