//! Summaries and tables in the words of a person.

use crate::app::status::{BackupStatus, Summary};

pub use crate::app::words::{bytes, count, duration, grouped};

/// The end of a one-shot run, in lines.
pub fn summary(summary: &Summary) -> String {
    let s = summary;
    let mut lines = vec![];
    let mut parts =
        vec![format!("uploaded {} ({})", count(s.uploaded, "file"), bytes(s.uploaded_bytes))];
    for (number, words) in [
        (s.unchanged, "unchanged"),
        (s.adopted, "adopted as they were"),
        (s.retouched, "with new metadata only"),
        (s.deleted, "deleted"),
        (s.tagged, "tagged as deleted"),
    ] {
        if number > 0 {
            parts.push(format!("{} {words}", grouped(number)));
        }
    }
    if s.folders > 0 {
        parts.push(count(s.folders, "folder marker"));
    }
    lines.push(format!("{} in {}", parts.join(", "), duration(s.elapsed_ms)));
    if s.skipped > 0 {
        lines.push(format!("{} skipped", count(s.skipped, "path")));
    }
    if s.failed > 0 {
        let retry = "`keepwatch sync --failed-only` tries them again";
        lines.push(format!("{} failed; {retry}", count(s.failed, "path")));
    }
    if s.held > 0 {
        lines.push(format!("{} held; see `keepwatch deletions list`", count(s.held, "deletion")));
    }
    if s.unclaimed > 0 {
        let (belong, are) = match s.unclaimed {
            1 => ("belongs", "is"),
            _ => ("belong", "are"),
        };
        lines.push(format!(
            "{} in the destination {belong} to no file here, and {are} left alone",
            count(s.unclaimed, "object")
        ));
    }
    lines.join("\n")
}

/// One backup's status, in lines.
pub fn status(s: &BackupStatus, now_ms: i64) -> String {
    let mut lines = vec![
        format!("{}  {} -> {}", s.name, s.source, s.destination),
        format!("  {}", headline(s, now_ms)),
    ];
    if let Some(error) = &s.error {
        lines.push(format!("  not started: {error}"));
        lines.push("  mend that, then send the daemon a HUP, or start it again".to_owned());
    }
    // Of what was never begun there is nothing to tell.
    let is_begun = s.error.is_none() && s.condition != "never-started";
    if is_begun || s.files > 0 {
        let (files, bytes) = (count(s.files, "file"), bytes(s.bytes));
        let besides = match s.missing {
            0 => String::new(),
            missing => format!(", besides {} missing here", grouped(missing)),
        };
        lines.push(format!("  {files} ({bytes}) in the destination{besides}"));
    }
    let mut add = |line: String| lines.push(format!("  {line}"));
    if let Some(why) = &s.last_error {
        add(format!("the last run ended with: {why}"));
        // What was mistyped once would be told for ever.
        if s.files == 0 && s.watermark_ms.is_none() {
            add(format!("if it is not wanted: keepwatch forget {}", s.name));
        }
    }
    if s.dirty > 0 && s.condition == "paused" {
        add(format!("{} to look at", count(s.dirty, "changed path")));
    }
    if s.pending_files > 0 {
        add(format!("{} waiting ({})", count(s.pending_files, "file"), bytes(s.pending_bytes)));
    }
    for path in &s.current {
        add(format!("uploading {path}"));
    }
    if let Some(since) = s.paused_since_ms {
        let since = duration(u64::try_from(now_ms - since).unwrap_or(0));
        add(format!("paused {since} ago; let it go on with: keepwatch resume {}", s.name));
    }
    if let Some(what) = &s.waiting_for {
        let since = s.waiting_ms.map(|ms| format!(" for {}", duration(ms))).unwrap_or_default();
        add(format!("waiting{since}: {what}"));
    }
    if s.held > 0 || !s.held_reasons.is_empty() {
        add(format!("{} held: {}", count(s.held, "deletion"), s.held_reasons.join("; ")));
        add("see `keepwatch deletions list`, then approve or discard".to_owned());
    } else if s.missing > 0 {
        add(format!("{} to be deleted", count(s.missing, "missing file")));
    }
    add_numbers(s, &mut add);
    if let Some(message) = &s.watcher_message {
        add(message.clone());
    }
    if s.owner.as_deref() == Some("advisory") {
        add("owner record: advisory (this server has no conditional writes)".to_owned());
    }
    lines.join("\n")
}

fn add_numbers(s: &BackupStatus, add: &mut impl FnMut(String)) {
    if s.unread > 0 {
        let what = count(s.unread, "path");
        add(format!("{what} cannot be read, and nothing is known of what is there"));
    }
    for (number, what) in [
        (s.failing, "path failing"),
        (s.skipped - s.unread.min(s.skipped), "path skipped"),
        (s.unclaimed, "object unclaimed in the destination"),
        (s.overflows, "overflow of the watcher's queue, each followed by a pass"),
        (s.missed, "change found by a pass that the watcher had missed"),
    ] {
        if number > 0 {
            let (one, rest) = what.split_once(' ').unwrap_or((what, ""));
            add(format!("{} {rest}", count(number, one)));
        }
    }
}

fn headline(s: &BackupStatus, now_ms: i64) -> String {
    let ago = |at: i64| duration(u64::try_from(now_ms - at).unwrap_or(0));
    let idle = s.pending_files == 0 && s.in_flight == 0 && s.dirty == 0 && s.waiting_for.is_none();
    let protected = match s.watermark_ms {
        Some(at) if idle && now_ms - at < 5_000 && s.condition == "up-to-date" => {
            "; everything until now is in the destination".to_owned()
        }
        Some(at) => format!("; everything until {} ago is in the destination", ago(at)),
        None => String::new(),
    };
    format!("{}{protected}", s.condition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_many_agree_with_their_verbs() {
        let told = |unclaimed| summary(&Summary { unclaimed, ..Summary::default() });
        assert!(told(1).contains("1 object in the destination belongs to no file here, and is"));
        assert!(told(2).contains("2 objects in the destination belong to no file here, and are"));
    }

    #[test]
    fn now_is_said_of_what_is_being_kept_alone() {
        let told = |condition: &str| {
            let condition = condition.to_owned();
            let watermark_ms = Some(99_000);
            status(&BackupStatus { condition, watermark_ms, ..BackupStatus::default() }, 100_000)
        };
        assert!(told("up-to-date").contains("until now"));
        for condition in ["paused", "stopped", "starting", "scanning"] {
            assert!(told(condition).contains("until 1.0 s ago"), "{}", told(condition));
        }
    }

    #[test]
    fn a_backup_that_did_not_start_says_why() {
        let failed = BackupStatus {
            condition: "failed".to_owned(),
            error: Some("the source /a is not a folder".to_owned()),
            ..BackupStatus::default()
        };
        let told = status(&failed, 0);
        assert!(told.contains("not started: the source /a is not a folder"), "{told}");
        assert!(!told.contains("0 files"), "nothing is known of it: {told}");
        let known = status(&BackupStatus { files: 2, ..failed }, 0);
        assert!(known.contains("2 files"), "{known}");
    }
}
