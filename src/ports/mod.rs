//! What the outside must offer: local files, a watcher, the object store, the state, a clock; and
//! to restore, objects to read and a folder to fill; to mirror, objects to copy; and a service that
//! keeps numbers.
//!
//! Use-cases see these traits and never an adapter. Each trait is a written contract; one suite of
//! tests runs it on the adapter and on its fake. Errors carry their class ([`ErrorClass`]), decided
//! in the adapter, where the cause is known.

mod copies;
mod links;
mod local;
mod metrics;
mod objects;
mod reader;
mod scratch;
mod state;
mod target;
mod watch;

use std::future::Future;
use std::pin::Pin;

use crate::model::Millis;
#[cfg(doc)]
use crate::plan::ErrorClass;

pub use copies::{
    Copy, CopyPart, CopySource, CopyTarget, CreateCopy, FullHead, Headers, Origin, PutCopy, Tags,
};
pub use links::Links;
pub use local::{
    Batch, Chunk, Identity, LeftOut, LocalTree, OpenFile, PartDigest, ReadError, Seen, Stat, Veil,
    Walk, WholeRead,
};
pub use metrics::{Backlog, MetricSink};
pub use objects::{
    Complete, Condition, ListPage, ObjectStore, OpenUpload, Put, PutPart, ReplyCounts,
    RequestCounts, SmallObject, StoreError, Stored, StoredPart, UploadMark, UploadPage,
};
pub use reader::{
    Body, Fetched, ListedObject, ListedVersion, ObjectId, ObjectPage, ObjectReader, ReadHead,
    Reading, Thaw, ThawReply, Tier, VersionMark, VersionPage,
};
pub use scratch::{LineQueue, Scratch};
pub use state::{
    BackupRow, Change, JournaledPart, KeyRange, ProblemRow, StateError, StateStore, Tally,
    UploadJournal,
};
pub use target::{
    Attributes, LocalLook, NewFile, Stretch, TargetError, TargetFacts, TargetTree, Written,
};
pub use watch::{FolderWatch, HintSource, WatchEvent};

/// A future behind a trait object.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Wall-clock time. Delays within a run are measured by the runtime's monotonic clock.
pub trait Clock: Send + Sync {
    fn now(&self) -> Millis;
}
