//! The folder at the top of the target in which files are made before they get their names. One
//! restore holds it at a time; what a killed one left in it is removed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, fchmod, flock, fstat, mkdirat, openat,
    readlinkat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::fs::beneath;
use crate::fs::meta::explain;
use crate::fs::own::{BESIDE, NOTE, PROBES, UNFINISHED};
use crate::fs::threads::Threads;
use crate::model::RelPath;
use crate::model::key::RESERVED_NAME;
use crate::plan::{ErrorClass, Failure};
use crate::ports::TargetError;

use super::disk::{Disk, Keeps};
use super::root::{Root, unwritable};
use super::spelling::Spelling;

pub struct Staging {
    pub root: Root,
    pub folder: OwnedFd,
    /// Two spellings of a name are one here.
    pub folds_names: bool,
    /// Permissions of a new file for which none are asked: what the umask gives.
    pub default_permissions: u32,
    pub threads: Threads,
    mount: Mount,
    /// The file system that this folder is on.
    pub disk: Arc<Disk>,
    /// Others in the target that were written to.
    others: Mutex<BTreeMap<Mount, Arc<Disk>>>,
    count: AtomicU64,
}

/// Where a rename can reach: the number of the device, and that of the mount where it is known.
type Mount = (u64, u64);

impl Staging {
    /// Makes the target where it is missing, takes the lock and clears what is left over.
    pub fn prepare(path: &Path, threads: Threads) -> Result<Self, Failure> {
        make_target(path)?;
        let failed = |errno| unwritable(path, errno);
        let mut root = Root::open(path).map_err(|errno| no_folder(path, errno))?;
        let folder = lock(&root)?;
        sweep(&root, &folder).map_err(failed)?;
        let Probed { folds_names, default_permissions, keeps } = probe(&folder).map_err(failed)?;
        root.spelling = folds_names.then(Spelling::default);
        let mount = mount_of(&folder).map_err(failed)?;
        let own = openat(&folder, ".", LIST, Mode::empty()).map_err(failed)?;
        let disk = Arc::new(Disk::new(own, path, keeps));
        let (others, count) = (Mutex::default(), AtomicU64::default());
        Ok(Self {
            root,
            folder,
            folds_names,
            default_permissions,
            threads,
            mount,
            disk,
            others,
            count,
        })
    }

    /// Names for an unfinished file: in this folder, beside its place, and of the note about that.
    pub fn names(&self) -> (String, String, String) {
        let n = self.count.fetch_add(1, Ordering::Relaxed);
        (format!("{UNFINISHED}{n}"), beside(), format!("{NOTE}{n}"))
    }

    /// The other file system that `folder`, at `path`, is on; `None` where a rename from here can
    /// reach.
    pub fn other_disk(&self, folder: &OwnedFd, path: &RelPath) -> Result<Option<Arc<Disk>>, Errno> {
        let mount = mount_of(folder)?;
        if mount == self.mount {
            return Ok(None);
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let disk = match others.entry(mount) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(new) => {
                let keeps = probe_elsewhere(folder)?;
                let shown = self.root.path.join(OsStr::from_bytes(path.as_bytes()));
                let own = openat(folder, ".", LIST, Mode::empty())?;
                new.insert(Arc::new(Disk::new(own, &shown, keeps))).clone()
            }
        };
        Ok(Some(disk))
    }

    /// Nothing is restored to where this folder is.
    pub fn admit(&self, path: &RelPath) -> Result<(), TargetError> {
        let top = path.segments().next().unwrap_or_default();
        let folded = self.folds_names && top.eq_ignore_ascii_case(RESERVED_NAME);
        match top == RESERVED_NAME || folded {
            true => Err(TargetError::Path(
                "the name .keepwatch at the top is keepwatch's own".to_owned(),
            )),
            false => Ok(()),
        }
    }

    /// Makes durable what was written, and removes this folder.
    pub fn finish(&self) -> Result<(), Failure> {
        let failed = |errno| unwritable(&self.root.path, errno);
        sweep(&self.root, &self.folder).map_err(failed)?;
        match unlinkat(&self.root.fd, OsStr::from_bytes(RESERVED_NAME), AtFlags::REMOVEDIR) {
            // Somebody keeps something else in it.
            Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.values().chain([&self.disk]).try_for_each(|disk| disk.sync()).map_err(failed)
    }
}

const LIST: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn mount_of(folder: &OwnedFd) -> Result<Mount, Errno> {
    let device = crate::fs::meta::device(&fstat(folder)?);
    Ok((device, mount_number(folder)))
}

/// A folder mounted at a second place has one device number and two mounts.
#[cfg(target_os = "linux")]
fn mount_number(folder: &OwnedFd) -> u64 {
    use rustix::fs::{StatxFlags, statx};
    let seen = statx(folder, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
    seen.map_or(0, |seen| seen.stx_mnt_id)
}

#[cfg(not(target_os = "linux"))]
fn mount_number(_: &OwnedFd) -> u64 {
    0
}

fn no_folder(path: &Path, errno: Errno) -> Failure {
    let (message, hint) = match errno {
        Errno::NOTDIR => (
            format!("{} is not a folder", path.display()),
            "name a folder to restore into; one that does not exist yet is made",
        ),
        Errno::NOENT if path.is_symlink() => (
            format!("{} is a link to nothing", path.display()),
            "make the folder that it leads to, or remove the link",
        ),
        Errno::NOENT => (
            format!("there is no folder to make {} in", path.display()),
            "check the path, or make the folder above it first",
        ),
        _ => (
            format!("cannot restore into {}", path.display()),
            "name another folder, or give this user the right to use it",
        ),
    };
    Failure::new(ErrorClass::Configuration, message).because(explain(errno)).with_hint(hint)
}

fn make_target(path: &Path) -> Result<(), Failure> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            // On a read-only disk that is said although the folder is there.
            match path.is_dir() {
                true => Ok(()),
                false => Err(no_folder(path, errno)),
            }
        }
        _ => Ok(()),
    }
}

/// Makes and opens the folder, and keeps every other restore out of it.
fn lock(root: &Root) -> Result<OwnedFd, Failure> {
    let name = OsStr::from_bytes(RESERVED_NAME);
    let shown = root.path.join(name);
    let failed = |errno| unwritable(&root.path, errno);
    loop {
        match mkdirat(&root.fd, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let folder = match openat(&root.fd, name, LIST, Mode::empty()) {
            Ok(folder) => folder,
            // Another restore has just ended.
            Err(Errno::NOENT) => continue,
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let message = format!("{} is in the way: it is not a folder", shown.display());
                return Err(own(message));
            }
            Err(errno) => return Err(failed(errno)),
        };
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                let message = format!("another restore is filling {}", root.path.display());
                let hint = "wait until it has ended, or restore into another folder";
                return Err(Failure::new(ErrorClass::Configuration, message).with_hint(hint));
            }
            Err(Errno::INTR) => continue,
            // A file system without locks: two restores that meet there would remove each other's
            // unfinished files, and say so.
            Ok(()) | Err(Errno::NOTSUP | Errno::NOSYS | Errno::NOLCK) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let held = fstat(&folder).map_err(failed)?;
        let ours = held.st_uid == rustix::process::geteuid().as_raw()
            || held.st_uid == maker(&root.fd).map_err(failed)?;
        if !ours {
            let message = format!("{} belongs to another user", shown.display());
            return Err(own(message));
        }
        // Unfinished files are nobody else's business, whatever their final permissions are.
        fchmod(&folder, Mode::RWXU).map_err(failed)?;
        // The lock is worth nothing on a folder that was removed meanwhile.
        match statat(&root.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(seen) if (seen.st_ino, seen.st_dev) == (held.st_ino, held.st_dev) => {
                return Ok(folder);
            }
            _ => {}
        }
    }
}

fn own(message: String) -> Failure {
    let hint = "move it away: keepwatch makes unfinished files there while it restores";
    Failure::new(ErrorClass::Configuration, message).with_hint(hint)
}

/// Removes unfinished files: those in this folder, and those elsewhere that it has notes about.
fn sweep(root: &Root, folder: &OwnedFd) -> Result<(), Errno> {
    let mut names = vec![];
    for entry in Dir::read_from(folder)? {
        names.push(entry?.file_name().to_owned());
    }
    for name in names.iter().filter(|name| name.to_bytes().starts_with(NOTE.as_bytes())) {
        if let Ok(target) = readlinkat(folder, name, vec![]) {
            sweep_elsewhere(root, target.as_bytes());
            unlinkat(folder, name, AtFlags::empty())?;
        }
    }
    for name in names.iter().filter(|name| name.to_bytes().starts_with(UNFINISHED.as_bytes())) {
        if is_unfinished(folder, OsStr::from_bytes(name.to_bytes())) {
            unlinkat(folder, name, AtFlags::empty())?;
        }
    }
    Ok(())
}

/// Removes an unfinished file elsewhere if it can be reached: its disk may be away.
fn sweep_elsewhere(root: &Root, path: &[u8]) {
    let Ok(path) = RelPath::new(path) else { return };
    let (Some(parent), name) = (path.parent(), OsStr::from_bytes(path.name())) else { return };
    if path.name().starts_with(BESIDE.as_bytes())
        && let Ok(parent) = beneath::reach_folder(&root.fd, &parent)
        && is_unfinished(&parent, name)
    {
        unlinkat(&parent, name, AtFlags::empty()).ok();
    }
}

/// Folders and the like are not ours, whatever they are called.
fn is_unfinished(folder: &OwnedFd, name: &OsStr) -> bool {
    statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        let kind = FileType::from_raw_mode(stat.st_mode);
        matches!(kind, FileType::RegularFile | FileType::Symlink)
    })
}

/// What is learned of a file system by making files there.
struct Probed {
    folds_names: bool,
    default_permissions: u32,
    keeps: Keeps,
}

const NEW: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn probe(folder: &OwnedFd) -> Result<Probed, Errno> {
    let open = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
    let [upper, lower, one, two] = PROBES.map(|probe| format!("{UNFINISHED}{probe}"));
    let file = openat(folder, upper.as_str(), NEW, open)?;
    #[allow(clippy::useless_conversion, reason = "the type differs between platforms")]
    let default_permissions = u32::from(fstat(&file)?.st_mode) & 0o777;
    let keeps = Keeps::probe(&file)?;
    let mut folds_names = statat(folder, lower.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok();
    unlinkat(folder, upper.as_str(), AtFlags::empty())?;
    // Where a name with an accent cannot be, there is nothing to fold.
    if openat(folder, one.as_str(), NEW, open).is_ok() {
        folds_names |= statat(folder, two.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok();
        unlinkat(folder, one.as_str(), AtFlags::empty())?;
    }
    Ok(Probed { folds_names, default_permissions, keeps })
}

/// The same of another file system, where nothing of ours may stay.
fn probe_elsewhere(folder: &OwnedFd) -> Result<Keeps, Errno> {
    let name = beside();
    let file = openat(folder, name.as_str(), NEW, Mode::RUSR | Mode::WUSR)?;
    unlinkat(folder, name.as_str(), AtFlags::empty())?;
    Keeps::probe(&file)
}

fn beside() -> String {
    format!("{BESIDE}{:016x}", fastrand::u64(..))
}

/// Who owns what this user makes in a folder: on FAT and on some network shares, somebody else.
fn maker(folder: &OwnedFd) -> Result<u32, Errno> {
    let name = beside();
    let file = openat(folder, name.as_str(), NEW, Mode::RUSR | Mode::WUSR)?;
    unlinkat(folder, name.as_str(), AtFlags::empty())?;
    Ok(fstat(&file)?.st_uid)
}

/// What must be there before anything is restored, looked at without changing anything.
pub fn existing(path: &Path) -> Result<OwnedFd, Failure> {
    let above = path.ancestors().map(|at| match at.as_os_str().is_empty() {
        true => Path::new("."),
        false => at,
    });
    let mut found = Err(Errno::NOENT);
    for at in above {
        found = beneath::open_root(at);
        if !matches!(found, Err(Errno::NOENT)) {
            break;
        }
    }
    found.map_err(|errno| no_folder(path, errno))
}
