//! How much there is to restore, and whether it fits: counted before the first byte.

use std::sync::atomic::Ordering;

use crate::model::words::{bytes, count, grouped};
use crate::model::{Key, RelPath};
use crate::plan::restore::{Place, place};
use crate::plan::{ErrorClass, Failure};
use crate::ports::{
    Fetched, LocalLook, ObjectId, ObjectReader, StoreError, TargetFacts, Thaw, Tier,
};

use super::super::owner::OWNER_KEY;
use super::super::progress::raise;
use super::{Filter, Restore, Stop, Where};

/// Places in the target that are looked at in one go.
const LOOKED_AT_ONCE: usize = 1_000;

/// What a listing and a look at the target say. Whether a file that is there is right already is
/// seen only when its turn comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    pub objects: u64,
    /// Of these, the ones that take part.
    pub chosen: u64,
    /// Of these, the ones that belong nowhere.
    pub refused: u64,
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

/// Whether some keepwatch keeps a backup here, be it empty: it has an owner record.
pub async fn is_kept(reader: &dyn ObjectReader) -> Result<bool, StoreError> {
    let id = ObjectId { key: Key::literal(OWNER_KEY), version: None, etag: None };
    Ok(!matches!(reader.head(&id).await?, Fetched::Gone))
}

/// Why nothing comes of a backup of which nothing is chosen.
fn nothing_chosen(place: &str, objects: u64) -> Failure {
    let message = format!("{place} has {}, and none of them is chosen", count(objects, "object"));
    Failure::new(ErrorClass::Configuration, message).with_hint(
        "check --include and --exclude: they are gitignore rules for paths as they are below the \
         source; `keepwatch ls` shows what there is",
    )
}

/// A file of the backup whose place in the target is still to be looked at.
struct Coming {
    size_bytes: u64,
    frozen: bool,
}

impl Restore {
    pub(super) async fn survey(&self) -> Result<Survey, Stop> {
        let facts = self.target.facts().await.map_err(Stop::All)?;
        self.progress.scanning.store(true, Ordering::Relaxed);
        let mut survey = Survey::default();
        let mut unmatched: Vec<&(String, Filter)> = self.includes.iter().collect();
        let mut objects = self.objects();
        let (mut paths, mut coming) = (vec![], vec![]);
        while let Some(kept) = self.next(&mut objects).await? {
            if self.cancel.is_cancelled() {
                return Err(Stop::Interrupted);
            }
            survey.objects += 1;
            raise(&self.progress.scanned, 1);
            let size_bytes = kept.object.size_bytes;
            let place = match place(&kept.id.key, size_bytes) {
                Ok(place) if self.takes_part(place.path(), place.is_folder()) => place,
                Ok(_) => continue,
                Err(_) => {
                    survey.refused += 1;
                    continue;
                }
            };
            survey.chosen += 1;
            unmatched.retain(|(_, matches)| !matches(place.path(), place.is_folder()));
            let Place::File(path) = place else { continue };
            let frozen = kept.object.archived && kept.thaw != Some(Thaw::Thawed);
            paths.push(path);
            coming.push(Coming { size_bytes, frozen });
            if paths.len() >= LOOKED_AT_ONCE {
                self.look_at_all(&mut paths, &mut coming, &facts, &mut survey).await;
            }
        }
        self.look_at_all(&mut paths, &mut coming, &facts, &mut survey).await;
        self.progress.scanning.store(false, Ordering::Relaxed);
        if survey.objects == 0 {
            self.refuse_nothing().await?;
        }
        // What is only to be deleted is not in the backup.
        if !self.settings.delete {
            self.check_chosen(&survey)?;
            for (pattern, _) in unmatched {
                let why = "it matches nothing in the backup".to_owned();
                self.tally.skipped(format!("--include {pattern}"), why);
            }
        }
        raise(&self.progress.planned, survey.fetch + survey.compare);
        raise(&self.progress.planned_bytes, survey.fetch_bytes);
        Ok(survey)
    }

    /// That somebody chose nothing at all is a mistake in a pattern.
    pub(super) fn check_chosen(&self, survey: &Survey) -> Result<(), Stop> {
        let done = self.tally.counts();
        let something = survey.chosen + survey.refused + done.deleted + done.held;
        match survey.objects > 0 && something == 0 {
            true => Err(Stop::All(nothing_chosen(&self.reader.place(), survey.objects))),
            false => Ok(()),
        }
    }

    /// Looks at the places of these files, in one go, and counts what is to be done for them.
    async fn look_at_all(
        &self,
        paths: &mut Vec<RelPath>,
        coming: &mut Vec<Coming>,
        facts: &TargetFacts,
        survey: &mut Survey,
    ) {
        let looks = self.target.look_at_all(std::mem::take(paths)).await;
        let block = facts.block_bytes.max(1);
        let blocks = |bytes: u64| bytes.div_ceil(block).saturating_mul(block);
        for (Coming { size_bytes: size, frozen }, look) in coming.drain(..).zip(looks) {
            let there = match look {
                Ok(LocalLook::File(entry) | LocalLook::Link(entry, _)) => {
                    Some(entry.fingerprint.size_bytes)
                }
                _ => None,
            };
            if there == Some(size) {
                survey.compare += 1;
                survey.compare_bytes = survey.compare_bytes.saturating_add(size);
                continue;
            }
            survey.fetch += 1;
            survey.fetch_bytes = survey.fetch_bytes.saturating_add(size);
            let more = blocks(size).saturating_sub(blocks(there.unwrap_or(0)));
            survey.needed_bytes = survey.needed_bytes.saturating_add(more);
            if frozen {
                survey.frozen += 1;
                survey.frozen_bytes = survey.frozen_bytes.saturating_add(size);
            }
        }
    }

    /// An empty backup has an owner record; where that is missing too, nothing was ever kept.
    async fn refuse_nothing(&self) -> Result<(), Stop> {
        let wanted = self.where_from();
        if wanted == Where::default()
            && self.patience.insist_for_all(|| Box::pin(is_kept(&*self.reader))).await?
        {
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
        let mut attempts = super::super::patience::Attempts::of_all();
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
