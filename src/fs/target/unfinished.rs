//! A file or link that is being made, and the one step in which it gets its name.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use rustix::fs::{
    Access, AtFlags, Mode, OFlags, RenameFlags, accessat, linkat, openat, renameat, renameat_with,
    statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use crate::model::RelPath;
use crate::ports::{Attributes, LocalLook, TargetError};

use super::attributes;
use super::disk::Disk;
use super::staging::Staging;

/// The name of something unfinished. Dropped, it is removed.
pub struct Unfinished {
    pub staging: Arc<Staging>,
    /// Where it is, and will be.
    pub disk: Arc<Disk>,
    name: String,
    /// Where it has to be beside its place, because no rename from the staging folder gets there.
    elsewhere: Option<Elsewhere>,
}

struct Elsewhere {
    folder: OwnedFd,
    /// Name of the note about it in the staging folder.
    note: String,
}

impl Unfinished {
    /// Makes an empty file that is to be at `path`, and the folders above that.
    pub fn file(staging: Arc<Staging>, path: &RelPath) -> Result<(Self, OwnedFd), TargetError> {
        let unfinished = Self::new(staging, path)?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat(unfinished.folder(), unfinished.name.as_str(), flags, mode)
            .map_err(|errno| unfinished.staging.root.refused(errno))?;
        Ok((unfinished, file))
    }

    /// Makes a link that is to be at `path`, and the folders above that.
    pub fn link(
        staging: Arc<Staging>,
        path: &RelPath,
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<Self, TargetError> {
        if target.is_empty() {
            return Err(TargetError::Path("a link must have a target".to_owned()));
        }
        let unfinished = Self::new(staging, path)?;
        let (root, folder) = (&unfinished.staging.root, unfinished.folder());
        symlinkat(OsStr::from_bytes(target), folder, unfinished.name.as_str())
            .map_err(|errno| root.refused(errno))?;
        let attributes = unfinished.disk.kept(&Attributes { permissions: None, ..*attributes });
        attributes::of_link(root, folder, OsStr::new(&unfinished.name), &attributes)?;
        Ok(unfinished)
    }

    /// Finds a place to make it. What would keep it from its name is better known before its
    /// content has been fetched than after.
    fn new(staging: Arc<Staging>, path: &RelPath) -> Result<Self, TargetError> {
        staging.admit(path)?;
        let root = &staging.root;
        let refused = |errno| root.refused(errno);
        let Some(above) = path.parent() else { return Err(refused(Errno::ISDIR)) };
        let (parent, _) = root.make_folder(&above)?;
        accessat(&parent, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
            .map_err(refused)?;
        match statat(&parent, OsStr::from_bytes(path.name()), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(refused(errno)),
        }
        let (here, beside, note) = staging.names();
        let Some(disk) = staging.other_disk(&parent, &above).map_err(refused)? else {
            let disk = staging.disk.clone();
            return Ok(Self { staging, disk, name: here, elsewhere: None });
        };
        let at = above.join(beside.as_bytes()).map_err(|_| refused(Errno::INVAL))?;
        symlinkat(OsStr::from_bytes(at.as_bytes()), &staging.folder, note.as_str())
            .map_err(refused)?;
        let elsewhere = Some(Elsewhere { folder: parent, note });
        Ok(Self { staging, disk, name: beside, elsewhere })
    }

    fn folder(&self) -> &OwnedFd {
        self.elsewhere.as_ref().map_or(&self.staging.folder, |elsewhere| &elsewhere.folder)
    }

    /// Gives it its name, in place of what `over` says was there.
    pub fn publish(self, path: &RelPath, over: &LocalLook) -> Result<(), TargetError> {
        let root = &self.staging.root;
        let parent = root.parent(path)?;
        let name = OsStr::from_bytes(path.name());
        match over {
            LocalLook::Blocked(at) | LocalLook::Otherwise(at) => {
                Err(TargetError::InTheWay(at.clone()))
            }
            LocalLook::Absent => self.place(&parent, name),
            LocalLook::Folder(_) => {
                match unlinkat(&parent, name, AtFlags::REMOVEDIR) {
                    Ok(()) => {}
                    Err(Errno::NOTEMPTY | Errno::EXIST) => {
                        return Err(TargetError::InTheWay(path.clone()));
                    }
                    Err(errno) => return Err(root.refused(errno)),
                }
                self.place(&parent, name)
            }
            LocalLook::File(_) | LocalLook::Link(..) | LocalLook::Special(_) => {
                if root.look_in(&parent, name)? != *over {
                    return Err(TargetError::Changed);
                }
                // RACE: what is written to the old file, or put in its place, between the look and
                // the rename is lost. The rename itself is one step, and never follows a link.
                renameat(self.folder(), self.name.as_str(), &parent, name)
                    .map_err(|errno| root.refused(errno))
            }
        }
    }

    /// Gives it a name that is free; what took it meanwhile stays.
    fn place(&self, parent: &OwnedFd, name: &OsStr) -> Result<(), TargetError> {
        let root = &self.staging.root;
        let (folder, unfinished) = (self.folder(), self.name.as_str());
        match renameat_with(folder, unfinished, parent, name, RenameFlags::NOREPLACE) {
            // The file system does not know this rename.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            result => return result.map_err(|errno| root.refused(errno)),
        }
        match linkat(folder, unfinished, parent, name, AtFlags::empty()) {
            // Nor hard links.
            Err(Errno::PERM | Errno::NOSYS | Errno::NOTSUP | Errno::MLINK) => {}
            // Its other name goes when this value is dropped.
            result => return result.map_err(|errno| root.refused(errno)),
        }
        if root.look_in(parent, name)? != LocalLook::Absent {
            return Err(TargetError::Changed);
        }
        // RACE: a file that comes to be here right now is replaced.
        renameat(folder, unfinished, parent, name).map_err(|errno| root.refused(errno))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After a rename the name is gone already; what cannot be removed, the next restore sweeps.
        unlinkat(self.folder(), self.name.as_str(), AtFlags::empty()).ok();
        if let Some(elsewhere) = &self.elsewhere {
            unlinkat(&self.staging.folder, elsewhere.note.as_str(), AtFlags::empty()).ok();
        }
    }
}
