//! Both listings and the records, joined in lock step; what differs is written down.
//!
//! INVARIANT: nothing is copied, tagged, deleted or believed to be gone before all three have come
//! to their end. A stream out of order fails the run.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::model::{Key, Millis, Object, Record, Trust};
use crate::plan::mirror::{AskTags, Reason, SourceSide, Step, decide, record_of};
use crate::plan::{Merge, Side, merge};
use crate::ports::{Change, KeyRange, LineQueue, StoreError};

use super::super::copy::Copier;
use super::super::copy::listing::{self, PAGES_AHEAD, Share, Stream, next, out_of_order};
use super::super::copy::queue::{Chain, Item, push};
use super::super::patience::Stop;
use super::super::progress::raise;
use super::super::restore::{Kept, Objects, Where};
use super::Mirror;

/// Keys of one page.
const PAGE: usize = 1_000;
/// A share has at least so many keys, and there are at most so many shares.
const SHARE_KEYS: u64 = 2_000;
const SHARES_MAX: usize = 8;

/// What a comparison found. Queues are in key order.
pub struct Found {
    pub missing: Box<dyn LineQueue>,
    pub differing: Box<dyn LineQueue>,
    /// Tagged, and in the source again.
    pub back: Box<dyn LineQueue>,
    pub gone: Box<dyn LineQueue>,
    /// What the records are to learn.
    pub(super) notes: Box<dyn LineQueue>,
    /// Of which only tags can tell.
    pub(super) asked: Box<dyn LineQueue>,
    pub sources: u64,
    /// Of what is missing or different.
    pub bytes: u64,
}

impl Found {
    /// What was found in one share after the other.
    fn join(shares: impl Iterator<Item = Self>) -> Self {
        let (mut missing, mut differing, mut back) = (vec![], vec![], vec![]);
        let (mut gone, mut notes, mut asked) = (vec![], vec![], vec![]);
        let (mut sources, mut bytes) = (0, 0);
        for share in shares {
            missing.push(share.missing);
            differing.push(share.differing);
            back.push(share.back);
            gone.push(share.gone);
            notes.push(share.notes);
            asked.push(share.asked);
            sources += share.sources;
            bytes += share.bytes;
        }
        Self {
            missing: Chain::of(missing),
            differing: Chain::of(differing),
            back: Chain::of(back),
            gone: Chain::of(gone),
            notes: Chain::of(notes),
            asked: Chain::of(asked),
            sources,
            bytes,
        }
    }
}

/// Letters of what is to be done with an item.
pub(super) mod what {
    pub const COPY: char = 'c';
    /// Over a copy that is tagged as deleted, or may be.
    pub const RETURN: char = 'r';
    pub const LOOK: char = 'l';
    /// At a copy that may be tagged as deleted.
    pub const LOOK_RETURN: char = 'm';
    pub const UNTAG: char = 'u';
    pub const GONE: char = 'g';
    /// The same, and the budget was charged for it by an earlier run.
    pub const GONE_CHARGED: char = 'h';
    pub const FOUND: char = 'f';
    pub const FORGET: char = 'x';
    pub const DISOWN: char = 'd';
    pub const UNCLAIMED: char = 'n';
    pub const ADOPT_UNTAGGED: char = 'a';
    pub const ASK: char = '?';
}

impl Mirror {
    pub(super) async fn compare(self: &Arc<Self>, ask: AskTags) -> Result<Found, Stop> {
        let progress = &self.copier.progress;
        progress.scanning.store(true, Ordering::Relaxed);
        let mut running = JoinSet::new();
        let result = self.compare_shares(ask, &mut running).await;
        running.shutdown().await;
        progress.scanning.store(false, Ordering::Relaxed);
        result
    }

    /// Many keys are compared in shares, at the same time: a listing is as slow as its answers are
    /// late, and several are not slower than one. The records know where to cut.
    async fn compare_shares(
        self: &Arc<Self>,
        ask: AskTags,
        running: &mut JoinSet<Result<(usize, Found), Stop>>,
    ) -> Result<Found, Stop> {
        let tally = self.state.tally(self.clock.now()).await.map_err(|e| Stop::All(e.into()))?;
        let parts = usize::try_from(tally.files / SHARE_KEYS).unwrap_or(usize::MAX);
        let ends = match parts.min(SHARES_MAX) {
            // A dry run tells in key order.
            parts if parts >= 2 && !self.is_dry_run() => {
                self.state.split(parts).await.map_err(|e| Stop::All(e.into()))?
            }
            _ => vec![],
        };
        for (at, share) in Share::cut_at(ends).into_iter().enumerate() {
            let mirror = self.clone();
            running.spawn(async move {
                let mut readers = JoinSet::new();
                let found = mirror.compare_share(ask, &share, &mut readers).await;
                readers.shutdown().await;
                found.map(|found| (at, found))
            });
        }
        let mut shares = vec![];
        while let Some(joined) = running.join_next().await {
            match joined {
                Ok(found) => shares.push(found?),
                Err(error) if error.is_cancelled() => return Err(Stop::Interrupted),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        shares.sort_by_key(|(at, _)| *at);
        Ok(Found::join(shares.into_iter().map(|(_, found)| found)))
    }

    async fn compare_share(
        self: &Arc<Self>,
        ask: AskTags,
        share: &Share,
        readers: &mut JoinSet<()>,
    ) -> Result<Found, Stop> {
        let mut sides = self.read_sides(share, readers);
        let mut merge: Merge<Kept, Record, Object> = Merge::default();
        let since =
            self.settings.modified_within_ms.map(|within| self.clock.now().minus_ms(within));
        let mut found = self.nothing_yet();
        let mut adopted = vec![];
        loop {
            match merge.next() {
                merge::Step::Done => break,
                merge::Step::Need(side) => {
                    sides.feed(&mut merge, side, &self.copier).await?;
                    if adopted.len() >= PAGE {
                        self.note(std::mem::take(&mut adopted)).await?;
                    }
                }
                merge::Step::Triple(triple) => {
                    let merge::Triple { key, source, base, target } = triple;
                    let side = self.side_of(&key, source.as_ref(), since);
                    if !matches!(side, SourceSide::Excluded | SourceSide::Absent) {
                        found.sources += 1;
                        raise(&self.copier.progress.scanned, 1);
                    }
                    let compare = self.settings.compare;
                    let step = decide(side, base.as_ref(), target.as_ref(), compare, ask);
                    let seen = Seen { key, source, base, copy: target };
                    if let Some(change) = self.write_down(&mut found, step, ask, seen).await? {
                        adopted.push(change);
                    }
                }
            }
        }
        self.note(adopted).await?;
        Ok(found)
    }

    fn read_sides(self: &Arc<Self>, share: &Share, readers: &mut JoinSet<()>) -> Sides {
        let reader = self.copier.source.clone();
        let objects = match share.after.clone() {
            Some(after) => Objects::after(reader, after),
            None => Objects::new(reader, Where::default()),
        };
        let what = "list the source";
        Sides {
            sources: listing::read(readers, &self.copier, objects, share.clone(), what),
            copies: self.read_copies(readers, share.clone()),
            rows: self.read_rows(readers, share.clone()),
        }
    }

    /// The source of a key, under the rules.
    fn side_of<'a>(
        &self,
        key: &Key,
        source: Option<&'a Kept>,
        since: Option<Millis>,
    ) -> SourceSide<'a> {
        match source {
            _ if !(self.wanted)(key) => SourceSide::Excluded,
            None => SourceSide::Absent,
            Some(kept) if since.is_some_and(|since| kept.object.modified < since) => {
                SourceSide::Older(&kept.object)
            }
            Some(kept) => SourceSide::Present(&kept.object),
        }
    }

    fn nothing_yet(&self) -> Found {
        Found {
            missing: self.queue(),
            differing: self.queue(),
            back: self.queue(),
            gone: self.queue(),
            notes: self.queue(),
            asked: self.queue(),
            sources: 0,
            bytes: 0,
        }
    }

    /// Puts a key where it belongs. Answers with what may be recorded at once: that two objects are
    /// the same is so whatever else the listings say.
    async fn write_down(
        &self,
        found: &mut Found,
        step: Step,
        ask: AskTags,
        seen: Seen,
    ) -> Result<Option<Change>, Stop> {
        let progress = &self.copier.progress;
        if self.is_dry_run() {
            self.tell_step(found, step, &seen).await?;
            return Ok(None);
        }
        let queue = match step {
            Step::Nothing => {
                if seen.source.is_some() && seen.copy.is_some() {
                    raise(&progress.unchanged, 1);
                }
                return Ok(None);
            }
            Step::Adopt => {
                raise(if seen.base.is_some() { &progress.unchanged } else { &progress.adopted }, 1);
                let (Some(source), Some(copy)) = (&seen.source, &seen.copy) else {
                    return Ok(None);
                };
                let record = record_of(&source.object, copy);
                return Ok(Some(Change::Synced { key: seen.key, record }));
            }
            Step::Copy(Reason::Missing) => &mut found.missing,
            Step::Copy(_) | Step::Look => &mut found.differing,
            Step::Untag => &mut found.back,
            Step::Gone => &mut found.gone,
            Step::Found | Step::Forget | Step::Disown | Step::Unclaimed => &mut found.notes,
            Step::AdoptUntagged | Step::Ask => &mut found.asked,
        };
        if step == Step::Found {
            raise(&progress.unchanged, 1);
        }
        let bytes = seen.source.as_ref().map_or(0, |kept| kept.object.size_bytes);
        let letter = match letter(step) {
            what::COPY if seen.may_be_marked(ask) => what::RETURN,
            what::LOOK if seen.may_be_marked(ask) => what::LOOK_RETURN,
            what::ADOPT_UNTAGGED if seen.base.is_some() => what::UNTAG,
            what::GONE if seen.is_charged() => what::GONE_CHARGED,
            letter => letter,
        };
        push(queue, &seen.item(letter)).await?;
        if let (Step::Gone, Some(copy)) = (step, seen.unsettled_copy()) {
            // It may be marked from before that request: its tags are looked at if it comes back.
            let record = Record { stale_meta: true, ..record_of(copy, copy) };
            return Ok(Some(Change::Synced { key: seen.key, record }));
        }
        if matches!(step, Step::Copy(_) | Step::Look) {
            found.bytes += bytes;
            raise(&progress.planned_bytes, bytes);
        }
        if matches!(step, Step::Copy(_) | Step::Look) || letter == what::UNTAG {
            raise(&progress.planned, 1);
        }
        Ok(None)
    }

    /// What a dry run says, and counts as if it had been done.
    async fn tell_step(&self, found: &mut Found, step: Step, seen: &Seen) -> Result<(), Stop> {
        let progress = &self.copier.progress;
        match step {
            Step::Copy(_) | Step::Look => {
                let why = match step {
                    Step::Copy(reason) => reason.words(),
                    _ => "unless a closer look finds both the same",
                };
                self.tell("copy", &seen.key, why);
                raise(&progress.copied, 1);
                let bytes = seen.source.as_ref().map_or(0, |kept| kept.object.size_bytes);
                raise(&progress.copied_bytes, bytes);
            }
            Step::Untag => {
                self.tell("tag", &seen.key, "it is back: the marks of its deletion come off");
                raise(&progress.untagged, 1);
            }
            Step::Adopt | Step::AdoptUntagged if seen.base.is_none() => {
                self.tell("adopt", &seen.key, "the copy is right already");
                raise(&progress.adopted, 1);
            }
            Step::Gone => push(&mut found.gone, &seen.item(what::GONE)).await?,
            Step::Forget => self.tell("forget", &seen.key, "gone on both sides"),
            Step::Nothing | Step::Adopt | Step::AdoptUntagged | Step::Found => {
                if seen.source.is_some() && seen.copy.is_some() {
                    raise(&progress.unchanged, 1);
                }
            }
            Step::Ask | Step::Disown | Step::Unclaimed => {}
        }
        Ok(())
    }

    /// The records learn what the comparison found, in pages.
    pub(super) async fn take_notes(&self, mut notes: Box<dyn LineQueue>) -> Result<(), Stop> {
        let mut changes = vec![Change::ListingBegan];
        while let Some(item) = super::super::copy::queue::take(&mut notes).await? {
            let Item { key, copy, .. } = item;
            changes.push(match (item.what, copy) {
                (what::FOUND, _) => Change::Found { key, disk: None },
                (what::UNCLAIMED, Some(object)) => Change::Unclaimed { key, object },
                (what::DISOWN, keep) => Change::Forget { key, keep },
                _ => Change::Forget { key, keep: None },
            });
            if changes.len() >= PAGE {
                self.note(std::mem::take(&mut changes)).await?;
            }
        }
        self.note(changes).await
    }

    fn read_copies(self: &Arc<Self>, readers: &mut JoinSet<()>, share: Share) -> Stream<Object> {
        let (sender, receiver) = mpsc::channel(PAGES_AHEAD);
        let mirror = self.clone();
        readers.spawn(async move {
            let mut after = share.after.clone();
            loop {
                let listed = mirror.list_copies(after.as_ref()).await;
                let mut next = match &listed {
                    Ok(page) => page.more_after.clone(),
                    Err(_) => None,
                };
                let mut batch = listed.map(|page| page.objects);
                if batch.as_mut().is_ok_and(|batch| share.clip(batch)) {
                    next = None;
                }
                let is_empty = matches!(&batch, Ok(batch) if batch.is_empty());
                if (!is_empty && sender.send(batch).await.is_err()) || next.is_none() {
                    // An empty batch says that all came.
                    sender.send(Ok(vec![])).await.ok();
                    return;
                }
                after = next;
            }
        });
        receiver
    }

    async fn list_copies(&self, after: Option<&Key>) -> Result<crate::ports::ListPage, Stop> {
        let creates = self.settings.create_bucket && self.is_dry_run();
        let page = self.copier.patience.insist_for_all(|| {
            let asked = self.copier.target.list(after);
            Box::pin(async move {
                match asked.await {
                    // A dry run does not make it.
                    Err(StoreError::NoSuchBucket(_)) if creates => Ok(Default::default()),
                    page => page,
                }
            })
        });
        page.await
    }

    fn read_rows(self: &Arc<Self>, readers: &mut JoinSet<()>, share: Share) -> Stream<Record> {
        let (sender, receiver) = mpsc::channel(PAGES_AHEAD);
        let mirror = self.clone();
        readers.spawn(async move {
            let mut after = share.after.clone();
            loop {
                let page = mirror.state.page(KeyRange::All, after.take(), PAGE).await;
                let mut page = page.map_err(|e| Stop::All(e.into()));
                let last = page.as_mut().is_ok_and(|page| share.clip(page));
                after = page.as_ref().ok().and_then(|page| page.last()).map(|(key, _)| key.clone());
                let ended = after.is_none();
                if sender.send(page).await.is_err() || ended {
                    return;
                }
                if last {
                    sender.send(Ok(vec![])).await.ok();
                    return;
                }
            }
        });
        receiver
    }
}

/// All three sides of a share, as they are read.
struct Sides {
    sources: Stream<Kept>,
    copies: Stream<Object>,
    rows: Stream<Record>,
}

impl Sides {
    /// Gives the join more of one side, or its end.
    async fn feed(
        &mut self,
        merge: &mut Merge<Kept, Record, Object>,
        side: Side,
        copier: &Copier,
    ) -> Result<(), Stop> {
        let pushed = match side {
            Side::Source => {
                let batch = next(&mut self.sources, copier).await?;
                batch.map(|batch| merge.push_source(batch)).transpose()
            }
            Side::Base => {
                let batch = next(&mut self.rows, copier).await?;
                batch.map(|batch| merge.push_base(batch)).transpose()
            }
            Side::Target => {
                let batch = next(&mut self.copies, copier).await?;
                batch.map(|batch| merge.push_target(batch)).transpose()
            }
        };
        if pushed.map_err(|e| out_of_order(&e))?.is_none() {
            merge.end(side);
        }
        Ok(())
    }
}

/// One key as all three sides see it.
struct Seen {
    key: Key,
    source: Option<Kept>,
    base: Option<Record>,
    copy: Option<Object>,
}

impl Seen {
    /// Whether the copy has, or may have, the marks of its deletion.
    fn may_be_marked(&self, ask: AskTags) -> bool {
        self.copy.is_some()
            && match &self.base {
                Some(base) => base.trust != Trust::Synced || base.stale_meta,
                None => ask != AskTags::Never,
            }
    }

    /// Ours, although nobody heard what came of the last request: so it is from now on.
    fn unsettled_copy(&self) -> Option<&Object> {
        let base = self.base.as_ref()?;
        self.copy.as_ref().filter(|_| base.trust == Trust::Uploading)
    }

    /// Whether a request that deletes or tags it was announced before.
    fn is_charged(&self) -> bool {
        self.base.as_ref().is_some_and(|base| base.trust == Trust::Deleting)
    }

    fn item(&self, what: char) -> Item {
        Item {
            approved: self.base.as_ref().is_some_and(|record| record.approved),
            source: self.source.as_ref().map(|kept| kept.object.clone()),
            thaw: self.source.as_ref().and_then(|kept| kept.thaw),
            copy: self.copy.clone(),
            ..Item::new(self.key.clone(), what)
        }
    }
}

fn letter(step: Step) -> char {
    match step {
        Step::Copy(_) => what::COPY,
        Step::Look => what::LOOK,
        Step::Untag => what::UNTAG,
        Step::Gone => what::GONE,
        Step::Found => what::FOUND,
        Step::Disown => what::DISOWN,
        Step::Unclaimed => what::UNCLAIMED,
        Step::AdoptUntagged => what::ADOPT_UNTAGGED,
        Step::Ask => what::ASK,
        Step::Forget | Step::Nothing | Step::Adopt => what::FORGET,
    }
}
