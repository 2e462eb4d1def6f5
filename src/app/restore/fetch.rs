//! Content on its way: read, written beside its name, compared with the checksum of the object, and
//! only then given its name.
//!
//! A small file is one request; a large one comes in ranges, several at once. A connection that
//! breaks is taken up again where it was. What does not match its checksum is fetched anew, and
//! given up after some attempts: a wrong byte never gets a name.

use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::model::{ContentMd5, Crc64, ETag, Kind, Md5};
use crate::plan::parts::{MIB, likely_part_sizes};
use crate::plan::{ErrorClass, Failure};
use crate::ports::{
    Body, Fetched, Fut, LocalLook, NewFile, ObjectId, ReadHead, Reading, StoreError, Stretch,
    TargetError,
};

use super::super::cut::is_even;
use super::super::failure_of;
use super::super::patience::Attempts;
use super::super::progress::raise;
use super::file::kind_of;
use super::pass::Item;
use super::tally::Proof;
use super::{Restore, Stop};

/// Larger objects come in ranges.
const WHOLE_MAX_BYTES: u64 = 16 * MIB;
const RANGE_BYTES: u64 = 8 * MIB;
/// Attempts at content that does not match its checksum.
const TRIES: u32 = 3;
/// A link's target is no longer on any system that we know.
const LINK_MAX_BYTES: u64 = 64 * 1024;

/// What is known of an object before it is fetched.
pub(super) enum Source {
    Unknown,
    Known(Box<ReadHead>),
}

/// What an object's content can be compared with.
pub(super) enum Expected {
    Crc64(Crc64),
    Md5(Md5),
    /// The ETag over parts of one of these sizes; `told` when the server says which.
    Parts {
        etag: ETag,
        sizes: Vec<u64>,
        told: bool,
    },
    Nothing,
}

impl Expected {
    /// Compares with content that can be read in parts. `None`: it is not the same.
    pub(super) async fn check<'a>(
        &self,
        digest: impl Fn(Option<u64>) -> Fut<'a, Result<(ContentMd5, Crc64), TargetError>>,
    ) -> Result<Option<Proof>, Stop> {
        match self {
            Self::Crc64(expected) => {
                let same = digest(None).await?.1 == *expected;
                Ok(same.then_some(Proof::Crc64))
            }
            Self::Md5(expected) => {
                let same = digest(None).await?.0.digest == *expected;
                Ok(same.then_some(Proof::Md5))
            }
            Self::Parts { etag, sizes, told } => {
                for size in sizes {
                    if digest(Some(*size)).await?.0.matches(etag) == Some(true) {
                        return Ok(Some(Proof::Parts));
                    }
                }
                Ok((!told).then_some(Proof::Nothing))
            }
            Self::Nothing => Ok(Some(Proof::Nothing)),
        }
    }
}

impl Restore {
    /// Fetches a file or link and gives it its name, in place of what `over` says is there.
    pub(super) async fn fetch(
        &self,
        item: &Item,
        source: Source,
        over: LocalLook,
    ) -> Result<(), Stop> {
        for attempt in 1..=TRIES {
            if self.try_fetch(item, &source, &over).await? {
                return Ok(());
            }
            tracing::warn!(
                "{}: what came does not match the checksum of the object (attempt {attempt})",
                item.path
            );
        }
        Err(Stop::Path(format!(
            "its content does not match the checksum that is stored with it, in {TRIES} attempts: \
             the object or the way to it is damaged, and nothing was written"
        )))
    }

    /// `false`: what came does not match.
    async fn try_fetch(
        &self,
        item: &Item,
        source: &Source,
        over: &LocalLook,
    ) -> Result<bool, Stop> {
        let id = &item.kept.id;
        let (head, size) = match source {
            Source::Known(head) => (Some((**head).clone()), head.object.size_bytes),
            Source::Unknown => (None, item.kept.object.size_bytes),
        };
        if size <= WHOLE_MAX_BYTES || self.whole_only.load(Ordering::Relaxed) {
            return self.fetch_whole(item, head, over).await;
        }
        let head = match head {
            Some(head) => head,
            None => {
                let Some(head) = self.head(id).await? else { return Ok(true) };
                if self.left_out(id, &head).await? {
                    return Ok(true);
                }
                head
            }
        };
        match kind_of(&head.meta)? {
            Kind::File => self.fetch_in_ranges(item, head, over).await,
            Kind::Link | Kind::Folder => Err(too_long_for_a_link()),
        }
    }

    async fn fetch_whole(
        &self,
        item: &Item,
        known: Option<ReadHead>,
        over: &LocalLook,
    ) -> Result<bool, Stop> {
        let id = &item.kept.id;
        let slot = self.slots.acquire().await;
        let Reading { head, body } = match self.open(id, None).await? {
            Fetched::Found(reading) => reading,
            Fetched::Gone => return self.gone(id).map(|()| true),
            Fetched::Changed => return Err(Stop::Again),
            Fetched::Archived => {
                drop(slot);
                return self.ask_to_thaw(id).await.map(|()| true);
            }
        };
        if known.is_none() && self.left_out(id, &head).await? {
            return Ok(true);
        }
        let pinned = pinned(id, &head);
        let size = head.object.size_bytes;
        if id.etag.is_some() && size != item.kept.object.size_bytes {
            return Ok(false);
        }
        if kind_of(&head.meta)? == Kind::Link {
            drop(body);
            drop(slot);
            let Some((head, target)) = self.link_target(&pinned).await? else { return Ok(true) };
            self.make_link(item, &head, target, over.clone()).await?;
            return Ok(true);
        }
        let file = self.target.create(item.path.clone()).await?;
        let wants_md5 = head.crc64().is_none() && head.md5.is_some();
        let mut stretch = file.stretch(0, wants_md5);
        self.pour(&pinned, 0..size, &mut *stretch, Some(body)).await?;
        drop(slot);
        let written = stretch.finish().await?;
        let proof = match (head.crc64(), head.md5, written.md5) {
            (Some(expected), _, _) => (written.crc64 == expected).then_some(Proof::Crc64),
            (None, Some(expected), Some(md5)) => (md5 == expected).then_some(Proof::Md5),
            _ => self.prove(&pinned, &head, |part| file.digest(part)).await?,
        };
        self.commit(&head, file, proof, over).await
    }

    async fn fetch_in_ranges(
        &self,
        item: &Item,
        head: ReadHead,
        over: &LocalLook,
    ) -> Result<bool, Stop> {
        let pinned = pinned(&item.kept.id, &head);
        let size = head.object.size_bytes;
        let file = self.target.create(item.path.clone()).await?;
        let ranges = (0..size.div_ceil(RANGE_BYTES)).map(|n| {
            let start = n * RANGE_BYTES;
            start..size.min(start + RANGE_BYTES)
        });
        let crc64 = stream::iter(ranges)
            .map(|range| async {
                let _slot = self.slots.acquire().await;
                let mut stretch = file.stretch(range.start, false);
                self.pour(&pinned, range, &mut *stretch, None).await?;
                let written = stretch.finish().await?;
                Ok::<_, Stop>((written.crc64, written.bytes))
            })
            .buffered(self.settings.transfers.max(1))
            .try_fold(Crc64::EMPTY, |crc, (next, bytes)| async move { Ok(crc.then(next, bytes)) })
            .await?;
        let proof = match head.crc64() {
            Some(expected) => (crc64 == expected).then_some(Proof::Crc64),
            None => self.prove(&pinned, &head, |part| file.digest(part)).await?,
        };
        self.commit(&head, file, proof, over).await
    }

    /// Compares what came with what is known of the object. `None`: it is not the same.
    async fn prove<'a>(
        &self,
        id: &ObjectId,
        head: &ReadHead,
        digest: impl Fn(Option<u64>) -> Fut<'a, Result<(ContentMd5, Crc64), TargetError>>,
    ) -> Result<Option<Proof>, Stop> {
        let expected = self.expected(id, head).await?;
        let proof = expected.check(digest).await?;
        let Expected::Parts { etag, sizes, .. } = &expected else { return Ok(proof) };
        let (Some((_, parts)), [first]) = (etag.as_md5(), &sizes[..]) else { return Ok(proof) };
        if proof.is_some() {
            return Ok(proof);
        }
        // Over parts of several sizes the ETag says nothing that can be compared.
        let size = head.object.size_bytes;
        let is_even = is_even(&*self.reader, &self.patience, id, size, *first, parts).await?;
        Ok((!is_even).then_some(Proof::Nothing))
    }

    async fn commit(
        &self,
        head: &ReadHead,
        file: Box<dyn NewFile>,
        proof: Option<Proof>,
        over: &LocalLook,
    ) -> Result<bool, Stop> {
        let Some(proof) = proof else { return Ok(false) };
        let size = head.object.size_bytes;
        file.commit(size, self.attributes(&head.meta), over.clone()).await?;
        self.tally.proved(proof);
        raise(&self.tally.downloaded, 1);
        raise(&self.tally.downloaded_bytes, size);
        Ok(true)
    }

    /// What the content can be compared with, asking the server where it must be asked.
    pub(super) async fn expected(&self, id: &ObjectId, head: &ReadHead) -> Result<Expected, Stop> {
        if let Some(crc64) = head.crc64() {
            return Ok(Expected::Crc64(crc64));
        }
        if let Some(md5) = head.md5 {
            return Ok(Expected::Md5(md5));
        }
        let etag = head.object.etag.clone();
        let size = head.object.size_bytes;
        let Some((_, parts)) = etag.as_md5().filter(|_| head.etag_is_md5) else {
            return Ok(Expected::Nothing);
        };
        if parts == 1 {
            return Ok(Expected::Parts { etag, sizes: vec![size.max(1)], told: true });
        }
        Ok(match self.patience.insist(|| self.reader.part_size(id, 1)).await? {
            Some(size) => Expected::Parts { etag, sizes: vec![size.max(1)], told: true },
            None => Expected::Parts { etag, sizes: likely_part_sizes(size, parts), told: false },
        })
    }

    /// Writes this range, taking it up again where a connection broke.
    async fn pour(
        &self,
        id: &ObjectId,
        range: Range<u64>,
        stretch: &mut dyn Stretch,
        mut body: Option<Box<dyn Body>>,
    ) -> Result<(), Stop> {
        let (mut at, mut good_at) = (range.start, range.start);
        let mut attempts = Attempts::new();
        while at < range.end {
            let mut open = match body.take() {
                Some(body) => body,
                None => match self.open(id, Some(at..range.end)).await? {
                    Fetched::Found(reading) => reading.body,
                    Fetched::Gone | Fetched::Changed | Fetched::Archived => {
                        return Err(Stop::Again);
                    }
                },
            };
            let error = loop {
                match open.next().await {
                    None => break None,
                    Some(Err(error)) => break Some(error),
                    Some(Ok(bytes)) => {
                        at += bytes.len() as u64;
                        raise(&self.progress.handled_bytes, bytes.len() as u64);
                        stretch.write(bytes).await?;
                    }
                }
            };
            if at > range.end {
                return Err(Stop::Path("the server sent more than was asked for".to_owned()));
            }
            if at < range.end {
                let failure = match error {
                    Some(error) => failure_of(error, "read the object"),
                    None => broke_off(),
                };
                // A connection that brings something, and then breaks, is not one that fails.
                if at > good_at {
                    (good_at, attempts) = (at, Attempts::new());
                }
                self.patience.pause(&mut attempts, failure).await?;
            }
        }
        self.patience.came_whole(id);
        Ok(())
    }

    async fn open(
        &self,
        id: &ObjectId,
        range: Option<Range<u64>>,
    ) -> Result<Fetched<Reading>, Stop> {
        let ranged = range.is_some();
        let read = || -> Fut<'_, _> {
            let reading = self.reader.read(id, range.clone());
            Box::pin(async move {
                match reading.await {
                    Err(StoreError::Unsupported(why)) if ranged => Ok(Err(why)),
                    reply => reply.map(Ok),
                }
            })
        };
        self.patience.insist(read).await?.map_err(|why| {
            if !self.whole_only.swap(true, Ordering::Relaxed) {
                tracing::warn!("{why}: objects are fetched whole, and from the start");
            }
            Stop::Again
        })
    }

    /// The target of a link, with what is known of the object.
    pub(super) async fn link_target(
        &self,
        id: &ObjectId,
    ) -> Result<Option<(ReadHead, Bytes)>, Stop> {
        let mut attempts = Attempts::new();
        for _ in 0..TRIES {
            let Reading { head, mut body } = match self.open(id, None).await? {
                Fetched::Found(reading) => reading,
                Fetched::Gone => return self.gone(id).map(|()| None),
                Fetched::Changed | Fetched::Archived => return Err(Stop::Again),
            };
            if head.object.size_bytes > LINK_MAX_BYTES {
                return Err(too_long_for_a_link());
            }
            let mut target = BytesMut::new();
            let mut error = None;
            while let Some(next) = body.next().await {
                match next {
                    Ok(bytes) => target.extend_from_slice(&bytes),
                    Err(e) => error = Some(e),
                }
            }
            if let Some(error) = error {
                self.patience.pause(&mut attempts, failure_of(error, "read the link")).await?;
                continue;
            }
            let proof = match (head.crc64(), head.md5) {
                (Some(crc64), _) => (Crc64::of(&target) == crc64).then_some(Proof::Crc64),
                (None, Some(md5)) => (Md5::of(&target) == md5).then_some(Proof::Md5),
                (None, None) => Some(Proof::Nothing),
            };
            if let Some(proof) = proof {
                self.tally.proved(proof);
                return Ok(Some((head, target.freeze())));
            }
        }
        Err(Stop::Path("the link's target does not match its checksum".to_owned()))
    }
}

/// The same object, and no other content.
fn pinned(id: &ObjectId, head: &ReadHead) -> ObjectId {
    ObjectId { etag: Some(head.object.etag.clone()), ..id.clone() }
}

fn broke_off() -> Failure {
    Failure::new(ErrorClass::Unreachable, "cannot read the object").because("its reply broke off")
}

fn too_long_for_a_link() -> Stop {
    Stop::Path("the backup says it is a link, and its target is too long".to_owned())
}
