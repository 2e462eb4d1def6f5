//! Paths to look at again, each with two clocks: quiet for `settle`, but at most `max_wait`.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{RelPath, Tick};
use crate::plan::Scope;

#[derive(Clone, Copy, Debug)]
struct Dirty {
    first: Tick,
    due: Tick,
    /// How old the change may be: as old as the first hint, or older.
    since: Tick,
    deep: bool,
}

/// The set of dirty paths. Bounded by its owner, which collapses it into a look at everything.
#[derive(Debug, Default)]
pub struct DirtySet {
    paths: BTreeMap<RelPath, Dirty>,
    by_due: BTreeSet<(Tick, RelPath)>,
}

impl DirtySet {
    /// Notes a hint. Another hint for the same path moves its due time, up to `max_wait` after the
    /// first one.
    pub fn hint(&mut self, path: RelPath, deep: bool, now: Tick, settle_ms: u64, max_wait_ms: u64) {
        let (first, since, deep) = match self.paths.get(&path) {
            Some(known) => (known.first, known.since, deep || known.deep),
            None => (now, now, deep),
        };
        let due = now.plus_ms(settle_ms).min(first.plus_ms(max_wait_ms));
        self.insert(path, Dirty { first, due, since, deep });
    }

    /// Notes a path to look at after a fixed delay, unless it is due earlier already.
    pub fn look_after(&mut self, path: RelPath, now: Tick, delay_ms: u64) {
        if !self.paths.contains_key(&path) {
            let due = now.plus_ms(delay_ms);
            self.insert(path, Dirty { first: now, due, since: now, deep: false });
        }
    }

    /// Notes that the change at a dirty path may be as old as this.
    pub fn backdate(&mut self, path: &RelPath, since: Tick) {
        if let Some(dirty) = self.paths.get_mut(path) {
            dirty.since = dirty.since.min(since);
        }
    }

    /// Makes a dirty path due at once.
    pub fn hurry(&mut self, path: &RelPath, now: Tick) {
        if let Some(dirty) = self.paths.get(path).copied()
            && dirty.due > now
        {
            self.insert(path.clone(), Dirty { due: now, ..dirty });
        }
    }

    pub fn hurry_all(&mut self, now: Tick) {
        let paths: Vec<RelPath> = self.paths.keys().cloned().collect();
        paths.iter().for_each(|path| self.hurry(path, now));
    }

    fn insert(&mut self, path: RelPath, dirty: Dirty) {
        if let Some(old) = self.paths.insert(path.clone(), dirty) {
            self.by_due.remove(&(old.due, path.clone()));
        }
        self.by_due.insert((dirty.due, path));
    }

    /// Takes up to `max` due paths, the longest due first, and the age of the oldest change among
    /// them.
    pub fn take_due(&mut self, now: Tick, max: usize) -> (Vec<Scope>, Option<Tick>) {
        let mut scopes = vec![];
        let mut since: Option<Tick> = None;
        while scopes.len() < max {
            match self.by_due.first() {
                Some((due, _)) if *due <= now => {}
                _ => break,
            }
            let Some((_, path)) = self.by_due.pop_first() else { break };
            let Some(dirty) = self.paths.remove(&path) else { continue };
            since = Some(since.map_or(dirty.since, |s| s.min(dirty.since)));
            scopes.push(if dirty.deep { Scope::Tree(path) } else { Scope::Path(path) });
        }
        (scopes, since)
    }

    pub fn contains(&self, path: &RelPath) -> bool {
        self.paths.contains_key(path)
    }

    #[cfg(test)]
    pub fn first(&self, path: &RelPath) -> Option<Tick> {
        self.paths.get(path).map(|d| d.first)
    }

    pub fn next_due(&self) -> Option<Tick> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// The age of the oldest change.
    pub fn oldest(&self) -> Option<Tick> {
        self.paths.values().map(|d| d.since).min()
    }

    /// The paths whose changes may be as old as this, or older.
    pub fn since(&self, then: Tick) -> impl Iterator<Item = &RelPath> {
        self.paths.iter().filter(move |(_, dirty)| dirty.since <= then).map(|(path, _)| path)
    }

    pub fn len(&self) -> usize {
        self.paths.len()
    }

    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    pub fn clear(&mut self) {
        self.paths.clear();
        self.by_due.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn settles_but_not_for_ever() {
        let mut dirty = DirtySet::default();
        let mut now = Tick(0);
        let mut looked = vec![];
        // A hint every second for two minutes, settle 2 s, at most 60 s.
        for _ in 0..120 {
            dirty.hint(path("a"), false, now, 2_000, 60_000);
            now = now.plus_ms(1_000);
            if !dirty.take_due(now, 10).0.is_empty() {
                looked.push(now);
            }
        }
        assert_eq!(looked, [Tick(60_000), Tick(120_000)]);
        dirty.hint(path("b"), false, now, 2_000, 60_000);
        assert!(dirty.take_due(now.plus_ms(1_999), 10).0.is_empty());
        assert_eq!(dirty.take_due(now.plus_ms(2_000), 10).0, [Scope::Path(path("b"))]);
        assert!(dirty.is_empty() && dirty.next_due().is_none());
    }

    #[test]
    fn deep_is_not_forgotten() {
        let mut dirty = DirtySet::default();
        dirty.hint(path("a"), true, Tick(0), 5, 50);
        dirty.hint(path("a"), false, Tick(1), 5, 50);
        assert_eq!(dirty.take_due(Tick(6), 10), (vec![Scope::Tree(path("a"))], Some(Tick(0))));
    }

    #[test]
    fn hurry_makes_due() {
        let mut dirty = DirtySet::default();
        dirty.hint(path("a"), false, Tick(0), 2_000, 60_000);
        dirty.look_after(path("b"), Tick(0), 900_000);
        dirty.look_after(path("a"), Tick(0), 0);
        dirty.hurry_all(Tick(10));
        assert_eq!(dirty.take_due(Tick(10), 10).0.len(), 2);
    }
}
