//! Bodies on disk: written beside, brought home, taken out again, opened.
//!
//! A body lies in one of two places: at `tmp/<id>` while it is on its way, else at its home, which
//! is its plain path or its blob. Whoever looks for it looks in `tmp` first. That alone makes every
//! move safe: a row may say "home" before the file is there and after it has left.
//!
//! INVARIANT: a name in `tmp` or `blobs` belongs to one body for ever. A plain path is shared by
//! the bodies its key has had, so it changes hands only inside a write transaction of the index
//! ([`super::index::Tx`]), only by way of `tmp`, and only while nothing lies there.
//!
//! Does not know the index. All of it blocks: call it on a blocking thread. Called by `index`,
//! `intake`, `fetch` and `mod`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::crash_point::crash_point;
use super::damage::{self, Mark};
use super::fault::{Fault, Outcome};
use super::folder::{Folder, is_file};
use super::layout::{BodyId, Layout, folders_between};

/// Where a body lies when it is not on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// `<folder>/<bucket>/<key>`
    Plain,
    /// `.keepwatch-store/blobs/ab/cd/<id>`
    Blob,
}

/// What must be known to find a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) body: BodyId,
    pub(super) home: Home,
    pub(super) bucket: &'a str,
    pub(super) key: &'a str,
}

/// A body opened for reading. It stays readable whatever happens to its name.
pub(super) struct Opened {
    pub(super) file: File,
    /// Opened by its plain path: the caller must see in the index that the path still was this
    /// body's, or look again.
    pub(super) by_plain_path: bool,
}

/// How bringing a body home went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    Home,
    /// Not in `tmp`: it is home already, or gone.
    NotThere,
    /// A file lies where its path needs a folder; the key of that file.
    Blocked(String),
    /// Its plain path is taken, or the file system will not have it.
    Unfit,
}

/// The bodies of one store.
pub(super) struct Bodies {
    layout: Layout,
    folder: Folder,
    tmp: File,
    sync: bool,
    /// Nothing may be written.
    read_only: bool,
    /// Whose content was read and is right, though their time is this one: seconds, nanoseconds.
    proven: Mutex<HashMap<BodyId, (i64, i64)>>,
}

impl Bodies {
    /// Opens the folders of `layout`, which exist. With `sync`, bodies survive a power loss.
    pub(super) fn open(layout: Layout, folder: Folder, sync: bool) -> io::Result<Self> {
        let tmp = folder.read(&layout.tmp_folder())?;
        Ok(Self { layout, folder, tmp, sync, read_only: false, proven: Mutex::default() })
    }

    /// Those of a store that may not be written to.
    pub(super) fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    /// # Errors
    /// [`Fault::ReadOnly`].
    pub(super) fn check_writable(&self) -> Outcome<()> {
        match self.read_only {
            false => Ok(()),
            true => Err(Fault::ReadOnly(format!(
                "the store in {} can be read only",
                self.layout.root().display()
            ))),
        }
    }

    /// Whether the store's path still leads to the folder that is used.
    ///
    /// # Errors
    /// [`Fault::Away`].
    pub(super) fn check(&self) -> Outcome<()> {
        self.folder.check()
    }

    /// Starts a body, in `tmp`.
    pub(super) fn create(self: &Arc<Self>) -> Outcome<Draft> {
        self.check_writable()?;
        self.check()?;
        loop {
            let body = BodyId::fresh();
            let path = self.layout.tmp(body);
            crash_point();
            match self.folder.create(&path) {
                Ok(file) => {
                    let bodies = self.clone();
                    return Ok(Draft { body, file, bodies, stamped_s: None, kept: false });
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Fault::file("create", &path, &e)),
            }
        }
    }

    /// The home a new body of this key should have.
    pub(super) fn home(&self, bucket: &str, key: &str) -> Home {
        if self.layout.plain(bucket, key).is_some() { Home::Plain } else { Home::Blob }
    }

    fn home_path(&self, place: Place<'_>) -> PathBuf {
        match place.home {
            Home::Plain => self.layout.plain(place.bucket, place.key),
            Home::Blob => None,
        }
        .unwrap_or_else(|| self.layout.blob(place.body))
    }

    /// Opens a body; `None` when it is in neither of its places, because it just moved or went.
    pub(super) fn open_body(&self, place: Place<'_>) -> Outcome<Option<Opened>> {
        let on_its_way = self.layout.tmp(place.body);
        if let Some(file) = self.open_if_there(&on_its_way)? {
            return Ok(Some(Opened { file, by_plain_path: false }));
        }
        let file = self.open_if_there(&self.home_path(place))?;
        let by_plain_path = place.home == Home::Plain;
        Ok(file.map(|file| Opened { file, by_plain_path }))
    }

    fn open_if_there(&self, path: &Path) -> Outcome<Option<File>> {
        match self.folder.read(path) {
            Ok(file) => Ok(Some(file)),
            // A file where the path has a folder: the body has just been taken out.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(e) => Err(Fault::file("open", path, &e)),
        }
    }

    /// Opens the body of a part, which never leaves `tmp`; `None` when the part is gone.
    pub(super) fn open_part(&self, body: BodyId) -> Outcome<Option<File>> {
        self.open_if_there(&self.layout.tmp(body))
    }

    /// Moves a body from `tmp` to its home. Only inside a write transaction.
    pub(super) fn bring_home(&self, place: Place<'_>) -> Arrival {
        let (from, to) = (self.layout.tmp(place.body), self.home_path(place));
        crash_point();
        let moved = self.folder.rename_to_free(&from, &to).or_else(|e| match e.kind() {
            ErrorKind::NotFound if self.folder.stat(&from).is_ok() => {
                to.parent().map_or(Ok(()), |parent| self.folder.make_folders(parent))?;
                crash_point();
                self.folder.rename_to_free(&from, &to)
            }
            _ => Err(e),
        });
        match moved {
            Ok(()) => Arrival::Home,
            Err(e) if e.kind() == ErrorKind::NotFound => Arrival::NotThere,
            Err(_) => self.in_the_way(place, &to).map_or(Arrival::Unfit, Arrival::Blocked),
        }
    }

    /// The key whose plain file lies where this body needs a folder.
    fn in_the_way(&self, place: Place<'_>, path: &Path) -> Option<String> {
        if place.home != Home::Plain {
            return None;
        }
        let top = self.layout.bucket(place.bucket);
        let folders = folders_between(&top, path);
        let file = folders.into_iter().find(|folder| self.folder.is_file(folder))?;
        file.strip_prefix(&top).ok()?.to_str().map(str::to_owned)
    }

    /// Whether a file that shows this lies where the body does.
    pub(super) fn shows(&self, place: Place<'_>, mark: Mark) -> bool {
        let shows = |path: &Path| self.folder.stat(path).is_ok_and(|stat| mark.is_shown_by(&stat));
        shows(&self.home_path(place)) || shows(&self.layout.tmp(place.body))
    }

    /// Whether this body was read and is right, while it had this time of modification.
    pub(super) fn is_proven(&self, body: BodyId, modified: (i64, i64)) -> bool {
        let proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        proven.get(&body) == Some(&modified)
    }

    pub(super) fn prove(&self, body: BodyId, modified: (i64, i64)) {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner).insert(body, modified);
    }

    /// Whether a body is at its home, and not on its way.
    pub(super) fn lies_at_home(&self, place: Place<'_>) -> bool {
        let on_its_way = self.folder.stat(&self.layout.tmp(place.body)).is_ok();
        !on_its_way && self.folder.is_file(&self.home_path(place))
    }

    /// Moves a body from its home to `tmp`, if it is not there already. Only inside a write
    /// transaction. With `prune`, folders that became empty go too.
    ///
    /// A body that is nowhere was removed by hand: reading it says so, and this leaves it at that.
    pub(super) fn take_out(&self, place: Place<'_>, prune: bool) -> Outcome<()> {
        let (from, to) = (self.home_path(place), self.layout.tmp(place.body));
        // What is no file is no body, but made by hand.
        if self.folder.stat(&to).is_ok() || self.folder.stat(&from).is_ok_and(|f| !is_file(&f)) {
            return Ok(());
        }
        crash_point();
        match self.folder.rename(&from, &to) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Fault::file("move", &from, &e)),
        }
        if prune {
            let top = match place.home {
                Home::Plain => self.layout.bucket(place.bucket),
                Home::Blob => self.layout.blob_folder(),
            };
            let folders = folders_between(&top, &from);
            // The first that is not empty ends it.
            let _ = folders.into_iter().rev().try_for_each(|f| self.folder.remove_folder(f));
        }
        Ok(())
    }

    /// Removes a body that lies in `tmp` and that no row names any more. What cannot be removed is
    /// left to the next sweep.
    pub(super) fn discard(&self, body: BodyId) {
        crash_point();
        let _ = self.folder.remove_file(&self.layout.tmp(body));
    }

    /// Makes the names in `tmp` durable. Before the commit whose rows need them.
    pub(super) fn sync_names(&self) -> Outcome<()> {
        if !self.sync {
            return Ok(());
        }
        self.tmp.sync_all().map_err(|e| Fault::file("sync", &self.layout.tmp_folder(), &e))
    }

    /// The bodies in `tmp`. Files with other names are nobody's, and are removed if they can be.
    pub(super) fn on_their_way(&self) -> io::Result<Vec<BodyId>> {
        let mut bodies = Vec::new();
        let folder = self.layout.tmp_folder();
        for name in self.folder.names(&folder)? {
            match name.to_str().and_then(BodyId::parse) {
                Some(body) => bodies.push(body),
                None => drop(self.folder.remove_file(&folder.join(name))),
            }
        }
        Ok(bodies)
    }

    /// Makes the folder of a new bucket; `false` when something that is not ours lies there.
    pub(super) fn make_bucket(&self, name: &str) -> Outcome<bool> {
        let path = self.layout.bucket(name);
        match self.folder.make_folder(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                Ok(self.folder.names(&path).is_ok_and(|names| names.is_empty()))
            }
            Err(e) => Err(Fault::file("create", &path, &e)),
        }
    }

    /// Removes the folder of a bucket; one that holds files made by hand stays.
    pub(super) fn remove_bucket(&self, name: &str) {
        let _ = self.folder.remove_folder(&self.layout.bucket(name));
    }
}

/// A body being written, or written and not yet named by a row. Removed when dropped, unless kept.
pub(super) struct Draft {
    body: BodyId,
    file: File,
    bodies: Arc<Bodies>,
    stamped_s: Option<i64>,
    kept: bool,
}

impl Draft {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        crash_point();
        self.file.write_all(bytes).map_err(|e| self.fault("write", &e))
    }

    /// Nothing more will be written: makes the bytes durable.
    pub(super) fn finish(&mut self) -> Outcome<()> {
        self.stamped_s = damage::stamp(&self.file);
        if !self.bodies.sync {
            return Ok(());
        }
        self.file.sync_data().map_err(|e| self.fault("sync", &e))
    }

    /// Appends what is left of `source`, in the kernel where it can. Returns the bytes appended.
    pub(super) fn append(&mut self, source: &mut File) -> Outcome<u64> {
        crash_point();
        io::copy(source, &mut self.file).map_err(|e| self.fault("write", &e))
    }

    pub(super) fn body(&self) -> BodyId {
        self.body
    }

    /// See [`super::damage`]; known once it is finished.
    pub(super) fn stamped_s(&self) -> Option<i64> {
        self.stamped_s
    }

    /// A row names this body now: it stays.
    pub(super) fn keep(mut self) -> BodyId {
        self.kept = true;
        self.body
    }

    fn fault(&self, doing: &str, cause: &io::Error) -> Fault {
        Fault::file(doing, &self.bodies.layout.tmp(self.body), cause)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            self.bodies.discard(self.body);
        }
    }
}
