//! Being a good process: folders, the lock, signals, and the control socket.
//!
//! Leaf code: knows the operating system, not backups. `cli` uses it.

pub mod lock;
pub mod machine;
pub mod paths;
pub mod signals;
pub mod socket;
