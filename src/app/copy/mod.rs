//! Objects copied from one bucket to another, whole and unchanged: what a mirror and a restore into
//! a bucket have in common.
//!
//! Each object is looked at once, and copied as that version and with that ETag only: what changes
//! meanwhile is looked at again, never mixed. Within one server it copies ([`Copier::transfer`]),
//! large objects in parts ([`parts`], [`leftovers`]); between servers the bytes come through here
//! ([`stream`]) and are compared with every checksum that the source has.

pub mod back;
mod leftovers;
pub(crate) mod listing;
mod parts;
pub(crate) mod queue;
mod stream;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::model::checksum::Over;
use crate::model::{Checksum, ContentMd5, ETag, Key, Md5};
use crate::plan::parts::{MIB, PART_MAX_BYTES};
use crate::plan::{ErrorClass, Failure};
use crate::ports::{
    Change, Copy, CopySource, CopyTarget, Fetched, FullHead, Fut, ObjectId, ObjectReader,
    StateStore, StoreError, Tags, Thaw,
};

use super::FILE;
use super::halt::Halt;
use super::patience::{Attempts, Patience, Stop};
use super::progress::{Progress, raise};
use super::restore::{Objects, Where};
use super::untold::Untold;

/// Paths that are remembered by name, of each kind.
const NAMED_MAX: usize = 10_000;
/// Bytes of content that are in memory on their way through here, at most.
const MEMORY_BYTES: u64 = 96 * MIB;
/// Larger objects come through here in parts, whatever the threshold is.
const WHOLE_MAX_BYTES: u64 = 16 * MIB;

/// How objects are copied.
#[derive(Clone, Debug)]
pub struct CopySettings {
    /// Of the mirror or restore, for the log.
    pub name: String,
    /// The destination's server can read the source by itself.
    pub server_side: bool,
    /// Requests in flight at most.
    pub transfers: usize,
    /// Larger objects are copied in parts.
    pub multipart_threshold: u64,
    /// Of objects that do not tell how they were cut.
    pub part_size: Option<u64>,
    pub retry_for_ms: u64,
}

/// What was done to one object. For who follows a run from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Copied { key: Key, bytes: u64 },
    Tagged { key: Key },
    Untagged { key: Key },
    Deleted { key: Key },
    Failed { key: String, why: String },
    Skipped { key: String, why: String },
}

/// Takes events as they happen.
pub type OnEvent = Arc<dyn Fn(&Event) + Send + Sync>;

/// Copies objects between two places.
pub struct Copier {
    pub settings: CopySettings,
    pub source: Arc<dyn CopySource>,
    pub target: Arc<dyn CopyTarget>,
    /// The destination, read.
    pub copies: Arc<dyn CopySource>,
    /// Where copies in parts are journaled, so that they go on after a stop.
    journal: Option<Arc<dyn StateStore>>,
    pub progress: Arc<Progress>,
    pub cancel: Halt,
    pub(crate) patience: Patience,
    on_event: Option<OnEvent>,
    slots: Semaphore,
    /// In KiB.
    memory: Semaphore,
    /// The destination has tags.
    tags: AtomicBool,
    warned_of_tags: AtomicBool,
    pub(crate) untold: Untold,
    named: Mutex<Named>,
    /// Keys with a journaled copy in parts.
    open: Mutex<BTreeSet<Key>>,
}

#[derive(Default)]
struct Named {
    failed: Vec<(String, String)>,
    skipped: Vec<(String, String)>,
}

/// The two places of a copy.
pub struct Places {
    pub source: Arc<dyn CopySource>,
    pub target: Arc<dyn CopyTarget>,
    pub copies: Arc<dyn CopySource>,
}

impl Copier {
    pub fn new(
        settings: CopySettings,
        places: Places,
        journal: Option<Arc<dyn StateStore>>,
        on_event: Option<OnEvent>,
    ) -> Self {
        let Places { source, target, copies } = places;
        let cancel = Halt::default();
        let transfers = settings.transfers.max(1);
        let sides: [Arc<dyn ObjectReader>; 2] = [source.clone(), copies.clone()];
        Self {
            slots: Semaphore::new(transfers),
            memory: Semaphore::new((MEMORY_BYTES / 1024) as usize),
            patience: Patience::new(settings.retry_for_ms, cancel.clone()).asking_all(sides),
            tags: AtomicBool::new(true),
            warned_of_tags: AtomicBool::new(false),
            untold: Untold::default(),
            named: Mutex::default(),
            open: Mutex::default(),
            progress: Arc::default(),
            settings,
            source,
            target,
            copies,
            journal,
            cancel,
            on_event,
        }
    }

    /// Waits for room among the requests.
    pub(crate) async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        self.slots.acquire().await.ok()
    }

    /// Asks whether the destination has tags. One that is not there yet may have them.
    pub(crate) async fn learn_tags(&self) -> Result<bool, Stop> {
        self.learn_tags_if_there().await.map(|has| has.unwrap_or(true))
    }

    /// The same; `None` where the destination is not there.
    pub(crate) async fn learn_tags_if_there(&self) -> Result<Option<bool>, Stop> {
        let has = self.patience.insist(|| {
            let asked = self.target.knows_tags();
            Box::pin(async move {
                match asked.await {
                    Err(StoreError::NoSuchBucket(_)) => Ok(None),
                    has => has.map(Some),
                }
            })
        });
        let has = has.await?;
        self.tags.store(has.unwrap_or(true), Ordering::Relaxed);
        Ok(has)
    }

    /// Warns, once, where tags of the source would be left out: its server has some, and the
    /// destination's has none.
    pub(crate) async fn warn_of_tags(&self) {
        if self.tags.load(Ordering::Relaxed) || self.warned_of_tags.swap(true, Ordering::Relaxed) {
            return;
        }
        let key = Key::literal(super::owner::OWNER_KEY);
        let asked = self.source.tags(&ObjectId { key, version: None, etag: None }).await;
        if !matches!(asked, Err(StoreError::Unsupported(_))) {
            tracing::warn!(
                backup = %self.settings.name,
                "the destination's server has no object tags: those that objects of the source \
                 have are left out"
            );
        }
    }

    /// The object as it is now, if it is there. One that must be thawed first is
    /// [`Stop::Frozen`].
    pub(crate) async fn look(&self, id: &ObjectId) -> Result<Option<FullHead>, Stop> {
        let _slot = self.slot().await;
        let looked = self.patience.insist(|| of_object(&id.key, self.source.look(id)));
        let full = match looked.await? {
            Fetched::Found(full) => full,
            Fetched::Gone => return Ok(None),
            Fetched::Changed => return Err(Stop::Again),
            Fetched::Archived => return Err(Stop::Frozen),
        };
        if full.head.object.archived && full.head.thaw != Some(Thaw::Thawed) {
            return Err(Stop::Frozen);
        }
        Ok(Some(full))
    }

    /// The same for an object that was listed. One that the server goes on listing, and does not
    /// find, has failed; of the current version that is gone by now there is none.
    pub(crate) async fn look_at_listed(&self, id: &ObjectId) -> Result<Option<FullHead>, Stop> {
        if let Some(full) = self.look(id).await? {
            return Ok(Some(full));
        }
        if id.version.is_none() && !self.is_listed(&id.key).await? {
            tracing::info!("gone since it was listed: {}", id.key);
            return Ok(None);
        }
        match self.look(id).await? {
            Some(full) => Ok(Some(full)),
            None => Err(Stop::Path(
                "the server lists it, and says that there is no such object".to_owned(),
            )),
        }
    }

    async fn is_listed(&self, key: &Key) -> Result<bool, Stop> {
        let mut objects = Objects::from(self.source.clone(), Where::default(), key);
        let mut attempts = Attempts::new();
        let _slot = self.slot().await;
        loop {
            match objects.next().await {
                Ok(Some(kept)) if kept.id.key < *key => {}
                Ok(kept) => return Ok(kept.is_some_and(|kept| kept.id.key == *key)),
                Err(error) => {
                    let failure = super::failure_of(error, "list the source");
                    self.patience.pause(&mut attempts, failure).await?;
                }
            }
        }
    }

    /// Copies the version that was looked at; answers with the copy's ETag. [`Stop::Again`] when
    /// the source is another object by now: then nothing was written.
    pub(crate) async fn transfer(&self, key: &Key, full: &FullHead) -> Result<ETag, Stop> {
        let object = &full.head.object;
        let id = ObjectId {
            key: key.clone(),
            version: full.version.clone(),
            etag: Some(object.etag.clone()),
        };
        let size = object.size_bytes;
        let threshold = self.settings.multipart_threshold.min(PART_MAX_BYTES);
        self.progress.begin(key, key.to_string());
        let result = match self.settings.server_side {
            true if size <= threshold || is_kept_whole(full) => self.copy_whole(&id, full).await,
            false if size <= threshold.min(WHOLE_MAX_BYTES) && is_proven_whole(full) => {
                self.stream_whole(&id, full).await
            }
            _ => self.copy_in_parts(&id, full).await,
        };
        self.progress.end(key);
        result
    }

    async fn copy_whole(&self, id: &ObjectId, full: &FullHead) -> Result<ETag, Stop> {
        let origin = self.source.origin(id).map_err(of_store)?;
        let copy = Copy {
            key: id.key.clone(),
            origin,
            size_bytes: full.head.object.size_bytes,
            headers: full.headers.clone(),
        };
        // Of what was sent in parts and tells no MD5 nobody knows the ETag that its copy will have.
        self.expect_whole(id, full, full.head.md5).await?;
        let _slot = self.slot().await;
        let copied = self.patience.insist(|| of_object(&id.key, self.target.copy(copy.clone())));
        found(copied.await?)
    }

    /// Notes what a copy in one request will have for an ETag, where that is not its source's: one
    /// that is there when nobody hears of it any more is known by this to be ours.
    async fn expect_whole(
        &self,
        id: &ObjectId,
        full: &FullHead,
        md5: Option<Md5>,
    ) -> Result<(), Stop> {
        match md5 {
            Some(md5) if full.head.object.etag.as_md5() != Some((md5, 0)) => {
                let content = ContentMd5::whole(md5);
                let expected = Change::Expected { key: id.key.clone(), content };
                self.note_in_journal(vec![expected]).await
            }
            _ => Ok(()),
        }
    }

    /// The object's own tags, as far as both sides have any.
    async fn tags_of(&self, id: &ObjectId, full: &FullHead) -> Result<Tags, Stop> {
        if full.head.tags == Some(0) || !self.tags.load(Ordering::Relaxed) {
            return Ok(vec![]);
        }
        let _slot = self.slot().await;
        let is_restore = self.untold.is_borne();
        let tags = self.patience.insist(|| {
            let asked = self.source.tags(id);
            Box::pin(async move {
                match asked.await {
                    Err(StoreError::Unsupported(_)) => Ok(Fetched::Found(vec![])),
                    // A backup is brought back without them rather than not at all, and says so.
                    Err(error) if is_restore && error.is_denied() => Ok(Fetched::Found(vec![])),
                    tags => tags,
                }
            })
        });
        found(tags.await?)
    }

    /// Makes changes durable, where there is a journal.
    async fn note_in_journal(&self, changes: Vec<Change>) -> Result<(), Stop> {
        match &self.journal {
            Some(journal) => journal.apply(changes).await.map_err(|e| Stop::All(e.into())),
            None => Ok(()),
        }
    }

    /// Counts and tells a copy that is done.
    pub(crate) fn copied(&self, key: &Key, bytes: u64) {
        raise(&self.progress.copied, 1);
        raise(&self.progress.copied_bytes, bytes);
        tracing::info!(target: FILE, backup = %self.settings.name, "copied {key}");
        self.tell(&Event::Copied { key: key.clone(), bytes });
    }

    pub(crate) fn tell(&self, event: &Event) {
        if let Some(on_event) = &self.on_event {
            on_event(event);
        }
    }

    /// Takes note of what became of one object; what is everybody's is passed on.
    pub(crate) fn note(&self, key: &Key, result: Result<(), Stop>) -> Result<(), Stop> {
        match result {
            Ok(()) => Ok(()),
            Err(Stop::Path(why)) => {
                self.fail(key, why);
                Ok(())
            }
            Err(Stop::Again) => {
                self.fail(key, "it changes all the time".to_owned());
                Ok(())
            }
            Err(Stop::Skip(why)) => {
                self.skip(&key.to_string(), why);
                Ok(())
            }
            Err(Stop::Frozen) => {
                let why = "archived: it must be thawed before it can be copied";
                self.skip(&key.to_string(), why.to_owned());
                Ok(())
            }
            Err(stop) => Err(stop),
        }
    }

    fn fail(&self, key: &Key, why: String) {
        tracing::warn!(backup = %self.settings.name, "failed: {key}: {why}");
        raise(&self.progress.failed, 1);
        raise(&self.progress.failing, 1);
        self.tell(&Event::Failed { key: key.to_string(), why: why.clone() });
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.failed.len() < NAMED_MAX {
            named.failed.push((key.to_string(), why));
        }
    }

    /// `name` is a key, or what has none.
    pub(crate) fn skip(&self, name: &str, why: String) {
        tracing::warn!(backup = %self.settings.name, "skipped: {name}: {why}");
        raise(&self.progress.skipped, 1);
        self.tell(&Event::Skipped { key: name.to_owned(), why: why.clone() });
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.skipped.len() < NAMED_MAX {
            named.skipped.push((name.to_owned(), why));
        }
    }

    /// Keys that failed, and why; as many as are remembered.
    pub fn failed(&self) -> Vec<(String, String)> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner).failed.clone()
    }

    pub fn skipped(&self) -> Vec<(String, String)> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner).skipped.clone()
    }

    /// Forgets what failed in an earlier run.
    pub(crate) fn forget_names(&self) {
        self.progress.failing.store(0, Ordering::Relaxed);
        *self.named.lock().unwrap_or_else(PoisonError::into_inner) = Named::default();
    }
}

/// Whether only a copy by one request, where S3 takes it, has the checksum of its source.
fn is_kept_whole(full: &FullHead) -> bool {
    let is_lost = |checksum: &Checksum| checksum.form.in_parts() != checksum.form;
    let size = full.head.object.size_bytes;
    size <= PART_MAX_BYTES && full.head.checksum.as_ref().is_some_and(is_lost)
}

/// Whether something tells the content of an object as a whole. What else tells is over its parts.
fn is_proven_whole(full: &FullHead) -> bool {
    let head = &full.head;
    let of_content = |checksum: &Checksum| {
        checksum.form.over == Over::Content && checksum.form.algorithm.is_made_here()
    };
    let is_of_parts = head.object.etag.as_md5().is_some_and(|(_, parts)| parts > 0);
    head.md5.is_some() || head.checksum.as_ref().is_some_and(of_content) || !is_of_parts
}

/// What came of asking for an object that was looked at just now.
pub(super) fn found<T>(fetched: Fetched<T>) -> Result<T, Stop> {
    match fetched {
        Fetched::Found(found) => Ok(found),
        Fetched::Gone | Fetched::Changed => Err(Stop::Again),
        Fetched::Archived => Err(Stop::Frozen),
    }
}

/// A request that copies one object: what the server does not offer for this one, as a redirection
/// or a storage class, stops no other.
pub(super) fn of_object<'a, T: Send + 'a>(
    key: &Key,
    sent: Fut<'a, Result<T, StoreError>>,
) -> Fut<'a, Result<T, StoreError>> {
    let key = key.clone();
    Box::pin(async move {
        sent.await.map_err(|error| match error {
            StoreError::Unsupported(cause) => {
                let failure = Failure::new(ErrorClass::Path, format!("cannot copy {key}"));
                StoreError::Failed(failure.because(cause))
            }
            error => error,
        })
    })
}

/// An error of the store that is about one object.
fn of_store(error: StoreError) -> Stop {
    Stop::Path(super::failure_of(error, "name the object").to_string())
}
