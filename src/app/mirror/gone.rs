//! What the source does not have any more: tagged, deleted or kept, under the guard.
//!
//! Nothing happens on doubt. Both listings came to their end; the guard judges how much is gone;
//! the source is asked for each key once more; and a row says what is about to be done.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};

use crate::model::{ETag, Key};
use crate::plan::{Deletions, Guard, Hold};
use crate::ports::{Change, Fetched, LineQueue, ObjectId, Tally};

use super::super::FILE;
use super::super::control::DELETIONS_AT_ONCE;
use super::super::copy::Event;
use super::super::copy::queue::{Item, take};
use super::super::failure_of;
use super::super::owner;
use super::super::patience::Stop;
use super::super::progress::raise;
use super::compare::what;
use super::{Found, Mirror};

impl Mirror {
    /// Marks what is gone, and does what is to be done about it.
    pub(super) async fn follow(
        self: &Arc<Self>,
        mut gone: Box<dyn LineQueue>,
    ) -> Result<Option<Hold>, Stop> {
        let now = self.clock.now();
        let mut again = self.queue();
        let mut marks = vec![];
        while let Some(item) = take(&mut gone).await? {
            marks.push(Change::Missing { key: item.key.clone(), at: now });
            super::super::copy::queue::push(&mut again, &item).await?;
            if marks.len() >= DELETIONS_AT_ONCE {
                self.note(std::mem::take(&mut marks)).await?;
            }
        }
        self.note(marks).await?;
        let tally = self.state.tally(now).await.map_err(|e| Stop::All(e.into()))?;
        self.note(vec![Change::Files { count: tally.files, at: now }]).await?;
        if self.settings.deletions == Deletions::Keep {
            self.held.store(0, std::sync::atomic::Ordering::Relaxed);
            return Ok(None);
        }
        let guard = self.guard(&tally).await?;
        let hold = guard.check();
        self.held.store(
            hold.as_ref().map_or(0, |hold| hold.pending),
            std::sync::atomic::Ordering::Relaxed,
        );
        if let Some(hold) = &hold {
            if !guard.held_before {
                self.note(vec![Change::Held { at: now, why: hold.why() }]).await?;
            }
            tracing::warn!(
                backup = self.settings.name,
                "{} held: {}; see `keepwatch deletions list`",
                crate::model::words::count(hold.pending, "deletion"),
                hold.why()
            );
        }
        self.follow_each(again, hold.is_some()).await?;
        Ok(hold)
    }

    async fn follow_each(
        self: &Arc<Self>,
        mut gone: Box<dyn LineQueue>,
        held: bool,
    ) -> Result<(), Stop> {
        let mut batch = vec![];
        loop {
            let item = take(&mut gone).await?;
            let ended = item.is_none();
            // Held: only what a person approved.
            batch.extend(item.filter(|item| !held || item.approved));
            if batch.len() >= DELETIONS_AT_ONCE || (ended && !batch.is_empty()) {
                self.follow_batch(std::mem::take(&mut batch)).await?;
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// The facts that the guard judges. A bucket is what its name says: there is no other in its
    /// place.
    async fn guard(&self, tally: &Tally) -> Result<Guard, Stop> {
        let row = self.state.backup().await.map_err(|e| Stop::All(e.into()))?;
        Ok(super::super::control::guard(self.settings.max_delete, tally, &row))
    }

    /// What a run would hold, or do.
    pub(super) async fn would_hold(&self, found: &Found) -> Result<Option<Hold>, Stop> {
        // In a dry run the queue is read where it lies: nobody needs it afterwards.
        let tally = self.state.tally(self.clock.now()).await.map_err(|e| Stop::All(e.into()))?;
        let pending = found.gone.count().saturating_sub(tally.approved);
        let tally = Tally {
            files: tally.files.saturating_sub(pending.saturating_sub(tally.pending)),
            pending,
            ..tally
        };
        if self.settings.deletions == Deletions::Keep {
            return Ok(None);
        }
        Ok(self.guard(&tally).await?.check())
    }

    /// Tells what a dry run would do about what is gone.
    pub(super) async fn tell_gone(
        &self,
        mut gone: Box<dyn LineQueue>,
        held: bool,
    ) -> Result<(), Stop> {
        let (action, counter) = match self.settings.deletions {
            Deletions::Tag => ("tag", &self.copier.progress.tagged),
            Deletions::Delete => ("delete", &self.copier.progress.deleted),
            Deletions::Keep => return Ok(()),
        };
        while let Some(item) = take(&mut gone).await? {
            if !held || item.approved {
                self.tell(action, &item.key, "gone from the source");
                raise(counter, 1);
            }
        }
        Ok(())
    }

    async fn follow_batch(self: &Arc<Self>, items: Vec<Item>) -> Result<(), Stop> {
        if self.copier.cancel.is_cancelled() {
            return Err(Stop::Interrupted);
        }
        let checked = async { owner::check_now(&**self).await.map_err(Stop::All) };
        self.unless_stopped(checked).await?;
        let transfers = self.copier.settings.transfers.max(1);
        // RACE: a source that comes back from here on until the request arrives is seen too late:
        // the next run takes the tags off, or copies it again.
        let looks = stream::iter(items).map(|item| async {
            let is_gone = self.is_gone(&item).await;
            (item, is_gone)
        });
        let mut looks = looks.buffered(transfers);
        let mut doomed = vec![];
        while let Some((item, is_gone)) =
            self.unless_stopped(async { Ok(looks.next().await) }).await?
        {
            match is_gone {
                Ok(true) => doomed.push(item),
                Ok(false) => {}
                // One that cannot be looked at stops no other.
                Err(stop) => self.copier.note(&item.key, Err(stop))?,
            }
        }
        drop(looks);
        if doomed.is_empty() {
            return Ok(());
        }
        // What failed before was charged before.
        let is_counted = |item: &&Item| !item.approved && item.what != what::GONE_CHARGED;
        let counted = doomed.iter().filter(is_counted).count() as u64;
        let keys = doomed.iter().map(|item| item.key.clone()).collect();
        self.note(vec![Change::Deleting { keys, counted, at: self.clock.now() }]).await?;
        match self.settings.deletions {
            Deletions::Delete => self.delete(doomed).await,
            Deletions::Tag | Deletions::Keep => self.tag(doomed).await,
        }
    }

    /// Ends where it is when the run is told to.
    async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = Result<T, Stop>>,
    ) -> Result<T, Stop> {
        tokio::select! {
            done = work => done,
            () = self.copier.cancel.cancelled() => Err(Stop::Interrupted),
        }
    }

    /// One more look at both sides: the source is still gone, and where the server would not see to
    /// it, the copy is still the recorded one: the mark on another's object would leave it out of a
    /// restore.
    async fn is_gone(&self, item: &Item) -> Result<bool, Stop> {
        let id = ObjectId { key: item.key.clone(), version: None, etag: None };
        let copier = &self.copier;
        let _slot = copier.slot().await;
        let source = copier.patience.insist(|| copier.source.head(&id)).await?;
        if !matches!(source, Fetched::Gone) {
            self.note(vec![Change::Found { key: item.key.clone(), disk: None }]).await?;
            return Ok(false);
        }
        let deletes = self.settings.deletions == Deletions::Delete;
        if deletes && copier.target.deletes_on_condition() {
            return Ok(true);
        }
        let copy = copier.patience.insist(|| copier.copies.head(&id)).await?;
        let etag = item.copy.as_ref().map(|copy| &copy.etag);
        match copy {
            Fetched::Found(head) if Some(&head.object.etag) != etag => {
                let keep = Some(head.object);
                self.note(vec![Change::Forget { key: item.key.clone(), keep }]).await?;
                Ok(false)
            }
            // The next listing tells.
            Fetched::Gone if !deletes => Ok(false),
            _ => Ok(true),
        }
    }

    async fn tag(self: &Arc<Self>, items: Vec<Item>) -> Result<(), Stop> {
        let at = self.clock.now();
        let copier = &self.copier;
        let tags = stream::iter(items).map(|item| async {
            let _slot = copier.slot().await;
            let tagged = copier.patience.insist(|| copier.target.tag_deleted(&item.key, at)).await;
            (item, tagged)
        });
        let mut tags = tags.buffered(copier.settings.transfers.max(1));
        let mut changes = vec![];
        loop {
            let next = self.unless_stopped(async { Ok(tags.next().await) }).await;
            let (item, tagged) = match next {
                Ok(Some(tagged)) => tagged,
                Ok(None) => break,
                Err(stop) => {
                    drop(tags);
                    self.note(changes).await?;
                    return Err(stop);
                }
            };
            let key = item.key;
            if tagged.is_ok() {
                raise(&copier.progress.tagged, 1);
                tracing::info!(target: FILE, backup = %self.settings.name, "tagged {key}");
                copier.tell(&Event::Tagged { key: key.clone() });
                changes.push(Change::Tagged { key });
            } else if let Err(stop) = copier.note(&key, tagged) {
                drop(tags);
                self.note(changes).await?;
                return Err(stop);
            }
        }
        drop(tags);
        self.note(changes).await
    }

    async fn delete(&self, items: Vec<Item>) -> Result<(), Stop> {
        let copier = &self.copier;
        let condition = |item: &Item| {
            item.copy.as_ref().map(|copy| copy.etag.clone()).filter(|_| self.owner.is_conditional())
        };
        let asked: Vec<(Key, Option<ETag>)> =
            items.iter().map(|item| (item.key.clone(), condition(item))).collect();
        let replies = copier.patience.insist(|| copier.target.delete(&asked));
        let replies = self.unless_stopped(replies).await?;
        let mut changes = vec![];
        for (item, reply) in items.into_iter().zip(replies) {
            let key = item.key;
            match reply {
                Ok(()) => {
                    raise(&copier.progress.deleted, 1);
                    tracing::info!(target: FILE, backup = %self.settings.name, "deleted {key}");
                    copier.tell(&Event::Deleted { key: key.clone() });
                    changes.push(Change::Deleted { key });
                }
                // Another object has taken its place: not ours to delete.
                Err(crate::ports::StoreError::Precondition) => {
                    changes.push(Change::Forget { key, keep: item.copy });
                }
                Err(error) => {
                    let failure = failure_of(error, &format!("delete {key}"));
                    copier.note(&key, Err(Stop::Path(failure.to_string())))?;
                }
            }
        }
        self.note(changes).await
    }
}
