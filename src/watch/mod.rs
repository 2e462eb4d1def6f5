//! Adapter to notify: hints about what changed below one source.
//!
//! A hint says where to look, never what to do. What is lost is said to be lost: a full queue, a
//! watch that could not be added, a watcher that died end in an overflow or in a sight that is not
//! full, and then everything is looked at.
//!
//! On Linux each folder has a watch of its own, added by the walk before it lists the folder, so
//! excluded trees cost nothing. On macOS one watch of FSEvents sees the whole source ([`Layout`]).
//!
//! Built by `cli::wire`; use-cases see [`crate::ports::HintSource`] and
//! [`crate::ports::FolderWatch`].

mod folders;
mod limits;
mod translate;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::engine::Sight;
use crate::model::RelPath;
use crate::ports::{FolderWatch, Fut, HintSource, WatchEvent};

use folders::Folders;

/// Raw events between the watcher's threads and ours, and batches of hints between us and the
/// driver.
const RAW_MAX: usize = 65_536;
const HINTS_MAX: usize = 256;

type Raw = notify::Result<notify::Event>;

/// How a source is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// inotify: a watch for each folder.
    EachFolder,
    /// FSEvents: one watch for the source and all below. Excluded folders make events, too; these
    /// are hints like others, and the look that follows finds the folder excluded.
    Whole,
}

impl Layout {
    const HERE: Self = if cfg!(target_os = "linux") { Self::EachFolder } else { Self::Whole };
}

/// Watches folders below a source.
pub struct Watch {
    /// Locked while somebody looks at the source, which may hang: the runtime's own thread, which
    /// runs every backup, must not wait for it.
    folders: Arc<Mutex<Folders>>,
    layout: Layout,
    outbox: Outbox,
    /// Set when a raw event found no room. Sticky until it is dealt with.
    spilled: Arc<AtomicBool>,
    /// Why there is more to see than events tell, however many folders are watched.
    remote: Option<String>,
}

/// The stream of hints.
pub struct Hints {
    inbox: mpsc::Receiver<WatchEvent>,
    lost: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Outbox {
    hints: mpsc::Sender<WatchEvent>,
    /// Set when an event could not be handed over. Sticky: never lost itself.
    lost: Arc<AtomicBool>,
}

impl Outbox {
    fn send(&self, event: WatchEvent) {
        if self.hints.try_send(event).is_err() {
            self.lost.store(true, Ordering::SeqCst);
        }
    }
}

/// Starts watching. Nothing is watched yet; the first walk adds the source, on Linux every folder.
pub fn start(root: &Path) -> (Arc<Watch>, Hints) {
    start_as(Layout::HERE, root)
}

fn start_as(layout: Layout, root: &Path) -> (Arc<Watch>, Hints) {
    let (hints, inbox) = mpsc::channel(HINTS_MAX);
    let lost = Arc::new(AtomicBool::new(false));
    let outbox = Outbox { hints, lost: lost.clone() };
    let (raw, events) = std::sync::mpsc::sync_channel(RAW_MAX);
    let spilled = Arc::new(AtomicBool::new(false));
    let folders = Folders::new(layout, root, raw, spilled.clone());
    let folders = Arc::new(Mutex::new(folders));
    let remote = limits::remote_changes(root);
    let watch = Arc::new(Watch { folders, layout, outbox, spilled, remote });
    if let Some(message) = watch.remote.clone() {
        watch.outbox.send(WatchEvent::Sight(Sight::Partial, message));
    }
    let weak = Arc::downgrade(&watch);
    let spawned = std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
        while let Ok(first) = events.recv() {
            let Some(watch) = weak.upgrade() else { return };
            let batch: Vec<Raw> =
                std::iter::once(first).chain(events.try_iter().take(1_023)).collect();
            watch.translate(batch);
        }
    });
    if let Err(error) = spawned {
        let message = format!("the watcher's thread cannot be started: {error}");
        watch.outbox.send(WatchEvent::Sight(Sight::Blind, message));
    }
    (watch, Hints { inbox, lost })
}

impl Watch {
    fn folders(&self) -> MutexGuard<'_, Folders> {
        lock(&self.folders)
    }

    /// Does what may hang on a thread that may.
    fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Folders) -> T + Send + 'static,
    ) -> Fut<'_, Option<T>> {
        let folders = self.folders.clone();
        let working = tokio::task::spawn_blocking(move || work(&mut lock(&folders)));
        Box::pin(async move { working.await.ok() })
    }

    fn translate(&self, batch: Vec<Raw>) {
        let mut hints = vec![];
        // Among what found no room may be folders that went: their watches must not be believed.
        let mut overflow = self.spilled.swap(false, Ordering::SeqCst);
        let mut source_gone = false;
        let root = self.folders().root().to_owned();
        for raw in batch {
            match raw {
                Ok(event) if event.need_rescan() => overflow = true,
                Ok(event) => {
                    let translated = translate::hints(self.layout, &root, &event);
                    source_gone |= translated.source_gone;
                    let mut folders = self.folders();
                    for gone in &translated.gone {
                        folders.forget(gone);
                    }
                    hints.extend(translated.hints);
                }
                Err(error) => {
                    tracing::warn!(%error, "the watcher reports an error");
                    overflow = true;
                }
            }
        }
        if overflow || source_gone {
            // Watches may be missing now that seem to be there: begin anew, then look.
            self.folders().reset();
            let event = if overflow { WatchEvent::Overflow } else { WatchEvent::SourceGone };
            self.outbox.send(event);
        } else if !hints.is_empty() {
            // May wait: this is our own thread, and the raw queue holds what comes meanwhile.
            self.outbox.hints.blocking_send(WatchEvent::Hints(hints)).ok();
        }
    }

    fn report(&self, sight: Option<(Sight, String)>) {
        let event = match (sight, &self.remote) {
            (None, _) => return,
            (Some((Sight::Full, _)), Some(remote)) => (Sight::Partial, remote.clone()),
            (Some(sight), _) => sight,
        };
        self.outbox.send(WatchEvent::Sight(event.0, event.1));
    }
}

fn lock(folders: &Mutex<Folders>) -> MutexGuard<'_, Folders> {
    folders.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FolderWatch for Watch {
    fn watch(&self, folders: &[RelPath]) {
        let sight = self.folders().add(folders);
        self.report(sight);
    }

    fn walked(&self) -> Fut<'_, ()> {
        Box::pin(async move {
            let sight = self.apart(Folders::walked).await.flatten();
            self.report(sight);
        })
    }

    fn reset(&self) -> Fut<'_, ()> {
        Box::pin(async move {
            self.apart(Folders::reset).await;
        })
    }
}

impl HintSource for Hints {
    fn next(&mut self) -> Fut<'_, WatchEvent> {
        Box::pin(async {
            // A full channel is not empty, so this is reached soon after the flag was set.
            if self.lost.swap(false, Ordering::SeqCst) {
                while self.inbox.try_recv().is_ok() {}
                return WatchEvent::Overflow;
            }
            match self.inbox.recv().await {
                Some(event) => event,
                None => std::future::pending().await,
            }
        })
    }
}

#[cfg(test)]
mod tests;
