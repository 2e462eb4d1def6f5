//! The state database: SQLite and the one in memory.

use keepwatch::engine::{Problem, Trouble};
use keepwatch::model::{
    ContentMd5, Crc64, ETag, Entry, Fingerprint, Key, Kind, Md5, Millis, Object, Record, RelPath,
    Timestamp, Trust,
};
use keepwatch::plan::{ErrorClass, Failure, Skip};
use keepwatch::ports::{
    Change, Identity, JournaledPart, KeyRange, PartDigest, StateStore, StoredPart, Tally,
    UploadJournal,
};
use keepwatch::sim::SimState;
use keepwatch::state::{BackupId, BackupState, State};
use tempfile::TempDir;

use super::in_runtime;

pub const NOW: Millis = Millis(1_790_000_000_000);
const HOUR_MS: u64 = 3_600_000;

/// SQLite in a folder; it can be closed and opened again.
pub struct Sqlite {
    folder: TempDir,
    state: State,
}

impl Sqlite {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (state, _) = State::open(folder.path(), NOW).unwrap();
        Self { folder, state }
    }

    /// The records, and those of a backup beside them that nobody touches.
    pub async fn records(&self) -> BackupState {
        let id = |bucket: &str| BackupId {
            source: b"/source".to_vec(),
            endpoint: String::new(),
            bucket: bucket.to_owned(),
            prefix: String::new(),
        };
        self.state.backup("other", id("other")).await.unwrap();
        self.state.backup("docs", id("docs")).await.unwrap()
    }

    pub fn reopen(&mut self) {
        self.state.close();
        (self.state, _) = State::open(self.folder.path(), NOW).unwrap();
    }
}

/// Runs a case on the adapter and on its fake.
fn on_both(case: impl AsyncFn(&dyn StateStore)) {
    in_runtime(async {
        println!("in memory");
        case(&SimState::new()).await;
        println!("SQLite");
        let sqlite = Sqlite::new();
        case(&sqlite.records().await).await;
    });
}

pub fn key(name: &str) -> Key {
    Key::literal(name)
}

pub fn entry(kind: Kind, size_bytes: u64, secs: i64) -> Entry {
    let mtime = Timestamp::new(secs, 123_456_789);
    let ctime = Timestamp::new(secs, 987_654_321);
    let fingerprint = Fingerprint { size_bytes, mtime, ctime, inode: u64::MAX, device: 1 << 63 };
    Entry { kind, fingerprint, mode: 0o100_644, uid: u32::MAX, gid: 7 }
}

/// A record of a file of this size, whose times are those of `secs`.
pub fn record(size_bytes: u64, secs: i64) -> Record {
    let content = ContentMd5::whole(Md5::of(&size_bytes.to_be_bytes()));
    let etag = ETag::new(&content.to_string());
    Record::synced(entry(Kind::File, size_bytes, secs), content, etag, false)
}

pub fn object(size_bytes: u64) -> Object {
    Object { size_bytes, etag: ETag::new("theirs"), modified: NOW, archived: false }
}

pub fn part(number: u32) -> JournaledPart {
    let md5 = Md5::of(&number.to_be_bytes());
    let etag = ETag::new(&md5.to_string());
    let digest = PartDigest { bytes: 5, md5, crc64: Crc64(u64::MAX - u64::from(number)) };
    JournaledPart { stored: StoredPart { number, size_bytes: 5, etag, checksum: None }, digest }
}

pub fn journal(name: &str) -> UploadJournal {
    let fingerprint = entry(Kind::File, 12, 5).fingerprint;
    UploadJournal {
        key: key(name),
        upload_id: None,
        others: Some(vec!["theirs".to_owned()]),
        part_size: 5,
        fingerprint,
        parts: vec![],
    }
}

pub fn problem(name: &str, failed: bool, attempts: u32) -> Problem {
    let what = match failed {
        true => Trouble::Failed(Failure::new(ErrorClass::Path, format!("attempt {attempts}"))),
        false if attempts % 2 == 1 => Trouble::Skipped(Skip::Changing),
        false => Trouble::Skipped(Skip::Special),
    };
    let path = RelPath::new(name.trim_end_matches('/').as_bytes()).unwrap();
    Problem { key: key(name), path, attempts, what }
}

async fn apply(state: &dyn StateStore, changes: impl IntoIterator<Item = Change>) {
    state.apply(changes.into_iter().collect()).await.unwrap();
}

fn synced(name: &str) -> Change {
    Change::Synced { key: key(name), record: record(3, 5) }
}

fn missing(name: &str, at: Millis) -> Change {
    Change::Missing { key: key(name), at }
}

async fn get(state: &dyn StateStore, name: &str) -> Option<Record> {
    state.get(vec![key(name)]).await.unwrap().remove(0)
}

async fn tally(state: &dyn StateStore) -> Tally {
    state.tally(NOW).await.unwrap()
}

async fn due(state: &dyn StateStore, before: Millis) -> Vec<String> {
    let due = state.due(before, 99).await.unwrap();
    due.iter().map(|item| item.key.as_str().to_owned()).collect()
}

async fn unclaimed(state: &dyn StateStore) -> Vec<String> {
    let rows = state.unclaimed(None, 99).await.unwrap();
    rows.iter().map(|(key, _)| key.as_str().to_owned()).collect()
}

#[test]
fn a_record_comes_back_as_it_was() {
    on_both(async |state| {
        let part_size = 8 << 20;
        let parts = [Md5::of(b"1"), Md5::of(b"2")];
        let large = Record {
            content: Some(ContentMd5::of_parts(&parts, part_size)),
            etag: Some(ETag::new("\"odd\" \u{20ac}")),
            stale_meta: true,
            missing_since: Some(Millis(-1)),
            approved: true,
            racy: true,
            ..record(u64::MAX, -5)
        };
        let folder = Record { entry: entry(Kind::Folder, 0, 0), ..record(0, 0) };
        let link =
            Record { entry: entry(Kind::Link, 9, 1), content: None, etag: None, ..record(9, 1) };
        for (name, record) in [("large", large), ("folder/", folder), ("link", link)] {
            apply(state, [Change::Synced { key: key(name), record: record.clone() }]).await;
            assert_eq!(get(state, name).await, Some(record));
        }
        assert_eq!(get(state, "absent").await, None);
    });
}

#[test]
fn pages_are_in_key_order_and_within_their_range() {
    on_both(async |state| {
        // The order of bytes, which is neither that of paths nor that of characters.
        let names =
            ["A", "a", "a-b", "a/", "a/b", "a/b/c", "a0", "b", "\u{e9}", "\u{ffff}", "\u{10000}"];
        apply(state, names.iter().rev().map(|name| synced(name))).await;
        let page = async |range: KeyRange, after: Option<&str>, limit| -> Vec<String> {
            let page = state.page(range, after.map(key), limit).await.unwrap();
            page.into_iter().map(|(key, _)| key.as_str().to_owned()).collect()
        };
        assert_eq!(page(KeyRange::All, None, 99).await, names);
        assert_eq!(page(KeyRange::All, None, 3).await, names[..3]);
        assert_eq!(page(KeyRange::All, Some("a-b"), 3).await, names[3..6]);
        assert_eq!(page(KeyRange::All, Some("a1"), 1).await, ["b"]);
        let below = || KeyRange::Under(key("a/"));
        assert_eq!(page(below(), None, 99).await, ["a/", "a/b", "a/b/c"]);
        assert_eq!(page(below(), Some("a/"), 1).await, ["a/b"]);
        assert_eq!(page(below(), Some("a/b/c"), 99).await, [""; 0]);
        assert_eq!(page(below(), Some("A"), 99).await, ["a/", "a/b", "a/b/c"]);
    });
}

#[test]
fn records_are_cut_into_equal_shares() {
    on_both(async |state| {
        let split = async |parts: usize| -> Vec<String> {
            let ends = state.split(parts).await.unwrap();
            ends.iter().map(|key| key.as_str().to_owned()).collect()
        };
        assert_eq!(split(3).await, [""; 0]);
        let names: Vec<String> = (0..10).map(|n| format!("k{n}")).collect();
        apply(state, names.iter().map(|name| synced(name))).await;
        assert_eq!(split(2).await, ["k4"]);
        assert_eq!(split(3).await, ["k2", "k5"]);
        assert_eq!(split(1).await, [""; 0]);
        assert_eq!(split(11).await, [""; 0]);
    });
}

#[test]
fn an_upload_makes_the_record_uncertain_and_keeps_what_was_known() {
    on_both(async |state| {
        let before = Record { racy: true, stale_meta: true, ..record(3, 5) };
        apply(state, [Change::Synced { key: key("a"), record: before }]).await;
        apply(state, [missing("a", NOW), Change::Approve]).await;
        let entry = entry(Kind::Link, 4, 6);
        for name in ["a", "new"] {
            apply(state, [Change::Uploading { key: key(name), entry }]).await;
        }
        let known = Record { entry, trust: Trust::Uploading, ..record(3, 5) };
        assert_eq!(get(state, "a").await, Some(known.clone()));
        assert_eq!(get(state, "new").await, Some(Record { content: None, etag: None, ..known }));
    });
}

#[test]
fn a_settled_key_has_no_journal_no_problem_and_is_claimed() {
    on_both(async |state| {
        let settle: [fn() -> Change; 4] = [
            || synced("a"),
            || Change::Forget { key: key("a"), keep: None },
            || Change::Deleted { key: key("a") },
            || Change::Tagged { key: key("a") },
        ];
        for settle in settle {
            let object = object(1);
            apply(
                state,
                [
                    Change::UploadOpening(journal("a")),
                    Change::Problem { problem: problem("a", true, 1), at: NOW },
                    Change::Unclaimed { key: key("a"), object },
                ],
            )
            .await;
            apply(state, [settle()]).await;
            assert_eq!(state.upload(&key("a")).await.unwrap(), None);
            assert_eq!(state.problems(None, 9).await.unwrap(), []);
            assert_eq!(unclaimed(state).await, [""; 0]);
        }
    });
}

#[test]
fn missing_since_the_first_time() {
    on_both(async |state| {
        apply(state, [synced("a"), missing("a", NOW), missing("a", NOW.plus_ms(5))]).await;
        assert_eq!(get(state, "a").await.unwrap().missing_since, Some(NOW));
        apply(state, [Change::Approve, Change::Found { key: key("a"), disk: None }]).await;
        let found = get(state, "a").await.unwrap();
        assert_eq!((found.missing_since, found.approved), (None, false));
        apply(state, [missing("a", NOW.plus_ms(9)), missing("nobody", NOW)]).await;
        let again = get(state, "a").await.unwrap();
        assert_eq!((again.missing_since, again.approved), (Some(NOW.plus_ms(9)), false));
        assert_eq!(get(state, "nobody").await, None);
    });
}

#[test]
fn deletions_are_due_oldest_first_and_approved_ones_at_once() {
    on_both(async |state| {
        apply(state, ["a", "b", "c", "d/", "e", "f"].map(synced)).await;
        let at = |ms| NOW.plus_ms(ms);
        apply(state, [missing("c", at(1)), missing("a", at(2)), missing("b", at(2))]).await;
        apply(state, [missing("d/", at(3))]).await;
        assert_eq!(due(state, at(2)).await, ["c", "a", "b"]);
        assert_eq!(state.due(at(2), 2).await.unwrap().len(), 2);
        // What is uncertain, or tagged already, is not deleted.
        apply(state, [missing("e", at(0)), Change::Tagged { key: key("e") }]).await;
        let entry = entry(Kind::File, 1, 1);
        apply(state, [missing("f", at(0)), Change::Uploading { key: key("f"), entry }]).await;
        apply(state, [Change::Deleting { keys: vec![key("c")], counted: 1, at: NOW }]).await;
        assert_eq!(due(state, at(0)).await, [""; 0]);
        apply(state, [Change::Approve]).await;
        assert_eq!(due(state, at(0)).await, ["c", "a", "b", "d/"], "a cut deletion too");
    });
}

#[test]
fn discarded_deletions_leave_their_objects_unclaimed() {
    on_both(async |state| {
        apply(state, ["a", "b", "c"].map(synced)).await;
        apply(state, [missing("a", NOW), missing("b", NOW), Change::Discard]).await;
        assert_eq!((get(state, "a").await, get(state, "b").await), (None, None));
        assert!(get(state, "c").await.is_some());
        let rows = state.unclaimed(None, 9).await.unwrap();
        let known = record(3, 5);
        for (_, object) in &rows {
            assert_eq!((object.size_bytes, Some(&object.etag)), (3, known.etag.as_ref()));
        }
        assert_eq!(rows.len(), 2);
    });
}

#[test]
fn young_files_are_looked_at_again() {
    on_both(async |state| {
        let young = |secs| Record { racy: true, ..record(1, secs) };
        for (name, secs) in [("b", 20), ("a", 30), ("c/d", 10)] {
            apply(state, [Change::Synced { key: key(name), record: young(secs) }]).await;
        }
        let racy = async |secs: i64, limit| -> Vec<String> {
            let paths = state.racy(Millis(secs * 1000 + 999), limit).await.unwrap();
            paths.iter().map(ToString::to_string).collect()
        };
        assert_eq!(racy(30, 9).await, ["c/d", "b", "a"]);
        assert_eq!(racy(29, 9).await, ["c/d", "b"]);
        assert_eq!(racy(30, 1).await, ["c/d"]);
        apply(state, [synced("b"), Change::Deleted { key: key("a") }]).await;
        assert_eq!(racy(30, 9).await, ["c/d"]);
    });
}

#[test]
fn an_upload_is_journaled_part_by_part() {
    on_both(async |state| {
        apply(state, [Change::UploadOpening(journal("a"))]).await;
        assert_eq!(state.upload(&key("a")).await.unwrap(), Some(journal("a")));
        apply(
            state,
            [
                Change::UploadOpened { key: key("a"), upload_id: "id".to_owned() },
                Change::PartDone { key: key("a"), part: part(10) },
                Change::PartDone { key: key("a"), part: part(2) },
                Change::PartDone {
                    key: key("a"),
                    part: JournaledPart { digest: part(3).digest, ..part(2) },
                },
                Change::UploadOpening(journal("b")),
            ],
        )
        .await;
        let found = state.upload(&key("a")).await.unwrap().unwrap();
        let again = JournaledPart { digest: part(3).digest, ..part(2) };
        assert_eq!(found.upload_id.as_deref(), Some("id"));
        assert_eq!(found.parts, [again, part(10)]);
        // A new upload of the key knows nothing of the old one's parts.
        apply(state, [Change::UploadOpening(journal("a"))]).await;
        assert_eq!(state.upload(&key("a")).await.unwrap(), Some(journal("a")));
        apply(state, [Change::UploadDropped { key: key("a") }]).await;
        assert_eq!(state.upload(&key("a")).await.unwrap(), None);
        assert!(state.upload(&key("b")).await.unwrap().is_some());
        assert_eq!(state.uploads().await.unwrap(), [key("b")]);
    });
}

#[test]
fn skips_that_are_not_seen_again_are_forgotten_and_failures_stay() {
    on_both(async |state| {
        let tell = |name, failed, attempts, at| Change::Problem {
            problem: problem(name, failed, attempts),
            at,
        };
        apply(state, [tell("a", false, 1, NOW), tell("b", false, 1, NOW), tell("c", true, 1, NOW)])
            .await;
        apply(state, [Change::SkipsBegan, tell("b", false, 2, NOW.plus_ms(9))]).await;
        assert_eq!(tally(state).await.skipped, 2, "until the look has ended");
        apply(state, [Change::SkipsEnded]).await;
        let rows = state.problems(None, 9).await.unwrap();
        let found: Vec<_> = rows.iter().map(|r| (r.key.as_str(), r.attempts, r.since)).collect();
        assert_eq!(found, [("b", 2, NOW), ("c", 1, NOW)], "since the first time");
        assert_eq!(state.problems(Some(key("b")), 9).await.unwrap().len(), 1);
        assert_eq!(state.problems(None, 1).await.unwrap().len(), 1);
        apply(state, [Change::ProblemSolved { key: key("c") }]).await;
        assert_eq!((tally(state).await.skipped, tally(state).await.failed), (1, 0));
    });
}

#[test]
fn a_listing_learns_anew_what_is_unclaimed() {
    on_both(async |state| {
        let stranger = |name: &str| Change::Unclaimed { key: key(name), object: object(1) };
        apply(state, [stranger("a"), stranger("b"), synced("c")]).await;
        assert_eq!(state.unclaimed(Some(key("a")), 9).await.unwrap(), [(key("b"), object(1))]);
        apply(state, [Change::ListingBegan, stranger("b"), Change::Listed { at: NOW }]).await;
        assert_eq!(unclaimed(state).await, ["b"]);
        assert_eq!(state.backup().await.unwrap().listed_at, Some(NOW));
        apply(state, [Change::Forget { key: key("c"), keep: Some(object(2)) }]).await;
        assert_eq!(unclaimed(state).await, ["b", "c"]);
    });
}

#[test]
fn the_tally_counts_each_thing_once() {
    on_both(async |state| {
        apply(state, ["a", "b", "c", "d", "e"].map(synced)).await;
        let folder = |name: &str| {
            let record = Record { entry: entry(Kind::Folder, 0, 0), ..record(0, 0) };
            Change::Synced { key: key(name), record }
        };
        apply(state, [folder("f/"), folder("g/")]).await;
        apply(state, [missing("a", NOW), Change::Approve]).await;
        apply(state, [missing("b", NOW.plus_ms(5)), missing("f/", NOW.plus_ms(3))]).await;
        apply(state, [missing("c", NOW), Change::Tagged { key: key("c") }]).await;
        let found = tally(state).await;
        assert_eq!((found.files, found.folders), (2, 1));
        assert_eq!((found.kept, found.kept_bytes, found.unsettled), (2, 6, 0));
        assert_eq!((found.pending, found.approved, found.pending_folders), (1, 1, 1));
        assert_eq!(found.oldest_missing, Some(NOW));
    });
}

#[test]
fn only_what_was_acknowledged_is_kept() {
    on_both(async |state| {
        let uploading = |name: &str, size| Change::Uploading {
            key: key(name),
            entry: entry(Kind::File, size, 0),
        };
        apply(state, [synced("a"), synced("b"), uploading("b", 7), uploading("new", 9)]).await;
        let found = tally(state).await;
        assert_eq!(found.files, 3);
        assert_eq!((found.kept, found.unsettled, found.unsettled_bytes), (2, 2, 16));
        apply(state, [synced("new")]).await;
        let found = tally(state).await;
        assert_eq!((found.kept, found.unsettled, found.unsettled_bytes), (3, 1, 7));
    });
}

#[test]
fn the_budget_is_of_the_last_24_hours() {
    on_both(async |state| {
        let charge = |counted, at| Change::Deleting { keys: vec![], counted, at };
        let files = |count, at| Change::Files { count, at };
        apply(state, [files(100, NOW), charge(3, NOW), files(40, NOW), charge(4, NOW)]).await;
        let after = async |hours: u64| {
            let tally = state.tally(NOW.plus_ms(hours * HOUR_MS)).await.unwrap();
            (tally.spent, tally.files_max)
        };
        assert_eq!(after(0).await, (7, 100));
        assert_eq!(after(24).await, (7, 100));
        assert_eq!(after(25).await, (0, 0));
        apply(state, [files(50, NOW.plus_ms(24 * HOUR_MS))]).await;
        assert_eq!(after(24).await, (7, 100));
        assert_eq!(after(25).await, (0, 50));
    });
}

#[test]
fn the_backups_own_row_keeps_what_it_was_told() {
    on_both(async |state| {
        let row = state.backup().await.unwrap();
        assert_eq!((row.identity, row.listed_at, row.owner_etag), (None, None, None));
        assert_eq!((row.conditional, row.rebuilt), (None, false));
        assert!(!row.owner_id.is_empty());
        for born_ns in [Some(-1), None] {
            let identity = Identity { filesystem: u64::MAX, inode: 1 << 63, born_ns };
            apply(state, [Change::Identity(identity)]).await;
            assert_eq!(state.backup().await.unwrap().identity, Some(identity));
        }
        let etag = ETag::new("owner");
        let owner = Change::Owner { etag: etag.clone(), generation: 7, conditional: false };
        apply(state, [owner]).await;
        let row = state.backup().await.unwrap();
        assert_eq!((row.owner_etag, row.owner_generation), (Some(etag), 7));
        assert_eq!(row.conditional, Some(false));
    });
}

#[test]
fn an_empty_list_of_changes_is_no_change() {
    on_both(async |state| {
        apply(state, []).await;
        assert_eq!(tally(state).await, Tally::default());
        assert_eq!(state.get(vec![]).await.unwrap(), []);
    });
}
