//! What a driver says of itself at once, from memory alone: that it moves, whether it has begun to
//! compare, and how it is.

use std::sync::atomic::Ordering;

use super::backup::Backup;
use super::status::{BackupStatus, Live, add_live};

/// The answer to [`super::control::Command::Pulse`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    pub name: String,
    /// The first comparison of everything runs, or has run; or it cannot, and the status says what
    /// is being waited for; or a person has it paused.
    pub begun: bool,
    /// Filled as far as it can be without the records.
    pub status: BackupStatus,
}

/// The pulse of a backup that is driven.
pub fn pulse(backup: &Backup, live: &Live) -> Pulse {
    let name = backup.settings.name.clone();
    let mut status = BackupStatus {
        name: name.clone(),
        failing: live.snapshot.failing as u64,
        unread: backup.progress.unread.load(Ordering::Relaxed),
        ..BackupStatus::default()
    };
    add_live(&mut status, live, backup);
    let compares = backup.progress.scanning.load(Ordering::Relaxed) || live.snapshot.looked_once;
    let waits = status.waiting_for.is_some() || live.snapshot.paused;
    Pulse { name, begun: compares || waits, status }
}
