//! The folder that a restore fills: nothing outside it is ever touched.

use bytes::Bytes;

use crate::model::{ContentMd5, Crc64, Entry, Md5, RelPath, Timestamp};
use crate::plan::Failure;

use super::Fut;

/// What is known of the folder before anything is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetFacts {
    /// Bytes that this user may still write.
    pub free_bytes: u64,
    /// Two names that differ in case, or in how an accent is written, are one name here.
    pub folds_names: bool,
    /// Files here have permissions of their own.
    pub keeps_modes: bool,
    /// Files here can be given to other users.
    pub keeps_owners: bool,
    /// Blocks that a small file takes, in bytes.
    pub block_bytes: u64,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalLook {
    Absent,
    File(Entry),
    /// A link with its target.
    Link(Entry, Bytes),
    Folder(Entry),
    /// A device, socket or pipe, in plain words.
    Special(&'static str),
    /// Something that is no folder, at this path, stands where a folder is needed.
    Blocked(RelPath),
    /// Something that this name means only because names are folded: it, or a folder above it, is
    /// spelled like this.
    Otherwise(RelPath),
}

/// Why something could not be done in the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// Something that is no folder, at this path, stands where a folder is needed; or a folder with
    /// content stands where a file or link is to be.
    InTheWay(RelPath),
    /// What is there is not what was looked at before.
    Changed,
    /// This path cannot be written; why, in plain words.
    Path(String),
    /// Nothing can be written at all: the disk is full, the folder is gone.
    Failed(Failure),
}

/// What is set beside the content. `None` leaves as it falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub mtime: Option<Timestamp>,
    /// Permission bits, setuid, setgid and sticky included.
    pub permissions: Option<u32>,
    pub owner: Option<(u32, u32)>,
}

/// Digests of what was written in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub bytes: u64,
    pub crc64: Crc64,
    /// Where it was asked for.
    pub md5: Option<Md5>,
}

/// Writes one stretch of a new file, from some offset on.
pub trait Stretch: Send {
    /// Runs of zeros become holes. Small pieces are gathered, and written together.
    fn write(&mut self, bytes: Bytes) -> Fut<'_, Result<(), TargetError>>;
    /// Writes what is still gathered. Without it, the stretch has not been written.
    fn finish(self: Box<Self>) -> Fut<'static, Result<Written, TargetError>>;
}

/// A file without a name yet. Dropped, it leaves nothing behind.
pub trait NewFile: Send + Sync {
    /// Begins to write at this offset. Stretches that do not overlap may be written at once.
    fn stretch(&self, offset: u64, md5: bool) -> Box<dyn Stretch>;
    /// Reads what finished stretches wrote, whole or in parts of this size.
    fn digest(&self, part_size: Option<u64>) -> Fut<'_, Result<(ContentMd5, Crc64), TargetError>>;
    /// Gives it its size and its attributes, makes all this durable, and then gives it its name, in
    /// one step, in place of what `over` says was there.
    fn commit(
        self: Box<Self>,
        size_bytes: u64,
        attributes: Attributes,
        over: LocalLook,
    ) -> Fut<'static, Result<(), TargetError>>;
}

/// The folder that is restored into. Never goes through a symbolic link below it, also not through
/// one that is put there meanwhile.
pub trait TargetTree: Send + Sync {
    /// Makes the folder where it is missing (its parent must be there), refuses one that another
    /// restore is filling, and removes what a killed restore left.
    fn prepare(&self) -> Fut<'_, Result<TargetFacts, Failure>>;
    /// The same facts, without making or changing anything; what takes a new file to be known is
    /// taken to be as it mostly is. Looks at the nearest folder above where the target is not there
    /// yet.
    fn facts(&self) -> Fut<'_, Result<TargetFacts, Failure>>;
    fn look(&self, path: RelPath) -> Fut<'_, Result<LocalLook, TargetError>>;
    /// The same for many at once, in their order.
    fn look_at_all(&self, paths: Vec<RelPath>) -> Fut<'_, Vec<Result<LocalLook, TargetError>>>;
    /// Reads a file that is there, whole or in parts of this size.
    fn digest(
        &self,
        path: RelPath,
        part_size: Option<u64>,
    ) -> Fut<'_, Result<(ContentMd5, Crc64), TargetError>>;
    /// Makes this folder and those above it, where they are missing; tells whether it was.
    fn folder(&self, path: RelPath) -> Fut<'_, Result<bool, TargetError>>;
    /// Begins a file; the folders above its path are made where they are missing.
    fn create(&self, path: RelPath) -> Fut<'_, Result<Box<dyn NewFile>, TargetError>>;
    /// Makes a symbolic link in place of what `over` says was there.
    fn link(
        &self,
        path: RelPath,
        target: Bytes,
        attributes: Attributes,
        over: LocalLook,
    ) -> Fut<'_, Result<(), TargetError>>;
    /// Sets attributes of what is there, if it still is what `is` says. Not those of a file with
    /// several hard links: it may be one outside the target, too.
    fn set(
        &self,
        path: RelPath,
        is: LocalLook,
        attributes: Attributes,
    ) -> Fut<'_, Result<(), TargetError>>;
    /// Removes a file, a link or an empty folder, if it still is what `is` says.
    fn remove(&self, path: RelPath, is: LocalLook) -> Fut<'_, Result<(), TargetError>>;
    /// Makes everything durable, and leaves nothing of its own behind. Called after a restore that
    /// stopped early, too.
    fn finish(&self) -> Fut<'_, Result<(), Failure>>;
}
