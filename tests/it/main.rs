//! The only integration binary: one file per subject.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "so does a test fail")]

mod contracts;
mod guard;
mod kinds;
mod policy;
mod simulate;
mod support;
mod sweep;
mod sync;
mod tidy;
