//! The objects of a backup as of a moment, in key order, page by page.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::{Key, Millis, Object, RelPath};
use crate::ports::{Fetched, ListedVersion, ObjectId, ObjectReader, StoreError, Thaw, VersionMark};

/// Which objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Where {
    /// As it was at this moment; `None`: as it is now.
    pub at: Option<Millis>,
    /// Only this path and what is below it.
    pub within: Option<RelPath>,
}

/// An object that is part of the backup at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub id: ObjectId,
    pub object: Object,
    /// `None` where the listing does not tell.
    pub thaw: Option<Thaw>,
}

enum Next {
    Start,
    After(Key),
    Mark(VersionMark),
    End,
}

/// The stream of them. A call that failed can be made again.
pub struct Objects {
    reader: Arc<dyn ObjectReader>,
    place: Where,
    page: VecDeque<Kept>,
    next: Next,
    /// The key whose version was chosen last.
    chosen: Option<Key>,
    nameless: bool,
}

impl Objects {
    pub fn new(reader: Arc<dyn ObjectReader>, place: Where) -> Self {
        let mut objects = Self {
            reader,
            place,
            page: VecDeque::new(),
            next: Next::Start,
            chosen: None,
            nameless: false,
        };
        if let (Some(path), Some(_)) = (&objects.place.within, objects.place.at)
            && let Some(key) = just_before(&Key::file(path))
        {
            objects.next = Next::Mark(VersionMark { key, version: String::new() });
        }
        objects
    }

    /// The same, of the moment, after this key.
    pub fn after(reader: Arc<dyn ObjectReader>, key: Key) -> Self {
        Self { next: Next::After(key), ..Self::new(reader, Where::default()) }
    }

    /// The same, from this key on.
    pub fn from(reader: Arc<dyn ObjectReader>, place: Where, key: &Key) -> Self {
        let next = just_before(key).map_or(Next::Start, Next::After);
        Self { next, ..Self::new(reader, place) }
    }

    /// The place, once, where an object with content has its very name.
    pub fn nameless(&mut self) -> Option<String> {
        std::mem::take(&mut self.nameless).then(|| self.reader.place())
    }

    /// `None` at the end of an error-free listing.
    pub async fn next(&mut self) -> Result<Option<Kept>, StoreError> {
        loop {
            while let Some(kept) = self.page.pop_front() {
                match self.is_within(&kept.id.key) {
                    Within::Yes => return Ok(Some(kept)),
                    Within::Before => {}
                    Within::Behind => {
                        self.page.clear();
                        self.next = Next::End;
                    }
                }
            }
            match (&self.next, self.place.at) {
                (Next::End, _) => return Ok(None),
                (_, None) => self.list().await?,
                (_, Some(at)) => self.list_versions(at).await?,
            }
        }
    }

    async fn list(&mut self) -> Result<(), StoreError> {
        let after = match (&self.next, self.place.within.clone()) {
            (Next::After(key), _) => Some(key.clone()),
            (_, Some(path)) => {
                let key = Key::file(&path);
                self.file_itself(path).await?;
                Some(key)
            }
            _ => None,
        };
        let page = match self.reader.list(after.as_ref()).await {
            Ok(page) => page,
            Err(error) => {
                self.page.clear();
                return Err(error);
            }
        };
        self.nameless |= page.nameless;
        self.page.extend(page.objects.into_iter().map(|listed| Kept {
            id: ObjectId { key: listed.key, version: None, etag: Some(listed.object.etag.clone()) },
            object: listed.object,
            thaw: listed.thaw,
        }));
        self.next = page.more_after.map_or(Next::End, Next::After);
        Ok(())
    }

    /// The path that is asked for may be a file: the listing begins behind it.
    async fn file_itself(&mut self, path: RelPath) -> Result<(), StoreError> {
        let id = ObjectId { key: Key::file(&path), version: None, etag: None };
        if let Fetched::Found(head) = self.reader.head(&id).await? {
            let etag = Some(head.object.etag.clone());
            let id = ObjectId { etag, ..id };
            self.page.push_back(Kept { id, object: head.object, thaw: head.thaw });
        }
        Ok(())
    }

    async fn list_versions(&mut self, at: Millis) -> Result<(), StoreError> {
        let after = match &self.next {
            Next::Mark(mark) => Some(mark.clone()),
            _ => None,
        };
        let page = self.reader.list_versions(after.as_ref()).await?;
        for version in page.versions {
            if let Some(kept) = self.choose(version, at) {
                self.page.push_back(kept);
            }
        }
        self.next = page.more_after.map_or(Next::End, Next::Mark);
        Ok(())
    }

    /// Of each key the newest version that was there by `at` counts, and versions come newest
    /// first. When that is a delete marker, the key was not there.
    fn choose(&mut self, version: ListedVersion, at: Millis) -> Option<Kept> {
        if version.modified > at || self.chosen.as_ref() == Some(&version.key) {
            return None;
        }
        self.chosen = Some(version.key.clone());
        let object = version.object?;
        let id = ObjectId {
            key: version.key,
            version: Some(version.version),
            etag: Some(object.etag.clone()),
        };
        Some(Kept { id, object, thaw: None })
    }

    fn is_within(&self, key: &Key) -> Within {
        let Some(path) = &self.place.within else { return Within::Yes };
        let (file, folder) = (Key::file(path), Key::folder(path));
        if *key == file || key.as_str().starts_with(folder.as_str()) {
            Within::Yes
        } else if *key < folder {
            Within::Before
        } else {
            Within::Behind
        }
    }
}

/// A key without its last character comes before it, and little comes between them.
fn just_before(key: &Key) -> Option<Key> {
    let mut before = key.as_str().to_owned();
    before.pop();
    (!before.is_empty()).then(|| Key::literal(&before))
}

enum Within {
    Before,
    Yes,
    Behind,
}
