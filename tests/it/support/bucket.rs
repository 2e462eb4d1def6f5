//! A look into a bucket with a client of its own, apart from keepwatch's adapter.

use std::collections::BTreeMap;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Credentials, Region};
use aws_sdk_s3::types::EncodingType;

use super::server::Reach;

/// An object as a stranger sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub body: Vec<u8>,
    pub meta: BTreeMap<String, String>,
    pub etag: String,
}

/// A bucket of a server.
pub struct Bucket {
    runtime: tokio::runtime::Runtime,
    pub client: Client,
    pub name: String,
}

impl Bucket {
    /// Makes the bucket.
    pub fn create(reach: &Reach, name: &str) -> Self {
        let bucket = Self::open(reach, name);
        bucket.run(bucket.client.create_bucket().bucket(name).send()).unwrap();
        bucket
    }

    pub fn open(reach: &Reach, name: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let keys = Credentials::new(&reach.access_key, &reach.secret_key, None, None, "test");
        let config = aws_sdk_s3::Config::builder()
            .behavior_version_latest()
            .endpoint_url(&reach.endpoint)
            .region(Region::new(reach.region.clone()))
            .credentials_provider(keys)
            .force_path_style(true)
            .build();
        Self { runtime, client: Client::from_conf(config), name: name.to_owned() }
    }

    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// All keys in order, the owner record included.
    pub fn keys(&self) -> Vec<String> {
        self.run(async {
            let pages = self.client.list_objects_v2().bucket(&self.name);
            let mut pages = pages.encoding_type(EncodingType::Url).into_paginator().send();
            let mut keys = vec![];
            while let Some(page) = pages.next().await {
                for object in page.unwrap().contents() {
                    let key = object.key().unwrap().replace('+', " ");
                    let key = percent_encoding::percent_decode_str(&key);
                    keys.push(key.decode_utf8().unwrap().into_owned());
                }
            }
            keys
        })
    }

    /// All objects but the owner records, and what is deleted while they are read.
    pub fn objects(&self) -> BTreeMap<String, Seen> {
        let keys = self.keys().into_iter().filter(|key| !key.contains(".keepwatch/"));
        keys.filter_map(|key| Some((key.clone(), self.get(&key)?))).collect()
    }

    /// Size and ETag of every object but the owner records, as a listing has them.
    pub fn listed(&self) -> BTreeMap<String, (u64, String)> {
        let mut listed = BTreeMap::new();
        self.run(async {
            let pages = self.client.list_objects_v2().bucket(&self.name);
            let mut pages = pages.into_paginator().send();
            while let Some(page) = pages.next().await {
                for object in page.unwrap().contents() {
                    let etag = object.e_tag().unwrap().trim_matches('"').to_owned();
                    let size = u64::try_from(object.size().unwrap()).unwrap();
                    listed.insert(object.key().unwrap().to_owned(), (size, etag));
                }
            }
        });
        listed.retain(|key, _| !key.contains(".keepwatch/"));
        listed
    }

    pub fn get(&self, key: &str) -> Option<Seen> {
        self.run(async {
            let reply = self.client.get_object().bucket(&self.name).key(key).send().await.ok()?;
            let meta = reply.metadata().cloned().unwrap_or_default().into_iter().collect();
            let etag = reply.e_tag().unwrap().trim_matches('"').to_owned();
            let body = reply.body.collect().await.unwrap().to_vec();
            Some(Seen { body, meta, etag })
        })
    }

    pub fn put(&self, key: &str, body: &[u8]) {
        let put = self.client.put_object().bucket(&self.name).key(key);
        self.run(put.body(body.to_vec().into()).send()).unwrap();
    }

    pub fn delete(&self, key: &str) {
        self.run(self.client.delete_object().bucket(&self.name).key(key).send()).unwrap();
    }

    /// Keys of open multipart uploads.
    pub fn open_uploads(&self) -> Vec<String> {
        let reply =
            self.run(self.client.list_multipart_uploads().bucket(&self.name).send()).unwrap();
        reply.uploads().iter().map(|upload| upload.key().unwrap().to_owned()).collect()
    }

    /// Their ids.
    pub fn open_ids(&self) -> Vec<String> {
        let listed = self.run(self.client.list_multipart_uploads().bucket(&self.name).send());
        let listed = listed.unwrap();
        listed.uploads().iter().map(|upload| upload.upload_id().unwrap().to_owned()).collect()
    }
}
