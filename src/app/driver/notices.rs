//! What a run tells a person: every file, every problem, every change of condition, once.

use crate::engine::{Notice, Problem, Trouble};
use crate::model::Key;
use crate::plan::Done;
use crate::ports::Change;

use super::super::progress::raise;
use super::super::{CONDITION, FILE};
use super::{Back, Driver, LISTED_MAX};

impl Driver {
    pub(super) fn log_done(&self, key: &Key, done: Done) {
        let backup = &self.backup.settings.name;
        match done {
            Done::Uploaded { bytes } => {
                tracing::info!(target: FILE, %backup, bytes, "uploaded {key}");
            }
            Done::Adopted => tracing::debug!(%backup, "adopted {key}"),
            Done::Retouched => {
                tracing::info!(target: FILE, %backup, "new metadata for {key}");
            }
            Done::Unchanged | Done::Settled => tracing::debug!(%backup, "settled {key}"),
        }
    }

    pub(super) fn problem(&mut self, problem: Problem) {
        let (name, path) = (&self.backup.settings.name, &problem.path);
        match &problem.what {
            Trouble::Failed(failure) => {
                let message = failure.in_one_line();
                tracing::warn!(backup = %name, "{path}: {message}");
                if self.failed.len() < LISTED_MAX {
                    self.failed.insert(problem.key.clone(), (path.clone(), message));
                }
            }
            Trouble::Skipped(skip) => {
                if self.backup.is_news(&problem.key) {
                    tracing::warn!(backup = %name, "skipped {path}: {skip}");
                }
                raise(&self.backup.progress.skipped, 1);
                if self.skipped.len() < LISTED_MAX {
                    self.skipped.insert(problem.key.clone(), (path.clone(), skip.clone()));
                }
            }
        }
        let backup = self.backup.clone();
        if !backup.is_dry_run() {
            let at = backup.clock.now();
            self.tasks.spawn(async move {
                // The engine learns of a broken state database from its own writes.
                backup.record(vec![Change::Problem { problem, at }]).await.ok();
                Back::Nothing
            });
        }
    }

    pub(super) fn notice(&self, notice: &Notice) {
        let name = &self.backup.settings.name;
        match notice {
            Notice::Waiting(failure) => {
                let hint = failure.hint.as_deref().unwrap_or("keepwatch tries again by itself");
                tracing::warn!(target: CONDITION, backup = %name, "waiting: {failure} ({hint})");
            }
            Notice::Resumed { after_ms } => {
                let secs = after_ms / 1000;
                tracing::info!(target: CONDITION, backup = %name, "going on after {secs} s");
            }
            Notice::SourceMissing(failure) => {
                tracing::warn!(target: CONDITION, backup = %name, "{failure}; nothing is deleted");
            }
            Notice::Held(hold) => {
                let reasons = hold.why();
                let files = match hold.pending {
                    1 => "1 file".to_owned(),
                    files => format!("{files} files"),
                };
                tracing::warn!(target: CONDITION,
                    backup = %name,
                    "deletions are held ({files}): {reasons}. See: keepwatch deletions list"
                );
            }
            Notice::Released => {
                tracing::info!(target: CONDITION, backup = %name, "deletions go on")
            }
            Notice::Overflow => tracing::warn!(
                backup = %name,
                "the watcher's queue overflowed: looking at everything"
            ),
            Notice::SourceGone => tracing::warn!(
                backup = %name,
                "the source was moved, removed or unmounted: looking for it"
            ),
            Notice::DeletionsFailed(failure) => {
                tracing::warn!(backup = %name, "deletions are put off: {failure}");
            }
            Notice::LookFailed(failure) => {
                tracing::warn!(backup = %name, "a pass could not be finished: {failure}");
            }
        }
    }
}
