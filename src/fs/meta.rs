//! From `stat` to entries, and what a source is recognised by.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use crate::model::{Entry, Fingerprint, Kind, Timestamp};
use crate::plan::{ErrorClass, Failure};
use crate::ports::{Identity, ReadError};

use super::beneath;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A file or a link.
    Entry(Entry),
    Folder(Entry),
    /// A FIFO, socket or device.
    Special,
}

/// What `stat` tells of a name in a folder on this disk.
#[allow(clippy::unnecessary_cast, reason = "the types differ between platforms")]
pub fn what(stat: &Stat, device: u64) -> What {
    let kind = match FileType::from_raw_mode(stat.st_mode as _) {
        FileType::RegularFile => Kind::File,
        FileType::Symlink => Kind::Link,
        FileType::Directory => Kind::Folder,
        _ => return What::Special,
    };
    let fingerprint = match kind {
        Kind::Folder => Fingerprint { device, ..Fingerprint::default() },
        Kind::File | Kind::Link => Fingerprint {
            size_bytes: stat.st_size as u64,
            mtime: Timestamp::new(stat.st_mtime as i64, stat.st_mtime_nsec as u32),
            ctime: Timestamp::new(stat.st_ctime as i64, stat.st_ctime_nsec as u32),
            inode: stat.st_ino as u64,
            device,
        },
    };
    let mode = stat.st_mode as u32;
    let entry = Entry { kind, fingerprint, mode, uid: stat.st_uid as u32, gid: stat.st_gid as u32 };
    match kind {
        Kind::Folder => What::Folder(entry),
        Kind::File | Kind::Link => What::Entry(entry),
    }
}

/// The system's number of the file system that this is on. It may be another after each start.
#[allow(clippy::unnecessary_cast, reason = "the types differ between platforms")]
pub fn device(stat: &Stat) -> u64 {
    stat.st_dev as u64
}

/// What a file system is recognised by: its id, or the device number where it has none.
pub fn file_system(file: impl AsFd) -> Result<u64, Errno> {
    match rustix::fs::fstatvfs(&file)?.f_fsid {
        0 => Ok(device(&rustix::fs::fstat(&file)?)),
        id => Ok(id),
    }
}

/// Whether a folder has a mode of its own: neither of those that a umask gives.
pub fn has_own_mode(folder: &Entry) -> bool {
    !matches!(folder.mode & 0o7777, 0o755 | 0o775)
}

pub fn identity(root: &Path) -> Result<Identity, Failure> {
    let missing = |error: std::io::Error| {
        let message = format!("the source {} is not there", root.display());
        Failure::new(ErrorClass::Configuration, message)
            .because(error.to_string())
            .with_hint("check the path, and whether its disk is mounted")
    };
    let folder = beneath::open_root(root).map_err(|errno| match errno {
        Errno::NOTDIR => {
            let message = format!("the source {} is not a folder", root.display());
            Failure::new(ErrorClass::Configuration, message).with_hint("name a folder to keep")
        }
        errno => missing(errno.into()),
    })?;
    let filesystem = file_system(&folder).map_err(|errno| missing(errno.into()))?;
    let metadata = File::from(folder).metadata().map_err(missing)?;
    let born = metadata.created().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    Ok(Identity {
        filesystem,
        inode: metadata.ino(),
        born_ns: born.and_then(|t| i64::try_from(t.as_nanos()).ok()),
    })
}

/// What an error of the file system means for reading one path.
pub fn read_error(errno: Errno) -> ReadError {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO => ReadError::Changed,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
            ReadError::Busy(Failure::new(ErrorClass::Server, explain(errno)))
        }
        errno => ReadError::Unreadable(explain_unread(errno)),
    }
}

/// An error in the system's own words.
pub fn explain(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// The same for what could not be read. macOS forbids programs what their user may do.
pub fn explain_unread(errno: Errno) -> String {
    let words = explain(errno);
    match cfg!(target_os = "macos") && errno == Errno::PERM {
        true => format!(
            "{words}; let keepwatch read it: System Settings, Privacy & Security, Full Disk \
             Access"
        ),
        false => words,
    }
}
