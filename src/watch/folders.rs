//! The folders that are watched, spread over several watchers.
//!
//! Removing a watch costs notify time in proportion to the watches of its instance, so no instance
//! has many. A folder that vanished is only forgotten here; should it come back under the same name
//! its old watch is removed first, for notify would take the new one to be there already.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use notify::{Config, ErrorKind, EventKindMask, PathOp, RecommendedWatcher, Watcher as _};

use crate::engine::Sight;
use crate::model::RelPath;

use super::limits::Left;
use super::{Layout, Raw, limits};

/// Watches in one instance, while instances are to be had.
const SHARD: usize = 2_000;

pub struct Folders {
    layout: Layout,
    /// The source as it is named, perhaps by a link.
    named: PathBuf,
    /// Where it was when watching began anew: events name this path.
    root: PathBuf,
    raw: SyncSender<Raw>,
    spilled: Arc<AtomicBool>,
    shards: Vec<Shard>,
    watched: BTreeMap<RelPath, usize>,
    /// Folders that vanished while they were watched, and in which shard.
    stale: HashMap<RelPath, usize>,
    /// Folders that could not be watched, since the last walk over everything began.
    unwatched: u64,
    /// Of these, the ones that may not be read.
    denied: u64,
    /// So many were they when a person was last told.
    told: u64,
    /// A walk over everything has begun: how many there are is not known until it ends.
    walking: bool,
    /// No further instance is to be had.
    full: bool,
}

struct Shard {
    watcher: RecommendedWatcher,
    count: usize,
}

impl Folders {
    pub fn new(
        layout: Layout,
        root: &Path,
        raw: SyncSender<Raw>,
        spilled: Arc<AtomicBool>,
    ) -> Self {
        Self {
            layout,
            named: root.to_owned(),
            root: resolved(root),
            raw,
            spilled,
            shards: vec![],
            watched: BTreeMap::new(),
            stale: HashMap::new(),
            unwatched: 0,
            denied: 0,
            told: 0,
            walking: false,
            full: false,
        }
    }

    /// What paths of events begin with.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Drops every watch. The source may be elsewhere now.
    pub fn reset(&mut self) {
        self.root = resolved(&self.named);
        self.shards.clear();
        self.watched.clear();
        self.stale.clear();
        self.full = false;
    }

    /// The folder is not what it was: it vanished, or was renamed, with everything below.
    pub fn forget(&mut self, gone: &RelPath) {
        let below: Vec<RelPath> = self
            .watched
            .range(gone.clone()..)
            .map(|(path, _)| path)
            // Between `a` and `a/x` may stand `a-b`.
            .take_while(|path| path.as_bytes().starts_with(gone.as_bytes()))
            .filter(|path| path.is_within(gone))
            .cloned()
            .collect();
        for path in below {
            if let Some(shard) = self.watched.remove(&path) {
                self.stale.insert(path, shard);
            }
        }
    }

    /// Watches these folders, as far as they are not watched already. Answers with how much is
    /// seen, and why, if a person should know. A walk over everything hands the source over first.
    pub fn add(&mut self, folders: &[RelPath]) -> Option<(Sight, String)> {
        if folders.iter().any(RelPath::is_root) {
            (self.walking, self.unwatched, self.denied, self.full) = (true, 0, 0, false);
        }
        let recursive = self.layout == Layout::Whole;
        let wanted = folders.iter().filter(|path| !recursive || path.is_root());
        let new: Vec<RelPath> =
            wanted.filter(|path| !self.watched.contains_key(*path)).cloned().collect();
        let mut rest = new.as_slice();
        while !rest.is_empty() {
            let Some(shard) = self.open_shard() else {
                self.unwatched += rest.len() as u64;
                break;
            };
            let room = match self.full {
                true => rest.len(),
                false => SHARD.saturating_sub(self.shards[shard].count).max(1),
            };
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.add_to(shard, now, recursive);
            rest = later;
        }
        if self.walking { None } else { self.sight() }
    }

    /// A walk over everything has ended.
    pub fn walked(&mut self) -> Option<(Sight, String)> {
        self.walking = false;
        self.sight()
    }

    fn add_to(&mut self, shard: usize, folders: &[RelPath], recursive: bool) {
        for path in folders {
            if let Some(old) = self.stale.remove(path) {
                let absolute = self.absolute(path);
                if let Some(shard) = self.shards.get_mut(old) {
                    shard.count = shard.count.saturating_sub(1);
                    // It may know by itself that the folder went.
                    shard.watcher.unwatch(&absolute).ok();
                }
            }
        }
        let mut ops: Vec<PathOp> = folders
            .iter()
            .map(|path| match recursive {
                true => PathOp::watch_recursive(self.absolute(path)),
                false => PathOp::watch_non_recursive(self.absolute(path)),
            })
            .collect();
        let mut done = 0;
        loop {
            let total = ops.len();
            let Err(error) = self.shards[shard].watcher.update_paths(std::mem::take(&mut ops))
            else {
                self.note(shard, &folders[done..]);
                return;
            };
            let applied = total - error.remaining.len() - usize::from(error.origin.is_some());
            self.note(shard, &folders[done..done + applied]);
            done += applied;
            if error.origin.is_some() {
                done += 1;
                // A folder that vanished meanwhile needs no watch.
                if !is_gone(&error.source.kind) {
                    self.unwatched += 1;
                    self.denied += u64::from(is_denied(&error.source.kind));
                }
            }
            if matches!(error.source.kind, ErrorKind::MaxFilesWatch) {
                self.unwatched += error.remaining.len() as u64;
                return;
            }
            if error.remaining.is_empty() {
                return;
            }
            ops = error.remaining;
        }
    }

    #[cfg(test)]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    #[cfg(test)]
    pub fn watched(&self) -> usize {
        self.watched.len()
    }

    fn note(&mut self, shard: usize, folders: &[RelPath]) {
        self.shards[shard].count += folders.len();
        self.watched.extend(folders.iter().map(|path| (path.clone(), shard)));
    }

    /// A shard with room; any shard when no further instance is to be had.
    fn open_shard(&mut self) -> Option<usize> {
        if let Some(last) = self.shards.last()
            && (last.count < SHARD || self.full)
        {
            return Some(self.shards.len() - 1);
        }
        match self.new_watcher() {
            Ok(watcher) => self.shards.push(Shard { watcher, count: 0 }),
            Err(error) => {
                tracing::debug!(%error, "no further watcher");
                self.full = true;
            }
        }
        self.shards.len().checked_sub(1)
    }

    fn new_watcher(&self) -> notify::Result<RecommendedWatcher> {
        let config = Config::default()
            .with_follow_symlinks(false)
            // Without this our own reads would make events.
            .with_event_kinds(EventKindMask::CORE | EventKindMask::ACCESS_CLOSE);
        let (raw, spilled) = (self.raw.clone(), self.spilled.clone());
        // Runs on the watcher's thread, which also adds watches: it must not block.
        let handler = move |event: Raw| {
            if raw.try_send(event).is_err() {
                spilled.store(true, Ordering::SeqCst);
            }
        };
        RecommendedWatcher::new(handler, config)
    }

    fn absolute(&self, path: &RelPath) -> PathBuf {
        use std::os::unix::ffi::OsStrExt as _;
        if path.is_root() {
            return self.root.clone();
        }
        self.root.join(std::ffi::OsStr::from_bytes(path.as_bytes()))
    }

    /// Told each time the number of unwatched folders has doubled, and when there are none left.
    fn sight(&mut self) -> Option<(Sight, String)> {
        let (unwatched, told) = (self.unwatched, self.told);
        if (unwatched == 0 && told == 0) || (unwatched > 0 && told > 0 && unwatched < 2 * told) {
            return None;
        }
        self.told = unwatched;
        if unwatched == 0 {
            return Some((Sight::Full, "every folder is watched again".to_owned()));
        }
        let watched = self.watched.len() as u64;
        let sight = if watched == 0 { Sight::Blind } else { Sight::Partial };
        let left = Left { unwatched, denied: self.denied, no_instance: self.shards.is_empty() };
        Some((sight, limits::explain(self.layout, watched, &left)))
    }
}

/// A path without links, where something is there.
fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn is_denied(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied)
}

fn is_gone(kind: &ErrorKind) -> bool {
    match kind {
        ErrorKind::PathNotFound => true,
        ErrorKind::Io(error) => {
            matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
        }
        _ => false,
    }
}
