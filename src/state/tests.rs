//! What the database survives: kills, torn writes, damage, full disks, and other programs' files.

use std::fs;

use futures_util::future::join_all;
use tempfile::TempDir;

use super::*;
use crate::model::{ContentMd5, ETag, Entry, Fingerprint, Kind, Md5};

const NOW: Millis = Millis(1_790_000_000_000);
/// SQLite's page, its file header's first bytes, and the headers of a WAL and of a frame in it.
const PAGE: usize = 4096;
const WAL_HEADER: usize = 32;
const FRAME: usize = 24 + PAGE;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(folder: &TempDir) -> (State, Opened) {
    State::open(folder.path(), NOW).unwrap()
}

fn id(bucket: &str) -> BackupId {
    let (endpoint, prefix) = ("https://s3.example".to_owned(), "p/".to_owned());
    BackupId { source: b"/home".to_vec(), endpoint, bucket: bucket.to_owned(), prefix }
}

async fn backup(state: &State) -> BackupState {
    state.backup("docs", id("bucket")).await.unwrap()
}

fn synced(name: &str) -> Change {
    let fingerprint = Fingerprint { size_bytes: 1, inode: u64::MAX, ..Fingerprint::default() };
    let entry = Entry { kind: Kind::File, fingerprint, mode: 0o100_644, uid: 1, gid: 2 };
    let content = ContentMd5::whole(Md5::of(name.as_bytes()));
    let record = Record::synced(entry, content, ETag::new("e"), false);
    Change::Synced { key: Key::literal(name), record }
}

async fn apply(backup: &BackupState, names: &[&str]) {
    backup.apply(names.iter().map(|name| synced(name)).collect()).await.unwrap();
}

async fn keys(backup: &BackupState) -> Vec<String> {
    let page = backup.page(KeyRange::All, None, usize::MAX >> 1).await.unwrap();
    page.into_iter().map(|(key, _)| key.as_str().to_owned()).collect()
}

/// What a kill leaves: the files as they are at this moment.
fn kill(folder: &TempDir) -> TempDir {
    let left = self::folder();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), left.path().join(entry.file_name())).unwrap();
    }
    left
}

fn database(folder: &TempDir) -> PathBuf {
    folder.path().join(FILE_NAME)
}

fn wal(folder: &TempDir) -> PathBuf {
    folder.path().join(format!("{FILE_NAME}-wal"))
}

/// Frames of a WAL that end a transaction.
fn commits(wal: &[u8]) -> usize {
    let frames = wal[WAL_HEADER..].chunks_exact(FRAME);
    frames.filter(|frame| frame[4..8] != [0; 4]).count()
}

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let folder = folder();
    let (state, _) = open(&folder);
    let records = backup(&state).await;
    let mut wanted = vec![];
    for name in ["a", "b", "c"] {
        apply(&records, &[name]).await;
        wanted.push(name);
        let left = kill(&folder);
        let (state, opened) = open(&left);
        assert_eq!(opened, Opened::default());
        assert_eq!(keys(&backup(&state).await).await, wanted);
    }
}

#[tokio::test]
async fn a_list_of_changes_is_there_as_a_whole_or_not_at_all() {
    let folder = folder();
    let (state, _) = open(&folder);
    let records = backup(&state).await;
    apply(&records, &["a"]).await;
    let before = fs::metadata(wal(&folder)).unwrap().len();
    let names: Vec<String> = (0..200).map(|n| format!("b{n:03}")).collect();
    apply(&records, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let after = fs::metadata(wal(&folder)).unwrap().len();
    assert!(after > before + 2 * PAGE as u64, "{before} {after}");
    // The disk stops writing anywhere in between.
    for length in (before..=after).step_by(PAGE / 2).chain([after]) {
        let left = kill(&folder);
        fs::File::options().write(true).open(wal(&left)).unwrap().set_len(length).unwrap();
        let (state, opened) = open(&left);
        assert_eq!(opened, Opened::default());
        let found = keys(&backup(&state).await).await.len();
        assert_eq!(found, if length == after { 201 } else { 1 }, "cut at {length}");
    }
}

#[tokio::test]
async fn many_changes_share_a_synced_commit() {
    let folder = folder();
    let (state, _) = open(&folder);
    let records = backup(&state).await;
    for (pragma, wanted) in [("synchronous", "2"), ("journal_mode", "wal")] {
        let read = move |c: &rusqlite::Connection| {
            c.pragma_query_value(None, pragma, |row| row.get::<_, rusqlite::types::Value>(0))
        };
        let value = match state.thread.query(read).await.unwrap() {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(value, wanted, "{pragma}");
    }
    let before = commits(&fs::read(wal(&folder)).unwrap());
    let names: Vec<String> = (0..2_000).map(|n| format!("{n:04}")).collect();
    let changes = names.iter().map(|name| records.apply(vec![synced(name)]));
    assert!(join_all(changes).await.iter().all(Result::is_ok));
    let commits = commits(&fs::read(wal(&folder)).unwrap()) - before;
    assert!((1..=100).contains(&commits), "{commits} commits for 2,000 changes");
    assert_eq!(keys(&records).await, names);
}

#[tokio::test]
async fn a_full_disk_is_told_and_half_a_list_is_not_kept() {
    let folder = folder();
    let (state, _) = open(&folder);
    let records = backup(&state).await;
    apply(&records, &["a"]).await;
    let limit =
        |pages: i64| state.thread.query(move |c| c.pragma_update(None, "max_page_count", pages));
    limit(1).await.unwrap();
    let many = || (0..500).map(|n| synced(&format!("b{n}"))).collect();
    let result = records.apply(many()).await;
    assert!(matches!(result, Err(StateError::Full(_))), "{result:?}");
    assert_eq!(keys(&records).await, ["a"]);
    limit(1_000_000).await.unwrap();
    records.apply(many()).await.unwrap();
    assert_eq!(keys(&records).await.len(), 501);
}

#[tokio::test]
async fn closing_waits_for_what_is_queued() {
    let folder = folder();
    let (state, _) = open(&folder);
    let records = backup(&state).await;
    let mut queued = records.apply(vec![synced("a")]);
    assert!(futures_util::poll!(&mut queued).is_pending());
    state.close();
    queued.await.unwrap();
    let late = records.apply(vec![synced("b")]).await;
    assert!(matches!(late, Err(StateError::Broken(_))), "{late:?}");
    let left = fs::metadata(wal(&folder)).map_or(0, |wal| wal.len());
    assert_eq!(left, 0, "an orderly close leaves no log");
    let (state, opened) = open(&folder);
    assert_eq!(opened, Opened::default());
    assert_eq!(keys(&backup(&state).await).await, ["a"]);
}

/// Opens a damaged database: it must be moved aside as it is, and begun anew.
async fn must_be_rebuilt(folder: &TempDir) {
    let damaged = fs::read(database(folder)).unwrap();
    let (state, opened) = open(folder);
    let moved_to = opened.moved_to.unwrap();
    assert_eq!(moved_to.parent(), Some(folder.path()));
    assert!(fs::read(&moved_to).unwrap() == damaged, "moved as it is");
    let records = backup(&state).await;
    assert!(records.backup().await.unwrap().rebuilt, "deletions are held");
    assert_eq!(keys(&records).await, [""; 0]);

    // It stays so until a person has seen it, also after a restart.
    apply(&records, &["new"]).await;
    state.close();
    let (state, opened) = open(folder);
    assert_eq!(opened, Opened::default());
    let records = backup(&state).await;
    assert!(records.backup().await.unwrap().rebuilt);
    records.apply(vec![Change::Acknowledge]).await.unwrap();
    assert!(!records.backup().await.unwrap().rebuilt);
    assert_eq!(keys(&records).await, ["new"]);
}

/// A database of many pages, closed in order or killed.
async fn filled(killed: bool) -> TempDir {
    let folder = folder();
    let (state, _) = open(&folder);
    let records = backup(&state).await;
    let names: Vec<String> = (0..2_000).map(|n| format!("{n:04}")).collect();
    apply(&records, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    if killed {
        let write = |c: &rusqlite::Connection| c.pragma_update(None, "wal_checkpoint", "TRUNCATE");
        state.thread.query(write).await.unwrap();
        return kill(&folder);
    }
    state.close();
    folder
}

/// Damages the records, and nothing that is read at the start.
fn scratch(folder: &TempDir) {
    let connection = rusqlite::Connection::open(database(folder)).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'object'";
    let page = connection.query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap() as usize;
    drop(connection);
    let mut bytes = fs::read(database(folder)).unwrap();
    bytes[(page - 1) * PAGE..page * PAGE].fill(0x5a);
    fs::write(database(folder), bytes).unwrap();
}

#[tokio::test]
async fn garbage_is_moved_aside() {
    for garbage in [&b"this is not a database, but a text about one"[..], &[0x5a; 100_000]] {
        let folder = folder();
        fs::write(database(&folder), garbage).unwrap();
        must_be_rebuilt(&folder).await;
    }
}

#[tokio::test]
async fn a_cut_file_is_moved_aside() {
    let folder = filled(true).await;
    let file = fs::File::options().write(true).open(database(&folder)).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    must_be_rebuilt(&folder).await;
}

#[tokio::test]
async fn damaged_pages_are_found_after_an_unclean_end() {
    let folder = filled(true).await;
    scratch(&folder);
    must_be_rebuilt(&folder).await;
}

#[tokio::test]
async fn damage_that_shows_later_is_mended_by_the_next_start() {
    let folder = filled(false).await;
    scratch(&folder);
    let (state, opened) = open(&folder);
    assert_eq!(opened, Opened::default(), "it was closed in order, and is not searched");
    let records = backup(&state).await;
    let result = records.apply(vec![synced("a")]).await;
    assert!(matches!(result, Err(StateError::Broken(_))), "{result:?}");
    state.close();
    must_be_rebuilt(&folder).await;
}

#[tokio::test]
async fn an_index_that_lies_is_damage_too() {
    let folder = filled(false).await;
    let connection = rusqlite::Connection::open(database(&folder)).unwrap();
    // A record goes missing while the index of missing records looks away.
    let sql = "PRAGMA writable_schema = ON; CREATE TEMP TABLE aside AS
        SELECT rowid AS row, * FROM sqlite_schema WHERE name = 'object_missing';
        DELETE FROM sqlite_schema WHERE name = 'object_missing'; PRAGMA writable_schema = RESET;
        UPDATE object SET missing_since = 1 WHERE key = '0007'; PRAGMA writable_schema = ON;
        INSERT INTO sqlite_schema (rowid, type, name, tbl_name, rootpage, sql)
        SELECT * FROM aside; PRAGMA writable_schema = RESET;";
    connection.execute_batch(sql).unwrap();
    drop(connection);

    let (state, opened) = open(&folder);
    assert_eq!(opened, Opened::default());
    let records = backup(&state).await;
    let result = records.apply(vec![Change::Found { key: Key::literal("0007"), disk: None }]).await;
    assert!(matches!(result, Err(StateError::Broken(_))), "{result:?}");
    state.close();
    must_be_rebuilt(&folder).await;
}

#[tokio::test]
async fn what_a_newer_program_wrote_is_refused_and_left_alone() {
    let folder = filled(false).await;
    let connection = rusqlite::Connection::open(database(&folder)).unwrap();
    connection.pragma_update(None, "user_version", 999).unwrap();
    drop(connection);
    let before = fs::read(database(&folder)).unwrap();
    let refused = State::open(folder.path(), NOW).err().unwrap();
    assert!(matches!(refused, OpenError::Newer { found: 999, .. }), "{refused}");
    assert!(fs::read(database(&folder)).unwrap() == before);
}

#[tokio::test]
async fn another_programs_database_is_refused_and_left_alone() {
    let folder = folder();
    let connection = rusqlite::Connection::open(database(&folder)).unwrap();
    connection.execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)").unwrap();
    drop(connection);
    let before = fs::read(database(&folder)).unwrap();
    let refused = State::open(folder.path(), NOW).err().unwrap();
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
    assert!(fs::read(database(&folder)).unwrap() == before);
}

#[tokio::test]
async fn another_destination_starts_anew() {
    let folder = folder();
    let (state, _) = open(&folder);
    let records = backup(&state).await;
    apply(&records, &["a"]).await;
    let other = state.backup("docs", id("another-bucket")).await.unwrap();
    assert_eq!(keys(&other).await, [""; 0]);
    apply(&other, &["b"]).await;

    // The name alone is not the identity.
    let renamed = state.backup("papers", id("bucket")).await.unwrap();
    assert_eq!(keys(&renamed).await, ["a"]);
    let owner = |row: BackupRow| row.owner_id;
    assert_ne!(
        renamed.backup().await.map(owner).unwrap(),
        other.backup().await.map(owner).unwrap()
    );
    // What was only begun is known too.
    let known = state.backups().await.unwrap();
    let wanted = [("docs", "another-bucket"), ("papers", "bucket")];
    assert_eq!(known, wanted.map(|(name, bucket)| (name.to_owned(), id(bucket))));
}

#[tokio::test]
async fn the_default_bucket_is_remembered_for_each_source_and_endpoint() {
    let folder = folder();
    let (state, _) = open(&folder);
    let set = |source: &[u8], endpoint: &str, bucket: &str| {
        state.set_default_bucket(source.to_vec(), endpoint.to_owned(), bucket.to_owned())
    };
    set(b"/a", "", "first").await.unwrap();
    set(b"/a", "http://e", "second").await.unwrap();
    set(b"/a", "", "third").await.unwrap();
    for (source, endpoint, wanted) in
        [("/a", "", Some("third")), ("/a", "http://e", Some("second")), ("/b", "", None)]
    {
        let found = state.default_bucket(source.as_bytes().to_vec(), endpoint.to_owned()).await;
        assert_eq!(found.unwrap().as_deref(), wanted);
    }
}
