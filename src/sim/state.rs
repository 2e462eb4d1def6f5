//! The state database in memory. What `apply` has answered survives every crash; what it has not
//! may or may not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::{Problem, Trouble};
use crate::model::{Key, KeyTarget, Kind, Millis, Object, Record, RelPath, Trust};
use crate::plan::DeleteItem;
use crate::ports::{
    BackupRow, Change, Fut, Identity, KeyRange, ProblemRow, StateError, StateStore, Tally,
    UploadJournal,
};

const HOUR_MS: i64 = 3_600_000;
const HOURS: i64 = 25;

#[derive(Debug, Default)]
struct Tables {
    backup: BackupRow,
    objects: BTreeMap<Key, (Record, Option<Millis>)>,
    uploads: BTreeMap<Key, UploadJournal>,
    problems: BTreeMap<Key, (ProblemRow, bool)>,
    /// Those of them of which nobody knows what is there.
    unknown: BTreeSet<Key>,
    unclaimed: BTreeMap<Key, Object>,
    /// Per hour: files at most, files deleted without approval.
    hourly: BTreeMap<i64, (u64, u64)>,
}

/// Sees every change before it is durable: the oracle of a simulated world.
pub type Witness = Arc<dyn Fn(&Change) + Send + Sync>;

/// Clones are the same database.
#[derive(Clone, Default)]
pub struct SimState {
    tables: Arc<Mutex<Tables>>,
    witness: Arc<Mutex<Option<Witness>>>,
}

impl SimState {
    pub fn new() -> Self {
        let state = Self::default();
        let mut tables = state.tables();
        tables.backup.owner_id = "sim".to_owned();
        tables.backup.made_at = Some(Millis::default());
        drop(tables);
        state
    }

    pub fn set_witness(&self, witness: Witness) {
        *self.witness.lock().unwrap_or_else(PoisonError::into_inner) = Some(witness);
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn record(&self, key: &Key) -> Option<Record> {
        self.tables().objects.get(key).map(|(record, _)| record.clone())
    }

    /// The source as it was recorded.
    pub fn identity(&self) -> Option<Identity> {
        self.tables().backup.identity
    }

    pub fn has_upload(&self, key: &Key) -> bool {
        self.tables().uploads.contains_key(key)
    }

    pub fn keys(&self) -> Vec<Key> {
        self.tables().objects.keys().cloned().collect()
    }

    /// The database is lost, and another one begun.
    pub fn forget_everything(&self, at: Millis) {
        let mut tables = self.tables();
        *tables = Tables::default();
        tables.backup.owner_id = "sim, begun anew".to_owned();
        tables.backup.made_at = Some(at);
    }
}

impl Tables {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Uploading { key, entry } => {
                let old = self.objects.remove(&key).map(|(record, _)| record);
                let content = old.as_ref().and_then(|record| record.content);
                let etag = old.and_then(|record| record.etag);
                let record = Record {
                    entry,
                    content,
                    etag,
                    trust: Trust::Uploading,
                    racy: false,
                    stale_meta: false,
                    missing_since: None,
                    approved: false,
                };
                self.objects.insert(key, (record, None));
            }
            Change::Synced { key, record } => {
                self.settle(&key);
                let racy_at = record.racy.then(|| record.entry.fingerprint.ctime.millis());
                self.objects.insert(key, (record, racy_at));
            }
            Change::Missing { key, at } => {
                if let Some((record, _)) = self.objects.get_mut(&key)
                    && record.missing_since.is_none()
                {
                    (record.missing_since, record.approved) = (Some(at), false);
                    if record.trust == Trust::Tagged {
                        record.trust = Trust::Synced;
                    }
                }
            }
            Change::Found { key, disk } => {
                if let Some((record, _)) = self.objects.get_mut(&key) {
                    (record.missing_since, record.approved) = (None, false);
                    let device = &mut record.entry.fingerprint.device;
                    *device = disk.unwrap_or(*device);
                }
            }
            Change::Forget { key, keep } => {
                self.settle(&key);
                self.objects.remove(&key);
                self.unclaimed.extend(keep.map(|object| (key, object)));
            }
            Change::Deleting { keys, counted, at } => {
                for key in keys {
                    if let Some((record, _)) = self.objects.get_mut(&key) {
                        record.trust = Trust::Deleting;
                    }
                }
                self.hourly.entry(at.0.div_euclid(HOUR_MS)).or_default().1 += counted;
            }
            Change::Deleted { key } => {
                self.settle(&key);
                self.objects.remove(&key);
            }
            Change::Tagged { key } => {
                self.settle(&key);
                if let Some((record, _)) = self.objects.get_mut(&key) {
                    record.trust = Trust::Tagged;
                    (record.missing_since, record.approved) = (None, false);
                }
            }
            other => self.apply_rest(other),
        }
    }

    fn apply_rest(&mut self, change: Change) {
        match change {
            Change::Expected { key, content } => {
                let known = self.objects.get_mut(&key).map(|(record, _)| record);
                if let Some(record) = known.filter(|record| record.trust == Trust::Uploading) {
                    record.content = Some(content);
                }
            }
            Change::UploadOpening(journal) => {
                self.uploads.insert(journal.key.clone(), journal);
            }
            Change::UploadOpened { key, upload_id } => {
                if let Some(journal) = self.uploads.get_mut(&key) {
                    journal.upload_id = Some(upload_id);
                }
            }
            Change::PartDone { key, part } => {
                if let Some(journal) = self.uploads.get_mut(&key) {
                    journal.parts.retain(|known| known.stored.number != part.stored.number);
                    journal.parts.push(part);
                    journal.parts.sort_by_key(|part| part.stored.number);
                }
            }
            Change::UploadDropped { key } => drop(self.uploads.remove(&key)),
            Change::Problem { problem, at } => self.problem(problem, at),
            Change::ProblemSolved { key } => {
                self.problems.remove(&key);
            }
            Change::SkipSolved { key } => {
                self.problems.retain(|known, (row, _)| *known != key || row.failed);
            }
            Change::SkipsBegan => {
                for (row, stale) in self.problems.values_mut() {
                    *stale |= !row.failed;
                }
            }
            Change::SkipsEnded => self.problems.retain(|_, (row, stale)| row.failed || !*stale),
            Change::Unclaimed { key, object } => {
                self.unclaimed.insert(key, object);
            }
            Change::ListingBegan => self.unclaimed.clear(),
            Change::Listed { at } => self.backup.listed_at = Some(at),
            Change::Passed { at } => self.backup.passed_at = Some(at),
            Change::Paused { at } => self.backup.paused_at = at,
            Change::Proven { before, now } => {
                let known = Millis::credible(self.backup.proven_before, now);
                self.backup.proven_before = known.max(Some(before));
            }
            Change::Identity(identity) => self.identify(identity),
            Change::Owner { etag, generation, conditional } => {
                self.backup.owner_etag = Some(etag);
                self.backup.owner_generation = generation;
                self.backup.conditional = Some(conditional);
            }
            other => self.apply_counts(other),
        }
    }

    fn apply_counts(&mut self, change: Change) {
        match change {
            Change::Files { count, at } => {
                let hour = at.0.div_euclid(HOUR_MS);
                let files_max = &mut self.hourly.entry(hour).or_default().0;
                *files_max = (*files_max).max(count);
                let ahead: u64 = self.hourly.split_off(&(hour + 1)).values().map(|h| h.1).sum();
                self.hourly.entry(hour).or_default().1 += ahead;
                self.hourly.retain(|known, _| *known > hour - HOURS);
            }
            Change::Approve => {
                for (record, _) in self.objects.values_mut() {
                    record.approved |= is_waiting(record);
                }
            }
            Change::Discard => {
                let waiting = self.objects.extract_if(.., |_, (record, _)| is_waiting(record));
                for (key, (record, _)) in waiting {
                    let object = Object {
                        size_bytes: record.entry.fingerprint.size_bytes,
                        etag: record.etag.unwrap_or_else(|| crate::model::ETag::new("")),
                        modified: Millis(record.entry.fingerprint.mtime.secs * 1000),
                        archived: false,
                    };
                    self.unclaimed.insert(key, object);
                }
            }
            Change::Held { at, why } => {
                (self.backup.held_at, self.backup.held_why) = (Some(at), Some(why));
            }
            Change::Ended { by } => self.backup.ended_by = by,
            Change::Acknowledge => {
                (self.backup.rebuilt, self.backup.held_at) = (false, None);
                self.backup.held_why = None;
            }
            _ => {}
        }
    }

    fn identify(&mut self, identity: Identity) {
        let old = self.backup.identity.replace(identity).map(|old| old.filesystem);
        for (record, _) in self.objects.values_mut() {
            let device = &mut record.entry.fingerprint.device;
            if Some(*device) == old {
                *device = identity.filesystem;
            }
        }
    }

    fn problem(&mut self, problem: Problem, at: Millis) {
        let (failed, message) = match &problem.what {
            Trouble::Failed(failure) => (true, failure.in_one_line()),
            Trouble::Skipped(skip) => (false, skip.to_string()),
        };
        match &problem.what {
            Trouble::Skipped(skip) if skip.is_unknown() => {
                self.unknown.insert(problem.key.clone());
            }
            _ => {
                self.unknown.remove(&problem.key);
            }
        }
        let since = self.problems.get(&problem.key).map_or(at, |(row, _)| row.since);
        let Problem { key, path, attempts, .. } = problem;
        let row = ProblemRow { key: key.clone(), path, failed, message, attempts, since };
        self.problems.insert(key, (row, false));
    }

    fn settle(&mut self, key: &Key) {
        self.uploads.remove(key);
        self.problems.remove(key);
        self.unclaimed.remove(key);
    }

    fn tally(&self, now: Millis) -> Tally {
        let mut tally = Tally::default();
        for (record, _) in self.objects.values() {
            let is_folder = record.entry.kind == Kind::Folder;
            if is_waiting(record) {
                tally.oldest_missing = match tally.oldest_missing {
                    Some(oldest) => Some(oldest.min(record.missing_since.unwrap_or(oldest))),
                    None => record.missing_since,
                };
                match (record.approved, is_folder) {
                    (true, _) => tally.approved += 1,
                    (false, true) => tally.pending_folders += 1,
                    (false, false) => {
                        tally.pending += 1;
                        tally.charged += u64::from(record.trust == Trust::Deleting);
                    }
                }
            } else if record.missing_since.is_none() && record.trust != Trust::Tagged {
                match is_folder {
                    true => tally.folders += 1,
                    false => {
                        let bytes = record.entry.fingerprint.size_bytes;
                        tally.files += 1;
                        if record.etag.is_some() {
                            tally.kept += 1;
                            tally.kept_bytes += bytes;
                        }
                        if record.trust != Trust::Synced {
                            tally.unsettled += 1;
                            tally.unsettled_bytes += bytes;
                        }
                    }
                }
            }
        }
        let since = now.0.div_euclid(HOUR_MS) - HOURS;
        for (files_max, deleted) in self.hourly.range(since + 1..).map(|(_, counts)| counts) {
            tally.files_max = tally.files_max.max(*files_max);
            tally.spent += deleted;
        }
        let failed = self.problems.values().filter(|(row, _)| row.failed).count();
        tally.failed = failed as u64;
        tally.skipped = (self.problems.len() - failed) as u64;
        let is_unread = |(key, (row, _)): &(&Key, &(ProblemRow, bool))| {
            !row.failed && self.unknown.contains(*key)
        };
        tally.unread = self.problems.iter().filter(is_unread).count() as u64;
        tally.unclaimed = self.unclaimed.len() as u64;
        tally
    }
}

fn is_waiting(record: &Record) -> bool {
    record.missing_since.is_some() && matches!(record.trust, Trust::Synced | Trust::Deleting)
}

fn path_of(key: &Key) -> Option<RelPath> {
    match key.target()? {
        KeyTarget::File(path) | KeyTarget::Folder(path) => Some(path),
    }
}

impl StateStore for SimState {
    fn apply(&self, changes: Vec<Change>) -> Fut<'_, Result<(), StateError>> {
        Box::pin(async move {
            // A crash here: nothing of it is durable.
            tokio::task::yield_now().await;
            let witness = self.witness.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for change in changes {
                if let Some(witness) = &witness {
                    witness(&change);
                }
                self.tables().apply(change);
            }
            // A crash here: it is durable, and nobody was told.
            tokio::task::yield_now().await;
            Ok(())
        })
    }

    fn backup(&self) -> Fut<'_, Result<BackupRow, StateError>> {
        Box::pin(async { Ok(self.tables().backup.clone()) })
    }

    fn page(
        &self,
        range: KeyRange,
        after: Option<Key>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<(Key, Record)>, StateError>> {
        Box::pin(async move {
            let inside = |key: &Key| match &range {
                KeyRange::All => true,
                KeyRange::Under(under) => key.as_str().starts_with(under.as_str()),
            };
            let tables = self.tables();
            let rows = tables
                .objects
                .iter()
                .filter(|(key, _)| inside(key) && after.as_ref().is_none_or(|after| *key > after));
            Ok(rows.take(limit).map(|(key, (record, _))| (key.clone(), record.clone())).collect())
        })
    }

    fn get(&self, keys: Vec<Key>) -> Fut<'_, Result<Vec<Option<Record>>, StateError>> {
        Box::pin(async move {
            let tables = self.tables();
            let record = |key| tables.objects.get(key).map(|(record, _)| record.clone());
            Ok(keys.iter().map(record).collect())
        })
    }

    fn tally(&self, now: Millis) -> Fut<'_, Result<Tally, StateError>> {
        Box::pin(async move { Ok(self.tables().tally(now)) })
    }

    fn owes(&self, missing: bool) -> Fut<'_, Result<bool, StateError>> {
        Box::pin(async move {
            let tables = self.tables();
            let mut problems = tables.problems.iter();
            let bad = problems.any(|(key, (row, _))| row.failed || tables.unknown.contains(key));
            let waits = missing && tables.objects.values().any(|(record, _)| is_waiting(record));
            Ok(bad || waits)
        })
    }

    fn due(&self, before: Millis, limit: usize) -> Fut<'_, Result<Vec<DeleteItem>, StateError>> {
        Box::pin(async move {
            let tables = self.tables();
            let due = tables.objects.iter().filter(|(_, (record, _))| {
                is_waiting(record)
                    && (record.approved || record.missing_since.is_some_and(|at| at <= before))
            });
            let item = |(key, (record, _)): (&Key, &(Record, _))| {
                let path = path_of(key)?;
                Some(DeleteItem { key: key.clone(), path, record: record.clone() })
            };
            let mut items: Vec<DeleteItem> = due.filter_map(item).collect();
            items.sort_by_key(|item| item.record.missing_since);
            items.truncate(limit);
            Ok(items)
        })
    }

    fn racy(&self, before: Millis, limit: usize) -> Fut<'_, Result<Vec<RelPath>, StateError>> {
        Box::pin(async move {
            let tables = self.tables();
            let mut racy: Vec<(Millis, RelPath)> = tables
                .objects
                .iter()
                .filter_map(|(key, (_, racy_at))| Some(((*racy_at)?, path_of(key)?)))
                .filter(|(at, _)| *at <= before)
                .collect();
            racy.sort();
            Ok(racy.into_iter().take(limit).map(|(_, path)| path).collect())
        })
    }

    fn named(&self, inodes: BTreeSet<u64>) -> Fut<'_, Result<Vec<RelPath>, StateError>> {
        Box::pin(async move {
            let tables = self.tables();
            let known = tables.objects.iter().filter(|(_, (record, _))| {
                let entry = &record.entry;
                entry.kind == Kind::File && inodes.contains(&entry.fingerprint.inode)
            });
            Ok(known.filter_map(|(key, _)| path_of(key)).collect())
        })
    }

    fn upload(&self, key: &Key) -> Fut<'_, Result<Option<UploadJournal>, StateError>> {
        let key = key.clone();
        Box::pin(async move { Ok(self.tables().uploads.get(&key).cloned()) })
    }

    fn uploads(&self) -> Fut<'_, Result<Vec<Key>, StateError>> {
        Box::pin(async move { Ok(self.tables().uploads.keys().cloned().collect()) })
    }

    fn split(&self, parts: usize) -> Fut<'_, Result<Vec<Key>, StateError>> {
        Box::pin(async move {
            let tables = self.tables();
            let share = tables.objects.len() / parts.max(1);
            let ends = tables.objects.keys().enumerate();
            let ends = ends.filter(|(at, _)| share > 0 && (at + 1) % share == 0);
            Ok(ends.map(|(_, key)| key.clone()).take(parts.max(1) - 1).collect())
        })
    }

    fn problems(
        &self,
        after: Option<Key>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<ProblemRow>, StateError>> {
        Box::pin(async move {
            let tables = self.tables();
            let rows = tables.problems.iter();
            let rows = rows.filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
            Ok(rows.take(limit).map(|(_, (row, _))| row.clone()).collect())
        })
    }

    fn unclaimed(
        &self,
        after: Option<Key>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<(Key, Object)>, StateError>> {
        Box::pin(async move {
            let tables = self.tables();
            let rows = tables.unclaimed.iter();
            let rows = rows.filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
            Ok(rows.take(limit).map(|(key, object)| (key.clone(), object.clone())).collect())
        })
    }
}
