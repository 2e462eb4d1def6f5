//! What a driver says of itself at once, from memory alone: that it moves, whether it has begun to
//! compare, and how it is.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::backup::Backup;
use super::status::{BackupStatus, Live, add_live};

/// What has no answer for so long is waited for, and told of: it holds up nothing else any more.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The answer to [`super::control::Command::Pulse`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    pub name: String,
    /// The first comparison of everything runs, or has run; or it cannot, and the status says what
    /// is being waited for; or a person has it paused; or nobody has answered for too long.
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
    let late = !compares && !waits && u128::from(live.tick.0) >= PATIENCE.as_millis();
    if late {
        let what = "a first answer of its source or its destination";
        status.waiting_for = Some(what.to_owned());
    }
    Pulse { name, begun: compares || waits || late, status }
}
