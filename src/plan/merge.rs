//! The lock-step join of a pass: three streams in key order become one stream of triples.
//!
//! The streams are read in batches by an asynchronous caller, so the join is a state machine:
//! [`Merge::next`] answers with a triple or with the stream that it needs more of.
//!
//! Order is everything: a stream out of order would make present files look absent, which is mass
//! deletion. Every key is checked against the one before it, and a violation fails the pass.

use std::collections::VecDeque;

use thiserror::Error;

use crate::model::Key;

/// One key as all three sides see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Triple<S, B, T> {
    pub key: Key,
    pub source: Option<S>,
    pub base: Option<B>,
    pub target: Option<T>,
}

/// Which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Base,
    Target,
}

#[derive(Debug, Error, PartialEq, Eq)]
#[error("the {side:?} stream is out of order: {key} came after {after}")]
pub struct OutOfOrder {
    pub side: Side,
    pub key: Key,
    pub after: Key,
}

/// What [`Merge::next`] has.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<S, B, T> {
    Triple(Triple<S, B, T>),
    /// More of this stream is needed: call its `push_…` or its `end`.
    Need(Side),
    Done,
}

struct Stream<V> {
    side: Side,
    items: VecDeque<(Key, V)>,
    last: Option<Key>,
    ended: bool,
}

impl<V> Stream<V> {
    fn new(side: Side) -> Self {
        Self { side, items: VecDeque::new(), last: None, ended: false }
    }

    fn push(&mut self, batch: impl IntoIterator<Item = (Key, V)>) -> Result<(), OutOfOrder> {
        for (key, value) in batch {
            let last = self.items.back().map(|(k, _)| k).or(self.last.as_ref());
            if let Some(after) = last.filter(|last| **last >= key) {
                return Err(OutOfOrder { side: self.side, after: after.clone(), key });
            }
            self.items.push_back((key, value));
        }
        Ok(())
    }

    fn is_dry(&self) -> bool {
        self.items.is_empty() && !self.ended
    }

    fn head(&self) -> Option<&Key> {
        self.items.front().map(|(key, _)| key)
    }

    fn pop(&mut self) -> Option<(Key, V)> {
        let (key, value) = self.items.pop_front()?;
        if self.items.is_empty() {
            self.last = Some(key.clone());
        }
        Some((key, value))
    }

    /// Takes the head when it has this key.
    fn take(&mut self, key: &Key) -> Option<V> {
        if self.head() == Some(key) { self.pop().map(|(_, value)| value) } else { None }
    }
}

/// The join. A side that does not take part is ended before the first call of `next`.
pub struct Merge<S, B, T> {
    source: Stream<S>,
    base: Stream<B>,
    target: Stream<T>,
}

impl<S, B, T> Default for Merge<S, B, T> {
    fn default() -> Self {
        Self {
            source: Stream::new(Side::Source),
            base: Stream::new(Side::Base),
            target: Stream::new(Side::Target),
        }
    }
}

impl<S, B, T> Merge<S, B, T> {
    pub fn push_source(
        &mut self,
        batch: impl IntoIterator<Item = (Key, S)>,
    ) -> Result<(), OutOfOrder> {
        self.source.push(batch)
    }

    pub fn push_base(
        &mut self,
        batch: impl IntoIterator<Item = (Key, B)>,
    ) -> Result<(), OutOfOrder> {
        self.base.push(batch)
    }

    pub fn push_target(
        &mut self,
        batch: impl IntoIterator<Item = (Key, T)>,
    ) -> Result<(), OutOfOrder> {
        self.target.push(batch)
    }

    /// Nothing more comes from this side.
    pub fn end(&mut self, side: Side) {
        match side {
            Side::Source => self.source.ended = true,
            Side::Base => self.base.ended = true,
            Side::Target => self.target.ended = true,
        }
    }

    /// The next triple in key order, or what is missing to make it.
    #[expect(clippy::should_implement_trait, reason = "a step is not an item")]
    pub fn next(&mut self) -> Step<S, B, T> {
        for (dry, side) in [
            (self.source.is_dry(), Side::Source),
            (self.base.is_dry(), Side::Base),
            (self.target.is_dry(), Side::Target),
        ] {
            if dry {
                return Step::Need(side);
            }
        }
        // The key is taken from a stream that has it, not copied: this runs once for every file.
        let (source, base, target) = (self.source.head(), self.base.head(), self.target.head());
        let first = |side: Option<&Key>, others: [Option<&Key>; 2]| {
            side.is_some_and(|key| others.into_iter().flatten().all(|other| key <= other))
        };
        if first(source, [base, target]) {
            let Some((key, source)) = self.source.pop() else { return Step::Done };
            let (base, target) = (self.base.take(&key), self.target.take(&key));
            Step::Triple(Triple { key, source: Some(source), base, target })
        } else if first(base, [source, target]) {
            let Some((key, base)) = self.base.pop() else { return Step::Done };
            let target = self.target.take(&key);
            Step::Triple(Triple { key, source: None, base: Some(base), target })
        } else {
            let Some((key, target)) = self.target.pop() else { return Step::Done };
            Step::Triple(Triple { key, source: None, base: None, target: Some(target) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn key(text: &str) -> Key {
        Key::literal(text)
    }

    /// Feeds the three streams in batches of the given size and collects the triples.
    fn run(streams: [Vec<&str>; 3], batch: usize) -> Vec<(String, [bool; 3])> {
        let mut merge: Merge<(), (), ()> = Merge::default();
        let mut rest = streams.map(|s| s.into_iter().map(|k| (key(k), ())).collect::<Vec<_>>());
        let mut out = vec![];
        loop {
            match merge.next() {
                Step::Done => return out,
                Step::Triple(t) => out.push((
                    t.key.as_str().to_owned(),
                    [t.source.is_some(), t.base.is_some(), t.target.is_some()],
                )),
                Step::Need(side) => {
                    let rest = &mut rest[side as usize];
                    if rest.is_empty() {
                        merge.end(side);
                        continue;
                    }
                    let batch: Vec<_> = rest.drain(..batch.min(rest.len())).collect();
                    match side {
                        Side::Source => merge.push_source(batch).unwrap(),
                        Side::Base => merge.push_base(batch).unwrap(),
                        Side::Target => merge.push_target(batch).unwrap(),
                    }
                }
            }
        }
    }

    #[test]
    fn joins_every_subset_of_a_small_alphabet() {
        let names = ["a", "a-b", "a/", "a0"];
        let subset = |bits: u32| -> Vec<&str> {
            (0..4).filter(|i| bits & (1 << i) != 0).map(|i| names[i]).collect()
        };
        for bits in 0..4096_u32 {
            let streams = [subset(bits & 15), subset(bits >> 4 & 15), subset(bits >> 8)];
            let union: BTreeSet<&str> = streams.iter().flatten().copied().collect();
            let expected: BTreeMap<String, [bool; 3]> = union
                .iter()
                .map(|k| ((*k).to_owned(), [0, 1, 2].map(|i| streams[i].contains(k))))
                .collect();
            for batch in [1, 3] {
                let got = run(streams.clone(), batch);
                assert_eq!(got, expected.clone().into_iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn out_of_order_input_fails_also_across_batches() {
        let mut merge: Merge<(), (), ()> = Merge::default();
        merge.push_source([(key("b"), ())]).unwrap();
        assert!(merge.push_source([(key("b"), ())]).is_err(), "the same key twice");
        merge.end(Side::Base);
        merge.end(Side::Target);
        assert!(matches!(merge.next(), Step::Triple(_)));
        assert_eq!(merge.next(), Step::Need(Side::Source));
        let error = merge.push_source([(key("a"), ())]).unwrap_err();
        assert_eq!(error, OutOfOrder { side: Side::Source, key: key("a"), after: key("b") });
    }
}
