//! Looks at single paths, under the same rules as a walk.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, Dir, statat};
use rustix::io::Errno;

use crate::model::key::RESERVED_NAME;
use crate::model::{Entry, Key, RelPath};
use crate::plan::{ErrorClass, Failure, Skip};
use crate::ports::Stat;

use super::meta::{What, device, explain, has_own_mode, what};
use super::rules::Level;
use super::{Inner, beneath};

pub fn stat(inner: &Inner, paths: &[RelPath]) -> Result<Vec<Stat>, Failure> {
    let root = beneath::open_root(&inner.root).map_err(|errno| {
        let message = format!("the source {} is not there", inner.root.display());
        Failure::new(ErrorClass::Configuration, message).because(explain(errno))
    })?;
    let device = rustix::fs::fstat(&root).map(|stat| device(&stat)).ok();
    Ok(paths.iter().map(|path| one(inner, &root, device, path)).collect())
}

fn one(inner: &Inner, root: &OwnedFd, root_device: Option<u64>, path: &RelPath) -> Stat {
    let level = match enter_parents(inner, root, path) {
        Ok(Some(level)) => level,
        Ok(None) => return Stat::Excluded,
        Err(errno) => return unlisted(errno),
    };
    if let Some(skip) = unusable(inner, path) {
        return Stat::Unknown(skip);
    }
    let stat = match beneath::stat(root, path) {
        Ok(stat) => stat,
        Err(errno) => return unlisted(errno),
    };
    match what(&stat) {
        What::Special => Stat::Unknown(Skip::Special),
        What::Entry(entry) => match inner.rules.excludes_file(&level, path, &entry) {
            true => Stat::Excluded,
            false => Stat::Entry(entry),
        },
        What::Folder(entry) => {
            let mounted = root_device.is_some_and(|known| known != device(&stat));
            let elsewhere = inner.rules.one_file_system() && mounted;
            if elsewhere || inner.rules.excludes_folder(&level, path) {
                return Stat::Excluded;
            }
            marker(inner, root, path, &level, entry)
        }
    }
}

/// The rules inside the folder that holds `path`; `None` when one of its parents is excluded.
fn enter_parents(inner: &Inner, root: &OwnedFd, path: &RelPath) -> Result<Option<Level>, Errno> {
    let mut level = inner.rules.enter(&Level::default(), root, &RelPath::root());
    let mut folder = RelPath::root();
    let Some(parent) = path.parent() else { return Ok(Some(level)) };
    if has_marker(inner, root, &folder) {
        return Ok(None);
    }
    for segment in parent.segments() {
        folder = folder.join(segment).map_err(|_| Errno::INVAL)?;
        if inner.rules.excludes_folder(&level, &folder) || has_marker(inner, root, &folder) {
            return Ok(None);
        }
        level = inner.rules.enter(&level, root, &folder);
    }
    Ok(Some(level))
}

fn has_marker(inner: &Inner, root: &OwnedFd, folder: &RelPath) -> bool {
    inner.rules.exclude_if_present().iter().any(|name| {
        folder.join(name.as_bytes()).is_ok_and(|path| beneath::stat(root, &path).is_ok())
    })
}

/// Only "no such file" proves absence. A parent that is no folder any more proves it too.
fn unlisted(errno: Errno) -> Stat {
    match errno {
        Errno::NOENT | Errno::NOTDIR => Stat::Absent,
        // A parent became a link: what is behind it is not ours, and the name is gone.
        Errno::LOOP => Stat::Absent,
        errno => Stat::Unknown(Skip::Unreadable(explain(errno))),
    }
}

/// Names that cannot be backed up whatever they are.
pub fn unusable(inner: &Inner, path: &RelPath) -> Option<Skip> {
    if path.as_bytes() == RESERVED_NAME {
        return Some(Skip::Reserved);
    }
    let bytes = Key::file(path).as_bytes().len();
    too_long(inner, bytes)
}

pub fn too_long(inner: &Inner, key_bytes: usize) -> Option<Skip> {
    let max = inner.key_max_bytes;
    (key_bytes > max).then(|| {
        Skip::KeyTooLong(format!("its key has {key_bytes} bytes, {max} fit behind the prefix"))
    })
}

/// A folder, and the marker it needs: when nothing in it is backed up, or for its mode.
fn marker(inner: &Inner, root: &OwnedFd, path: &RelPath, above: &Level, entry: Entry) -> Stat {
    if path.is_root() {
        return Stat::Folder(None);
    }
    if has_marker(inner, root, path) {
        return Stat::Excluded;
    }
    let included = inner.rules.includes(path, true);
    if has_own_mode(&entry) && included {
        return Stat::Folder(Some(entry));
    }
    let level = inner.rules.enter(above, root, path);
    match beneath::open_folder(root, path).and_then(|fd| is_empty(inner, &fd, path, &level)) {
        Ok(empty) => Stat::Folder((empty && included).then_some(entry)),
        Err(errno) => Stat::Unknown(Skip::Unreadable(explain(errno))),
    }
}

/// Whether nothing directly in this folder is backed up. Stops at the first that is.
fn is_empty(inner: &Inner, fd: &OwnedFd, path: &RelPath, level: &Level) -> Result<bool, Errno> {
    for child in Dir::read_from(fd)? {
        let child = child?;
        let name = child.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let Ok(child) = path.join(name) else { continue };
        if unusable(inner, &child).is_some() {
            continue;
        }
        let stat = match statat(fd, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        let counts = match what(&stat) {
            What::Special => false,
            What::Entry(entry) => !inner.rules.excludes_file(level, &child, &entry),
            What::Folder(_) => !inner.rules.excludes_folder(level, &child),
        };
        if counts {
            return Ok(false);
        }
    }
    Ok(true)
}
