//! What was last recorded about a key: a row of the state database.

use super::content::{ContentMd5, ETag};
use super::entry::{Entry, Meta};
use super::time::Millis;

/// How far a record may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trust {
    /// The object was acknowledged with this content.
    Synced,
    /// A request that writes the object may have been sent: the object is unknown.
    Uploading,
    /// A request that deletes the object may have been sent: the object is unknown.
    Deleting,
    /// The object was tagged as deleted.
    Tagged,
}

/// The last observation of a key on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The entry whose content was sent. For `Uploading`, the entry about to be sent.
    pub entry: Entry,
    /// `None` while no upload of this key was ever acknowledged.
    pub content: Option<ContentMd5>,
    pub etag: Option<ETag>,
    pub trust: Trust,
    /// The entry was as young as this record when it was read: look again, stat may hide a change.
    pub racy: bool,
    /// What the object's metadata says, where it differs from `entry`: a change of metadata that
    /// could not be written (an archived or too large object).
    pub stale_meta: bool,
    /// Since when the name has been absent without a break, in the looks that could tell.
    pub missing_since: Option<Millis>,
    /// A person approved that the object of this missing file is deleted.
    pub approved: bool,
}

impl Record {
    /// A record of an acknowledged object.
    pub fn synced(entry: Entry, content: ContentMd5, etag: ETag, racy: bool) -> Self {
        Self {
            entry,
            content: Some(content),
            etag: Some(etag),
            trust: Trust::Synced,
            racy,
            stale_meta: false,
            missing_since: None,
            approved: false,
        }
    }

    pub fn meta(&self) -> Meta {
        self.entry.meta()
    }
}
