//! Trouble that is told again and again: a line that says the same within the hour is counted, and
//! the count is told once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a line stands for those that say the same.
const WINDOW: Duration = Duration::from_secs(3600);
/// Lines that are remembered; the oldest makes room.
const LINES_MAX: usize = 256;

/// Lines told within the last hour, by what they say.
pub struct Repeats<L> {
    told: BTreeMap<String, Told<L>>,
}

struct Told<L> {
    line: L,
    since: Instant,
    /// How often the same was to be said since.
    again: u64,
}

impl<L> Default for Repeats<L> {
    fn default() -> Self {
        Self { told: BTreeMap::new() }
    }
}

impl<L> Repeats<L> {
    /// Counts of earlier lines that are to be told now, with the lines.
    pub fn due(&mut self, now: Instant) -> Vec<(L, u64)> {
        let is_due = |_: &String, told: &mut Told<L>| now.duration_since(told.since) >= WINDOW;
        counts(self.told.extract_if(.., is_due).map(|(_, told)| told))
    }

    /// Whether a line is to be written; else it is counted. Answers also with the count of the line
    /// that had to make room.
    pub fn admit(&mut self, said: String, line: L, now: Instant) -> (bool, Vec<(L, u64)>) {
        if let Some(told) = self.told.get_mut(&said) {
            told.again += 1;
            return (false, vec![]);
        }
        let mut gone = None;
        if self.told.len() >= LINES_MAX {
            let oldest = self.told.iter().min_by_key(|(_, told)| told.since);
            let oldest = oldest.map(|(said, _)| said.clone());
            gone = oldest.and_then(|said| self.told.remove(&said));
        }
        self.told.insert(said, Told { line, since: now, again: 0 });
        (true, counts(gone))
    }

    /// All counts, at the end.
    pub fn rest(&mut self) -> Vec<(L, u64)> {
        counts(std::mem::take(&mut self.told).into_values())
    }
}

fn counts<L>(told: impl IntoIterator<Item = Told<L>>) -> Vec<(L, u64)> {
    let again = told.into_iter().filter(|told| told.again > 0);
    again.map(|told| (told.line, told.again)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_again_is_counted() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        let mut say = |text: &'static str, minutes: u64| {
            let mut due = repeats.due(at(minutes));
            let (written, gone) = repeats.admit(text.to_owned(), text, at(minutes));
            due.extend(gone);
            (written, due)
        };
        assert_eq!(say("a", 0), (true, vec![]));
        assert_eq!(say("b", 0), (true, vec![]));
        for minute in [1, 2, 59] {
            assert_eq!(say("a", minute), (false, vec![]));
        }
        assert_eq!(say("a", 60), (true, vec![("a", 3)]), "b was said once, and needs no count");
        assert_eq!(say("b", 61), (true, vec![]));
        assert_eq!(say("b", 62), (false, vec![]));
        assert_eq!(repeats.rest(), [("b", 1)]);
        assert_eq!(repeats.rest(), []);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        repeats.admit("first".to_owned(), 0, now);
        repeats.admit("first".to_owned(), 0, now);
        let later = now + Duration::from_secs(1);
        let all = (1..=LINES_MAX).map(|n| repeats.admit(n.to_string(), n, later));
        let gone: Vec<_> = all.flat_map(|(_, gone)| gone).collect();
        assert_eq!(gone, [(0, 1)], "the oldest made room, and its count is told");
        assert_eq!(repeats.told.len(), LINES_MAX);
    }
}
