//! Content that is right already: the record is refreshed, and the object's metadata is replaced
//! where it differs, without sending a byte.

use crate::model::{ContentMd5, ETag, Entry, ObjectHead, Record};
use crate::plan::{Deletions, Done, Job, LookAgain, Outcome};
use crate::ports::{Change, StoreError};

use super::super::FILE;
use super::super::backup::Backup;
use super::{Stop, intend, record_synced, tell, write_error};

/// S3 copies no object larger than this in one request (AWS S3 user guide, "copying objects").
const COPY_MAX_BYTES: u64 = 5 * 1024 * 1024 * 1024;

/// The content is the recorded one; the fingerprint is not.
pub(crate) async fn unchanged(
    backup: &Backup,
    job: &Job,
    entry: Entry,
    record: &Record,
    etag: &ETag,
    racy: bool,
) -> Result<Done, Stop> {
    let content = record.content.unwrap_or(ContentMd5::whole(crate::model::Md5([0; 16])));
    if record.meta() == entry.meta() && !record.stale_meta {
        if !backup.is_dry_run() {
            record_synced(backup, job, entry, content, etag.clone(), racy).await?;
        }
        return Ok(Done::Unchanged);
    }
    let fits = entry.fingerprint.size_bytes <= COPY_MAX_BYTES;
    replace_meta(backup, job, entry, content, etag, racy, fits).await
}

/// The object has the right content; takes it over, and mends its metadata. The marks of its
/// deletion come off: a restore would leave it out.
pub(crate) async fn adopt(
    backup: &Backup,
    job: &Job,
    entry: Entry,
    content: ContentMd5,
    head: ObjectHead,
    racy: bool,
) -> Result<Done, Stop> {
    let etag = head.object.etag.clone();
    take_marks_off(backup, job, &entry, head.tags).await?;
    if head.meta == entry.meta() {
        if backup.is_dry_run() {
            return Ok(tell(backup, job, "adopt", Done::Adopted));
        }
        record_synced(backup, job, entry, content, etag, racy).await?;
        return Ok(Done::Adopted);
    }
    let fits = head.object.size_bytes <= COPY_MAX_BYTES && !head.object.archived;
    if backup.is_dry_run() {
        return Ok(tell(backup, job, "adopt", Done::Adopted));
    }
    replace_meta(backup, job, entry, content, &etag, racy, fits).await?;
    Ok(Done::Adopted)
}

/// No record tells whether what is adopted was tagged as deleted: the number of its tags does.
/// Where the server does not tell that, they are asked for where deletions are tagged.
async fn take_marks_off(
    backup: &Backup,
    job: &Job,
    entry: &Entry,
    tags: Option<u32>,
) -> Result<(), Stop> {
    let may_be_marked = match tags {
        Some(count) => count > 0,
        None => backup.settings.deletions == Deletions::Tag,
    };
    if !may_be_marked || backup.is_dry_run() {
        return Ok(());
    }
    intend(backup, job, entry).await?;
    let sent = {
        let _slot = backup.slot().await;
        backup.store.untag_deleted(&job.key).await
    };
    match sent {
        Ok(true) => {
            tracing::info!(target: FILE, backup = %backup.settings.name, "untagged {}", job.key);
            Ok(())
        }
        // A server without tags has no marks.
        Ok(false) | Err(StoreError::Unsupported(_)) => Ok(()),
        Err(error) => Err(write_error(error, &format!("take the marks off {}", job.key))),
    }
}

async fn replace_meta(
    backup: &Backup,
    job: &Job,
    entry: Entry,
    content: ContentMd5,
    etag: &ETag,
    racy: bool,
    fits: bool,
) -> Result<Done, Stop> {
    if backup.is_dry_run() {
        return Ok(tell(backup, job, "copy", Done::Retouched));
    }
    if !fits {
        return keep_stale(backup, job, entry, content, etag, racy).await;
    }
    intend(backup, job, &entry).await?;
    let copied = {
        let _slot = backup.slot().await;
        backup.store.retouch(&job.key, etag, &entry.meta()).await
    };
    match copied {
        Ok(etag) => {
            record_synced(backup, job, entry, content, etag, racy).await?;
            Ok(Done::Retouched)
        }
        // The server cannot copy this one: the change stays in the record.
        Err(StoreError::Unsupported(_)) => {
            keep_stale(backup, job, entry, content, etag, racy).await
        }
        Err(StoreError::Precondition) => Err(Outcome::Look(LookAgain::Target).into()),
        Err(error) => Err(write_error(error, &format!("copy {} onto itself", job.key))),
    }
}

/// The object keeps its old metadata; the record knows.
async fn keep_stale(
    backup: &Backup,
    job: &Job,
    entry: Entry,
    content: ContentMd5,
    etag: &ETag,
    racy: bool,
) -> Result<Done, Stop> {
    let record = Record { stale_meta: true, ..Record::synced(entry, content, etag.clone(), racy) };
    backup.record(vec![Change::Synced { key: job.key.clone(), record }]).await?;
    Ok(Done::Unchanged)
}
