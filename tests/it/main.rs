//! The only integration binary: one file per subject.

mod simulate;
mod support;
mod sweep;
mod sync;
mod tidy;
