//! The wish that work stops where it is, for good or until it may go on.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// Clones are the same wish.
#[derive(Clone, Debug, Default)]
pub struct Halt(Arc<Mutex<CancellationToken>>);

impl Halt {
    fn token(&self) -> CancellationToken {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Work that looks here ends.
    pub fn cancel(&self) {
        self.token().cancel();
    }

    /// What begins from now on may run again.
    pub fn take_back(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = CancellationToken::new();
    }

    pub fn is_cancelled(&self) -> bool {
        self.token().is_cancelled()
    }

    /// Returns when it is wished.
    pub async fn cancelled(&self) {
        self.token().cancelled().await;
    }
}
