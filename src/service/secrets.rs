//! Files with secrets in them, and what this process would leave of them: nobody else may read
//! either. Never tells a secret itself.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// No file of credentials is longer.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// The folder in which systemd places what a unit has by `LoadCredential`.
pub fn credentials_folder() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// Whether this file has a secret in it and lets others than its owner read it. What its owner lets
/// a group read is let pass where that is somebody else: so root gives a service its keys. What
/// systemd places is kept by its folder, whatever its mode seems to say.
pub fn is_exposed(file: &Path) -> bool {
    if credentials_folder().is_some_and(|folder| file.starts_with(folder)) {
        return false;
    }
    let Ok(stat) = std::fs::metadata(file) else { return false };
    let is_own = stat.uid() == rustix::process::geteuid().as_raw();
    let others = if is_own { 0o077 } else { 0o007 };
    stat.is_file() && stat.mode() & others != 0 && has_secret(file)
}

/// The files that the AWS CLI keeps for this user, as far as keys are looked for there: not where
/// the environment has them, unless a profile is named.
pub fn shared_files(names_profile: bool) -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if !names_profile && variable("AWS_ACCESS_KEY_ID").is_some() {
        return vec![];
    }
    let file = |name: &str, usual: &str| match variable(name) {
        Some(file) => Some(PathBuf::from(file)),
        None => Some(super::paths::home()?.join(".aws").join(usual)),
    };
    let files =
        [file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), file("AWS_CONFIG_FILE", "config")];
    files.into_iter().flatten().collect()
}

fn has_secret(file: &Path) -> bool {
    let mut text = vec![];
    let Ok(file) = std::fs::File::open(file) else { return false };
    if file.take(FILE_MAX_BYTES).read_to_end(&mut text).is_err() {
        return false;
    }
    let text = String::from_utf8_lossy(&text).to_lowercase();
    ["aws_secret_access_key", "aws_session_token"].iter().any(|name| text.contains(name))
}

/// A crash leaves no memory on a disk, for there are keys in it.
pub fn leave_no_core() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).ok();
    // The limit does not hold for a program that the kernel hands the core to.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).ok();
}
