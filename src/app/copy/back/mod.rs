//! A backup brought back into a bucket: what is not tagged as deleted, thawed where it must be.
//!
//! Nothing is recorded but the large copies under way: a restore that was cut short is run again,
//! finds what is right already, and goes on with these.
//! What must be thawed is asked for at once and looked at by listings, in key order, so that any
//! number of keys can wait.

mod thaw;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::stream::{self, StreamExt as _};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::model::words::{bytes, count, grouped};
use crate::model::{Key, Millis, Object, RelPath};
use crate::plan::Overwrite;
use crate::plan::mirror::{Back, bring_back};
use crate::ports::{
    Fetched, FullHead, Fut, Headers, LineQueue, ObjectId, Scratch, StoreError, Thaw, Tier,
};

use super::super::backup::{PlanSink, PlannedAction};
use super::super::mirror::{End, KeyFilter, same_content};
use super::super::patience::Stop;
use super::super::progress::raise;
use super::super::restore::{Kept, Objects, Where, no_versions, nothing};
use super::Copier;
use super::listing::{self, Joined, Share};
use super::queue::{Item, each, push, take};

/// Letters of what is to be done with an item.
const COPY: char = 'c';
/// Copied, unless a closer look finds that what is there stays.
const LOOK: char = 'l';

/// Keys that a dry run asks about at a time.
const TOLD_AT_ONCE: usize = 1_000;

/// How a restore into a bucket behaves.
#[derive(Clone, Debug)]
pub struct BackSettings {
    /// As it was at this moment; `None`: as it is now.
    pub at: Option<Millis>,
    pub within: Option<RelPath>,
    pub overwrite: Overwrite,
    pub create_bucket: bool,
    /// An earlier run was cut short: it may have left copies open.
    pub goes_on: bool,
    pub tier: Tier,
    pub days: u32,
    pub wait: bool,
    pub poll_ms: u64,
}

/// Numbers that only a restore has.
#[derive(Debug, Default)]
pub struct BackTally {
    /// Tagged as deleted.
    pub left_out: AtomicU64,
    /// In the target already, and newer.
    pub kept: AtomicU64,
    /// Asked to be thawed, and not readable yet.
    pub frozen: AtomicU64,
}

/// One restore into a bucket.
pub struct BringBack {
    pub settings: BackSettings,
    pub copier: Arc<Copier>,
    pub scratch: Arc<dyn Scratch>,
    pub wanted: KeyFilter,
    pub plan: Option<PlanSink>,
    pub tally: BackTally,
    /// What turned out to be archived only when it was looked at.
    frozen: Mutex<Option<Box<dyn LineQueue>>>,
}

impl BringBack {
    pub fn new(
        settings: BackSettings,
        copier: Arc<Copier>,
        scratch: Arc<dyn Scratch>,
        wanted: KeyFilter,
        plan: Option<PlanSink>,
    ) -> Self {
        let (tally, frozen) = (BackTally::default(), Mutex::new(None));
        Self { settings, copier, scratch, wanted, plan, tally, frozen }
    }

    pub async fn run(self: &Arc<Self>) -> End {
        self.steps().await.map_or_else(End::of, |()| End::Done { hold: None })
    }

    async fn steps(self: &Arc<Self>) -> Result<(), Stop> {
        let copier = &self.copier;
        if self.settings.at.is_some()
            && !copier.patience.insist(|| copier.source.keeps_versions()).await?
        {
            return Err(Stop::All(no_versions(&copier.source.place())));
        }
        let is_there = self.check_target().await?;
        if self.plan.is_none() {
            copier.learn_tags().await?;
            copier.warn_of_tags().await;
        }
        copier.untold.bear();
        if self.settings.goes_on {
            copier.learn_open().await?;
        }
        let (ready, frozen) = self.compare(is_there).await?;
        if let Some(plan) = &self.plan {
            return self.tell(ready, plan).await;
        }
        self.copy_all(ready).await?;
        let waiting = self.ask_for(frozen).await?;
        let late = self.frozen.lock().await.take();
        let late = match late {
            Some(late) => self.ask_for(late).await?,
            None => self.scratch.queue(),
        };
        self.thaw(waiting).await?;
        self.thaw(late).await?;
        copier.close_leftovers().await
    }

    /// Whether the target's bucket is there. One is made only when asked for.
    async fn check_target(&self) -> Result<bool, Stop> {
        let copier = &self.copier;
        let missing = copier.patience.insist(|| {
            let listed = copier.target.list(None);
            Box::pin(async move {
                match listed.await {
                    Ok(_) => Ok(None),
                    Err(StoreError::NoSuchBucket(failure)) => Ok(Some(failure)),
                    Err(error) => Err(error),
                }
            })
        });
        match (missing.await?, self.settings.create_bucket) {
            (None, _) => Ok(true),
            (Some(_), true) if self.plan.is_some() => Ok(false),
            (Some(_), true) => {
                copier.patience.insist(|| copier.target.create_bucket()).await?;
                tracing::info!("made the bucket {}", copier.copies.place());
                Ok(true)
            }
            (Some(failure), false) => Err(Stop::All(failure)),
        }
    }

    /// What is to be copied, and what is to be thawed before.
    async fn compare(
        self: &Arc<Self>,
        is_there: bool,
    ) -> Result<(Box<dyn LineQueue>, Box<dyn LineQueue>), Stop> {
        let progress = &self.copier.progress;
        progress.scanning.store(true, Ordering::Relaxed);
        let mut readers = JoinSet::new();
        let result = self.compare_with(is_there, &mut readers).await;
        readers.shutdown().await;
        progress.scanning.store(false, Ordering::Relaxed);
        result
    }

    async fn compare_with(
        self: &Arc<Self>,
        is_there: bool,
        readers: &mut JoinSet<()>,
    ) -> Result<(Box<dyn LineQueue>, Box<dyn LineQueue>), Stop> {
        let wanted = Where { at: self.settings.at, within: self.settings.within.clone() };
        let source = Objects::new(self.copier.source.clone(), wanted.clone());
        let there = Objects::new(self.copier.copies.clone(), Where { at: None, ..wanted.clone() });
        let copier = &self.copier;
        let source = listing::read(readers, copier, source, Share::default(), "list the backup");
        let there = is_there
            .then(|| listing::read(readers, copier, there, Share::default(), "list the target"));
        let mut joined = Joined::new(source, there);
        let (mut ready, mut frozen) = (self.scratch.queue(), self.scratch.queue());
        let (mut objects, mut planned) = (0_u64, 0_u64);
        while let Some(both) = joined.next(copier).await? {
            let Some(kept) = both.source.filter(|_| (self.wanted)(&both.key)) else { continue };
            objects += 1;
            planned += self.decide(kept, both.target, &mut ready, &mut frozen).await?;
        }
        if objects == 0 {
            return Err(Stop::All(nothing(&self.copier.source.place(), &wanted)));
        }
        tracing::info!(
            "{} has {}: {} to copy ({}), {} of them archived",
            self.copier.source.place(),
            count(objects, "object"),
            grouped(ready.count() + frozen.count()),
            bytes(planned),
            grouped(frozen.count()),
        );
        Ok((ready, frozen))
    }

    /// Bytes that are to be copied.
    async fn decide(
        &self,
        kept: Kept,
        there: Option<Kept>,
        ready: &mut Box<dyn LineQueue>,
        frozen: &mut Box<dyn LineQueue>,
    ) -> Result<u64, Stop> {
        let progress = &self.copier.progress;
        raise(&progress.scanned, 1);
        let size = kept.object.size_bytes;
        let there = there.map(|there| there.object);
        let key = kept.id.key.clone();
        let is_frozen = is_frozen(&kept.object, kept.thaw);
        match bring_back(&kept.object, there.as_ref(), self.settings.overwrite) {
            Back::Right => {
                raise(&progress.unchanged, 1);
                Ok(0)
            }
            Back::Kept(why) => {
                self.keep(&key, why);
                Ok(0)
            }
            back @ (Back::Look | Back::Copy(_)) => {
                let item = Item {
                    version: kept.id.version.clone(),
                    source: Some(kept.object),
                    copy: there,
                    thaw: kept.thaw,
                    ..Item::new(key, if back == Back::Look { LOOK } else { COPY })
                };
                // Nothing is thawed only to be compared.
                let waits = is_frozen && item.what == COPY && self.plan.is_none();
                push(if waits { frozen } else { ready }, &item).await?;
                raise(&progress.planned, 1);
                raise(&progress.planned_bytes, size);
                Ok(size)
            }
        }
    }

    /// What a dry run says, in key order, and counts as if it had been done. Only tags tell what is
    /// left out.
    async fn tell(&self, mut queue: Box<dyn LineQueue>, plan: &PlanSink) -> Result<(), Stop> {
        let transfers = self.copier.settings.transfers.max(1);
        loop {
            let mut items = vec![];
            while items.len() < TOLD_AT_ONCE
                && let Some(item) = take(&mut queue).await?
            {
                items.push(item);
            }
            if items.is_empty() {
                return Ok(());
            }
            let looks = stream::iter(items).map(|item| async {
                let out = self.is_left_out(&id_of(&item), true).await;
                (item, out)
            });
            let mut looks = looks.buffered(transfers);
            while let Some((item, out)) = looks.next().await {
                if self.copier.cancel.is_cancelled() {
                    return Err(Stop::Interrupted);
                }
                match out {
                    Ok(true) => {}
                    Ok(false) => self.tell_one(&item, plan),
                    Err(stop) => self.copier.note(&item.key, Err(stop))?,
                }
            }
        }
    }

    fn tell_one(&self, item: &Item, plan: &PlanSink) {
        let Some(source) = &item.source else { return };
        let why = match bring_back(source, item.copy.as_ref(), self.settings.overwrite) {
            _ if is_frozen(source, item.thaw) => "archived: it must be thawed first",
            Back::Copy(reason) => reason.words(),
            _ => "unless a closer look finds both the same",
        };
        plan(PlannedAction { action: "copy", path: item.key.to_string(), why: why.to_owned() });
        let progress = &self.copier.progress;
        raise(&progress.copied, 1);
        raise(&progress.copied_bytes, source.size_bytes);
    }

    fn keep(&self, key: &Key, why: crate::plan::Kept) {
        tracing::info!("kept: {key}: {}", kept_words(why));
        raise(&self.tally.kept, 1);
    }

    async fn copy_all(self: &Arc<Self>, queue: Box<dyn LineQueue>) -> Result<(), Stop> {
        let this = self.clone();
        let work = Arc::new(move |item: Item| -> Fut<'static, _> {
            let this = this.clone();
            Box::pin(async move { this.copy_one(item).await })
        });
        each(&self.copier, queue, work).await
    }

    async fn copy_one(&self, item: Item) -> Result<(), Stop> {
        const AGAIN_MAX: u32 = 5;
        let mut result = Err(Stop::Again);
        for _ in 0..AGAIN_MAX {
            result = self.bring(&item).await;
            if result != Err(Stop::Again) {
                break;
            }
        }
        if result == Err(Stop::Frozen) {
            let mut late = self.frozen.lock().await;
            let queue = late.get_or_insert_with(|| self.scratch.queue());
            return push(queue, &item).await;
        }
        self.done(&item);
        self.copier.note(&item.key, result)
    }

    fn done(&self, item: &Item) {
        raise(&self.copier.progress.handled, 1);
        let bytes = item.source.as_ref().map_or(0, |object| object.size_bytes);
        raise(&self.copier.progress.handled_bytes, bytes);
    }

    async fn bring(&self, item: &Item) -> Result<(), Stop> {
        let id = id_of(item);
        if item.what == LOOK && self.is_settled(&id).await? {
            return Ok(());
        }
        let Some(full) = self.copier.look_at_listed(&id).await? else { return Ok(()) };
        if full.head.tags != Some(0) && self.is_left_out(&id, true).await? {
            return Ok(());
        }
        let size = full.head.object.size_bytes;
        // What was archived is wanted now: it does not go back into the archive.
        let full = match full.head.object.archived {
            true => {
                let headers = Headers { storage_class: None, ..full.headers };
                FullHead { headers, ..full }
            }
            false => full,
        };
        self.copier.transfer(&item.key, &full).await?;
        self.copier.copied(&item.key, size);
        Ok(())
    }

    /// Whether what is newer there stays: it is the same, or only what is older is replaced.
    async fn is_settled(&self, id: &ObjectId) -> Result<bool, Stop> {
        let copier = &self.copier;
        let current = ObjectId { version: None, ..id.clone() };
        let _slot = copier.slot().await;
        let saved = copier.patience.insist(|| copier.source.head(id)).await?;
        let there = copier.patience.insist(|| copier.copies.head(&current)).await?;
        let (Fetched::Found(saved), Fetched::Found(there)) = (saved, there) else {
            return Ok(false);
        };
        if same_content(&saved, &there) == Some(true) {
            raise(&self.copier.progress.unchanged, 1);
            return Ok(true);
        }
        let keeps = self.settings.overwrite == Overwrite::IfNewer;
        if keeps {
            self.keep(&id.key, crate::plan::Kept::Newer);
        }
        Ok(keeps)
    }

    /// Whether its tags say that it was deleted by the moment that is asked for.
    /// Tags that may not be read are counted where it `counts`: once for each object.
    async fn is_left_out(&self, id: &ObjectId, counts: bool) -> Result<bool, Stop> {
        let _slot = self.copier.slot().await;
        let source = &self.copier.source;
        let untold = &self.copier.untold;
        let asked = || untold.or_untold(source.deleted_at(id), counts);
        let deleted = self.copier.patience.insist(asked).await?;
        let out = match (deleted, self.settings.at) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(deleted), Some(at)) => deleted < at,
        };
        if out {
            raise(&self.tally.left_out, 1);
        }
        Ok(out)
    }
}

/// Whether it must be thawed first.
fn is_frozen(object: &Object, thaw: Option<Thaw>) -> bool {
    object.archived && thaw != Some(Thaw::Thawed)
}

fn id_of(item: &Item) -> ObjectId {
    ObjectId { key: item.key.clone(), version: item.version.clone(), etag: None }
}

fn kept_words(why: crate::plan::Kept) -> String {
    why.to_string().replace("the file here", "the object there")
}
