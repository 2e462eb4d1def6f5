//! What lies in an archive class: asked for, waited for, and fetched as it thaws.
//!
//! All are asked for at once, for each takes hours. Those that are remembered are looked at from
//! time to time: by listings where these tell, else one by one. When more were asked for than are
//! remembered, another pass finds the rest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::model::words::{count, duration};
use crate::ports::{Fetched, ObjectId, Thaw, ThawReply};

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
}

impl Restore {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers an object that is being thawed.
    pub(super) fn queue(&self, item: Item) {
        raise(&self.progress.frozen, 1);
        let mut queue = self.waiting();
        if queue.items.len() < QUEUE_MAX {
            queue.items.push_back(item);
        } else {
            queue.more += 1;
        }
    }

    /// Asks for an object to be thawed: `Frozen` while it is, nothing when it is gone.
    pub(super) async fn ask_to_thaw(&self, id: &ObjectId) -> Result<(), Stop> {
        let (tier, days) = (self.settings.tier, self.settings.days);
        match self.patience.insist(|| self.reader.thaw(id, tier, days)).await? {
            ThawReply::Gone => self.gone(id),
            ThawReply::Requested
            | ThawReply::Ongoing
            | ThawReply::Thawed
            | ThawReply::NotArchived => Err(Stop::Frozen),
        }
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
            let number = items.len() as u64 + more;
            if !self.settings.wait {
                raise(&self.tally.frozen, number);
                return Ok(());
            }
            tracing::info!(
                "waiting for {}, looking again every {}; it is safe to stop: run this again to go \
                 on",
                count(number, "archived object"),
                duration(self.settings.poll_ms)
            );
            self.thaw_these(items).await?;
            if more > 0 {
                self.progress.frozen.fetch_sub(more, Ordering::Relaxed);
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
            self.progress.frozen.fetch_sub(thawed.len() as u64, Ordering::Relaxed);
            let mut running = JoinSet::new();
            let result = self.fetch_all(thawed, &mut running).await;
            running.shutdown().await;
            result?;
            // What turned out to be frozen again was asked for again.
            items.append(&mut self.waiting().items);
            if !items.is_empty() {
                let waiting = count(items.len() as u64, "archived object");
                tracing::info!("still waiting for {waiting}");
            }
        }
        Ok(())
    }

    async fn fetch_all(
        self: &Arc<Self>,
        thawed: Vec<Item>,
        running: &mut JoinSet<Result<(), Stop>>,
    ) -> Result<(), Stop> {
        for item in thawed {
            while running.len() >= self.settings.transfers.max(1) * 2 {
                super::pass::came(running.join_next().await)?;
            }
            let restore = self.clone();
            running.spawn(async move { restore.file(item).await });
        }
        while let Some(joined) = running.join_next().await {
            super::pass::came(Some(joined))?;
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
            let Some(mut item) = items.pop_front() else { break };
            let id = ObjectId { etag: None, ..item.kept.id.clone() };
            item.kept.thaw = match self.patience.insist(|| self.reader.head(&id)).await {
                Ok(Fetched::Found(head)) if head.object.archived => head.thaw,
                // It can be read, or its turn shows that it is gone.
                Ok(_) => Some(Thaw::Thawed),
                Err(stop) => {
                    self.progress.frozen.fetch_sub(1, Ordering::Relaxed);
                    self.note(item.path.to_string(), Err(stop))?;
                    continue;
                }
            };
            match item.kept.thaw {
                Some(Thaw::Ongoing) => items.push_back(item),
                // A copy that has expired is asked for again.
                _ => ready.push(item),
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
        let mut ready = vec![];
        let mut states = BTreeMap::new();
        while let Some(kept) = self.next(&mut listing).await? {
            if kept.id.key > last {
                break;
            }
            let is_asked_for = items.binary_search_by(|item| item.kept.id.key.cmp(&kept.id.key));
            if kept.object.archived && is_asked_for.is_ok() {
                let Some(thaw) = kept.thaw else { return Ok(None) };
                states.insert(kept.id.key, thaw);
            }
        }
        for mut item in std::mem::take(items) {
            // What is not listed as archived can be read, or is gone: its turn shows which.
            let thaw = states.get(&item.kept.id.key).copied().unwrap_or(Thaw::Thawed);
            item.kept.thaw = Some(thaw);
            match thaw {
                Thaw::Ongoing => items.push_back(item),
                Thaw::Thawed | Thaw::Frozen => ready.push(item),
            }
        }
        Ok(Some(ready))
    }
}
