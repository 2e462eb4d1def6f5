//! The way through all objects: one task each, as many at once as there are transfers, and a few.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::JoinSet;

use crate::model::{Key, Kind, RelPath};
use crate::plan::restore::{Place, place, rival};
use crate::ports::{Attributes, Fetched, LocalLook, ObjectId};

use super::super::progress::raise;
use super::{Kept, Restore, Stop};

/// An object on its way to its place.
pub(super) struct Item {
    pub(super) kept: Kept,
    pub(super) path: RelPath,
}

/// File keys that the coming keys may lie below of: `a` for `a-b`, `a/x`. A key that has one of
/// these as its folder cannot be restored beside it.
#[derive(Default)]
struct Files(Vec<ObjectId>);

impl Files {
    /// The file that stands where this key needs a folder. Keys must come in order.
    fn above(&mut self, key: &Key) -> Option<&ObjectId> {
        let key = key.as_str();
        while self.0.last().is_some_and(|file| !key.starts_with(file.key.as_str())) {
            self.0.pop();
        }
        self.0.iter().find(|file| key.as_bytes().get(file.key.as_str().len()) == Some(&b'/'))
    }

    fn push(&mut self, id: &ObjectId) {
        self.0.push(ObjectId { etag: None, ..id.clone() });
    }

    fn forget(&mut self, key: &Key) {
        self.0.retain(|file| file.key != *key);
    }
}

impl Restore {
    /// Brings back all that can be read now; what must be thawed is asked for and remembered.
    pub(super) async fn pass(self: &Arc<Self>) -> Result<(), Stop> {
        let mut running = JoinSet::new();
        let result = self.pass_with(&mut running).await;
        running.shutdown().await;
        result
    }

    async fn pass_with(
        self: &Arc<Self>,
        running: &mut JoinSet<Result<(), Stop>>,
    ) -> Result<(), Stop> {
        let mut objects = self.objects();
        let at_once = self.settings.transfers.max(1) * 2;
        let mut files = Files::default();
        // Folders that let nobody write into them get that mode when all is in them.
        let mut locked: Vec<(RelPath, Attributes)> = vec![];
        loop {
            while running.len() >= at_once {
                came(running.join_next().await)?;
            }
            let next = tokio::select! {
                next = self.next(&mut objects) => next?,
                () = self.cancel.cancelled() => return Err(Stop::Interrupted),
            };
            let Some(kept) = next else { break };
            raise(&self.tally.scanned, 1);
            match self.admit(&kept, &mut files).await? {
                None => {}
                Some(Place::File(path)) => {
                    let restore = self.clone();
                    running.spawn(async move { restore.file(Item { kept, path }).await });
                }
                Some(Place::Folder(path)) => {
                    if let Some(attributes) = self.folder(&kept, &path).await? {
                        locked.push((path, attributes));
                    }
                }
            }
        }
        while let Some(joined) = running.join_next().await {
            came(Some(joined))?;
        }
        // The deepest first: a locked folder hides what is below it.
        for (path, attributes) in locked.into_iter().rev() {
            let name = format!("{path}/");
            let set = self.set_folder(path, attributes).await;
            self.note(name, set)?;
        }
        Ok(())
    }

    /// The place of this object, if it is to be restored. What fails for this path alone is named.
    async fn admit(&self, kept: &Kept, files: &mut Files) -> Result<Option<Place>, Stop> {
        match self.try_admit(kept, files).await {
            Err(Stop::Path(why)) => {
                self.failed(kept.id.key.to_string(), why);
                Ok(None)
            }
            result => result,
        }
    }

    async fn try_admit(&self, kept: &Kept, files: &mut Files) -> Result<Option<Place>, Stop> {
        let key = &kept.id.key;
        let place = match place(key, kept.object.size_bytes) {
            Ok(place) => place,
            Err(refusal) => {
                self.failed(key.to_string(), refusal.to_string());
                return Ok(None);
            }
        };
        if !self.takes_part(place.path(), place.is_folder()) {
            return Ok(None);
        }
        if let Some(file) = files.above(key).cloned() {
            // What a tag says is deleted is not in the way of what took its place.
            if self.is_tagged(&file).await? {
                files.forget(&file.key);
            } else if self.is_tagged(&kept.id).await? {
                raise(&self.tally.tagged, 1);
                self.is_deleted(key);
                return Ok(None);
            } else {
                let file = &file.key;
                let why = format!("the backup also has a file {file}, and both cannot be here");
                return Err(Stop::Path(why));
            }
        }
        if let Place::File(_) = place {
            files.push(&kept.id);
        }
        if let Some(rival) = rival(key, &place)
            && self.has(&rival).await?
        {
            let why = format!("the backup also has {rival}, which has the same name here");
            return Err(Stop::Path(why));
        }
        Ok(Some(place))
    }

    /// Makes a folder. Answers with attributes that must wait until all is in it.
    async fn folder(&self, kept: &Kept, path: &RelPath) -> Result<Option<Attributes>, Stop> {
        let made = self.make_folder(kept, path).await;
        match made {
            Ok(attributes) => Ok(attributes),
            Err(stop) => {
                self.note(format!("{path}/"), Err(stop))?;
                Ok(None)
            }
        }
    }

    async fn make_folder(&self, kept: &Kept, path: &RelPath) -> Result<Option<Attributes>, Stop> {
        const OWNER_MAY_ALL: u32 = 0o700;
        let id = ObjectId { etag: None, ..kept.id.clone() };
        let head = match self.patience.insist(|| self.reader.head(&id)).await? {
            Fetched::Found(head) => head,
            Fetched::Gone | Fetched::Changed | Fetched::Archived => return Ok(None),
        };
        if self.left_out(&id, &head).await? {
            return Ok(None);
        }
        let is_here = self.make_way_for_folder(path).await?;
        if self.plan.is_some() {
            if !is_here {
                self.tell("fetch", format!("{path}/"), "the folder is not here");
            }
            raise(&self.tally.folders, 1);
            return Ok(None);
        }
        self.target.folder(path.clone()).await?;
        raise(&self.tally.folders, 1);
        let attributes = Attributes { mtime: None, ..self.attributes(&head.meta) };
        // What its owner may not do is taken away when all is in it, and given to nobody meanwhile.
        let permissions = attributes.permissions.map(|mode| mode | OWNER_MAY_ALL);
        self.set_folder(path.clone(), Attributes { permissions, ..attributes }).await?;
        Ok(Some(attributes).filter(|attributes| attributes.permissions != permissions))
    }

    async fn set_folder(&self, path: RelPath, attributes: Attributes) -> Result<(), Stop> {
        let is = self.look(&path).await?;
        let LocalLook::Folder(entry) = &is else { return Err(Stop::Again) };
        debug_assert_eq!(entry.kind, Kind::Folder, "a folder's entry");
        let permissions = attributes.permissions.map(|mode| self.with_bits_of(entry, mode));
        Ok(self.target.set(path, is, Attributes { permissions, ..attributes }).await?)
    }

    fn failed(&self, path: String, why: String) {
        raise(&self.progress.failing, 1);
        self.tally.failed(path, why);
    }

    /// Takes note of what became of one path; what is everybody's is passed on.
    pub(super) fn note(&self, name: String, result: Result<(), Stop>) -> Result<(), Stop> {
        match result {
            Ok(()) => {}
            Err(Stop::Path(why)) => self.failed(name, why),
            Err(Stop::Skip(why)) => self.tally.skipped(name, why),
            Err(Stop::Again) => self.failed(name, "it changes all the time".to_owned()),
            Err(stop) => return Err(stop),
        }
        Ok(())
    }

    /// One file or link, however it ends.
    pub(super) async fn file(self: Arc<Self>, mut item: Item) -> Result<(), Stop> {
        let key = item.kept.id.key.clone();
        let name = item.path.to_string();
        self.progress.begin(&key, name.clone());
        let result = tokio::select! {
            result = self.restore_file(&mut item) => result,
            () = self.cancel.cancelled() => Err(Stop::Interrupted),
        };
        self.progress.end(&key);
        match result {
            Err(Stop::Frozen) => {
                self.queue(item);
                return Ok(());
            }
            Err(Stop::AfterDelete) => {
                self.wait_for_room(item);
                return Ok(());
            }
            _ => {}
        }
        self.progress.handled.fetch_add(1, Ordering::Relaxed);
        self.note(name, result)
    }
}

/// What a finished task says. A bug in it is not passed over.
pub(super) fn came(
    joined: Option<Result<Result<(), Stop>, tokio::task::JoinError>>,
) -> Result<(), Stop> {
    match joined {
        None => Ok(()),
        Some(Ok(result)) => result,
        Some(Err(error)) if error.is_cancelled() => Err(Stop::Interrupted),
        Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_above_a_key_is_found() {
        let mut files = Files::default();
        let mut clashes = vec![];
        for text in ["a", "a-b", "a.c", "a/", "a/x", "a0", "b/c", "b/c.d", "b/c/d", "b/c/d/e", "c"]
        {
            let key = Key::literal(text);
            match files.above(&key) {
                Some(file) => clashes.push((text, file.key.as_str().to_owned())),
                None => files.push(&ObjectId { key, version: None, etag: None }),
            }
        }
        let found: Vec<_> = clashes.iter().map(|(key, file)| (*key, file.as_str())).collect();
        assert_eq!(found, [("a/", "a"), ("a/x", "a"), ("b/c/d", "b/c"), ("b/c/d/e", "b/c")]);
    }
}
