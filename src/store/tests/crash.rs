//! A process that writes is killed at any moment, again and again on the same store.
//!
//! Afterwards every object is whole, every answered write is there, and nothing else is left.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::types::{
    BucketVersioningStatus, CompletedMultipartUpload, CompletedPart, VersioningConfiguration,
};
use futures_util::future::join_all;

use super::{Store, in_process, md5_hex, noise};
use crate::store::StoreOptions;

const FOLDER: &str = "KEEPWATCH_STORE_CRASH_FOLDER";
const ROUND: &str = "KEEPWATCH_STORE_CRASH_ROUND";
const ROUNDS: u64 = 20;

/// One writer each. Some are in each other's way on disk.
const KEYS: [&str; 8] = ["a", "a/b", "a/b/c", "plain", "d/e/f", "d/e/", "blob//x", "big"];
/// Bucket by bucket: overwritten, and with versions.
const BUCKETS: [&str; 2] = ["overwritten", "versioned"];

fn open(folder: &Path, round: u64) -> (Store, Client) {
    let options = StoreOptions { sync: round.is_multiple_of(4), ..StoreOptions::default() };
    let store = Store::open(folder, options).unwrap();
    let client = Client::from_conf(in_process(&store).build());
    (store, client)
}

/// The body of the n-th write to a key; 5 MiB and a bit for the one that is uploaded in parts.
fn body(key: &str, n: u64) -> Vec<u8> {
    let seed = n ^ (key.len() as u64) << 40;
    let size_bytes = match (key, n % 7) {
        ("big", _) => (5 << 20) + n as usize % 1000,
        (_, 0) => 0,
        (_, 6) => 1_500_000,
        (_, small) => small as usize * 700,
    };
    noise(seed, size_bytes)
}

/// Prints a line at once, past the test harness.
pub(super) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// The process that is killed. It ends by itself when nobody reads what it says.
#[tokio::test]
#[ignore = "runs as a child of the test below"]
async fn child() {
    let (Ok(folder), Ok(round)) = (std::env::var(FOLDER), std::env::var(ROUND)) else { return };
    let round: u64 = round.parse().unwrap();
    let (_store, client) = open(Path::new(&folder), round);
    say("");
    let writers = KEYS.into_iter().flat_map(|key| BUCKETS.map(|bucket| (bucket, key)));
    // Large versions would only make the checks slow.
    let writers = writers.filter(|writer| *writer != ("versioned", "big"));
    let writing = writers.map(|(bucket, key)| {
        let client = &client;
        async move {
            for n in round * 1_000_000.. {
                say(&format!("try {bucket} {n} {key}"));
                match (key, n % 5) {
                    ("big", _) => upload(client, bucket, key, &body(key, n)).await,
                    (_, 3) => {
                        let delete = client.delete_object().bucket(bucket).key(key);
                        delete.send().await.unwrap();
                    }
                    _ => {
                        let put = client.put_object().bucket(bucket).key(key);
                        put.body(body(key, n).into()).send().await.unwrap();
                    }
                }
                say(&format!("ack {bucket} {n} {key}"));
            }
        }
    });
    join_all(writing).await;
}

async fn upload(client: &Client, bucket: &str, key: &str, body: &[u8]) {
    let create = client.create_multipart_upload().bucket(bucket).key(key).send().await.unwrap();
    let id = create.upload_id().unwrap();
    let mut parts = Vec::new();
    for (number, piece) in [(1, &body[..5 << 20]), (2, &body[5 << 20..])] {
        let part = client.upload_part().bucket(bucket).key(key).upload_id(id).part_number(number);
        let answer = part.body(piece.to_vec().into()).send().await.unwrap();
        let etag = answer.e_tag().unwrap();
        parts.push(CompletedPart::builder().part_number(number).e_tag(etag).build());
    }
    let list = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    let complete = client.complete_multipart_upload().bucket(bucket).key(key).upload_id(id);
    complete.multipart_upload(list).send().await.unwrap();
}

/// What is known of the writes to one key.
#[derive(Default, Debug)]
struct History {
    /// Begun after the last one that was answered: each may have been done, or not.
    open: Vec<u64>,
    /// Answered writes, in order.
    answered: Vec<u64>,
}

type Histories = BTreeMap<(String, String), History>;

/// Runs the child until it has said this many lines, kills it, and adds what it said.
fn run_and_kill(folder: &Path, round: u64, lines: usize, histories: &mut Histories) {
    let this_test = format!("{}::child", module_path!());
    let (_crate, name) = this_test.split_once("::").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut heard = 0;
    // All that was said counts, also what the pipe still held when the child was killed.
    while let Some(Ok(line)) = said.next() {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (what, bucket, n, key) = (word(), word(), word(), word());
        let Ok(n) = n.parse() else { continue };
        let history = histories.entry((bucket, key)).or_default();
        match what.as_str() {
            "try" => history.open.push(n),
            "ack" => {
                history.open.clear();
                history.answered.push(n);
            }
            _ => panic!("{line}"),
        }
        heard += 1;
        if heard == lines {
            child.kill().unwrap();
        }
    }
    assert!(heard >= lines, "the child ended by itself after {heard} lines");
    child.wait().unwrap();
}

/// What the n-th write to a key leaves there.
fn left_by(key: &str, n: u64) -> Option<Vec<u8>> {
    (key == "big" || n % 5 != 3).then(|| body(key, n))
}

/// Reads an object and sees that it is what its ETag and checksum say; `None` if it is not there.
pub(super) async fn read(
    client: &Client,
    bucket: &str,
    key: &str,
    version: Option<&str>,
) -> Option<Vec<u8>> {
    let get = client.get_object().bucket(bucket).key(key);
    match get.set_version_id(version.map(str::to_owned)).send().await {
        Ok(answer) => {
            let etag = answer.e_tag().unwrap().trim_matches('"').to_owned();
            // The SDK verifies the CRC64NVME as it reads.
            assert!(answer.checksum_crc64_nvme().is_some());
            let bytes = answer.body.collect().await.unwrap().to_vec();
            assert!(etag.contains('-') || etag == md5_hex(&bytes));
            Some(bytes)
        }
        Err(error) => {
            assert_eq!(error.code(), Some("NoSuchKey"), "{error:?}");
            None
        }
    }
}

async fn check(folder: &Path, round: u64, histories: &Histories) {
    let (_store, client) = open(folder, round);
    for ((bucket, key), history) in histories {
        let found = read(&client, bucket, key, None).await;
        let last = history.answered.last().copied();
        let answered = match last {
            Some(n) => found == left_by(key, n),
            None => found.is_none(),
        };
        let done_unanswered = history.open.iter().any(|n| found == left_by(key, *n));
        assert!(answered || done_unanswered, "{bucket}/{key} after {last:?}, {:?}", history.open);
    }
    let mut bodies = Vec::new();
    let versions = client.list_object_versions().bucket(BUCKETS[1]).send().await.unwrap();
    for version in versions.versions() {
        let (key, id) = (version.key().unwrap(), version.version_id().unwrap());
        bodies.push((key.to_owned(), read(&client, BUCKETS[1], key, Some(id)).await.unwrap()));
    }
    for ((bucket, key), history) in histories.iter().filter(|((b, _), _)| b == BUCKETS[1]) {
        for body in history.answered.iter().filter_map(|n| left_by(key, *n)) {
            let kept = bodies.iter().any(|(k, b)| k == key && *b == body);
            assert!(kept || versions.is_truncated() == Some(true), "a version of {bucket}/{key}");
        }
    }
    check_files(folder, &client, &BUCKETS).await;
}

/// Every plain file is an object, byte for byte; in `tmp` are only the parts of open uploads.
pub(super) async fn check_files(folder: &Path, client: &Client, buckets: &[&str]) {
    let mut open_parts = 0;
    for bucket in buckets.iter().copied() {
        let mut folders = vec![folder.join(bucket)];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(&next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let key = path.strip_prefix(folder.join(bucket)).unwrap().to_str().unwrap();
                let found = read(client, bucket, key, None).await;
                assert!(found == Some(fs::read(&path).unwrap()), "{bucket}/{key}");
            }
        }
        let uploads = client.list_multipart_uploads().bucket(bucket).send().await.unwrap();
        for upload in uploads.uploads() {
            let parts = client.list_parts().bucket(bucket).key(upload.key().unwrap());
            let parts = parts.upload_id(upload.upload_id().unwrap()).send().await.unwrap();
            open_parts += parts.parts().len();
        }
    }
    let tmp = folder.join(".keepwatch-store/tmp");
    assert_eq!(fs::read_dir(tmp).unwrap().count(), open_parts);
}

#[tokio::test]
async fn a_killed_writer_leaves_whole_objects_and_every_answered_write() {
    let folder = tempfile::tempdir().unwrap();
    {
        let (_store, client) = open(folder.path(), 1);
        for bucket in BUCKETS {
            client.create_bucket().bucket(bucket).send().await.unwrap();
        }
        let enabled = BucketVersioningStatus::Enabled;
        let configuration = VersioningConfiguration::builder().status(enabled).build();
        let put = client.put_bucket_versioning().bucket(BUCKETS[1]);
        put.versioning_configuration(configuration).send().await.unwrap();
    }
    let mut random = fastrand::Rng::new();
    let seed = random.get_seed();
    let mut histories = Histories::new();
    for round in 1..=ROUNDS {
        let lines = random.usize(1..120);
        println!("seed {seed}, round {round}: killed after {lines} lines");
        run_and_kill(folder.path(), round, lines, &mut histories);
        check(folder.path(), round, &histories).await;
    }
    let answered: usize = histories.values().map(|history| history.answered.len()).sum();
    assert!(answered as u64 > ROUNDS, "{answered}");
}
