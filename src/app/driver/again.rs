//! Looks that no hint asks for, now and then: at files that were young when they were read, and at
//! those with more than one name.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::{Event, Sight};
use crate::model::Tick;

use super::super::backup::RACY_MS;
use super::super::observe::{self, LinkedReport};
use super::{Back, Driver};

/// How often.
pub(super) const EVERY: Duration = Duration::from_secs(30);
const RACY_AT_ONCE: usize = 500;
/// Looking at linked files takes no more than this part of the time.
const LINKED_SHARE: u64 = 20;

/// What is known of files with more than one name.
#[derive(Debug, Default)]
pub(super) struct Linked {
    /// When the last look at them began; what it has found is known to the engine.
    until: Option<Tick>,
    next: Tick,
    looking: bool,
}

/// A look at linked files: when it began, how far they were known before, and what it found.
#[derive(Debug)]
pub(super) struct LookedLinked {
    started: Tick,
    known: Tick,
    report: Option<LinkedReport>,
}

/// When what cannot be read is to be counted: that goes through all records.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// Of what was skipped until then.
    counted: u64,
    next: Option<Instant>,
}

impl Driver {
    pub(super) fn look_for_racy(&mut self) {
        if self.engine.snapshot().in_flight > 0 || self.drain_by.is_some() {
            return;
        }
        let backup = self.backup.clone();
        self.tasks.spawn(async move {
            let before = backup.clock.now().minus_ms(RACY_MS);
            match backup.state.racy(before, RACY_AT_ONCE).await {
                Ok(paths) => Back::Racy(paths),
                Err(error) => {
                    tracing::debug!(%error, "looking for young records");
                    Back::Nothing
                }
            }
        });
    }

    /// Counts what cannot be read, where that may have changed: it is told of without the records.
    pub(super) fn count_unread(&mut self) {
        let (now, progress) = (Instant::now(), &self.backup.progress);
        let counted = progress.skipped.load(Ordering::Relaxed);
        let may_differ =
            counted != self.unread.counted || progress.unread.load(Ordering::Relaxed) > 0;
        let is_due = self.unread.next.is_none_or(|next| next <= now);
        if !is_due || !may_differ || self.drain_by.is_some() {
            return;
        }
        self.unread = Unread { counted, next: Some(now + EVERY) };
        let backup = self.backup.clone();
        self.tasks.spawn(async move {
            match backup.state.tally(backup.clock.now()).await {
                Ok(tally) => backup.progress.unread.store(tally.unread, Ordering::Relaxed),
                Err(error) => tracing::debug!(%error, "counting what cannot be read"),
            }
            Back::Nothing
        });
    }

    /// How far changes of linked files are known; `None` where there is no such file.
    pub(super) fn linked_until(&self) -> Option<Tick> {
        let links = self.backup.tree.links();
        let last_full = self.engine.snapshot().last_full;
        match (links.is_empty(), links.is_full()) {
            (true, _) => None,
            (false, true) => last_full,
            (false, false) => self.linked.until.max(last_full),
        }
    }

    pub(super) fn look_at_linked(&mut self) {
        let (now, links) = (self.now(), self.backup.tree.links());
        let Some(last_full) = self.engine.snapshot().last_full else { return };
        if self.linked.looking || now < self.linked.next || self.drain_by.is_some() {
            return;
        }
        if links.is_empty() {
            self.linked.until = Some(now);
            return;
        }
        if links.is_full() && matches!(self.sight, Some((Sight::Full, _))) {
            let message = "too many files have more than one name to look at each: changes \
                           through another name are found by looking at everything";
            self.watched(crate::ports::WatchEvent::Sight(Sight::Partial, message.to_owned()));
        }
        let known = self.linked.until.map_or(last_full, |until| until.max(last_full));
        let backup = self.backup.clone();
        self.linked.looking = true;
        self.tasks.spawn(async move {
            let report = observe::linked(&backup).await;
            if let Err(failure) = &report {
                tracing::debug!(%failure, "looking at linked files");
            }
            Back::Linked(LookedLinked { started: now, known, report: report.ok() })
        });
    }

    pub(super) fn linked_looked(&mut self, looked: LookedLinked) {
        let LookedLinked { started, known, report } = looked;
        self.linked.looking = false;
        let took_ms = self.now().since(started);
        self.linked.next = self.now().plus_ms(took_ms.saturating_mul(LINKED_SHARE));
        let Some(LinkedReport { changed, young_ms }) = report else { return };
        if !changed.is_empty() {
            self.handle(Event::Unheard { paths: changed, since: known });
        }
        let until = Tick(started.0.saturating_sub(young_ms));
        self.linked.until = self.linked.until.max(Some(until));
    }
}
