//! What this machine and this user are called, for the owner record.

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::model::Md5;

/// An id of this machine that does not give the machine's own id away: hashed, as machine-id(5)
/// asks. Where the system has none, an id is made and kept outside the state.
pub fn machine_id(fallback: Option<&Path>) -> io::Result<String> {
    // An empty variable is none, and no id that many machines share.
    if let Some(id) = std::env::var("KEEPWATCH_MACHINE_ID").ok().filter(|id| !id.is_empty()) {
        return Ok(id);
    }
    let system = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
    let known = system.iter().find_map(|path| std::fs::read_to_string(path).ok());
    match known.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty()) {
        Some(id) => Ok(Md5::of(format!("keepwatch {id}").as_bytes()).to_string()),
        None => kept_id(fallback),
    }
}

fn kept_id(fallback: Option<&Path>) -> io::Result<String> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "no place to keep a machine id");
    let path: PathBuf = fallback.ok_or_else(missing)?.join("keepwatch-machine-id");
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => return Ok(id.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let id = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    io::Write::write_all(&mut file, id.as_bytes())?;
    Ok(id)
}

pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The user's number.
pub fn user_id() -> u32 {
    rustix::process::getuid().as_raw()
}

/// The user's name. One that is in no file is believed from the environment: the user that systemd
/// makes for a service has a name that stays, and a number that may not. Else the number.
pub fn user_name() -> String {
    let uid = rustix::process::getuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    });
    let told = || std::env::var("USER").ok().filter(|name| !name.is_empty());
    named.or_else(told).unwrap_or_else(|| uid.to_string())
}

/// Whether this process may do as root does.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
