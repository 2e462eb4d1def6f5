//! One backup at run time: its ports, its settings, and what its operations share.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::Mode;
use crate::model::{ETag, Entry, Key, KeyTarget, Millis};
use crate::plan::{Compare, Deletions, Failure, MaxDelete};
use crate::ports::{
    Change, Clock, Condition, Fut, Identity, LocalTree, ObjectStore, StateError, StateStore,
};

use super::CONDITION;
use super::control::Facts;
use super::owner::{self, Owner, OwnerIdentity, Tenant};
use super::progress::Progress;

/// How a backup behaves, as configured.
#[derive(Clone, Debug)]
pub struct BackupSettings {
    pub name: String,
    pub mode: Mode,
    pub deletions: Deletions,
    pub delete_delay_ms: u64,
    pub max_delete: MaxDelete,
    pub compare: Compare,
    pub settle_ms: u64,
    pub max_wait_ms: u64,
    pub rescan_ms: u64,
    pub verify_every_ms: u64,
    pub multipart_threshold: u64,
    pub part_size: Option<u64>,
    /// Requests that transfer content, in flight at most.
    pub transfers: usize,
    pub create_bucket: bool,
    pub take_over: bool,
    /// Only what failed in an earlier run.
    pub failed_only: bool,
    pub owner: OwnerIdentity,
    /// Jitter of this run.
    pub seed: u64,
}

/// A line of a dry run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedAction {
    pub action: &'static str,
    /// A folder's ends with `/`.
    pub path: String,
    pub why: String,
}

/// Takes the lines of a dry run.
pub type PlanSink = Arc<dyn Fn(PlannedAction) + Send + Sync>;

/// What every operation of a backup needs.
pub struct Backup {
    pub settings: BackupSettings,
    pub tree: Arc<dyn LocalTree>,
    pub store: Arc<dyn ObjectStore>,
    pub state: Arc<dyn StateStore>,
    pub clock: Arc<dyn Clock>,
    pub progress: Arc<Progress>,
    pub owner: Owner,
    /// Given in a dry run: nothing is sent or recorded, only told.
    pub plan: Option<PlanSink>,
    /// Cancelled when the drain has taken too long.
    pub cancel: CancellationToken,
    /// Nothing more is to be sent for now: parts of large files wait, too.
    paused: AtomicBool,
    /// Skipped paths that a person was told of.
    told: Mutex<BTreeSet<Key>>,
    /// The source as the last pass found it.
    looked_at: Mutex<Option<Identity>>,
    full: Mutex<Full>,
    slots: Semaphore,
}

/// The disk under the state database has no room: who waits, since when, and why.
#[derive(Debug, Default)]
struct Full {
    waiting: usize,
    since: Option<(String, Instant)>,
}

/// One that waits for room.
struct Waiting<'a>(&'a Mutex<Full>);

impl Waiting<'_> {
    /// It waits no more; answers whether no other does.
    fn ends(self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).waiting == 1
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut full = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        full.waiting -= 1;
        if full.waiting == 0 {
            full.since = None;
        }
    }
}

/// A file whose times are this close to the moment it was read may have changed without a trace in
/// `stat`: dirty pages of a mapped file are written back, and its times set, within 30 s and a
/// little (`vm.dirty_expire_centisecs`, `vm.dirty_writeback_centisecs`).
pub const RACY_MS: u64 = 40_000;

impl Backup {
    pub fn new(
        settings: BackupSettings,
        tree: Arc<dyn LocalTree>,
        store: Arc<dyn ObjectStore>,
        state: Arc<dyn StateStore>,
        clock: Arc<dyn Clock>,
        plan: Option<PlanSink>,
    ) -> Self {
        Self {
            owner: Owner::default(),
            progress: Arc::default(),
            cancel: CancellationToken::new(),
            paused: AtomicBool::new(false),
            told: Mutex::default(),
            looked_at: Mutex::new(None),
            full: Mutex::default(),
            slots: Semaphore::new(settings.transfers.max(1)),
            settings,
            tree,
            store,
            state,
            clock,
            plan,
        }
    }

    pub fn facts(&self) -> Facts<'_> {
        Facts { state: &*self.state, tree: &*self.tree, clock: &*self.clock }
    }

    pub fn is_dry_run(&self) -> bool {
        self.plan.is_some()
    }

    pub fn tell(&self, action: &'static str, key: &Key, why: impl Into<String>) {
        if let Some(plan) = &self.plan {
            let path = match key.target() {
                Some(KeyTarget::File(path)) => path.to_string(),
                Some(KeyTarget::Folder(path)) => format!("{path}/"),
                None => key.to_string(),
            };
            plan(PlannedAction { action, path, why: why.into() });
        }
    }

    /// Whether an operation under way should end where it can be taken up again.
    pub fn is_halted(&self) -> bool {
        self.cancel.is_cancelled() || self.paused.load(Ordering::Relaxed)
    }

    pub fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    pub fn is_conditional(&self) -> bool {
        self.owner.is_conditional()
    }

    /// Makes sure that the destination is ours; see [`owner`].
    pub async fn check_owner(&self) -> Result<(), Failure> {
        owner::check(self).await
    }

    /// The condition for a write over this object, where the server honours conditions.
    pub fn over(&self, etag: Option<&ETag>) -> Condition {
        match (self.is_conditional(), etag) {
            (false, _) => Condition::None,
            (true, None) => Condition::Absent,
            (true, Some(etag)) => Condition::Match(etag.clone()),
        }
    }

    /// Whether a person hears for the first time that this path is skipped.
    pub fn is_news(&self, key: &Key) -> bool {
        const TOLD_MAX: usize = 10_000;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < TOLD_MAX && told.insert(key.clone())
    }

    /// Notes which folder a pass finds; answers whether it is another than the last pass found.
    pub fn is_another_folder(&self, identity: Identity) -> bool {
        let mut last = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        last.replace(identity).is_some_and(|last| last != identity)
    }

    /// Waits for room among the transfers.
    pub async fn slot(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.slots.acquire().await.ok()
    }

    /// Makes changes durable. A daemon waits for a full disk to have room again; nothing else is
    /// started meanwhile, for everything begins with a record.
    pub async fn record(&self, changes: Vec<Change>) -> Result<(), Failure> {
        const FULL_RETRY: Duration = Duration::from_secs(5);
        let mut waiting = None;
        loop {
            let error = match self.state.apply(changes.clone()).await {
                Ok(()) => {
                    if waiting.take().is_some_and(Waiting::ends) {
                        tracing::info!(
                            target: CONDITION,
                            backup = self.settings.name,
                            "the state disk has room again"
                        );
                    }
                    return Ok(());
                }
                Err(error) => error,
            };
            let wait = matches!(error, StateError::Full(_)) && self.settings.mode == Mode::Daemon;
            if !wait || self.cancel.is_cancelled() {
                return Err(error.into());
            }
            if waiting.is_none() {
                waiting = Some(self.wait_for_room(&error));
            }
            tokio::select! {
                () = tokio::time::sleep(FULL_RETRY) => {}
                () = self.cancel.cancelled() => {}
            }
        }
    }

    /// One more waits for room under the state database; only for the first it is told.
    fn wait_for_room(&self, error: &StateError) -> Waiting<'_> {
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        full.waiting += 1;
        if full.waiting == 1 {
            let why = Failure::from(error.clone()).to_string();
            full.since = Some((why, Instant::now()));
            tracing::error!(
                target: CONDITION,
                backup = self.settings.name,
                %error,
                "waiting: free some space; nothing is lost meanwhile"
            );
        }
        Waiting(&self.full)
    }

    /// What is waited for where the disk under the state database is full, and for how long.
    pub fn waits_for_room(&self) -> Option<(String, Duration)> {
        let full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        full.since.as_ref().map(|(why, since)| (why.clone(), since.elapsed()))
    }

    /// Whether an entry read just now may change without a trace in `stat`.
    pub fn is_racy(&self, entry: &Entry, read_at: Millis) -> bool {
        let young = read_at.minus_ms(RACY_MS);
        let f = &entry.fingerprint;
        entry.kind == crate::model::Kind::File
            && (f.ctime.millis() > young || f.mtime.millis() > young)
    }
}

impl Tenant for Backup {
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
        &*self.store
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
        Box::pin(Self::record(self, changes))
    }

    /// A source may hold copies of records; those carry their time, and count as none.
    fn brings(&self, _: &Key) -> Fut<'_, Result<bool, Failure>> {
        Box::pin(std::future::ready(Ok(false)))
    }
}
