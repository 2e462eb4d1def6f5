//! Decisions: what follows from what was seen.
//!
//! Pure functions over the nouns of [`crate::model`]. [`decide()`] is the heart: the daemon,
//! one-shot passes and verification differ only in what they observe.

pub mod action;
pub mod decide;
pub mod guard;
pub mod merge;
pub mod mirror;
pub mod parts;
pub mod pattern;
pub mod policy;
pub mod restore;
pub mod stable;

pub use action::{DeleteItem, Deletion, Done, ErrorClass, Failure, Hint, Job, LookAgain};
pub use action::{Outcome, Scope, Skip, Task};
pub use decide::{Decision, LastWord, Why, decide, is_believed, last_word};
pub use guard::{Guard, Hold, HoldReason};
pub use merge::{Merge, OutOfOrder, Side, Step, Triple};
pub use mirror::MirrorCompare;
pub use policy::{Compare, Deletions, MaxDelete, Symlinks};
pub use restore::{Choice, Kept, Overwrite, Place, Refusal, Wanted};
pub use stable::{Readings, Verdict, judge};
