//! What lies in an archive class: asked for at once, for each takes hours; looked at from time to
//! time, by listings where these tell; copied as it thaws.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::model::Key;
use crate::model::words::{count, duration};
use crate::ports::{Fetched, Fut, LineQueue, Thaw, ThawReply};

use super::super::super::failure_of;
use super::super::super::patience::{Attempts, Stop};
use super::super::super::progress::raise;
use super::super::super::restore::{Kept, Objects, Where};
use super::super::queue::{Item, each, push, take};
use super::{BringBack, id_of};

impl BringBack {
    /// Asks for all of these to be thawed; answers with those that are.
    pub(super) async fn ask_for(
        self: &Arc<Self>,
        queue: Box<dyn LineQueue>,
    ) -> Result<Box<dyn LineQueue>, Stop> {
        if queue.count() == 0 {
            return Ok(queue);
        }
        let waiting = Arc::new(Mutex::new(self.scratch.queue()));
        let (this, out) = (self.clone(), waiting.clone());
        let work = Arc::new(move |item: Item| -> Fut<'static, _> {
            let (this, out) = (this.clone(), out.clone());
            Box::pin(async move {
                let asked = this.ask_for_one(&item).await;
                let key = item.key.clone();
                match asked {
                    Ok(true) => {
                        raise(&this.copier.progress.frozen, 1);
                        push(&mut *out.lock().await, &item).await
                    }
                    Ok(false) => {
                        this.done(&item);
                        Ok(())
                    }
                    Err(stop) => {
                        this.done(&item);
                        this.copier.note(&key, Err(stop))
                    }
                }
            })
        });
        each(&self.copier, queue, work).await?;
        let empty = self.scratch.queue();
        Ok(std::mem::replace(&mut *waiting.lock().await, empty))
    }

    /// Whether it is to be waited for.
    async fn ask_for_one(&self, item: &Item) -> Result<bool, Stop> {
        let id = id_of(item);
        if self.is_left_out(&id, !self.settings.wait).await? {
            return Ok(false);
        }
        let copier = &self.copier;
        let (tier, days) = (self.settings.tier, self.settings.days);
        let asked = {
            let _slot = copier.slot().await;
            copier.patience.insist(|| copier.source.thaw(&id, tier, days)).await?
        };
        match asked {
            ThawReply::Gone => Ok(copier.look_at_listed(&id).await?.is_some()),
            ThawReply::Requested
            | ThawReply::Ongoing
            | ThawReply::Thawed
            | ThawReply::NotArchived => Ok(true),
        }
    }

    /// Waits until all of these are readable, and copies them as they become so.
    pub(super) async fn thaw(
        self: &Arc<Self>,
        mut waiting: Box<dyn LineQueue>,
    ) -> Result<(), Stop> {
        while waiting.count() > 0 {
            let number = waiting.count();
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
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(self.settings.poll_ms)) => {}
                () = self.copier.cancel.cancelled() => return Err(Stop::Interrupted),
            }
            let (ready, still) = self.sort(waiting).await?;
            self.copier.progress.frozen.fetch_sub(ready.count(), Ordering::Relaxed);
            self.copy_all(ready).await?;
            waiting = still;
            // What froze again meanwhile is asked for again.
            if let Some(late) = self.frozen.lock().await.take() {
                let mut again = self.ask_for(late).await?;
                while let Some(item) = take(&mut again).await? {
                    push(&mut waiting, &item).await?;
                }
            }
        }
        Ok(())
    }

    /// Tells what can be read from what cannot yet.
    async fn sort(
        self: &Arc<Self>,
        mut waiting: Box<dyn LineQueue>,
    ) -> Result<(Box<dyn LineQueue>, Box<dyn LineQueue>), Stop> {
        let (mut ready, mut still) = (self.scratch.queue(), self.scratch.queue());
        let mut listing: Option<(Objects, Option<Kept>)> = None;
        let mut last: Option<Key> = None;
        while let Some(item) = take(&mut waiting).await? {
            if self.copier.cancel.is_cancelled() {
                return Err(Stop::Interrupted);
            }
            // The requests came back in their own order: where a key lies behind, look from there.
            if last.as_ref().is_none_or(|last| item.key < *last) {
                listing = None;
            }
            last = Some(item.key.clone());
            let thaw = match self.settings.at {
                None => self.listed_thaw(&mut listing, &item.key).await?,
                Some(_) => None,
            };
            let thaw = match thaw {
                Some(thaw) => thaw,
                None => self.looked_thaw(&item).await?,
            };
            match thaw {
                Thaw::Thawed => push(&mut ready, &item).await?,
                Thaw::Ongoing => push(&mut still, &item).await?,
                Thaw::Frozen => {
                    // A copy that has expired is asked for again; one that is gone is not.
                    let asked = self.ask_for_one(&item).await;
                    match asked {
                        Ok(true) => push(&mut still, &item).await?,
                        Ok(false) => self.done(&item),
                        Err(stop) => self.copier.note(&item.key, Err(stop))?,
                    }
                }
            }
        }
        Ok((ready, still))
    }

    /// How far a listing says that a key is; `None` where it does not tell. Most keys follow one
    /// another, so most are on the page that is there.
    async fn listed_thaw(
        &self,
        listing: &mut Option<(Objects, Option<Kept>)>,
        key: &Key,
    ) -> Result<Option<Thaw>, Stop> {
        let reader = &self.copier.source;
        let (objects, ahead) = listing
            .get_or_insert_with(|| (Objects::from(reader.clone(), Where::default(), key), None));
        loop {
            let kept = match ahead.take() {
                Some(kept) => Some(kept),
                None => {
                    let mut attempts = Attempts::new();
                    loop {
                        match objects.next().await {
                            Ok(kept) => break kept,
                            Err(error) => {
                                let failure = failure_of(error, "list the backup");
                                self.copier.patience.pause(&mut attempts, failure).await?;
                            }
                        }
                    }
                }
            };
            match kept {
                Some(kept) if kept.id.key < *key => {}
                Some(kept) if kept.id.key == *key => {
                    return Ok(if kept.object.archived { kept.thaw } else { Some(Thaw::Thawed) });
                }
                // It is gone: its turn shows that.
                other => {
                    *ahead = other;
                    return Ok(Some(Thaw::Thawed));
                }
            }
        }
    }

    async fn looked_thaw(&self, item: &Item) -> Result<Thaw, Stop> {
        let id = id_of(item);
        let copier = &self.copier;
        let _slot = copier.slot().await;
        Ok(match copier.patience.insist(|| copier.source.head(&id)).await? {
            Fetched::Found(head) if head.object.archived => head.thaw.unwrap_or(Thaw::Frozen),
            _ => Thaw::Thawed,
        })
    }
}
