//! Control: what to look at, what to start, and when. Sans-IO: time is an argument, effects are
//! data, and one owner calls [`Engine::handle`].
//!
//! The protocol is [`Event`] and [`Effect`]. One engine drives one backup; daemon and one-shot
//! commands differ in [`Mode`] only.
//!
//! ```text
//!  hints -> DirtySet --due--> Look ----> Planned jobs -> Schedule --admitted--> Start
//!  timers, overflow --------> Look(All)                     ^                     |
//!  missing records due -----> FetchDue -> Due items --------+      Finished <-----+
//!                                                  again, later, or done
//! ```
//!
//! What always holds (checked over random histories in `histories`):
//! 1. At most one operation is in flight per key.
//! 2. Operations and bytes in flight stay within their budgets. Large files have a lane of their
//!    own and do not hold up small ones.
//! 3. A hinted path is looked at no later than `max_wait` after its first hint, and no earlier than
//!    `settle` after its last unless `max_wait` says so, while nothing else forbids looking.
//! 4. After an overflow a look at everything starts.
//! 5. Nothing starts after a shutdown, and the drain ends.
//! 6. Deletions start only after a complete look at everything has ended, and never while an
//!    upload is ready or in flight, unless they are overdue by `max_wait`.
//! 7. A hint for a key in flight is not lost: the key is looked at again.
//! 8. Retries of one key are spaced by their backoff.
//! 9. While the destination is away only probes are sent.
//!    While paused nothing is started at all.
//! 10. A flush ends when all that was there when it was asked for is in the destination, or has
//!     failed, and not before.

mod backoff;
mod core;
mod deletions;
mod dirty;
mod finish;
mod gate;
mod looks;
mod schedule;

pub use self::core::{Engine, Snapshot};
pub use backoff::{Backoff, Jitter};
pub use gate::Waiting;
pub use schedule::OpId;

use crate::model::{Key, RelPath, Tick};
use crate::plan::{DeleteItem, Deletions, Failure, Hint, Hold, Job, Outcome, Scope, Skip};

/// Daemon or one-shot: the only difference in control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Runs until told to stop; waits for whatever is away.
    Daemon,
    /// One pass, then exit; gives up on a destination that stays away for `retry_for_ms`.
    OneShot { retry_for_ms: u64 },
}

/// Limits and delays, all in milliseconds, operations or bytes.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub mode: Mode,
    pub settle_ms: u64,
    pub max_wait_ms: u64,
    pub rescan_ms: u64,
    pub deletions: Deletions,
    /// Operations in flight: reading, waiting for the state database, or transferring.
    pub ops_max: usize,
    /// Bytes of file content in flight.
    pub bytes_max: u64,
    /// Files larger than this are large: at most two are in flight, each with a quarter of the
    /// bytes, so that small files never wait behind them.
    pub large_bytes: u64,
    /// Distinct dirty paths; more collapse into a look at everything.
    pub dirty_max: usize,
    /// Jobs held ready; a look waits when there are more.
    pub ready_max: usize,
    /// Makes the jitter of this run; same seed, same run.
    pub seed: u64,
}

/// Identifies a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LookId(pub u64);

/// Identifies a request of a person to flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlushId(pub u64);

/// How well the watcher sees the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Every folder is watched.
    Full,
    /// Some folders are not: they are found by looking at everything more often.
    Partial,
    /// No events at all.
    Blind,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The first event: look at everything.
    Start,
    Hints(Vec<Hint>),
    /// Paths that changed at some time since then, and of which no hint told.
    Unheard {
        paths: Vec<RelPath>,
        since: Tick,
    },
    /// The watcher lost events.
    Overflow,
    /// The source was moved, removed or unmounted.
    SourceGone,
    Sight(Sight),
    /// Jobs found by a look that goes on.
    Planned {
        look: LookId,
        jobs: Vec<Job>,
    },
    LookEnded {
        look: LookId,
        report: LookReport,
    },
    Finished {
        op: OpId,
        outcome: Outcome,
    },
    /// The answer to [`Effect::FetchDue`].
    Due(DueReport),
    /// The answer to [`Effect::Probe`].
    Probed(Result<(), Failure>),
    Flush(FlushId),
    /// Look at everything, now.
    Rescan,
    /// Start nothing until [`Event::Resume`]: hints are remembered, and what is in flight ends.
    Pause,
    Resume,
    /// A person approved or discarded deletions.
    Approved,
    /// Stop admitting, finish what is in flight, exit.
    Shutdown,
    /// Time passed.
    Wake,
}

/// How a look ended.
#[derive(Debug)]
pub struct LookReport {
    pub result: LookResult,
    /// Paths so young that they should settle first.
    pub young: Vec<RelPath>,
    /// Milliseconds until the first missing record is due for deletion; `None` when none waits.
    pub deletion_due_in_ms: Option<u64>,
}

#[derive(Debug)]
pub enum LookResult {
    Complete,
    /// The source is not there. Nothing is known about what is in it.
    SourceMissing(Failure),
    /// The look could not be finished: what it had found counts, the rest is unknown.
    Failed(Failure),
}

/// Deletions that are due, or why none may start.
#[derive(Debug, Default)]
pub struct DueReport {
    pub items: Vec<DeleteItem>,
    pub hold: Option<Hold>,
    /// Milliseconds until more become due; `None` when none waits.
    pub next_due_in_ms: Option<u64>,
    /// The facts could not be read; asked again later.
    pub failure: Option<Failure>,
}

/// What an admitted operation does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    Sync(Box<Job>),
    Delete(Vec<DeleteItem>),
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Look at these scopes; a look at everything is alone in its list. `eager` looks do not put
    /// young files off.
    Look {
        look: LookId,
        scopes: Vec<Scope>,
        eager: bool,
    },
    Start {
        op: OpId,
        work: Work,
    },
    /// Evaluate the guard and fetch deletions that are due.
    FetchDue,
    /// Ask the destination whether it answers: one cheap request.
    Probe,
    Flushed {
        flush: FlushId,
        failed_paths: u64,
    },
    /// Record that a path is not backed up, and why.
    Problem(Problem),
    /// Tell a person, once per change.
    Notice(Notice),
    Exit(Exit),
}

/// A path that is not backed up as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub key: Key,
    pub path: RelPath,
    pub attempts: u32,
    pub what: Trouble,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    Failed(Failure),
    Skipped(Skip),
}

/// Changes of condition that a person wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The destination is away, or refuses us: nothing is sent until a probe passes.
    Waiting(Failure),
    Resumed {
        after_ms: u64,
    },
    SourceMissing(Failure),
    Held(Hold),
    Released,
    Overflow,
    SourceGone,
    LookFailed(Failure),
    DeletionsFailed(Failure),
}

/// Why the engine is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything found was dealt with.
    Done,
    /// Stopped by a shutdown, after draining.
    Stopped,
    /// The source is not there, or another cause that only a person can mend.
    NeedsPerson(Failure),
    /// The destination stayed away for too long.
    GaveUp(Failure),
}

#[cfg(test)]
mod histories;
#[cfg(test)]
mod tests;
