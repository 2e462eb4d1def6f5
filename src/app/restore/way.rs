//! What stands in a path's way: a file where a folder is needed, or a folder where a file is to be.
//!
//! Only `--overwrite always` replaces it: a file or link, and an empty folder, at once; a folder
//! with content only with `--delete`, after what the backup does not have has been deleted, under
//! the same guard.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, PoisonError};

use crate::model::RelPath;
use crate::plan::Overwrite;
use crate::ports::{LocalLook, ReadHead, TargetError, Thaw};

use super::super::progress::raise;
use super::fetch::Source;
use super::pass::Item;
use super::{Restore, Stop};

/// Files that wait for a folder to be deleted.
const WAITING_MAX: usize = 100_000;

/// What is known of ways.
#[derive(Default)]
pub(super) struct Ways {
    /// Told of, in a dry run.
    told: BTreeSet<RelPath>,
    waiting: VecDeque<Item>,
    /// What could be deleted has been.
    is_last_turn: bool,
}

impl Restore {
    fn ways(&self) -> std::sync::MutexGuard<'_, Ways> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a folder; tells whether one is here already.
    pub(super) async fn make_way_for_folder(&self, path: &RelPath) -> Result<bool, Stop> {
        match self.look(path).await? {
            LocalLook::Folder(_) => Ok(true),
            LocalLook::Absent => Ok(false),
            LocalLook::Blocked(above) => self.remove_from(&above).await.map(|()| false),
            LocalLook::File(_)
            | LocalLook::Link(..)
            | LocalLook::Special(_)
            | LocalLook::Otherwise(_) => self.remove_from(path).await.map(|()| false),
        }
    }

    /// Restores what lies below something that is no folder.
    pub(super) async fn past_what_blocks(&self, item: &Item, look: LocalLook) -> Result<(), Stop> {
        if item.kept.object.archived && item.kept.thaw != Some(Thaw::Thawed) {
            return self.thaw_first(item).await;
        }
        let Some(head) = self.head(&item.kept.id).await? else { return Ok(()) };
        if self.left_out(&item.kept.id, &head).await? {
            return Ok(());
        }
        if self.plan.is_some() {
            self.make_way(&item.path, look).await?;
            return self.plan_fetch(item, &head, "it is not here");
        }
        self.bring(item, head, look).await
    }

    /// Fetches it, once nothing of another kind is in its way.
    pub(super) async fn bring(
        &self,
        item: &Item,
        head: ReadHead,
        look: LocalLook,
    ) -> Result<(), Stop> {
        let look = self.make_way(&item.path, look).await?;
        self.fetch(item, Source::Known(Box::new(head)), look).await
    }

    /// Whether what is here may be replaced by a file, as far as its kind is concerned.
    pub(super) fn may_replace(&self, look: &LocalLook) -> Result<(), Stop> {
        match (look, self.settings.overwrite) {
            (LocalLook::Folder(_), Overwrite::IfNewer | Overwrite::IfChanged) => Err(Stop::Path(
                "a folder is here, and the backup has a file: --overwrite always replaces it if it \
                 is empty, and with --delete also with all that is in it"
                    .to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// What a dry run says of it.
    pub(super) fn why_replaced(&self, look: &LocalLook) -> &'static str {
        match (look, self.settings.delete) {
            (LocalLook::Folder(_), true) => "a folder is here",
            (LocalLook::Folder(_), false) => "a folder is here: it is replaced if it is empty",
            _ => "what is here differs",
        }
    }

    /// Removes what is of another kind than a file that is to be at `path`, if that is asked for.
    async fn make_way(&self, path: &RelPath, look: LocalLook) -> Result<LocalLook, Stop> {
        match look {
            LocalLook::Blocked(above) => {
                self.remove_from(&above).await?;
                if self.plan.is_some() {
                    return Ok(LocalLook::Absent);
                }
                match self.look(path).await? {
                    LocalLook::Blocked(_) => Err(Stop::Again),
                    look => Ok(look),
                }
            }
            LocalLook::Folder(_) => match self.target.remove(path.clone(), look).await {
                Ok(()) => Ok(LocalLook::Absent),
                Err(TargetError::InTheWay(_)) => Err(self.full_folder()),
                Err(error) => Err(error.into()),
            },
            look => Ok(look),
        }
    }

    fn full_folder(&self) -> Stop {
        if self.settings.delete && !self.ways().is_last_turn {
            return Stop::AfterDelete;
        }
        Stop::Path(match self.settings.delete {
            true => "a folder is here, and the backup has a file: not all in the folder may be \
                     deleted, as the rules of the backup leave some of it out; move it away"
                .to_owned(),
            false => {
                "a folder with content is here, and the backup has a file: --overwrite always \
                      --delete replaces it with all that is in it"
                    .to_owned()
            }
        })
    }

    /// Removes a file or link from where a folder is needed, if that is asked for.
    async fn remove_from(&self, at: &RelPath) -> Result<(), Stop> {
        let look = self.look(at).await?;
        let what = match look {
            LocalLook::File(_) => "a file",
            LocalLook::Link(..) => "a link",
            LocalLook::Special(what) => {
                return Err(Stop::Path(format!(
                    "{what} is at {at}, where the backup has a folder, and is left alone: move it \
                     away"
                )));
            }
            // Somebody else was here first.
            LocalLook::Absent
            | LocalLook::Folder(_)
            | LocalLook::Blocked(_)
            | LocalLook::Otherwise(_) => return Ok(()),
        };
        if self.settings.overwrite != Overwrite::Always {
            return Err(Stop::Path(format!(
                "{what} is at {at}, where the backup has a folder: --overwrite always replaces it"
            )));
        }
        if self.plan.is_some() {
            if self.ways().told.insert(at.clone()) {
                raise(&self.tally.deleted, 1);
                self.tell("delete", at.to_string(), format!("{what}; the backup has a folder"));
            }
            return Ok(());
        }
        match self.target.remove(at.clone(), look).await {
            Ok(()) => {
                tracing::info!("{at} was {what}, and becomes a folder");
                raise(&self.tally.deleted, 1);
                Ok(())
            }
            // Another task of ours has done it, or somebody else is at work: a look will tell.
            Err(TargetError::Changed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a dry run has told that this is removed for a folder.
    pub(super) fn is_told_to_go(&self, path: &RelPath) -> bool {
        self.ways().told.contains(path)
    }

    /// Remembers a file in whose place a folder with content is.
    pub(super) fn wait_for_room(&self, item: Item) {
        let mut ways = self.ways();
        if ways.waiting.len() < WAITING_MAX {
            ways.waiting.push_back(item);
        } else {
            let why = "a folder is here, as in many other places: run it again".to_owned();
            self.tally.skipped(item.path.to_string(), why);
        }
    }

    /// Restores files into the places of folders that have been deleted.
    pub(super) async fn take_freed(self: &Arc<Self>) -> Result<(), Stop> {
        let waiting = {
            let mut ways = self.ways();
            ways.is_last_turn = true;
            std::mem::take(&mut ways.waiting)
        };
        let done = self.tally.counts();
        for item in waiting {
            if done.held > 0 || done.failed.count > 0 {
                let why = "a folder is here, and the backup has a file: the folder is deleted \
                           first, and nothing was deleted"
                    .to_owned();
                self.tally.skipped(item.path.to_string(), why);
                continue;
            }
            self.clone().file(item).await?;
        }
        Ok(())
    }
}
