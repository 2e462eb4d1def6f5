//! Whether the destination is there. Trouble that is everybody's stops the work without counting
//! against any path; trouble that may be one path's own is told apart by a probe.

use std::collections::BTreeSet;

use crate::model::{Key, Tick};
use crate::plan::{ErrorClass, Failure};

use super::backoff::{Backoff, Jitter};

/// The destination is away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub failure: Failure,
    pub since: Tick,
    pub next_probe: Tick,
    attempts: u32,
    /// It was a write that was refused, as where the destination is full: a probe reads, and does
    /// not tell.
    refused: bool,
}

/// What a failure means for the work as a whole.
#[derive(Debug, PartialEq, Eq)]
pub enum Consequence {
    /// This key's own trouble, as far as is known.
    Own,
    /// Everybody's: the gate closed just now, or was closed.
    Closed,
}

#[derive(Debug, Default)]
pub struct Gate {
    waiting: Option<Waiting>,
    /// Writes were refused, and are tried again: none has succeeded since.
    trying: Option<Waiting>,
    /// Keys whose requests failed since the last success.
    suspects: BTreeSet<Key>,
    /// A request had no answer, and a probe is to tell whether others have one.
    in_doubt: bool,
    probing: bool,
    probe_wanted: bool,
}

/// So many different keys failing in a row ask for a probe.
const SUSPECTS_MAX: usize = 3;

impl Gate {
    pub fn is_open(&self) -> bool {
        self.waiting.is_none()
    }

    /// Whether anything but a probe may be sent.
    pub fn admits(&self) -> bool {
        self.is_open() && !self.in_doubt
    }

    pub fn waiting(&self) -> Option<&Waiting> {
        self.waiting.as_ref()
    }

    /// Writes were refused, and whether they are now is about to be seen.
    pub fn trying(&self) -> Option<&Waiting> {
        self.trying.as_ref()
    }

    /// Something was written. Answers with for how long all writes had been refused, if they had.
    pub fn wrote(&mut self, now: Tick) -> Option<u64> {
        self.trying.take().map(|waiting| now.since(waiting.since))
    }

    /// A request succeeded: the destination is there.
    pub fn succeeded(&mut self) {
        self.suspects.clear();
        self.probe_wanted = false;
        self.in_doubt = false;
    }

    /// A request for `key` failed; `alone` when nothing else is there to succeed meanwhile.
    pub fn failed(
        &mut self,
        key: Option<&Key>,
        failure: &Failure,
        alone: bool,
        now: Tick,
        jitter: &mut Jitter,
    ) -> Consequence {
        let unanswered = failure.class == ErrorClass::Unreachable;
        match failure.class {
            ErrorClass::Path | ErrorClass::Denied => return Consequence::Own,
            // One key may be the only one without an answer: a firewall may not like its content.
            ErrorClass::Unreachable if key.is_some() => {}
            ErrorClass::Server | ErrorClass::Throttled => {}
            ErrorClass::Unreachable
            | ErrorClass::Configuration
            | ErrorClass::Full
            | ErrorClass::Credentials
            | ErrorClass::State => {
                let of_write =
                    matches!(failure.class, ErrorClass::Configuration | ErrorClass::Full);
                let refused = key.is_some() && of_write;
                self.close(failure, refused, now, jitter);
                return Consequence::Closed;
            }
        }
        self.suspects.extend(key.cloned());
        self.probe_wanted |= alone || unanswered || self.suspects.len() >= SUSPECTS_MAX;
        if !self.is_open() {
            return Consequence::Closed;
        }
        self.in_doubt |= unanswered;
        Consequence::Own
    }

    /// The keys that failed before a probe showed that it was not their fault.
    pub fn take_suspects(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.suspects)
    }

    fn close(&mut self, failure: &Failure, refused: bool, now: Tick, jitter: &mut Jitter) {
        if let Some(waiting) = &mut self.waiting {
            waiting.failure = failure.clone();
            waiting.refused |= refused;
            return;
        }
        // Tried again in vain: it is the same trouble, and has lasted since it began.
        let (since, attempts) = match self.trying.take() {
            Some(tried) => (tried.since, tried.attempts + 1),
            None => (now, 1),
        };
        let backoff = if refused { Backoff::REFUSED } else { Backoff::PROBE };
        let next_probe = now.plus_ms(backoff.delay_ms(attempts, jitter));
        let failure = failure.clone();
        self.waiting = Some(Waiting { failure, since, next_probe, attempts, refused });
    }

    /// Whether a probe should be sent now.
    pub fn wants_probe(&self, now: Tick) -> bool {
        !self.probing
            && match &self.waiting {
                Some(waiting) => waiting.next_probe <= now,
                None => self.probe_wanted,
            }
    }

    pub fn probe_started(&mut self) {
        self.probing = true;
        self.probe_wanted = false;
    }

    /// Takes a probe's result. Answers with for how long the gate was closed if it opens now.
    pub fn probed(
        &mut self,
        result: &Result<(), Failure>,
        now: Tick,
        jitter: &mut Jitter,
    ) -> Option<u64> {
        self.probing = false;
        self.in_doubt = false;
        match result {
            Ok(()) => {
                self.suspects.clear();
                let waited = self.waiting.take()?;
                if waited.refused {
                    // Over when something was written.
                    self.trying = Some(waited);
                    return None;
                }
                Some(now.since(waited.since))
            }
            Err(failure) => {
                // A probe asks for nothing special: when it fails, everything would.
                let was_open = self.is_open();
                self.close(failure, false, now, jitter);
                if let Some(waiting) = self.waiting.as_mut().filter(|_| !was_open) {
                    waiting.attempts += 1;
                    let delay = Backoff::PROBE.delay_ms(waiting.attempts, jitter);
                    waiting.next_probe = now.plus_ms(delay);
                }
                None
            }
        }
    }

    pub fn next_probe(&self) -> Option<Tick> {
        self.waiting.as_ref().filter(|_| !self.probing).map(|w| w.next_probe)
    }

    pub fn is_probing(&self) -> bool {
        self.probing
    }
}
