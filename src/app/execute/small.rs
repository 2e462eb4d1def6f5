//! Files that fit one request, links and folder markers: read once, hashed, compared, sent.

use bytes::Bytes;

use crate::model::{ContentMd5, Crc64, Entry, Key, Kind, Md5, Trust};
use crate::plan::{Done, Job, LookAgain, Outcome, Readings, Skip, Task, Verdict, judge};
use crate::ports::{Put, WholeRead};

use super::super::backup::Backup;
use super::compare::{self, Found};
use super::{
    Content, Stop, Target, believed, check_stored, differs_in_size, intend, large, must_ask,
    record_synced, retouch, tell, write_error,
};

/// Content in memory, of an entry that was stable while it was read.
struct Read {
    entry: Entry,
    bytes: Bytes,
    content: Content,
    racy: bool,
}

pub(crate) async fn sync(backup: &Backup, job: &Job, planned: &Entry) -> Result<Done, Stop> {
    let Some(read) = read(backup, job, planned).await? else {
        // It has grown over the limit of one request since it was looked at.
        return large::sync(backup, job).await;
    };
    if may_have_uploads(job) && !backup.is_dry_run() {
        // It was larger when it was last begun to be sent.
        large::close_uploads(backup, &job.key).await?;
    }
    let target = if must_ask(job) && !differs_in_size(job, &read.entry) {
        match compare::with_object(backup, job, &read.entry, &read.content).await? {
            Found::Same { head } => {
                let Read { entry, content, racy, .. } = read;
                return retouch::adopt(backup, job, entry, content.md5, head, racy).await;
            }
            Found::Different { etag } => Target::There { etag, record: None },
            Found::Nothing => Target::Absent,
        }
    } else if must_ask(job) {
        match &job.target {
            Some(object) => Target::There { etag: object.etag.clone(), record: None },
            None => Target::Absent,
        }
    } else {
        believed(job)
    };
    if let (Task::Check, Target::There { etag, record: Some(record) }) = (job.task, &target)
        && is_same(&read, record.content)
    {
        let Read { entry, racy, .. } = read;
        return retouch::unchanged(backup, job, entry, record, etag, racy).await;
    }
    put(backup, job, read, &target).await
}

fn may_have_uploads(job: &Job) -> bool {
    must_ask(job) || job.base.as_ref().is_some_and(|record| record.trust == Trust::Uploading)
}

/// Whether the recorded content is this one, also when it was once sent in parts.
fn is_same(read: &Read, recorded: Option<ContentMd5>) -> bool {
    match recorded {
        Some(known) if known.parts == 0 => known == read.content.md5,
        Some(known) if known.part_size > 0 => {
            let size = usize::try_from(known.part_size).unwrap_or(usize::MAX);
            let parts: Vec<Md5> = read.bytes.chunks(size).map(Md5::of).collect();
            known == ContentMd5::of_parts(&parts, known.part_size)
        }
        _ => false,
    }
}

/// Reads the entry as it is now. `None` when it is a file too large for one request.
async fn read(backup: &Backup, job: &Job, planned: &Entry) -> Result<Option<Read>, Stop> {
    let now = backup.clock.now();
    let (entry, bytes) = match planned.kind {
        Kind::Folder => (*planned, Bytes::new()),
        Kind::Link => backup.tree.read_link(job.path.clone()).await?,
        Kind::File => {
            let limit = backup.settings.multipart_threshold;
            let read = backup.tree.read_whole(job.path.clone(), limit).await?;
            if read.before.fingerprint.size_bytes > limit {
                return Ok(None);
            }
            let (md5, crc64) = (read.md5, read.crc64);
            let racy = backup.is_racy(&read.before, now);
            let (entry, bytes) = stable(backup, job, read).await?;
            let content = Content { md5: ContentMd5::whole(md5), crc64 };
            return Ok(Some(Read { entry, bytes, content, racy }));
        }
    };
    let md5 = ContentMd5::whole(Md5::of(&bytes));
    let content = Content { md5, crc64: Crc64::of(&bytes) };
    Ok(Some(Read { entry, bytes, content, racy: false }))
}

/// Lets a reading pass when it is one consistent content of the file.
async fn stable(backup: &Backup, job: &Job, read: WholeRead) -> Result<(Entry, Bytes), Stop> {
    let read_bytes = read.bytes.len() as u64;
    let by_path = read.by_path.as_ref();
    let readings = Readings { before: &read.before, after: &read.after, by_path, read_bytes };
    match judge(&readings) {
        Verdict::Stable => Ok((read.before, read.bytes)),
        Verdict::Grown => {
            let file = backup.tree.open(job.path.clone()).await?;
            let again = file.digest(0, read_bytes).await?;
            match again.bytes == read_bytes && again.md5 == read.md5 {
                true => Ok((read.before, read.bytes)),
                false => Err(Outcome::Torn.into()),
            }
        }
        verdict => Err(unstable(verdict)),
    }
}

/// What an unstable reading means.
pub(crate) fn unstable(verdict: Verdict) -> Stop {
    match verdict {
        Verdict::Gone | Verdict::Replaced => Outcome::Look(LookAgain::Source).into(),
        Verdict::Unsure => {
            let cause = "its name could not be looked up after it was read".to_owned();
            Outcome::Skipped(Skip::Unreadable(cause)).into()
        }
        Verdict::Stable | Verdict::Grown | Verdict::Torn => Outcome::Torn.into(),
    }
}

async fn put(backup: &Backup, job: &Job, read: Read, target: &Target) -> Result<Done, Stop> {
    let Read { entry, bytes, content, racy } = read;
    let sent = Done::Uploaded { bytes: bytes.len() as u64 };
    if backup.is_dry_run() {
        return Ok(tell(backup, job, "put", sent));
    }
    intend(backup, job, &entry).await?;
    let put = Put {
        key: job.key.clone(),
        body: bytes,
        md5: content.md5.digest,
        crc64: content.crc64,
        meta: entry.meta(),
        condition: backup.over(target.etag()),
    };
    let what = what(&job.key);
    let stored = {
        let _slot = backup.slot().await;
        if backup.is_halted() {
            return Err(Outcome::Cancelled.into());
        }
        backup.progress.begin(&job.key, job.path.to_string());
        backup.store.put(put).await
    };
    backup.progress.end(&job.key);
    let stored = stored.map_err(|error| write_error(error, &what))?;
    check_stored(&stored, &content, &what)?;
    record_synced(backup, job, entry, content.md5, stored.etag, racy).await?;
    Ok(sent)
}

fn what(key: &Key) -> String {
    format!("upload {key}")
}
