//! Asking the server what is there: to adopt what is right already, and to settle what a crash, a
//! lost reply or another writer left uncertain.

use crate::model::{
    ContentMd5, ETag, Entry, Fingerprint, Key, Kind, Millis, Object, ObjectHead, Record, Source,
    Trust,
};
use crate::plan::parts::likely_part_sizes;
use crate::plan::{Done, Job, LookAgain, Outcome};
use crate::ports::{Change, OpenFile, PartDigest};

use super::super::backup::Backup;
use super::super::failure_of;
use super::{Content, Stop, tell};

/// What is at the key.
pub(crate) enum Found {
    Nothing,
    Same { head: ObjectHead },
    Different { etag: ETag },
}

/// Compares content in memory with the object.
pub(crate) async fn with_object(
    backup: &Backup,
    job: &Job,
    entry: &Entry,
    content: &Content,
) -> Result<Found, Stop> {
    let Some(head) = head(backup, &job.key).await? else { return Ok(Found::Nothing) };
    let etag = head.object.etag.clone();
    if head.object.size_bytes != entry_size(entry) || differs_in_kind(entry, &head) {
        return Ok(Found::Different { etag });
    }
    let same = match content.md5.matches(&etag) {
        Some(same) => Some(same),
        None => head.crc64.map(|crc64| crc64 == content.crc64),
    };
    match same {
        Some(true) => Ok(Found::Same { head }),
        Some(false) => Ok(Found::Different { etag }),
        // A small object that was sent in parts: its ETag tells, read part by part.
        None if entry.kind == Kind::File => {
            let file = backup.tree.open(job.path.clone()).await?;
            match matching_parts(backup, &job.key, &*file, entry, &head).await? {
                Some(_) => Ok(Found::Same { head }),
                None => Ok(Found::Different { etag }),
            }
        }
        None => Ok(Found::Different { etag }),
    }
}

/// Looks at the object.
pub(crate) async fn head(backup: &Backup, key: &Key) -> Result<Option<ObjectHead>, Stop> {
    let _slot = backup.slot().await;
    let head = backup.store.head(key).await;
    Ok(head.map_err(|error| failure_of(error, &format!("look at {key}")))?)
}

/// A link and a file with the same bytes are not the same.
pub(crate) fn differs_in_kind(entry: &Entry, head: &ObjectHead) -> bool {
    const TYPE_BITS: u32 = 0o170_000;
    match head.meta.mode {
        Some(mode) => mode & TYPE_BITS != 0 && mode & TYPE_BITS != entry.mode & TYPE_BITS,
        // Other tools' objects have no mode; a link must say that it is one.
        None => entry.kind == Kind::Link,
    }
}

fn entry_size(entry: &Entry) -> u64 {
    match entry.kind {
        Kind::Folder => 0,
        Kind::File | Kind::Link => entry.fingerprint.size_bytes,
    }
}

/// Hashes the file in the parts that the object was sent in, as far as they can be known, and
/// answers with the content if it is the object's.
pub(crate) async fn matching_parts(
    backup: &Backup,
    key: &Key,
    file: &dyn OpenFile,
    entry: &Entry,
    head: &ObjectHead,
) -> Result<Option<ContentMd5>, Stop> {
    let size = entry.fingerprint.size_bytes;
    let Some((digest, parts)) = head.object.etag.as_md5() else {
        let Some(crc64) = head.crc64 else { return Ok(None) };
        let whole = file.digest(0, size).await?;
        let same = whole.bytes == size && whole.crc64 == crc64;
        return Ok(same.then(|| ContentMd5::whole(whole.md5)));
    };
    if parts == 0 {
        let whole = file.digest(0, size).await?;
        let same = whole.bytes == size && whole.md5 == digest;
        return Ok(same.then(|| ContentMd5::whole(whole.md5)));
    }
    let told = backup.store.first_part_size(key).await;
    let told = told.map_err(|error| failure_of(error, &format!("look at {key}")))?;
    let sizes = match told {
        Some(part_size) => vec![part_size],
        None => likely_part_sizes(size, parts),
    };
    for part_size in sizes.into_iter().filter(|part_size| *part_size > 0) {
        let digests = digest_parts(backup, file, size, part_size).await?;
        let (content, _) = PartDigest::combine(&digests, part_size);
        if content.digest == digest && content.parts == parts {
            return Ok(Some(content));
        }
    }
    Ok(None)
}

/// Digests of all parts of a file, in order.
pub(crate) async fn digest_parts(
    backup: &Backup,
    file: &dyn OpenFile,
    size: u64,
    part_size: u64,
) -> Result<Vec<PartDigest>, Stop> {
    let mut digests = vec![];
    let mut offset = 0;
    while offset < size || digests.is_empty() {
        if backup.is_halted() {
            return Err(Outcome::Cancelled.into());
        }
        let length = part_size.min(size - offset);
        let digest = file.digest(offset, length).await?;
        if digest.bytes != length {
            return Err(Outcome::Torn.into());
        }
        offset += length;
        digests.push(digest);
    }
    Ok(digests)
}

/// Settles a key whose source is gone and whose last request may have arrived.
pub(crate) async fn resolve_without_source(backup: &Backup, job: &Job) -> Result<Done, Stop> {
    let stat = backup.tree.stat(vec![job.path.clone()]).await?.pop();
    let excluded = match stat.map(|stat| stat.at(&job.key)) {
        Some(Source::Absent) => false,
        Some(Source::Excluded) => true,
        // It is there again, or cannot be looked at: plan anew.
        _ => return Err(Outcome::Look(LookAgain::Source).into()),
    };
    let head = head(backup, &job.key).await?;
    if backup.is_dry_run() {
        return Ok(tell(backup, job, "forget", Done::Settled));
    }
    super::large::close_uploads(backup, &job.key).await?;
    let change = match (head, &job.base) {
        (None, _) => Change::Forget { key: job.key.clone(), keep: None },
        (Some(head), _) if excluded => {
            Change::Forget { key: job.key.clone(), keep: Some(head.object) }
        }
        (Some(head), base) => Change::Synced {
            key: job.key.clone(),
            record: left_behind(base.as_ref(), head, backup.clock.now()),
        },
    };
    backup.record(vec![change]).await?;
    Ok(Done::Settled)
}

/// A record of our object whose source is gone: known well enough to be deleted in due course. Of
/// the file nothing is known but its disk, whatever the upload was about to send: should it come
/// back, it is compared with the object by its content.
fn left_behind(base: Option<&Record>, head: ObjectHead, now: Millis) -> Record {
    let Object { size_bytes, etag, .. } = head.object;
    let device = base.map_or(0, |record| record.entry.fingerprint.device);
    let fingerprint = Fingerprint { size_bytes, device, ..Fingerprint::default() };
    let kind = base.map_or(Kind::File, |record| record.entry.kind);
    let content = match etag.as_md5() {
        Some((digest, 0)) => Some(ContentMd5::whole(digest)),
        _ => None,
    };
    Record {
        entry: Entry { kind, fingerprint, mode: 0, uid: 0, gid: 0 },
        content,
        etag: Some(etag),
        trust: Trust::Synced,
        racy: false,
        stale_meta: false,
        missing_since: Some(now),
        approved: false,
    }
}
