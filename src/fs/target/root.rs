//! The top of the target: the one handle below which everything happens, looks below it, and what
//! the file system's errors mean.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, fstat, readlinkat, statat};
use rustix::io::Errno;

use crate::fs::beneath;
use crate::fs::meta::{What, device, explain, what};
use crate::model::{Kind, RelPath};
use crate::plan::{ErrorClass, Failure};
use crate::ports::{LocalLook, TargetError};

use super::spelling::Spelling;

pub struct Root {
    /// As the user named it.
    pub path: PathBuf,
    pub fd: OwnedFd,
    /// Where two spellings of a name are one.
    pub spelling: Option<Spelling>,
}

impl Root {
    pub fn open(path: &Path) -> Result<Self, Errno> {
        Ok(Self { path: path.to_owned(), fd: beneath::open_root(path)?, spelling: None })
    }

    /// The folder that holds `path`, which is not made.
    pub fn parent(&self, path: &RelPath) -> Result<OwnedFd, TargetError> {
        let parent = path.parent().unwrap_or_else(RelPath::root);
        beneath::reach_folder(&self.fd, &parent).map_err(|errno| self.refused_at(path, errno))
    }

    /// Makes a folder and those above it where they are missing, and tells whether it was.
    pub fn make_folder(&self, path: &RelPath) -> Result<(OwnedFd, bool), TargetError> {
        beneath::make_folder(&self.fd, path).map_err(|(at, errno)| match errno {
            Errno::NOTDIR | Errno::LOOP => TargetError::InTheWay(at),
            errno => self.refused(errno),
        })
    }

    pub fn look(&self, path: &RelPath) -> Result<LocalLook, TargetError> {
        let Some(parent) = path.parent() else {
            let stat = fstat(&self.fd).map_err(|errno| self.refused(errno))?;
            return match what_is(&stat) {
                What::Folder(entry) => Ok(LocalLook::Folder(entry)),
                _ => Err(self.refused(Errno::NOTDIR)),
            };
        };
        if let Some(spelling) = &self.spelling
            && let Some(other) = spelling.other(&self.fd, path).map_err(|e| self.refused(e))?
        {
            return Ok(LocalLook::Otherwise(other));
        }
        match beneath::reach_folder(&self.fd, &parent) {
            Ok(parent) => self.look_in(&parent, OsStr::from_bytes(path.name())),
            Err(Errno::NOENT) => Ok(LocalLook::Absent),
            Err(Errno::NOTDIR | Errno::LOOP) => match self.blocked(path) {
                Some(blocked) => Ok(LocalLook::Blocked(blocked)),
                None => Err(TargetError::Changed),
            },
            Err(errno) => Err(self.refused(errno)),
        }
    }

    /// Looks at a name in an open folder.
    pub fn look_in(&self, folder: &OwnedFd, name: &OsStr) -> Result<LocalLook, TargetError> {
        let stat = || match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            result => result.map(Some).map_err(|errno| self.refused(errno)),
        };
        let Some(seen) = stat()? else { return Ok(LocalLook::Absent) };
        match what_is(&seen) {
            What::Folder(entry) => Ok(LocalLook::Folder(entry)),
            What::Entry(entry) if entry.kind == Kind::Link => {
                let target = readlinkat(folder, name, vec![]).map_err(|_| TargetError::Changed)?;
                // Another link may have come between the two.
                match stat()?.is_some_and(|again| what_is(&again) == What::Entry(entry)) {
                    true => Ok(LocalLook::Link(entry, Bytes::from(target.into_bytes()))),
                    false => Err(TargetError::Changed),
                }
            }
            What::Entry(entry) => Ok(LocalLook::File(entry)),
            What::Special => Ok(LocalLook::Special(kind_of_special(seen.st_mode))),
        }
    }

    /// The first folder above `path` that is none.
    fn blocked(&self, path: &RelPath) -> Option<RelPath> {
        let mut above = RelPath::root();
        for segment in path.parent()?.segments() {
            above = above.join(segment).ok()?;
            let stat = beneath::parent(&self.fd, &above).ok()?.stat(above.name()).ok()?;
            if !matches!(what_is(&stat), What::Folder(_)) {
                return Some(above);
            }
        }
        None
    }

    /// What an error on the way to `path` means.
    pub fn refused_at(&self, path: &RelPath, errno: Errno) -> TargetError {
        match errno {
            Errno::NOTDIR | Errno::LOOP => {
                self.blocked(path).map_or(TargetError::Changed, TargetError::InTheWay)
            }
            errno => self.refused(errno),
        }
    }

    /// What an error of the file system means for the path that met it, and for all others.
    pub fn refused(&self, errno: Errno) -> TargetError {
        match errno {
            Errno::NOENT if self.is_gone() => TargetError::Failed(self.gone(errno)),
            // It is not as it was looked at. Across devices: something was mounted meanwhile.
            Errno::NOENT | Errno::EXIST | Errno::NOTDIR | Errno::LOOP | Errno::XDEV => {
                TargetError::Changed
            }
            Errno::ISDIR | Errno::NOTEMPTY => TargetError::Changed,
            Errno::NOSPC | Errno::DQUOT | Errno::ROFS | Errno::IO | Errno::STALE => {
                TargetError::Failed(unwritable(&self.path, errno))
            }
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
                let message = format!("cannot write to {}", self.path.display());
                TargetError::Failed(
                    Failure::new(ErrorClass::Server, message).because(explain(errno)),
                )
            }
            errno => TargetError::Path(explain(errno)),
        }
    }

    /// Whether the folder itself was removed meanwhile.
    fn is_gone(&self) -> bool {
        fstat(&self.fd).is_ok_and(|stat| stat.st_nlink == 0)
    }

    fn gone(&self, errno: Errno) -> Failure {
        let message = format!("the folder {} is gone", self.path.display());
        Failure::new(ErrorClass::Configuration, message)
            .because(explain(errno))
            .with_hint("somebody removed it while it was being restored into: run it again")
    }
}

#[allow(clippy::useless_conversion, reason = "the types differ between platforms")]
fn kind_of_special(mode: rustix::fs::RawMode) -> &'static str {
    match FileType::from_raw_mode(mode.into()) {
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "neither file, link nor folder",
    }
}

/// Why nothing at all can be written into the target.
pub fn unwritable(target: &Path, errno: Errno) -> Failure {
    let target = target.display();
    let (message, hint) = match errno {
        Errno::NOSPC | Errno::DQUOT => (
            format!("there is no room left in {target}"),
            "free some space there and run it again: what is restored already is kept",
        ),
        Errno::ROFS => {
            (format!("{target} is read-only"), "mount it writable, or restore into another folder")
        }
        Errno::ACCESS | Errno::PERM => (
            format!("not permitted to write to {target}"),
            "give this user the right to write there, or restore into another folder",
        ),
        _ => (
            format!("cannot write to {target}"),
            "check the disk and run it again: what is restored already is kept",
        ),
    };
    Failure::new(ErrorClass::Configuration, message).because(explain(errno)).with_hint(hint)
}

/// What is seen here is only compared with what was seen here before: the system's number of the
/// disk will do.
pub fn what_is(stat: &rustix::fs::Stat) -> What {
    what(stat, device(stat))
}
