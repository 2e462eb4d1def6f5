//! What lies in an archive class: asked for, waited for, and fetched as it thaws.
//!
//! All are asked for at once, for each takes hours. Those that are remembered are looked at from
//! time to time: by listings where these tell, else one by one. When more were asked for than are
//! remembered, another pass finds the rest.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::ports::{Fetched, ObjectId, Thaw};

use super::super::progress::raise;
use super::pass::Item;
use super::{Restore, Stop};

/// Objects that are remembered while they thaw.
const QUEUE_MAX: usize = 100_000;

/// What is being thawed.
#[derive(Default)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    /// Asked for, and not remembered.
    more: u64,
    /// Keys whose tags say that they were deleted.
    deleted: std::collections::BTreeSet<crate::model::Key>,
}

impl Restore {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers an object that is being thawed.
    pub(super) fn queue(&self, item: &Item) {
        let mut queue = self.waiting();
        if queue.items.len() < QUEUE_MAX {
            queue.items.push_back(Item { kept: item.kept.clone(), path: item.path.clone() });
        } else {
            queue.more += 1;
        }
    }

    /// Remembers an object that is tagged as deleted.
    pub(super) fn is_deleted(&self, key: &crate::model::Key) {
        self.waiting().deleted.insert(key.clone());
    }

    pub(super) fn was_deleted(&self, key: &crate::model::Key) -> bool {
        self.waiting().deleted.contains(key)
    }

    /// An object turned out to be archived when it was read.
    pub(super) async fn thaw_late(&self, item: &Item) -> Result<(), Stop> {
        let (tier, days) = (self.settings.tier, self.settings.days);
        self.patience.insist(|| self.reader.thaw(&item.kept.id, tier, days)).await?;
        self.queue(item);
        Ok(())
    }

    /// Waits until all is readable, and fetches it.
    pub(super) async fn thaw_all(self: &Arc<Self>) -> Result<(), Stop> {
        loop {
            let (items, more) = {
                let mut queue = self.waiting();
                (std::mem::take(&mut queue.items), std::mem::take(&mut queue.more))
            };
            if items.is_empty() && more == 0 {
                return Ok(());
            }
            let count = items.len() as u64 + more;
            if !self.settings.wait {
                raise(&self.tally.frozen, count);
                tracing::info!("{count} objects are being thawed; run this again to fetch them");
                return Ok(());
            }
            tracing::info!(
                "{count} objects are being thawed; looking again every {} s. It is safe to stop: \
                 run this again to go on",
                self.settings.poll_ms.div_ceil(1000)
            );
            self.thaw_these(items).await?;
            if more > 0 {
                self.pass().await?;
            }
        }
    }

    /// Looks from time to time until the last of these is fetched.
    async fn thaw_these(self: &Arc<Self>, mut items: VecDeque<Item>) -> Result<(), Stop> {
        while !items.is_empty() {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(self.settings.poll_ms)) => {}
                () = self.cancel.cancelled() => return Err(Stop::Interrupted),
            }
            let thawed = self.look_at(&mut items).await?;
            let mut running = JoinSet::new();
            for mut item in thawed {
                item.kept.thaw = Some(Thaw::Thawed);
                while running.len() >= self.settings.transfers.max(1) * 2 {
                    super::pass::came(running.join_next().await)?;
                }
                let restore = self.clone();
                running.spawn(async move { restore.file(item).await });
            }
            while let Some(joined) = running.join_next().await {
                super::pass::came(Some(joined))?;
            }
            if !items.is_empty() {
                tracing::info!("{} objects are still being thawed", items.len());
            }
            // What turned out to be frozen again was asked for again.
            items.append(&mut self.waiting().items);
        }
        Ok(())
    }

    /// Takes those out that can be read now, or are gone.
    async fn look_at(&self, items: &mut VecDeque<Item>) -> Result<Vec<Item>, Stop> {
        if self.settings.at.is_none()
            && let Some(ready) = self.look_by_listing(items).await?
        {
            return Ok(ready);
        }
        let mut ready = vec![];
        for _ in 0..items.len() {
            let Some(item) = items.pop_front() else { break };
            let id = ObjectId { etag: None, ..item.kept.id.clone() };
            let thawing = match self.patience.insist(|| self.reader.head(&id)).await? {
                Fetched::Found(head) => head.object.archived && head.thaw != Some(Thaw::Thawed),
                Fetched::Gone | Fetched::Changed => false,
                Fetched::Archived => true,
            };
            match thawing {
                true => items.push_back(item),
                false => ready.push(item),
            }
        }
        Ok(ready)
    }

    /// `None` where listings do not tell. Both come in key order, so one walk through the pages
    /// from the first to the last of them is enough.
    async fn look_by_listing(&self, items: &mut VecDeque<Item>) -> Result<Option<Vec<Item>>, Stop> {
        items.make_contiguous().sort_by(|a, b| a.kept.id.key.cmp(&b.kept.id.key));
        let (Some(first), Some(last)) = (items.front(), items.back()) else { return Ok(None) };
        let id = &first.kept.id;
        let place = super::Where { at: None, within: None };
        let last = last.kept.id.key.clone();
        let mut listing = super::Objects::from(self.reader.clone(), place, &id.key);
        let mut states = std::collections::BTreeMap::new();
        while let Some(kept) = self.next(&mut listing).await? {
            if kept.id.key > last {
                break;
            }
            if kept.object.archived {
                let Some(thaw) = kept.thaw else { return Ok(None) };
                states.insert(kept.id.key, thaw);
            }
        }
        let (ready, waiting): (Vec<_>, Vec<_>) = std::mem::take(items).into_iter().partition(
            // What is not listed as archived can be read, or is gone: its turn shows which.
            |item| states.get(&item.kept.id.key).is_none_or(|thaw| *thaw == Thaw::Thawed),
        );
        items.extend(waiting);
        Ok(Some(ready))
    }
}
