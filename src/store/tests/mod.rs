//! Tests of the store, through the real SDK: in process, and over loopback where it matters.
//!
//! The rig is here; each file below is one subject.

mod access;
mod away;
mod buckets;
mod checksums;
mod copies;
mod crash;
pub(super) mod crash_points;
mod damage;
mod deletes;
mod disk;
mod keys;
mod listing;
mod multipart;
mod objects;
mod races;
mod restore;
mod serving;
mod speed;
mod tags;
mod versions;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::{Access, InProcess, Store, StoreOptions, serve};

const KEYS: (&str, &str) = ("AKIDKEEPWATCH", "secret/with+signs");
const BUCKET: &str = "bkt";

/// A store in a folder of its own, and a client to it. The store's clock stands still until it is
/// moved.
struct Rig {
    store: Store,
    client: Client,
    log: Arc<Mutex<Vec<Access>>>,
    clock_ms: Arc<AtomicU64>,
    folder: Arc<TempDir>,
}

/// 21 Nov 2026, 12:00:00 UTC.
const NOON_MS: u64 = 1_795_262_400_000;

fn key_pairs() -> Vec<(String, String)> {
    vec![(KEYS.0.to_owned(), KEYS.1.to_owned())]
}

fn config(endpoint: &str) -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(KEYS.0, KEYS.1, None, None, "test"))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .retry_config(RetryConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenSupported)
}

fn in_process(store: &Store) -> aws_sdk_s3::config::Builder {
    let connector = InProcess::new(store.endpoint(&key_pairs()));
    config("http://store.invalid").http_client(connector)
}

/// Serves a store on a free port until the test ends; its address.
async fn on_loopback(store: &Store) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let store = store.clone();
    tokio::spawn(async move {
        serve(store, listener, &key_pairs(), std::future::pending()).await;
    });
    format!("http://{address}")
}

impl Rig {
    /// An empty store without buckets.
    fn bare() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let log: Arc<Mutex<Vec<Access>>> = Arc::default();
        let clock_ms = Arc::new(AtomicU64::new(NOON_MS));
        let options = StoreOptions {
            sync: false,
            thaw_delay: Duration::from_secs(3600),
            clock: {
                let clock_ms = clock_ms.clone();
                Arc::new(move || {
                    let since = Duration::from_millis(clock_ms.load(Ordering::SeqCst));
                    SystemTime::UNIX_EPOCH + since
                })
            },
            on_access: Some({
                let log = log.clone();
                Arc::new(move |access| log.lock().unwrap().push(access.clone()))
            }),
        };
        let store = Store::open(folder.path(), options).unwrap();
        let client = Client::from_conf(in_process(&store).build());
        Self { store, client, log, clock_ms, folder }
    }

    /// A store with one bucket.
    async fn new() -> Self {
        let rig = Self::bare();
        rig.client.create_bucket().bucket(BUCKET).send().await.unwrap();
        rig
    }

    /// The same store through a socket.
    async fn by_socket(mut self) -> Self {
        let endpoint = on_loopback(&self.store).await;
        self.client = Client::from_conf(config(&endpoint).build());
        self
    }

    /// Another handle on the same folder, as another process would have.
    fn second(&self) -> Client {
        let store = Store::open(self.folder.path(), self.store.options().clone()).unwrap();
        Client::from_conf(in_process(&store).build())
    }

    /// A client that sends checksums by itself, as headers, and as trailers of streams.
    fn hashing(&self) -> Client {
        let calculation = RequestChecksumCalculation::WhenSupported;
        Client::from_conf(in_process(&self.store).request_checksum_calculation(calculation).build())
    }

    /// The number of files in the store's `tmp`.
    fn on_their_way(&self) -> usize {
        std::fs::read_dir(self.path(".keepwatch-store/tmp")).unwrap().count()
    }

    fn pass_ms(&self, millis: u64) {
        self.clock_ms.fetch_add(millis, Ordering::SeqCst);
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    async fn put(&self, key: &str, body: &[u8]) -> String {
        let put = self.client.put_object().bucket(BUCKET).key(key);
        let answer = put.body(ByteStream::from(body.to_vec())).send().await;
        answer.unwrap_or_else(|e| panic!("{key:?}: {e:?}")).e_tag().unwrap().to_owned()
    }

    async fn get(&self, key: &str) -> Vec<u8> {
        let answer = self.client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
        answer.body.collect().await.unwrap().to_vec()
    }

    /// All keys of the bucket, as they are listed.
    async fn keys(&self) -> Vec<String> {
        let list = self.client.list_objects_v2().bucket(BUCKET);
        let answer = list.send().await.unwrap();
        answer.contents().iter().map(|object| object.key().unwrap().to_owned()).collect()
    }

    async fn enable_versions(&self) {
        self.set_versioning(aws_sdk_s3::types::BucketVersioningStatus::Enabled).await;
    }

    async fn set_versioning(&self, status: aws_sdk_s3::types::BucketVersioningStatus) {
        let configuration =
            aws_sdk_s3::types::VersioningConfiguration::builder().status(status).build();
        let put = self.client.put_bucket_versioning().bucket(BUCKET);
        put.versioning_configuration(configuration).send().await.unwrap();
    }

    /// The accesses logged since the last call.
    fn accesses(&self) -> Vec<Access> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

/// Runs a test in process, and again over a socket.
async fn both(test: impl AsyncFn(Rig)) {
    test(Rig::new().await).await;
    test(Rig::new().await.by_socket().await).await;
}

/// The status and S3 error code of what must have failed.
fn refusal<T: std::fmt::Debug, E>(result: Result<T, SdkError<E, HttpResponse>>) -> (u16, String)
where
    SdkError<E, HttpResponse>: ProvideErrorMetadata + std::fmt::Debug,
{
    let error = result.expect_err("the request should have been refused");
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    (status, error.code().unwrap_or_default().to_owned())
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug, E>(
    result: Result<T, SdkError<E, HttpResponse>>,
    status: u16,
    code: &str,
) where
    SdkError<E, HttpResponse>: ProvideErrorMetadata + std::fmt::Debug,
{
    assert_eq!(refusal(result), (status, code.to_owned()));
}

fn md5_hex(bytes: &[u8]) -> String {
    use md5::Digest as _;
    md5::Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes without a pattern, the same ones for the same seed.
fn noise(seed: u64, size_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; size_bytes];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}
