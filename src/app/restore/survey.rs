//! How much there is to restore, and whether it fits: counted before the first byte.

use std::sync::atomic::Ordering;

use crate::model::Key;
use crate::model::words::{bytes, count, grouped};
use crate::plan::restore::{Place, place};
use crate::plan::{ErrorClass, Failure};
use crate::ports::{LocalLook, Thaw, Tier};

use super::super::owner::OWNER_KEY;
use super::super::progress::raise;
use super::{Restore, Stop, Where};

/// What a listing and a look at the target say. Whether a file that is there is right already is
/// seen only when its turn comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    pub objects: u64,
    /// Not there, or of another size: to be fetched.
    pub fetch: u64,
    pub fetch_bytes: u64,
    /// There with the right size: to be compared.
    pub compare: u64,
    pub compare_bytes: u64,
    /// Of those to be fetched, in an archive class and not readable yet.
    pub frozen: u64,
    pub frozen_bytes: u64,
    /// What the target will grow by, in whole blocks.
    pub needed_bytes: u64,
}

/// Why nothing comes of this.
pub fn nothing(place: &str, wanted: &Where) -> Failure {
    let (message, hint) = match (&wanted.within, wanted.at) {
        (None, None) => (
            format!("there is nothing in {place}"),
            "check the bucket and the prefix; `keepwatch ls s3://bucket` shows all of a bucket",
        ),
        (None, Some(_)) => (
            format!("{place} had nothing in it at that moment"),
            "`keepwatch ls --versions` shows what was there, and when",
        ),
        (Some(path), None) => (
            format!("{place} has no {path}"),
            "write it as it is below the source; `keepwatch ls` shows what is there",
        ),
        (Some(path), Some(_)) => (
            format!("{place} had no {path} at that moment"),
            "`keepwatch ls --versions` shows what was there, and when",
        ),
    };
    Failure::new(ErrorClass::Configuration, message).with_hint(hint)
}

impl Restore {
    pub(super) async fn survey(&self) -> Result<Survey, Stop> {
        let facts = self.target.facts().await.map_err(Stop::All)?;
        self.progress.scanning.store(true, Ordering::Relaxed);
        let mut survey = Survey::default();
        let mut objects = self.objects();
        while let Some(kept) = self.next(&mut objects).await? {
            if self.cancel.is_cancelled() {
                return Err(Stop::Interrupted);
            }
            survey.objects += 1;
            raise(&self.progress.scanned, 1);
            let size = kept.object.size_bytes;
            let Ok(Place::File(path)) = place(&kept.id.key, size) else { continue };
            if !self.takes_part(&path, false) {
                continue;
            }
            let there = match self.target.look(path).await {
                Ok(LocalLook::File(entry)) => Some(entry.fingerprint.size_bytes),
                Ok(LocalLook::Link(entry, _)) => Some(entry.fingerprint.size_bytes),
                _ => None,
            };
            if there == Some(size) {
                survey.compare += 1;
                survey.compare_bytes = survey.compare_bytes.saturating_add(size);
                continue;
            }
            survey.fetch += 1;
            survey.fetch_bytes = survey.fetch_bytes.saturating_add(size);
            let block = facts.block_bytes.max(1);
            let blocks = |bytes: u64| bytes.div_ceil(block).saturating_mul(block);
            let more = blocks(size).saturating_sub(blocks(there.unwrap_or(0)));
            survey.needed_bytes = survey.needed_bytes.saturating_add(more);
            if kept.object.archived && kept.thaw != Some(Thaw::Thawed) {
                survey.frozen += 1;
                survey.frozen_bytes = survey.frozen_bytes.saturating_add(size);
            }
        }
        self.progress.scanning.store(false, Ordering::Relaxed);
        if survey.objects == 0 {
            self.refuse_nothing().await?;
        }
        raise(&self.progress.planned, survey.fetch + survey.compare);
        raise(&self.progress.planned_bytes, survey.fetch_bytes);
        Ok(survey)
    }

    /// An empty backup has an owner record; where that is missing too, nothing was ever kept.
    async fn refuse_nothing(&self) -> Result<(), Stop> {
        let wanted = self.where_from();
        if wanted == Where::default() && self.has(&Key::literal(OWNER_KEY)).await? {
            return Ok(());
        }
        Err(Stop::All(nothing(&self.reader.place(), &wanted)))
    }

    pub(super) async fn check_space(&self, survey: &Survey) -> Result<(), Stop> {
        let facts = self.target.facts().await.map_err(Stop::All)?;
        if survey.needed_bytes <= facts.free_bytes || self.plan.is_some() {
            return Ok(());
        }
        let message = format!(
            "the target has {} free, and the restore needs {}",
            bytes(facts.free_bytes),
            bytes(survey.needed_bytes)
        );
        Err(Stop::All(
            Failure::new(ErrorClass::Configuration, message)
                .with_hint("free some space, restore elsewhere, or only a part with --include"),
        ))
    }

    /// The plan, before it begins.
    pub(super) fn say(&self, survey: &Survey) {
        tracing::info!(
            "{} has {}: {} to fetch ({}), {} to compare",
            self.reader.place(),
            count(survey.objects, "object"),
            grouped(survey.fetch),
            bytes(survey.fetch_bytes),
            grouped(survey.compare)
        );
        if survey.frozen > 0 {
            // AWS S3 user guide, "archive retrieval options".
            let time = match self.settings.tier {
                Tier::Bulk => "5 to 48 hours",
                Tier::Standard => "3 to 12 hours",
                Tier::Expedited => "1 to 5 minutes (Deep Archive has no such tier)",
            };
            tracing::info!(
                "of these, {} ({}) must be thawed first, which takes {time}",
                count(survey.frozen, "archived object"),
                bytes(survey.frozen_bytes)
            );
        }
    }

    /// The next object, however often it takes.
    pub(super) async fn next(
        &self,
        objects: &mut super::Objects,
    ) -> Result<Option<super::Kept>, Stop> {
        let mut attempts = super::super::patience::Attempts::new();
        loop {
            match objects.next().await {
                Ok(kept) => {
                    if attempts.failed() {
                        self.patience.good();
                    }
                    return Ok(kept);
                }
                Err(error) => {
                    let failure = super::super::failure_of(error, "list the backup");
                    self.patience.pause(&mut attempts, failure).await?;
                }
            }
        }
    }
}
