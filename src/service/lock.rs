//! One process per state folder.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use thiserror::Error;

/// Held for as long as the state is used. The system takes it away when the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: Option<File>,
}

#[derive(Debug, Error)]
pub enum LockError {
    #[error("another keepwatch ({holder}) uses the state in {}", folder.display())]
    Held { folder: PathBuf, holder: String },
    #[error("cannot use the state folder {}", folder.display())]
    Io { folder: PathBuf, source: io::Error },
}

/// Makes the folder if need be and takes the lock, or says who has it.
pub fn take(folder: &Path) -> Result<Lock, LockError> {
    let failed = |source| LockError::Io { folder: folder.to_owned(), source };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(folder.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(held(folder, &mut file)),
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    // The number helps a person; the lock itself is the kernel's.
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| write!(file, "{}", std::process::id()));
    // A full disk must not keep a daemon from starting.
    written.ok();
    Ok(Lock { _file: Some(file) })
}

/// Keeps the state from being used while it is read, and makes nothing: where nobody has ever taken
/// the lock there is none to take.
pub fn share(folder: &Path) -> Result<Lock, LockError> {
    let failed = |source| LockError::Io { folder: folder.to_owned(), source };
    let mut file = match File::open(folder.join("lock")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lock { _file: None }),
        Err(error) => return Err(failed(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Lock { _file: Some(file) }),
        Err(TryLockError::WouldBlock) => Err(held(folder, &mut file)),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn held(folder: &Path, file: &mut File) -> LockError {
    let mut pid = String::new();
    file.read_to_string(&mut pid).ok();
    // Where it can be shared it is shared: by a command that reads, which leaves no number.
    let is_shared = file.try_lock_shared().is_ok();
    let pid = pid.trim().parse().ok().and_then(Pid::from_raw);
    let holder = match pid.filter(|pid| is_alive(*pid)) {
        _ if is_shared => "a command that reads it".to_owned(),
        Some(pid) => format!("process {}", pid.as_raw_nonzero()),
        None => "of an unknown process".to_owned(),
    };
    LockError::Held { folder: folder.to_owned(), holder }
}

/// Whether there is such a process. The number may be a former holder's, where the disk was too
/// full for another.
fn is_alive(pid: Pid) -> bool {
    !matches!(test_kill_process(pid), Err(Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_holds_it_is_named_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let held = |taken: Result<Lock, LockError>| match taken {
            Err(LockError::Held { holder, .. }) => holder,
            other => format!("{other:?}"),
        };
        let first = take(folder).unwrap();
        let own = format!("process {}", std::process::id());
        assert_eq!((held(take(folder)), held(share(folder))), (own.clone(), own));
        std::fs::write(folder.join("lock"), i32::MAX.to_string()).unwrap();
        assert_eq!(held(take(folder)), "of an unknown process");
        drop(first);
        let _reading = share(folder).unwrap();
        std::fs::write(folder.join("lock"), std::process::id().to_string()).unwrap();
        assert_eq!(held(take(folder)), "a command that reads it");
    }
}
