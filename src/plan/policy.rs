//! One value per choice, so that contradictory settings cannot be written down.

use std::fmt;

/// What happens to an object whose source is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deletions {
    /// It is deleted, after the delay and under the guard.
    #[default]
    Delete,
    /// It is tagged `Deleted=True`, `DeletedAt=…`, after the delay and under the guard.
    Tag,
    /// It stays as it is.
    Keep,
}

/// What makes a local file count as unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compare {
    /// The same fingerprint; where that differs, the content is hashed.
    #[default]
    Fingerprint,
    /// The same MD5: every file is read in every pass.
    Md5,
    /// The same size.
    Size,
}

/// What happens to symbolic links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Symlinks {
    /// The link itself is stored. It is never followed.
    #[default]
    Store,
    Skip,
}

/// How many files may be deleted within 24 hours without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxDelete {
    Off,
    /// Of the largest number of files within the last 24 hours, but at least 100 files; of none
    /// of them, none.
    Percent(u8),
    Files(u64),
}

impl Default for MaxDelete {
    fn default() -> Self {
        Self::Percent(25)
    }
}

impl MaxDelete {
    /// The number of files that may go within 24 hours; `None` without a limit.
    pub fn allowance(self, files_max: u64) -> Option<u64> {
        const FLOOR: u64 = 100;
        match self {
            Self::Off | Self::Percent(100..) => None,
            Self::Percent(0) => Some(0),
            Self::Percent(percent) => {
                let share = u128::from(files_max) * u128::from(percent) / 100;
                Some(FLOOR.max(u64::try_from(share).unwrap_or(u64::MAX)))
            }
            Self::Files(files) => Some(files),
        }
    }
}

impl fmt::Display for MaxDelete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Files(files) => write!(f, "{files}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowance() {
        assert_eq!(MaxDelete::Percent(25).allowance(1000), Some(250));
        assert_eq!(MaxDelete::Percent(25).allowance(10), Some(100));
        assert_eq!(MaxDelete::Percent(0).allowance(1_000_000), Some(0));
        assert_eq!(MaxDelete::Percent(100).allowance(10), None);
        assert_eq!(MaxDelete::Off.allowance(10), None);
        assert_eq!(MaxDelete::Files(0).allowance(10), Some(0));
    }
}
