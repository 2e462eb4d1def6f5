//! One process per state folder.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

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
    let mut holder = String::new();
    file.read_to_string(&mut holder).ok();
    let holder = match holder.trim() {
        "" => "of an unknown process".to_owned(),
        pid => format!("process {pid}"),
    };
    LockError::Held { folder: folder.to_owned(), holder }
}
