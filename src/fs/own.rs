//! The names that a restore gives to what is not finished. Where a target lies inside a source they
//! are left out of the backup, at any depth; nothing else below the top is, whatever it is called.

use crate::model::key::RESERVED_NAME;
use crate::model::{Entry, RelPath};

/// How names of unfinished files begin, in the folder [`RESERVED_NAME`] at the top of the target.
pub const UNFINISHED: &str = "unfinished-";
/// How names of notes begin. A note is a link whose target is the path of an unfinished file that
/// must be elsewhere, on another file system.
pub const NOTE: &str = "elsewhere-";
/// How names of unfinished files begin outside that folder. Sixteen hex digits follow.
pub const BESIDE: &str = ".keepwatch-unfinished-";
/// Names that are made for a moment, to learn how a file system tells names apart.
pub const PROBES: [&str; 4] = ["A", "a", "\u{e9}", "e\u{301}"];

/// Permissions of the folder.
const MODE: u32 = 0o700;

/// Whether a file or link is what a restore has not finished.
pub fn is_unfinished(path: &RelPath) -> bool {
    let name = path.name();
    if let Some(digits) = name.strip_prefix(BESIDE.as_bytes()) {
        return digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit);
    }
    let is_staged = path.parent().is_some_and(|folder| folder.name() == RESERVED_NAME);
    let number = |prefix: &str| {
        let rest = name.strip_prefix(prefix.as_bytes());
        rest.is_some_and(|rest| !rest.is_empty() && rest.iter().all(u8::is_ascii_digit))
    };
    let probe = || {
        let rest = name.strip_prefix(UNFINISHED.as_bytes());
        rest.is_some_and(|rest| PROBES.iter().any(|probe| probe.as_bytes() == rest))
    };
    is_staged && (number(UNFINISHED) || number(NOTE) || probe())
}

/// Whether a folder in which nothing is backed up is the one of a restore.
pub fn is_staging(path: &RelPath, folder: &Entry) -> bool {
    path.name() == RESERVED_NAME && folder.mode & 0o7777 == MODE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_restore_makes() {
        let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
        for own in [
            "a/.keepwatch/unfinished-0",
            "a/b/.keepwatch/unfinished-123",
            "a/.keepwatch/elsewhere-7",
            "a/.keepwatch/unfinished-A",
            "a/.keepwatch/unfinished-e\u{301}",
            "a/b/.keepwatch-unfinished-0123456789abcdef",
        ] {
            assert!(is_unfinished(&path(own)), "{own}");
        }
        for theirs in [
            "a/.keepwatch/config.toml",
            "a/.keepwatch/unfinished-",
            "a/.keepwatch/unfinished-symphony",
            "a/.keepwatch/unfinished-1.txt",
            "a/.keepwatch/b/unfinished-1",
            "a/unfinished-1",
            "a/elsewhere-1",
            "a/.keepwatch-unfinished-0123456789abcdef.txt",
            "a/.keepwatch-unfinished-business-abcdef",
        ] {
            assert!(!is_unfinished(&path(theirs)), "{theirs}");
        }
    }
}
