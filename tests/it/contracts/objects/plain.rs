//! Whole objects: put, looked at, read, listed, deleted.

use keepwatch::model::{Md5, Meta};
use keepwatch::plan::ErrorClass;
use keepwatch::ports::{ObjectStore, Put, RequestCounts, SmallObject, StoreError};

use super::*;

pub async fn what_was_put_is_there(can: Can, store: &dyn ObjectStore) {
    for (name, body) in
        [("a", &b"hello"[..]), ("empty", b""), ("folder/", b""), ("b/c", &[7; 70_000])]
    {
        let etag = write(store, name, body).await;
        let head = head(store, name).await.unwrap();
        assert_eq!((head.meta, head.object.size_bytes), (META, body.len() as u64), "{name}");
        assert_eq!((&head.object.etag, head.object.archived), (&etag, false));
        assert_eq!(head.crc64.is_some(), can.crc64);
        assert!(head.crc64.is_none_or(|crc64| crc64 == Crc64::of(body)));
        let body = Bytes::copy_from_slice(body);
        let found = store.get_small(&key(name), None).await.unwrap();
        assert_eq!(found, SmallObject::Found { body, etag });
        let page = store.list(None).await.unwrap();
        let listed = page.objects.into_iter().find(|(key, _)| key.as_str() == name).unwrap().1;
        assert_eq!((listed.size_bytes, listed.etag), (head.object.size_bytes, head.object.etag));
        assert_eq!(listed.modified.0 / 1000, head.object.modified.0 / 1000);
    }
    let bare = Put { meta: Meta::default(), ..put("bare", b"x") };
    store.put(bare).await.unwrap();
    assert_eq!(head(store, "bare").await.unwrap().meta, Meta::default());
    // The newest wins.
    write(store, "a", b"again").await;
    assert_eq!(head(store, "a").await.unwrap().object.etag.as_str(), Md5::of(b"again").to_string());
}

pub async fn what_is_not_there_is_absent(_: Can, store: &dyn ObjectStore) {
    write(store, "a/b", b"x").await;
    for name in ["a", "a/", "a/b/", "a/b/c", "b"] {
        assert_eq!(head(store, name).await, None, "{name}");
        let found = store.get_small(&key(name), None).await.unwrap();
        assert_eq!(found, SmallObject::Absent, "{name}");
    }
}

pub async fn an_unchanged_object_is_not_sent_again(_: Can, store: &dyn ObjectStore) {
    let etag = write(store, "a", b"one").await;
    let found = store.get_small(&key("a"), Some(&etag)).await.unwrap();
    assert_eq!(found, SmallObject::Unchanged);
    write(store, "a", b"two").await;
    let found = store.get_small(&key("a"), Some(&etag)).await.unwrap();
    assert!(matches!(found, SmallObject::Found { body, .. } if &body[..] == b"two"));
    let absent = store.get_small(&key("b"), Some(&etag)).await.unwrap();
    assert_eq!(absent, SmallObject::Absent);
}

pub async fn every_kind_of_name(can: Can, store: &dyn ObjectStore) {
    // Whatever the prefix takes away.
    let long = "l".repeat(can.key_max_bytes - 60);
    let mut names = vec![
        " leading",
        "trailing ",
        "two  spaces",
        "a",
        "a-b",
        "a/",
        "a/b",
        "a/b/c",
        "a0",
        "A",
        "plus+plus",
        "percent%20",
        "percent%",
        "%2B",
        "question?",
        "hash#",
        "amp&<>",
        "quote\"'`",
        "back\\slash",
        "semi;colon:",
        "at@=",
        "(par)",
        "{br}[ac]",
        "~!*",
        "$dollar",
        "a,b",
        "|^",
        "\u{e9}",
        "e\u{301}",
        "\u{1f600}",
        "\u{4e2d}\u{6587}",
        "\u{201b}FF",
        "\u{240a}",
        "\u{fffd}",
        "\u{ffff}",
        "\u{10000}",
        "..a",
        ".hidden",
        "a..",
        "x/.y/..z",
        &long,
    ];
    for name in &names {
        let etag = write(store, name, name.as_bytes()).await;
        assert_eq!(head(store, name).await.unwrap().object.etag, etag, "{name:?}");
    }
    names.sort_by_key(|name| name.as_bytes());
    assert_eq!(keys(store).await, names, "in the order of their bytes");
    for name in &names {
        let found = store.get_small(&key(name), None).await.unwrap();
        assert!(
            matches!(found, SmallObject::Found { body, .. } if body == name.as_bytes()),
            "{name:?}"
        );
    }
    let items: Vec<_> = names.iter().map(|name| (key(name), None)).collect();
    let deleted = store.delete(&items).await.unwrap();
    assert!(deleted.len() == names.len() && deleted.iter().all(Result::is_ok), "{deleted:?}");
    assert_eq!(keys(store).await, [""; 0]);
}

pub async fn listings_go_on_after_any_key(_: Can, store: &dyn ObjectStore) {
    for name in ["a", "a-b", "a/", "a/b", "b"] {
        write(store, name, b"x").await;
    }
    let after = async |name: &str| {
        let page = store.list(Some(&key(name))).await.unwrap();
        page.objects.first().map(|(key, _)| key.as_str().to_owned())
    };
    for (name, next) in [("a", "a-b"), ("a-b", "a/"), ("a/", "a/b"), ("a0", "b"), ("A", "a")] {
        assert_eq!(after(name).await.as_deref(), Some(next), "after {name}");
    }
    assert_eq!(after("b").await, None);
}

pub async fn long_listings_have_pages(_: Can, store: &dyn ObjectStore) {
    use futures_util::StreamExt as _;
    let names: Vec<String> = (0..1_003).map(|n| format!("{n:04}")).collect();
    let puts = names.iter().map(|name| store.put(put(name, b"")));
    let puts = futures_util::stream::iter(puts).buffer_unordered(16);
    assert!(puts.all(async |stored| stored.is_ok()).await);
    let first = store.list(None).await.unwrap();
    assert!((1..1_003).contains(&first.objects.len()), "{}", first.objects.len());
    assert_eq!(keys(store).await, names);
    let items: Vec<_> = names[..1_000].iter().map(|name| (key(name), None)).collect();
    assert_eq!(store.delete(&items).await.unwrap().len(), 1_000);
    assert_eq!(keys(store).await, names[1_000..]);
}

pub async fn the_destinations_own_records_are_not_listed(_: Can, store: &dyn ObjectStore) {
    for name in [".keepwatch/owner.json", ".keepwatch-not", ".keep", "a/.keepwatch/b"] {
        write(store, name, b"x").await;
    }
    assert_eq!(keys(store).await, [".keep", ".keepwatch-not", "a/.keepwatch/b"]);
    assert!(head(store, ".keepwatch/owner.json").await.is_some());
}

pub async fn deletions_answer_for_each_key(_: Can, store: &dyn ObjectStore) {
    for name in ["a", "b", "c"] {
        write(store, name, b"x").await;
    }
    let items = ["c", "not-there", "a"].map(|name| (key(name), None));
    let results = store.delete(&items).await.unwrap();
    assert_eq!(results, vec![Ok(()); 3], "what is not there is deleted");
    assert_eq!(keys(store).await, ["b"]);
}

pub async fn requests_are_counted(_: Can, store: &dyn ObjectStore) {
    let etag = write(store, "a", b"x").await;
    write(store, "b", b"x").await;
    head(store, "a").await;
    store.get_small(&key("a"), None).await.unwrap();
    store.list(None).await.unwrap();
    store.retouch(&key("a"), &etag, &META).await.unwrap();
    let id = store.create_upload(&key("m"), &META).await.unwrap();
    store.list_uploads(&key("m")).await.unwrap();
    store.abort_upload(&key("m"), &id).await.unwrap();
    store.delete(&[(key("a"), None), (key("b"), None)]).await.unwrap();
    let wanted = RequestCounts {
        put: 2,
        head: 1,
        get: 1,
        list: 1,
        copy: 1,
        delete: 1,
        multipart: 3,
        other: 0,
    };
    assert_eq!(store.requests(), wanted);
}

/// Only of servers that have buckets.
pub async fn without_a_bucket(store: &dyn ObjectStore) {
    fn told<T: std::fmt::Debug>(result: Result<T, StoreError>) {
        assert!(matches!(&result, Err(StoreError::NoSuchBucket(_))), "{result:?}");
        assert_eq!(class(result), ErrorClass::Configuration);
    }
    told(store.put(put("a", b"x")).await);
    told(store.get_small(&key("a"), None).await);
    told(store.list(None).await);
    told(store.delete(&[(key("a"), None)]).await);
    told(store.create_upload(&key("a"), &META).await);
}
