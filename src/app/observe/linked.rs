//! A look at files with more than one name: what is written to one of them, no watcher tells of the
//! others, nor of any where the name that was written to lies outside the source.

use std::sync::Arc;

use crate::model::{Key, Millis, Observed, RelPath};
use crate::plan::{Compare, Decision, Failure, Why, decide};

use super::super::backup::{Backup, RACY_MS};

const NAMES_AT_ONCE: usize = 500;

/// What a look at linked files has found.
#[derive(Debug, Default)]
pub struct LinkedReport {
    /// Names that are not what is on record of them.
    pub changed: Vec<RelPath>,
    /// The look proves nothing of the last so many milliseconds before it began: a file is so young
    /// that a change may leave no trace.
    pub young_ms: u64,
}

/// Looks at every name of a linked file that is known here or in the records.
pub async fn linked(backup: &Arc<Backup>) -> Result<LinkedReport, Failure> {
    let links = backup.tree.links();
    let fresh = links.fresh();
    if !fresh.is_empty() {
        // They got another name since all was looked at, and had been files like any other.
        let named = backup.state.named(fresh.clone()).await?;
        for names in named.chunks(NAMES_AT_ONCE) {
            backup.tree.stat(names.to_vec()).await?;
        }
        links.asked(&fresh);
    }
    let mut report = LinkedReport::default();
    let mut after: Option<RelPath> = None;
    loop {
        let names = links.page(after.as_ref(), NAMES_AT_ONCE);
        let Some(last) = names.last() else { return Ok(report) };
        after = Some(last.clone());
        some(backup, names, &mut report).await?;
    }
}

async fn some(
    backup: &Backup,
    names: Vec<RelPath>,
    report: &mut LinkedReport,
) -> Result<(), Failure> {
    let now = backup.clock.now();
    let stats = backup.tree.stat(names.clone()).await?;
    let keys: Vec<Key> = names.iter().map(Key::file).collect();
    let rows = backup.state.get(keys.clone()).await?;
    let compare = match backup.settings.compare {
        Compare::Size => Compare::Size,
        Compare::Md5 | Compare::Fingerprint => Compare::Fingerprint,
    };
    for (((name, key), stat), row) in names.into_iter().zip(keys).zip(stats).zip(rows) {
        // What is not on record at all is on its way there.
        let Some(row) = row else { continue };
        match decide(&stat.at(&key), Some(&row), Observed::Unknown, compare) {
            Decision::Nothing(_) => {}
            Decision::Check(Why::Racy) => {
                let written = row.entry.fingerprint.ctime.millis();
                match is_young(written, now) {
                    true => report.young_ms = report.young_ms.max(now.since(written)),
                    false => report.changed.push(name),
                }
            }
            _ => report.changed.push(name),
        }
    }
    Ok(())
}

fn is_young(written: Millis, now: Millis) -> bool {
    now.since(written) < RACY_MS
}
