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

/// Opens a folder to reach what is in it, which takes no right to list it.
pub fn reach_folder(root: &OwnedFd, path: &RelPath) -> Result<OwnedFd, Errno> {
    if path.is_root() {
        return rustix::fs::openat(root, ".", REACH, Mode::empty());
    }
    open(root, path, REACH)
}

/// Holds on to a file, folder or link without opening it.
#[cfg(target_os = "linux")]
pub fn hold(root: &OwnedFd, path: &RelPath) -> Result<OwnedFd, Errno> {
    if path.is_root() {
        return rustix::fs::openat(root, ".", REACH, Mode::empty());
    }
    open(root, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)
}

/// Makes a folder and those above it where they are missing, and tells whether it was. An error
/// comes with the folder that it is about.
pub fn make_folder(root: &OwnedFd, path: &RelPath) -> Result<(OwnedFd, bool), (RelPath, Errno)> {
    if let Ok(folder) = reach_folder(root, path) {
        return Ok((folder, false));
    }
    let mut at = RelPath::root();
    let mut made = false;
    let mut folder = reach_folder(root, &at).map_err(|errno| (at.clone(), errno))?;
    for segment in path.segments() {
        at = at.join(segment).map_err(|_| (path.clone(), Errno::INVAL))?;
        let name = OsStr::from_bytes(segment);
        made = match rustix::fs::mkdirat(&folder, name, Mode::RWXU | Mode::RWXG | Mode::RWXO) {
            Ok(()) => true,
            // It was there, or somebody else made it just now.
            Err(Errno::EXIST) => false,
            Err(errno) => return Err((at, errno)),
        };
        folder = rustix::fs::openat(&folder, name, REACH, Mode::empty())
            .map_err(|errno| (at.clone(), errno))?;
    }
    Ok((folder, made))
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

/// How a folder is opened on the way to what is in it.
const REACH: OFlags =
    SEARCH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

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
        folder = Some(rustix::fs::openat(at, OsStr::from_bytes(segment), REACH, Mode::empty())?);
    }
    Ok(folder)
}
