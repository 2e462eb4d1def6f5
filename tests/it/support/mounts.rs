//! Tests that run once more in a mount namespace of their own, where that is permitted.

use std::path::PathBuf;
use std::process::Command;

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
