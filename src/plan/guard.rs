//! The guard over deletions: whether a source that lost files can be believed.
//!
//! A hold stops deletions only; uploads go on. It is computed from facts each time deletions are
//! due, and one of the facts is that deletions were held before: what was missing then stays until
//! a person approves or discards, or until all of it is back, as when a disk is mounted again.

use std::fmt;

use crate::model::RelPath;

use super::policy::MaxDelete;

/// The facts, as recorded and as seen now.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    pub max_delete: MaxDelete,
    /// Whether the source's identity is the recorded one.
    pub same_source: bool,
    /// One of the missing files that no person approved, whose folder is now on another disk than
    /// it was.
    pub displaced: Option<RelPath>,
    /// Files and links recorded and not missing.
    pub files: u64,
    /// Files and links whose deletion is wanted and not approved by a person.
    pub pending: u64,
    /// Of these, the ones that were counted as deleted when it was tried before.
    pub charged: u64,
    /// Files deleted within the last 24 hours without a person's approval.
    pub spent: u64,
    /// The largest number of files within the last 24 hours.
    pub files_max: u64,
    /// The state database was rebuilt, and no person has looked at it since.
    pub state_rebuilt: bool,
    /// Something is still missing that was missing when deletions were held, and no person has
    /// looked at it since.
    pub held_before: bool,
    /// Why they were held then, where that is known.
    pub held_why: Option<String>,
}

/// Why deletions are held.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HoldReason {
    /// Another folder, or another file system, is where the source was.
    AnotherSource,
    /// The folder of a missing file is on another disk than it was.
    AnotherDisk { path: RelPath },
    /// Every file of the source is gone.
    Emptied,
    /// More files than `max_delete` allows within 24 hours.
    TooMany { allowance: u64 },
    /// The state database was corrupt and has been rebuilt.
    StateRebuilt,
    /// They were held before, and the facts that asked for it no longer do.
    HeldBefore { why: Option<String> },
}

/// Deletions are held, for at least one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub reasons: Vec<HoldReason>,
    pub pending: u64,
}

impl Guard {
    /// The hold that the facts ask for; `None` when deletions may go on.
    ///
    /// What a person approved passes every reason but [`HoldReason::AnotherSource`]: then even
    /// "absent" is not proven, and only accepting the new source helps.
    pub fn check(&self) -> Option<Hold> {
        let mut reasons = vec![];
        if !self.same_source {
            reasons.push(HoldReason::AnotherSource);
        }
        if let Some(path) = &self.displaced {
            reasons.push(HoldReason::AnotherDisk { path: path.clone() });
        }
        if self.pending > 0 {
            if self.files == 0 && self.pending >= 2 {
                reasons.push(HoldReason::Emptied);
            }
            if let Some(allowance) = self.max_delete.allowance(self.files_max)
                && self.wanted() > allowance
            {
                reasons.push(HoldReason::TooMany { allowance });
            }
            if self.state_rebuilt {
                reasons.push(HoldReason::StateRebuilt);
            }
            if self.held_before && reasons.is_empty() {
                reasons.push(HoldReason::HeldBefore { why: self.held_why.clone() });
            }
        }
        (!reasons.is_empty()).then_some(Hold { reasons, pending: self.pending })
    }

    /// What would have been deleted within 24 hours, with what is pending.
    fn wanted(&self) -> u64 {
        self.spent.saturating_add(self.pending.saturating_sub(self.charged))
    }
}

impl Hold {
    /// The reasons in plain words.
    pub fn why(&self) -> String {
        let reasons: Vec<String> = self.reasons.iter().map(ToString::to_string).collect();
        reasons.join("; ")
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnotherSource => f.write_str(
                "another folder or file system is where the source was: is a disk not mounted?",
            ),
            Self::AnotherDisk { path } => write!(
                f,
                "{path} was on another disk than the one that is there now: is a disk in the \
                 source not mounted?"
            ),
            Self::Emptied => f.write_str("every file of the source is gone"),
            Self::TooMany { allowance } => write!(
                f,
                "more deletions within 24 hours than max_delete allows ({allowance} files)"
            ),
            Self::StateRebuilt => f.write_str("the state database was corrupt and was rebuilt"),
            Self::HeldBefore { why: None } => {
                f.write_str("deletions were held before, and nobody has looked since")
            }
            Self::HeldBefore { why: Some(why) } => {
                write!(f, "deletions were held before ({why}), and nobody has looked since")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Guard = Guard {
        max_delete: MaxDelete::Percent(25),
        same_source: true,
        displaced: None,
        files: 900,
        pending: 100,
        charged: 0,
        spent: 0,
        files_max: 1000,
        state_rebuilt: false,
        held_before: false,
        held_why: None,
    };

    fn reasons(guard: Guard) -> Vec<HoldReason> {
        guard.check().map(|h| h.reasons).unwrap_or_default()
    }

    #[test]
    fn calm_deletions_pass() {
        assert_eq!(CALM.check(), None);
        assert_eq!(Guard { pending: 250, ..CALM }.check(), None, "exactly the allowance");
    }

    #[test]
    fn each_reason_holds() {
        let over = [HoldReason::TooMany { allowance: 250 }];
        assert_eq!(reasons(Guard { pending: 251, ..CALM }), over);
        assert_eq!(reasons(Guard { spent: 151, ..CALM }), over, "what was spent counts");
        let tried = Guard { spent: 200, charged: 60, ..CALM };
        assert_eq!(tried.check(), None, "what failed before is not counted twice");
        assert_eq!(reasons(Guard { charged: 40, ..tried }), over);
        assert_eq!(reasons(Guard { same_source: false, ..CALM }), [HoldReason::AnotherSource]);
        assert_eq!(reasons(Guard { files: 0, pending: 2, ..CALM }), [HoldReason::Emptied]);
        assert_eq!(reasons(Guard { state_rebuilt: true, ..CALM }), [HoldReason::StateRebuilt]);
        let held_before = Guard { held_before: true, ..CALM };
        assert_eq!(reasons(held_before.clone()), [HoldReason::HeldBefore { why: None }]);
        let path = RelPath::new(b"disk/file").unwrap();
        let displaced = Guard { displaced: Some(path.clone()), pending: 0, ..CALM };
        assert_eq!(reasons(displaced), [HoldReason::AnotherDisk { path }], "a folder marker, too");
        let emptied = Guard { files: 0, ..held_before };
        assert_eq!(reasons(emptied), [HoldReason::Emptied], "the fact comes first");
    }

    #[test]
    fn edges() {
        assert_eq!(Guard { files: 0, pending: 1, ..CALM }.check(), None, "a source of one file");
        assert_eq!(Guard { files: 1, pending: 2, ..CALM }.check(), None, "one is left");
        let off = Guard { max_delete: MaxDelete::Off, pending: u64::MAX, spent: 5, ..CALM };
        assert_eq!(off.check(), None);
        let emptied = Guard { files: 0, ..off };
        assert_eq!(reasons(emptied), [HoldReason::Emptied], "off does not switch this off");
        let small = Guard { files: 10, pending: 90, files_max: 100, ..CALM };
        assert_eq!(small.check(), None, "a hundred files may always go");
        // Approved by a person: nothing pending, so only the identity counts.
        let approved = Guard { pending: 0, files: 0, state_rebuilt: true, spent: 9999, ..CALM };
        assert_eq!(approved.check(), None);
        let replaced = Guard { same_source: false, ..approved };
        assert_eq!(reasons(replaced), [HoldReason::AnotherSource]);
    }
}
