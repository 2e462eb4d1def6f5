//! What a request costs. Prints; run it with
//! `cargo test --release store::tests::speed -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use futures_util::StreamExt as _;
use futures_util::stream::iter;

use super::{BUCKET, Store, config, in_process, noise, on_loopback};
use crate::store::StoreOptions;

const IN_FLIGHT: usize = 16;

/// User and system time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(12) + ticks(13)) * 10)
}

fn report(what: &str, count: u32, begun: (Instant, Duration)) {
    let (wall, cpu) = (begun.0.elapsed(), cpu() - begun.1);
    let rate = f64::from(count) / wall.as_secs_f64();
    println!(
        "{what:44} {rate:8.0}/s  {:6.0} us CPU each",
        cpu.as_secs_f64() * 1e6 / f64::from(count)
    );
}

async fn puts(client: &Client, prefix: &str, count: u32) {
    let body = noise(1, 4096);
    let put = |n: u32| {
        let put = client.put_object().bucket(BUCKET).key(format!("{prefix}/{}/{n}", n % 100));
        let put = put.body(ByteStream::from(body.clone())).customize().disable_payload_signing();
        async move { put.send().await.unwrap() }
    };
    iter(0..count).map(put).buffer_unordered(IN_FLIGHT).for_each(async |_| {}).await;
}

async fn gets(client: &Client, prefix: &str, count: u32) {
    let get = |n: u32| {
        let get = client.get_object().bucket(BUCKET).key(format!("{prefix}/{}/{n}", n % 100));
        async move { get.send().await.unwrap().body.collect().await.unwrap() }
    };
    iter(0..count).map(get).buffer_unordered(IN_FLIGHT).for_each(async |_| {}).await;
}

async fn small_objects(client: &Client, label: &str, prefix: &str, count: u32) {
    let begun = (Instant::now(), cpu());
    puts(client, prefix, count).await;
    report(&format!("{label}: PUT 4 KiB, {IN_FLIGHT} in flight"), count, begun);
    let begun = (Instant::now(), cpu());
    puts(client, prefix, count).await;
    report(&format!("{label}: overwrite"), count, begun);
    let begun = (Instant::now(), cpu());
    gets(client, prefix, count).await;
    report(&format!("{label}: GET"), count, begun);
    let begun = (Instant::now(), cpu());
    for _ in 0..count / 10 {
        let head = client.head_object().bucket(BUCKET).key(format!("{prefix}/0/0"));
        head.send().await.unwrap();
    }
    report(&format!("{label}: HEAD, one by one"), count / 10, begun);
    let begun = (Instant::now(), cpu());
    let mut pages = client.list_objects_v2().bucket(BUCKET).prefix(prefix).into_paginator().send();
    let mut listed = 0;
    while let Some(page) = pages.next().await {
        listed += page.unwrap().contents().len() as u32;
    }
    assert_eq!(listed, count);
    report(&format!("{label}: keys listed"), listed, begun);
}

async fn large_object(client: &Client, label: &str) {
    const SIZE: usize = 512 << 20;
    let body = bytes::Bytes::from(noise(2, SIZE));
    let begun = (Instant::now(), cpu());
    let put = client.put_object().bucket(BUCKET).key("large").body(body.clone().into());
    put.customize().disable_payload_signing().send().await.unwrap();
    report(&format!("{label}: PUT 512 MiB, MiB"), 512, begun);
    let begun = (Instant::now(), cpu());
    let mut answer = client.get_object().bucket(BUCKET).key("large").send().await.unwrap();
    let mut read = 0;
    while let Some(chunk) = answer.body.next().await {
        read += chunk.unwrap().len();
    }
    assert_eq!(read, SIZE);
    report(&format!("{label}: GET 512 MiB, MiB"), 512, begun);
}

async fn multipart(client: &Client, label: &str) {
    const PART: usize = 16 << 20;
    let body = bytes::Bytes::from(noise(3, PART));
    let create = client.create_multipart_upload().bucket(BUCKET).key("parts").send().await.unwrap();
    let id = create.upload_id().unwrap();
    let begun = (Instant::now(), cpu());
    let upload = |number: i32| {
        let part = client.upload_part().bucket(BUCKET).key("parts").upload_id(id);
        let part = part.part_number(number).body(body.clone().into()).customize();
        async move {
            let etag = part.disable_payload_signing().send().await.unwrap().e_tag.unwrap();
            CompletedPart::builder().part_number(number).e_tag(etag).build()
        }
    };
    let parts = iter(1..=32).map(upload).buffered(4).collect().await;
    report(&format!("{label}: 32 parts of 16 MiB, MiB"), 512, begun);
    let begun = (Instant::now(), cpu());
    let list = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    let complete = client.complete_multipart_upload().bucket(BUCKET).key("parts");
    complete.upload_id(id).multipart_upload(list).send().await.unwrap();
    report(&format!("{label}: complete, MiB"), 512, begun);
}

#[tokio::test]
#[ignore = "measures, and takes its time"]
async fn requests_per_second() {
    for sync in [false, true] {
        let folder = tempfile::tempdir_in(".").unwrap();
        let options = StoreOptions { sync, ..StoreOptions::default() };
        let store = Store::open(folder.path(), options).unwrap();
        let client = Client::from_conf(in_process(&store).build());
        client.create_bucket().bucket(BUCKET).send().await.unwrap();
        let label = format!("in process, sync={sync}");
        small_objects(&client, &label, "p", 20_000).await;
        let socket = Client::from_conf(config(&on_loopback(&store).await).build());
        small_objects(&socket, &format!("loopback, sync={sync}"), "l", 20_000).await;
        large_object(&client, &label).await;
        multipart(&client, &label).await;
    }
}
