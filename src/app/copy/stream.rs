//! Content that comes through this machine, from one server to another: read once, hashed as it
//! comes, compared with what the source says, and sent with digests that the destination verifies.
//!
//! Content waits for room in memory before it is read. A connection that breaks is taken up where
//! it broke, of the same version with the same ETag.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::SemaphorePermit;

use crate::model::checksum::Summing;
use crate::model::content::Digester;
use crate::model::{Checksum, Crc64, ETag};
use crate::plan::parts::part_range;
use crate::ports::{Change, FullHead, JournaledPart, ObjectId, PartDigest, PutCopy, PutPart};

use super::super::failure_of;
use super::super::patience::{Attempts, Stop};
use super::parts::Parts;
use super::{Copier, MEMORY_BYTES, found, of_object};

/// What came through, as a whole.
#[derive(Clone, Debug)]
pub(super) struct Passed {
    pub(super) crc64: Crc64,
    /// In the form that the source has one in, where it was made.
    pub(super) sum: Option<Checksum>,
}

impl Copier {
    /// Waits for room in memory.
    async fn room(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        let kib = bytes.min(MEMORY_BYTES).div_ceil(1024);
        self.memory.acquire_many(u32::try_from(kib).unwrap_or(u32::MAX)).await.ok()
    }

    pub(super) async fn stream_whole(&self, id: &ObjectId, full: &FullHead) -> Result<ETag, Stop> {
        let head = &full.head;
        let tags = self.tags_of(id, full).await?;
        let _room = self.room(head.object.size_bytes).await;
        let _slot = self.slot().await;
        let body = self.read(id, 0..head.object.size_bytes, true).await?;
        let mut digester = Digester::default();
        digester.update(&body);
        let (md5, crc64) = digester.finish();
        let wrong = |what: &str| {
            Err(Stop::Path(format!("what was read is not what the source's {what} says")))
        };
        if head.crc64().is_some_and(|known| known != crc64) {
            return wrong("CRC64NVME");
        }
        if head.md5.is_some_and(|known| known != md5) {
            return wrong("MD5");
        }
        self.expect_whole(id, full, Some(md5)).await?;
        let (key, headers) = (id.key.clone(), full.headers.clone());
        let checksum = head.checksum.clone();
        let put = PutCopy { key, body, md5, crc64, checksum, headers, tags };
        let stored =
            self.patience.insist(|| of_object(&id.key, self.target.put_copy(put.clone()))).await?;
        if stored.is_md5 && stored.etag.as_md5() != Some((md5, 0)) {
            return Err(Stop::Path("the server stored something else".to_owned()));
        }
        Ok(stored.etag)
    }

    /// Reads a range, however often its connection breaks.
    async fn read(&self, id: &ObjectId, range: Range<u64>, is_all: bool) -> Result<Bytes, Stop> {
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut content = BytesMut::with_capacity(length.min(64 << 20));
        let mut attempts = Attempts::new();
        while content.len() < length {
            let rest = range.start + content.len() as u64..range.end;
            // Not every server knows ranges, and small objects need none.
            let asked = (rest.start > 0 || !is_all).then_some(rest);
            let open = || of_object(&id.key, self.source.read(id, asked.clone()));
            let reading = self.patience.insist(open).await?;
            let mut body = found(reading)?.body;
            while let Some(bytes) = body.next().await {
                match bytes {
                    Ok(bytes) => content.extend_from_slice(&bytes),
                    Err(error) => {
                        let failure = failure_of(error, "read the source");
                        self.patience.pause(&mut attempts, failure).await?;
                        break;
                    }
                }
                if content.len() > length {
                    return Err(Stop::Path("the source sends more than it has".to_owned()));
                }
            }
        }
        Ok(content.freeze())
    }
}

impl Parts<'_> {
    /// Brings the parts through here: read one after the other, sent several at a time.
    pub(super) async fn pass_through(&self, kept: Vec<JournaledPart>) -> Result<ETag, Stop> {
        let copier = self.copier;
        let mut whole = Whole::for_proof(self);
        let mut parts = vec![];
        let mut flying = FuturesUnordered::new();
        for number in self.numbers() {
            let (offset, length) = part_range(number, self.size(), self.part_size);
            let known = kept.iter().find(|part| part.stored.number == number);
            if let (Some(part), false) = (known, whole.needs_bytes()) {
                whole.add_digest(&part.digest);
                copier.progress.advance(&self.id.key, length);
                parts.push(part.clone());
                continue;
            }
            let mut reading = std::pin::pin!(async {
                let room = copier.room(length).await;
                let slot = copier.slot().await;
                let bytes = copier.read(self.id, offset..offset + length, false).await;
                drop(slot);
                bytes.map(|bytes| (room, bytes))
            });
            let (room, bytes) = loop {
                tokio::select! {
                    biased;
                    Some(sent) = flying.next(), if !flying.is_empty() => parts.push(sent?),
                    read = &mut reading => break read?,
                }
            };
            let mut digester = Digester::default();
            digester.update(&bytes);
            let (md5, crc64) = digester.finish();
            let digest = PartDigest { bytes: length, md5, crc64 };
            whole.add(&bytes, &digest);
            match known.filter(|part| part.digest == digest) {
                Some(part) => parts.push(part.clone()),
                None => flying.push(self.send(number, bytes, digest, room)),
            }
        }
        while let Some(sent) = flying.next().await {
            parts.push(sent?);
        }
        drop(flying);
        parts.sort_by_key(|part| part.stored.number);
        self.finish(parts, Some(whole.end())).await
    }

    async fn send(
        &self,
        number: u32,
        body: Bytes,
        digest: PartDigest,
        room: Option<SemaphorePermit<'_>>,
    ) -> Result<JournaledPart, Stop> {
        let copier = self.copier;
        let part = PutPart {
            key: self.id.key.clone(),
            upload_id: self.upload_id.clone(),
            number,
            body,
            md5: digest.md5,
            crc64: digest.crc64,
        };
        let _slot = copier.slot().await;
        let stored = copier
            .patience
            .insist(|| of_object(&part.key, copier.target.put_part(part.clone())))
            .await?;
        drop((part, room));
        let part = JournaledPart { stored, digest };
        let done = Change::PartDone { key: self.id.key.clone(), part: part.clone() };
        copier.note_in_journal(vec![done]).await?;
        copier.progress.advance(&self.id.key, digest.bytes);
        Ok(part)
    }
}

/// Digests over all parts in order.
struct Whole {
    crc64: Crc64,
    /// It needs every byte: where nothing else proves the content, those of kept parts again, too;
    /// where something does, it is made if no part was kept.
    sum: Option<Summing>,
    is_proven: bool,
}

impl Whole {
    fn for_proof(parts: &Parts<'_>) -> Self {
        let part_bytes = parts.source_part.unwrap_or(u64::MAX);
        let sum = parts.known_sum().and_then(|(_, sum)| Summing::new(sum.form, part_bytes));
        let is_proven = parts.etag_tells() || parts.full.head.crc64().is_some();
        Self { crc64: Crc64::EMPTY, sum, is_proven }
    }

    fn needs_bytes(&self) -> bool {
        self.sum.is_some() && !self.is_proven
    }

    /// Of a part that was kept.
    fn add_digest(&mut self, digest: &PartDigest) {
        self.crc64 = self.crc64.then(digest.crc64, digest.bytes);
        self.sum = None;
    }

    fn add(&mut self, bytes: &[u8], digest: &PartDigest) {
        self.crc64 = self.crc64.then(digest.crc64, digest.bytes);
        if let Some(sum) = &mut self.sum {
            sum.add(bytes);
        }
    }

    fn end(self) -> Passed {
        Passed { crc64: self.crc64, sum: self.sum.map(Summing::finish) }
    }
}
