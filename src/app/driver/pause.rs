//! A backup that a person has paused: nothing is sent, and what changes is remembered.

use tokio::sync::oneshot;

use crate::engine::{Event, Mode};
use crate::plan::{ErrorClass, Failure};

use super::super::CONDITION;
use super::Driver;

pub(crate) fn is_paused() -> Failure {
    Failure::new(ErrorClass::Configuration, "it is paused, and sends nothing")
        .with_hint("let it go on with: keepwatch resume")
}

impl Driver {
    /// A pause outlives restarts. A one-shot run is asked for by name, and is not kept from it.
    pub(super) async fn begin_paused(&mut self) {
        if self.backup.settings.mode != Mode::Daemon {
            return;
        }
        let row = self.backup.state.backup().await;
        if row.is_ok_and(|row| row.paused_at.is_some()) {
            self.set_paused(true);
        }
    }

    /// It is recorded that it is to be paused, or to go on.
    pub(super) fn paused(
        &mut self,
        paused: bool,
        result: Result<bool, Failure>,
        answer: oneshot::Sender<Result<bool, Failure>>,
    ) {
        if result.is_ok() && self.engine.snapshot().paused != paused {
            self.set_paused(paused);
        }
        answer.send(result).ok();
    }

    fn set_paused(&mut self, paused: bool) {
        let name = &self.backup.settings.name;
        self.backup.set_paused(paused);
        match paused {
            true => {
                tracing::warn!(target: CONDITION, backup = name, "paused: nothing is sent");
                for answer in std::mem::take(&mut self.flushes).into_values() {
                    answer.send(Err(is_paused())).ok();
                }
            }
            false => tracing::info!(target: CONDITION, backup = name, "goes on after a pause"),
        }
        self.handle(if paused { Event::Pause } else { Event::Resume });
    }
}
