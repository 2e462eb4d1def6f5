//! keepwatch keeps folders backed up to S3, all the time.
//!
//! One idea carries everything: **observe, decide, act, record.** A hint of the watcher never says
//! what to do; it says where to look. What was seen on each side is compared by one pure function,
//! [`plan::decide()`], with what was last recorded, and only that function decides.
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
//!   fs watch s3 state                      adapters: one outside thing each, never another adapter
//!   store       the embedded S3 store: a server of its own, sees nothing of the above
//!   app         use-cases over ports
//!   config service report                  what to do; where it runs; what is said
//!   wire        adapters and use-cases put together, for whoever runs them; needs no terminal
//!   cli         the command line
//!   sim         fakes of all ports with faults, and a world to drive them (tests only)
//! ```
//!
//! `model`, `plan` and `engine` are pure: no IO, no clock, no chance, no threads, no unordered
//! maps. With `--no-default-features` the crate is just these three.

pub mod model;

pub mod plan;

pub mod engine;

#[cfg(feature = "daemon")]
pub mod ports;

#[cfg(feature = "daemon")]
pub mod fs;
#[cfg(feature = "daemon")]
pub mod s3;
#[cfg(feature = "daemon")]
pub mod state;
#[cfg(feature = "daemon")]
pub mod watch;

#[cfg(feature = "daemon")]
pub mod store;

#[cfg(feature = "daemon")]
pub mod app;

#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod report;
#[cfg(feature = "daemon")]
pub mod service;

#[cfg(feature = "daemon")]
pub mod wire;

#[cfg(feature = "daemon")]
pub mod cli;

#[cfg(feature = "sim")]
pub mod sim;
