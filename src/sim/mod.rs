//! Fakes of every port with faults and crashes, and the world that drives them. Used by tests only.
//!
//! Everything is in memory, on one thread, in virtual time, and random from one seed: the same seed
//! gives the same run. What a fake does is what the adapter does: one suite of tests runs on both
//! (`tests/it/contracts`).

pub mod chance;
pub mod clock;
pub mod faults;
pub mod fs;
pub mod state;
pub mod store;
pub mod world;

pub use chance::Chance;
pub use clock::SimClock;
pub use faults::Faults;
pub use fs::SimFs;
pub use state::SimState;
pub use store::SimStore;
