//! keepwatch keeps folders backed up to S3, all the time.
//!
//! This is the crate behind the program, and a library: a folder brought into a bucket with
//! [`Sync`], and back with [`Restore`], buckets kept in step with [`Mirror`] and compared with
//! [`Compare`], from a program of your own, with its own progress, without a word printed. Only
//! what this page lists is meant for other programs; all other modules are the inside of the
//! program, seen by its tests, and change as they like.
//!
//! ```no_run
//! let report = keepwatch::Sync::new("/home/me/Documents", "s3://my-bucket/documents")
//!     .create_bucket(true)
//!     .on_progress(|progress| println!("{} of {} files", progress.done, progress.known))
//!     .run_blocking()?;
//! assert_eq!(report.outcome, keepwatch::Outcome::Done);
//! # Ok::<(), keepwatch::Error>(())
//! ```
//!
//! # How it is built
//!
//! One idea carries everything: **observe, decide, act, record.** A hint of the watcher never says
//! what to do; it says where to look. What was seen on each side is compared by one pure function,
//! `plan::decide`, with what was last recorded, and only that function decides.
//!
//! ```text
//!   hints (watch)   signals (service)   timers      finished tasks       findings of looks
//!        |                 |               |               |                       |
//!        v                 v               v               v                       v
//!   app::driver      one select loop; the only await that chooses
//!        |  Event, now
//!        v
//!   engine::Engine   one owner, no IO: which path is due, what may start, what waits, what is held
//!        |  Effect (data)
//!        v
//!   app::observe     looks: source (fs), base (state), target (s3) --> plan::decide, plan::guard
//!   app::execute     acts: intent recorded (state), then the request (s3), then the outcome
//! ```
//!
//! Arrows between modules point up this page only, and `tests/it/tidy.rs` keeps it so:
//!
//! ```text
//!   model       nouns: paths, keys, content, entries, records, times
//!   plan        decisions: decide, merge, guard, stable reads, parts
//!   engine      control: dirty paths, schedule, backoff, deletions, in virtual time
//!   ports       what the outside must offer; the traits below which adapters hide
//!   fs watch s3 state cloudwatch           adapters: one outside thing each, never another adapter
//!   store       the embedded S3 store: a server of its own, sees nothing of the above
//!   app         use-cases over ports
//!   config service report                  what to do; where it runs; what is said
//!   wire        adapters and use-cases put together, for whoever runs them; needs no terminal
//!   api         the public part of the crate: builders for programs
//!   cli         the command line
//!   sim         fakes of all ports with faults, and a world to drive them (tests only)
//! ```
//!
//! `model`, `plan` and `engine` are pure: no IO, no clock, no chance, no threads, no unordered
//! maps. With `--no-default-features` the crate is just these three.

#[doc(hidden)]
pub mod model;

#[doc(hidden)]
pub mod plan;

#[doc(hidden)]
pub mod engine;

#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod ports;

#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod cloudwatch;
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod fs;
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod s3;
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod state;
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod watch;

#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod store;

#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod app;

#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod config;
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod report;
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod service;

#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod wire;

#[cfg(feature = "daemon")]
mod api;
#[cfg(feature = "daemon")]
pub use api::*;

#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod cli;

#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod sim;
