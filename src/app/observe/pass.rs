//! A pass: the whole source, the records, and now and then the bucket, in lock step.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::JoinHandle;

use crate::model::{Key, Millis, Object, Observed, Record, RelPath, Source};
use crate::plan::{ErrorClass, Failure, Merge, OutOfOrder, Side, Step};
use crate::ports::{
    BackupRow, Change, FolderWatch, KeyRange, Seen, Stat, StateError, StateStore, StoreError, Veil,
    Walk,
};

use super::super::backup::Backup;
use super::super::failure_of;
use super::super::{orphans, owner};
use super::Stop;
use super::findings::Findings;

const ROWS_PER_PAGE: usize = 2_000;

/// Looks at everything.
pub async fn run(
    backup: &Arc<Backup>,
    findings: &mut Findings,
    watch: Option<Arc<dyn FolderWatch>>,
) -> Result<(), Stop> {
    let identity = backup.tree.identity().await.map_err(Stop::SourceMissing)?;
    if backup.is_another_folder(identity)
        && let Some(watch) = &watch
    {
        // What is watched is the folder that was here before.
        watch.reset().await;
    }
    owner::check(&**backup).await?;
    let row = backup.state.backup().await?;
    if row.identity.is_none() {
        findings.change(Change::Identity(identity)).await?;
    }
    let list = wants_listing(backup, &row, findings);
    if list {
        orphans::sweep(&**backup, &row, &backup.progress, findings.now).await?;
        findings.change(Change::ListingBegan).await?;
    }
    findings.change(Change::SkipsBegan).await?;
    backup.progress.scanning.store(true, Ordering::Relaxed);
    let walk = backup.tree.walk(RelPath::root(), watch.clone());
    let joined = join(backup, findings, walk, KeyRange::All, vec![], list).await;
    backup.progress.scanning.store(false, Ordering::Relaxed);
    joined?;
    if let Some(watch) = watch {
        watch.walked().await;
    }
    findings.change(Change::SkipsEnded).await?;
    if identity.born_ns.is_none() && findings.known == 0 && findings.vanished > 1 {
        // Nothing else tells this disk from another one in the same slot.
        let why = "none of the files that were in the source is there any more, and its file \
                   system does not tell one disk from another: is it the right disk?";
        let held = Change::Held { at: backup.clock.now(), why: why.to_owned() };
        findings.change(held).await?;
    }
    let (count, at) = (findings.files, findings.now);
    findings.change(Change::Files { count, at }).await?;
    if list {
        findings.change(Change::Listed { at }).await?;
    }
    backup.progress.looked.store(true, Ordering::Relaxed);
    forgive_what_is_gone(backup, findings).await?;
    findings.change(Change::Passed { at: backup.clock.now() }).await
}

/// The first pass of a state lists the bucket, and then one pass in `verify_every`.
fn wants_listing(backup: &Backup, row: &BackupRow, findings: &Findings) -> bool {
    match Millis::credible(row.listed_at, findings.now) {
        None => true,
        Some(at) => findings.now.since(at) >= backup.settings.verify_every_ms,
    }
}

/// Failed paths that are not there any more have not failed.
pub async fn forgive_what_is_gone(backup: &Backup, findings: &mut Findings) -> Result<(), Stop> {
    let failed = backup.state.problems(None, 1_000).await?;
    let failed: Vec<_> = failed.into_iter().filter(|problem| problem.failed).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let paths = failed.iter().map(|problem| problem.path.clone()).collect();
    let stats = backup.tree.stat(paths).await.map_err(Stop::SourceMissing)?;
    for (problem, stat) in failed.into_iter().zip(stats) {
        if matches!(stat, Stat::Absent { .. } | Stat::Excluded) {
            findings.change(Change::ProblemSolved { key: problem.key }).await?;
        }
    }
    Ok(())
}

/// Joins a walk with the records of a range, and with the listing if asked to. `first` is put in
/// front of the walk.
pub async fn join(
    backup: &Arc<Backup>,
    findings: &mut Findings,
    mut walk: Box<dyn Walk>,
    range: KeyRange,
    first: Vec<(Key, Seen)>,
    list: bool,
) -> Result<(), Stop> {
    let mut merge: Merge<Seen, Record, Object> = Merge::default();
    let mut rows = Rows::start(&backup.state, range);
    let mut listing = Listing::default();
    let mut veils = Veils::default();
    merge.push_source(first).map_err(out_of_order)?;
    if !list {
        merge.end(Side::Target);
    }
    loop {
        if backup.cancel.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        match merge.next() {
            Step::Done => return Ok(()),
            Step::Need(Side::Source) => match walk.next().await {
                Some(Ok(batch)) => merge.push_source(batch).map_err(out_of_order)?,
                Some(Err(failure)) => return Err(Stop::SourceMissing(failure)),
                None => merge.end(Side::Source),
            },
            Step::Need(Side::Base) => match rows.next().await? {
                Some(page) => merge.push_base(page).map_err(out_of_order)?,
                None => merge.end(Side::Base),
            },
            Step::Need(Side::Target) => match listing.next(backup).await? {
                Some(page) => merge.push_target(page).map_err(out_of_order)?,
                None => merge.end(Side::Target),
            },
            Step::Triple(triple) => {
                let target = match (list, triple.target) {
                    (true, Some(object)) => Observed::Present(object),
                    (true, None) => Observed::Absent,
                    (false, _) => Observed::Unknown,
                };
                let (source, path) = match triple.source {
                    Some(Seen::Entry(path, entry)) => (Source::Present(entry), Some(path)),
                    Some(Seen::Veil(veil)) => {
                        let source = veils.hide(&triple.key, &veil);
                        if veil.tree && !veil.excluded {
                            findings.hidden(&triple.key);
                        }
                        if let Some((path, skip)) = veil.skip {
                            findings.skip(triple.key.clone(), path, skip).await?;
                        }
                        (source, None)
                    }
                    None => (veils.absent(&triple.key), None),
                };
                findings.triple(triple.key, path, source, triple.base, target).await?;
            }
        }
    }
}

fn out_of_order(error: OutOfOrder) -> Stop {
    // Absence would be believed where there is none: the pass must not go on.
    Stop::Failed(Failure::new(ErrorClass::Path, error.to_string()))
}

/// Veils that hide everything below a key, innermost last.
#[derive(Default)]
struct Veils(Vec<(Key, bool)>);

impl Veils {
    fn hide(&mut self, key: &Key, veil: &Veil) -> Source {
        self.leave(key);
        if veil.tree {
            self.0.push((key.clone(), veil.excluded));
        }
        source_behind(veil.excluded)
    }

    /// What it means that the walk shows nothing at this key.
    fn absent(&mut self, key: &Key) -> Source {
        self.leave(key);
        self.0.last().map_or(Source::Absent, |(_, excluded)| source_behind(*excluded))
    }

    fn leave(&mut self, key: &Key) {
        while self.0.last().is_some_and(|(top, _)| !key.as_str().starts_with(top.as_str())) {
            self.0.pop();
        }
    }
}

fn source_behind(excluded: bool) -> Source {
    if excluded { Source::Excluded } else { Source::Unknown }
}

type Page = Result<Vec<(Key, Record)>, StateError>;

/// The records of a range, read one page ahead.
struct Rows {
    state: Arc<dyn StateStore>,
    range: KeyRange,
    ahead: Option<JoinHandle<Page>>,
}

impl Rows {
    fn start(state: &Arc<dyn StateStore>, range: KeyRange) -> Self {
        let mut rows = Self { state: state.clone(), range, ahead: None };
        rows.read_ahead(None);
        rows
    }

    fn read_ahead(&mut self, after: Option<Key>) {
        let (state, range) = (self.state.clone(), self.range.clone());
        self.ahead =
            Some(tokio::spawn(async move { state.page(range, after, ROWS_PER_PAGE).await }));
    }

    async fn next(&mut self) -> Result<Option<Vec<(Key, Record)>>, Stop> {
        let Some(ahead) = self.ahead.take() else { return Ok(None) };
        let page = ahead.await.map_err(|_| Stop::Cancelled)??;
        if page.len() == ROWS_PER_PAGE {
            let last = page.last().map(|(key, _)| key.clone());
            self.read_ahead(last);
        }
        Ok((!page.is_empty()).then_some(page))
    }
}

/// The bucket's listing, page by page.
#[derive(Default)]
struct Listing {
    after: Option<Key>,
    ended: bool,
}

impl Listing {
    async fn next(&mut self, backup: &Backup) -> Result<Option<Vec<(Key, Object)>>, Stop> {
        while !self.ended {
            let kept = self.after.is_none().then(|| backup.owner.take_first_page()).flatten();
            let listed = match kept {
                Some(page) => Ok(page),
                None => backup.store.list(self.after.as_ref()).await,
            };
            let page = match listed {
                // It would be made, and be empty.
                Err(StoreError::NoSuchBucket(_))
                    if backup.is_dry_run() && backup.settings.create_bucket =>
                {
                    return Ok(None);
                }
                page => page.map_err(|e| failure_of(e, "list the bucket"))?,
            };
            self.ended = page.more_after.is_none();
            self.after = page.more_after;
            if !page.objects.is_empty() {
                return Ok(Some(page.objects));
            }
        }
        Ok(None)
    }
}
