//! Restore: everything back, from any moment, into a folder.
//!
//! The objects of the moment are listed in key order, twice: once to say how much there is and
//! whether it fits ([`survey`]), once to bring it back ([`pass`]). Each object is looked at in the
//! target, [`crate::plan::restore::choose`] decides, and [`file`] fetches, verifies, and gives the
//! file its name in one step. What must be thawed waits in [`thaw`]. Deleting what the backup does
//! not have happens only when asked, at the very end, in [`prune`]. What is of another kind and
//! stands in a path's [`way`] is replaced only when asked, too.
//!
//! Nothing is recorded: a restore that was cut short is run again, and finds what is right already.

mod fetch;
mod file;
mod objects;
mod pass;
mod prune;
mod survey;
mod tally;
mod thaw;
mod way;

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::Semaphore;

use crate::model::{Entry, Key, Meta, Millis, RelPath};
use crate::plan::{ErrorClass, Failure, MaxDelete, Overwrite};
use crate::ports::{
    Attributes, Fetched, LocalLook, LocalTree, ObjectId, ObjectReader, TargetError, TargetFacts,
    TargetTree, Tier,
};

use super::backup::{PlanSink, PlannedAction};
use super::halt::Halt;
use super::patience::{self, Stop};
use super::progress::Progress;

pub use objects::{Kept, Objects, Where};
pub use survey::{Survey, is_kept, nothing};
pub use tally::{Counts, Tally};

const SETUID_SETGID: u32 = 0o6000;

/// How a restore behaves.
#[derive(Clone, Debug)]
pub struct RestoreSettings {
    /// As it was at this moment; `None`: as it is now.
    pub at: Option<Millis>,
    /// Only this path and what is below it.
    pub within: Option<RelPath>,
    pub overwrite: Overwrite,
    /// Delete what the backup does not have.
    pub delete: bool,
    pub max_delete: MaxDelete,
    /// Give files their owner.
    pub owner: bool,
    /// Give files their setuid and setgid bits.
    pub setuid: bool,
    /// Make links that lead out of the target.
    pub outside_links: bool,
    /// Requests that transfer content, in flight at most.
    pub transfers: usize,
    pub tier: Tier,
    /// For how long thawed objects stay readable.
    pub days: u32,
    /// Wait for what must be thawed.
    pub wait: bool,
    /// Between looks at what is being thawed.
    pub poll_ms: u64,
    pub retry_for_ms: u64,
}

/// Whether a path takes part. The flag says that it is a folder.
pub type Filter = Arc<dyn Fn(&RelPath, bool) -> bool + Send + Sync>;

/// One restore at run time.
pub struct Restore {
    pub settings: RestoreSettings,
    pub reader: Arc<dyn ObjectReader>,
    pub target: Arc<dyn TargetTree>,
    /// The same folder, to be walked when something is to be deleted.
    pub here: Arc<dyn LocalTree>,
    pub wanted: Filter,
    /// Patterns of which each should match something, as they were typed.
    pub includes: Vec<(String, Filter)>,
    pub progress: Arc<Progress>,
    /// Given in a dry run: nothing is written or asked for, only told.
    pub plan: Option<PlanSink>,
    pub tally: Tally,
    pub cancel: Halt,
    slots: Semaphore,
    patience: patience::Patience,
    frozen: Mutex<thaw::Queue>,
    ways: Mutex<way::Ways>,
    /// Next to nothing of the backup was in the target, and a lot else.
    unrelated: AtomicBool,
    /// Keys whose tags say that they were deleted.
    tagged: Mutex<BTreeSet<Key>>,
    /// The server gives no ranges.
    whole_only: AtomicBool,
    /// Of the target, once it is prepared.
    facts: OnceLock<TargetFacts>,
}

/// How a restore ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Done,
    Interrupted,
    /// Nothing was begun, for safety: a person is to say how it goes on.
    Held(Failure),
    /// All of it, for this reason.
    Failed(Failure),
}

impl From<TargetError> for Stop {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::InTheWay(path) => {
                Self::Path(format!("{path} is in the way: it is of another kind in the backup"))
            }
            TargetError::Changed => Self::Again,
            TargetError::Path(cause) => Self::Path(cause),
            TargetError::Failed(failure) => Self::All(failure),
        }
    }
}

/// Why nothing can be said of another moment.
pub fn no_versions(place: &str) -> Failure {
    let message = format!("{place} keeps no versions, so nothing is known of how it was before");
    Failure::new(ErrorClass::Configuration, message)
        .with_hint("leave --at out to see or restore what is there now")
}

/// The ports of a restore.
pub struct Ports {
    pub reader: Arc<dyn ObjectReader>,
    pub target: Arc<dyn TargetTree>,
    pub here: Arc<dyn LocalTree>,
}

impl Restore {
    pub fn new(
        settings: RestoreSettings,
        ports: Ports,
        wanted: Filter,
        plan: Option<PlanSink>,
    ) -> Self {
        let Ports { reader, target, here } = ports;
        let cancel = Halt::default();
        Self {
            slots: Semaphore::new(settings.transfers.max(1)),
            patience: patience::Patience::new(settings.retry_for_ms, cancel.clone())
                .asking(reader.clone()),
            frozen: Mutex::default(),
            ways: Mutex::default(),
            unrelated: AtomicBool::new(false),
            tagged: Mutex::default(),
            whole_only: AtomicBool::new(false),
            facts: OnceLock::new(),
            tally: Tally::default(),
            progress: Arc::default(),
            settings,
            reader,
            target,
            here,
            wanted,
            includes: vec![],
            plan,
            cancel,
        }
    }

    /// Runs to the end.
    pub async fn run(self: &Arc<Self>) -> End {
        let end = self.steps().await;
        if self.plan.is_none()
            && let Err(failure) = self.target.finish().await
            && end.is_ok()
        {
            return End::Failed(failure);
        }
        match end {
            Ok(()) => End::Done,
            Err(Stop::Interrupted) => End::Interrupted,
            Err(Stop::Held(failure)) => End::Held(failure),
            Err(Stop::All(failure)) => End::Failed(failure),
            Err(Stop::Path(cause) | Stop::Skip(cause)) => {
                End::Failed(Failure::new(ErrorClass::Path, cause))
            }
            Err(Stop::Again | Stop::Frozen | Stop::AfterDelete) => {
                End::Failed(Failure::new(ErrorClass::Path, "the target changes all the time"))
            }
        }
    }

    async fn steps(self: &Arc<Self>) -> Result<(), Stop> {
        self.check_versions().await?;
        let survey = self.survey().await?;
        self.say(&survey);
        self.check_space(&survey).await?;
        if self.settings.delete {
            self.check_target().await?;
        }
        if self.plan.is_none() {
            let facts = self.target.prepare().await.map_err(Stop::All)?;
            self.facts.set(facts).ok();
        }
        self.pass().await?;
        self.thaw_all().await?;
        if self.settings.delete {
            self.prune().await?;
            self.take_freed().await?;
        }
        self.check_chosen(&survey)
    }

    async fn check_versions(&self) -> Result<(), Stop> {
        if self.settings.at.is_none() {
            return Ok(());
        }
        let keeps = self.patience.insist_for_all(|| self.reader.keeps_versions()).await?;
        if keeps {
            return Ok(());
        }
        Err(Stop::All(no_versions(&self.reader.place())))
    }

    fn where_from(&self) -> Where {
        Where { at: self.settings.at, within: self.settings.within.clone() }
    }

    fn objects(&self) -> Objects {
        Objects::new(self.reader.clone(), self.where_from())
    }

    /// What is at this path, under this very name.
    async fn look(&self, path: &RelPath) -> Result<LocalLook, Stop> {
        match self.target.look(path.clone()).await? {
            LocalLook::Otherwise(other) => Err(Stop::Path(format!(
                "{other} is here, and both are one name on this file system"
            ))),
            look => Ok(look),
        }
    }

    /// Whether this place takes part.
    fn takes_part(&self, path: &RelPath, is_folder: bool) -> bool {
        (self.wanted)(path, is_folder)
    }

    fn tell(&self, action: &'static str, path: String, why: impl Into<String>) {
        if let Some(plan) = &self.plan {
            plan(PlannedAction { action, path, why: why.into() });
        }
    }

    /// This mode for what is here: its setuid and setgid bits stay, unless they are restored too.
    fn with_bits_of(&self, here: &Entry, mode: u32) -> u32 {
        if self.settings.setuid { mode } else { mode | here.mode & SETUID_SETGID }
    }

    /// What is set beside the content.
    fn attributes(&self, meta: &Meta) -> Attributes {
        let permissions = meta.mode.map(|mode| {
            let mask = if self.settings.setuid { 0 } else { SETUID_SETGID };
            mode & 0o7777 & !mask
        });
        let owner = meta.uid.zip(meta.gid).filter(|_| self.settings.owner);
        Attributes { mtime: meta.mtime, permissions, owner }
    }

    /// Whether the object was deleted, by its tags, at the moment that is asked for.
    /// Tags that may not be read are counted where it `counts`.
    async fn is_tagged_deleted(
        &self,
        id: &ObjectId,
        tags: Option<u32>,
        counts: bool,
    ) -> Result<bool, Stop> {
        if tags == Some(0) || (tags.is_none() && self.tally.untold.is_asked_enough()) {
            return Ok(false);
        }
        let asked = || self.tally.untold.or_untold(self.reader.deleted_at(id), counts);
        let deleted = self.patience.insist(asked).await?;
        if tags.is_none() {
            self.tally.untold.was_asked(deleted.is_some());
        }
        Ok(match (deleted, self.settings.at) {
            (None, _) => false,
            (Some(_), None) => true,
            // The tag tells the minute that the deletion came in, which begins before it.
            (Some(deleted), Some(at)) => deleted < at,
        })
    }

    /// Whether the backup has an object with this key.
    async fn has(&self, key: &Key) -> Result<bool, Stop> {
        let id = ObjectId { key: key.clone(), version: None, etag: None };
        let found = self.patience.insist(|| self.reader.head(&id)).await?;
        Ok(!matches!(found, Fetched::Gone))
    }
}
