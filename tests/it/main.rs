//! The only integration binary: one file per subject.

mod kill;
mod live;
mod resume;
mod simulate;
mod support;
mod sweep;
mod sync;
