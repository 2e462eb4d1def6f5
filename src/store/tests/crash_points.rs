//! A process is ended before each of its acts on the disk in turn, once for every act of a script.
//!
//! Afterwards the store is as it was after the last step that was answered, or after the next one;
//! also when the sweep that follows is ended again and again.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_s3::Client;
use aws_sdk_s3::types::{
    BucketVersioningStatus, CompletedMultipartUpload, CompletedPart, Delete, MetadataDirective,
    ObjectIdentifier, VersioningConfiguration,
};

use super::crash::{check_files, read, say};
use super::{Store, in_process, md5_hex, noise};
use crate::store::StoreOptions;

const FOLDER: &str = "KEEPWATCH_STORE_CRASH_POINTS_FOLDER";
const LIMIT: &str = "KEEPWATCH_STORE_CRASH_POINTS_LIMIT";
const BUCKETS: [&str; 2] = ["plain", "versions"];

/// Ends the process when this is the act it must not do.
pub(in crate::store) fn crash_point() {
    static PASSED: AtomicUsize = AtomicUsize::new(0);
    static END: OnceLock<Option<usize>> = OnceLock::new();
    let limit = || std::env::var(LIMIT).ok().and_then(|limit| limit.parse().ok());
    if *END.get_or_init(limit) == Some(PASSED.fetch_add(1, Ordering::SeqCst) + 1) {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // The signal comes in its own time; nothing may happen until then.
        loop {
            std::thread::park();
        }
    }
}

fn open(folder: &Path) -> (Store, Client) {
    let options = StoreOptions { sync: false, ..StoreOptions::default() };
    let store = Store::open(folder, options).unwrap();
    let client = Client::from_conf(in_process(&store).build());
    (store, client)
}

/// One step of the script. What each one needs is found in the store, so that a step means the same
/// in every run.
#[derive(Clone, Copy)]
enum Step {
    Put(&'static str, &'static str, usize),
    Delete(&'static str, &'static str),
    /// Deletes the oldest version.
    DeleteOldest(&'static str),
    DeleteMany(&'static [&'static str]),
    /// A copy onto itself.
    Retouch(&'static str, &'static str),
    Begin,
    Part(i32, usize),
    Complete,
    Abort,
}
use Step::*;

const PART: usize = 5 << 20;

const SCRIPT: [Step; 33] = [
    Put("plain", "a", 10),
    Put("plain", "a", 20),
    Retouch("plain", "a"),
    // The file must make way for a folder, and cannot come back while that is there.
    Put("plain", "a/b", 30),
    Put("plain", "a", 40),
    Put("plain", "a/b/c", 50),
    Delete("plain", "a/b/c"),
    Put("plain", "a/b", 60),
    DeleteMany(&["a", "a/b", "none"]),
    Put("plain", "a/", 70),
    Put("plain", "a/", 80),
    Delete("plain", "a/"),
    Put("plain", "a", 0),
    Put("versions", "k", 11),
    Put("versions", "k", 22),
    Retouch("versions", "k"),
    Delete("versions", "k"),
    Put("versions", "k", 33),
    Put("versions", "k/l", 44),
    DeleteOldest("k"),
    Delete("versions", "k/l"),
    DeleteOldest("k/l"),
    Begin,
    Part(1, 100),
    Part(1, PART),
    Part(2, 200),
    Complete,
    Begin,
    Part(1, 300),
    Abort,
    Begin,
    Part(7, 400),
    Complete,
];

async fn take(client: &Client, step: Step) {
    match step {
        Put(bucket, key, size_bytes) => {
            let put = client.put_object().bucket(bucket).key(key);
            put.body(noise(7, size_bytes).into()).send().await.unwrap();
        }
        Delete(bucket, key) => {
            client.delete_object().bucket(bucket).key(key).send().await.unwrap();
        }
        DeleteOldest(key) => {
            let list = client.list_object_versions().bucket("versions").prefix(key);
            let list = list.send().await.unwrap();
            let mut of_key = list.versions().iter().filter(|v| v.key() == Some(key));
            let oldest = of_key.next_back().unwrap().version_id().unwrap();
            let delete = client.delete_object().bucket("versions").key(key).version_id(oldest);
            delete.send().await.unwrap();
        }
        DeleteMany(keys) => {
            let objects = keys.iter().map(|key| ObjectIdentifier::builder().key(*key).build());
            let objects = objects.map(Result::unwrap).collect();
            let delete = Delete::builder().set_objects(Some(objects)).build().unwrap();
            client.delete_objects().bucket("plain").delete(delete).send().await.unwrap();
        }
        Retouch(bucket, key) => {
            let copy = client.copy_object().bucket(bucket).key(key);
            let copy = copy.copy_source(format!("{bucket}/{key}"));
            copy.metadata_directive(MetadataDirective::Replace).send().await.unwrap();
        }
        Begin => {
            client.create_multipart_upload().bucket("plain").key("big/file").send().await.unwrap();
        }
        Part(..) | Complete | Abort => take_with_upload(client, step).await,
    }
}

/// The steps that need the upload that is under way.
async fn take_with_upload(client: &Client, step: Step) {
    let uploads = client.list_multipart_uploads().bucket("plain").send().await.unwrap();
    let upload = uploads.uploads()[0].upload_id().unwrap();
    match step {
        Part(number, size_bytes) => {
            let part = client.upload_part().bucket("plain").key("big/file").upload_id(upload);
            let part = part.part_number(number).body(noise(8, size_bytes).into());
            part.send().await.unwrap();
        }
        Complete => {
            let parts = client.list_parts().bucket("plain").key("big/file").upload_id(upload);
            let parts = parts.send().await.unwrap();
            let listed = parts.parts().iter().map(|part| {
                let completed = CompletedPart::builder().set_part_number(part.part_number());
                completed.e_tag(part.e_tag().unwrap()).build()
            });
            let list = CompletedMultipartUpload::builder().set_parts(Some(listed.collect()));
            let complete = client.complete_multipart_upload().bucket("plain").key("big/file");
            let complete = complete.upload_id(upload).multipart_upload(list.build());
            complete.send().await.unwrap();
        }
        _ => {
            let abort = client.abort_multipart_upload().bucket("plain").key("big/file");
            abort.upload_id(upload).send().await.unwrap();
        }
    }
}

/// All there is to see of a store, with the bytes as their MD5.
async fn seen(client: &Client) -> Vec<String> {
    let mut seen = Vec::new();
    for bucket in BUCKETS {
        let list = client.list_object_versions().bucket(bucket).send().await.unwrap();
        for version in list.versions() {
            let (key, id) = (version.key().unwrap(), version.version_id().unwrap());
            let bytes = read(client, bucket, key, Some(id)).await.unwrap();
            let latest = version.is_latest().unwrap();
            seen.push(format!("{bucket}/{key} {latest} {}", md5_hex(&bytes)));
        }
        for marker in list.delete_markers() {
            seen.push(format!("{bucket}/{} {:?} -", marker.key().unwrap(), marker.is_latest()));
        }
        let uploads = client.list_multipart_uploads().bucket(bucket).send().await.unwrap();
        for upload in uploads.uploads() {
            let (key, id) = (upload.key().unwrap(), upload.upload_id().unwrap());
            let parts = client.list_parts().bucket(bucket).key(key).upload_id(id);
            let parts = parts.send().await.unwrap();
            let parts = parts.parts().iter().map(|part| (part.part_number(), part.e_tag()));
            seen.push(format!("{bucket}/{key} {:?}", parts.collect::<Vec<_>>()));
        }
    }
    seen
}

async fn make_buckets(client: &Client) {
    for bucket in BUCKETS {
        client.create_bucket().bucket(bucket).send().await.unwrap();
    }
    let enabled = BucketVersioningStatus::Enabled;
    let configuration = VersioningConfiguration::builder().status(enabled).build();
    let put = client.put_bucket_versioning().bucket("versions");
    put.versioning_configuration(configuration).send().await.unwrap();
}

/// Runs the script in the folder it is given, unless it is ended; only opens a store that was.
#[tokio::test]
#[ignore = "runs as a child of the test below"]
async fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    say("");
    let is_new = !Path::new(&folder).join(BUCKETS[0]).exists();
    let (_store, client) = open(Path::new(&folder));
    if is_new {
        make_buckets(&client).await;
        for (number, step) in SCRIPT.into_iter().enumerate() {
            say(&format!("begin {number}"));
            take(&client, step).await;
        }
    }
    say("end");
}

/// The last line of a child that is ended at its n-th act.
fn run(folder: &Path, limit: usize) -> String {
    let this_test = format!("{}::child", module_path!());
    let (_crate, name) = this_test.split_once("::").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(LIMIT, limit.to_string())
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let last = said.lines().rev().find(|line| line.starts_with("begin ") || *line == "end");
    last.unwrap_or_default().to_owned()
}

#[tokio::test]
async fn whenever_the_process_ends_each_step_is_done_or_not_done() {
    let reference = tempfile::tempdir().unwrap();
    let (_store, client) = open(reference.path());
    make_buckets(&client).await;
    let mut after = vec![seen(&client).await];
    for step in SCRIPT {
        take(&client, step).await;
        after.push(seen(&client).await);
    }
    let mut ended = 0;
    for limit in 1.. {
        let folder = tempfile::tempdir().unwrap();
        let last = run(folder.path(), limit);
        if last == "end" {
            break;
        }
        // Before the first step there are no buckets to look at.
        let Some(step) = last.strip_prefix("begin ") else { continue };
        let step: usize = step.parse().unwrap();
        for act in 1.. {
            if run(folder.path(), act) == "end" {
                break;
            }
        }
        let (_store, client) = open(folder.path());
        let now = seen(&client).await;
        assert!(now == after[step] || now == after[step + 1], "act {limit}, step {step}: {now:#?}");
        check_files(folder.path(), &client, &BUCKETS).await;
        ended += 1;
    }
    assert!(ended > 4 * SCRIPT.len(), "{ended}");
}
