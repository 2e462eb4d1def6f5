//! keepwatch
#[cfg(feature = "daemon")]
pub mod app;
#[cfg(feature = "daemon")]
pub mod config;
pub mod engine;
#[cfg(feature = "daemon")]
pub mod fs;
pub mod model;
pub mod plan;
#[cfg(feature = "daemon")]
pub mod ports;
#[cfg(feature = "daemon")]
pub mod s3;
#[cfg(feature = "daemon")]
pub mod state;
#[cfg(feature = "daemon")]
pub mod watch;
