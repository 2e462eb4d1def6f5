//! A source and a person at work in it: files in memory, and files on a disk.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keepwatch::fs::{RuleOptions, Rules, Tree};
use keepwatch::model::RelPath;
use keepwatch::ports::{FolderWatch, HintSource, LocalTree};
use keepwatch::sim::fs::SwappedSource;
use keepwatch::sim::{Chance, SimClock, SimFs};
use keepwatch::watch;
use tempfile::TempDir;

/// What a person does. Folders that are needed are made; what cannot be done is left undone.
pub trait Person {
    fn write(&self, name: &str, content: &[u8]);
    fn link(&self, name: &str, target: &[u8]);
    fn make_folder(&self, name: &str);
    fn remove(&self, name: &str);
    fn rename(&self, from: &str, to: &str);
    fn chmod(&self, name: &str, mode: u32);
    /// Changes the content in place, and puts the times back that can be put back.
    fn rewrite_quietly(&self, name: &str);
    /// The disk goes, or comes back.
    fn set_missing(&self, missing: bool);
    /// Another folder is where the source was.
    fn swap(&self);
}

/// A source, the person, and how keepwatch sees it.
pub struct Source {
    pub person: Box<dyn Person>,
    pub tree: Arc<dyn LocalTree>,
    watcher: Box<dyn Fn() -> Watcher>,
}

/// A watcher and its hints.
pub type Watcher = (Box<dyn HintSource>, Arc<dyn FolderWatch>);

impl Source {
    pub fn in_memory() -> Self {
        let fs = SimFs::new(SimClock::start(), &Chance::new(7));
        let watched = fs.clone();
        let watcher = move || -> Watcher {
            let (hints, folders) = watched.watch();
            (Box::new(hints), folders)
        };
        let tree = Arc::new(fs.clone());
        Self { person: Box::new(InMemory(fs)), tree, watcher: Box::new(watcher) }
    }

    pub fn on_disk() -> Self {
        let disk = OnDisk::new();
        let root = disk.root.clone();
        let rules = Rules::new(RuleOptions::default()).unwrap();
        let tree = Arc::new(Tree::new(&root, rules, 1024));
        let watcher = move || -> Watcher {
            let (folders, hints) = watch::start(&root);
            (Box::new(hints), folders)
        };
        Self { person: Box::new(disk), tree, watcher: Box::new(watcher) }
    }

    /// A new watcher, that watches nothing yet.
    pub fn watch(&self) -> Watcher {
        (self.watcher)()
    }
}

pub fn path(name: &str) -> RelPath {
    RelPath::new(name.as_bytes()).unwrap()
}

struct InMemory(SimFs);

impl Person for InMemory {
    fn write(&self, name: &str, content: &[u8]) {
        self.0.write(&path(name), content);
    }

    fn link(&self, name: &str, target: &[u8]) {
        self.0.link(&path(name), target);
    }

    fn make_folder(&self, name: &str) {
        self.0.make_folder(&path(name));
    }

    fn remove(&self, name: &str) {
        self.0.remove(&path(name));
    }

    fn rename(&self, from: &str, to: &str) {
        self.0.rename(&path(from), &path(to));
    }

    fn chmod(&self, name: &str, mode: u32) {
        self.0.chmod(&path(name), mode);
    }

    fn rewrite_quietly(&self, name: &str) {
        self.0.rewrite_quietly(&path(name));
    }

    fn set_missing(&self, missing: bool) {
        self.0.set_missing(missing);
    }

    fn swap(&self) {
        self.0.swap_source(SwappedSource::empty());
    }
}

struct OnDisk {
    folder: TempDir,
    root: PathBuf,
}

impl OnDisk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("source");
        std::fs::create_dir(&root).unwrap();
        Self { folder, root }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes the folder above, if nothing is in the way.
    fn make_room(&self, name: &str) -> Option<PathBuf> {
        let at = self.at(name);
        std::fs::create_dir_all(at.parent()?).ok()?;
        Some(at)
    }
}

fn is_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

impl Person for OnDisk {
    fn write(&self, name: &str, content: &[u8]) {
        let Some(at) = self.make_room(name) else { return };
        let is_new = at.symlink_metadata().is_err();
        if is_new || at.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
            std::fs::write(&at, content).unwrap();
        }
        if is_new {
            self.chmod(name, 0o644);
        }
    }

    fn link(&self, name: &str, target: &[u8]) {
        self.remove(name);
        let target = std::ffi::OsStr::from_bytes(target);
        self.make_room(name).map(|at| std::os::unix::fs::symlink(target, at).ok());
    }

    fn make_folder(&self, name: &str) {
        std::fs::create_dir_all(self.at(name)).ok();
    }

    fn remove(&self, name: &str) {
        let at = self.at(name);
        let removed = match is_folder(&at) {
            true => std::fs::remove_dir_all(at),
            false => std::fs::remove_file(at),
        };
        removed.ok();
    }

    fn rename(&self, from: &str, to: &str) {
        let (from_path, to_path) = (path(from), path(to));
        if to_path.is_within(&from_path) || from_path.is_within(&to_path) {
            return;
        }
        if self.at(from).symlink_metadata().is_ok()
            && let Some(at) = self.make_room(to)
            && self.at(from).symlink_metadata().is_ok()
        {
            self.remove(to);
            std::fs::rename(self.at(from), at).unwrap();
        }
    }

    fn chmod(&self, name: &str, mode: u32) {
        let at = self.at(name);
        if at.symlink_metadata().is_ok_and(|metadata| !metadata.is_symlink()) {
            std::fs::set_permissions(at, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    fn rewrite_quietly(&self, name: &str) {
        let at = self.at(name);
        let Ok(before) = at.symlink_metadata() else { return };
        if !before.is_file() {
            return;
        }
        let content: Vec<u8> =
            std::fs::read(&at).unwrap().iter().map(|byte| byte.wrapping_add(1)).collect();
        std::fs::write(&at, content).unwrap();
        let file = std::fs::File::options().write(true).open(&at).unwrap();
        file.set_modified(before.modified().unwrap()).unwrap();
        assert_eq!(file.metadata().unwrap().mtime_nsec(), before.mtime_nsec());
    }

    fn set_missing(&self, missing: bool) {
        let aside = self.folder.path().join("aside");
        match missing {
            true => std::fs::rename(&self.root, aside).unwrap(),
            false => std::fs::rename(aside, &self.root).unwrap(),
        }
    }

    fn swap(&self) {
        self.set_missing(true);
        std::fs::create_dir(&self.root).unwrap();
    }
}
