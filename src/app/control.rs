//! What a person may ask of a running backup, and approving deletions with or without a daemon.

use tokio::sync::oneshot;

use crate::model::Millis;
use crate::plan::{ErrorClass, Failure};
use crate::ports::Change;

use super::backup::Backup;
use super::deletions;
use super::status::BackupStatus;

/// A request to a running backup.
pub enum Command {
    Status(oneshot::Sender<BackupStatus>),
    /// Answers with the number of paths that failed, once all that exists now was dealt with.
    Flush(oneshot::Sender<u64>),
    Approve {
        new_root: bool,
        answer: oneshot::Sender<Result<Verdict, Failure>>,
    },
    Discard {
        answer: oneshot::Sender<Result<Verdict, Failure>>,
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
pub async fn approve(backup: &Backup, new_root: bool) -> Result<Verdict, Failure> {
    let now = backup.clock.now();
    let guard = deletions::guard(backup, now).await?;
    let identity = backup.tree.identity().await?;
    let mut changes = vec![];
    if !guard.same_source {
        if !new_root {
            let message = "another folder or file system is where the source was, so nothing about \
                           missing files is certain";
            return Err(Failure::new(ErrorClass::Configuration, message)
                .with_hint("mount the right disk; or accept this folder with --new-root"));
        }
        changes.push(Change::Identity(identity));
    }
    changes.extend([Change::Approve, Change::Acknowledge]);
    backup.record(changes).await?;
    Ok(Verdict { files: guard.pending, new_root: new_root && !guard.same_source })
}

/// Gives up every deletion that waits now: the objects stay, unclaimed.
pub async fn discard(backup: &Backup) -> Result<Verdict, Failure> {
    let tally = backup.state.tally(Millis(backup.clock.now().0)).await?;
    backup.record(vec![Change::Discard, Change::Acknowledge]).await?;
    Ok(Verdict { files: tally.pending, new_root: false })
}
