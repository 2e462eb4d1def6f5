//! How far a backup is: the facts behind `status`, the summary of a run, and the exit code.

use serde::{Deserialize, Serialize};

use crate::engine::{Sight, Snapshot};
use crate::model::{Millis, Tick};
use crate::plan::{Deletions, HoldReason};
use crate::ports::{BackupRow, ReplyCounts, RequestCounts, StateError, StateStore, Tally};

use super::backup::Backup;
use super::progress::Counts;

/// Every word that a condition can be.
pub const CONDITIONS: [&str; 12] = [
    "starting",
    "scanning",
    "uploading",
    "up-to-date",
    "waiting",
    "held",
    "failing",
    "paused",
    "stopping",
    "stopped",
    "failed",
    "never-started",
];

/// One backup in `status --json`. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupStatus {
    pub name: String,
    /// `backup` or `mirror`.
    #[serde(default)]
    pub kind: String,
    pub source: String,
    pub destination: String,
    /// Of a mirror: how often its buckets are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_ms: Option<u64>,
    /// In one word: `starting`, `scanning`, `uploading`, `waiting`, `held`, `failing`,
    /// `up-to-date`, `stopping`, `stopped`; `failed`: it could not be started, see `error`;
    /// `paused`: a person wants nothing sent;
    /// `never-started`: it is configured, and nothing of it is on record.
    pub condition: String,
    /// Why it could not be started. A person must act.
    pub error: Option<String>,
    /// Every change made before this moment is in the destination. Absent until that was so once.
    /// It stands still while a path fails or cannot be read, or deletions wait.
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
    /// Of these, the ones that cannot be read: nobody knows what is there.
    #[serde(default)]
    pub unread: u64,
    pub unclaimed: u64,
    /// Missing files whose objects wait for their deletion.
    pub missing: u64,
    /// Of these, those that a person must approve or discard.
    pub held: u64,
    pub held_reasons: Vec<String>,
    /// What the destination is being waited for, in plain words, and for how long.
    pub waiting_for: Option<String>,
    pub waiting_ms: Option<u64>,
    /// Of what does not run: what ended its last run, in plain words, if not that all was done.
    #[serde(default)]
    pub last_error: Option<String>,
    /// Since when a person has it paused.
    pub paused_since_ms: Option<i64>,
    /// `full`, `partial`, `none`, or `off` where nothing watches.
    pub watcher: String,
    pub watcher_message: Option<String>,
    /// Changes that only a pass found, and queue overflows, since the start.
    pub missed: u64,
    pub overflows: u64,
    /// When the last look at everything ended, and when the bucket was last listed for one.
    pub last_pass_ms: Option<i64>,
    pub last_listing_ms: Option<i64>,
    /// `exclusive` where the server guarantees one writer, `advisory` where it cannot.
    pub owner: Option<String>,
    pub uploaded: u64,
    pub uploaded_bytes: u64,
    pub deleted: u64,
    /// Multipart uploads that a lost state had left open.
    pub aborted_uploads: u64,
    pub requests: Requests,
    /// The same, by what became of them.
    pub replies: Replies,
    /// Requests that were sent again within one operation.
    pub retries: u64,
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

impl Requests {
    pub fn add(&mut self, other: &Self) {
        for (sum, value) in [
            (&mut self.put, other.put),
            (&mut self.get, other.get),
            (&mut self.head, other.head),
            (&mut self.list, other.list),
            (&mut self.copy, other.copy),
            (&mut self.delete, other.delete),
            (&mut self.multipart, other.multipart),
            (&mut self.other, other.other),
        ] {
            *sum += value;
        }
    }
}

/// Requests by what became of them: answered, refused (4xx), failed (5xx), or without an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replies {
    pub ok: Requests,
    pub refused: Requests,
    pub failed: Requests,
    pub lost: Requests,
}

impl Replies {
    pub fn add(&mut self, other: &Self) {
        self.ok.add(&other.ok);
        self.refused.add(&other.refused);
        self.failed.add(&other.failed);
        self.lost.add(&other.lost);
    }
}

impl From<ReplyCounts> for Replies {
    fn from(counts: ReplyCounts) -> Self {
        let ReplyCounts { ok, refused, failed, lost, retried: _ } = counts;
        let [ok, refused, failed, lost] = [ok, refused, failed, lost].map(Into::into);
        Self { ok, refused, failed, lost }
    }
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
    /// The clock at that moment.
    pub at: Millis,
    pub sight: Option<(Sight, String)>,
    pub stopping: bool,
    pub source_missing: Option<(String, Tick)>,
    /// When the first look at everything had ended.
    pub first_pass: Option<Tick>,
    /// How far changes of files with more than one name are known; `None` where no such file is.
    pub linked_until: Option<Tick>,
    pub was_away: bool,
    /// The latest moment before which everything was known to be in the destination.
    pub proven: Option<Millis>,
}

/// The status from what is recorded and from the running driver.
pub async fn status(backup: &Backup, live: &Live) -> Result<BackupStatus, StateError> {
    let (tally, row) = (backup.state.tally(live.at).await?, backup.state.backup().await?);
    let mut status = from_records(&tally, &row, live.at);
    status.name.clone_from(&backup.settings.name);
    status.source.clone_from(&backup.settings.owner.source);
    let counts = backup.progress.counts();
    status.uploaded = counts.uploaded;
    status.uploaded_bytes = counts.uploaded_bytes;
    status.deleted = counts.deleted;
    status.aborted_uploads = counts.aborted;
    status.missed = counts.missed;
    status.overflows = counts.overflows;
    status.requests = backup.store.requests().into();
    let replies = backup.store.replies();
    (status.replies, status.retries) = (replies.into(), replies.retried);
    status.current = backup.progress.current(3);
    backup.progress.unread.store(status.unread, std::sync::atomic::Ordering::Relaxed);
    add_live(&mut status, live, backup);
    status.watermark_ms = proof(backup, live).await?.map(|at| at.0).max(status.watermark_ms);
    Ok(status)
}

/// The latest moment before which every change is known to be in the destination.
pub async fn proof(backup: &Backup, live: &Live) -> Result<Option<Millis>, StateError> {
    let settings = &backup.settings;
    // What failed before says nothing of the rest, and what is only planned is not done.
    if settings.failed_only || backup.is_dry_run() {
        return Ok(None);
    }
    let owes = backup.state.owes(settings.deletions != Deletions::Keep).await?;
    let fresh = watermark(live).filter(|_| !owes);
    Ok(fresh.max(Millis::credible(live.proven, live.at)))
}

/// The status from the records alone.
pub async fn recorded(state: &dyn StateStore, now: Millis) -> Result<BackupStatus, StateError> {
    let (tally, row) = (state.tally(now).await?, state.backup().await?);
    let mut status = BackupStatus {
        condition: "stopped".to_owned(),
        pending_files: tally.unsettled,
        pending_bytes: tally.unsettled_bytes,
        last_error: row.ended_by.clone(),
        ..from_records(&tally, &row, now)
    };
    if tally.pending > 0 && row.held_since(tally.oldest_missing) {
        status.held = tally.pending;
        let why = row.held_why.clone();
        status.held_reasons =
            vec![why.unwrap_or_else(|| HoldReason::HeldBefore { why: None }.to_string())];
    }
    Ok(status)
}

fn from_records(tally: &Tally, row: &BackupRow, now: Millis) -> BackupStatus {
    BackupStatus {
        files: tally.kept,
        bytes: tally.kept_bytes,
        skipped: tally.skipped,
        unread: tally.unread,
        failing: tally.failed,
        unclaimed: tally.unclaimed,
        missing: tally.pending + tally.approved,
        watermark_ms: Millis::credible(row.proven_before, now).map(|at| at.0),
        last_pass_ms: row.passed_at.map(|at| at.0),
        paused_since_ms: row.paused_at.map(|at| at.0),
        last_listing_ms: row.listed_at.map(|at| at.0),
        kind: "backup".to_owned(),
        watcher: "off".to_owned(),
        owner: row
            .conditional
            .map(|guaranteed| if guaranteed { "exclusive" } else { "advisory" }.to_owned()),
        ..BackupStatus::default()
    }
}

pub(super) fn add_live(status: &mut BackupStatus, live: &Live, backup: &Backup) {
    let snapshot = &live.snapshot;
    status.pending_files = snapshot.pending as u64;
    status.pending_bytes = snapshot.pending_bytes;
    status.in_flight = snapshot.in_flight as u64;
    status.dirty = snapshot.dirty as u64;
    status.oldest_waiting_ms = snapshot.oldest.map(|oldest| live.tick.since(oldest));
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
    if let Some((what, since)) = backup.waits_for_room() {
        status.waiting_for = Some(what);
        status.waiting_ms = Some(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    }
    let scanning = backup.progress.scanning.load(std::sync::atomic::Ordering::Relaxed);
    status.condition = condition(status, live, scanning).to_owned();
}

/// Whether anything at all is known to be in the destination, deletions and failures aside.
pub fn proves(live: &Live) -> bool {
    watermark(live).is_some()
}

/// The moment before which every change that was seen is in the destination.
fn watermark(live: &Live) -> Option<Millis> {
    let snapshot = &live.snapshot;
    let last_full = snapshot.last_full?;
    // What the first look found may have changed at any time before it.
    if snapshot.oldest.is_some_and(|oldest| live.first_pass.is_none_or(|end| oldest <= end)) {
        return None;
    }
    // What the watcher does not see is known only as of the last pass.
    let sees_all = matches!(&live.sight, Some((Sight::Full, _)));
    let known_until = if sees_all && !live.was_away { live.tick } else { last_full };
    let known_until = live.linked_until.map_or(known_until, |until| until.min(known_until));
    let until = snapshot.oldest.map_or(known_until, |oldest| oldest.min(known_until));
    Some(live.at.minus_ms(live.tick.since(until)))
}

fn condition(status: &BackupStatus, live: &Live, scanning: bool) -> &'static str {
    if live.stopping {
        "stopping"
    } else if live.snapshot.paused {
        "paused"
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
    } else if status.failing > 0 || status.unread > 0 {
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
    /// Multipart uploads that a lost state had left open.
    pub aborted_uploads: u64,
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
            copied: counts.copied,
            adopted: counts.adopted,
            deleted: counts.deleted,
            tagged: counts.tagged,
            retouched: counts.retouched,
            folders: counts.folders,
            unchanged: counts.unchanged,
            skipped: counts.skipped,
            failed: counts.failed,
            verified: counts.verified,
            aborted_uploads: counts.aborted,
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
            (&mut self.aborted_uploads, other.aborted_uploads),
        ] {
            *sum += value;
        }
        self.requests.add(&other.requests);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_000_000);

    /// A driver that has run for 100 s. Its first pass began after 10 s and ended after 20 s; the
    /// last one began after 60 s.
    fn live(oldest: Option<u64>, sight: Sight) -> Live {
        let snapshot = Snapshot {
            oldest: oldest.map(|s| Tick(s * 1000)),
            last_full: Some(Tick(60_000)),
            ..Snapshot::default()
        };
        Live {
            snapshot,
            tick: Tick(100_000),
            at: NOW,
            sight: Some((sight, String::new())),
            stopping: false,
            source_missing: None,
            first_pass: Some(Tick(20_000)),
            linked_until: None,
            was_away: false,
            proven: None,
        }
    }

    fn age_s(live: &Live) -> Option<u64> {
        watermark(live).map(|at| NOW.since(at) / 1000)
    }

    #[test]
    fn the_watermark_is_not_ahead_of_what_is_known() {
        assert_eq!(age_s(&live(None, Sight::Full)), Some(0));
        assert_eq!(age_s(&live(None, Sight::Partial)), Some(40), "as of the last pass");
        let linked = Live { linked_until: Some(Tick(70_000)), ..live(None, Sight::Full) };
        assert_eq!(age_s(&linked), Some(30), "as of the last look at linked files");
        let away = Live { was_away: true, ..live(None, Sight::Full) };
        assert_eq!(age_s(&away), Some(40));
        assert_eq!(age_s(&live(Some(70), Sight::Full)), Some(30), "as of the oldest change");
        assert_eq!(age_s(&live(Some(70), Sight::Blind)), Some(40));
        let unseen = live(None, Sight::Full);
        let snapshot = Snapshot { last_full: None, ..unseen.snapshot.clone() };
        assert_eq!(age_s(&Live { snapshot, ..unseen }), None, "nothing was looked at");
    }

    #[test]
    fn the_watermark_is_not_ahead_of_what_the_first_pass_found() {
        for found in [15, 20] {
            assert_eq!(age_s(&live(Some(found), Sight::Full)), None, "it may be of any age");
        }
        let looking = Live { first_pass: None, ..live(Some(99), Sight::Full) };
        assert_eq!(age_s(&looking), None);
    }
}
