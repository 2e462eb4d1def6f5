//! What came of a run.

use std::time::Instant;

use crate::app::status::Summary;

/// How a run ended that came to its end. When several hold, the first one in this order counts:
/// `Stopped`, `Failed`, `Held`, `Skipped`, `Done`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// All of it is done.
    Done,
    /// Some paths were left out with a reason, or are still being thawed.
    Skipped,
    /// Deletions are held until a person approves or discards them.
    Held,
    /// Some paths failed; the rest is done.
    Failed,
    /// The buckets that were compared are not the same.
    Different,
    /// A [`Stop`](crate::Stop) ended it. Run it again to go on.
    Stopped,
}

impl Outcome {
    /// The word that the program has for it in `--json`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Skipped => "warnings",
            Self::Held => "held",
            Self::Failed | Self::Different => "failed",
            Self::Stopped => "interrupted",
        }
    }
}

/// A path, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// Below the source, as text; bytes that are no text are escaped.
    pub path: String,
    /// In plain words.
    pub why: String,
}

/// Numbers of keys that are not as they should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Differences {
    /// Only the source has them.
    pub missing: u64,
    /// Both have them, and they are not the same.
    pub differing: u64,
    /// Both have them, and nothing that they say of their content can be compared.
    pub unknown: u64,
    /// Only the destination has them, and not as deleted.
    pub extra: u64,
}

/// What came of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// How it ended, in one word.
    pub outcome: Outcome,
    /// The numbers of the last line of `--json`.
    pub numbers: Summary,
    /// Paths that failed, 10,000 at most.
    pub failed: Vec<Problem>,
    /// Paths that were left out, 10,000 at most.
    pub skipped: Vec<Problem>,
    /// Files of a restore's target that were left as they are, 10,000 at most.
    pub kept: Vec<Problem>,
    /// Archived objects that were asked for, and cannot be read yet.
    pub frozen: u64,
    /// Objects that a restore brought back although nobody may read their tags, which would tell
    /// whether they were deleted.
    pub untold: u64,
    /// Of a comparison.
    pub differences: Differences,
}

impl Report {
    pub(super) fn new(numbers: Summary, started: Instant, stopped: bool) -> Self {
        let mut report = Self {
            outcome: Outcome::Done,
            numbers,
            failed: vec![],
            skipped: vec![],
            kept: vec![],
            frozen: 0,
            untold: 0,
            differences: Differences::default(),
        };
        report.numbers.elapsed_ms =
            u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        report.settle(stopped);
        report
    }

    /// Takes what is still being thawed, and what nobody could tell of.
    pub(super) fn of_restore(mut self, frozen: u64, untold: u64) -> Self {
        (self.frozen, self.untold) = (frozen, untold);
        self.settle(self.outcome == Outcome::Stopped);
        self
    }

    fn settle(&mut self, stopped: bool) {
        let numbers = &self.numbers;
        self.outcome = match () {
            () if stopped => Outcome::Stopped,
            () if numbers.failed > 0 => Outcome::Failed,
            () if numbers.held > 0 => Outcome::Held,
            () if numbers.skipped + self.frozen + self.untold > 0 => Outcome::Skipped,
            () => Outcome::Done,
        };
        self.numbers.result = self.outcome.word().to_owned();
    }
}

pub(super) fn problems<P: ToString, W: ToString>(
    named: impl IntoIterator<Item = (P, W)>,
) -> Vec<Problem> {
    const NAMED_MAX: usize = 10_000;
    let problem = |(path, why): (P, W)| Problem { path: path.to_string(), why: why.to_string() };
    named.into_iter().take(NAMED_MAX).map(problem).collect()
}
