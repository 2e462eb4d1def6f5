//! The fake watcher: it loses as many events as it was told to.

use crate::model::RelPath;
use crate::ports::{FolderWatch, Fut, HintSource, WatchEvent};

use super::SimFs;

/// The fake watcher's stream.
pub struct SimHints {
    pub(super) fs: SimFs,
}

impl HintSource for SimHints {
    fn next(&mut self) -> Fut<'_, WatchEvent> {
        Box::pin(async {
            loop {
                if let Some(event) = self.fs.disk().events.pop_front() {
                    return event;
                }
                self.fs.bell.notified().await;
            }
        })
    }
}

pub(super) struct SimWatch {
    pub(super) fs: SimFs,
}

impl FolderWatch for SimWatch {
    fn watch(&self, folders: &[RelPath]) {
        self.fs.disk().watched.extend(folders.iter().cloned());
    }

    fn walked(&self) -> Fut<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn reset(&self) -> Fut<'_, ()> {
        self.fs.disk().watched.clear();
        Box::pin(std::future::ready(()))
    }
}
