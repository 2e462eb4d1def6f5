//! Copies in parts that nobody goes on with: aborted before what is known of them is forgotten.
//!
//! INVARIANT: a journal goes only once its upload is gone. What others have open under the same key
//! is left alone.

use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError};

use crate::model::Key;
use crate::ports::{Change, UploadJournal};

use super::super::failure_of;
use super::super::orphans::unheard_of;
use super::super::patience::Stop;
use super::{Copier, of_object};

impl Copier {
    fn open_copies(&self) -> MutexGuard<'_, BTreeSet<Key>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether copies in parts are on record that are neither done nor aborted.
    pub fn leaves_open(&self) -> bool {
        !self.open_copies().is_empty()
    }

    /// Learns which copies in parts earlier runs have left open.
    pub(crate) async fn learn_open(&self) -> Result<(), Stop> {
        let Some(state) = &self.journal else { return Ok(()) };
        let keys = state.uploads().await.map_err(|e| Stop::All(e.into()))?;
        *self.open_copies() = keys.into_iter().collect();
        Ok(())
    }

    /// What may be recorded of these changes: with those that settle a key its journal goes, so its
    /// copy in parts is aborted before. A key where that fails has failed, and is not settled.
    pub(crate) async fn settle(&self, changes: Vec<Change>) -> Result<Vec<Change>, Stop> {
        if !self.leaves_open() {
            return Ok(changes);
        }
        let mut settled = Vec::with_capacity(changes.len());
        for change in changes {
            let key = match &change {
                Change::Synced { key, .. }
                | Change::Forget { key, .. }
                | Change::Deleted { key }
                | Change::Tagged { key } => key.clone(),
                _ => {
                    settled.push(change);
                    continue;
                }
            };
            match self.close_key(&key).await {
                Ok(()) => settled.push(change),
                Err(stop) => self.note(&key, Err(stop))?,
            }
        }
        Ok(settled)
    }

    /// Aborts what was opened, by this run or an earlier one, and was of no use.
    pub(crate) async fn close_leftovers(&self) -> Result<(), Stop> {
        let keys = self.open_copies().clone();
        for key in keys {
            let closed = self.close_key(&key).await;
            if closed.is_ok() {
                tracing::info!("aborted a copy of {key} that was left open");
            }
            self.note(&key, closed)?;
        }
        Ok(())
    }

    async fn close_key(&self, key: &Key) -> Result<(), Stop> {
        if !self.open_copies().contains(key) {
            return Ok(());
        }
        let Some(state) = &self.journal else { return Ok(()) };
        match state.upload(key).await.map_err(|e| Stop::All(e.into()))? {
            Some(journal) => self.close(&journal).await,
            None => {
                self.open_copies().remove(key);
                Ok(())
            }
        }
    }

    /// Aborts an upload, known or not, and drops its journal.
    pub(super) async fn close(&self, journal: &UploadJournal) -> Result<(), Stop> {
        let key = &journal.key;
        let ids = match (&journal.upload_id, &journal.others) {
            (Some(id), _) => vec![id.clone()],
            (None, Some(others)) => {
                let ids = self.patience.insist(|| of_object(key, self.target.list_uploads(key)));
                unheard_of(&*self.target, key, ids.await?, others).await
            }
            // Which of them is ours nobody knows.
            (None, None) => vec![],
        };
        for id in ids {
            self.patience.insist(|| self.target.abort_upload(key, &id)).await?;
        }
        self.drop_journal(key).await
    }

    /// Tries once to abort an upload. Where that fails its journal stays, for the next run.
    pub(super) async fn give_up(&self, key: &Key, upload_id: &str) -> Result<(), Stop> {
        match self.target.abort_upload(key, upload_id).await {
            Ok(()) => self.drop_journal(key).await,
            Err(error) => {
                let failure = failure_of(error, &format!("abort the copy of {key}"));
                tracing::warn!(backup = self.settings.name, "{failure}; the next run tries again");
                Ok(())
            }
        }
    }

    pub(super) async fn note_opening(&self, journal: UploadJournal) -> Result<(), Stop> {
        if self.journal.is_some() {
            self.open_copies().insert(journal.key.clone());
        }
        self.note_in_journal(vec![Change::UploadOpening(journal)]).await
    }

    pub(super) async fn drop_journal(&self, key: &Key) -> Result<(), Stop> {
        self.note_in_journal(vec![Change::UploadDropped { key: key.clone() }]).await?;
        self.open_copies().remove(key);
        Ok(())
    }
}
