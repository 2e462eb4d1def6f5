//! The state is somebody's, or cannot be opened: waiting for it, and saying why.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::plan::ErrorClass;
use crate::service::{lock, paths};
use crate::state::OpenError;

use super::Error;

/// Takes the lock. Whoever has it and is no daemon is done in a moment, most often: `status` reads
/// the state itself where no daemon runs, and must not keep one from starting.
pub(super) fn patiently(
    folder: &Path,
    take: fn(&Path) -> Result<lock::Lock, lock::LockError>,
) -> Result<lock::Lock, Error> {
    const WAIT: Duration = Duration::from_secs(3);
    // One that was just killed still has its lock and its socket.
    const DYING: Duration = Duration::from_millis(500);
    let started = Instant::now();
    let is_daemon = || UnixStream::connect(paths::control_socket(folder)).is_ok();
    loop {
        match take(folder) {
            Err(lock::LockError::Held { .. })
                if started.elapsed() < DYING || (started.elapsed() < WAIT && !is_daemon()) =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result.map_err(|error| not_locked(&error)),
        }
    }
}

fn not_locked(error: &lock::LockError) -> Error {
    let told = Error::new(ErrorClass::State, error.to_string());
    match error {
        lock::LockError::Held { .. } => told
            .passing()
            .hint("ask the running one with `keepwatch status` or `keepwatch flush`")
            .hint("or give this one a state of its own with --state-dir"),
        lock::LockError::Io { source, .. } if is_full(source) => told.caused_by(source).passing(),
        lock::LockError::Io { source, .. } => told.caused_by(source),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

pub(super) fn not_opened(error: &OpenError) -> Error {
    let hint = match error {
        OpenError::Newer { .. } => "upgrade keepwatch, or use another --state-dir",
        OpenError::Foreign { .. } => "use another --state-dir",
        OpenError::Full { .. } => "free some space",
        OpenError::Sqlite { .. } | OpenError::MoveAside { .. } => {
            "check the disk and the rights on the state folder"
        }
    };
    let wrapped = Error::new(ErrorClass::State, error.to_string()).hint(hint);
    let wrapped = match error {
        OpenError::Full { .. } => wrapped.passing(),
        OpenError::MoveAside { source, .. } if is_full(source) => wrapped.passing(),
        _ => wrapped,
    };
    match std::error::Error::source(error) {
        Some(source) => wrapped.caused_by(source),
        None => wrapped,
    }
}
