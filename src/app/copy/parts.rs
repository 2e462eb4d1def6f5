//! Large objects, copied in parts and taken up again where a stop left them.
//!
//! An object that was sent in parts is cut at the same places, so that the copy has the same ETag,
//! which proves it. The upload is journaled with the fingerprint of the source before it is opened.
//! Within a server every part of it comes from that one version, so what the server has of it
//! counts. What came through here counts where the journal and the server agree.

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::model::checksum::{Algorithm, Form, Over};
use crate::model::{Checksum, ContentMd5, Crc64, ETag, Key, Md5};
use crate::plan::mirror::fingerprint_of;
use crate::plan::parts::{MIB, PART_MIN_BYTES, PARTS_MAX, part_count, part_range, part_size};
use crate::ports::{
    Change, Complete, Condition, CopyPart, CreateCopy, Fetched, FullHead, JournaledPart, ObjectId,
    PartDigest, StoreError, StoredPart, UploadJournal,
};

use super::super::cut::is_even;
use super::super::failure_of;
use super::super::patience::{Attempts, Stop};
use super::stream::Passed;
use super::{Copier, found, of_object, of_store};

/// Of objects that do not tell how they were cut: few requests within a server, little memory here.
const COPIED_PART_BYTES: u64 = 64 * MIB;
const STREAMED_PART_BYTES: u64 = 8 * MIB;
/// A larger part is cut anew when it comes through here.
const STREAMED_PART_MAX_BYTES: u64 = 32 * MIB;
/// Parts of one object in flight.
const PARTS_AT_ONCE: usize = 8;

/// A copy in parts on its way.
pub(super) struct Parts<'a> {
    pub(super) copier: &'a Copier,
    pub(super) id: &'a ObjectId,
    pub(super) full: &'a FullHead,
    pub(super) part_size: u64,
    /// The size of the parts of the source, if all of these are as large as the first.
    pub(super) source_part: Option<u64>,
    pub(super) upload_id: String,
}

impl Copier {
    pub(super) async fn copy_in_parts(&self, id: &ObjectId, full: &FullHead) -> Result<ETag, Stop> {
        let (part_size, source_part) = self.cut(id, full).await?;
        let (upload_id, kept) = match self.take_up(id, full, part_size).await? {
            Some(taken_up) => taken_up,
            None => (self.open(id, full, part_size).await?, vec![]),
        };
        let parts = Parts { copier: self, id, full, part_size, source_part, upload_id };
        let result = match self.settings.server_side {
            true => parts.copy(kept).await,
            false => parts.pass_through(kept).await,
        };
        match result {
            Ok(etag) => Ok(etag),
            Err(stop) => {
                // Without a journal nobody goes on with it.
                if self.journal.is_none() || !matches!(stop, Stop::Interrupted | Stop::All(_)) {
                    self.give_up(&id.key, &parts.upload_id).await?;
                }
                Err(stop)
            }
        }
    }

    /// The size of the parts, and of those of the source, as far as its first one tells.
    async fn cut(&self, id: &ObjectId, full: &FullHead) -> Result<(u64, Option<u64>), Stop> {
        let size = full.head.object.size_bytes;
        let largest = match self.settings.server_side {
            true => u64::MAX,
            false => STREAMED_PART_MAX_BYTES,
        };
        let mut source_part = None;
        if let Some((_, count @ 1..)) = full.head.object.etag.as_md5() {
            let _slot = self.slot().await;
            let first = self.patience.insist(|| self.source.part_size(id, 1)).await?;
            let fits = |first: &u64| *first > 0 && part_count(size, *first) == u64::from(count);
            source_part = first.filter(fits);
        }
        if let Some(first) = source_part.filter(|first| (PART_MIN_BYTES..=largest).contains(first))
        {
            return Ok((first, source_part));
        }
        let usual = match self.settings.server_side {
            true => COPIED_PART_BYTES,
            false => STREAMED_PART_BYTES,
        };
        let wanted = self.settings.part_size.unwrap_or(usual).min(largest);
        let cut = part_size(size, Some(wanted)).map_err(|e| Stop::Path(e.to_string()))?;
        debug_assert!(part_count(size, cut) <= PARTS_MAX, "S3 takes no more");
        Ok((cut, source_part.filter(|part| *part != cut)))
    }

    /// Goes on with a journaled upload, if its source is this one and the server still has it.
    async fn take_up(
        &self,
        id: &ObjectId,
        full: &FullHead,
        part_size: u64,
    ) -> Result<Option<(String, Vec<JournaledPart>)>, Stop> {
        let Some(state) = &self.journal else { return Ok(None) };
        let key = &id.key;
        let journal = state.upload(key).await.map_err(|e| Stop::All(e.into()))?;
        let Some(journal) = journal else { return Ok(None) };
        let object = &full.head.object;
        let same = journal.fingerprint == fingerprint_of(object) && journal.part_size == part_size;
        let upload_id = match (&journal.upload_id, same) {
            (Some(upload_id), true) => upload_id.clone(),
            _ => {
                self.close(&journal).await?;
                return Ok(None);
            }
        };
        let Some(stored) = self.parts_there(key, &upload_id).await? else {
            self.close(&journal).await?;
            return Ok(None);
        };
        let fits = |part: &StoredPart| {
            part_range(part.number, object.size_bytes, part_size).1 == part.size_bytes
        };
        // Digests are the journal's, checksums beside them the server's.
        let as_stored = |part: JournaledPart| {
            let stored = stored.iter().find(|stored| stored.is(&part.stored))?.clone();
            Some(JournaledPart { stored, ..part })
        };
        let kept: Vec<JournaledPart> = match self.settings.server_side {
            true => stored.iter().filter(|part| fits(part)).cloned().map(of_server).collect(),
            false => journal.parts.into_iter().filter_map(as_stored).collect(),
        };
        tracing::info!("going on with the copy of {key}: {} parts are there", kept.len());
        Ok(Some((upload_id, kept)))
    }

    /// The parts that the server has. `None` where the upload is gone, or the server cannot tell:
    /// then it begins anew.
    async fn parts_there(
        &self,
        key: &Key,
        upload_id: &str,
    ) -> Result<Option<Vec<StoredPart>>, Stop> {
        const ATTEMPTS: u32 = 3;
        let mut attempts = Attempts::new();
        for _ in 0..ATTEMPTS {
            let listed = {
                let _slot = self.slot().await;
                self.target.list_parts(key, upload_id).await
            };
            match listed {
                Ok(stored) => return Ok(Some(stored)),
                Err(StoreError::NoSuchUpload | StoreError::Unsupported(_)) => return Ok(None),
                Err(error) if error.is_denied() => return Ok(None),
                Err(error) => {
                    let failure = failure_of(error, "list the parts of a copy");
                    self.patience.pause(&mut attempts, failure).await?;
                }
            }
        }
        Ok(None)
    }

    /// Opens an upload. Where no reply came to that, it may be open all the same: it is looked for
    /// and aborted before the next attempt.
    async fn open(&self, id: &ObjectId, full: &FullHead, part_size: u64) -> Result<String, Stop> {
        let key = id.key.clone();
        let tags = self.tags_of(id, full).await?;
        let copy = CreateCopy {
            key: key.clone(),
            headers: full.headers.clone(),
            tags,
            checksum: full.head.checksum.as_ref().map(|checksum| checksum.form),
            streamed: !self.settings.server_side,
        };
        let mut attempts = Attempts::new();
        loop {
            let journal = UploadJournal {
                key: key.clone(),
                upload_id: None,
                // Where these cannot be listed, none could be found afterwards.
                others: self.target.list_uploads(&key).await.ok(),
                part_size,
                fingerprint: fingerprint_of(&full.head.object),
                parts: vec![],
            };
            self.note_opening(journal.clone()).await?;
            let opened = {
                let _slot = self.slot().await;
                of_object(&key, self.target.create_copy(copy.clone())).await
            };
            match opened {
                Ok(upload_id) => {
                    self.patience.good();
                    let opened = Change::UploadOpened { key, upload_id: upload_id.clone() };
                    self.note_in_journal(vec![opened]).await?;
                    return Ok(upload_id);
                }
                Err(error) => {
                    let failure = failure_of(error, "begin a copy in parts");
                    self.close(&journal).await?;
                    self.patience.pause(&mut attempts, failure).await?;
                }
            }
        }
    }
}

/// A part of which only the server knows the content.
fn of_server(stored: StoredPart) -> JournaledPart {
    let md5 = stored.etag.as_md5().map_or(Md5([0; 16]), |(md5, _)| md5);
    let digest = PartDigest { bytes: stored.size_bytes, md5, crc64: Crc64::EMPTY };
    JournaledPart { stored, digest }
}

impl Parts<'_> {
    pub(super) fn size(&self) -> u64 {
        self.full.head.object.size_bytes
    }

    pub(super) fn numbers(&self) -> std::ops::RangeInclusive<u32> {
        let count = part_count(self.size(), self.part_size);
        1..=u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Copies what is missing within the server.
    async fn copy(&self, kept: Vec<JournaledPart>) -> Result<ETag, Stop> {
        let has = |number| kept.iter().any(|part| part.stored.number == number);
        let missing: Vec<u32> = self.numbers().filter(|number| !has(*number)).collect();
        let mut missing = missing.into_iter();
        let progress = &self.copier.progress;
        progress.advance(&self.id.key, kept.iter().map(|part| part.stored.size_bytes).sum());
        let mut parts = kept;
        let mut flying = FuturesUnordered::new();
        loop {
            while flying.len() < PARTS_AT_ONCE {
                let Some(number) = missing.next() else { break };
                flying.push(self.copy_part(number));
            }
            match flying.next().await {
                Some(part) => parts.push(part?),
                None => break,
            }
        }
        drop(flying);
        parts.sort_by_key(|part| part.stored.number);
        self.finish(parts, None).await
    }

    async fn copy_part(&self, number: u32) -> Result<JournaledPart, Stop> {
        let (offset, length) = part_range(number, self.size(), self.part_size);
        let part = CopyPart {
            key: self.id.key.clone(),
            upload_id: self.upload_id.clone(),
            number,
            origin: self.copier.source.origin(self.id).map_err(of_store)?,
            offset,
            length,
        };
        let _slot = self.copier.slot().await;
        let copied = self
            .copier
            .patience
            .insist(|| of_object(&part.key, self.copier.target.copy_part(part.clone())));
        let stored = found(copied.await?)?;
        self.copier.progress.advance(&self.id.key, length);
        Ok(of_server(stored))
    }

    /// Joins the parts, once they are known to be of one version; and looks at the result.
    pub(super) async fn finish(
        &self,
        parts: Vec<JournaledPart>,
        passed: Option<Passed>,
    ) -> Result<ETag, Stop> {
        let copier = self.copier;
        let of_parts = ContentMd5::of_parts(parts.iter().map(|p| &p.digest.md5), self.part_size);
        let crc64 = match passed {
            Some(passed) => {
                self.prove(&of_parts, &passed).await?;
                passed.crc64
            }
            None => {
                self.check_source(&of_parts).await?;
                Crc64::EMPTY
            }
        };
        let complete = Complete {
            key: self.id.key.clone(),
            upload_id: self.upload_id.clone(),
            parts,
            size_bytes: self.size(),
            crc64,
            condition: Condition::None,
        };
        self.note_expected(&complete.parts).await?;
        let _slot = copier.slot().await;
        let lost = copier.patience.insist(|| {
            let sent = of_object(&complete.key, copier.target.complete_upload(complete.clone()));
            Box::pin(async move {
                match sent.await {
                    Ok(_) => Ok(false),
                    // Its completion may have succeeded unheard: what is there will tell.
                    Err(StoreError::NoSuchUpload) => Ok(true),
                    Err(error) => Err(error),
                }
            })
        });
        let lost = lost.await?;
        let etag = self.check_copy(&of_parts, lost).await?;
        copier.drop_journal(&self.id.key).await?;
        Ok(etag)
    }

    /// A copy that is there when nobody hears of it any more is known by this to be ours.
    async fn note_expected(&self, parts: &[JournaledPart]) -> Result<(), Stop> {
        let of_part = |part: &JournaledPart| part.stored.etag.as_md5().map(|(md5, _)| md5);
        let digests: Option<Vec<Md5>> = parts.iter().map(of_part).collect();
        let Some(digests) = digests else { return Ok(()) };
        let content = ContentMd5::of_parts(&digests, self.part_size);
        let expected = Change::Expected { key: self.id.key.clone(), content };
        self.copier.note_in_journal(vec![expected]).await
    }

    /// Not every server heeds the condition on a part that it copies, so the parts may be of more
    /// than one version. Where they do not add up to the source's own ETag, one more look tells.
    async fn check_source(&self, of_parts: &ContentMd5) -> Result<(), Stop> {
        let began = &self.full.head.object;
        if self.etag_tells() && of_parts.matches(&began.etag) == Some(true) {
            return Ok(());
        }
        let copier = self.copier;
        let _slot = copier.slot().await;
        let asked = || of_object(&self.id.key, copier.source.head(self.id));
        let now = found(copier.patience.insist(asked).await?)?.object;
        let same = (&now.etag, now.size_bytes, now.modified)
            == (&began.etag, began.size_bytes, began.modified);
        if same { Ok(()) } else { Err(Stop::Again) }
    }

    /// Whether the ETag of the source is over the MD5s of these parts.
    pub(super) fn etag_tells(&self) -> bool {
        self.source_part == Some(self.part_size) && self.full.head.etag_is_md5
    }

    /// What of the source's own can be compared with content that came through here, apart from
    /// CRC64NVME and the ETag of parts like these: its name, and its value.
    pub(super) fn known_sum(&self) -> Option<(&'static str, Checksum)> {
        let head = &self.full.head;
        let can = |checksum: &&Checksum| {
            let Form { algorithm, over } = checksum.form;
            let is_other = checksum.form != Form::USUAL && algorithm.is_made_here();
            is_other && (over == Over::Content || self.source_part.is_some())
        };
        if let Some(checksum) = head.checksum.as_ref().filter(can) {
            return Some((checksum.form.algorithm.name(), checksum.clone()));
        }
        if head.crc64().is_some() || self.etag_tells() {
            return None;
        }
        let md5 = |over, digest: Md5| Checksum {
            form: Form { algorithm: Algorithm::Md5, over },
            digest: digest.0.into(),
        };
        if let Some(whole) = head.md5 {
            return Some(("MD5", md5(Over::Content, whole)));
        }
        self.source_part.filter(|_| head.etag_is_md5)?;
        let (digest, _) = head.object.etag.as_md5()?;
        Some(("ETag", md5(Over::Parts, digest)))
    }

    /// Compares what came through here with all that the source says of its content.
    async fn prove(&self, of_parts: &ContentMd5, passed: &Passed) -> Result<(), Stop> {
        let head = &self.full.head;
        let wrong = |what: &str| {
            Err(Stop::Path(format!("what was read is not what the source's {what} says")))
        };
        if head.crc64().is_some_and(|crc64| crc64 != passed.crc64) {
            return wrong("CRC64NVME");
        }
        let sums = self.known_sum().zip(passed.sum.as_ref());
        let differing = sums.filter(|((_, known), sum)| known != *sum).map(|(known, _)| known);
        if let Some((name, known)) = &differing
            && known.form.over == Over::Content
        {
            return wrong(name);
        }
        let etag_differs = self.etag_tells() && of_parts.matches(&head.object.etag) == Some(false);
        // Both are over the parts of the source; here they are all as large as its first.
        if (etag_differs || differing.is_some()) && self.is_cut_evenly().await? {
            return wrong(differing.map_or("ETag", |(name, _)| name));
        }
        Ok(())
    }

    async fn is_cut_evenly(&self) -> Result<bool, Stop> {
        let parts = self.full.head.object.etag.as_md5();
        let Some(((_, parts), first)) = parts.zip(self.source_part) else { return Ok(true) };
        let (source, patience) = (&*self.copier.source, &self.copier.patience);
        let _slot = self.copier.slot().await;
        is_even(source, patience, self.id, self.size(), first, parts).await
    }

    /// The copy is there, and as far as the server tells it has the content of the source.
    async fn check_copy(&self, of_parts: &ContentMd5, lost: bool) -> Result<ETag, Stop> {
        let copier = self.copier;
        let id = ObjectId { key: self.id.key.clone(), version: None, etag: None };
        let looked = copier.patience.insist(|| of_object(&id.key, copier.copies.head(&id))).await?;
        let wrong = |why: &str| Err(Stop::Path(format!("the copy is not the source: {why}")));
        let Fetched::Found(copy) = looked else { return wrong("it is not there") };
        let source = &self.full.head;
        if copy.object.size_bytes != self.size() {
            return wrong("it has another size");
        }
        if let (Some(checksum), Some(of_copy)) = (&source.checksum, &copy.checksum)
            && let Some(same) = checksum.agrees(of_copy)
        {
            return match same {
                true => Ok(copy.object.etag),
                false => wrong(&format!("it has another {}", checksum.form.algorithm.name())),
            };
        }
        // Where it is that of its parts, those of the source were cut in another way.
        if self.etag_tells()
            && copy.etag_is_md5
            && source.object.etag != copy.object.etag
            && of_parts.matches(&copy.object.etag) != Some(true)
        {
            return wrong("it has another ETag");
        }
        if lost && of_parts.matches(&copy.object.etag) != Some(true) {
            return wrong("the upload is gone, and another object is there");
        }
        Ok(copy.object.etag)
    }
}
