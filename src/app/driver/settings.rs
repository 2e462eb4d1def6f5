//! What the engine is told of a backup's configuration.

use crate::engine::Settings;

use super::super::backup::Backup;
use super::super::execute::large::FLIGHT_BYTES;

/// The engine's limits and delays.
pub(super) fn of(backup: &Backup) -> Settings {
    let s = &backup.settings;
    Settings {
        mode: s.mode,
        settle_ms: s.settle_ms,
        max_wait_ms: s.max_wait_ms.max(s.settle_ms),
        rescan_ms: s.rescan_ms,
        deletions: s.deletions,
        // While some transfer, others read, or wait for the disk under the state database.
        ops_max: s.transfers.max(1) * 16,
        bytes_max: 4 * FLIGHT_BYTES,
        large_bytes: s.multipart_threshold,
        dirty_max: 20_000,
        ready_max: 1_024,
        seed: s.seed,
    }
}
