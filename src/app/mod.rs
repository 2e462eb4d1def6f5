//! Use-cases over ports: looking, deciding, acting, recording.
//!
//! Sees [`crate::ports`] and the pure layers, never an adapter. Everything a backup does goes
//! through [`driver`], the one select loop; [`observe`] looks, [`execute`] acts, [`deletions`]
//! deletes, [`owner`] keeps other writers away.

pub mod backup;
pub mod control;
pub mod copy;
mod cut;
pub mod deletions;
pub mod driver;
pub mod execute;
pub mod halt;
pub mod mirror;
mod neighbours;
pub mod observe;
mod orphans;
pub mod owner;
mod patience;
pub mod progress;
pub mod publish;
pub mod pulse;
pub mod restore;
pub mod status;
pub mod untold;

pub use backup::{Backup, BackupSettings, PlannedAction};
pub use driver::{Driver, Ended};
pub use progress::{Counts, Progress};

pub use crate::model::{is_unsafe_to_show, words};

use crate::plan::{ErrorClass, Failure};
use crate::ports::StoreError;

/// Target of log events about single files.
pub const FILE: &str = "keepwatch::file";

/// Target of log events that tell a change of condition.
pub const CONDITION: &str = "keepwatch::condition";

/// An error of the store as a failure, where no special meaning was left to handle.
pub fn failure_of(error: StoreError, what: &str) -> Failure {
    let failed = |class, cause: &str| Failure::new(class, format!("cannot {what}")).because(cause);
    match error {
        StoreError::Failed(failure) | StoreError::NoSuchBucket(failure) => failure,
        StoreError::Precondition => failed(ErrorClass::Server, "the object changed under us"),
        StoreError::NoSuchUpload => failed(ErrorClass::Server, "the upload is gone"),
        StoreError::Unsupported(cause) => failed(ErrorClass::Configuration, &cause)
            .with_hint("this server does not offer what the configuration asks for"),
    }
}
