//! Files with more than one name. A watcher tells of the name that was written to, and of no
//! other: so names like these are remembered, to be looked at when one of them changes, and now and
//! then. In memory, and bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::RelPath;

/// More names than this are not remembered.
const NAMES_MAX: usize = 100_000;

/// The names of linked files, as looks and walks have seen them.
#[derive(Debug, Default)]
pub struct Links(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    known: BTreeMap<RelPath, Link>,
    /// Files that were seen to be linked, and of which the records may know more names.
    fresh: BTreeSet<u64>,
    full: bool,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    inode: u64,
    /// Names that the file has, inside the source and outside.
    names: u64,
}

impl Links {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a file that was looked at, and of how many names it has.
    pub fn note(&self, path: &RelPath, inode: u64, names: u64) {
        let mut all = self.names();
        if names < 2 {
            all.known.remove(path);
            return;
        }
        let link = Link { inode, names };
        if let Some(known) = all.known.get_mut(path) {
            let same = std::mem::replace(known, link).inode == inode;
            if !same {
                all.fresh.insert(inode);
            }
        } else if all.known.len() >= NAMES_MAX {
            all.full = true;
        } else {
            all.known.insert(path.clone(), link);
            all.fresh.insert(inode);
        }
    }

    /// There is no file of this name.
    pub fn forget(&self, path: &RelPath) {
        self.names().known.remove(path);
    }

    pub fn is_empty(&self) -> bool {
        let all = self.names();
        all.known.is_empty() && !all.full
    }

    /// Some names were too many to remember: only a look at everything looks at them.
    pub fn is_full(&self) -> bool {
        self.names().full
    }

    pub fn contains(&self, path: &RelPath) -> bool {
        self.names().known.contains_key(path)
    }

    /// Up to `limit` names after this one, in order.
    pub fn page(&self, after: Option<&RelPath>, limit: usize) -> Vec<RelPath> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let all = self.names();
        let page = all.known.range::<RelPath, _>((from, Bound::Unbounded));
        page.take(limit).map(|(path, _)| path.clone()).collect()
    }

    /// Up to `limit` names of these files.
    pub fn of(&self, inodes: &BTreeSet<u64>, limit: usize) -> Vec<RelPath> {
        let all = self.names();
        let names = all.known.iter().filter(|(_, link)| inodes.contains(&link.inode));
        names.take(limit).map(|(path, _)| path.clone()).collect()
    }

    /// Files that have more names than are known here, and that nobody has asked the records for.
    pub fn fresh(&self) -> BTreeSet<u64> {
        let all = self.names();
        let mut missing: BTreeMap<u64, u64> = BTreeMap::new();
        for link in all.known.values().filter(|link| all.fresh.contains(&link.inode)) {
            let left = missing.entry(link.inode).or_insert(link.names);
            *left = left.saturating_sub(1);
        }
        missing.into_iter().filter(|(_, left)| *left > 0).map(|(inode, _)| inode).collect()
    }

    /// The records were asked for the names of these files.
    pub fn asked(&self, inodes: &BTreeSet<u64>) {
        self.names().fresh.retain(|inode| !inodes.contains(inode));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> RelPath {
        RelPath::new(name.as_bytes()).unwrap()
    }

    #[test]
    fn names_are_known_until_they_are_the_only_one() {
        let links = Links::default();
        for (name, inode, names) in [("a", 1, 2), ("b", 1, 2), ("c", 2, 3), ("d", 3, 1)] {
            links.note(&path(name), inode, names);
        }
        assert_eq!(links.page(None, 9), [path("a"), path("b"), path("c")]);
        assert_eq!(links.page(Some(&path("a")), 1), [path("b")]);
        assert_eq!(links.of(&BTreeSet::from([1]), 9), [path("a"), path("b")]);
        assert_eq!(links.fresh(), BTreeSet::from([2]), "of the other file every name is known");
        links.asked(&BTreeSet::from([2]));
        assert!(links.fresh().is_empty());
        links.note(&path("a"), 1, 1);
        links.forget(&path("b"));
        links.note(&path("c"), 2, 0);
        assert!(links.is_empty());
    }

    #[test]
    fn there_is_an_end_to_memory_and_it_is_told() {
        let links = Links::default();
        for n in 0..=NAMES_MAX {
            links.note(&path(&n.to_string()), n as u64, 2);
        }
        assert!(links.is_full());
        assert_eq!(links.page(None, usize::MAX).len(), NAMES_MAX);
    }
}
