//! Times, permissions and owners: of what is being made, and of what is there.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
#[cfg(not(target_os = "linux"))]
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{
    AtFlags, Gid, Mode, RawMode, Timespec, Timestamps, UTIME_OMIT, Uid, chownat, fchmod, fchown,
    futimens, utimensat,
};
#[cfg(target_os = "linux")]
use rustix::fs::{CWD, readlinkat};
use rustix::io::Errno;

use crate::fs::beneath;
use crate::fs::meta::{What, explain};
use crate::model::{RelPath, Timestamp};
use crate::ports::{Attributes, LocalLook, TargetError};

use super::root::{Root, what_is};

/// How attributes reach what they are of.
enum Way<'a> {
    Open(BorrowedFd<'a>),
    /// What is held without being open goes by its name in `/proc`; that reaches links, too, and
    /// what its owner may change but not open.
    #[cfg(target_os = "linux")]
    Held(String),
    /// A name in a folder, which is not followed.
    Name(&'a OwnedFd, &'a OsStr),
}

/// Sets the attributes of an open file.
pub fn of_file(root: &Root, file: &impl AsFd, attributes: &Attributes) -> Result<(), TargetError> {
    set_by(root, &Way::Open(file.as_fd()), attributes)
}

/// Sets the attributes of a link, which has no permissions of its own.
pub fn of_link(
    root: &Root,
    folder: &OwnedFd,
    name: &OsStr,
    attributes: &Attributes,
) -> Result<(), TargetError> {
    set_by(root, &Way::Name(folder, name), &Attributes { permissions: None, ..*attributes })
}

/// Sets the attributes of what is at `path`, if that still is what `is` says.
pub fn set(
    root: &Root,
    path: &RelPath,
    is: &LocalLook,
    attributes: &Attributes,
) -> Result<(), TargetError> {
    match is {
        LocalLook::Absent => Err(TargetError::Changed),
        LocalLook::Blocked(at) | LocalLook::Otherwise(at) => Err(TargetError::InTheWay(at.clone())),
        LocalLook::Special(what) => Err(TargetError::Path(format!("{what} is left as it is"))),
        LocalLook::Link(..) => {
            set_held(root, path, is, &Attributes { permissions: None, ..*attributes })
        }
        LocalLook::File(_) | LocalLook::Folder(_) => set_held(root, path, is, attributes),
    }
}

#[cfg(target_os = "linux")]
fn set_held(
    root: &Root,
    path: &RelPath,
    is: &LocalLook,
    attributes: &Attributes,
) -> Result<(), TargetError> {
    use std::os::fd::AsRawFd as _;
    let held = beneath::hold(&root.fd, path).map_err(|errno| root.refused_at(path, errno))?;
    expect(root, &held, is)?;
    if let LocalLook::Link(_, target) = is
        && !readlinkat(&held, "", vec![]).is_ok_and(|now| now.as_bytes() == target)
    {
        return Err(TargetError::Changed);
    }
    set_by(root, &Way::Held(format!("/proc/self/fd/{}", held.as_raw_fd())), attributes)
}

#[cfg(not(target_os = "linux"))]
fn set_held(
    root: &Root,
    path: &RelPath,
    is: &LocalLook,
    attributes: &Attributes,
) -> Result<(), TargetError> {
    let refused = |errno| root.refused_at(path, errno);
    let open = match is {
        LocalLook::File(_) => {
            let place = beneath::parent(&root.fd, path).map_err(refused)?;
            OwnedFd::from(place.open_file(path.name()).map_err(refused)?)
        }
        LocalLook::Folder(_) => beneath::folder(&root.fd, path).map_err(refused)?.fd,
        _ => {
            let (parent, name) = (root.parent(path)?, OsStr::from_bytes(path.name()));
            if root.look_in(&parent, name)? != *is {
                return Err(TargetError::Changed);
            }
            // RACE: what takes the link's place now is given its times and owner. It is never
            // followed.
            return of_link(root, &parent, name, attributes);
        }
    };
    expect(root, &open, is)?;
    set_by(root, &Way::Open(open.as_fd()), attributes)
}

/// Whether this is what was looked at.
fn expect(root: &Root, fd: &OwnedFd, is: &LocalLook) -> Result<(), TargetError> {
    let stat = rustix::fs::fstat(fd).map_err(|errno| root.refused(errno))?;
    match (what_is(&stat), is) {
        (What::Folder(now), LocalLook::Folder(was)) if now == *was => Ok(()),
        (What::Entry(now), LocalLook::File(was) | LocalLook::Link(was, _)) if now == *was => {
            match stat.st_nlink {
                0 | 1 => Ok(()),
                links => Err(TargetError::Path(format!(
                    "it has {links} hard links, and its attributes would change under all of them"
                ))),
            }
        }
        _ => Err(TargetError::Changed),
    }
}

/// The owner comes first, because a new one takes setuid away; the times last.
fn set_by(root: &Root, way: &Way<'_>, attributes: &Attributes) -> Result<(), TargetError> {
    let refused = |what: &str, errno| match root.refused(errno) {
        TargetError::Path(why) => TargetError::Path(format!("cannot set its {what}: {why}")),
        other => other,
    };
    if let Some((uid, gid)) = attributes.owner {
        way.chown(uid, gid).map_err(|errno| match errno {
            Errno::PERM => TargetError::Path(format!(
                "cannot give it to user {uid}, group {gid}: {}; that takes root",
                explain(errno)
            )),
            errno => refused("owner", errno),
        })?;
    }
    if let Some(permissions) = attributes.permissions {
        way.chmod(permissions).map_err(|errno| refused("permissions", errno))?;
    }
    if let Some(mtime) = attributes.mtime {
        way.touch(mtime).map_err(|errno| refused("time", errno))?;
    }
    Ok(())
}

impl Way<'_> {
    fn chown(&self, uid: u32, gid: u32) -> Result<(), Errno> {
        // All ones stand for "as it is" in the system call, so nobody can have them.
        if uid == u32::MAX || gid == u32::MAX {
            return Err(Errno::INVAL);
        }
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match self {
            Self::Open(fd) => fchown(fd, uid, gid),
            #[cfg(target_os = "linux")]
            Self::Held(path) => chownat(CWD, path.as_str(), uid, gid, AtFlags::empty()),
            Self::Name(folder, name) => chownat(folder, *name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn chmod(&self, permissions: u32) -> Result<(), Errno> {
        let mode = mode(permissions);
        match self {
            Self::Open(fd) => fchmod(fd, mode),
            #[cfg(target_os = "linux")]
            Self::Held(path) => rustix::fs::chmod(path.as_str(), mode),
            Self::Name(..) => Ok(()),
        }
    }

    fn touch(&self, mtime: Timestamp) -> Result<(), Errno> {
        let times = times(mtime);
        match self {
            Self::Open(fd) => futimens(fd, &times),
            #[cfg(target_os = "linux")]
            Self::Held(path) => utimensat(CWD, path.as_str(), &times, AtFlags::empty()),
            Self::Name(folder, name) => utimensat(folder, *name, &times, AtFlags::SYMLINK_NOFOLLOW),
        }
    }
}

#[allow(clippy::unnecessary_cast, reason = "the types differ between platforms")]
fn mode(permissions: u32) -> Mode {
    Mode::from_raw_mode((permissions & 0o7777) as RawMode)
}

#[allow(clippy::unnecessary_cast, reason = "the types differ between platforms")]
fn times(mtime: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
        last_modification: Timespec { tv_sec: mtime.secs as _, tv_nsec: mtime.nanos as _ },
    }
}
