//! The object store: the one in memory, and the adapter to S3 on the embedded store (in process and
//! over HTTP), moto and Garage. What a server may or may not have is a capability; all else holds
//! everywhere.

mod multipart;
mod plain;
mod writes;

use std::sync::Arc;

use aws_sdk_s3::config::SharedHttpClient;
use bytes::Bytes;
use keepwatch::model::{Crc64, ETag, Key, Md5, Meta, ObjectHead, Prefix, Timestamp};
use keepwatch::plan::ErrorClass;
use keepwatch::ports::{Condition, ObjectStore, Put, StoreError};
use keepwatch::s3::{Connection, Endpoint, S3Options, S3Store};
use keepwatch::sim::{Chance, Faults, SimClock, SimStore};
use keepwatch::store::{InProcess, Store, StoreOptions};

use super::in_runtime;
use crate::support::external::{garage, moto};
use crate::support::server::{Embedded, Reach};

/// What not every server can.
#[derive(Clone, Copy)]
struct Can {
    /// Writes under conditions.
    conditions: bool,
    /// Copies of known objects only. (moto looks at ETags in PUTs alone.)
    known_copies: bool,
    /// Deletions, and ends of multipart uploads, under conditions.
    late_conditions: bool,
    /// Refuses a body that is not the announced one.
    verify: bool,
    tags: bool,
    /// Lists parts in a form that the SDK reads, and says of an upload that it is gone. (moto does
    /// neither.)
    upload_state: bool,
    /// Says how large the first part of an object was.
    part_sizes: bool,
    /// Keeps CRC64NVME, and knows it over whole multipart objects.
    crc64: bool,
    /// Has buckets that may not be there.
    buckets: bool,
    key_max_bytes: usize,
}

const ALL: Can = Can {
    conditions: true,
    known_copies: true,
    late_conditions: true,
    verify: true,
    tags: true,
    upload_state: true,
    part_sizes: true,
    crc64: true,
    buckets: true,
    key_max_bytes: 1024,
};

type Make = Box<dyn Fn(&str, &str) -> Arc<dyn ObjectStore>>;

/// A server, and stores in it by bucket and prefix.
struct Subject {
    can: Can,
    make: Make,
}

impl Subject {
    fn sim(conditions: bool) -> Self {
        let make = move |_: &str, _: &str| -> Arc<dyn ObjectStore> {
            let faults = Faults::none(&Chance::new(1));
            Arc::new(SimStore::new(SimClock::start(), faults, conditions))
        };
        Self {
            can: Can { conditions, late_conditions: conditions, buckets: false, ..ALL },
            make: Box::new(make),
        }
    }

    async fn s3(can: Can, endpoint: Endpoint, http: Option<SharedHttpClient>) -> Self {
        let connection = Connection::open(endpoint, http).await.unwrap();
        let make = move |bucket: &str, prefix: &str| -> Arc<dyn ObjectStore> {
            let (bucket, prefix) = (bucket.to_owned(), Prefix::new(prefix));
            let options = S3Options { bucket, prefix, ..S3Options::default() };
            Arc::new(S3Store::new(connection.clone(), options))
        };
        Self { can, make: Box::new(make) }
    }

    async fn over_http(can: Can, reach: &Reach) -> Self {
        let endpoint = Endpoint {
            url: Some(reach.endpoint.clone()),
            region: Some(reach.region.clone()),
            keys: Some((reach.access_key.clone(), reach.secret_key.clone())),
            connections_max: 20,
            ..Endpoint::default()
        };
        Self::s3(can, endpoint, None).await
    }
}

macro_rules! run {
    ($subject:expr; $($case:path,)*) => {$(
        println!("{}", stringify!($case));
        let prefix = stringify!($case).replace("::", "/").replace(' ', "");
        let store = ($subject.make)("contract", &prefix);
        Box::pin($case($subject.can, &*store)).await;
    )*};
}

/// Every case, on stores that begin empty.
async fn fulfils_the_contract(subject: &Subject) {
    (subject.make)("contract", "").create_bucket().await.unwrap();
    run!(
        subject;
        plain::what_was_put_is_there,
        plain::what_is_not_there_is_absent,
        plain::an_unchanged_object_is_not_sent_again,
        plain::every_kind_of_name,
        plain::listings_go_on_after_any_key,
        plain::long_listings_have_pages,
        plain::the_destinations_own_records_are_not_listed,
        plain::deletions_answer_for_each_key,
        plain::requests_are_counted,
        writes::a_damaged_body_is_refused,
        writes::only_where_nothing_is,
        writes::only_over_the_object_that_is_known,
        writes::deletions_of_known_objects_only,
        writes::new_metadata_without_the_bytes,
        writes::new_metadata_for_the_known_object_only,
        writes::tags_instead_of_deletions,
        multipart::parts_become_one_object,
        multipart::parts_can_be_sent_again,
        multipart::open_uploads_of_a_key,
        multipart::all_open_uploads,
        multipart::an_aborted_upload_is_gone,
        multipart::a_damaged_part_is_refused,
        multipart::a_damaged_whole_is_refused,
        multipart::names_that_xml_cannot_carry,
        multipart::conditions_hold_at_the_end_too,
    );
    if subject.can.buckets {
        let store = (subject.make)("contract", "");
        store.create_bucket().await.unwrap();
        plain::without_a_bucket(&*(subject.make)("not-there", "")).await;
    }
}

#[test]
fn in_memory() {
    in_runtime(fulfils_the_contract(&Subject::sim(true)));
}

#[test]
fn in_memory_without_conditions() {
    in_runtime(fulfils_the_contract(&Subject::sim(false)));
}

#[test]
fn embedded_in_process() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { sync: false, ..StoreOptions::default() };
    let store = Store::open(folder.path(), options).unwrap();
    let keys = ("key".to_owned(), "secret".to_owned());
    let http = SharedHttpClient::new(InProcess::new(store.endpoint(std::slice::from_ref(&keys))));
    let endpoint = Endpoint {
        url: Some("http://store.invalid".to_owned()),
        region: Some("us-east-1".to_owned()),
        keys: Some(keys),
        ..Endpoint::default()
    };
    in_runtime(async {
        fulfils_the_contract(&Subject::s3(ALL, endpoint, Some(http)).await).await;
    });
}

#[test]
fn embedded_over_http() {
    let server = Embedded::start();
    in_runtime(async {
        fulfils_the_contract(&Subject::over_http(ALL, &server.reach).await).await;
    });
}

#[test]
fn on_moto() {
    let server = moto();
    let can = Can {
        known_copies: false,
        late_conditions: false,
        verify: false,
        crc64: false,
        upload_state: false,
        ..ALL
    };
    in_runtime(async {
        fulfils_the_contract(&Subject::over_http(can, &server.reach).await).await;
    });
}

#[test]
fn on_garage() {
    let server = garage();
    let can =
        Can { conditions: false, late_conditions: false, tags: false, key_max_bytes: 480, ..ALL };
    in_runtime(async {
        fulfils_the_contract(&Subject::over_http(can, &server.reach).await).await;
    });
}

const META: Meta = Meta {
    mtime: Some(Timestamp { secs: 1_598_548_803, nanos: 846_034_345 }),
    mode: Some(0o100_644),
    uid: Some(1_000),
    gid: Some(0),
};

fn key(name: &str) -> Key {
    Key::literal(name)
}

fn put(name: &str, body: &[u8]) -> Put {
    Put {
        key: key(name),
        body: Bytes::copy_from_slice(body),
        md5: Md5::of(body),
        crc64: Crc64::of(body),
        meta: META,
        condition: Condition::None,
    }
}

/// Writes a small object; answers with its ETag.
async fn write(store: &dyn ObjectStore, name: &str, body: &[u8]) -> ETag {
    let stored = store.put(put(name, body)).await.unwrap();
    assert_eq!((stored.etag.as_str(), stored.is_md5), (&*Md5::of(body).to_string(), true));
    stored.etag
}

async fn head(store: &dyn ObjectStore, name: &str) -> Option<ObjectHead> {
    store.head(&key(name)).await.unwrap()
}

/// All keys, page by page.
async fn keys(store: &dyn ObjectStore) -> Vec<String> {
    let mut keys: Vec<String> = vec![];
    let mut after: Option<Key> = None;
    loop {
        let page = store.list(after.as_ref()).await.unwrap();
        keys.extend(page.objects.iter().map(|(key, _)| key.as_str().to_owned()));
        assert!(page.more_after.is_none() || page.more_after > after, "it goes on");
        after = page.more_after;
        if after.is_none() {
            return keys;
        }
    }
}

/// The class of a failure.
fn class<T: std::fmt::Debug>(result: Result<T, StoreError>) -> ErrorClass {
    match result {
        Err(StoreError::Failed(failure) | StoreError::NoSuchBucket(failure)) => failure.class,
        other => panic!("{other:?}"),
    }
}
