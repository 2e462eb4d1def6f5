//! The only integration binary: one file per subject.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "so does a test fail")]
#![allow(clippy::print_stdout, reason = "shown when a test fails")]
mod adopt;
mod chain;
mod cli;
mod cloudwatch;
mod contracts;
mod credentials;
mod daemon;
mod disks;
mod docs;
mod documented;
mod earlier;
mod errors;
mod forget;
mod guard;
mod kill;
mod kinds;
mod library;
mod limits;
mod live;
mod marks;
mod memory;
mod metrics;
mod mirror;
mod names;
mod package;
mod pause;
mod policy;
mod proof;
mod restore;
mod resume;
mod rotation;
mod secrets;
mod service;
mod simulate;
mod state;
mod stores;
mod support;
mod sweep;
mod sync;
mod tidy;

mod tls;
mod told;
mod waits;
