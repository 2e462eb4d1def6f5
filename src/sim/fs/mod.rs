//! Local files in memory: with torn reads, a lossy watcher, unreadable folders and disks that go.
//!
//! Here is what a person does to the files; [`tree`] is how keepwatch sees them.

mod tree;
mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::model::{Entry, Fingerprint, Kind, RelPath};
use crate::plan::{ErrorClass, Failure, Hint};
use crate::ports::{FolderWatch, Identity, Links, WatchEvent};

use super::chance::Chance;
use super::clock::SimClock;

pub use watch::SimHints;
use watch::SimWatch;

#[derive(Clone, Debug)]
struct Node {
    entry: Entry,
    content: Bytes,
}

#[derive(Debug, Default)]
struct Disk {
    nodes: BTreeMap<RelPath, Node>,
    next_inode: u64,
    identity: u64,
    missing: bool,
    /// The folder that another disk is mounted over.
    mounted: Option<RelPath>,
    /// What that disk covers; while it is away, what is on it.
    aside: BTreeMap<RelPath, Node>,
    /// When the source was last swapped, or a disk went or came.
    swapped_at: i64,
    unreadable: BTreeSet<RelPath>,
    /// Every content that a path ever had, for the oracle.
    history: BTreeMap<RelPath, Vec<Bytes>>,
    events: VecDeque<WatchEvent>,
    watched: BTreeSet<RelPath>,
    /// Files that have one more name outside the source.
    outside: BTreeSet<u64>,
    /// Percent of events that are lost without a word, and of those that end in an overflow.
    lost_percent: u64,
    overflow_percent: u64,
    torn_percent: u64,
}

impl Disk {
    /// Where the nearest folder above a path lies: on the source's own disk, or on the other one.
    fn device(&self, path: &RelPath) -> u64 {
        const OTHER: u64 = 99;
        let below = |folder: &RelPath| path.is_within(folder) && path != folder;
        match self.mounted.as_ref().is_some_and(below) {
            true => OTHER,
            false => self.identity,
        }
    }

    /// How many names a file has.
    fn names(&self, entry: &Entry) -> u64 {
        let inode = entry.fingerprint.inode;
        let here = self.nodes.values().filter(|node| node.entry.fingerprint.inode == inode);
        match entry.kind {
            Kind::File => here.count() as u64 + u64::from(self.outside.contains(&inode)),
            Kind::Link | Kind::Folder => 1,
        }
    }

    /// What was written to one name of a file is there under its others, too.
    fn spread(&mut self, path: &RelPath) {
        let Some(written) = self.nodes.get(path).cloned() else { return };
        let is_other = |other: &RelPath, node: &Node| {
            let (a, b) = (&node.entry, &written.entry);
            other != path
                && (a.kind, b.kind) == (Kind::File, Kind::File)
                && a.fingerprint.inode == b.fingerprint.inode
        };
        for (name, node) in self.nodes.iter_mut().filter(|(name, node)| is_other(name, node)) {
            let device = node.entry.fingerprint.device;
            *node = written.clone();
            node.entry.fingerprint.device = device;
            self.history.entry(name.clone()).or_default().push(written.content.clone());
        }
    }

    /// Whether a disk is mounted here, or below.
    fn is_busy(&self, path: &RelPath) -> bool {
        self.mounted.as_ref().is_some_and(|folder| folder.is_within(path))
    }
}

/// A source in memory. Clones are the same source; it outlives crashes of the program.
#[derive(Clone)]
pub struct SimFs {
    disk: Arc<Mutex<Disk>>,
    bell: Arc<tokio::sync::Notify>,
    links: Arc<Links>,
    clock: SimClock,
    chance: Chance,
}

impl SimFs {
    pub fn new(clock: SimClock, chance: &Chance) -> Self {
        let disk = Disk { identity: 1, next_inode: 10, ..Disk::default() };
        Self {
            disk: Arc::new(Mutex::new(disk)),
            bell: Arc::default(),
            links: Arc::default(),
            clock,
            chance: chance.clone(),
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_watcher(&self, lost_percent: u64, overflow_percent: u64) {
        let mut disk = self.disk();
        (disk.lost_percent, disk.overflow_percent) = (lost_percent, overflow_percent);
    }

    pub fn set_torn(&self, percent: u64) {
        self.disk().torn_percent = percent;
    }

    /// The disk goes away, or comes back.
    pub fn set_missing(&self, missing: bool) {
        let mut disk = self.disk();
        (disk.missing, disk.swapped_at) = (missing, self.clock.stamp().secs);
    }

    /// Another, empty folder is where the source was; or the old one is back.
    pub fn swap_source(&self, nodes: SwappedSource) -> SwappedSource {
        let mut disk = self.disk();
        disk.swapped_at = self.clock.stamp().secs;
        SwappedSource {
            identity: std::mem::replace(&mut disk.identity, nodes.identity),
            nodes: std::mem::replace(&mut disk.nodes, nodes.nodes),
            mounted: std::mem::replace(&mut disk.mounted, nodes.mounted),
            aside: std::mem::replace(&mut disk.aside, nodes.aside),
        }
    }

    /// A disk is mounted over this folder, or goes from it, with its files. Nothing happens where
    /// no folder is. No watcher tells of it.
    pub fn set_mounted(&self, folder: &RelPath, mounted: bool) {
        let mut disk = self.disk();
        let is_folder = disk.nodes.get(folder).is_some_and(|n| n.entry.kind == Kind::Folder);
        if disk.mounted.is_some() == mounted || !is_folder {
            return;
        }
        disk.mounted = mounted.then(|| folder.clone());
        disk.swapped_at = self.clock.stamp().secs;
        let below = |path: &RelPath| path.is_within(folder) && path != folder;
        let covered = disk.nodes.extract_if(.., |path, _| below(path)).collect();
        let shown = std::mem::replace(&mut disk.aside, covered);
        disk.nodes.extend(shown);
        disk.watched.retain(|path| !path.is_within(folder));
    }

    /// The disk that a name at this path is on, or would be on.
    pub fn device(&self, path: &RelPath) -> u64 {
        self.disk().device(path)
    }

    pub fn set_unreadable(&self, folder: &RelPath, unreadable: bool) {
        let mut disk = self.disk();
        match unreadable {
            true => disk.unreadable.insert(folder.clone()),
            false => disk.unreadable.remove(folder),
        };
        drop(disk);
        self.event(folder, false, false);
    }

    /// Writes a file, with the folders that it needs. Fails where a file is in the way.
    pub fn write(&self, path: &RelPath, content: &[u8]) -> bool {
        self.put(path, Kind::File, content)
    }

    pub fn link(&self, path: &RelPath, target: &[u8]) -> bool {
        self.remove(path);
        self.put(path, Kind::Link, target)
    }

    fn put(&self, path: &RelPath, kind: Kind, content: &[u8]) -> bool {
        if !path.parent().is_none_or(|parent| self.make_folder(&parent)) {
            return false;
        }
        let stamp = self.clock.stamp();
        let mut disk = self.disk();
        let bytes = Bytes::copy_from_slice(content);
        let new = !disk.nodes.contains_key(path);
        let (inode, mode) = match disk.nodes.get(path).map(|node| node.entry) {
            Some(entry) if entry.kind == kind => (entry.fingerprint.inode, entry.mode),
            Some(_) => return false,
            None => {
                disk.next_inode += 1;
                (disk.next_inode, if kind == Kind::Link { 0o120_777 } else { 0o100_644 })
            }
        };
        let size_bytes = content.len() as u64;
        let device = disk.device(path);
        let fingerprint = Fingerprint { size_bytes, mtime: stamp, ctime: stamp, inode, device };
        let entry = Entry { kind, fingerprint, mode, uid: 0, gid: 0 };
        disk.history.entry(path.clone()).or_default().push(bytes.clone());
        disk.nodes.insert(path.clone(), Node { entry, content: bytes });
        disk.spread(path);
        drop(disk);
        self.event(path, false, new);
        true
    }

    /// Gives a file one more name, outside the source where none is given. No watcher tells its
    /// first name.
    pub fn hard_link(&self, from: &RelPath, to: Option<&RelPath>) {
        let stamp = self.clock.stamp();
        let mut disk = self.disk();
        let Some(node) = disk.nodes.get_mut(from).filter(|n| n.entry.kind == Kind::File) else {
            return;
        };
        node.entry.fingerprint.ctime = stamp;
        let node = node.clone();
        disk.spread(from);
        let Some(to) = to else {
            disk.outside.insert(node.entry.fingerprint.inode);
            return;
        };
        disk.history.entry(to.clone()).or_default().push(node.content.clone());
        disk.nodes.insert(to.clone(), node);
        drop(disk);
        self.event(to, false, true);
    }

    /// Somebody writes through a name that is not in the source: no watcher tells.
    pub fn write_outside(&self, path: &RelPath, content: &[u8]) {
        let stamp = self.clock.stamp();
        let mut disk = self.disk();
        let Some(node) = disk.nodes.get_mut(path) else { return };
        node.content = Bytes::copy_from_slice(content);
        let f = &mut node.entry.fingerprint;
        (f.size_bytes, f.mtime, f.ctime) = (content.len() as u64, stamp, stamp);
        let content = node.content.clone();
        disk.history.entry(path.clone()).or_default().push(content);
        disk.spread(path);
    }

    /// Rewrites in place with the same size and puts the old mtime back: only ctime tells.
    pub fn rewrite_quietly(&self, path: &RelPath) {
        let stamp = self.clock.stamp();
        let mut disk = self.disk();
        let Some(node) = disk.nodes.get_mut(path).filter(|n| n.entry.kind == Kind::File) else {
            return;
        };
        let content: Vec<u8> = node.content.iter().map(|b| b.wrapping_add(1)).collect();
        node.content = Bytes::from(content);
        node.entry.fingerprint.ctime = stamp;
        let content = node.content.clone();
        disk.history.entry(path.clone()).or_default().push(content);
        disk.spread(path);
        drop(disk);
        self.event(path, false, false);
    }

    pub fn chmod(&self, path: &RelPath, mode: u32) {
        let stamp = self.clock.stamp();
        let mut disk = self.disk();
        if let Some(node) = disk.nodes.get_mut(path).filter(|n| n.entry.kind != Kind::Link) {
            node.entry.mode = node.entry.mode & !0o7777 | mode;
            if node.entry.kind == Kind::File {
                node.entry.fingerprint.ctime = stamp;
            }
            drop(disk);
            self.event(path, false, false);
        }
    }

    pub fn make_folder(&self, path: &RelPath) -> bool {
        if path.is_root() {
            return true;
        }
        if !path.parent().is_none_or(|parent| self.make_folder(&parent)) {
            return false;
        }
        let mut disk = self.disk();
        match disk.nodes.get(path).map(|node| node.entry.kind) {
            Some(kind) => return kind == Kind::Folder,
            None => {
                let device = disk.device(path);
                let fingerprint = Fingerprint { device, ..Fingerprint::default() };
                let kind = Kind::Folder;
                let entry = Entry { kind, fingerprint, mode: 0o40_755, uid: 0, gid: 0 };
                disk.nodes.insert(path.clone(), Node { entry, content: Bytes::new() });
            }
        }
        drop(disk);
        self.event(path, true, true);
        true
    }

    /// Removes a path and everything below, unless a disk is mounted there.
    pub fn remove(&self, path: &RelPath) {
        let mut disk = self.disk();
        if disk.is_busy(path) {
            return;
        }
        let gone: Vec<RelPath> =
            disk.nodes.keys().filter(|known| known.is_within(path)).cloned().collect();
        for path in &gone {
            disk.nodes.remove(path);
            disk.watched.remove(path);
        }
        drop(disk);
        for path in gone.iter().rev() {
            self.event(path, false, false);
        }
    }

    /// Renames a path with everything below, over whatever is there.
    pub fn rename(&self, from: &RelPath, to: &RelPath) {
        if to.is_within(from) || from.is_within(to) || !self.exists(from) {
            return;
        }
        if !to.parent().is_none_or(|parent| self.make_folder(&parent)) || !self.exists(from) {
            return;
        }
        if self.disk().is_busy(from) || self.disk().is_busy(to) {
            return;
        }
        self.remove(to);
        let stamp = self.clock.stamp();
        let mut disk = self.disk();
        let moved: Vec<RelPath> =
            disk.nodes.keys().filter(|known| known.is_within(from)).cloned().collect();
        for path in &moved {
            let rest = &path.as_bytes()[from.as_bytes().len()..];
            let Ok(new) = RelPath::new(&[to.as_bytes(), rest].concat()) else { continue };
            disk.watched.remove(path);
            if let Some(mut node) = disk.nodes.remove(path) {
                if node.entry.kind != Kind::Folder && path == from {
                    node.entry.fingerprint.ctime = stamp;
                }
                let content = node.content.clone();
                if node.entry.kind != Kind::Folder {
                    disk.history.entry(new.clone()).or_default().push(content);
                }
                node.entry.fingerprint.device = disk.device(&new);
                disk.nodes.insert(new, node);
            }
        }
        drop(disk);
        self.event(from, false, false);
        self.event(to, true, true);
    }

    pub fn exists(&self, path: &RelPath) -> bool {
        self.disk().nodes.contains_key(path)
    }

    pub fn paths(&self) -> Vec<RelPath> {
        self.disk().nodes.keys().cloned().collect()
    }

    /// Content of a file or link.
    pub fn content(&self, path: &RelPath) -> Option<(Entry, Bytes)> {
        self.disk().nodes.get(path).map(|node| (node.entry, node.content.clone()))
    }

    /// Whether this path ever had this content, or one that begins with it.
    pub fn ever_had(&self, path: &RelPath, content: &[u8]) -> bool {
        let disk = self.disk();
        disk.history.get(path).is_some_and(|all| all.iter().any(|c| c.starts_with(content)))
    }

    /// When the source was last swapped, or went or came, in seconds.
    pub fn swapped_at(&self) -> i64 {
        self.disk().swapped_at
    }

    /// Which folder is there now.
    pub fn identity_now(&self) -> Option<Identity> {
        let disk = self.disk();
        let identity = Identity { filesystem: disk.identity, inode: 2, born_ns: Some(3) };
        (!disk.missing).then_some(identity)
    }

    fn event(&self, path: &RelPath, deep: bool, created: bool) {
        let mut disk = self.disk();
        let parent = path.parent().unwrap_or_else(RelPath::root);
        // A folder that nobody watches makes no events.
        if !disk.watched.contains(&parent) {
            return;
        }
        if self.chance.percent(disk.lost_percent) {
            if self.chance.percent(disk.overflow_percent) {
                disk.events.push_back(WatchEvent::Overflow);
                disk.watched.clear();
            }
        } else {
            let hint = Hint { path: path.clone(), deep: deep && created };
            disk.events.push_back(WatchEvent::Hints(vec![hint]));
        }
        drop(disk);
        self.bell.notify_one();
    }

    /// A fresh watcher: nothing is watched, and old events are gone. As after a restart.
    pub fn watch(&self) -> (SimHints, Arc<dyn FolderWatch>) {
        let mut disk = self.disk();
        disk.events.clear();
        disk.watched.clear();
        drop(disk);
        (SimHints { fs: self.clone() }, Arc::new(SimWatch { fs: self.clone() }))
    }

    /// An entry as it is listed: a folder only when it needs a marker.
    fn marker(disk: &Disk, path: &RelPath, entry: &Entry) -> Option<Entry> {
        let empty = !disk.nodes.keys().any(|p| p.parent().as_ref() == Some(path));
        let own_mode = !matches!(entry.mode & 0o7777, 0o755 | 0o775);
        (empty || own_mode).then_some(*entry)
    }

    fn missing() -> Failure {
        Failure::new(ErrorClass::Configuration, "the source is not there")
    }

    /// A writer that is at work while the file is read.
    fn maybe_tear(&self, path: &RelPath) {
        if self.chance.percent(self.disk().torn_percent) {
            let content = self.content(path).map(|(_, content)| content);
            if let Some(content) = content {
                match self.chance.below(4) {
                    0 => self.remove(path),
                    1 => {
                        let grown = [&content[..], b"more"].concat();
                        self.write(path, &grown);
                    }
                    _ => {
                        let other: Vec<u8> = content.iter().map(|b| b.wrapping_add(3)).collect();
                        self.write(path, &other);
                    }
                }
            }
        }
    }
}

/// What is at the place of the source.
#[derive(Clone, Debug, Default)]
pub struct SwappedSource {
    identity: u64,
    nodes: BTreeMap<RelPath, Node>,
    mounted: Option<RelPath>,
    aside: BTreeMap<RelPath, Node>,
}

impl SwappedSource {
    /// An empty folder with an identity of its own.
    pub fn empty() -> Self {
        Self { identity: 2, ..Self::default() }
    }
}
