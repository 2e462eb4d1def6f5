//! The only integration binary: one file per subject.

mod kinds;
mod simulate;
mod support;
mod sweep;
mod sync;
mod tidy;
