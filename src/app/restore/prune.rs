//! Deleting what the backup does not have: only when asked, last of all, and under the guard.
//!
//! The target is walked in key order beside the listing, twice: to count, and to delete.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::model::words::{count, grouped};
use crate::model::{Key, Kind, RelPath};
use crate::plan::restore::{Place, place};
use crate::plan::{ErrorClass, Failure, Guard, Merge, Side, Step};
use crate::ports::{LocalLook, Seen};

use super::super::progress::raise;
use super::{Restore, Stop};

/// What one walk found.
#[derive(Default)]
struct Extra {
    /// Files and links that the backup does not have.
    files: u64,
    /// Files and links that it has: those that it will have here, in a dry run.
    kept: u64,
    /// Of these, the ones whose name is here.
    here: u64,
    /// Of these, the ones that have the backup's size, too.
    alike: u64,
    /// Of these, the empty ones, which are alike everywhere.
    empty: u64,
    /// What is asked for is one file of the backup.
    is_one_file: bool,
}

impl Extra {
    /// Whether this is hardly the folder that was backed up, or an earlier restore of it. Where all
    /// of the backup is, it was restored before. Else a few files that look the same will do, or
    /// many that share no more than their names.
    fn is_unrelated(&self) -> bool {
        let all = self.kept > 0 && self.alike == self.kept;
        let few = match self.alike - self.empty {
            0 => self.here < self.files,
            _ => self.here.saturating_mul(RELATED) < self.files,
        };
        self.files > 0 && !all && few
    }
}

const RELATED: u64 = 10;

impl Restore {
    /// Before anything is written: what has next to nothing of the backup is hardly the folder that
    /// was meant. A second run would find all of the backup here, so the first does not begin.
    pub(super) async fn check_target(&self) -> Result<(), Stop> {
        if self.look(&RelPath::root()).await? == LocalLook::Absent {
            return Ok(());
        }
        let extra = self.walk(None, &mut BTreeSet::new()).await?;
        if !extra.is_unrelated() {
            return Ok(());
        }
        let in_its_place = match &self.settings.within {
            Some(path) if extra.is_one_file => match self.look(path).await? {
                LocalLook::Folder(_) => Some(path),
                _ => None,
            },
            _ => None,
        };
        let few = match extra.here {
            0 => "none of its files is".to_owned(),
            1 => "only one of its files has its name".to_owned(),
            here => format!("only {} of its files have their names", grouped(here)),
        };
        let message = format!(
            "{few} in the backup, and --delete would delete {} there: is it the right folder?",
            count(extra.files, "other file")
        );
        if self.plan.is_some() {
            tracing::warn!("the target looks like another folder: {message}");
            self.unrelated.store(true, Ordering::Relaxed);
            return Ok(());
        }
        raise(&self.tally.held, extra.files);
        let message = format!("the target looks like another folder: {message}");
        let hint = match (in_its_place, extra.kept) {
            (Some(path), _) => format!(
                "nothing was restored or deleted: a folder is at {path}, where the backup has a \
                 file; move the folder away, and restore again"
            ),
            (None, 0) => {
                "nothing was deleted: the backup has no files to tell the folder by".into()
            }
            (None, _) => {
                "nothing was restored or deleted; --dry-run lists what would be; if it is \
                 the right folder, restore without --delete first, and then again with it"
                    .into()
            }
        };
        Err(Stop::Held(Failure::new(ErrorClass::Configuration, message).with_hint(hint)))
    }

    pub(super) async fn prune(self: &Arc<Self>) -> Result<(), Stop> {
        if self.tally.counts().failed.count > 0 {
            let why = "some paths failed, so nothing is deleted";
            self.tally.skipped("--delete".to_owned(), why.to_owned());
            return Ok(());
        }
        if self.plan.is_some() && self.look(&RelPath::root()).await? == LocalLook::Absent {
            return Ok(());
        }
        let mut literal = BTreeSet::new();
        let extra = self.walk(None, &mut literal).await?;
        let guard = Guard {
            max_delete: self.settings.max_delete,
            same_source: true,
            files: extra.kept,
            pending: extra.files,
            files_max: extra.kept + extra.files,
            ..Guard::default()
        };
        let unrelated = self.unrelated.load(Ordering::Relaxed);
        let hold = guard.check();
        if unrelated || hold.is_some() && self.plan.is_some() {
            let why = match unrelated {
                true => "held for safety: the target looks like another folder",
                false => "held for safety: more than --max-delete allows",
            };
            self.walk(Some(why), &mut literal).await?;
        }
        if unrelated {
            raise(&self.tally.held, extra.files);
            return Ok(());
        }
        let Some(hold) = hold else {
            self.walk(Some("the backup does not have it"), &mut literal).await?;
            if self.plan.is_some() {
                raise(&self.tally.deleted, extra.files);
            }
            return Ok(());
        };
        raise(&self.tally.held, hold.pending);
        tracing::warn!(
            "{} here, which the backup does not have, held for safety: more than --max-delete {} \
             allows, or all there are. Look at them with --dry-run; --max-delete off deletes them",
            count(hold.pending, "file"),
            self.settings.max_delete
        );
        Ok(())
    }

    /// Remembers an object that is tagged as deleted, if somebody will ask.
    pub(super) fn is_deleted(&self, key: &Key) {
        if self.settings.delete {
            self.tagged.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        }
    }

    fn was_deleted(&self, key: &Key) -> bool {
        self.tagged.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    /// Goes through the target beside the listing; deletes what only the target has, if there is a
    /// reason to. `literal` gathers the keys of the backup that are quoted in another way than
    /// ours: they stand elsewhere in the listing, often behind what they are to be compared with,
    /// and are known after a first walk only.
    async fn walk(&self, reason: Option<&str>, literal: &mut BTreeSet<Key>) -> Result<Extra, Stop> {
        let top = self.settings.within.clone().unwrap_or_else(RelPath::root);
        let one_file = self.settings.within.as_ref().map(Key::file);
        let mut walk = self.here.walk(top, None);
        let mut objects = self.objects();
        let mut merge: Merge<Seen, (), u64> = Merge::default();
        merge.end(Side::Base);
        let mut extra = Extra::default();
        let mut markers = Markers { above: vec![], literal };
        loop {
            if self.cancel.is_cancelled() {
                return Err(Stop::Interrupted);
            }
            match merge.next() {
                Step::Done => return Ok(extra),
                Step::Need(Side::Source) => match walk.next().await {
                    None => merge.end(Side::Source),
                    Some(batch) => {
                        merge.push_source(batch.map_err(Stop::All)?).map_err(|e| disorder(&e))?;
                    }
                },
                Step::Need(_) => match self.next(&mut objects).await? {
                    None => merge.end(Side::Target),
                    Some(kept) if self.was_deleted(&kept.id.key) => {}
                    Some(kept) => {
                        let key = match place(&kept.id.key, kept.object.size_bytes) {
                            Ok(Place::File(path)) => Key::file(&path),
                            Ok(Place::Folder(path)) => Key::folder(&path),
                            Err(_) => continue,
                        };
                        extra.is_one_file |= one_file.as_ref() == Some(&key);
                        // A key that is quoted in another way stands elsewhere in the order.
                        if key != kept.id.key {
                            markers.literal.insert(key);
                            continue;
                        }
                        merge
                            .push_target([(key, kept.object.size_bytes)])
                            .map_err(|e| disorder(&e))?;
                    }
                },
                Step::Triple(triple) => {
                    let is_kept = triple.target.is_some();
                    markers.pass(&triple.key, is_kept);
                    if is_kept && !triple.key.is_folder() {
                        extra.kept += 1;
                        extra.here += u64::from(triple.source.is_some());
                        let alike = alike(triple.source.as_ref(), triple.target);
                        extra.alike += u64::from(alike.is_some());
                        extra.empty += u64::from(alike == Some(0));
                    }
                    let Some(Seen::Entry(path, entry)) = triple.source else { continue };
                    let is_folder = entry.kind == Kind::Folder;
                    if is_kept
                        || markers.literal.contains(&triple.key)
                        || !self.takes_part(&path, is_folder)
                        || self.is_told_to_go(&path)
                    {
                        continue;
                    }
                    if !is_folder {
                        extra.files += 1;
                    }
                    if let Some(reason) = reason {
                        self.delete(path, is_folder, &markers, reason).await?;
                    }
                }
            }
        }
    }

    /// Deletes one file, link or empty folder, and the folders above that this leaves empty.
    async fn delete(
        &self,
        path: RelPath,
        is_folder: bool,
        markers: &Markers<'_>,
        reason: &str,
    ) -> Result<(), Stop> {
        if self.plan.is_some() {
            // A folder goes when nothing is left in it, which is not so yet.
            if !is_folder {
                self.tell("delete", path.to_string(), reason);
            }
            return Ok(());
        }
        let name = path.to_string();
        let is = self.look(&path).await?;
        let is_folder = matches!(is, LocalLook::Folder(_));
        match self.target.remove(path.clone(), is).await.map_err(Stop::from) {
            Ok(()) if !is_folder => raise(&self.tally.deleted, 1),
            Ok(()) => {}
            // A folder with a mode of its own still has something in it.
            Err(_) if is_folder => return Ok(()),
            Err(stop) => return self.note(name, Err(stop)),
        }
        let mut above = path.parent();
        while let Some(folder) = above.filter(|folder| !folder.is_root()) {
            let is = self.look(&folder).await?;
            if markers.has(&folder) || self.target.remove(folder.clone(), is).await.is_err() {
                break;
            }
            above = folder.parent();
        }
        Ok(())
    }
}

/// The size that a file has both here and in the backup.
fn alike(here: Option<&Seen>, size_bytes: Option<u64>) -> Option<u64> {
    let Some(Seen::Entry(_, entry)) = here else { return None };
    size_bytes.filter(|size| *size == entry.fingerprint.size_bytes)
}

/// Folder markers of the backup that the walk is below of, and keys that are out of order.
struct Markers<'a> {
    above: Vec<Key>,
    literal: &'a mut BTreeSet<Key>,
}

impl Markers<'_> {
    fn pass(&mut self, key: &Key, is_kept: bool) {
        while self.above.last().is_some_and(|folder| !key.as_str().starts_with(folder.as_str())) {
            self.above.pop();
        }
        if is_kept && key.is_folder() {
            self.above.push(key.clone());
        }
    }

    fn has(&self, folder: &RelPath) -> bool {
        let key = Key::folder(folder);
        self.above.contains(&key) || self.literal.contains(&key)
    }
}

fn disorder(error: &crate::plan::OutOfOrder) -> Stop {
    Stop::All(Failure::new(ErrorClass::Server, error.to_string()))
}
