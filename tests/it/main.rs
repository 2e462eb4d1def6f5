//! The only integration binary: one file per subject.

mod live;
mod simulate;
mod support;
mod sweep;
mod sync;
