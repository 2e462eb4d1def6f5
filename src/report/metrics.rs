//! The backups as metrics, in the text format of Prometheus. `docs/metrics.md` tells every name.

use std::fmt::Write as _;

use crate::app::status::{BackupStatus, CONDITIONS, Requests};

/// The media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

type Labels<'a> = [(&'a str, &'a str)];

/// One metric's head and the lines below it.
struct Metric<'a> {
    out: &'a mut String,
    name: &'static str,
}

impl<'a> Metric<'a> {
    fn new(out: &'a mut String, kind: &str, name: &'static str, help: &str) -> Self {
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
        Self { out, name }
    }

    fn sample(&mut self, labels: &Labels<'_>, value: f64) {
        self.out.push_str(self.name);
        for (at, (name, text)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            write!(self.out, "{open}{name}=\"{}\"", escaped(text)).ok();
        }
        let close = if labels.is_empty() { "" } else { "}" };
        writeln!(self.out, "{close} {value}").ok();
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn secs(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// Reads one number; `None` where it is not known.
type Read = fn(&BackupStatus) -> Option<f64>;

/// Gauges and counters of one number a backup. What is not known has no line.
#[rustfmt::skip] // A table is read by its rows.
const NUMBERS: [(&str, &str, &str, Read); 27] = [
    ("gauge", "keepwatch_watermark_timestamp_seconds",
        "Every change made before this moment is in the destination.",
        |s| s.watermark_ms.map(secs)),
    ("gauge", "keepwatch_oldest_change_age_seconds",
        "Age, at most, of the oldest change that is not in the destination; 0 where none is known.",
        |s| Some(s.oldest_waiting_ms.unwrap_or(0) as f64 / 1000.0)),
    ("gauge", "keepwatch_files", "Files of which the destination has an object.",
        |s| Some(s.files as f64)),
    ("gauge", "keepwatch_files_bytes", "Size of the files of which the destination has an object.",
        |s| Some(s.bytes as f64)),
    ("gauge", "keepwatch_pending_files", "Files that are to be sent.",
        |s| Some(s.pending_files as f64)),
    ("gauge", "keepwatch_pending_bytes", "Size of the files that are to be sent.",
        |s| Some(s.pending_bytes as f64)),
    ("gauge", "keepwatch_in_flight_operations", "Operations under way.",
        |s| Some(s.in_flight as f64)),
    ("gauge", "keepwatch_dirty_paths", "Paths seen to change, and not looked at yet.",
        |s| Some(s.dirty as f64)),
    ("gauge", "keepwatch_failing_paths", "Paths that failed, and are tried again.",
        |s| Some(s.failing as f64)),
    ("gauge", "keepwatch_skipped_paths", "Paths that are left out with a warning.",
        |s| Some(s.skipped as f64)),
    ("gauge", "keepwatch_unclaimed_objects", "Objects in the destination of no file here.",
        |s| Some(s.unclaimed as f64)),
    ("gauge", "keepwatch_missing_files", "Missing files whose objects are still to be deleted.",
        |s| Some(s.missing as f64)),
    ("gauge", "keepwatch_held_deletions", "Deletions that a person must approve or discard.",
        |s| Some(s.held as f64)),
    ("gauge", "keepwatch_waiting_seconds",
        "How long the destination, or the source, has been waited for; 0 where it is not.",
        |s| Some(s.waiting_ms.unwrap_or(0) as f64 / 1000.0)),
    ("gauge", "keepwatch_paused", "1 where a person wants nothing sent.",
        |s| Some(f64::from(u8::from(s.paused_since_ms.is_some())))),
    ("gauge", "keepwatch_watcher_complete", "1 where the watcher sees every folder.",
        |s| Some(f64::from(u8::from(s.watcher == "full")))),
    ("gauge", "keepwatch_last_pass_timestamp_seconds", "When the last look at everything ended.",
        |s| s.last_pass_ms.map(secs)),
    ("gauge", "keepwatch_last_listing_timestamp_seconds",
        "When the bucket was last listed and compared.",
        |s| s.last_listing_ms.map(secs)),
    ("counter", "keepwatch_watcher_missed_total", "Changes that only a pass found.",
        |s| Some(s.missed as f64)),
    ("counter", "keepwatch_watcher_overflows_total", "Overflows of the watcher's queue.",
        |s| Some(s.overflows as f64)),
    ("counter", "keepwatch_uploaded_files_total", "Files that were sent.",
        |s| Some(s.uploaded as f64)),
    ("counter", "keepwatch_uploaded_bytes_total", "Size of the files that were sent.",
        |s| Some(s.uploaded_bytes as f64)),
    ("counter", "keepwatch_deleted_objects_total", "Objects that were deleted.",
        |s| Some(s.deleted as f64)),
    ("counter", "keepwatch_aborted_uploads_total", "Uploads that a lost state had left open.",
        |s| Some(s.aborted_uploads as f64)),
    ("counter", "keepwatch_retries_total", "Requests that were sent again within one operation.",
        |s| Some(s.retries as f64)),
    ("gauge", "keepwatch_started", "0 where the backup could not be started.",
        |s| Some(f64::from(u8::from(s.error.is_none())))),
    ("gauge", "keepwatch_owner_exclusive", "1 where the server guarantees one writer.",
        |s| s.owner.as_deref().map(|owner| f64::from(u8::from(owner == "exclusive")))),
];

/// All metrics of these backups. `refused`: the configuration file, as it is now, is not in force.
pub fn text(backups: &[BackupStatus], refused: bool) -> String {
    let mut text = String::new();
    let out = &mut text;
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    Metric::new(out, "gauge", "keepwatch_build_info", "The program; always 1.")
        .sample(&version, 1.0);
    let help = "1 where the configuration file, as it is now, is refused.";
    Metric::new(out, "gauge", "keepwatch_config_refused", help)
        .sample(&[], f64::from(u8::from(refused)));
    for (kind, name, help, read) in NUMBERS {
        let mut metric = Metric::new(out, kind, name, help);
        for backup in backups {
            if let Some(value) = read(backup) {
                metric.sample(&[("backup", &backup.name)], value);
            }
        }
    }
    let help = "1 for the condition that the backup is in, 0 for the others.";
    let mut metric = Metric::new(out, "gauge", "keepwatch_condition", help);
    for backup in backups {
        for condition in CONDITIONS {
            let value = f64::from(u8::from(backup.condition == condition));
            metric.sample(&[("backup", &backup.name), ("condition", condition)], value);
        }
    }
    let help = "Requests by kind and by what became of them.";
    let mut metric = Metric::new(out, "counter", "keepwatch_requests_total", help);
    for backup in backups {
        requests(&mut metric, backup);
    }
    text
}

fn requests(metric: &mut Metric<'_>, backup: &BackupStatus) {
    let replies = &backup.replies;
    for (result, counts) in [
        ("ok", &replies.ok),
        ("refused", &replies.refused),
        ("failed", &replies.failed),
        ("lost", &replies.lost),
    ] {
        for (kind, count) in kinds(counts) {
            let labels = [("backup", &*backup.name), ("kind", kind), ("result", result)];
            metric.sample(&labels, count as f64);
        }
    }
}

fn kinds(counts: &Requests) -> [(&'static str, u64); 8] {
    let Requests { put, get, head, list, copy, delete, multipart, other } = *counts;
    [
        ("put", put),
        ("get", get),
        ("head", head),
        ("list", list),
        ("copy", copy),
        ("delete", delete),
        ("multipart", multipart),
        ("other", other),
    ]
}
