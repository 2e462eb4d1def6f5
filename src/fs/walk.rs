//! The sorted walk: every entry below a folder, in the order of the keys' bytes.
//!
//! A folder sorts as `name/`. Excluded folders are pruned before they are opened. What cannot be
//! looked at becomes a veil at the place where it would have been, so that its absence from the
//! stream proves nothing. Memory is the names of the folders on the way down.

use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::vec;

use rustix::fs::{Dir, FileType};
use rustix::io::Errno;
use tokio::sync::mpsc;

use crate::model::key::{RESERVED_NAME, encode_name};
use crate::model::{Entry, Key, RelPath};
use crate::plan::{ErrorClass, Failure, Skip};
use crate::ports::{Batch, FolderWatch, Fut, Seen, Veil, Walk};

use super::Inner;
use super::beneath::{self, Place};
use super::look::too_long;
use super::meta::{What, device, explain_unread, has_own_mode, names, what};
use super::own::is_staging;
use super::rules::{Level, RulesUnread, Unopened};

/// Entries in one batch, and batches on their way.
const BATCH: usize = 512;
const BATCHES: usize = 4;

struct Running {
    batches: mpsc::Receiver<Result<Batch, Failure>>,
}

impl Walk for Running {
    fn next(&mut self) -> Fut<'_, Option<Result<Batch, Failure>>> {
        Box::pin(self.batches.recv())
    }
}

/// Starts a walk on a thread of its own. It ends when it is done or when nobody listens any more.
///
/// Not on the runtime's blocking threads: a walk waits for its listener, who may wait for uploads,
/// which read on those threads. As many walks as there are threads would wait for ever.
pub fn start(
    inner: Arc<Inner>,
    top: RelPath,
    watch: Option<Arc<dyn FolderWatch>>,
) -> impl Walk + 'static {
    let (sender, batches) = mpsc::channel(BATCHES);
    let thread = std::thread::Builder::new().name("walk".to_owned());
    let mouth = sender.clone();
    let spawned = thread.spawn(move || {
        let walk = || run(&inner, top, watch, &mouth);
        // A stream that just ended would pass for a source with nothing more in it.
        if std::panic::catch_unwind(AssertUnwindSafe(walk)).is_err() {
            mouth.blocking_send(Err(crashed())).ok();
        }
    });
    if let Err(error) = spawned {
        let failure = Failure::new(ErrorClass::Path, "cannot start a thread to look at the source");
        sender.try_send(Err(failure.because(error.to_string()))).ok();
    }
    Running { batches }
}

fn crashed() -> Failure {
    Failure::new(ErrorClass::Path, "a bug in keepwatch: looking at the source ended unexpectedly")
}

fn run(
    inner: &Inner,
    top: RelPath,
    watch: Option<Arc<dyn FolderWatch>>,
    sender: &mpsc::Sender<Result<Batch, Failure>>,
) {
    let mut walker = Walker { inner, watch, sender, batch: vec![], device: 0 };
    let end = walker.run(top);
    let last = std::mem::take(&mut walker.batch);
    match end {
        Ok(()) => {
            sender.blocking_send(Ok(last)).ok();
        }
        Err(Stop::Failed(failure)) => {
            sender.blocking_send(Err(failure)).ok();
        }
        Err(Stop::Unheard) => {}
    }
}

enum Stop {
    Failed(Failure),
    /// The receiver is gone.
    Unheard,
}

/// A folder on the way down.
struct Frame {
    path: RelPath,
    key: String,
    place: Place,
    level: Level,
    children: vec::IntoIter<Child>,
}

struct Child {
    /// The encoded name; a folder's ends with `/`.
    sort: Box<str>,
    /// The name itself, where the encoded one differs.
    name: Option<Box<[u8]>>,
    /// Left out without looking at it, and what to tell a person.
    hidden: Option<Box<Hidden>>,
}

struct Hidden {
    excluded: bool,
    skip: Option<Skip>,
}

impl Child {
    fn name(&self) -> &[u8] {
        let sort = self.sort.strip_suffix('/').unwrap_or(&self.sort);
        self.name.as_deref().unwrap_or(sort.as_bytes())
    }

    fn is_folder(&self) -> bool {
        self.sort.ends_with('/')
    }
}

struct Walker<'a> {
    inner: &'a Inner,
    watch: Option<Arc<dyn FolderWatch>>,
    sender: &'a mpsc::Sender<Result<Batch, Failure>>,
    batch: Batch,
    /// Device of the source, for `one_file_system`.
    device: u64,
}

impl Walker<'_> {
    fn run(&mut self, top: RelPath) -> Result<(), Stop> {
        let failed = |errno: Errno| {
            let message = format!("the source {} cannot be read", self.inner.root.display());
            let failure = Failure::new(ErrorClass::Configuration, message);
            let hint = "check its permissions, and whether its disk is mounted";
            Stop::Failed(failure.because(explain_unread(errno)).with_hint(hint))
        };
        let root = beneath::open_root(&self.inner.root).map_err(failed)?;
        self.device = device(&rustix::fs::fstat(&root).map_err(failed)?);
        if let Some(watch) = &self.watch {
            watch.watch(std::slice::from_ref(&top));
        }
        let key = Key::folder(&top);
        let opened = match self.level_above(&root, &top) {
            Ok(level) => self.open(&root, &top, key.as_str(), &level),
            Err(unopened) => Err(unopened),
        };
        let first = match opened {
            Ok((frame, true)) => frame,
            Err(Unopened::Rules(unread)) if unread.file.parent().as_ref() == Some(&top) => {
                return self.frozen(key.as_str(), &unread);
            }
            // A listing without its end proves nothing about what it does not name.
            Ok((_, false)) if top.is_root() => return Err(failed(Errno::IO)),
            Err(Unopened::Failed(errno)) if top.is_root() => return Err(failed(errno)),
            // It vanished, or turned unreadable, since it was looked at: nothing is known.
            Ok((_, false)) | Err(_) => return self.veil(key.as_str(), false, true, None),
        };
        let mut frames = vec![first];
        while let Some(frame) = frames.last_mut() {
            let Some(child) = frame.children.next() else {
                frames.pop();
                continue;
            };
            if let Some(below) = self.visit(&root, frame, &child)? {
                frames.push(below);
            }
        }
        Ok(())
    }

    /// The rules that apply where the walk begins.
    fn level_above(&self, root: &OwnedFd, top: &RelPath) -> Result<Level, Unopened> {
        let mut level = Level::default();
        let mut folder = RelPath::root();
        for segment in top.segments() {
            let place = beneath::place(root, &folder)?;
            level = self.inner.rules.enter(&level, &place, &folder)?;
            folder = folder.join(segment).map_err(|_| Errno::INVAL)?;
        }
        Ok(level)
    }

    /// Emits one child; answers with its frame when it is a folder to go into.
    fn visit(
        &mut self,
        root: &OwnedFd,
        frame: &Frame,
        child: &Child,
    ) -> Result<Option<Frame>, Stop> {
        let key = format!("{}{}", frame.key, child.sort);
        let Ok(path) = frame.path.join(child.name()) else { return Ok(None) };
        if let Some(hidden) = &child.hidden {
            let skip = hidden.skip.clone().map(|skip| (path, skip));
            self.veil(&key, hidden.excluded, child.is_folder(), skip)?;
            return Ok(None);
        }
        let stat = match frame.place.stat(child.name()) {
            Ok(stat) => stat,
            // Gone since it was listed.
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => {
                let skip = Skip::Unreadable(explain_unread(errno));
                self.veil(&key, false, child.is_folder(), Some((path, skip)))?;
                return Ok(None);
            }
        };
        match what(&stat, frame.place.disk) {
            What::Folder(_) if !child.is_folder() => self.veil(&key, false, false, None)?,
            What::Folder(entry) => {
                return self.visit_folder(root, frame, key, path, entry, device(&stat));
            }
            // It was a folder when it was listed: the watcher or the next pass sees to it.
            _ if child.is_folder() => self.veil(&key, false, true, None)?,
            What::Special => self.veil(&key, false, false, Some((path, Skip::Special)))?,
            What::Entry(entry) => {
                if self.inner.rules.excludes_file(&frame.level, &path, &entry) {
                    self.veil(&key, true, false, None)?;
                } else {
                    self.inner.links.note(&path, entry.fingerprint.inode, names(&stat));
                    self.emit(Key::literal(&key), Seen::Entry(path, entry))?;
                }
            }
        }
        Ok(None)
    }

    fn visit_folder(
        &mut self,
        root: &OwnedFd,
        frame: &Frame,
        key: String,
        path: RelPath,
        entry: Entry,
        device: u64,
    ) -> Result<Option<Frame>, Stop> {
        if self.inner.rules.one_file_system() && device != self.device {
            self.veil(&key, true, true, None)?;
            return Ok(None);
        }
        let (below, whole) = match self.open(root, &path, &key, &frame.level) {
            Ok(opened) => opened,
            Err(Unopened::Rules(unread)) => {
                self.frozen(&key, &unread)?;
                return Ok(None);
            }
            Err(Unopened::Failed(errno)) if beneath::is_gone(errno) => {
                self.veil(&key, false, true, None)?;
                return Ok(None);
            }
            Err(Unopened::Failed(errno)) => {
                let skip = Skip::Unreadable(explain_unread(errno));
                self.veil(&key, false, true, Some((path, skip)))?;
                return Ok(None);
            }
        };
        let listed = below.children.as_slice();
        if listed.iter().any(|c| !c.is_folder() && self.inner.rules.excludes_its_folder(c.name())) {
            self.veil(&key, true, true, None)?;
            return Ok(None);
        }
        if !whole {
            let skip = Skip::Unreadable("its listing ended with an error".to_owned());
            self.veil(&key, false, true, Some((path, skip)))?;
            return Ok(Some(below));
        }
        let empty = !listed.iter().any(|child| self.counts(&below, child));
        let needed = (empty || has_own_mode(&entry)) && !(empty && is_staging(&path, &entry));
        if !self.inner.rules.includes(&path, true) {
            // Its marker, if there is one, is left out; what is below may not be.
            self.veil(&key, true, false, None)?;
        } else if needed {
            self.emit(Key::literal(&key), Seen::Entry(path, entry))?;
        }
        Ok(Some(below))
    }

    /// Whether a child is backed up, as far as can be told without going into it.
    fn counts(&self, frame: &Frame, child: &Child) -> bool {
        let Ok(path) = frame.path.join(child.name()) else { return false };
        if child.hidden.is_some() {
            return false;
        }
        if child.is_folder() {
            return true;
        }
        match frame.place.what(child.name()) {
            Ok(What::Entry(entry)) => !self.inner.rules.excludes_file(&frame.level, &path, &entry),
            Ok(What::Folder(_)) | Err(_) => true,
            Ok(What::Special) => false,
        }
    }

    /// Lists a folder. Its subfolders are watched before anything is done with them. Answers also
    /// with whether the listing reached its end.
    fn open(
        &mut self,
        root: &OwnedFd,
        path: &RelPath,
        key: &str,
        above: &Level,
    ) -> Result<(Frame, bool), Unopened> {
        let place = beneath::folder(root, path)?;
        let level = self.inner.rules.enter(above, &place, path)?;
        let mut children = vec![];
        let mut whole = true;
        for child in Dir::read_from(&place.fd)? {
            let Ok(child) = child else {
                whole = false;
                break;
            };
            let name = child.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let is_folder = match child.file_type() {
                FileType::Unknown => matches!(place.what(name), Ok(What::Folder(_))),
                kind => kind == FileType::Directory,
            };
            children.extend(self.child(path, key, &level, name, is_folder));
        }
        children.sort_unstable_by(|a: &Child, b: &Child| a.sort.cmp(&b.sort));
        if let Some(watch) = &self.watch {
            let folders: Vec<RelPath> = children
                .iter()
                .filter(|child| child.is_folder() && child.hidden.is_none())
                .filter_map(|child| path.join(child.name()).ok())
                .collect();
            if !folders.is_empty() {
                watch.watch(&folders);
            }
        }
        let frame = Frame {
            path: path.clone(),
            key: key.to_owned(),
            place,
            level,
            children: children.into_iter(),
        };
        Ok((frame, whole))
    }

    /// A name of the folder `path`, judged by what its name and kind alone tell.
    fn child(
        &self,
        path: &RelPath,
        key: &str,
        level: &Level,
        name: &[u8],
        is_folder: bool,
    ) -> Option<Child> {
        let path = path.join(name).ok()?;
        let encoded = encode_name(name);
        let differs = encoded.as_bytes() != name;
        let sort = match is_folder {
            true => format!("{encoded}/").into_boxed_str(),
            false => encoded.into_owned().into_boxed_str(),
        };
        let reserved = (path.as_bytes() == RESERVED_NAME).then_some(Skip::Reserved);
        let skip = reserved.or_else(|| too_long(self.inner, key.len() + sort.len()));
        let excluded = is_folder && self.inner.rules.excludes_folder(level, &path);
        let hidden = (excluded || skip.is_some())
            .then(|| Box::new(Hidden { excluded, skip: skip.filter(|_| !excluded) }));
        Some(Child { sort, name: differs.then(|| name.into()), hidden })
    }

    /// A folder whose rules are not known: nothing in it is looked at.
    fn frozen(&mut self, key: &str, unread: &RulesUnread) -> Result<(), Stop> {
        self.veil(key, false, true, None)?;
        let file = Key::file(&unread.file);
        self.veil(file.as_str(), false, false, Some((unread.file.clone(), unread.skip())))
    }

    fn veil(
        &mut self,
        key: &str,
        excluded: bool,
        tree: bool,
        skip: Option<(RelPath, Skip)>,
    ) -> Result<(), Stop> {
        self.emit(Key::literal(key), Seen::Veil(Veil { excluded, tree, skip }))
    }

    fn emit(&mut self, key: Key, seen: Seen) -> Result<(), Stop> {
        self.batch.push((key, seen));
        if self.batch.len() < BATCH {
            return Ok(());
        }
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        self.sender.blocking_send(Ok(batch)).map_err(|_| Stop::Unheard)
    }
}
