//! Reading back: the adapter to S3 on the embedded store (in process and as `keepwatch serve`),
//! moto and Garage, and on servers that break off or answer something else.

mod archive;
mod aws;
mod broken;
mod copies;
mod plain;
mod versions;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Credentials, Region, SharedHttpClient};
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use futures_util::StreamExt as _;
use keepwatch::model::{ETag, Key, Md5, Prefix};
use keepwatch::plan::{ErrorClass, Failure};
use keepwatch::ports::{
    Fetched, ListedObject, ObjectId, ObjectReader, ReadHead, Reading, StoreError,
};
use keepwatch::s3::{Connection, Endpoint, S3Options, S3Store};
use keepwatch::store::{InProcess, Store, StoreOptions};

use super::in_runtime;
use crate::support::external::{garage, moto, served};
use crate::support::server::Reach;

const BUCKET: &str = "reader";

/// What not every server can.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Can {
    tags: bool,
    versions: bool,
    archive: bool,
    /// Tells a thaw under way from one that is over, and the tiers of archives from each other.
    slow_thaws: bool,
    part_sizes: bool,
    crc64: bool,
    /// Has names with line breaks and other controls.
    controls: bool,
    /// Says of each that is read how many tags it has.
    counts_tags: bool,
}

const ALL: Can = Can {
    tags: true,
    versions: true,
    archive: true,
    slow_thaws: true,
    part_sizes: true,
    crc64: true,
    controls: true,
    counts_tags: true,
};

/// A bucket on a server: a client to fill it, and readers of it.
struct Subject {
    can: Can,
    connection: Connection,
    client: Client,
}

impl Subject {
    async fn new(can: Can, reach: &Reach, http: Option<SharedHttpClient>) -> Self {
        let endpoint = Endpoint {
            url: Some(reach.endpoint.clone()),
            region: Some(reach.region.clone()),
            keys: Some((reach.access_key.clone(), reach.secret_key.clone())),
            connections_max: 20,
            ..Endpoint::default()
        };
        let keys = Credentials::new(&reach.access_key, &reach.secret_key, None, None, "test");
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version_latest()
            .endpoint_url(&reach.endpoint)
            .region(Region::new(reach.region.clone()))
            .credentials_provider(keys)
            .force_path_style(true);
        config.set_http_client(http.clone());
        let client = Client::from_conf(config.build());
        let connection = Connection::open(endpoint, http).await.unwrap();
        Self { can, connection, client }
    }

    /// Reads below this prefix, which every case has for itself.
    fn reader(&self, prefix: &str) -> S3Store {
        self.reader_of(BUCKET, prefix)
    }

    fn reader_of(&self, bucket: &str, prefix: &str) -> S3Store {
        let (bucket, prefix) = (bucket.to_owned(), Prefix::new(prefix));
        S3Store::new(self.connection.clone(), S3Options { bucket, prefix, ..S3Options::default() })
    }

    fn put(&self, key: &str, body: &[u8]) -> PutObjectFluentBuilder {
        self.client.put_object().bucket(BUCKET).key(key).body(body.to_vec().into())
    }

    /// Writes objects whose content is their key.
    async fn fill(&self, keys: impl Iterator<Item = String>) {
        let puts = keys.map(|key| async move {
            self.put(&key, key.as_bytes()).send().await.unwrap();
        });
        futures_util::stream::iter(puts).buffer_unordered(8).collect::<Vec<()>>().await;
    }
}

/// Every case, each below a prefix of its own.
async fn fulfils_the_contract(subject: &Subject) {
    subject.client.create_bucket().bucket(BUCKET).send().await.unwrap();
    macro_rules! run {
        ($($case:path,)*) => {$(
            println!("{}", stringify!($case));
            Box::pin($case(subject)).await;
        )*};
    }
    run!(
        plain::what_is_there_is_read,
        plain::ranges_are_read,
        plain::metadata_of_other_tools_is_understood,
        plain::every_kind_of_name,
        plain::long_listings_have_pages,
        plain::what_is_not_there_is_gone,
        plain::what_has_another_etag_is_changed,
        plain::tags_are_counted_and_deletions_read,
        plain::the_size_of_the_first_part,
        plain::without_a_bucket,
        plain::requests_are_counted,
        archive::archived_objects_are_read_when_they_are_thawed,
        archive::a_bucket_without_versions,
        versions::every_version_is_listed_and_read,
        versions::older_versions_are_thawed,
        versions::long_listings_of_versions_have_pages,
        copies::whole_objects_are_copied_with_all_that_is_theirs,
        copies::streamed_objects_have_all_that_is_theirs,
        copies::what_changed_or_went_is_not_copied,
        copies::large_objects_are_copied_in_parts,
        copies::parts_that_are_streamed_carry_the_checksum_of_the_source,
        copies::marks_are_put_beside_tags_and_taken_off_again,
    );
}

#[test]
fn embedded_in_process() {
    let folder = tempfile::tempdir().unwrap();
    let thaw_delay = std::time::Duration::from_millis(100);
    let options = StoreOptions { sync: false, thaw_delay, ..StoreOptions::default() };
    let store = Store::open(folder.path(), options).unwrap();
    let reach = Reach {
        endpoint: "http://store.invalid".to_owned(),
        access_key: "key".to_owned(),
        secret_key: "secret".to_owned(),
        region: "us-east-1".to_owned(),
    };
    let keys = [(reach.access_key.clone(), reach.secret_key.clone())];
    let http = SharedHttpClient::new(InProcess::new(store.endpoint(&keys)));
    in_runtime(async {
        fulfils_the_contract(&Subject::new(ALL, &reach, Some(http)).await).await;
    });
}

#[test]
fn embedded_as_it_is_served() {
    let server = served();
    in_runtime(async {
        fulfils_the_contract(&Subject::new(ALL, &server.reach, None).await).await;
    });
}

#[test]
fn on_moto() {
    let server = moto();
    let can = Can { slow_thaws: false, part_sizes: false, crc64: false, controls: false, ..ALL };
    in_runtime(async {
        fulfils_the_contract(&Subject::new(can, &server.reach, None).await).await;
    });
}

#[test]
fn on_garage() {
    let server = garage();
    let can = Can {
        tags: false,
        versions: false,
        archive: false,
        slow_thaws: false,
        counts_tags: false,
        ..ALL
    };
    in_runtime(async {
        fulfils_the_contract(&Subject::new(can, &server.reach, None).await).await;
    });
}

fn current(key: &str) -> ObjectId {
    ObjectId { key: Key::literal(key), version: None, etag: None }
}

fn etag_of(body: &[u8]) -> ETag {
    ETag::new(&Md5::of(body).to_string())
}

/// The object itself, where it must be there.
fn found<T: std::fmt::Debug>(result: Result<Fetched<T>, StoreError>) -> T {
    match result {
        Ok(Fetched::Found(found)) => found,
        other => panic!("{other:?}"),
    }
}

/// What came of opening, without the content.
fn outcome(result: Result<Fetched<Reading>, StoreError>) -> Result<Fetched<ReadHead>, StoreError> {
    result.map(|fetched| match fetched {
        Fetched::Found(reading) => Fetched::Found(reading.head),
        Fetched::Gone => Fetched::Gone,
        Fetched::Changed => Fetched::Changed,
        Fetched::Archived => Fetched::Archived,
    })
}

/// All of a body, or as much as came before the error.
async fn received(mut reading: Reading) -> (Vec<u8>, Option<Failure>) {
    let mut body = vec![];
    while let Some(next) = reading.body.next().await {
        match next {
            Ok(bytes) => body.extend_from_slice(&bytes),
            Err(StoreError::Failed(failure)) => return (body, Some(failure)),
            Err(other) => panic!("{other:?}"),
        }
    }
    (body, None)
}

async fn content(reader: &S3Store, id: &ObjectId) -> Vec<u8> {
    let Ok(Fetched::Found(reading)) = reader.read(id, None).await else {
        panic!("{id:?} cannot be read");
    };
    let (body, failure) = received(reading).await;
    assert_eq!(failure, None);
    body
}

/// All current objects, page by page.
async fn all(reader: &S3Store) -> Vec<ListedObject> {
    let mut objects = vec![];
    let mut after: Option<Key> = None;
    loop {
        let page = ObjectReader::list(reader, after.as_ref()).await.unwrap();
        objects.extend(page.objects);
        assert!(page.more_after.is_none() || page.more_after > after, "it goes on");
        after = page.more_after;
        if after.is_none() {
            return objects;
        }
    }
}
