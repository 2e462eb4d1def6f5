//! The only integration binary: one file per subject.

mod errors;
mod guard;
mod kinds;
mod policy;
mod simulate;
mod support;
mod sweep;
mod sync;
mod tidy;
