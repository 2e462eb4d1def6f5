//! The crate as a library: what the program does, for programs.
//!
//! Each builder runs one thing to its end: no printing, no signal handlers, no exit of the
//! process, and nothing that goes on afterwards. Errors are values ([`Error`]), progress is a
//! callback, and a [`Stop`] ends it early. Sees `wire` and use-cases, never an adapter; only
//! `lib.rs` shows it.

mod mirror;
mod report;
mod restore;
mod run;
mod sync;

pub use mirror::{Compare, Mirror};
pub use report::{Differences, Outcome, Problem, Report};
pub use restore::Restore;
pub use run::{Access, Progress, Stop};
pub use sync::Sync;

pub use crate::app::backup::PlannedAction;
pub use crate::app::status::{Requests, Summary};
pub use crate::plan::ErrorClass;
pub use crate::wire::Error;

/// Choices that the builders take.
pub mod choices {
    pub use crate::plan::{Compare, Deletions, MaxDelete, MirrorCompare, Overwrite, Symlinks};
    pub use crate::ports::Tier;
}
