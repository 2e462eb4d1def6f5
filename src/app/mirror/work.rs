//! One key at a time: copied, looked at more closely, or freed of the marks of its deletion.

use std::sync::Arc;

use crate::model::{ETag, Key, Object};
use crate::plan::mirror::{MirrorCompare, Verdict, by_listing, entry_of, record_of};
use crate::ports::{Change, Fetched, FullHead, LineQueue, ObjectId, ReadHead, StoreError};

use super::super::FILE;
use super::super::copy::Event;
use super::super::copy::queue::{Item, each};
use super::super::patience::Stop;
use super::super::progress::raise;
use super::Mirror;
use super::compare::what;

/// Attempts at a source that changes all the time.
const AGAIN_MAX: u32 = 5;

impl Mirror {
    /// Works through a queue.
    pub(super) async fn do_all(self: &Arc<Self>, queue: Box<dyn LineQueue>) -> Result<(), Stop> {
        let mirror = self.clone();
        let work = Arc::new(move |item: Item| -> crate::ports::Fut<'static, _> {
            let mirror = mirror.clone();
            Box::pin(async move {
                let result = mirror.work(&item).await;
                let bytes = item.source.as_ref().map_or(0, |object| object.size_bytes);
                let copies =
                    matches!(item.what, what::COPY | what::RETURN | what::LOOK | what::LOOK_RETURN);
                if copies || item.what == what::UNTAG {
                    raise(&mirror.copier.progress.handled, 1);
                }
                if copies {
                    raise(&mirror.copier.progress.handled_bytes, bytes);
                }
                mirror.copier.note(&item.key, result)
            })
        });
        each(&self.copier, queue, work).await
    }

    async fn work(&self, item: &Item) -> Result<(), Stop> {
        for _ in 0..AGAIN_MAX {
            let result = match item.what {
                what::UNTAG => self.untag(item).await,
                what::ADOPT_UNTAGGED => self.untag_or_adopt(item).await,
                what::ASK => self.ask(item).await,
                _ => self.bring(item).await,
            };
            if result != Err(Stop::Again) {
                return result;
            }
        }
        Err(Stop::Again)
    }

    /// Copies an object as it is now.
    async fn bring(&self, item: &Item) -> Result<(), Stop> {
        let key = &item.key;
        let id = ObjectId { key: key.clone(), version: None, etag: None };
        // One that is gone by now is seen to be so by the next run.
        let Some(full) = self.copier.look_at_listed(&id).await? else { return Ok(()) };
        let object = &as_listed(item.source.as_ref(), &full.head.object);
        let may_be_marked = matches!(item.what, what::RETURN | what::LOOK_RETURN);
        if matches!(item.what, what::LOOK | what::LOOK_RETURN)
            && let Some(copy) = self.same_as(&full, item).await?
        {
            raise(&self.copier.progress.adopted, 1);
            if may_be_marked {
                self.free(key).await?;
            }
            let record = record_of(object, &copy);
            return self.note(vec![Change::Synced { key: key.clone(), record }]).await;
        }
        let entry = entry_of(object);
        self.note(vec![Change::Uploading { key: key.clone(), entry }]).await?;
        let etag = self.copier.transfer(key, &full).await?;
        // A copy brings the tags of its source; not every server takes off those that were there.
        if may_be_marked {
            self.take_marks_off(key).await?;
        }
        self.copier.copied(key, object.size_bytes);
        self.synced(key, object, etag).await
    }

    async fn synced(&self, key: &Key, object: &Object, etag: ETag) -> Result<(), Stop> {
        let record = record_of(object, &Object { etag, ..object.clone() });
        self.note(vec![Change::Synced { key: key.clone(), record }]).await
    }

    /// The copy, if all that both sides say of their content says that it is the same.
    async fn same_as(&self, full: &FullHead, item: &Item) -> Result<Option<Object>, Stop> {
        let id = ObjectId { key: item.key.clone(), version: None, etag: None };
        let looked = {
            let _slot = self.copier.slot().await;
            self.copier.patience.insist(|| self.copier.copies.head(&id)).await?
        };
        let Fetched::Found(copy) = looked else { return Ok(None) };
        let same = same_content(&full.head, &copy).unwrap_or_else(|| {
            by_listing(&full.head.object, &copy.object, MirrorCompare::Modified) == Verdict::Same
        });
        Ok(same.then_some(copy.object))
    }

    /// The source is back, and its copy is right: it is not deleted any more.
    async fn untag(&self, item: &Item) -> Result<(), Stop> {
        let key = &item.key;
        let (Some(source), Some(copy)) = (&item.source, &item.copy) else { return Ok(()) };
        let is_freed = self.free(key).await?;
        if !is_freed && item.what == what::UNTAG {
            raise(&self.copier.progress.unchanged, 1);
        }
        self.synced(key, source, copy.etag.clone()).await
    }

    /// Takes the marks off a copy that is right, and tells. Whether they were there.
    async fn free(&self, key: &Key) -> Result<bool, Stop> {
        let is_freed = self.take_marks_off(key).await?;
        if is_freed {
            raise(&self.copier.progress.untagged, 1);
            tracing::info!(target: FILE, backup = %self.settings.name, "untagged {key}");
            self.copier.tell(&Event::Untagged { key: key.clone() });
        }
        Ok(is_freed)
    }

    /// Whether the marks of its deletion were there. To take them off its tags are read once more,
    /// behind the question to the source: what somebody else sets meanwhile would be lost.
    async fn take_marks_off(&self, key: &Key) -> Result<bool, Stop> {
        let _slot = self.copier.slot().await;
        if !self.is_marked_alone(key).await? {
            return Ok(false);
        }
        let marked = self.copier.patience.insist(|| {
            let sent = self.copier.target.untag_deleted(key);
            Box::pin(async move {
                match sent.await {
                    // A server without tags has no marks.
                    Err(StoreError::Unsupported(_)) => Ok(false),
                    marked => marked,
                }
            })
        });
        marked.await
    }

    /// Whether the copy has the mark of a deletion, and the source does not have it, too: what is
    /// a copy itself may be marked, and then its copy is rightly so.
    async fn is_marked_alone(&self, key: &Key) -> Result<bool, Stop> {
        let id = ObjectId { key: key.clone(), version: None, etag: None };
        let copier = &self.copier;
        if copier.patience.insist(|| copier.copies.deleted_at(&id)).await?.is_none() {
            return Ok(false);
        }
        let of_source = copier.patience.insist(|| {
            let asked = copier.source.deleted_at(&id);
            Box::pin(async move {
                match asked.await {
                    // Who may not read its tags has not copied any from there.
                    Err(error) if error.is_denied() => Ok(None),
                    deleted => deleted,
                }
            })
        });
        Ok(of_source.await?.is_none())
    }

    /// A copy that is right, of which nobody knows whether it is tagged.
    async fn untag_or_adopt(&self, item: &Item) -> Result<(), Stop> {
        raise(&self.copier.progress.adopted, 1);
        self.untag(item).await
    }

    /// A copy without a source and without a record. What is tagged as deleted was ours. Of what is
    /// not nobody knows where it came from: it is nobody's, for a mark would leave it out of a
    /// restore, and a deletion may take the only copy.
    async fn ask(&self, item: &Item) -> Result<(), Stop> {
        let (key, Some(copy)) = (&item.key, &item.copy) else { return Ok(()) };
        let id = ObjectId { key: key.clone(), version: None, etag: None };
        let deleted = {
            let _slot = self.copier.slot().await;
            self.copier.patience.insist(|| self.copier.copies.deleted_at(&id)).await?
        };
        let (key, record) = (key.clone(), record_of(copy, copy));
        let changes = match deleted {
            Some(_) => vec![Change::Synced { key: key.clone(), record }, Change::Tagged { key }],
            None => vec![Change::Unclaimed { key, object: copy.clone() }],
        };
        self.note(changes).await
    }
}

/// What a look at a source says, with the time of the listing where both tell of one object: some
/// servers round it here and cut it there, and what is recorded is compared with listings.
fn as_listed(listed: Option<&Object>, looked: &Object) -> Object {
    let is_it = |listed: &&Object| {
        listed.etag == looked.etag && (listed.modified.0 - looked.modified.0).abs() <= 1_000
    };
    let modified = listed.filter(is_it).map_or(looked.modified, |listed| listed.modified);
    Object { modified, ..looked.clone() }
}

/// Whether two objects have the same content, as far as their checksums tell.
pub(crate) fn same_content(a: &ReadHead, b: &ReadHead) -> Option<bool> {
    if a.object.size_bytes != b.object.size_bytes {
        return Some(false);
    }
    if a.object.etag == b.object.etag {
        return Some(true);
    }
    if let (Some(a), Some(b)) = (&a.checksum, &b.checksum)
        && let Some(same) = a.agrees(b)
    {
        return Some(same);
    }
    if let (Some(a), Some(b)) = (a.md5, b.md5) {
        return Some(a == b);
    }
    // Over parts, ETags differ also where only the cuts do.
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Millis;

    #[test]
    fn times_are_those_of_the_listing() {
        let object = |etag: &str, ms| Object {
            size_bytes: 1,
            etag: ETag::new(etag),
            modified: Millis(ms),
            archived: false,
        };
        let looked = object("a", 5_000);
        for (listed, expected) in [
            (Some(object("a", 4_600)), 4_600),
            (Some(object("b", 4_600)), 5_000),
            (Some(object("a", 3_900)), 5_000),
            (None, 5_000),
        ] {
            assert_eq!(as_listed(listed.as_ref(), &looked), object("a", expected), "{listed:?}");
        }
    }
}
