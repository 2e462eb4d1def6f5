//! Deleting: the guard over all that is due, one more look at each name, and the requests.
//!
//! No object is deleted unless it is one that this backup uploaded or adopted; its name was absent
//! in an error-free look, has been so for the delay, and is so now, on the disk where it was; the
//! source is the recorded one; and the budget has room, or a person approved. The budget is charged
//! before the request.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};

use crate::engine::DueReport;
use crate::model::{ETag, Key, Kind, Millis, Trust};
use crate::plan::{
    DeleteItem, Deletion, Deletions, ErrorClass, Failure, Hold, LastWord, Outcome, last_word,
};
use crate::ports::{Change, StoreError, Tally};

use super::FILE;
use super::backup::Backup;
use super::control::DELETIONS_AT_ONCE;
use super::failure_of;
use super::owner;
use super::progress::raise;

/// Evaluates the guard and fetches what is due.
pub async fn due(backup: Arc<Backup>) -> DueReport {
    match try_due(&backup).await {
        Ok(report) => report,
        Err(failure) => DueReport { failure: Some(failure), ..DueReport::default() },
    }
}

async fn try_due(backup: &Backup) -> Result<DueReport, Failure> {
    let now = backup.clock.now();
    let tally = backup.state.tally(now).await?;
    let guard = backup.facts().guard(backup.settings.max_delete, &tally).await?;
    let hold = guard.check();
    if let Some(hold) = &hold
        && !guard.held_before
        && !backup.is_dry_run()
    {
        backup.record(vec![Change::Held { at: now, why: hold.why() }]).await?;
    }
    let before = match hold {
        // Held: only what a person approved.
        Some(_) => Millis(i64::MIN),
        None => now.minus_ms(backup.settings.delete_delay_ms),
    };
    let items = match guard.same_source {
        true => backup.state.due(before, DELETIONS_AT_ONCE).await?,
        false => vec![],
    };
    let next_due_in_ms = match (&hold, tally.oldest_missing) {
        (None, Some(since)) if items.is_empty() => {
            Some(since.plus_ms(backup.settings.delete_delay_ms).since(now).max(1))
        }
        _ => None,
    };
    Ok(DueReport { items, hold, next_due_in_ms, failure: None })
}

/// What a run would hold, of so many deletions in a plan, where the source has so many files.
pub async fn would_hold(
    backup: &Backup,
    planned: u64,
    files: u64,
) -> Result<Option<Hold>, Failure> {
    let tally = backup.state.tally(backup.clock.now()).await?;
    let new = planned.saturating_sub(tally.pending + tally.approved);
    let tally = Tally { files, pending: tally.pending + new, ..tally };
    Ok(backup.facts().guard(backup.settings.max_delete, &tally).await?.check())
}

/// Deletes these objects, or tags them, after one more look at each.
pub async fn delete(backup: Arc<Backup>, items: Vec<DeleteItem>) -> Outcome {
    match try_delete(&backup, items).await {
        Ok(results) => Outcome::Deleted(results),
        Err(failure) => Outcome::Failed(failure),
    }
}

type Results = Vec<(DeleteItem, Deletion)>;

async fn try_delete(backup: &Backup, items: Vec<DeleteItem>) -> Result<Results, Failure> {
    owner::check_now(backup).await?;
    let mut results = vec![];
    // A mark is put without a condition.
    let tags = backup.settings.deletions == Deletions::Tag;
    let items = match backup.store.deletes_on_condition() && !tags {
        true => items,
        false => sort_out_strangers(backup, items, &mut results).await?,
    };
    // RACE: what changes from here on until the request arrives is seen too late: a file that comes
    // back is uploaded again, a disk that goes within this moment loses what was missing from it.
    if !backup.facts().is_same_source().await? {
        results.extend(items.into_iter().map(|item| (item, Deletion::Spared)));
        return Ok(results);
    }
    let paths = items.iter().map(|item| item.path.clone()).collect();
    let stats = backup.tree.stat(paths).await?;
    let mut changes = vec![];
    let (mut doomed, mut tagged) = (vec![], vec![]);
    for (item, stat) in items.into_iter().zip(stats) {
        let source = stat.at(&item.key);
        match last_word(&source, stat.disk(), &item.record, backup.settings.deletions) {
            LastWord::Delete => doomed.push(item),
            LastWord::Tag => tagged.push(item),
            // Unknown is never absent: the mark goes, and comes again when a look can tell.
            LastWord::Wait | LastWord::Back => {
                changes.push(Change::Found { key: item.key.clone(), disk: None });
                results.push((item, Deletion::Spared));
            }
            LastWord::Disown => {
                changes.push(Change::Forget { key: item.key.clone(), keep: object_of(&item) });
                results.push((item, Deletion::Disowned));
            }
        }
    }
    backup.record(changes).await?;
    remove(backup, doomed, &mut results).await?;
    tag(backup, tagged, &mut results).await?;
    Ok(results)
}

fn object_of(item: &DeleteItem) -> Option<crate::model::Object> {
    Some(crate::model::Object {
        size_bytes: item.record.entry.fingerprint.size_bytes,
        etag: item.record.etag.clone()?,
        modified: item.record.entry.fingerprint.mtime.millis(),
        archived: false,
    })
}

/// Where the server is not known to judge by a condition, each object is looked at first: one that
/// is not the recorded one is somebody else's, and stays.
async fn sort_out_strangers(
    backup: &Backup,
    items: Vec<DeleteItem>,
    results: &mut Results,
) -> Result<Vec<DeleteItem>, Failure> {
    let look = |item: DeleteItem| async move {
        let _slot = backup.slot().await;
        let head = backup.store.head(&item.key).await;
        (item, head)
    };
    let mut looks = stream::iter(items).map(look).buffered(backup.settings.transfers.max(1));
    let mut ours = vec![];
    while let Some((item, head)) = looks.next().await {
        let head = head.map_err(|e| failure_of(e, &format!("look at {}", item.key)))?;
        match head {
            Some(head) if Some(&head.object.etag) != item.record.etag.as_ref() => {
                disown(backup, item, results).await?;
            }
            _ => ours.push(item),
        }
    }
    Ok(ours)
}

async fn disown(backup: &Backup, item: DeleteItem, results: &mut Results) -> Result<(), Failure> {
    let keep = object_of(&item);
    backup.record(vec![Change::Forget { key: item.key.clone(), keep }]).await?;
    results.push((item, Deletion::Disowned));
    Ok(())
}

/// Charges the budget and says what is about to happen, durably.
async fn announce(backup: &Backup, items: &[DeleteItem]) -> Result<(), Failure> {
    // What failed before was charged before.
    let counts = |item: &&DeleteItem| {
        let DeleteItem { record, .. } = item;
        !record.approved && record.trust != Trust::Deleting && record.entry.kind != Kind::Folder
    };
    let counted = items.iter().filter(counts).count() as u64;
    let keys = items.iter().map(|item| item.key.clone()).collect();
    backup.record(vec![Change::Deleting { keys, counted, at: backup.clock.now() }]).await
}

async fn remove(
    backup: &Backup,
    items: Vec<DeleteItem>,
    results: &mut Results,
) -> Result<(), Failure> {
    if items.is_empty() {
        return Ok(());
    }
    announce(backup, &items).await?;
    let condition =
        |item: &DeleteItem| item.record.etag.clone().filter(|_| backup.is_conditional());
    let asked: Vec<(Key, Option<ETag>)> =
        items.iter().map(|item| (item.key.clone(), condition(item))).collect();
    let replies = backup.store.delete(&asked).await;
    let replies = replies.map_err(|e| failure_of(e, "delete objects"))?;
    let mut changes = vec![];
    for (item, reply) in items.into_iter().zip(replies) {
        let key = item.key.clone();
        match reply {
            Ok(()) => {
                if item.record.entry.kind != Kind::Folder {
                    raise(&backup.progress.deleted, 1);
                }
                tracing::info!(target: FILE, backup = %backup.settings.name, "deleted {key}");
                changes.push(Change::Deleted { key });
                results.push((item, Deletion::Deleted));
            }
            // Another object has taken its place: not ours to delete.
            Err(StoreError::Precondition) => {
                changes.push(Change::Forget { key, keep: object_of(&item) });
                results.push((item, Deletion::Disowned));
            }
            Err(error) => {
                let failure = failure_of(error, &format!("delete {key}"));
                results.push((item, Deletion::Failed(failure)));
            }
        }
    }
    backup.record(changes).await
}

async fn tag(
    backup: &Backup,
    items: Vec<DeleteItem>,
    results: &mut Results,
) -> Result<(), Failure> {
    if items.is_empty() {
        return Ok(());
    }
    announce(backup, &items).await?;
    let at = backup.clock.now();
    let tag = |item: DeleteItem| async move {
        let _slot = backup.slot().await;
        let tagged = backup.store.tag_deleted(&item.key, at).await;
        (item, tagged)
    };
    let mut replies = stream::iter(items).map(tag).buffered(backup.settings.transfers.max(1));
    let mut changes = vec![];
    while let Some((item, reply)) = replies.next().await {
        let key = item.key.clone();
        match reply {
            Ok(()) => {
                if item.record.entry.kind != Kind::Folder {
                    raise(&backup.progress.tagged, 1);
                }
                tracing::info!(target: FILE, backup = %backup.settings.name, "tagged {key}");
                changes.push(Change::Tagged { key });
                results.push((item, Deletion::Tagged));
            }
            Err(StoreError::Unsupported(message)) => {
                let failure = Failure::new(ErrorClass::Configuration, message)
                    .with_hint("this server has no tags: set deletions = \"delete\" or \"keep\"");
                results.push((item, Deletion::Failed(failure)));
            }
            Err(error) => {
                let failure = failure_of(error, &format!("tag {key}"));
                results.push((item, Deletion::Failed(failure)));
            }
        }
    }
    drop(replies);
    backup.record(changes).await
}
