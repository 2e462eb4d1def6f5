//! Opening below a folder without ever following a symbolic link or leaving it.
//!
//! Linux has `openat2` for this; elsewhere, and on kernels or sandboxes without it, the path is
//! walked segment by segment.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::model::RelPath;

use super::meta::{What, file_system, mounted_disk, what};

/// Opens the source itself. This one path may go through links: it is what the user named.
pub fn open_root(root: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(root, SEARCH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// A folder that is held open, and the disk that it lies on. What is seen in it was seen on that
/// disk, whatever is mounted over its path meanwhile.
pub struct Place {
    pub fd: OwnedFd,
    pub disk: u64,
}

impl Place {
    /// Number of the disk: the id of the file system; behind a mount below the source that of what
    /// is mounted, so that a folder from the same file system is told apart from the empty one that
    /// it covers, and from another that is mounted there.
    fn of((fd, mounted): (OwnedFd, bool)) -> Result<Self, Errno> {
        let disk = if mounted { mounted_disk(&fd)? } else { file_system(&fd)? };
        Ok(Self { fd, disk })
    }

    /// `lstat` of a name in this folder.
    pub fn stat(&self, name: &[u8]) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.fd, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// What a name in this folder stands for.
    pub fn what(&self, name: &[u8]) -> Result<What, Errno> {
        self.stat(name).map(|stat| what(&stat, self.disk))
    }

    /// Opens a file for reading. Never blocks, also when the name has become a FIFO meanwhile.
    pub fn open_file(&self, name: &[u8]) -> Result<File, Errno> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, OsStr::from_bytes(name), flags, Mode::empty()).map(File::from)
    }

    /// The target of a link.
    pub fn read_link(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let target = rustix::fs::readlinkat(&self.fd, OsStr::from_bytes(name), vec![])?;
        Ok(target.into_bytes())
    }
}

/// Opens a folder for listing.
pub fn folder(root: &OwnedFd, path: &RelPath) -> Result<Place, Errno> {
    Place::of(open(root, path, OFlags::RDONLY)?)
}

/// Opens a folder for looking at names in it.
pub fn place(root: &OwnedFd, path: &RelPath) -> Result<Place, Errno> {
    Place::of(open(root, path, SEARCH)?)
}

/// Opens a folder to reach what is in it, which takes no right to list it.
pub fn reach_folder(root: &OwnedFd, path: &RelPath) -> Result<OwnedFd, Errno> {
    open(root, path, SEARCH).map(|(fd, _)| fd)
}

/// Holds on to a file, folder or link without opening it.
#[cfg(target_os = "linux")]
pub fn hold(root: &OwnedFd, path: &RelPath) -> Result<OwnedFd, Errno> {
    let Some(parent) = path.parent() else { return reach_folder(root, path) };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = OsStr::from_bytes(path.name());
    rustix::fs::openat(reach_folder(root, &parent)?, name, flags, Mode::empty())
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
        folder = rustix::fs::openat(&folder, name, SEARCH | FOLDER, Mode::empty())
            .map_err(|errno| (at.clone(), errno))?;
    }
    Ok((folder, made))
}

/// Opens the folder that holds `path`.
pub fn parent(root: &OwnedFd, path: &RelPath) -> Result<Place, Errno> {
    place(root, &path.parent().unwrap_or_else(RelPath::root))
}

/// Whether an error proves that nothing is at a path: the name does not exist, or what should hold
/// it is no folder any more. Behind a link is nothing of ours.
pub fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

#[cfg(target_os = "linux")]
const SEARCH: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const SEARCH: OFlags = OFlags::RDONLY;

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a folder; answers also with whether a mount lies between it and the source, as far as that
/// can be known.
fn open(root: &OwnedFd, path: &RelPath, flags: OFlags) -> Result<(OwnedFd, bool), Errno> {
    let flags = flags | FOLDER;
    if path.is_root() {
        return Ok((rustix::fs::openat(root, ".", flags, Mode::empty())?, false));
    }
    #[cfg(target_os = "linux")]
    match open2(root, path, flags) {
        // Old kernels lack the call, some sandboxes forbid it.
        Err(Errno::NOSYS | Errno::PERM) => {}
        result => return result,
    }
    Ok((open_by_segments(root, path, flags)?, false))
}

#[cfg(target_os = "linux")]
fn open2(root: &OwnedFd, path: &RelPath, flags: OFlags) -> Result<(OwnedFd, bool), Errno> {
    use rustix::fs::ResolveFlags;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let path = OsStr::from_bytes(path.as_bytes());
    let resolve = |within| loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), within) {
            // The kernel saw a rename race and asks to try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    };
    match resolve(within | ResolveFlags::NO_XDEV) {
        Err(Errno::XDEV) => Ok((resolve(within)?, true)),
        result => Ok((result?, false)),
    }
}

fn open_by_segments(root: &OwnedFd, path: &RelPath, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut folder: Option<OwnedFd> = None;
    let last = path.segments().count().saturating_sub(1);
    for (n, segment) in path.segments().enumerate() {
        let at = folder.as_ref().map_or(root.as_fd(), |f| f.as_fd());
        let flags = if n == last { flags } else { SEARCH | FOLDER };
        folder = Some(rustix::fs::openat(at, OsStr::from_bytes(segment), flags, Mode::empty())?);
    }
    folder.ok_or(Errno::INVAL)
}
