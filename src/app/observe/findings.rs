//! What a look has found so far: jobs for the engine, changes for the state, numbers for people.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::engine::{LookId, Problem, Trouble};
use crate::model::{
    Entry, Key, KeyTarget, Kind, Millis, Object, Observed, Record, RelPath, Source,
};
use crate::plan::{Decision, Deletions, Job, Skip, Task, Why, decide};
use crate::ports::Change;

use super::super::backup::{Backup, BackupSettings};
use super::super::progress::raise;
use super::{Planned, Stop};

const JOBS_AT_ONCE: usize = 128;
const CHANGES_AT_ONCE: usize = 512;
/// Of more skipped paths than this, some are all right again only with the next pass.
const SKIPS_MAX: usize = 10_000;
/// More young files than this are not put off.
const YOUNG_MAX: usize = 10_000;

pub(crate) struct Findings {
    backup: Arc<Backup>,
    id: LookId,
    /// Young files are not put off.
    eager: bool,
    /// This is a look at everything.
    full: bool,
    planned: Planned,
    jobs: Vec<Job>,
    changes: Vec<Change>,
    young: Vec<RelPath>,
    /// When this look began, which is when absence was first seen by it.
    pub now: Millis,
    oldest_missing: Option<Millis>,
    /// Keys that are on record as skipped, and of which this look has not found why they should be.
    skips: BTreeSet<Key>,
    pub files: u64,
    /// Files on record that are here, and that are newly missing.
    pub known: u64,
    pub vanished: u64,
}

impl Findings {
    pub fn new(
        backup: &Arc<Backup>,
        id: LookId,
        full: bool,
        eager: bool,
        planned: Planned,
    ) -> Self {
        Self {
            id,
            full,
            eager,
            planned,
            jobs: vec![],
            changes: vec![],
            young: vec![],
            now: backup.clock.now(),
            oldest_missing: None,
            skips: BTreeSet::new(),
            files: 0,
            known: 0,
            vanished: 0,
            backup: backup.clone(),
        }
    }

    /// Decides about one key, and keeps what follows.
    pub async fn triple(
        &mut self,
        key: Key,
        path: Option<RelPath>,
        source: Source,
        base: Option<Record>,
        target: Observed<Object>,
    ) -> Result<(), Stop> {
        let BackupSettings { compare, deletions, .. } = self.backup.settings;
        let decision = decide(&source, base.as_ref(), target.as_ref(), compare);
        if let Source::Present(entry) = &source {
            self.count(entry, decision, &target);
            self.known += u64::from(base.is_some() && entry.kind != Kind::Folder);
        }
        match decision {
            // It was tagged under another policy than the one that holds now.
            Decision::Nothing(Why::Tagged) if deletions == Deletions::Delete => {
                self.missing(key, base.as_ref());
            }
            Decision::Nothing(why) => self.nothing(&key, base.as_ref(), why),
            Decision::MarkMissing => self.missing(key, base.as_ref()),
            Decision::Found => {
                let disk = match &source {
                    Source::Present(entry) => Some(entry.fingerprint.device),
                    Source::Unknown | Source::Excluded | Source::Absent => None,
                };
                self.changes.push(Change::Found { key, disk });
            }
            Decision::Forget(why) => self.forget(key, None, why),
            Decision::Disown(why) => {
                let object = target_or_recorded(target, base.as_ref());
                self.forget(key, object, why);
            }
            Decision::Unclaimed => {
                if let Observed::Present(object) = target {
                    self.changes.push(Change::Unclaimed { key, object });
                }
            }
            Decision::Upload(_)
            | Decision::Check(_)
            | Decision::Compare(_)
            | Decision::Resolve(_) => {
                if let Some(job) = job(key, path, source, base, target, decision) {
                    self.job(job);
                }
            }
        }
        self.send_what_is_full().await
    }

    fn count(&mut self, entry: &Entry, decision: Decision, target: &Observed<Object>) {
        let progress = &self.backup.progress;
        let same = matches!(decision, Decision::Nothing(_) | Decision::Found);
        if entry.kind != Kind::Folder {
            self.files += 1;
            raise(&progress.scanned, 1);
            if same {
                raise(&progress.unchanged, 1);
            }
        }
        if same && matches!(target, Observed::Present(_)) {
            raise(&progress.verified, 1);
        }
    }

    fn nothing(&mut self, key: &Key, base: Option<&Record>, why: Why) {
        if why != Why::Missing {
            return;
        }
        if let Some(since) = base.and_then(|record| record.missing_since) {
            if since > self.now && base.is_some_and(|record| !record.approved) {
                // The clock was ahead when it was marked: the delay begins anew.
                self.changes.push(Change::Found { key: key.clone(), disk: None });
                self.changes.push(Change::Missing { key: key.clone(), at: self.now });
            }
            let since = since.min(self.now);
            // Approved deletions do not wait for their delay.
            let since = match base.is_some_and(|record| record.approved) {
                true => Millis(i64::MIN),
                false => since,
            };
            self.note_missing(since);
        }
        self.tell_deletion(key, base);
    }

    fn missing(&mut self, key: Key, base: Option<&Record>) {
        self.note_missing(self.now);
        self.tell_deletion(&key, base);
        if base.is_some_and(|record| record.entry.kind != Kind::Folder) {
            self.vanished += 1;
            self.missed();
        }
        self.changes.push(Change::Missing { key, at: self.now });
    }

    /// A look at everything found what no hint had told. A look that a person asked for does not
    /// wait for what was told, and proves nothing.
    fn missed(&self) {
        let first = !self.backup.progress.looked.load(Ordering::Relaxed);
        if self.full && !self.eager && !first {
            raise(&self.backup.progress.missed, 1);
        }
    }

    fn note_missing(&mut self, since: Millis) {
        self.oldest_missing = Some(self.oldest_missing.map_or(since, |known| known.min(since)));
    }

    /// In a dry run: tells, and counts it as if it were done.
    fn tell_deletion(&self, key: &Key, base: Option<&Record>) {
        let progress = &self.backup.progress;
        let (action, counter) = match self.backup.settings.deletions {
            Deletions::Delete => ("delete", &progress.deleted),
            Deletions::Tag => ("tag", &progress.tagged),
            Deletions::Keep => return,
        };
        let is_file = base.is_some_and(|record| record.entry.kind != Kind::Folder);
        if self.backup.is_dry_run() && is_file {
            raise(counter, 1);
        }
        self.backup.tell(action, key, "the source is gone");
    }

    fn forget(&mut self, key: Key, keep: Option<Object>, why: Why) {
        self.backup.tell("forget", &key, format!("{why:?}").to_lowercase());
        self.changes.push(Change::Forget { key, keep });
    }

    fn job(&mut self, job: Job) {
        // It is all right again when the job is done.
        self.skips.remove(&job.key);
        if !self.eager && self.young.len() < YOUNG_MAX && self.is_young(&job) {
            return self.young.push(job.path);
        }
        if matches!(job.task, Task::Upload) {
            self.missed();
        }
        self.jobs.push(job);
    }

    /// Whether a file changed so recently that it is probably still being written.
    fn is_young(&self, job: &Job) -> bool {
        let Some(entry) = job.entry.filter(|e| e.kind == Kind::File) else { return false };
        let settled = self.now.minus_ms(self.backup.settings.settle_ms);
        let f = &entry.fingerprint;
        let latest = f.mtime.millis().max(f.ctime.millis());
        latest > settled && latest <= self.now
    }

    /// A path that is left out, and that a person should know of.
    pub async fn skip(&mut self, key: Key, path: RelPath, skip: Skip) -> Result<(), Stop> {
        self.skips.remove(&key);
        raise(&self.backup.progress.skipped, 1);
        if self.backup.is_news(&key) {
            tracing::warn!(backup = %self.backup.settings.name, "skipped {path}: {skip}");
        }
        let problem = Problem { key, path, attempts: 1, what: Trouble::Skipped(skip) };
        self.change(Change::Problem { problem, at: self.now }).await
    }

    /// Learns what is on record as skipped, to tell what is so no more.
    pub async fn know_skips(&mut self) -> Result<(), Stop> {
        const PAGE: usize = 1_000;
        let mut after = None;
        loop {
            let page = self.backup.state.problems(after, PAGE).await?;
            let more = page.len() == PAGE;
            after = page.last().map(|problem| problem.key.clone());
            let skipped = page.into_iter().filter(|problem| !problem.failed);
            self.skips.extend(skipped.map(|problem| problem.key));
            if !more || self.skips.len() >= SKIPS_MAX {
                return Ok(());
            }
        }
    }

    pub fn is_skipped(&self, key: &Key) -> bool {
        self.skips.contains(key)
    }

    /// What lies below this key was not looked at.
    pub fn hidden(&mut self, key: &Key) {
        self.skips.retain(|skip| !skip.as_str().starts_with(key.as_str()));
    }

    /// This key was looked at; with `below`, everything that starts with it, too.
    pub async fn looked_at(&mut self, key: &Key, below: bool) -> Result<(), Stop> {
        let is_in = |skip: &Key| match below {
            true => skip.as_str().starts_with(key.as_str()),
            false => skip == key,
        };
        let solved: Vec<Key> = self.skips.extract_if(.., is_in).collect();
        for key in solved {
            self.change(Change::SkipSolved { key }).await?;
        }
        Ok(())
    }

    pub async fn change(&mut self, change: Change) -> Result<(), Stop> {
        self.changes.push(change);
        self.send_what_is_full().await
    }

    async fn send_what_is_full(&mut self) -> Result<(), Stop> {
        if self.jobs.len() >= JOBS_AT_ONCE {
            self.send_jobs().await?;
        }
        if self.changes.len() >= CHANGES_AT_ONCE {
            self.send_changes().await?;
        }
        Ok(())
    }

    async fn send_jobs(&mut self) -> Result<(), Stop> {
        if self.jobs.is_empty() {
            return Ok(());
        }
        let jobs = std::mem::take(&mut self.jobs);
        self.planned.send((self.id, jobs)).await.map_err(|_| Stop::Cancelled)
    }

    async fn send_changes(&mut self) -> Result<(), Stop> {
        let changes = std::mem::take(&mut self.changes);
        if changes.is_empty() || self.backup.is_dry_run() {
            return Ok(());
        }
        Ok(self.backup.record(changes).await?)
    }

    /// Hands over what is left.
    pub async fn finish(&mut self) -> Result<(), Stop> {
        self.send_changes().await?;
        self.send_jobs().await
    }

    pub fn deletion_due_in_ms(&self) -> Option<u64> {
        if self.backup.is_dry_run() {
            return None;
        }
        let since = self.oldest_missing?;
        let due = since.plus_ms(self.backup.settings.delete_delay_ms);
        Some(due.since(self.backup.clock.now()))
    }

    pub fn take_young(&mut self) -> Vec<RelPath> {
        std::mem::take(&mut self.young)
    }
}

/// The object that stays behind, as well as it is known.
fn target_or_recorded(target: Observed<Object>, base: Option<&Record>) -> Option<Object> {
    if let Observed::Present(object) = target {
        return Some(object);
    }
    let record = base?;
    Some(Object {
        size_bytes: record.entry.fingerprint.size_bytes,
        etag: record.etag.clone()?,
        modified: record.entry.fingerprint.mtime.millis(),
        archived: false,
    })
}

fn job(
    key: Key,
    path: Option<RelPath>,
    source: Source,
    base: Option<Record>,
    target: Observed<Object>,
    decision: Decision,
) -> Option<Job> {
    let (task, why) = Job::task_of(decision)?;
    let entry = match source {
        Source::Present(entry) => Some(entry),
        Source::Unknown | Source::Excluded | Source::Absent => None,
    };
    let path = path.or_else(|| path_of(&key))?;
    let target = match target {
        Observed::Present(object) => Some(object),
        Observed::Unknown | Observed::Absent => None,
    };
    Some(Job { key, path, task, why, entry, base, target })
}

pub fn path_of(key: &Key) -> Option<RelPath> {
    match key.target()? {
        KeyTarget::File(path) | KeyTarget::Folder(path) => Some(path),
    }
}
