//! Where a kill makes a difference: before each act on the disk. Tests end the process at each of
//! these in turn (`tests/crash_points.rs`); outside tests they are nothing.

#[cfg(test)]
pub(super) use super::tests::crash_points::crash_point;

#[cfg(not(test))]
pub(super) fn crash_point() {}
