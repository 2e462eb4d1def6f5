//! Listings: order, pages, prefixes, delimiters, encoding, and what they cost.

use std::collections::BTreeSet;

use aws_sdk_s3::operation::list_objects_v2::builders::ListObjectsV2FluentBuilder;
use aws_sdk_s3::types::{EncodingType, OptionalObjectAttributes};

use super::{BUCKET, Rig, assert_refused, both};
use crate::store::api::list;

/// Everything a paginated ListObjectsV2 gives: keys, common prefixes, and the number of pages.
async fn all(list: ListObjectsV2FluentBuilder) -> (Vec<String>, Vec<String>, usize) {
    let (mut keys, mut prefixes, mut pages) = (Vec::new(), Vec::new(), 0);
    let mut stream = list.into_paginator().send();
    while let Some(page) = stream.next().await {
        let page = page.unwrap();
        pages += 1;
        let count = page.contents().len() + page.common_prefixes().len();
        assert_eq!(page.key_count(), Some(count as i32));
        assert_eq!(page.is_truncated(), Some(page.next_continuation_token().is_some()));
        keys.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
        let found = page.common_prefixes().iter();
        prefixes.extend(found.map(|prefix| prefix.prefix().unwrap().to_owned()));
    }
    (keys, prefixes, pages)
}

/// What S3 should list: sorted by bytes, rolled up at the delimiter.
fn expected(keys: &[&str], prefix: &str, delimiter: &str) -> (Vec<String>, Vec<String>) {
    let (mut plain, mut rolled) = (BTreeSet::new(), BTreeSet::new());
    for key in keys.iter().filter(|key| key.starts_with(prefix)) {
        match key[prefix.len()..].find(delimiter).filter(|_| !delimiter.is_empty()) {
            Some(at) => rolled.insert(key[..prefix.len() + at + delimiter.len()].to_owned()),
            None => plain.insert((*key).to_owned()),
        };
    }
    (plain.into_iter().collect(), rolled.into_iter().collect())
}

const TREE: [&str; 17] = [
    "a",
    "a-b",
    "a.b",
    "a/1",
    "a/2",
    "a/b/3",
    "a/b/4",
    "a0",
    "b/",
    "b/x",
    "c//d",
    "c/e",
    "é/1",
    "é/2",
    "ü",
    "z/y/x",
    "\u{10000}/q",
];

#[tokio::test]
async fn every_page_size_gives_the_same_listing() {
    let rig = Rig::new().await;
    for key in TREE {
        rig.put(key, b"").await;
    }
    for (prefix, delimiter) in [
        ("", ""),
        ("", "/"),
        ("a", "/"),
        ("a/", "/"),
        ("a/b", "/"),
        ("c/", "/"),
        ("c", "//"),
        ("", "b"),
        ("é", "/"),
        ("nothing", "/"),
        ("", "1"),
    ] {
        let (keys, prefixes) = expected(&TREE, prefix, delimiter);
        for page_size in [1, 2, 3, 5, 1000] {
            let list = rig.client.list_objects_v2().bucket(BUCKET).max_keys(page_size);
            let list = list.prefix(prefix).delimiter(delimiter);
            let (found_keys, found_prefixes, pages) = all(list).await;
            assert_eq!((&found_keys, &found_prefixes), (&keys, &prefixes), "{prefix} {delimiter}");
            let entries = keys.len() + prefixes.len();
            assert_eq!(pages, entries.div_ceil(page_size as usize).max(1));
        }
    }
}

#[tokio::test]
async fn version_1_goes_on_from_the_last_entry() {
    let rig = Rig::new().await;
    for key in TREE {
        rig.put(key, b"").await;
    }
    for delimiter in ["", "/"] {
        let (keys, prefixes) = expected(&TREE, "", delimiter);
        let (mut found_keys, mut found_prefixes, mut marker) = (vec![], vec![], String::new());
        loop {
            let list = rig.client.list_objects().bucket(BUCKET).max_keys(2).marker(&marker);
            let page = list.delimiter(delimiter).send().await.unwrap();
            found_keys.extend(page.contents().iter().map(|o| o.key().unwrap().to_owned()));
            let rolled = page.common_prefixes().iter();
            found_prefixes.extend(rolled.map(|p| p.prefix().unwrap().to_owned()));
            if page.is_truncated() != Some(true) {
                break;
            }
            marker = match page.next_marker() {
                Some(next) => next.to_owned(),
                None => found_keys.last().unwrap().clone(),
            };
            assert_eq!(page.next_marker().is_some(), !delimiter.is_empty());
        }
        assert_eq!((found_keys, found_prefixes), (keys, prefixes));
    }
    // A marker inside a common prefix passes it.
    let list = rig.client.list_objects().bucket(BUCKET).delimiter("/").marker("a/1");
    let page = list.send().await.unwrap();
    assert_eq!(page.common_prefixes()[0].prefix(), Some("b/"));
}

#[tokio::test]
async fn start_after_is_where_version_2_begins() {
    let rig = Rig::new().await;
    for key in TREE {
        rig.put(key, b"").await;
    }
    let list = || rig.client.list_objects_v2().bucket(BUCKET);
    let (keys, ..) = all(list().start_after("a/2")).await;
    assert_eq!(keys[0], "a/b/3");
    let (keys, ..) = all(list().start_after("a/2x")).await;
    assert_eq!(keys[0], "a/b/3");
    let (_, prefixes, _) = all(list().start_after("a/2").delimiter("/")).await;
    assert_eq!(prefixes[0], "a/", "what comes after it is rolled up still");
    let (keys, prefixes, _) = all(list().start_after("\u{10ffff}")).await;
    assert_eq!((keys.len(), prefixes.len()), (0, 0));
}

#[tokio::test]
async fn limits_are_those_of_s3() {
    both(async |rig| {
        let list = || rig.client.list_objects_v2().bucket(BUCKET);
        let empty = list().send().await.unwrap();
        assert_eq!((empty.key_count(), empty.is_truncated()), (Some(0), Some(false)));
        assert_eq!(empty.max_keys(), Some(1000));
        rig.put("k", b"").await;
        let none = list().max_keys(0).send().await.unwrap();
        assert_eq!((none.contents().len(), none.is_truncated()), (0, Some(false)));
        assert_eq!(list().max_keys(5000).send().await.unwrap().max_keys(), Some(1000));
        assert_refused(list().max_keys(-1).send().await, 400, "InvalidArgument");
        assert_refused(list().continuation_token("%%").send().await, 400, "InvalidArgument");
        let nowhere = rig.client.list_objects_v2().bucket("nothere").send().await;
        assert_refused(nowhere, 404, "NoSuchBucket");
    })
    .await;
}

#[tokio::test]
async fn names_are_encoded_on_request() {
    both(async |rig| {
        let key = "d r/a+b%41 ü\u{1}\n";
        rig.put(key, b"").await;
        let list = rig.client.list_objects_v2().bucket(BUCKET).encoding_type(EncodingType::Url);
        let list = list.prefix("d r/").start_after("d r/+").delimiter("+ü");
        let page = list.send().await.unwrap();
        assert_eq!(page.contents()[0].key(), Some("d+r/a%2Bb%2541+%C3%BC%01%0A"));
        assert_eq!(page.prefix(), Some("d+r/"));
        assert_eq!(page.start_after(), Some("d+r/%2B"));
        assert_eq!(page.delimiter(), Some("%2B%C3%BC"));
        assert_eq!(page.encoding_type(), Some(&EncodingType::Url));
        let list = rig.client.list_objects().bucket(BUCKET).encoding_type(EncodingType::Url);
        let page = list.delimiter("+").send().await.unwrap();
        assert_eq!(page.common_prefixes()[0].prefix(), Some("d+r/a%2B"));
    })
    .await;
}

#[tokio::test]
async fn objects_are_listed_with_what_s3_says_of_them() {
    let rig = Rig::new().await;
    let etag = rig.put("k", b"body").await;
    let list = || rig.client.list_objects_v2().bucket(BUCKET);
    let page = list().send().await.unwrap();
    let object = &page.contents()[0];
    assert_eq!(object.e_tag(), Some(etag.as_str()));
    assert_eq!(object.size(), Some(4));
    assert_eq!(object.checksum_algorithm()[0].as_str(), "CRC64NVME");
    assert_eq!(object.checksum_type().unwrap().as_str(), "FULL_OBJECT");
    assert!(object.owner().is_none());
    assert!(object.restore_status().is_none());
    let page = list().fetch_owner(true).send().await.unwrap();
    assert_eq!(page.contents()[0].owner().unwrap().id(), Some("000000000000"));
    let v1 = rig.client.list_objects().bucket(BUCKET).send().await.unwrap();
    assert!(v1.contents()[0].owner().is_some());
    let page = list().optional_object_attributes(OptionalObjectAttributes::RestoreStatus);
    let page = page.send().await.unwrap();
    assert!(page.contents()[0].restore_status().is_none(), "never restored");
}

/// The rows a page looks at.
async fn visited(rig: &Rig, prefix: &str, delimiter: &str, behind: &str, limit: usize) -> usize {
    let query = list::query(Some(prefix), Some(delimiter), Some(behind), limit);
    let page = rig.store.read(move |conn| list::objects(conn, BUCKET, &query)).await.unwrap();
    page.visited
}

#[tokio::test]
async fn a_listing_looks_at_each_row_once_and_at_a_common_prefix_once() {
    let rig = Rig::new().await;
    for folder in 0..4 {
        for file in 0..50 {
            rig.put(&format!("d{folder}/{file:02}"), b"").await;
        }
    }
    rig.put("e", b"").await;
    assert_eq!(visited(&rig, "", "", "", 1000).await, 201);
    // Four prefixes and a key: one row each, not two hundred.
    assert_eq!(visited(&rig, "", "/", "", 1000).await, 5);
    // A page costs its entries and one more to see that there are more, wherever it begins.
    assert_eq!(visited(&rig, "", "", "", 10).await, 11);
    assert_eq!(visited(&rig, "", "", "d2/30", 10).await, 11);
    assert_eq!(visited(&rig, "", "/", "", 2).await, 3);
    // The row behind a prefix ends the walk.
    assert_eq!(visited(&rig, "d1/", "", "", 1000).await, 51);
    assert_eq!(visited(&rig, "d3/4", "/", "", 1000).await, 11);
}

#[tokio::test]
async fn old_versions_and_delete_markers_cost_a_listing_nothing() {
    let rig = Rig::new().await;
    rig.enable_versions().await;
    for _ in 0..20 {
        rig.put("a", b"x").await;
        rig.put("b", b"x").await;
        rig.client.delete_object().bucket(BUCKET).key("b").send().await.unwrap();
    }
    rig.put("c", b"x").await;
    assert_eq!(rig.keys().await, ["a", "c"]);
    assert_eq!(visited(&rig, "", "", "", 1000).await, 2);
}

/// SQLite seeks: no plan of the walk may scan a table or sort.
#[tokio::test]
async fn the_index_is_used_for_order_and_for_every_seek() {
    let rig = Rig::new().await;
    for sql in list::statements() {
        let sql = format!("EXPLAIN QUERY PLAN {sql}");
        let plan = rig.store.read(move |conn| {
            let mut statement = conn.prepare(&sql)?;
            let rows = statement.query_map((1, b"", 0), |row| row.get::<_, String>(3))?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?.join("; "))
        });
        let plan = plan.await.unwrap();
        assert!(plan.starts_with("SEARCH"), "{plan}");
        assert!(plan.contains("bucket=? AND") && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}
