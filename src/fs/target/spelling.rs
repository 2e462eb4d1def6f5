//! How names are spelled where a file system takes two spellings for one name.
//!
//! Only a folder's own list tells. What was read of one is kept for as long as the folder does not
//! change: a restore that goes on looks at every name in it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;

use crate::fs::beneath;
use crate::model::RelPath;

/// Folders whose names are kept.
const FOLDERS_MAX: usize = 16;

/// Seconds and nanoseconds of the last change of a folder.
type Stamp = (i64, i64);

/// All names in a folder, and when it had changed last.
type Listed = (Stamp, BTreeSet<Box<[u8]>>);

#[derive(Default)]
pub struct Spelling {
    read: Mutex<BTreeMap<RelPath, Listed>>,
}

impl Spelling {
    /// The path of what is at `path` by another spelling of its name, or of one above it.
    pub fn other(&self, root: &OwnedFd, path: &RelPath) -> Result<Option<RelPath>, Errno> {
        let mut above = RelPath::root();
        for name in path.segments() {
            let folder = match beneath::reach_folder(root, &above) {
                Ok(folder) => folder,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(errno) => return Err(errno),
            };
            let seen = match statat(&folder, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(seen) => seen,
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(errno),
            };
            if !self.has(&folder, &above, name)? {
                let here = spelled(&list(&folder)?, name, seen.st_ino);
                return Ok(here.and_then(|name| above.join(&name).ok()));
            }
            above = above.join(name).map_err(|_| Errno::INVAL)?;
        }
        Ok(None)
    }

    fn has(&self, folder: &OwnedFd, at: &RelPath, name: &[u8]) -> Result<bool, Errno> {
        let seen = fstat(folder)?;
        #[allow(clippy::unnecessary_cast, reason = "the types differ between platforms")]
        let stamp = (seen.st_mtime as i64, seen.st_mtime_nsec as i64);
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.get(at).is_some_and(|(kept, names)| *kept == stamp && names.contains(name)) {
            return Ok(true);
        }
        // A name that came after the list was read may have come in the same tick.
        let names: BTreeSet<Box<[u8]>> = list(folder)?.into_iter().map(|(name, _)| name).collect();
        let has = names.contains(name);
        if read.len() >= FOLDERS_MAX {
            read.clear();
        }
        read.insert(at.clone(), (stamp, names));
        Ok(has)
    }
}

/// Names with the numbers of what they name.
type Names = Vec<(Box<[u8]>, u64)>;

fn list(folder: &OwnedFd) -> Result<Names, Errno> {
    let mut names = vec![];
    // The handle is only good for reaching what is in the folder.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    for entry in Dir::new(openat(folder, ".", flags, Mode::empty())?)? {
        let entry = entry?;
        names.push((entry.file_name().to_bytes().into(), entry.ino()));
    }
    Ok(names)
}

/// The name of what has this number. `None` when `asked` has come to be there meanwhile, or nothing
/// is there any more.
fn spelled(names: &Names, asked: &[u8], number: u64) -> Option<Box<[u8]>> {
    if names.iter().any(|(name, _)| **name == *asked) {
        return None;
    }
    // Of several hard links, the one that is the most like it.
    let same = |name: &[u8]| name.eq_ignore_ascii_case(asked);
    let mut found = names.iter().filter(|(_, of)| *of == number).map(|(name, _)| name);
    let first = found.next()?;
    Some(if same(first) { first } else { found.find(|name| same(name)).unwrap_or(first) }.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_by_what_it_names() {
        let names: Names = [("README", 7), ("other", 7), ("a", 8), ("caf\u{e9}", 9)]
            .map(|(name, number)| (name.as_bytes().into(), number))
            .into();
        let of = |asked: &str, number| {
            spelled(&names, asked.as_bytes(), number)
                .map(|name| String::from_utf8(name.into()).unwrap())
        };
        assert_eq!(of("readme", 7).as_deref(), Some("README"));
        assert_eq!(of("OTHER", 7).as_deref(), Some("other"));
        assert_eq!(of("cafe\u{301}", 9).as_deref(), Some("caf\u{e9}"));
        assert_eq!((of("README", 7), of("gone", 6)), (None, None));
    }

    #[test]
    fn names_as_they_are_have_no_other_spelling() {
        let top = tempfile::tempdir().unwrap();
        let root = beneath::open_root(top.path()).unwrap();
        let spelling = Spelling::default();
        let other = |path: &str| spelling.other(&root, &RelPath::new(path.as_bytes()).unwrap());
        assert_eq!(other("a/b"), Ok(None));
        std::fs::create_dir(top.path().join("a")).unwrap();
        for n in 0..40 {
            // Each is found although the folder was read a moment before.
            std::fs::write(top.path().join(format!("a/{n}")), b"").unwrap();
            assert_eq!(other(&format!("a/{n}")), Ok(None));
            assert_eq!(other(&format!("a/{n}/below")), Ok(None));
        }
    }
}
