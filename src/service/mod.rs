//! Being a good process: folders, the lock, signals, the control socket, the service manager.
//!
//! Leaf code: knows the operating system, not backups. `cli` uses it.

pub mod http;
pub mod lock;
pub mod machine;
pub mod notify;
pub mod paths;
pub mod secrets;
pub mod signals;
pub mod socket;
pub mod unit;
