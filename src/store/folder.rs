//! The store's folder, held open: its files are reached by this handle, and not by their path.
//!
//! So bodies and index are always on the same disk, whatever is mounted at the path or moved there
//! while the store is open: SQLite holds its files open, too. [`Folder::check`] tells whether the
//! path still leads here; whoever reads or writes asks it first.
//!
//! Paths are those of [`super::layout`], all below the folder's own. Knows neither bodies nor the
//! index. All of it blocks. Called by `bodies`, `index` and `mod`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, Stat, fstat, mkdirat, openat, renameat,
    renameat_with, stat, statat, unlinkat,
};
use rustix::io::Errno;

use super::fault::{Fault, Outcome};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// What the umask leaves of these.
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o777);

/// A file or folder, whatever its path: device and inode.
type Identity = (u64, u64);

#[allow(clippy::unnecessary_cast, reason = "the types differ between platforms")]
fn identity(stat: &Stat) -> Identity {
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// A store's folder.
pub(super) struct Folder {
    path: PathBuf,
    fd: OwnedFd,
    own: Identity,
    index: PathBuf,
    /// Of the index, once it is open.
    index_own: Option<Identity>,
}

impl Folder {
    /// Opens the folder at this absolute path.
    pub(super) fn open(path: &Path, index: PathBuf) -> io::Result<Self> {
        let fd = openat(CWD, path, FOLDER, Mode::empty())?;
        let own = identity(&fstat(&fd)?);
        Ok(Self { path: path.to_owned(), fd, own, index, index_own: None })
    }

    /// The index was opened by its path: from now on it must be the one in here.
    ///
    /// # Errors
    /// As of [`Folder::check`].
    pub(super) fn hold_index(&mut self) -> Outcome<()> {
        let stat = self.stat(&self.index).map_err(|e| Fault::file("look at", &self.index, &e))?;
        self.index_own = Some(identity(&stat));
        self.check()
    }

    /// Whether the store's path leads to this folder and its index.
    ///
    /// # Errors
    /// [`Fault::Away`]: another folder is there, or none.
    pub(super) fn check(&self) -> Outcome<()> {
        let away = |why: String| {
            Fault::Away(format!("the store that was in {} is away: {why}", self.path.display()))
        };
        match stat(&self.path) {
            Ok(seen) if identity(&seen) == self.own => {}
            Ok(_) => return Err(away("another folder is there now".to_owned())),
            Err(errno) => return Err(away(io::Error::from(errno).to_string())),
        }
        let Some(index_own) = self.index_own else { return Ok(()) };
        match stat(&self.index) {
            Ok(seen) if identity(&seen) == index_own => Ok(()),
            Ok(_) => Err(away("another index is there now".to_owned())),
            Err(errno) => Err(away(format!("its index: {}", io::Error::from(errno)))),
        }
    }

    /// What is left of a path below the folder.
    fn below<'a>(&self, path: &'a Path) -> &'a Path {
        match path.strip_prefix(&self.path) {
            Ok(below) if below.as_os_str().is_empty() => Path::new("."),
            Ok(below) => below,
            Err(_) => path,
        }
    }

    /// Opens a file, or a folder, for reading.
    pub(super) fn read(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(openat(&self.fd, self.below(path), flags, Mode::empty())?.into())
    }

    /// Makes a file that must not be there, for reading and writing.
    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        Ok(openat(&self.fd, self.below(path), flags, FILE_MODE)?.into())
    }

    /// Of what a path leads to, through links.
    pub(super) fn stat(&self, path: &Path) -> io::Result<Stat> {
        Ok(statat(&self.fd, self.below(path), AtFlags::empty())?)
    }

    pub(super) fn is_file(&self, path: &Path) -> bool {
        self.stat(path).is_ok_and(|stat| is_file(&stat))
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(renameat(&self.fd, self.below(from), &self.fd, self.below(to))?)
    }

    /// Renames, and fails with `AlreadyExists` when something is there. This also keeps keys apart
    /// that the file system takes for one (`A` and `a`, NFC and NFD).
    pub(super) fn rename_to_free(&self, from: &Path, to: &Path) -> io::Result<()> {
        let free = |to| statat(&self.fd, to, AtFlags::SYMLINK_NOFOLLOW).is_err();
        let (from, to) = (self.below(from), self.below(to));
        match renameat_with(&self.fd, from, &self.fd, to, RenameFlags::NOREPLACE) {
            // RACE: a file system without the flag: a file made by hand between the look and the
            // rename is replaced. Our own writers are kept out by the write transaction.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if free(to) => {
                Ok(renameat(&self.fd, from, &self.fd, to)?)
            }
            renamed => Ok(renamed?),
        }
    }

    pub(super) fn remove_file(&self, path: &Path) -> io::Result<()> {
        Ok(unlinkat(&self.fd, self.below(path), AtFlags::empty())?)
    }

    pub(super) fn remove_folder(&self, path: &Path) -> io::Result<()> {
        Ok(unlinkat(&self.fd, self.below(path), AtFlags::REMOVEDIR)?)
    }

    pub(super) fn make_folder(&self, path: &Path) -> io::Result<()> {
        Ok(mkdirat(&self.fd, self.below(path), FOLDER_MODE)?)
    }

    /// Makes a folder below this one, with those on the way to it.
    pub(super) fn make_folders(&self, path: &Path) -> io::Result<()> {
        match self.make_folder(path) {
            Err(e) if e.kind() == ErrorKind::NotFound && path != self.path => {
                path.parent().map_or(Ok(()), |parent| self.make_folders(parent))?;
                match self.make_folder(path) {
                    Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
                    made => made,
                }
            }
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    /// The names in a folder.
    pub(super) fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::new(openat(&self.fd, self.below(path), FOLDER, Mode::empty())?)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if !matches!(name.as_slice(), b"." | b"..") {
                names.push(OsString::from_vec(name));
            }
        }
        Ok(names)
    }
}

/// Whether it is an ordinary file.
pub(super) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}
