//! Files sent in parts, and taken up again where a crash or a stop left them.
//!
//! The upload is journaled before it is created, and each part when it is acknowledged. The next
//! attempt goes on with the parts that the journal and the server agree on, if the file still has
//! the fingerprint that the journal names, and each kept part still reads the same. Otherwise the
//! old upload is aborted. One whose id was never learnt is found and aborted: it is the one of its
//! key that was not open before. What others have open there is left alone.

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::model::{ContentMd5, Key, Observed};
use crate::plan::parts::{part_count, part_range, part_size};
use crate::plan::{
    Done, ErrorClass, Job, LookAgain, Outcome, Readings, Skip, Task, Verdict, judge,
};
use crate::ports::{
    Change, Complete, JournaledPart, OpenFile, PartDigest, PutPart, StoreError, StoredPart,
    UploadJournal,
};

use super::super::backup::Backup;
use super::super::failure_of;
use super::super::orphans::unheard_of;
use super::compare::{differs_in_kind, digest_parts, head, matching_parts};
use super::small::unstable;
use super::{
    Content, Stop, Target, believed, check_stored, differs_in_size, must_ask, record_synced,
    retouch, tell, write_error,
};

/// Memory of one upload in flight: a quarter of the engine's budget of bytes.
pub const FLIGHT_BYTES: u64 = 32 * 1024 * 1024;

pub(crate) async fn sync(backup: &Backup, job: &Job) -> Result<Done, Stop> {
    let now = backup.clock.now();
    let file = backup.tree.open(job.path.clone()).await?;
    let entry = file.opened();
    if entry.fingerprint.size_bytes <= backup.settings.multipart_threshold {
        // It has shrunk since it was looked at, and fits one request.
        return Err(Outcome::Look(LookAgain::Source).into());
    }
    let racy = backup.is_racy(&entry, now);
    let target = if must_ask(job) && !differs_in_size(job, &entry) {
        match head(backup, &job.key).await? {
            None => Target::Absent,
            Some(head) => {
                let etag = head.object.etag.clone();
                let fits = head.object.size_bytes == entry.fingerprint.size_bytes;
                let same = match fits && !differs_in_kind(&entry, &head) {
                    true => matching_parts(backup, &job.key, &*file, &entry, &head).await?,
                    false => None,
                };
                if let Some(content) = same {
                    stable_enough(&*file, entry.fingerprint.size_bytes).await?;
                    if !backup.is_dry_run() {
                        close_uploads(backup, &job.key).await?;
                    }
                    return retouch::adopt(backup, job, entry, content, head, racy).await;
                }
                Target::There { etag, record: None }
            }
        }
    } else if let (true, Some(object)) = (must_ask(job), &job.target) {
        Target::There { etag: object.etag.clone(), record: None }
    } else {
        believed(job)
    };
    if let (Task::Check, Target::There { etag, record: Some(record) }) = (job.task, &target)
        && let Some(known) = record.content
        && is_same(backup, &*file, entry.fingerprint.size_bytes, known).await?
    {
        stable_enough(&*file, entry.fingerprint.size_bytes).await?;
        return retouch::unchanged(backup, job, entry, record, etag, racy).await;
    }
    let sent = Done::Uploaded { bytes: entry.fingerprint.size_bytes };
    if backup.is_dry_run() {
        return Ok(tell(backup, job, "put", sent));
    }
    let upload = Upload { backup, job, file: &*file, target: &target };
    upload.run(racy).await?;
    Ok(sent)
}

/// Whether the file still has the recorded content. Hashed before anything is sent.
async fn is_same(
    backup: &Backup,
    file: &dyn OpenFile,
    size: u64,
    known: ContentMd5,
) -> Result<bool, Stop> {
    if known.parts == 0 {
        let whole = file.digest(0, size).await?;
        return Ok(whole.bytes == size && ContentMd5::whole(whole.md5) == known);
    }
    let digests = digest_parts(backup, file, size, known.part_size).await?;
    Ok(PartDigest::combine(&digests, known.part_size).0 == known)
}

/// What was hashed is what the file is: nothing changed meanwhile.
async fn stable_enough(file: &dyn OpenFile, read_bytes: u64) -> Result<(), Stop> {
    match verdict(file, read_bytes).await? {
        Verdict::Stable => Ok(()),
        verdict => Err(unstable(verdict)),
    }
}

async fn verdict(file: &dyn OpenFile, read_bytes: u64) -> Result<Verdict, Stop> {
    let before = file.opened();
    let (after, by_path) = file.look().await?;
    let by_path: Observed<&_> = by_path.as_ref();
    Ok(judge(&Readings { before: &before, after: &after, by_path, read_bytes }))
}

/// Aborts the open upload of this key that is ours, known or not, and drops its journal.
pub(crate) async fn close_uploads(backup: &Backup, key: &Key) -> Result<(), Stop> {
    let Some(journal) = backup.state.upload(key).await? else { return Ok(()) };
    let what = format!("abort the upload of {key}");
    let ids = match (journal.upload_id, journal.others) {
        (Some(id), _) => vec![id],
        (None, Some(others)) => {
            let open = backup.store.list_uploads(key).await;
            let open = open.map_err(|error| failure_of(error, &what))?;
            unheard_of(&*backup.store, key, open, &others).await
        }
        // Which of them is ours nobody knows.
        (None, None) => vec![],
    };
    for id in ids {
        let aborted = backup.store.abort_upload(key, &id).await;
        aborted.map_err(|error| failure_of(error, &what))?;
    }
    backup.record(vec![Change::UploadDropped { key: key.clone() }]).await?;
    Ok(())
}

/// One upload in parts.
struct Upload<'a> {
    backup: &'a Backup,
    job: &'a Job,
    file: &'a dyn OpenFile,
    target: &'a Target,
}

impl Upload<'_> {
    async fn run(&self, racy: bool) -> Result<(), Stop> {
        let (backup, entry) = (self.backup, self.file.opened());
        let size = entry.fingerprint.size_bytes;
        let part_size = part_size(size, backup.settings.part_size)
            .map_err(|error| Outcome::Skipped(Skip::TooLarge(error.to_string())))?;
        backup.progress.begin(&self.job.key, self.job.path.to_string());
        let (id, kept) = match self.take_up(part_size).await? {
            Some(taken_up) => taken_up,
            None => (self.create(part_size).await?, vec![]),
        };
        let parts = self.send_parts(&id, part_size, kept).await?;
        let digests: Vec<PartDigest> = parts.iter().map(|part| part.digest).collect();
        let (md5, crc64) = PartDigest::combine(&digests, part_size);
        let content = Content { md5, crc64 };
        self.check_stable(&id, size, part_size, &digests).await?;
        let complete = Complete {
            key: self.job.key.clone(),
            upload_id: id.clone(),
            parts,
            size_bytes: size,
            crc64,
            condition: backup.over(self.target.etag()),
        };
        let what = format!("finish the upload of {}", self.job.key);
        let etag = match backup.store.complete_upload(complete).await {
            Ok(stored) => {
                check_stored(&stored, &content, &what)?;
                if !stored.is_md5 {
                    self.check_by_head(&content, size).await?;
                }
                stored.etag
            }
            Err(StoreError::NoSuchUpload) => self.lost_reply(&content, size).await?,
            Err(StoreError::Precondition) => {
                close_uploads(backup, &self.job.key).await?;
                return Err(write_error(StoreError::Precondition, &what));
            }
            Err(error) => return Err(write_error(error, &what)),
        };
        record_synced(backup, self.job, entry, md5, etag, racy).await
    }

    /// Goes on with a journaled upload, if its file is this one and the server still has it.
    async fn take_up(&self, part_size: u64) -> Result<Option<(String, Vec<JournaledPart>)>, Stop> {
        let Some(journal) = self.backup.state.upload(&self.job.key).await? else {
            return Ok(None);
        };
        let same_file = journal.fingerprint == self.file.opened().fingerprint;
        let (Some(id), true) = (&journal.upload_id, same_file && journal.part_size == part_size)
        else {
            close_uploads(self.backup, &self.job.key).await?;
            return Ok(None);
        };
        let stored = match self.backup.store.list_parts(&self.job.key, id).await {
            Ok(stored) => stored,
            // Gone, or which parts there are is not told, or not us: from the beginning.
            Err(error)
                if matches!(error, StoreError::NoSuchUpload | StoreError::Unsupported(_))
                    || error.is_denied() =>
            {
                close_uploads(self.backup, &self.job.key).await?;
                return Ok(None);
            }
            Err(error) => {
                let what = format!("list the parts of {}", self.job.key);
                return Err(failure_of(error, &what).into());
            }
        };
        let kept = self.keep(&journal, &stored).await?;
        tracing::info!(path = %self.job.path, parts = kept.len(), "going on with an upload");
        Ok(Some((id.clone(), kept)))
    }

    /// The parts that the journal and the server agree on and that the file still holds.
    async fn keep(
        &self,
        journal: &UploadJournal,
        stored: &[StoredPart],
    ) -> Result<Vec<JournaledPart>, Stop> {
        let size = self.file.opened().fingerprint.size_bytes;
        let mut kept = vec![];
        for part in journal.parts.iter().filter(|part| stored.contains(&part.stored)) {
            let (offset, length) = part_range(part.stored.number, size, journal.part_size);
            if self.file.digest(offset, length).await? == part.digest {
                kept.push(part.clone());
            }
        }
        Ok(kept)
    }

    async fn create(&self, part_size: u64) -> Result<String, Stop> {
        let (backup, entry) = (self.backup, self.file.opened());
        let key = self.job.key.clone();
        let journal = UploadJournal {
            key: key.clone(),
            upload_id: None,
            others: self.open_already().await?,
            part_size,
            fingerprint: entry.fingerprint,
            parts: vec![],
        };
        let intent = Change::Uploading { key: key.clone(), entry };
        backup.record(vec![intent, Change::UploadOpening(journal)]).await?;
        let created = backup.store.create_upload(&key, &entry.meta()).await;
        let what = format!("begin to upload {key}");
        let upload_id = created.map_err(|error| write_error(error, &what))?;
        backup.record(vec![Change::UploadOpened { key, upload_id: upload_id.clone() }]).await?;
        Ok(upload_id)
    }

    /// The uploads of this key that others have open: should nobody hear of the id of ours, it is
    /// the one that is not among these. `None` where the server does not tell them, or not us: then
    /// ours could not be found either, and is no reason to leave the file without a backup.
    async fn open_already(&self) -> Result<Option<Vec<String>>, Stop> {
        let key = &self.job.key;
        match self.backup.store.list_uploads(key).await {
            Ok(ids) => Ok(Some(ids)),
            Err(StoreError::Unsupported(_)) => Ok(None),
            Err(error) => {
                let failure = failure_of(error, &format!("list the uploads of {key}"));
                match failure.class {
                    ErrorClass::Denied | ErrorClass::Path => Ok(None),
                    _ => Err(failure.into()),
                }
            }
        }
    }

    /// Sends what is missing, several parts at a time, and answers with all parts in order.
    async fn send_parts(
        &self,
        id: &str,
        part_size: u64,
        kept: Vec<JournaledPart>,
    ) -> Result<Vec<JournaledPart>, Stop> {
        let size = self.file.opened().fingerprint.size_bytes;
        let count = u32::try_from(part_count(size, part_size)).unwrap_or(u32::MAX);
        let at_once = usize::try_from(FLIGHT_BYTES / part_size).unwrap_or(1).max(1);
        let has = |number| kept.iter().any(|part| part.stored.number == number);
        let missing: Vec<u32> = (1..=count).filter(|number| !has(*number)).collect();
        let mut missing = missing.into_iter();
        let advance = |bytes| self.backup.progress.advance(&self.job.key, bytes);
        advance(kept.iter().map(|part| part.digest.bytes).sum());
        let mut parts = kept;
        let mut flying = FuturesUnordered::new();
        let mut failed = None;
        loop {
            while failed.is_none() && flying.len() < at_once && !self.backup.is_halted() {
                let Some(number) = missing.next() else { break };
                flying.push(self.send_part(id, number, part_size));
            }
            match (flying.next().await, failed.take()) {
                (Some(Ok(part)), first) => {
                    parts.push(part);
                    failed = first;
                }
                // The others are on their way: they go on to their end, and into the journal.
                (Some(Err(stop)), first) => failed = Some(first.unwrap_or(stop)),
                (None, Some(stop)) => return Err(stop),
                (None, None) if self.backup.is_halted() => {
                    return Err(Outcome::Cancelled.into());
                }
                (None, None) => break,
            }
        }
        parts.sort_by_key(|part| part.stored.number);
        Ok(parts)
    }

    async fn send_part(
        &self,
        id: &str,
        number: u32,
        part_size: u64,
    ) -> Result<JournaledPart, Stop> {
        let size = self.file.opened().fingerprint.size_bytes;
        let (offset, length) = part_range(number, size, part_size);
        let _slot = self.backup.slot().await;
        if self.backup.is_halted() {
            return Err(Outcome::Cancelled.into());
        }
        let chunk = self.file.read(offset, length).await?;
        if chunk.digest.bytes != length {
            self.abandon().await?;
            return Err(Outcome::Torn.into());
        }
        let key = &self.job.key;
        let part = PutPart {
            key: key.clone(),
            upload_id: id.to_owned(),
            number,
            body: chunk.bytes,
            md5: chunk.digest.md5,
            crc64: chunk.digest.crc64,
        };
        let stored = match self.backup.store.put_part(part).await {
            Ok(stored) => stored,
            Err(StoreError::NoSuchUpload) => {
                // Somebody aborted it, a lifecycle rule perhaps: begin anew.
                self.backup.record(vec![Change::UploadDropped { key: key.clone() }]).await?;
                let what = format!("send part {number} of {key}");
                return Err(failure_of(StoreError::NoSuchUpload, &what).into());
            }
            Err(error) => return Err(write_error(error, &format!("send part {number} of {key}"))),
        };
        let part = JournaledPart { stored, digest: chunk.digest };
        self.backup.record(vec![Change::PartDone { key: key.clone(), part: part.clone() }]).await?;
        self.backup.progress.advance(key, length);
        Ok(part)
    }

    /// Nothing is completed that is not one consistent content of the file.
    async fn check_stable(
        &self,
        id: &str,
        size: u64,
        part_size: u64,
        sent: &[PartDigest],
    ) -> Result<(), Stop> {
        let verdict = verdict(self.file, size).await?;
        let stable = match verdict {
            Verdict::Stable => true,
            Verdict::Grown => {
                let again = digest_parts(self.backup, self.file, size, part_size).await?;
                again == sent
            }
            _ => false,
        };
        if stable {
            return Ok(());
        }
        tracing::debug!(path = %self.job.path, id, ?verdict, "the file changed while it was sent");
        self.abandon().await?;
        Err(unstable(verdict))
    }

    async fn abandon(&self) -> Result<(), Stop> {
        close_uploads(self.backup, &self.job.key).await
    }

    /// The upload is unknown to the server: its completion may have succeeded unheard.
    async fn lost_reply(&self, content: &Content, size: u64) -> Result<crate::model::ETag, Stop> {
        if let Some(head) = head(self.backup, &self.job.key).await? {
            let same = match content.md5.matches(&head.object.etag) {
                Some(same) => same,
                None => head.crc64 == Some(content.crc64),
            };
            if same && head.object.size_bytes == size {
                return Ok(head.object.etag);
            }
        }
        let key = self.job.key.clone();
        let what = format!("finish the upload of {key}");
        self.backup.record(vec![Change::UploadDropped { key }]).await?;
        Err(failure_of(StoreError::NoSuchUpload, &what).into())
    }

    /// Where the ETag says nothing about the content, its size and checksum must do.
    async fn check_by_head(&self, content: &Content, size: u64) -> Result<(), Stop> {
        let right = |head: &crate::model::ObjectHead| {
            head.object.size_bytes == size && head.crc64.is_none_or(|crc| crc == content.crc64)
        };
        if head(self.backup, &self.job.key).await?.is_some_and(|head| right(&head)) {
            return Ok(());
        }
        let message = format!("cannot upload {}", self.job.key);
        let failure = crate::plan::Failure::new(ErrorClass::Server, message);
        Err(failure.because("the server stored something else").into())
    }
}
