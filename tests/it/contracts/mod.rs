//! The ports' contracts: one suite for each, run on the adapter and on its fake. What holds for
//! both is what use-cases may rely on, and what makes the simulation worth its green.

mod objects;
mod reader;
mod source;
mod state;
mod state_random;
mod target;
mod target_disks;
mod target_safety;
mod tree;
mod tree_random;
mod watch;

use std::future::Future;

/// Runs a case in a runtime as the daemon has it.
fn in_runtime<T>(case: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(case)
}
