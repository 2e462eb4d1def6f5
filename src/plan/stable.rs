//! Whether what was read is one consistent content of the file: the verdict on a stable read.

use crate::model::{Entry, Kind, Observed};

/// What was seen around reading a file: on the open file before and after, and by its path after.
#[derive(Clone, Copy, Debug)]
pub struct Readings<'a> {
    pub before: &'a Entry,
    pub after: &'a Entry,
    pub by_path: Observed<&'a Entry>,
    /// Bytes that were read. Never more than `before` says: reading stops there.
    pub read_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The content of one file that did not change and still has its name.
    Stable,
    /// The file grew, and nothing else about it is known to have changed: what was read is
    /// consistent if a second reading of the same length gives the same bytes.
    Grown,
    /// Changed while it was read.
    Torn,
    /// The name is gone.
    Gone,
    /// The name now belongs to another file or another kind of entry.
    Replaced,
    /// The name could not be looked up.
    Unsure,
}

/// Judges one reading. Only `Stable` may be uploaded as it is.
pub fn judge(readings: &Readings<'_>) -> Verdict {
    let Readings { before, after, by_path, read_bytes } = readings;
    let named = match by_path {
        Observed::Unknown => return Verdict::Unsure,
        Observed::Absent => return Verdict::Gone,
        Observed::Present(named) => *named,
    };
    let id = |e: &Entry| (e.kind, e.fingerprint.device, e.fingerprint.inode);
    if before.kind != Kind::File || id(named) != id(before) {
        return Verdict::Replaced;
    }
    let size = before.fingerprint.size_bytes;
    // The mode may change without the content: then ctime differs, and the next look sees to it.
    if before.fingerprint == after.fingerprint
        && after.fingerprint == named.fingerprint
        && *read_bytes == size
    {
        return Verdict::Stable;
    }
    let grown = after.fingerprint.size_bytes >= size
        && named.fingerprint.size_bytes >= after.fingerprint.size_bytes
        && named.fingerprint.size_bytes > size
        && *read_bytes == size;
    if grown { Verdict::Grown } else { Verdict::Torn }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Fingerprint, Timestamp};

    fn entry(size_bytes: u64, mtime: i64, inode: u64) -> Entry {
        let stamp = Timestamp::new(mtime, 0);
        let fingerprint = Fingerprint { size_bytes, mtime: stamp, ctime: stamp, inode, device: 1 };
        Entry { kind: Kind::File, fingerprint, mode: 0o100_644, uid: 0, gid: 0 }
    }

    fn verdict(before: Entry, after: Entry, by_path: Observed<Entry>, read_bytes: u64) -> Verdict {
        let by_path = by_path.as_ref();
        judge(&Readings { before: &before, after: &after, by_path, read_bytes })
    }

    #[test]
    fn verdicts() {
        let e = entry;
        let at = Observed::Present;
        assert_eq!(verdict(e(5, 1, 1), e(5, 1, 1), at(e(5, 1, 1)), 5), Verdict::Stable);
        assert_eq!(verdict(e(5, 1, 1), e(5, 2, 1), at(e(5, 2, 1)), 5), Verdict::Torn);
        assert_eq!(verdict(e(5, 1, 1), e(5, 1, 1), at(e(5, 2, 1)), 5), Verdict::Torn);
        assert_eq!(verdict(e(5, 1, 1), e(5, 1, 1), at(e(5, 1, 1)), 4), Verdict::Torn);
        assert_eq!(verdict(e(5, 1, 1), e(9, 2, 1), at(e(9, 2, 1)), 5), Verdict::Grown);
        assert_eq!(verdict(e(5, 1, 1), e(5, 1, 1), at(e(9, 2, 1)), 5), Verdict::Grown);
        assert_eq!(verdict(e(5, 1, 1), e(9, 2, 1), at(e(4, 2, 1)), 5), Verdict::Torn);
        assert_eq!(verdict(e(5, 1, 1), e(4, 2, 1), at(e(4, 2, 1)), 4), Verdict::Torn);
        assert_eq!(verdict(e(5, 1, 1), e(5, 1, 1), at(e(5, 1, 2)), 5), Verdict::Replaced);
        assert_eq!(verdict(e(5, 1, 1), e(5, 1, 1), Observed::Absent, 5), Verdict::Gone);
        assert_eq!(verdict(e(5, 1, 1), e(5, 1, 1), Observed::Unknown, 5), Verdict::Unsure);
        let link = Entry { kind: Kind::Link, ..e(5, 1, 1) };
        assert_eq!(verdict(e(5, 1, 1), e(5, 1, 1), at(link), 5), Verdict::Replaced);
    }
}
