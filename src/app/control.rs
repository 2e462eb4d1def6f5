//! What a person may ask of a running backup, and approving deletions with or without a daemon.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::model::{Key, Millis, RelPath, Source, Trust};
use crate::plan::{DeleteItem, ErrorClass, Failure, Guard, MaxDelete, is_believed};
use crate::ports::{BackupRow, Change, Clock, KeyRange, LocalTree, Stat, StateStore, Tally};

use super::pulse::Pulse;
use super::status::BackupStatus;

/// Objects deleted by one request.
pub const DELETIONS_AT_ONCE: usize = 1_000;

/// What is known of a backup without its destination.
pub struct Facts<'a> {
    pub state: &'a dyn StateStore,
    pub tree: &'a dyn LocalTree,
    pub clock: &'a dyn Clock,
}

impl Facts<'_> {
    /// Whether the source's identity is the recorded one.
    pub async fn is_same_source(&self) -> Result<bool, Failure> {
        Ok(self.is_source_of(&self.state.backup().await?).await)
    }

    async fn is_source_of(&self, row: &BackupRow) -> bool {
        match (row.identity, self.tree.identity().await) {
            (Some(recorded), Ok(identity)) => identity == recorded,
            // Nothing recorded: nothing can be due. Not there: not the same.
            (None, _) | (_, Err(_)) => false,
        }
    }

    /// The first of the missing files whose absence proves nothing, for its disk is not there. All
    /// that one batch of deletions may delete is looked at.
    async fn displaced(&self) -> Result<Option<RelPath>, Failure> {
        let due = self.state.due(Millis(i64::MAX), DELETIONS_AT_ONCE).await?;
        let stats = self.tree.stat(due.iter().map(|item| item.path.clone()).collect()).await?;
        let displaced = |(item, stat): &(DeleteItem, Stat)| {
            stat.at(&item.key) == Source::Absent && !is_believed(&item.record, stat.disk())
        };
        Ok(due.into_iter().zip(stats).find(displaced).map(|(item, _)| item.path))
    }

    /// The facts that the guard judges.
    pub async fn guard(&self, max_delete: MaxDelete, tally: &Tally) -> Result<Guard, Failure> {
        let row = self.state.backup().await?;
        let same_source = self.is_source_of(&row).await;
        let displaced = if same_source { self.displaced().await? } else { None };
        Ok(Guard { same_source, displaced, ..guard(max_delete, tally, &row) })
    }
}

/// The facts that the guard judges, of a source that nothing else can be in the place of.
pub fn guard(max_delete: MaxDelete, tally: &Tally, row: &BackupRow) -> Guard {
    Guard {
        max_delete,
        same_source: true,
        displaced: None,
        files: tally.files,
        pending: tally.pending,
        charged: tally.charged,
        spent: tally.spent,
        files_max: tally.files_max.max(tally.files + tally.pending),
        state_rebuilt: row.rebuilt,
        held_before: row.held_since(tally.oldest_missing),
        held_why: row.held_why.clone(),
    }
}

/// A request to a running backup.
pub enum Command {
    Status(oneshot::Sender<BackupStatus>),
    /// Answers with the number of paths that failed, once all that exists now was dealt with; or
    /// with why nobody can tell what exists.
    Flush(oneshot::Sender<Result<u64, Failure>>),
    Approve {
        new_root: bool,
        answer: oneshot::Sender<Result<Verdict, Failure>>,
    },
    Discard {
        answer: oneshot::Sender<Result<Verdict, Failure>>,
    },
    List {
        max: usize,
        answer: oneshot::Sender<Result<DeletionList, Failure>>,
    },
    /// Answered at once: a driver that does not answer hangs.
    Pulse(oneshot::Sender<Pulse>),
    /// A fault for tests: the driver does nothing any more.
    #[cfg(feature = "sim")]
    Hang,
    /// Answers once it is recorded, with whether that is new.
    Pause {
        paused: bool,
        answer: oneshot::Sender<Result<bool, Failure>>,
    },
    /// Drain and end.
    Stop,
}

/// What approving or discarding did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Files whose deletion was approved or discarded.
    pub files: u64,
    pub new_root: bool,
}

/// Approves every deletion that waits now; with `new_root`, accepts the folder that is there now as
/// the source.
pub async fn approve(facts: &Facts<'_>, new_root: bool) -> Result<Verdict, Failure> {
    let row = facts.state.backup().await?;
    let tally = facts.state.tally(facts.clock.now()).await?;
    let identity = facts.tree.identity().await?;
    let mut changes = vec![];
    let another = row.identity.is_some_and(|recorded| recorded != identity);
    if another {
        if !new_root {
            let message = "another folder or file system is where the source was, so nothing about \
                           missing files is certain";
            return Err(Failure::new(ErrorClass::Configuration, message)
                .with_hint("mount the right disk; or accept this folder with --new-root"));
        }
        changes.push(Change::Identity(identity));
    }
    changes.extend([Change::Approve, Change::Acknowledge]);
    facts.state.apply(changes).await?;
    Ok(Verdict { files: tally.pending, new_root: new_root && another })
}

/// Gives up every deletion that waits now: the objects stay, unclaimed.
pub async fn discard(facts: &Facts<'_>) -> Result<Verdict, Failure> {
    let tally = facts.state.tally(facts.clock.now()).await?;
    facts.state.apply(vec![Change::Discard, Change::Acknowledge]).await?;
    Ok(Verdict { files: tally.pending, new_root: false })
}

/// Pauses a backup, or lets it go on; answers with whether it was not so before. A pause outlives
/// restarts: whoever wants nothing sent must not find a crash, an upgrade or a reboot to have ended
/// that.
pub async fn pause(
    state: &dyn StateStore,
    clock: &dyn Clock,
    paused: bool,
) -> Result<bool, Failure> {
    let known = state.backup().await?.paused_at;
    if known.is_some() == paused {
        return Ok(false);
    }
    let at = paused.then(|| clock.now());
    state.apply(vec![Change::Paused { at }]).await?;
    Ok(true)
}

/// Records what ended a run, for whoever asks when nothing runs; `None` where nothing did.
pub async fn note_end(state: &dyn StateStore, by: Option<String>) {
    // A database that is broken is told of where work needs it.
    if let Ok(row) = state.backup().await
        && row.ended_by != by
    {
        state.apply(vec![Change::Ended { by }]).await.ok();
    }
}

/// What waits, and what belongs to nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletionList {
    pub name: String,
    /// Why deletions are held; empty when they are not.
    pub held_reasons: Vec<String>,
    /// Missing files whose objects wait, those approved included.
    pub waiting: u64,
    pub approved: u64,
    pub unclaimed: u64,
    /// Some of the waiting paths, the longest missing first.
    pub paths: Vec<String>,
    /// Some of the unclaimed keys.
    pub unclaimed_keys: Vec<String>,
}

/// Lists up to `max` names of each kind.
pub async fn list(
    facts: &Facts<'_>,
    name: &str,
    max_delete: MaxDelete,
    max: usize,
) -> Result<DeletionList, Failure> {
    let now = facts.clock.now();
    let tally = facts.state.tally(now).await?;
    let guard = facts.guard(max_delete, &tally).await?;
    let hold = guard.check().filter(|_| tally.oldest_missing.is_some());
    let due = facts.state.due(now, max).await?;
    let unclaimed = facts.state.unclaimed(None, max).await?;
    Ok(DeletionList {
        name: name.to_owned(),
        held_reasons: hold
            .map(|hold| hold.reasons.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        waiting: tally.pending + tally.approved,
        approved: tally.approved,
        unclaimed: tally.unclaimed,
        paths: due.iter().map(|item| item.path.to_string()).collect(),
        unclaimed_keys: unclaimed.iter().map(|(key, _)| key.to_string()).collect(),
    })
}

/// One file in `status --files`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStatus {
    pub path: String,
    pub key: String,
    /// Whether the recorded content is in the destination.
    pub uploaded: bool,
    pub md5: Option<String>,
    pub size: u64,
    /// Seconds since the epoch, with a fraction.
    pub mtime: String,
}

/// A page of files in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePage {
    pub files: Vec<FileStatus>,
    /// Key to go on after, where there is more.
    pub next: Option<String>,
}

/// The files after this key.
pub async fn files(state: &dyn StateStore, after: Option<Key>) -> Result<FilePage, Failure> {
    const PAGE: usize = 5_000;
    let rows = state.page(KeyRange::All, after, PAGE).await?;
    let next = match rows.last() {
        Some((key, _)) if rows.len() == PAGE => Some(key.as_str().to_owned()),
        _ => None,
    };
    let file = |(key, record): (Key, crate::model::Record)| FileStatus {
        path: key.target().map_or_else(
            || key.to_string(),
            |target| match target {
                crate::model::KeyTarget::File(path) => path.to_string(),
                crate::model::KeyTarget::Folder(path) => format!("{path}/"),
            },
        ),
        key: key.as_str().to_owned(),
        uploaded: record.trust == Trust::Synced,
        md5: record.content.map(|content| content.to_string()),
        size: record.entry.fingerprint.size_bytes,
        mtime: record.entry.fingerprint.mtime.to_string(),
    };
    Ok(FilePage { files: rows.into_iter().map(file).collect(), next })
}
