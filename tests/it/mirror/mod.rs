//! Buckets backed up to buckets: runs of `mirror`, `verify`, and `restore` into a bucket.

mod back;
mod between;
mod boto;
mod choices;
mod daemon;
mod faults;
mod gone;
mod large;
mod leftovers;
mod marks;
mod places;
mod runs;
mod tags;
mod verify;

use std::collections::BTreeMap;

use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::types::{BucketVersioningStatus, ChecksumMode, VersioningConfiguration};

use crate::support::bucket::Bucket;
use crate::support::program::{Said, User};
use crate::support::server::Reach;

/// Two buckets of one server, and a user.
struct Pair {
    source: Bucket,
    copies: Bucket,
    user: User,
}

impl Pair {
    fn new(reach: &Reach) -> Self {
        Self {
            source: Bucket::create(reach, "source"),
            copies: Bucket::create(reach, "copies"),
            user: User::of(reach),
        }
    }

    /// A run of `mirror`; it must end with this code.
    fn mirror(&self, more: &[&str], code: i32) -> Said {
        let args = [&["mirror", "s3://source", "s3://copies", "--json"], more].concat();
        let said = self.user.run(&args);
        assert_eq!(said.code, code, "{args:?}: {said:?}");
        said
    }

    /// A second run has nothing to do.
    fn is_settled(&self, more: &[&str]) {
        let said = self.mirror(more, 0);
        for number in ["copied", "tagged", "untagged", "deleted", "failed", "adopted"] {
            assert_eq!(said.number(number), 0, "{number}: {said:?}");
        }
        for requests in ["requests.copy", "requests.head", "requests.put", "requests.multipart"] {
            assert_eq!(said.number(requests), 0, "{requests}: {said:?}");
        }
    }

    /// All that is kept of every object is the same on both sides.
    fn is_kept(&self) {
        let (source, copies) = (whole(&self.source), whole(&self.copies));
        let keys = |all: &BTreeMap<String, Whole>| all.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&source), keys(&copies));
        for (key, object) in &source {
            assert_eq!(object, &copies[key], "{key}");
        }
    }

    fn tags(&self, key: &str) -> BTreeMap<String, String> {
        tags(&self.copies, key)
    }
}

/// All that a copy keeps, as a client of its own sees it.
#[derive(Debug, PartialEq, Eq)]
struct Whole {
    body: Vec<u8>,
    headers: Vec<Option<String>>,
    metadata: BTreeMap<String, String>,
    tags: BTreeMap<String, String>,
    /// As the server writes it, beside its algorithm.
    checksum: Option<(&'static str, String)>,
}

fn whole(bucket: &Bucket) -> BTreeMap<String, Whole> {
    let keys = bucket.keys().into_iter().filter(|key| !key.starts_with(".keepwatch/"));
    keys.map(|key| (key.clone(), whole_of(bucket, &key))).collect()
}

fn whole_of(bucket: &Bucket, key: &str) -> Whole {
    let reply = bucket.run(bucket.client.get_object().bucket(&bucket.name).key(key).send());
    let reply = reply.unwrap();
    let text = |value: Option<&str>| value.map(str::to_owned);
    let headers = vec![
        text(reply.content_type()),
        text(reply.cache_control()),
        text(reply.content_disposition()),
        text(reply.content_encoding()),
        text(reply.content_language()),
        text(reply.expires_string()),
        text(reply.website_redirect_location()),
        text(reply.storage_class().map(|class| class.as_str())),
    ];
    let metadata = reply.metadata().cloned().unwrap_or_default().into_iter().collect();
    let body = bucket.run(reply.body.collect()).unwrap().to_vec();
    Whole { body, headers, metadata, tags: tags(bucket, key), checksum: checksum(bucket, key) }
}

fn checksum(bucket: &Bucket, key: &str) -> Option<(&'static str, String)> {
    let asked = bucket.client.head_object().bucket(&bucket.name).key(key);
    let head = bucket.run(asked.checksum_mode(ChecksumMode::Enabled).send()).unwrap();
    let all = [
        ("CRC32", head.checksum_crc32()),
        ("CRC32C", head.checksum_crc32_c()),
        ("CRC64NVME", head.checksum_crc64_nvme()),
        ("SHA1", head.checksum_sha1()),
        ("SHA256", head.checksum_sha256()),
    ];
    all.into_iter().find_map(|(name, value)| Some((name, value?.to_owned())))
}

fn tags(bucket: &Bucket, key: &str) -> BTreeMap<String, String> {
    let asked = bucket.client.get_object_tagging().bucket(&bucket.name).key(key).send();
    let Ok(reply) = bucket.run(asked) else { return BTreeMap::new() };
    let tags = reply.tag_set().iter();
    tags.map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect()
}

/// A PUT with much beside the content.
fn rich(bucket: &Bucket, key: &str, body: &[u8]) -> PutObjectFluentBuilder {
    let put = bucket.client.put_object().bucket(&bucket.name).key(key);
    put.body(body.to_vec().into())
        .content_type("text/x-rich")
        .cache_control("no-cache")
        .content_disposition("inline")
        .content_language("fr")
        .metadata("mtime", "1598548803.5")
        .metadata("own", "word")
        .tagging("team=a&n=1")
}

fn keeps_versions(bucket: &Bucket) {
    let on = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    let asked = bucket.client.put_bucket_versioning().bucket(&bucket.name);
    bucket.run(asked.versioning_configuration(on).send()).unwrap();
}

/// Removes the delete marker of a key: it is back as it was, with its old date.
fn undelete(bucket: &Bucket, key: &str) {
    let listed = bucket.client.list_object_versions().bucket(&bucket.name).prefix(key).send();
    let listed = bucket.run(listed).unwrap();
    let marker = listed.delete_markers().iter().find(|marker| marker.key() == Some(key)).unwrap();
    let delete = bucket.client.delete_object().bucket(&bucket.name).key(key);
    bucket.run(delete.version_id(marker.version_id().unwrap()).send()).unwrap();
}
