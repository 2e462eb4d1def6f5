//! All backups in one line: what `systemctl status` shows of the daemon.

use crate::app::pulse::Pulse;
use crate::app::status::BackupStatus;

use super::text::{bytes, count};

/// Backups that have a phrase of their own; of more, only the number is told.
const PHRASES_MAX: usize = 3;

/// What needs a person first, then what waits, then what is being done, then what is well.
pub fn of(pulses: &[Pulse], not_started: &[String]) -> String {
    let mut phrases: Vec<(u8, String)> = not_started
        .iter()
        .map(|name| (0, format!("{name} was not started, see: keepwatch status")))
        .collect();
    let told = pulses.iter().filter_map(|pulse| {
        let (rank, words) = phrase(&pulse.status)?;
        Some((rank, format!("{} {words}", pulse.name)))
    });
    phrases.extend(told);
    phrases.sort_by_key(|(rank, _)| *rank);
    let well = pulses.len() + not_started.len() - phrases.len();
    let more = phrases.len().saturating_sub(PHRASES_MAX);
    let mut parts: Vec<String> =
        phrases.into_iter().take(PHRASES_MAX).map(|(_, phrase)| phrase).collect();
    if more > 0 {
        parts.push(format!("{more} more to look at"));
    }
    match (well, pulses) {
        (0, []) if parts.is_empty() => parts.push("starting".to_owned()),
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
    if let Some(what) = &status.waiting_for {
        return Some((1, format!("waits: {what}")));
    }
    if status.held > 0 {
        let held = count(status.held, "deletion");
        return Some((2, format!("holds {held}, see: keepwatch deletions list")));
    }
    let (files, size) = (count(status.pending_files, "file"), bytes(status.pending_bytes));
    Some(match status.condition.as_str() {
        "up-to-date" => return None,
        "failing" => (3, format!("fails with {}", count(status.failing, "file"))),
        "uploading" => (4, format!("is sending {files} ({size})")),
        "starting" | "scanning" => (5, "is being compared".to_owned()),
        other => (6, format!("is {other}")),
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
        let none: [String; 0] = [];
        assert_eq!(of(&[], &none), "starting");
        assert_eq!(of(&[well("docs")], &none), "docs is up to date");
        assert_eq!(of(&[well("a"), well("b")], &none), "all 2 backups are up to date");
        assert_eq!(
            of(&[well("a"), sending("b"), away("c")], &none),
            "c waits: no route; b is sending 12 files (3.32 KiB); 1 is up to date"
        );
        assert_eq!(
            of(&[held("a")], &["b".to_owned()]),
            "b was not started, see: keepwatch status; \
             a holds 40 deletions, see: keepwatch deletions list"
        );
        let many: Vec<Pulse> = ["a", "b", "c", "d", "e"].map(sending).into();
        assert!(of(&many, &none).ends_with("; 2 more to look at"), "{}", of(&many, &none));
    }
}
