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
            | ErrorClass::Credentials
            | ErrorClass::State => {
                self.close(failure, now, jitter);
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

    fn close(&mut self, failure: &Failure, now: Tick, jitter: &mut Jitter) {
        match &mut self.waiting {
            Some(waiting) => waiting.failure = failure.clone(),
            None => {
                let next_probe = now.plus_ms(Backoff::PROBE.delay_ms(1, jitter));
                let failure = failure.clone();
                self.waiting = Some(Waiting { failure, since: now, next_probe, attempts: 1 });
            }
        }
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
                self.waiting.take().map(|w| now.since(w.since))
            }
            Err(failure) => {
                // A probe asks for nothing special: when it fails, everything would.
                let was_open = self.is_open();
                self.close(failure, now, jitter);
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
