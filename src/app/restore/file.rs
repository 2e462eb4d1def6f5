//! One file or link: looked at, decided, and brought to its place.

use crate::model::{Entry, Kind, Meta};
use crate::plan::restore::{Choice, Overwrite, Wanted, choose, leads_out};
use crate::ports::{Attributes, Fetched, LocalLook, ObjectId, ReadHead, Thaw};

use super::super::progress::raise;
use super::fetch::Source;
use super::pass::Item;
use super::tally::Proof;
use super::{Restore, Stop};

/// How often a path is looked at anew because something changed meanwhile.
const LOOKS: u32 = 5;
/// Type bits of `st_mode`.
const TYPE: u32 = 0o170_000;
const LINK: u32 = 0o120_000;
const FILE: u32 = 0o100_000;

/// What the metadata says an object is.
pub(super) fn kind_of(meta: &Meta) -> Result<Kind, Stop> {
    match meta.mode.map_or(0, |mode| mode & TYPE) {
        0 | FILE => Ok(Kind::File),
        LINK => Ok(Kind::Link),
        _ => Err(Stop::Skip("the backup says it is neither file nor link".to_owned())),
    }
}

impl Restore {
    pub(super) async fn restore_file(&self, item: &mut Item) -> Result<(), Stop> {
        for _ in 0..LOOKS {
            match self.try_file(item).await {
                Err(Stop::Again) => {
                    // A thawed copy may have expired.
                    item.kept.thaw = None;
                    // The current object is wanted, also when it is a newer one than was listed.
                    if item.kept.id.version.is_none() {
                        item.kept.id.etag = None;
                    }
                }
                result => return result,
            }
        }
        Err(Stop::Again)
    }

    async fn try_file(&self, item: &Item) -> Result<(), Stop> {
        let look = self.look(&item.path).await?;
        let local = match &look {
            LocalLook::Absent => None,
            LocalLook::File(entry) | LocalLook::Link(entry, _) | LocalLook::Folder(entry) => {
                Some(entry)
            }
            LocalLook::Special(what) => {
                return Err(Stop::Path(format!("{what} is here, and is left alone")));
            }
            LocalLook::Otherwise(other) => {
                return Err(Stop::Path(format!("{other} has the same name here")));
            }
            LocalLook::Blocked(_) => return self.past_what_blocks(item, look.clone()).await,
        };
        let archived = item.kept.object.archived && item.kept.thaw != Some(Thaw::Thawed);
        let Some(local) = local else { return self.bring_what_is_absent(item, archived).await };
        let Some(head) = self.head(&item.kept.id).await? else { return Ok(()) };
        if self.left_out(&item.kept.id, &head).await? {
            return Ok(());
        }
        self.may_replace(&look)?;
        let wanted = Wanted {
            kind: kind_of(&head.meta)?,
            size_bytes: head.object.size_bytes,
            mtime: head.meta.mtime,
            modified: head.object.modified,
        };
        let choice = choose(self.settings.overwrite, &wanted, Some(local));
        let (retouch, differs) = match choice {
            Choice::Keep(why) => {
                self.tally.kept(item.path.to_string(), why.to_string());
                return Ok(());
            }
            Choice::Right => {
                raise(&self.tally.unchanged, 1);
                let touch = self.settings.overwrite != Overwrite::Never;
                return self.retouch(item, &head, local, look.clone(), touch).await;
            }
            Choice::Compare { retouch, differs } => (retouch, differs),
            Choice::Write => (true, None),
        };
        if matches!(choice, Choice::Compare { .. }) && self.is_same(item, &head, &look).await? {
            raise(&self.tally.unchanged, 1);
            return self.retouch(item, &head, local, look.clone(), retouch).await;
        }
        if let Some(why) = differs {
            self.tally.kept(item.path.to_string(), why.to_string());
            return Ok(());
        }
        if archived && head.thaw != Some(Thaw::Thawed) {
            return self.thaw_first(item).await;
        }
        if self.plan.is_some() {
            return self.plan_fetch(item, &head, self.why_replaced(&look));
        }
        self.bring(item, head, look).await
    }

    async fn bring_what_is_absent(&self, item: &Item, archived: bool) -> Result<(), Stop> {
        if archived {
            return self.thaw_first(item).await;
        }
        if self.plan.is_none() {
            return self.fetch(item, Source::Unknown, LocalLook::Absent).await;
        }
        match self.head(&item.kept.id).await? {
            Some(head) if !self.left_out(&item.kept.id, &head).await? => {
                self.plan_fetch(item, &head, "it is not here")
            }
            _ => Ok(()),
        }
    }

    /// `None` when it is not there any more.
    pub(super) async fn head(&self, id: &ObjectId) -> Result<Option<ReadHead>, Stop> {
        match self.patience.insist(|| self.reader.head(id)).await? {
            Fetched::Found(head) => Ok(Some(head)),
            Fetched::Changed | Fetched::Archived => Err(Stop::Again),
            Fetched::Gone => self.gone(id).map(|()| None),
        }
    }

    /// What is deleted while a restore runs is not part of the backup any more; a version stays.
    pub(super) fn gone(&self, id: &ObjectId) -> Result<(), Stop> {
        match &id.version {
            None => Ok(()),
            Some(version) => Err(Stop::Path(format!("its version {version} is gone"))),
        }
    }

    /// The same of an object that nothing is known of yet.
    pub(super) async fn is_tagged(&self, id: &ObjectId) -> Result<bool, Stop> {
        let id = ObjectId { etag: None, ..id.clone() };
        match self.patience.insist(|| self.reader.head(&id)).await? {
            Fetched::Found(head) => self.is_tagged_deleted(&id, head.tags, false).await,
            Fetched::Gone | Fetched::Changed | Fetched::Archived => Ok(false),
        }
    }

    /// Whether its tags say that it was deleted, which is counted.
    pub(super) async fn left_out(&self, id: &ObjectId, head: &ReadHead) -> Result<bool, Stop> {
        let tagged = self.is_tagged_deleted(id, head.tags, true).await?;
        if tagged {
            raise(&self.tally.tagged, 1);
            self.is_deleted(&id.key);
        }
        Ok(tagged)
    }

    /// Tells of what would be fetched.
    pub(super) fn plan_fetch(&self, item: &Item, head: &ReadHead, why: &str) -> Result<(), Stop> {
        raise(&self.tally.downloaded, 1);
        raise(&self.tally.downloaded_bytes, head.object.size_bytes);
        self.tell("fetch", item.path.to_string(), why);
        Ok(())
    }

    /// Sets what differs beside the content.
    async fn retouch(
        &self,
        item: &Item,
        head: &ReadHead,
        local: &Entry,
        is: LocalLook,
        touch: bool,
    ) -> Result<(), Stop> {
        let mut wanted = self.attributes(&head.meta);
        // What cannot be kept here will always differ.
        if let Some(facts) = self.facts.get() {
            wanted.permissions = wanted.permissions.filter(|_| facts.keeps_modes);
            wanted.owner = wanted.owner.filter(|_| facts.keeps_owners);
        }
        wanted.permissions = wanted.permissions.map(|mode| self.with_bits_of(local, mode));
        let is_link = local.kind == Kind::Link;
        let attributes = Attributes {
            mtime: wanted.mtime.filter(|mtime| *mtime != local.fingerprint.mtime),
            permissions: wanted.permissions.filter(|mode| *mode != local.mode & 0o7777 && !is_link),
            owner: wanted.owner.filter(|owner| *owner != (local.uid, local.gid)),
        };
        if !touch || attributes == Attributes::default() {
            return Ok(());
        }
        raise(&self.tally.retouched, 1);
        if self.plan.is_some() {
            self.tell("fetch", item.path.to_string(), "only its times, mode or owner differ");
            return Ok(());
        }
        // A file's owner and mode are set together: a new owner clears setuid.
        let permissions = match attributes.owner {
            Some(_) if !is_link => wanted.permissions.or(Some(local.mode & 0o7777)),
            _ => attributes.permissions,
        };
        Ok(self.target.set(item.path.clone(), is, Attributes { permissions, ..attributes }).await?)
    }

    /// Whether what is here has the object's content.
    async fn is_same(&self, item: &Item, head: &ReadHead, look: &LocalLook) -> Result<bool, Stop> {
        if let LocalLook::Link(_, target) = look {
            if head.object.archived && head.thaw != Some(Thaw::Thawed) {
                return Ok(false);
            }
            return Ok(self.link_target(&item.kept.id).await?.is_some_and(|(_, t)| t == *target));
        }
        let expected = self.expected(&item.kept.id, head).await?;
        let digest = |part| self.target.digest(item.path.clone(), part);
        Ok(matches!(expected.check(digest).await?, Some(proof) if proof != Proof::Nothing))
    }

    /// Makes a link of what was read.
    pub(super) async fn make_link(
        &self,
        item: &Item,
        head: &ReadHead,
        target: bytes::Bytes,
        over: LocalLook,
    ) -> Result<(), Stop> {
        if !self.settings.outside_links && leads_out(&item.path, &target) {
            let shown = crate::model::Escaped(&target).to_string();
            let why = format!("a link to {shown}, outside the target: --outside-links makes it");
            return Err(Stop::Skip(why));
        }
        let attributes = Attributes { permissions: None, ..self.attributes(&head.meta) };
        self.target.link(item.path.clone(), target, attributes, over).await?;
        raise(&self.tally.downloaded, 1);
        raise(&self.tally.downloaded_bytes, head.object.size_bytes);
        Ok(())
    }

    /// Asks for it to be thawed, unless it is readable by now.
    pub(super) async fn thaw_first(&self, item: &Item) -> Result<(), Stop> {
        let id = &item.kept.id;
        let Some(head) = self.head(id).await? else { return Ok(()) };
        if self.left_out(id, &head).await? {
            return Ok(());
        }
        if head.thaw == Some(Thaw::Thawed) || !head.object.archived {
            let look = self.look(&item.path).await?;
            return match self.plan.is_some() {
                true => self.plan_fetch(item, &head, "it is thawed"),
                false => self.bring(item, head, look).await,
            };
        }
        if self.plan.is_some() {
            self.tell("fetch", item.path.to_string(), "archived: it must be thawed first");
            raise(&self.tally.frozen, 1);
            return Ok(());
        }
        match head.thaw {
            Some(Thaw::Ongoing) => Err(Stop::Frozen),
            _ => self.ask_to_thaw(id).await,
        }
    }
}
