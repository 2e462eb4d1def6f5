//! Where configuration and state live.

use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

const NAME: &str = "keepwatch";
/// A socket's path must fit `sockaddr_un` (108 bytes on Linux, 104 on macOS), NUL included.
const SOCKET_PATH_MAX: usize = 100;

/// A variable; an empty one is one that is not set.
fn set(variable: &str) -> Option<OsString> {
    env::var_os(variable).filter(|value| !value.is_empty())
}

fn folder_from(variable: &str) -> Option<PathBuf> {
    let value = set(variable)?;
    let path = PathBuf::from(value);
    path.is_absolute().then_some(path)
}

/// The user's home folder.
pub fn home() -> Option<PathBuf> {
    folder_from("HOME")
}

/// `XDG_CONFIG_HOME`, where it is set.
pub fn config_home() -> Option<PathBuf> {
    folder_from("XDG_CONFIG_HOME")
}

/// The state of the machine's service.
const MACHINE: &str = if cfg!(target_os = "macos") {
    "/Library/Application Support/keepwatch"
} else {
    "/var/lib/keepwatch"
};

/// The state folder: systemd's, or the user's. Root that keeps none of its own means the machine's
/// service, where that has one.
pub fn state_folder() -> Option<PathBuf> {
    let own = users_state_folder();
    let machine = state_of_machine();
    let is_machines = set("STATE_DIRECTORY").is_none()
        && set("XDG_STATE_HOME").is_none()
        && super::machine::is_root()
        && !own.as_ref().is_some_and(|own| own.exists())
        && machine.is_some();
    if is_machines { machine.map(Path::to_owned) } else { own }
}

/// The state of the machine's service, where there is one.
pub fn state_of_machine() -> Option<&'static Path> {
    let machine = Path::new(MACHINE);
    machine.join("state.db").exists().then_some(machine)
}

fn users_state_folder() -> Option<PathBuf> {
    if let Some(folders) = set("STATE_DIRECTORY") {
        let first = folders.as_bytes().split(|b| *b == b':').next().unwrap_or_default();
        return Some(PathBuf::from(std::ffi::OsStr::from_bytes(first)));
    }
    if cfg!(target_os = "macos") {
        return Some(home()?.join("Library/Application Support").join(NAME));
    }
    match folder_from("XDG_STATE_HOME") {
        Some(folder) => Some(folder.join(NAME)),
        None => Some(home()?.join(".local/state").join(NAME)),
    }
}

/// Configuration files in the order they are looked for.
pub fn config_files() -> Vec<PathBuf> {
    let mut folders = vec![];
    if cfg!(target_os = "macos") {
        folders.extend(home().map(|home| home.join("Library/Application Support").join(NAME)));
    }
    match folder_from("XDG_CONFIG_HOME") {
        Some(folder) => folders.push(folder.join(NAME)),
        None => folders.extend(home().map(|home| home.join(".config").join(NAME))),
    }
    folders.push(PathBuf::from("/etc").join(NAME));
    folders.into_iter().map(|folder| folder.join("keepwatch.toml")).collect()
}

/// The control socket of a state folder: in it, or under a hashed name in the runtime folder where
/// that path is too long for a socket.
pub fn control_socket(state_folder: &Path) -> PathBuf {
    let path = state_folder.join("control.sock");
    if path.as_os_str().len() <= SOCKET_PATH_MAX {
        return path;
    }
    let digest = crate::model::Md5::of(path.as_os_str().as_bytes()).to_string();
    let runtime = folder_from("RUNTIME_DIRECTORY").or_else(|| folder_from("XDG_RUNTIME_DIR"));
    runtime.unwrap_or_else(env::temp_dir).join(format!("{NAME}-{}.sock", &digest[..16]))
}
