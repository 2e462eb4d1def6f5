//! Looks at single paths, under the same rules as a walk.

use std::os::fd::OwnedFd;

use rustix::fs::Dir;
use rustix::io::Errno;

use crate::model::key::RESERVED_NAME;
use crate::model::{Entry, Key, RelPath};
use crate::plan::{ErrorClass, Failure, Skip};
use crate::ports::{LeftOut, Stat};

use super::Inner;
use super::beneath::{self, Place};
use super::meta::{What, device, explain_unread, has_own_mode, names, what};
use super::own::is_staging;
use super::rules::{Level, Unopened};

pub fn stat(inner: &Inner, paths: &[RelPath]) -> Result<Vec<Stat>, Failure> {
    let root = beneath::open_root(&inner.root).map_err(|errno| {
        let message = format!("the source {} is not there", inner.root.display());
        Failure::new(ErrorClass::Configuration, message).because(explain_unread(errno))
    })?;
    let device = rustix::fs::fstat(&root).map(|stat| device(&stat)).ok();
    let look = |path| one(inner, &root, device, path);
    let again = |path| match look(path) {
        Err(Hidden::Gone(_)) => look(path),
        seen => seen,
    };
    let seen = |path| {
        let stat = again(path).unwrap_or_else(Stat::from);
        if !matches!(stat, Stat::Entry(_) | Stat::Unknown(_)) {
            inner.links.forget(path);
        }
        stat
    };
    Ok(paths.iter().map(seen).collect())
}

/// Why there is nothing to be seen at a path.
enum Hidden {
    Excluded,
    Unknown(Skip),
    /// A folder went while it was looked at.
    Gone(Errno),
}

impl From<Hidden> for Stat {
    fn from(hidden: Hidden) -> Self {
        match hidden {
            Hidden::Excluded => Self::Excluded,
            Hidden::Unknown(skip) => Self::Unknown(skip),
            Hidden::Gone(errno) => Self::Unknown(Skip::Unreadable(explain_unread(errno))),
        }
    }
}

impl From<Errno> for Hidden {
    fn from(errno: Errno) -> Self {
        match beneath::is_gone(errno) {
            true => Self::Gone(errno),
            false => Self::Unknown(Skip::Unreadable(explain_unread(errno))),
        }
    }
}

impl From<Unopened> for Hidden {
    fn from(unopened: Unopened) -> Self {
        match unopened {
            Unopened::Failed(errno) => errno.into(),
            Unopened::Rules(unread) => Self::Unknown(unread.skip()),
        }
    }
}

fn one(
    inner: &Inner,
    root: &OwnedFd,
    root_device: Option<u64>,
    path: &RelPath,
) -> Result<Stat, Hidden> {
    let Above { level, place, whole } = above(inner, root, path)?;
    if let Some(skip) = unusable(inner, path) {
        return Ok(Stat::Unknown(skip));
    }
    let disk = place.disk;
    if path.is_root() {
        return Ok(Stat::Folder { marker: None, disk, left_out: LeftOut::default() });
    }
    let left_out = || inner.rules.left_out(&level, path);
    let absent = || Stat::Absent { disk, left_out: left_out() };
    let stat = match place.stat(path.name()) {
        _ if !whole => return Ok(absent()),
        Err(errno) if beneath::is_gone(errno) => return Ok(absent()),
        stat => stat?,
    };
    match what(&stat, disk) {
        What::Special => Ok(Stat::Unknown(Skip::Special)),
        What::Entry(entry) if inner.rules.excludes_file(&level, path, &entry) => Ok(Stat::Excluded),
        What::Entry(entry) => {
            inner.links.note(path, entry.fingerprint.inode, names(&stat));
            Ok(Stat::Entry(entry))
        }
        What::Folder(entry) => {
            let mounted = root_device.is_some_and(|known| known != device(&stat));
            let elsewhere = inner.rules.one_file_system() && mounted;
            if elsewhere || inner.rules.excludes_folder(&level, path) {
                return Ok(Stat::Excluded);
            }
            let marker = marker(inner, root, path, &level, entry)?;
            Ok(Stat::Folder { marker, disk, left_out: left_out() })
        }
    }
}

/// What holds a path.
struct Above {
    /// The rules there.
    level: Level,
    /// The nearest folder above the path that is there.
    place: Place,
    /// That folder is the one that the path names.
    whole: bool,
}

fn above(inner: &Inner, root: &OwnedFd, path: &RelPath) -> Result<Above, Hidden> {
    let mut folder = RelPath::root();
    let mut place = beneath::place(root, &folder)?;
    let mut level = inner.rules.enter(&Level::default(), &place, &folder)?;
    let mut whole = true;
    let parent = path.parent().unwrap_or_else(RelPath::root);
    for segment in parent.segments() {
        folder = folder.join(segment).map_err(|_| Errno::INVAL)?;
        if inner.rules.excludes_folder(&level, &folder) {
            return Err(Hidden::Excluded);
        }
        match beneath::place(root, &folder) {
            Err(errno) if beneath::is_gone(errno) => {
                whole = false;
                continue;
            }
            opened => place = opened?,
        }
        if has_marker(inner, &place)? {
            return Err(Hidden::Excluded);
        }
        level = inner.rules.enter(&level, &place, &folder)?;
    }
    Ok(Above { level, place, whole })
}

/// Whether a folder holds a file that excludes it.
fn has_marker(inner: &Inner, place: &Place) -> Result<bool, Errno> {
    for name in inner.rules.exclude_if_present() {
        match place.what(name.as_bytes()) {
            Ok(What::Entry(_) | What::Special) => return Ok(true),
            Ok(What::Folder(_)) => {}
            Err(errno) if beneath::is_gone(errno) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(false)
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

/// The marker that a folder needs: when nothing in it is backed up, or for its mode.
fn marker(
    inner: &Inner,
    root: &OwnedFd,
    path: &RelPath,
    above: &Level,
    entry: Entry,
) -> Result<Option<Entry>, Hidden> {
    let place = beneath::folder(root, path)?;
    if has_marker(inner, &place)? {
        return Err(Hidden::Excluded);
    }
    let level = inner.rules.enter(above, &place, path)?;
    let is_empty = || is_empty(inner, &place, path, &level);
    let needed = match (has_own_mode(&entry), is_staging(path, &entry)) {
        (true, false) => true,
        (true, true) => !is_empty()?,
        (false, _) => is_empty()?,
    };
    Ok((needed && inner.rules.includes(path, true)).then_some(entry))
}

/// Whether nothing directly in this folder is backed up. Stops at the first that is.
fn is_empty(inner: &Inner, place: &Place, path: &RelPath, level: &Level) -> Result<bool, Errno> {
    for child in Dir::read_from(&place.fd)? {
        let child = child?;
        let name = child.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let Ok(child) = path.join(name) else { continue };
        if unusable(inner, &child).is_some() {
            continue;
        }
        let what = match place.what(name) {
            Err(Errno::NOENT) => continue,
            what => what?,
        };
        let counts = match what {
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
