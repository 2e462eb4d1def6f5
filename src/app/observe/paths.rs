//! A look at single paths and subtrees, as hints ask for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Key, Observed, RelPath, Source};
use crate::plan::Scope;
use crate::ports::{FolderWatch, KeyRange, Seen, Stat};

use super::super::backup::Backup;
use super::super::owner;
use super::Stop;
use super::findings::Findings;
use super::pass::{forgive_what_is_gone, join};

const ROWS_PER_PAGE: usize = 1_000;
/// Other names of changed files that are looked at with them. More are looked at later.
const OTHERS_MAX: usize = 256;

/// Looks at these paths; `true` with everything below.
pub async fn run(
    backup: &Arc<Backup>,
    findings: &mut Findings,
    scopes: Vec<Scope>,
    watch: Option<Arc<dyn FolderWatch>>,
) -> Result<(), Stop> {
    let wanted = wanted(backup, scopes);
    findings.know_skips().await?;
    let paths: Vec<RelPath> = wanted.keys().cloned().collect();
    let stats = backup.tree.stat(paths).await.map_err(Stop::SourceMissing)?;
    let mut trees: Vec<RelPath> = vec![];
    let looked_at: BTreeSet<RelPath> = wanted.keys().cloned().collect();
    let mut written: BTreeSet<u64> = BTreeSet::new();
    for ((path, deep), stat) in wanted.into_iter().zip(stats) {
        if backup.cancel.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        // Paths come in their own order, so what lies below a tree follows it.
        if trees.iter().any(|tree| path.is_within(tree)) {
            continue;
        }
        if one(backup, findings, &path, deep, stat, watch.clone(), &mut written).await? {
            trees.push(path);
        }
    }
    others(backup, findings, &written, &looked_at).await
}

/// Looks at the other names of files that have changed: no watcher tells of them.
async fn others(
    backup: &Arc<Backup>,
    findings: &mut Findings,
    written: &BTreeSet<u64>,
    looked_at: &BTreeSet<RelPath>,
) -> Result<(), Stop> {
    if written.is_empty() {
        return Ok(());
    }
    let mut names = backup.tree.links().of(written, OTHERS_MAX + looked_at.len());
    names.retain(|name| !looked_at.contains(name));
    names.truncate(OTHERS_MAX);
    let stats = backup.tree.stat(names.clone()).await.map_err(Stop::SourceMissing)?;
    for (name, stat) in names.iter().zip(stats) {
        one(backup, findings, name, false, stat, None, &mut BTreeSet::new()).await?;
    }
    Ok(())
}

/// Looks at nothing but what failed before.
pub async fn failed(backup: &Arc<Backup>, findings: &mut Findings) -> Result<(), Stop> {
    const PAGE: usize = 1_000;
    owner::check(&**backup).await?;
    let mut after = None;
    loop {
        let page = backup.state.problems(after, PAGE).await?;
        let more = page.len() == PAGE;
        after = page.last().map(|problem| problem.key.clone());
        let failed = page.into_iter().filter(|problem| problem.failed);
        let scopes = failed.map(|problem| Scope::Path(problem.path)).collect();
        run(backup, findings, scopes, None).await?;
        if !more {
            return forgive_what_is_gone(backup, findings).await;
        }
    }
}

/// The paths to look at: those asked for, the folders that their rules govern, and the folders
/// that hold them, whose markers depend on what is in them.
fn wanted(backup: &Backup, scopes: Vec<Scope>) -> BTreeMap<RelPath, bool> {
    let mut wanted = BTreeMap::new();
    for scope in scopes {
        let (path, deep) = match scope {
            Scope::All => (RelPath::root(), true),
            Scope::Tree(path) => (path, true),
            Scope::Path(path) => (path, false),
        };
        if let Some(governed) = backup.tree.governed(&path) {
            wanted.insert(governed, true);
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.is_root()) {
            wanted.entry(parent).or_insert(false);
        }
        *wanted.entry(path).or_insert(false) |= deep;
    }
    wanted
}

/// Looks at one path. Answers with whether everything below was looked at too; a file with more
/// than one name, and another content than is on record, is added to those `written`.
async fn one(
    backup: &Arc<Backup>,
    findings: &mut Findings,
    path: &RelPath,
    deep: bool,
    stat: Stat,
    watch: Option<Arc<dyn FolderWatch>>,
    written: &mut BTreeSet<u64>,
) -> Result<bool, Stop> {
    if path.is_root() {
        if deep {
            let walk = backup.tree.walk(path.clone(), watch.clone());
            join(backup, findings, walk, KeyRange::All, vec![], false).await?;
            findings.looked_at(&Key::folder(path), true).await?;
            if let Some(watch) = watch {
                watch.walked().await;
            }
        }
        return Ok(deep);
    }
    let (file_key, folder_key) = (Key::file(path), Key::folder(path));
    let keys = vec![file_key.clone(), folder_key.clone()];
    let mut rows = backup.state.get(keys).await?.into_iter();
    let (file_row, folder_row) = (rows.next().flatten(), rows.next().flatten());
    let (at_file, at_folder) = (stat.at(&file_key), stat.at(&folder_key));
    // What nobody could look at may have changed meanwhile.
    let deep = deep || findings.is_skipped(&file_key) || findings.is_skipped(&folder_key);
    let looked = !matches!(stat, Stat::Unknown(_));
    if let Stat::Unknown(skip) = &stat {
        findings.skip(file_key.clone(), path.clone(), skip.clone()).await?;
    }
    if let Stat::Entry(entry) = &stat
        && file_row.as_ref().is_none_or(|row| row.entry.fingerprint != entry.fingerprint)
        && backup.tree.links().contains(path)
    {
        written.insert(entry.fingerprint.inode);
    }
    let known = Some(path.clone());
    findings.triple(file_key.clone(), known.clone(), at_file, file_row, Observed::Unknown).await?;
    if looked {
        findings.looked_at(&file_key, false).await?;
    }
    match (&stat, deep) {
        (Stat::Folder { marker, .. }, true) => {
            let first = marker.map(|entry| (folder_key.clone(), Seen::Entry(path.clone(), entry)));
            let walk = backup.tree.walk(path.clone(), watch);
            let range = KeyRange::Under(folder_key.clone());
            join(backup, findings, walk, range, Vec::from_iter(first), false).await?;
            findings.looked_at(&folder_key, true).await?;
            return Ok(true);
        }
        (Stat::Folder { .. } | Stat::Unknown(_), _) => {
            findings.triple(folder_key, known, at_folder, folder_row, Observed::Unknown).await?;
        }
        // No folder here: whatever is recorded below the name is gone, or left out.
        (Stat::Absent { .. } | Stat::Excluded | Stat::Entry(_), _) => {
            let source = stat.below();
            below(backup, findings, folder_key.clone(), &source).await?;
            findings.looked_at(&folder_key, true).await?;
        }
    }
    Ok(false)
}

/// Decides about every record below a name, all with the same source.
async fn below(
    backup: &Arc<Backup>,
    findings: &mut Findings,
    folder: Key,
    source: &Source,
) -> Result<(), Stop> {
    let mut after = None;
    loop {
        let range = KeyRange::Under(folder.clone());
        let page = backup.state.page(range, after, ROWS_PER_PAGE).await?;
        let more = page.len() == ROWS_PER_PAGE;
        after = page.last().map(|(key, _)| key.clone());
        for (key, record) in page {
            let target = Observed::Unknown;
            findings.triple(key, None, source.clone(), Some(record), target).await?;
        }
        if !more || backup.cancel.is_cancelled() {
            return Ok(());
        }
    }
}
