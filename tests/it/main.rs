//! The only integration binary: one file per subject.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "so does a test fail")]

mod daemon;
mod guard;
mod kill;
mod kinds;
mod limits;
mod live;
mod memory;
mod policy;
mod resume;
mod simulate;
mod support;
mod sweep;
mod sync;
mod tidy;
