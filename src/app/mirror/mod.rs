//! Mirrors: a bucket backed up to a bucket, and marked, not emptied, when the source loses objects.
//!
//! One run compares both listings and the records in lock step ([`compare`]), and writes down what
//! differs. Only when all three have come to their end without an error is anything done: what is
//! missing is copied first, then what differs; what came back loses its tags; what is gone is
//! tagged or deleted, under the same guard as a backup's ([`gone`]). Memory is a few pages of
//! listings, however many keys there are.
//!
//! A record says of each key which object was copied and which object is its copy. A run that was
//! cut short is run again.

mod compare;
mod driver;
mod gone;
pub mod orders;
mod verify;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::Key;
use crate::plan::mirror::{AskTags, MirrorCompare};
use crate::plan::{Deletions, ErrorClass, Failure, Hold, MaxDelete};
use crate::ports::{
    Change, Clock, Fetched, Fut, LineQueue, ObjectId, ObjectStore, Scratch, StateStore,
};

use super::backup::{PlanSink, PlannedAction};
use super::control;
use super::copy::Copier;
use super::orphans;
use super::owner::{self, Owner, OwnerIdentity, Tenant};
use super::patience::{Attempts, Stop};

pub use compare::Found;
pub use driver::MirrorDriver;
pub use verify::{Difference, OnDifference, Report, Verify};
pub(crate) use work::same_content;

/// How a mirror behaves.
#[derive(Clone, Debug)]
pub struct MirrorSettings {
    pub name: String,
    pub compare: MirrorCompare,
    /// Only objects that were modified so lately are copied.
    pub modified_within_ms: Option<u64>,
    pub deletions: Deletions,
    pub max_delete: MaxDelete,
    pub create_bucket: bool,
    pub take_over: bool,
    pub owner: OwnerIdentity,
}

/// Whether a key takes part.
pub type KeyFilter = Arc<dyn Fn(&Key) -> bool + Send + Sync>;

/// One mirror.
pub struct Mirror {
    pub settings: MirrorSettings,
    pub copier: Arc<Copier>,
    pub state: Arc<dyn StateStore>,
    pub clock: Arc<dyn Clock>,
    pub scratch: Arc<dyn Scratch>,
    pub wanted: KeyFilter,
    /// Given in a dry run: nothing is written or recorded, only told.
    pub plan: Option<PlanSink>,
    owner: Owner,
    held: AtomicU64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Done {
        hold: Option<Hold>,
    },
    Interrupted,
    /// All of it, for this reason.
    Failed(Failure),
}

impl End {
    /// The end of a run that goes no further.
    pub(crate) fn of(stop: Stop) -> Self {
        match stop {
            Stop::Interrupted => Self::Interrupted,
            Stop::All(failure) | Stop::Held(failure) => Self::Failed(failure),
            Stop::Path(cause) | Stop::Skip(cause) => {
                Self::Failed(Failure::new(ErrorClass::Path, cause))
            }
            Stop::Again | Stop::Frozen | Stop::AfterDelete => {
                Self::Failed(Failure::new(ErrorClass::Path, "the buckets change all the time"))
            }
        }
    }
}

impl Mirror {
    pub fn new(
        settings: MirrorSettings,
        copier: Arc<Copier>,
        state: Arc<dyn StateStore>,
        clock: Arc<dyn Clock>,
        scratch: Arc<dyn Scratch>,
        wanted: KeyFilter,
        plan: Option<PlanSink>,
    ) -> Self {
        let (owner, held) = (Owner::default(), AtomicU64::new(0));
        Self { settings, copier, state, clock, scratch, wanted, plan, owner, held }
    }

    pub fn is_dry_run(&self) -> bool {
        self.plan.is_some()
    }

    /// Whether the destination belongs to another.
    pub fn is_refused(&self) -> bool {
        self.owner.is_refused()
    }

    /// Deletions that wait for a person, as of the last run.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// One comparison, and all that follows from it.
    pub async fn run(self: &Arc<Self>) -> End {
        self.copier.forget_names();
        let end = self.run_once().await;
        let by = match &end {
            End::Failed(failure) => Some(failure.to_string()),
            End::Done { .. } | End::Interrupted => None,
        };
        if !self.is_dry_run() {
            control::note_end(&*self.state, by).await;
        }
        end
    }

    async fn run_once(self: &Arc<Self>) -> End {
        self.steps().await.map_or_else(End::of, |hold| End::Done { hold })
    }

    async fn steps(self: &Arc<Self>) -> Result<Option<Hold>, Stop> {
        let before = self.undone();
        let is_there = self.check_tags().await?;
        if !self.check_source().await? {
            return Ok(None);
        }
        self.check_owner().await?;
        // Only a bucket that is there can tell; one that was just made has nothing in it yet.
        if !is_there && !self.is_dry_run() {
            self.check_tags().await?;
        }
        self.copier.learn_open().await?;
        let began = self.clock.now();
        let ask = match self.settings.deletions {
            _ if self.is_sweep().await? => AskTags::Sweeping,
            Deletions::Tag => AskTags::Adopting,
            Deletions::Delete | Deletions::Keep => AskTags::Never,
        };
        let found = self.compare(ask).await?;
        if self.is_dry_run() {
            let hold = self.would_hold(&found).await?;
            self.held.store(hold.as_ref().map_or(0, |hold| hold.pending), Ordering::Relaxed);
            self.tell_gone(found.gone, hold.is_some()).await?;
            return Ok(hold);
        }
        self.say(&found);
        let Found { missing, differing, back, gone, notes, asked, .. } = found;
        self.take_notes(notes).await?;
        let mut full = None;
        for queue in [missing, differing, back, asked] {
            match self.do_all(queue).await {
                // What is deleted below makes room.
                Err(Stop::All(failure)) if failure.class == ErrorClass::Full => {
                    full.get_or_insert(failure);
                }
                result => result?,
            }
        }
        let hold = self.follow(gone).await?;
        if let Some(failure) = full {
            return Err(Stop::All(failure));
        }
        let mut changes = vec![Change::Listed { at: self.clock.now() }];
        // Of what failed or was left out nothing is proven.
        if self.undone() == before && hold.is_none() {
            changes.push(Change::Proven { before: began, now: self.clock.now() });
        }
        self.note(changes).await?;
        Ok(hold)
    }

    /// A server without tags cannot keep what was deleted: that is said before anything is done.
    /// Whether the destination is there, and could tell.
    async fn check_tags(&self) -> Result<bool, Stop> {
        let has = self.copier.learn_tags_if_there().await?;
        if has != Some(false) || self.settings.deletions != Deletions::Tag {
            self.copier.warn_of_tags().await;
            return Ok(has.is_some());
        }
        let message = "the destination's server has no object tags, so objects that are gone from \
                       the source cannot be tagged as deleted";
        Err(Stop::All(
            Failure::new(ErrorClass::Configuration, message)
                .because("nothing was copied")
                .with_hint(
                    "choose what else happens to them: --deletions keep leaves their copies as \
                     they are, --deletions delete removes them",
                ),
        ))
    }

    /// A destination is neither made nor claimed for a source that is not there, or is empty: its
    /// name may be wrong, and the right one would be refused then. Answers whether to go on.
    async fn check_source(&self) -> Result<bool, Stop> {
        let row = self.state.backup().await.map_err(|e| Stop::All(e.into()))?;
        let is_ours = row.owner_etag.is_some();
        if is_ours && !self.settings.create_bucket {
            return Ok(true);
        }
        let source = &self.copier.source;
        let page = self.copier.patience.insist_for_all(|| source.list(None)).await?;
        if is_ours || !page.objects.is_empty() || page.more_after.is_some() {
            return Ok(true);
        }
        tracing::warn!(
            backup = self.settings.name,
            "there is no object in {} yet, so nothing was done: is its name right?",
            self.settings.owner.source
        );
        Ok(false)
    }

    /// Waits for the destination, and makes sure that it is ours.
    pub(crate) async fn check_owner(&self) -> Result<(), Stop> {
        let mut attempts = Attempts::new();
        loop {
            match owner::check(self).await {
                Ok(()) => return Ok(()),
                Err(failure) => self.copier.patience.pause(&mut attempts, failure).await?,
            }
        }
    }

    /// The same place under the same owner, and nothing is recorded: only tags tell what was
    /// tagged, and nobody knows the uploads that were left open.
    async fn is_sweep(&self) -> Result<bool, Stop> {
        let row = self.state.backup().await.map_err(|e| Stop::All(e.into()))?;
        let is_lost = row.listed_at.is_none() && row.owner_generation > 1;
        if is_lost {
            let swept = orphans::sweep(self, &row, &self.copier.progress, self.clock.now()).await;
            swept.map_err(Stop::All)?;
        }
        Ok(is_lost)
    }

    /// What failed or was left out so far.
    fn undone(&self) -> u64 {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        get(&self.copier.progress.failed) + get(&self.copier.progress.skipped)
    }

    fn say(&self, found: &Found) {
        use crate::model::words::{bytes, count, grouped};
        tracing::info!(
            backup = self.settings.name,
            "{} compared; {} missing, {} different ({} to copy), {} back, {} gone",
            count(found.sources, "object"),
            grouped(found.missing.count()),
            grouped(found.differing.count()),
            bytes(found.bytes),
            grouped(found.back.count()),
            grouped(found.gone.count()),
        );
    }

    fn queue(&self) -> Box<dyn LineQueue> {
        self.scratch.queue()
    }

    /// Makes changes durable.
    async fn note(&self, changes: Vec<Change>) -> Result<(), Stop> {
        let changes = self.copier.settle(changes).await?;
        if changes.is_empty() {
            return Ok(());
        }
        self.state.apply(changes).await.map_err(|e| Stop::All(e.into()))
    }

    fn tell(&self, action: &'static str, key: &Key, why: &str) {
        if let Some(plan) = &self.plan {
            plan(PlannedAction { action, path: key.to_string(), why: why.to_owned() });
        }
    }
}

impl Tenant for Mirror {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn identity(&self) -> &OwnerIdentity {
        &self.settings.owner
    }

    fn owner(&self) -> &Owner {
        &self.owner
    }

    fn store(&self) -> &dyn ObjectStore {
        &*self.copier.target
    }

    fn state(&self) -> &dyn StateStore {
        &*self.state
    }

    fn creates_bucket(&self) -> bool {
        self.settings.create_bucket
    }

    fn takes_over(&self) -> bool {
        self.settings.take_over
    }

    fn is_dry_run(&self) -> bool {
        Self::is_dry_run(self)
    }

    fn record(&self, changes: Vec<Change>) -> Fut<'_, Result<(), Failure>> {
        Box::pin(async move { self.state.apply(changes).await.map_err(Failure::from) })
    }

    /// A source that holds backups holds their records, too.
    fn brings(&self, record: &Key) -> Fut<'_, Result<bool, Failure>> {
        let id = ObjectId { key: record.clone(), version: None, etag: None };
        Box::pin(async move {
            let looked = self.copier.source.head(&id).await;
            let looked = looked.map_err(|e| super::failure_of(e, "look at an owner record"))?;
            Ok(!matches!(looked, Fetched::Gone))
        })
    }
}
