//! Acting: one job, from a fresh look at the file to a durable record of what came of it.
//!
//! Consistency. What is sent was read from one open file whose fingerprint was the same before,
//! after, and by path ([`crate::plan::judge`]); or it is what a growing file held when it was
//! opened, read twice.
//!
//! Crash. Before the first request that changes the object its record says `uploading`, durably. A
//! crash at any later moment leaves a record that is not believed: the next run asks the server and
//! goes on from there. Nothing here needs undoing.
//!
//! Retries. None for long; the outcome says what happened, and the engine decides when to try
//! again.
//!
//! Cancellation. A transfer that is told to stop returns at the next part; what the server has of
//! a multipart upload is journaled and is used by the next attempt.

mod compare;
pub mod large;
mod retouch;
mod small;

use std::sync::Arc;

use crate::model::{ContentMd5, Crc64, ETag, Entry, Kind, Object, Record};
use crate::plan::{Done, ErrorClass, Failure, Job, LookAgain, Outcome, Skip, Task, Why};
use crate::ports::{Change, ReadError, StoreError, Stored};

use super::backup::Backup;
use super::failure_of;

/// What stops a job before it is done.
#[derive(Debug)]
pub(crate) enum Stop {
    Outcome(Outcome),
}

impl From<Outcome> for Stop {
    fn from(outcome: Outcome) -> Self {
        Self::Outcome(outcome)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Outcome(Outcome::Failed(failure))
    }
}

impl From<crate::ports::StateError> for Stop {
    fn from(error: crate::ports::StateError) -> Self {
        Failure::from(error).into()
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Outcome(match error {
            ReadError::Changed => Outcome::Look(LookAgain::Source),
            ReadError::Unreadable(cause) => Outcome::Skipped(Skip::Unreadable(cause)),
            ReadError::Busy(failure) => Outcome::Failed(failure),
        })
    }
}

/// Brings one key up to date.
pub async fn sync(backup: Arc<Backup>, job: Job) -> Outcome {
    let result = match (&job.entry, job.task) {
        (None, _) => compare::resolve_without_source(&backup, &job).await,
        (Some(entry), _) => match entry.kind {
            Kind::File if entry.fingerprint.size_bytes > backup.settings.multipart_threshold => {
                large::sync(&backup, &job).await
            }
            Kind::File | Kind::Link | Kind::Folder => small::sync(&backup, &job, entry).await,
        },
    };
    backup.progress.end(&job.key);
    match result {
        Ok(done) => {
            if let Some(entry) = &job.entry {
                backup.progress.count(entry.kind, done);
            }
            Outcome::Done(done)
        }
        Err(Stop::Outcome(outcome)) => outcome,
    }
}

/// What is known about the object before it is written.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Nothing is there.
    Absent,
    /// This object is there; the record, if given, describes its content and metadata.
    There { etag: ETag, record: Option<Record> },
}

impl Target {
    fn etag(&self) -> Option<&ETag> {
        match self {
            Self::Absent => None,
            Self::There { etag, .. } => Some(etag),
        }
    }
}

/// What the plan believed about the object, where it need not be asked.
fn believed(job: &Job) -> Target {
    let record = job.base.clone();
    match (job.why, record.as_ref().and_then(|r| r.etag.clone())) {
        (Why::Lost, _) | (_, None) => Target::Absent,
        (_, Some(etag)) => Target::There { etag, record },
    }
}

/// Content that was read, and what it is known by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    pub md5: ContentMd5,
    pub crc64: Crc64,
}

/// The server said that the object is as it should be: makes it a record.
pub(crate) async fn record_synced(
    backup: &Backup,
    job: &Job,
    entry: Entry,
    content: ContentMd5,
    etag: ETag,
    racy: bool,
) -> Result<(), Stop> {
    let record = Record::synced(entry, content, etag, racy);
    backup.record(vec![Change::Synced { key: job.key.clone(), record }]).await?;
    Ok(())
}

/// The record that must be durable before a request changes the object.
pub(crate) async fn intend(backup: &Backup, job: &Job, entry: &Entry) -> Result<(), Stop> {
    backup.record(vec![Change::Uploading { key: job.key.clone(), entry: *entry }]).await?;
    Ok(())
}

/// Judges the reply to an upload: where its ETag is an MD5, it must be that of what was sent.
pub(crate) fn check_stored(stored: &Stored, content: &Content, what: &str) -> Result<(), Stop> {
    if stored.is_md5 && content.md5.matches(&stored.etag) == Some(false) {
        let cause = format!(
            "the server stored something else (its ETag is {}, the content's MD5 {})",
            stored.etag, content.md5
        );
        let failure = Failure::new(ErrorClass::Server, format!("cannot {what}"));
        return Err(failure.because(cause).into());
    }
    Ok(())
}

/// What an error of a write means for the job.
pub(crate) fn write_error(error: StoreError, what: &str) -> Stop {
    match error {
        StoreError::Precondition => Outcome::Look(LookAgain::Target).into(),
        error => failure_of(error, what).into(),
    }
}

/// In a dry run: tells, and ends the job as if it were done.
pub(crate) fn tell(backup: &Backup, job: &Job, action: &'static str, done: Done) -> Done {
    let why = match job.why {
        Why::New => "new",
        Why::Changed => "changed",
        Why::Touched | Why::Racy | Why::Asked => match done {
            Done::Retouched => "only its times or its mode changed",
            _ => "its content changed",
        },
        Why::Uncertain => "interrupted by the end of the last run",
        Why::Lost => "missing in the destination",
        Why::Drifted => "changed in the destination",
        Why::Found => "found in the destination",
        Why::Returned => "back after it was tagged as deleted",
        _ => "differs",
    };
    backup.tell(action, &job.key, why);
    done
}

/// Whether the object may be right already and must be looked at first.
pub(crate) fn must_ask(job: &Job) -> bool {
    matches!(job.task, Task::Compare | Task::Resolve)
}

/// Whether the listing says enough to know that the content differs.
pub(crate) fn differs_in_size(job: &Job, entry: &Entry) -> bool {
    let size = |object: &Object| object.size_bytes != entry.fingerprint.size_bytes;
    job.task == Task::Compare && entry.kind == Kind::File && job.target.as_ref().is_some_and(size)
}
