//! What a person may ask of a mirror, with or without a daemon: which deletions wait, and what is
//! to become of them.

use crate::model::Millis;
use crate::plan::{Failure, MaxDelete};
use crate::ports::{Change, Clock, StateStore};

use super::super::control::{DeletionList, Verdict, guard};

/// Lists up to `max` names of each kind.
pub async fn list(
    state: &dyn StateStore,
    now: Millis,
    name: &str,
    max_delete: MaxDelete,
    max: usize,
) -> Result<DeletionList, Failure> {
    let (tally, row) = (state.tally(now).await?, state.backup().await?);
    let hold = guard(max_delete, &tally, &row).check().filter(|_| tally.oldest_missing.is_some());
    let due = state.due(now, max).await?;
    let unclaimed = state.unclaimed(None, max).await?;
    Ok(DeletionList {
        name: name.to_owned(),
        held_reasons: hold
            .map(|hold| hold.reasons.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        waiting: tally.pending + tally.approved,
        approved: tally.approved,
        unclaimed: tally.unclaimed,
        paths: due.iter().map(|item| item.key.to_string()).collect(),
        unclaimed_keys: unclaimed.iter().map(|(key, _)| key.to_string()).collect(),
    })
}

/// Approves everything that waits now: the next run tags or deletes it.
pub async fn approve(state: &dyn StateStore, clock: &dyn Clock) -> Result<Verdict, Failure> {
    let tally = state.tally(clock.now()).await?;
    state.apply(vec![Change::Approve, Change::Acknowledge]).await?;
    Ok(Verdict { files: tally.pending, new_root: false })
}

/// Gives up everything that waits now: the copies stay, unclaimed.
pub async fn discard(state: &dyn StateStore, clock: &dyn Clock) -> Result<Verdict, Failure> {
    let tally = state.tally(clock.now()).await?;
    state.apply(vec![Change::Discard, Change::Acknowledge]).await?;
    Ok(Verdict { files: tally.pending, new_root: false })
}
