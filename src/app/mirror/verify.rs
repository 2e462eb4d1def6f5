//! Two buckets compared, and nothing done about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream::{self, StreamExt as _};
use tokio::task::JoinSet;

use crate::model::Key;
use crate::plan::mirror::{MirrorCompare, Reason, Verdict, by_listing};
use crate::plan::{ErrorClass, Failure};
use crate::ports::{Fetched, ObjectId};

use super::super::copy::Copier;
use super::super::copy::listing::{self, Joined, Share};
use super::super::patience::Stop;
use super::super::progress::raise;
use super::super::restore::{Objects, Where};
use super::work::same_content;
use super::{End, KeyFilter};

/// Keys that are looked at more closely at once.
const CLOSER: usize = 1_000;

/// What is not as it should be with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    Missing,
    Differs(Reason),
    /// Both are the same, and the copy is tagged as deleted: a restore leaves it out.
    Marked,
    /// Nothing that both sides say of their content can be compared.
    Unknown,
    /// Only the destination has it, and not as deleted.
    Extra,
}

impl Difference {
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Differs(_) | Self::Marked => "differs",
            Self::Unknown => "unknown",
            Self::Extra => "extra",
        }
    }

    pub fn why(self) -> &'static str {
        match self {
            Self::Missing => "not in the destination",
            Self::Differs(reason) => reason.words(),
            Self::Marked => "tagged as deleted, although it is in the source",
            Self::Unknown => "nobody can tell: no checksum of it is known on both sides",
            Self::Extra => "not in the source, and not tagged as deleted",
        }
    }
}

/// Numbers of one comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub scanned: u64,
    pub same: u64,
    pub missing: u64,
    pub differing: u64,
    /// Of which nobody can tell.
    pub unknown: u64,
    pub extra: u64,
    /// Only in the destination, and tagged as deleted.
    pub tagged: u64,
}

impl Report {
    pub fn is_same(&self) -> bool {
        self.missing + self.differing + self.unknown + self.extra == 0
    }
}

/// Takes differences as they are found.
pub type OnDifference = Arc<dyn Fn(&Key, Difference) + Send + Sync>;

/// One comparison of two buckets.
pub struct Verify {
    pub copier: Arc<Copier>,
    pub compare: MirrorCompare,
    pub wanted: KeyFilter,
    /// Takes what differs, in key order as far as listings tell.
    pub on_difference: OnDifference,
    /// Copies are asked for their tags: by content only, for it costs a request each.
    tags: AtomicBool,
}

/// A key of which the listings do not tell all.
enum Closer {
    /// Are both the same, where the listings do not say so; and is the copy tagged as deleted?
    Both(Key, Verdict),
    /// Is it tagged as deleted?
    Extra(Key),
}

impl Verify {
    pub fn new(
        copier: Arc<Copier>,
        compare: MirrorCompare,
        wanted: KeyFilter,
        on_difference: OnDifference,
    ) -> Self {
        Self { copier, compare, wanted, on_difference, tags: AtomicBool::new(false) }
    }

    pub async fn run(&self) -> (Report, End) {
        let mut report = Report::default();
        let progress = &self.copier.progress;
        progress.scanning.store(true, Ordering::Relaxed);
        let mut readers = JoinSet::new();
        let result = self.compare(&mut report, &mut readers).await;
        readers.shutdown().await;
        progress.scanning.store(false, Ordering::Relaxed);
        let end = match result {
            Ok(()) => End::Done { hold: None },
            Err(Stop::Path(cause) | Stop::Skip(cause)) => {
                let what = "the buckets cannot be compared";
                End::Failed(Failure::new(ErrorClass::Server, what).because(cause))
            }
            Err(stop) => End::of(stop),
        };
        (report, end)
    }

    async fn compare(&self, report: &mut Report, readers: &mut JoinSet<()>) -> Result<(), Stop> {
        let source = Objects::new(self.copier.source.clone(), Where::default());
        let copies = Objects::new(self.copier.copies.clone(), Where::default());
        let copier = &self.copier;
        let asks = self.compare == MirrorCompare::Checksum;
        self.tags.store(asks && copier.learn_tags().await?, Ordering::Relaxed);
        let source = listing::read(readers, copier, source, Share::default(), "list the source");
        let copies =
            listing::read(readers, copier, copies, Share::default(), "list the destination");
        let mut joined = Joined::new(source, Some(copies));
        let mut closer = vec![];
        while let Some(both) = joined.next(copier).await? {
            let key = both.key;
            if !(self.wanted)(&key) {
                continue;
            }
            report.scanned += u64::from(both.source.is_some());
            raise(&copier.progress.scanned, 1);
            match (both.source, both.target) {
                (Some(_), None) => self.found(report, &key, Difference::Missing),
                (Some(source), Some(copy)) => {
                    let (source, copy) = (source.object, copy.object);
                    match by_listing(&source, &copy, self.compare) {
                        Verdict::Same if !self.tags.load(Ordering::Relaxed) => report.same += 1,
                        Verdict::Differs(reason) => {
                            self.found(report, &key, Difference::Differs(reason));
                        }
                        verdict => closer.push(Closer::Both(key, verdict)),
                    }
                }
                (None, _) => closer.push(Closer::Extra(key)),
            }
            if closer.len() >= CLOSER {
                self.look_closer(report, std::mem::take(&mut closer)).await?;
            }
        }
        self.look_closer(report, closer).await
    }

    fn found(&self, report: &mut Report, key: &Key, difference: Difference) {
        match difference {
            Difference::Missing => report.missing += 1,
            Difference::Differs(_) | Difference::Marked => report.differing += 1,
            Difference::Unknown => report.unknown += 1,
            Difference::Extra => report.extra += 1,
        }
        (self.on_difference)(key, difference);
    }

    /// Asks for checksums and tags.
    async fn look_closer(&self, report: &mut Report, closer: Vec<Closer>) -> Result<(), Stop> {
        let looks = stream::iter(closer).map(|closer| async {
            let found = self.closely(&closer).await;
            (closer, found)
        });
        let mut looks = looks.buffered(self.copier.settings.transfers.max(1));
        while let Some((closer, found)) = looks.next().await {
            let found = match found {
                // One that cannot be looked at keeps nobody from the others.
                Err(stop @ (Stop::Path(_) | Stop::Skip(_))) => {
                    let (Closer::Both(key, ..) | Closer::Extra(key)) = &closer;
                    self.copier.note(key, Err(stop))?;
                    Some(Difference::Unknown)
                }
                found => found?,
            };
            match (closer, found) {
                (Closer::Both(..), None) => report.same += 1,
                (Closer::Extra(_), None) => report.tagged += 1,
                (Closer::Both(key, ..) | Closer::Extra(key), Some(difference)) => {
                    self.found(report, &key, difference);
                }
            }
        }
        Ok(())
    }

    async fn closely(&self, closer: &Closer) -> Result<Option<Difference>, Stop> {
        let copier = &self.copier;
        let id = |key: &Key| ObjectId { key: key.clone(), version: None, etag: None };
        match closer {
            Closer::Extra(key) => {
                let id = id(key);
                let deleted = copier.patience.insist(|| copier.copies.deleted_at(&id)).await?;
                Ok(deleted.is_none().then_some(Difference::Extra))
            }
            Closer::Both(key, verdict) => self.both(&id(key), *verdict).await,
        }
    }

    async fn both(&self, id: &ObjectId, verdict: Verdict) -> Result<Option<Difference>, Stop> {
        let copier = &self.copier;
        let copy = copier.patience.insist(|| copier.copies.head(id)).await?;
        let Fetched::Found(copy) = copy else { return Ok(Some(Difference::Unknown)) };
        let same = match verdict {
            Verdict::Same => Some(true),
            _ => match copier.patience.insist(|| copier.source.head(id)).await? {
                Fetched::Found(source) => same_content(&source, &copy),
                _ => None,
            },
        };
        match same {
            None => return Ok(Some(Difference::Unknown)),
            Some(false) => return Ok(Some(Difference::Differs(Reason::Content))),
            Some(true) => {}
        }
        if copy.tags == Some(0) || !self.tags.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let deleted = copier.patience.insist(|| copier.copies.deleted_at(id)).await?;
        Ok(deleted.map(|_| Difference::Marked))
    }
}
