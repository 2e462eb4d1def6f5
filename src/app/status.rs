//! How far a backup is: the facts behind `status`, the summary of a run, and the exit code.

use serde::{Deserialize, Serialize};

use crate::engine::{Sight, Snapshot};
use crate::model::{Millis, Tick};
use crate::plan::HoldReason;
use crate::ports::{BackupRow, RequestCounts, StateError, StateStore, Tally};

use super::backup::Backup;
use super::progress::Counts;

/// One backup in `status --json`. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupStatus {
    pub name: String,
    pub source: String,
    pub destination: String,
    /// In one word: `starting`, `scanning`, `uploading`, `waiting`, `held`, `failing`,
    /// `up-to-date`, `stopping`, `stopped`; `failed`: it could not be started, see `error`.
    pub condition: String,
    /// Why it could not be started. A person must act.
    pub error: Option<String>,
    /// Every change made before this moment is in the destination. Absent until a first pass.
    pub watermark_ms: Option<i64>,
    /// Age of the oldest change that is not in the destination.
    pub oldest_waiting_ms: Option<u64>,
    /// Files of which the destination has acknowledged an object. One that is being replaced
    /// counts, for its former object is there, with the size that it will have.
    pub files: u64,
    pub bytes: u64,
    /// Files that are to be sent; without a daemon, those whose sending was not acknowledged.
    pub pending_files: u64,
    pub pending_bytes: u64,
    pub in_flight: u64,
    /// Paths seen to change, and not looked at yet.
    pub dirty: u64,
    pub failing: u64,
    pub skipped: u64,
    pub unclaimed: u64,
    /// Missing files whose objects wait for their deletion.
    pub missing: u64,
    /// Of these, those that a person must approve or discard.
    pub held: u64,
    pub held_reasons: Vec<String>,
    /// What the destination is being waited for, in plain words, and for how long.
    pub waiting_for: Option<String>,
    pub waiting_ms: Option<u64>,
    /// `full`, `partial`, `none`, or `off` where nothing watches.
    pub watcher: String,
    pub watcher_message: Option<String>,
    /// Changes that only a pass found, and queue overflows, since the start.
    pub missed: u64,
    pub overflows: u64,
    pub last_pass_ms: Option<i64>,
    pub last_listing_ms: Option<i64>,
    /// `exclusive` where the server guarantees one writer, `advisory` where it cannot.
    pub owner: Option<String>,
    pub uploaded: u64,
    pub uploaded_bytes: u64,
    pub deleted: u64,
    pub requests: Requests,
    /// Some of the paths being transferred.
    pub current: Vec<String>,
}

/// Requests by kind, retries included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    pub put: u64,
    pub get: u64,
    pub head: u64,
    pub list: u64,
    pub copy: u64,
    pub delete: u64,
    pub multipart: u64,
    pub other: u64,
}

impl From<RequestCounts> for Requests {
    fn from(counts: RequestCounts) -> Self {
        let RequestCounts { put, get, head, list, copy, delete, multipart, other } = counts;
        Self { put, get, head, list, copy, delete, multipart, other }
    }
}

/// What only the driver of a running backup knows.
#[derive(Clone, Debug)]
pub struct Live {
    pub snapshot: Snapshot,
    pub tick: Tick,
    pub sight: Option<(Sight, String)>,
    pub stopping: bool,
    pub source_missing: Option<(String, Tick)>,
    /// When the first look at everything had ended.
    pub first_pass: Option<Tick>,
    pub was_away: bool,
}

/// The status from what is recorded and from the running driver.
pub async fn status(backup: &Backup, live: &Live) -> Result<BackupStatus, StateError> {
    let now = backup.clock.now();
    let (tally, row) = (backup.state.tally(now).await?, backup.state.backup().await?);
    let mut status = from_records(&tally, &row);
    status.name.clone_from(&backup.settings.name);
    status.source.clone_from(&backup.settings.owner.source);
    let counts = backup.progress.counts();
    status.uploaded = counts.uploaded;
    status.uploaded_bytes = counts.uploaded_bytes;
    status.deleted = counts.deleted;
    status.missed = counts.missed;
    status.overflows = counts.overflows;
    status.requests = backup.store.requests().into();
    status.current = backup.progress.current(3);
    add_live(&mut status, live, now, backup);
    Ok(status)
}

/// The status from the records alone.
pub async fn recorded(state: &dyn StateStore, now: Millis) -> Result<BackupStatus, StateError> {
    let (tally, row) = (state.tally(now).await?, state.backup().await?);
    let mut status = BackupStatus {
        condition: "stopped".to_owned(),
        pending_files: tally.unsettled,
        pending_bytes: tally.unsettled_bytes,
        ..from_records(&tally, &row)
    };
    if tally.pending > 0 && row.held_since(tally.oldest_missing) {
        status.held = tally.pending;
        status.held_reasons = vec![HoldReason::HeldBefore.to_string()];
    }
    Ok(status)
}

fn from_records(tally: &Tally, row: &BackupRow) -> BackupStatus {
    BackupStatus {
        files: tally.kept,
        bytes: tally.kept_bytes,
        skipped: tally.skipped,
        failing: tally.failed,
        unclaimed: tally.unclaimed,
        missing: tally.pending + tally.approved,
        last_listing_ms: row.listed_at.map(|at| at.0),
        watcher: "off".to_owned(),
        owner: row
            .conditional
            .map(|guaranteed| if guaranteed { "exclusive" } else { "advisory" }.to_owned()),
        ..BackupStatus::default()
    }
}

fn add_live(status: &mut BackupStatus, live: &Live, now: Millis, backup: &Backup) {
    let snapshot = &live.snapshot;
    let wall = |tick: Tick| now.minus_ms(live.tick.since(tick)).0;
    status.pending_files = snapshot.pending as u64;
    status.pending_bytes = snapshot.pending_bytes;
    status.in_flight = snapshot.in_flight as u64;
    status.dirty = snapshot.dirty as u64;
    status.oldest_waiting_ms = snapshot.oldest.map(|oldest| live.tick.since(oldest));
    status.last_pass_ms = snapshot.last_full.map(wall);
    if let Some((sight, message)) = &live.sight {
        status.watcher = match sight {
            Sight::Full => "full",
            Sight::Partial => "partial",
            Sight::Blind => "none",
        }
        .to_owned();
        status.watcher_message = Some(message.clone()).filter(|message| !message.is_empty());
    }
    if let Some(hold) = &snapshot.hold {
        status.held = hold.pending;
        status.held_reasons = hold.reasons.iter().map(ToString::to_string).collect();
    }
    if let Some(waiting) = &snapshot.waiting {
        status.waiting_for = Some(waiting.failure.to_string());
        status.waiting_ms = Some(live.tick.since(waiting.since));
    }
    if let Some((message, since)) = &live.source_missing {
        status.waiting_for = Some(message.clone());
        status.waiting_ms = Some(live.tick.since(*since));
    }
    status.watermark_ms = watermark(live, now);
    let scanning = backup.progress.scanning.load(std::sync::atomic::Ordering::Relaxed);
    status.condition = condition(status, live, scanning).to_owned();
}

/// The moment before which every change is in the destination.
fn watermark(live: &Live, now: Millis) -> Option<i64> {
    let snapshot = &live.snapshot;
    let last_full = snapshot.last_full?;
    // What the first look found may have changed at any time before it.
    if snapshot.oldest.is_some_and(|oldest| live.first_pass.is_none_or(|end| oldest <= end)) {
        return None;
    }
    // What the watcher does not see is known only as of the last pass.
    let sees_all = matches!(&live.sight, Some((Sight::Full, _)));
    let known_until = if sees_all && !live.was_away { live.tick } else { last_full };
    let until = snapshot.oldest.map_or(known_until, |oldest| oldest.min(known_until));
    Some(now.minus_ms(live.tick.since(until)).0)
}

fn condition(status: &BackupStatus, live: &Live, scanning: bool) -> &'static str {
    if live.stopping {
        "stopping"
    } else if status.waiting_for.is_some() {
        "waiting"
    } else if live.snapshot.pending > live.snapshot.failing {
        "uploading"
    } else if scanning {
        "scanning"
    } else if !live.snapshot.looked_once {
        "starting"
    } else if status.held > 0 {
        "held"
    } else if status.failing > 0 {
        "failing"
    } else {
        "up-to-date"
    }
}

/// The last line of `sync --json`. Names are part of the product's contract.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// `ok`, `warnings`, `failed`, `held`, `interrupted` or `error`.
    pub result: String,
    pub scanned: u64,
    pub uploaded: u64,
    pub uploaded_bytes: u64,
    pub downloaded: u64,
    pub downloaded_bytes: u64,
    pub copied: u64,
    pub adopted: u64,
    pub deleted: u64,
    pub tagged: u64,
    pub retouched: u64,
    pub folders: u64,
    pub unchanged: u64,
    pub skipped: u64,
    pub failed: u64,
    pub held: u64,
    pub unclaimed: u64,
    pub verified: u64,
    pub requests: Requests,
    pub elapsed_ms: u64,
    /// What went wrong with the run as a whole, in plain words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Summary {
    pub fn new(counts: Counts, requests: Requests) -> Self {
        Self {
            scanned: counts.scanned,
            uploaded: counts.uploaded,
            uploaded_bytes: counts.uploaded_bytes,
            adopted: counts.adopted,
            deleted: counts.deleted,
            tagged: counts.tagged,
            retouched: counts.retouched,
            folders: counts.folders,
            unchanged: counts.unchanged,
            skipped: counts.skipped,
            failed: counts.failed,
            verified: counts.verified,
            requests,
            ..Self::default()
        }
    }

    /// Adds another backup's numbers.
    pub fn add(&mut self, other: &Self) {
        for (sum, value) in [
            (&mut self.scanned, other.scanned),
            (&mut self.uploaded, other.uploaded),
            (&mut self.uploaded_bytes, other.uploaded_bytes),
            (&mut self.downloaded, other.downloaded),
            (&mut self.downloaded_bytes, other.downloaded_bytes),
            (&mut self.copied, other.copied),
            (&mut self.adopted, other.adopted),
            (&mut self.deleted, other.deleted),
            (&mut self.tagged, other.tagged),
            (&mut self.retouched, other.retouched),
            (&mut self.folders, other.folders),
            (&mut self.unchanged, other.unchanged),
            (&mut self.skipped, other.skipped),
            (&mut self.failed, other.failed),
            (&mut self.held, other.held),
            (&mut self.unclaimed, other.unclaimed),
            (&mut self.verified, other.verified),
            (&mut self.requests.put, other.requests.put),
            (&mut self.requests.get, other.requests.get),
            (&mut self.requests.head, other.requests.head),
            (&mut self.requests.list, other.requests.list),
            (&mut self.requests.copy, other.requests.copy),
            (&mut self.requests.delete, other.requests.delete),
            (&mut self.requests.multipart, other.requests.multipart),
            (&mut self.requests.other, other.requests.other),
        ] {
            *sum += value;
        }
    }
}
