//! The files of a source: walked, looked at, and read; never changed.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::{ContentMd5, Crc64, Entry, Key, Md5, Observed, RelPath, Source};
use crate::plan::{Failure, Skip};

use super::{FolderWatch, Fut, Links};

/// Which folder the source is, beyond its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// File system id as `statfs` gives it, or the device number where it gives none. What lies
    /// in the source, on no disk that is mounted below it, has it as its device.
    pub filesystem: u64,
    pub inode: u64,
    /// Birth time in nanoseconds since the epoch, where the file system knows it.
    pub born_ns: Option<i64>,
}

/// What a walk saw at one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Entry(RelPath, Entry),
    Veil(Veil),
}

/// Something at this key hides what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veil {
    /// The rules leave it out; otherwise it could not be looked at.
    pub excluded: bool,
    /// Everything whose key starts with this one is hidden too. Entries that follow in spite of
    /// that were seen; only absence proves nothing.
    pub tree: bool,
    /// What to tell a person.
    pub skip: Option<(RelPath, Skip)>,
}

/// Some of what a walk saw, in key order.
pub type Batch = Vec<(Key, Seen)>;

/// A running walk: it goes through the source in key order.
pub trait Walk: Send {
    /// `None` at the end of an error-free walk. After an error nothing more comes.
    fn next(&mut self) -> Fut<'_, Option<Result<Batch, Failure>>>;
}

/// What `stat` saw at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stat {
    /// The name does not exist, in a source that was opened without error. `disk` is where the
    /// nearest folder that is there lies: of what lay on another disk, nothing is proven.
    Absent {
        disk: u64,
        left_out: LeftOut,
    },
    Unknown(Skip),
    Excluded,
    /// A file or a link.
    Entry(Entry),
    /// A folder, in a folder on this disk; with a marker when it is empty or has a mode of its own.
    Folder {
        marker: Option<Entry>,
        disk: u64,
        left_out: LeftOut,
    },
}

/// What the rules would leave out at a name where there is no such thing. Absence of what they
/// leave out says nothing about its object, which is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    pub file: bool,
    /// The marker of a folder.
    pub marker: bool,
    /// A folder and everything in it.
    pub tree: bool,
}

impl Stat {
    /// What the look means for a key of its path: a folder where a file was is absence of the file,
    /// and a file where a folder was is absence of the marker.
    pub fn at(&self, key: &Key) -> Source {
        match (self, key.is_folder()) {
            (Self::Absent { left_out, .. } | Self::Folder { left_out, .. }, false)
                if left_out.file =>
            {
                Source::Excluded
            }
            (Self::Absent { left_out, .. } | Self::Folder { marker: None, left_out, .. }, true)
                if left_out.marker =>
            {
                Source::Excluded
            }
            (Self::Absent { .. }, _) => Source::Absent,
            (Self::Unknown(_), _) => Source::Unknown,
            (Self::Excluded, _) => Source::Excluded,
            (Self::Entry(entry), false) | (Self::Folder { marker: Some(entry), .. }, true) => {
                Source::Present(*entry)
            }
            (Self::Entry(_), true) | (Self::Folder { .. }, _) => Source::Absent,
        }
    }

    /// What the look means for everything below its path, where that is no folder.
    pub fn below(&self) -> Source {
        match self {
            Self::Absent { left_out, .. } if left_out.tree => Source::Excluded,
            Self::Absent { .. } | Self::Entry(_) => Source::Absent,
            Self::Excluded => Source::Excluded,
            Self::Unknown(_) | Self::Folder { .. } => Source::Unknown,
        }
    }

    /// The disk on which the look found what it found; `None` where it did not look.
    pub fn disk(&self) -> Option<u64> {
        match self {
            Self::Absent { disk, .. } | Self::Folder { disk, .. } => Some(*disk),
            Self::Entry(entry) => Some(entry.fingerprint.device),
            Self::Unknown(_) | Self::Excluded => None,
        }
    }
}

/// Why a read gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The name is gone, or is not what it was: plan anew.
    Changed,
    /// This path cannot be read.
    Unreadable(String),
    /// Too many open files and the like: later.
    Busy(Failure),
}

/// A small file, read at once, with what was seen before and after.
#[derive(Clone, Debug)]
pub struct WholeRead {
    pub before: Entry,
    pub after: Entry,
    pub by_path: Observed<Entry>,
    pub bytes: Bytes,
    pub md5: Md5,
    pub crc64: Crc64,
}

/// A range of an open file. `bytes` is shorter than asked for only at the end of the file.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub bytes: Bytes,
    pub digest: PartDigest,
}

/// Digests of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartDigest {
    pub bytes: u64,
    pub md5: Md5,
    pub crc64: Crc64,
}

/// A file that stays open: all its ranges are of the same file, whatever happens to the name.
pub trait OpenFile: Send + Sync {
    /// As `fstat` saw it when it was opened.
    fn opened(&self) -> Entry;
    fn read(&self, offset: u64, length: u64) -> Fut<'_, Result<Chunk, ReadError>>;
    /// Reads without keeping the bytes.
    fn digest(&self, offset: u64, length: u64) -> Fut<'_, Result<PartDigest, ReadError>>;
    /// As `fstat` and a fresh look at the path see it now.
    fn look(&self) -> Fut<'_, Result<(Entry, Observed<Entry>), ReadError>>;
}

/// The files of one source. Never follows a symbolic link below the source, never opens what is
/// neither file nor folder, and never changes anything.
pub trait LocalTree: Send + Sync {
    /// Fails when the source is not there or is no folder.
    fn identity(&self) -> Fut<'_, Result<Identity, Failure>>;

    /// Walks the folder `top` (the whole source for the root). Each folder is handed to `watch`
    /// before its content is listed. An error to open the source fails the walk; a folder that
    /// cannot be listed, `top` among them, becomes a veil.
    fn walk(&self, top: RelPath, watch: Option<Arc<dyn FolderWatch>>) -> Box<dyn Walk>;

    /// The folder whose rules this path is part of: an ignore file, or the name that excludes its
    /// folder. When it changes, everything below that folder must be looked at again.
    fn governed(&self, path: &RelPath) -> Option<RelPath>;

    /// Looks at single paths. Fails as a whole when the source cannot be opened.
    fn stat(&self, paths: Vec<RelPath>) -> Fut<'_, Result<Vec<Stat>, Failure>>;

    /// The files with more than one name, as walks and looks at single paths have seen them.
    fn links(&self) -> &Links;

    /// Reads a file of at most `limit` bytes; more are cut off, and `before` tells.
    fn read_whole(&self, path: RelPath, limit: u64) -> Fut<'_, Result<WholeRead, ReadError>>;
    fn open(&self, path: RelPath) -> Fut<'_, Result<Box<dyn OpenFile>, ReadError>>;
    /// A link's own entry and its target.
    fn read_link(&self, path: RelPath) -> Fut<'_, Result<(Entry, Bytes), ReadError>>;
}

impl PartDigest {
    /// Digests over all parts together: the composite MD5, and the CRC of the whole content.
    pub fn combine(parts: &[PartDigest], part_size: u64) -> (ContentMd5, Crc64) {
        let md5 = ContentMd5::of_parts(parts.iter().map(|p| &p.md5), part_size);
        let crc64 = parts.iter().fold(Crc64::EMPTY, |crc, p| crc.then(p.crc64, p.bytes));
        (md5, crc64)
    }
}
