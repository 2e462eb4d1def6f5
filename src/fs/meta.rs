//! From `stat` to entries, and what a source is recognised by.

use std::fs::File;
use std::os::fd::AsFd;
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
#[cfg(not(target_os = "linux"))]
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

/// How many names a file has. One of a link, a folder or anything else that is no file.
#[allow(clippy::unnecessary_cast, reason = "the types differ between platforms")]
pub fn names(stat: &Stat) -> u64 {
    match FileType::from_raw_mode(stat.st_mode as _) {
        FileType::RegularFile => stat.st_nlink as u64,
        _ => 1,
    }
}

/// The system's number of the file system that this is on. It may be another after each start.
#[allow(clippy::unnecessary_cast, reason = "the types differ between platforms")]
pub fn device(stat: &Stat) -> u64 {
    stat.st_dev as u64
}

/// What a file system is recognised by: its id, or the device number where it has none. An id that
/// is no more than the device's number is that of every disk in the same slot: then the size of the
/// disk, where nothing in it has a birth time that tells more, is part of it.
pub fn file_system(file: impl AsFd) -> Result<u64, Errno> {
    let (volume, stat) = (rustix::fs::fstatvfs(&file)?, rustix::fs::fstat(&file)?);
    let device = device(&stat);
    let id = match volume.f_fsid {
        0 => device,
        id => id,
    };
    let is_slot = slot_numbers(device).contains(&id) && born_ns(&file).is_none();
    Ok(if is_slot { mixed([id, volume.f_blocks, volume.f_files]) } else { id })
}

/// What a mount below the source is recognised by, of which this is a folder: its file system, and
/// which folder of it is mounted.
#[cfg(target_os = "linux")]
pub fn mounted_disk(folder: impl AsFd) -> Result<u64, Errno> {
    use rustix::fs::{AtFlags, Mode, OFlags, StatxAttributes, StatxFlags};
    let id = file_system(&folder)?;
    let mut above: Option<OwnedFd> = None;
    loop {
        let at = above.as_ref().map_or(folder.as_fd(), |above| above.as_fd());
        let Ok(seen) = rustix::fs::statx(at, "", AtFlags::EMPTY_PATH, StatxFlags::INO) else {
            return Ok(!id);
        };
        if !seen.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
            // An old kernel does not tell.
            return Ok(!id);
        }
        if seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            let born = born_ns(at).unwrap_or_default();
            return Ok(mixed([id, seen.stx_ino, u64::from_ne_bytes(born.to_ne_bytes())]));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        above = Some(rustix::fs::openat(at, "..", flags, Mode::empty())?);
    }
}

#[cfg(not(target_os = "linux"))]
pub fn mounted_disk(folder: impl AsFd) -> Result<u64, Errno> {
    Ok(!file_system(folder)?)
}

/// The ids that Linux gives a file system which has none of its own: the device's number as the
/// kernel writes it, in either half.
fn slot_numbers(device: u64) -> [u64; 3] {
    #[allow(
        clippy::unnecessary_cast,
        clippy::cast_possible_truncation,
        reason = "the type differs between platforms"
    )]
    let number = device as rustix::fs::Dev;
    let (major, minor) =
        (u64::from(rustix::fs::major(number)), u64::from(rustix::fs::minor(number)));
    let written = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
    [device, written, written << 32]
}

/// One number of several: FNV-1a over their bytes. It is recorded, so it stays as it is.
fn mixed(numbers: [u64; 3]) -> u64 {
    let bytes = numbers.into_iter().flat_map(u64::to_le_bytes);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// When it was made, in nanoseconds since the epoch, where the file system knows.
#[cfg(target_os = "linux")]
fn born_ns(file: impl AsFd) -> Option<i64> {
    use rustix::fs::{AtFlags, StatxFlags};
    let seen = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok()?;
    let known = StatxFlags::from_bits_retain(seen.stx_mask).contains(StatxFlags::BTIME);
    let born = seen.stx_btime;
    known.then(|| born.tv_sec.checked_mul(1_000_000_000)?.checked_add(born.tv_nsec.into()))?
}

#[cfg(not(target_os = "linux"))]
fn born_ns(file: impl AsFd) -> Option<i64> {
    let file = File::from(file.as_fd().try_clone_to_owned().ok()?);
    let born = file.metadata().ok()?.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(born.as_nanos()).ok()
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
    let born_ns = born_ns(&folder);
    let inode = File::from(folder).metadata().map_err(missing)?.ino();
    Ok(Identity { filesystem, inode, born_ns })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_no_more_than_a_device_number_are_known() {
        // A loop device as `stat -f` tells of it, in either half.
        assert!(slot_numbers(0x700).contains(&0x700));
        assert!(slot_numbers(0x700).contains(&(0x700 << 32)));
        assert!(!slot_numbers(0x700).contains(&0x1234_5678_9abc_def0));
        assert_ne!(mixed([1, 2, 3]), mixed([1, 3, 2]), "every number counts, and its place");
        assert_eq!(mixed([1, 2, 3]), 0xda2b_fb22_5e0d_1f05, "it is recorded, and stays as it is");
    }
}
