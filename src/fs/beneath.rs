//! Opening below a folder without ever following a symbolic link or leaving it.
//!
//! Linux has `openat2` for this; elsewhere, and on kernels or sandboxes without it, the path is
//! walked segment by segment.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::model::RelPath;

/// Opens the source itself. This one path may go through links: it is what the user named.
pub fn open_root(root: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(root, SEARCH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a folder for listing.
pub fn open_folder(root: &OwnedFd, path: &RelPath) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if path.is_root() {
        return rustix::fs::openat(root, ".", flags, Mode::empty());
    }
    open(root, path, flags)
}

/// Opens a file for reading. Never blocks, also when the name has become a FIFO meanwhile.
pub fn open_file(root: &OwnedFd, path: &RelPath) -> Result<OwnedFd, Errno> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    open(root, path, flags)
}

/// `lstat` below the root.
#[cfg(target_os = "linux")]
pub fn stat(root: &OwnedFd, path: &RelPath) -> Result<Stat, Errno> {
    if path.is_root() {
        return rustix::fs::fstat(root);
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match open2(root, path, flags) {
        Err(Errno::NOSYS | Errno::PERM) => stat_by_segments(root, path),
        result => rustix::fs::fstat(result?),
    }
}

#[cfg(not(target_os = "linux"))]
pub fn stat(root: &OwnedFd, path: &RelPath) -> Result<Stat, Errno> {
    if path.is_root() {
        return rustix::fs::fstat(root);
    }
    stat_by_segments(root, path)
}

/// The target of a link.
pub fn read_link(root: &OwnedFd, path: &RelPath) -> Result<Vec<u8>, Errno> {
    let parent = open_parent(root, path)?;
    let name = OsStr::from_bytes(path.name());
    rustix::fs::readlinkat(parent.as_ref().map_or(root.as_fd(), |p| p.as_fd()), name, vec![])
        .map(|target| target.into_bytes())
}

#[cfg(target_os = "linux")]
const SEARCH: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const SEARCH: OFlags = OFlags::RDONLY;

#[cfg(target_os = "linux")]
fn open2(root: &OwnedFd, path: &RelPath, flags: OFlags) -> Result<OwnedFd, Errno> {
    use rustix::fs::ResolveFlags;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let path = OsStr::from_bytes(path.as_bytes());
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // The kernel saw a rename race and asks to try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

fn open(root: &OwnedFd, path: &RelPath, flags: OFlags) -> Result<OwnedFd, Errno> {
    #[cfg(target_os = "linux")]
    match open2(root, path, flags) {
        // Old kernels lack the call, some sandboxes forbid it.
        Err(Errno::NOSYS | Errno::PERM) => {}
        result => return result,
    }
    let parent = open_parent(root, path)?;
    let parent = parent.as_ref().map_or(root.as_fd(), |p| p.as_fd());
    rustix::fs::openat(parent, OsStr::from_bytes(path.name()), flags, Mode::empty())
}

fn stat_by_segments(root: &OwnedFd, path: &RelPath) -> Result<Stat, Errno> {
    let parent = open_parent(root, path)?;
    let parent = parent.as_ref().map_or(root.as_fd(), |p| p.as_fd());
    let name = OsStr::from_bytes(path.name());
    rustix::fs::statat(parent, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
}

/// Opens the folder that holds `path`, segment by segment; `None` when that is the root.
fn open_parent(root: &OwnedFd, path: &RelPath) -> Result<Option<OwnedFd>, Errno> {
    let mut folder: Option<OwnedFd> = None;
    let Some(parent) = path.parent() else { return Ok(None) };
    for segment in parent.segments() {
        let at = folder.as_ref().map_or(root.as_fd(), |f| f.as_fd());
        let flags = SEARCH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        folder = Some(rustix::fs::openat(at, OsStr::from_bytes(segment), flags, Mode::empty())?);
    }
    Ok(folder)
}
