//! All backups in one line: what `systemctl status` shows of the daemon.

use crate::app::pulse::Pulse;
use crate::app::status::BackupStatus;

use super::text::{bytes, count};

/// Backups that have a phrase of their own; of more, only the number is told.
const PHRASES_MAX: usize = 3;

/// All that there is to tell of.
#[derive(Debug, Default)]
pub struct Told {
    /// The configuration file, as it was last read, is not in force.
    pub refused: bool,
    /// Why there are no pages where they are wanted.
    pub unserved: Option<String>,
    /// What the drivers say.
    pub pulses: Vec<Pulse>,
    /// What cannot be started as it is configured.
    pub not_started: Vec<String>,
    /// What could not be started for now, and why.
    pub waiting: Vec<(String, String)>,
    /// What is being started, and what it waits for, where that takes long.
    pub opening: Vec<(String, Option<String>)>,
}

impl Told {
    /// Whether each has its watcher and its first comparison running, or waits for what may take
    /// long.
    pub fn all_begun(&self) -> bool {
        let some =
            [self.pulses.len(), self.waiting.len(), self.opening.len()].iter().any(|n| *n > 0);
        let all_wait = self.opening.iter().all(|(_, what)| what.is_some());
        some && all_wait && self.pulses.iter().all(|pulse| pulse.begun)
    }

    /// Phrases of what has no driver. Smaller numbers come first.
    fn without_driver(&self) -> Vec<(u8, String)> {
        let mut phrases = vec![];
        if self.refused {
            phrases
                .push((0, "the configuration file is refused, see: keepwatch status".to_owned()));
        }
        let not_started = self.not_started.iter();
        phrases.extend(
            not_started.map(|name| (1, format!("{name} was not started, see: keepwatch status"))),
        );
        let waiting = self.waiting.iter();
        phrases
            .extend(waiting.map(|(name, why)| (4, format!("{name} waits to be started: {why}"))));
        let opening = self.opening.iter();
        phrases.extend(opening.map(|(name, what)| match what {
            Some(what) => (4, format!("{name} waits for {what}")),
            None => (7, format!("{name} is being started")),
        }));
        if let Some(why) = &self.unserved {
            phrases.push((4, format!("no metrics for now: {why}")));
        }
        phrases
    }
}

/// What needs a person first, then what waits, then what is being done, then what is well.
pub fn of(told: &Told) -> String {
    let pulses = &told.pulses[..];
    let mut phrases = told.without_driver();
    if phrases.iter().all(|(rank, _)| *rank == 7) && pulses.is_empty() {
        return "starting".to_owned();
    }
    let drivers = phrases.len();
    phrases.extend(pulses.iter().filter_map(|pulse| {
        let (rank, words) = phrase(&pulse.status)?;
        Some((rank, format!("{} {words}", pulse.name)))
    }));
    let well = pulses.len() - (phrases.len() - drivers);
    phrases.sort_by_key(|(rank, _)| *rank);
    let more = phrases.len().saturating_sub(PHRASES_MAX);
    let mut parts: Vec<String> =
        phrases.into_iter().take(PHRASES_MAX).map(|(_, phrase)| phrase).collect();
    if more > 0 {
        parts.push(format!("{more} more to look at"));
    }
    match (well, pulses) {
        (0, _) => {}
        (1, [only]) => parts.push(format!("{} is up to date", only.name)),
        (1, _) => parts.push("1 is up to date".to_owned()),
        (well, _) if parts.is_empty() => parts.push(format!("all {well} backups are up to date")),
        (well, _) => parts.push(format!("{well} are up to date")),
    }
    parts.join("; ")
}

/// Nothing where all is well; smaller numbers come first.
fn phrase(status: &BackupStatus) -> Option<(u8, String)> {
    if status.held > 0 {
        let held = count(status.held, "deletion");
        return Some((2, format!("holds {held}, see: keepwatch deletions list")));
    }
    if status.unread > 0 && status.waiting_for.is_none() {
        return Some((3, format!("cannot read {}", count(status.unread, "path"))));
    }
    if let Some(what) = &status.waiting_for {
        return Some((4, format!("waits: {what}")));
    }
    let (files, size) = (count(status.pending_files, "file"), bytes(status.pending_bytes));
    Some(match status.condition.as_str() {
        "up-to-date" => return None,
        "failing" => (5, format!("fails with {}", count(status.failing, "file"))),
        "uploading" => (6, format!("is sending {files} ({size})")),
        "starting" | "scanning" => (7, "is being compared".to_owned()),
        other => (8, format!("is {other}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse(name: &str, change: impl FnOnce(&mut BackupStatus)) -> Pulse {
        let mut status =
            BackupStatus { condition: "up-to-date".to_owned(), ..BackupStatus::default() };
        change(&mut status);
        Pulse { name: name.to_owned(), begun: true, status }
    }

    #[test]
    fn one_line_says_how_all_are() {
        let well = |name| pulse(name, |_| {});
        let sending = |name| {
            pulse(name, |s| {
                (s.condition, s.pending_files, s.pending_bytes) = ("uploading".into(), 12, 3_400);
            })
        };
        let away = |name| {
            pulse(name, |s| {
                (s.condition, s.waiting_for) = ("waiting".into(), Some("no route".into()));
            })
        };
        let held = |name| pulse(name, |s| (s.condition, s.held) = ("held".into(), 40));
        let line = |pulses: &[Pulse], change: fn(&mut Told)| {
            let mut told = Told { pulses: pulses.to_vec(), ..Told::default() };
            change(&mut told);
            of(&told)
        };
        let alone = |pulses: &[Pulse]| line(pulses, |_| {});
        assert_eq!(alone(&[]), "starting");
        assert_eq!(alone(&[well("docs")]), "docs is up to date");
        assert_eq!(alone(&[well("a"), well("b")]), "all 2 backups are up to date");
        assert_eq!(
            alone(&[well("a"), sending("b"), away("c")]),
            "c waits: no route; b is sending 12 files (3.32 KiB); 1 is up to date"
        );
        assert_eq!(
            line(&[away("c"), held("a")], |told| told.not_started.push("b".to_owned())),
            "b was not started, see: keepwatch status; \
             a holds 40 deletions, see: keepwatch deletions list; c waits: no route"
        );
        assert_eq!(line(&[], |told| told.opening.push(("a".to_owned(), None))), "starting");
        assert_eq!(
            line(&[], |told| told.opening.push(("a".to_owned(), Some("an answer".to_owned())))),
            "a waits for an answer"
        );
        assert_eq!(
            line(&[well("a")], |told| told.opening.push(("b".to_owned(), None))),
            "b is being started; a is up to date"
        );
        assert_eq!(
            line(&[well("a")], |told| told.unserved = Some("a port is taken".to_owned())),
            "no metrics for now: a port is taken; a is up to date"
        );
        assert_eq!(
            line(&[well("a")], |told| told.waiting.push(("b".to_owned(), "no disk".to_owned()))),
            "b waits to be started: no disk; a is up to date"
        );
        let unread = pulse("a", |s| (s.condition, s.unread) = ("failing".into(), 1));
        assert_eq!(
            line(&[unread, well("b")], |told| told.refused = true),
            "the configuration file is refused, see: keepwatch status; a cannot read 1 path; \
             1 is up to date"
        );
        let many: Vec<Pulse> = ["a", "b", "c", "d", "e"].map(sending).into();
        assert!(alone(&many).ends_with("; 2 more to look at"), "{}", alone(&many));
    }
}
