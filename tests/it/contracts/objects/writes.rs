//! Writes that the server checks: digests, conditions, new metadata, tags.

use keepwatch::model::{Millis, Timestamp};
use keepwatch::ports::Stored;

use super::*;

const OTHER: Meta = Meta {
    mtime: Some(Timestamp { secs: -1, nanos: 5 }),
    mode: Some(0o104_755),
    uid: Some(0),
    gid: Some(u32::MAX),
};

async fn put_if(
    store: &dyn ObjectStore,
    name: &str,
    body: &[u8],
    condition: Condition,
) -> Result<Stored, StoreError> {
    store.put(Put { condition, ..put(name, body) }).await
}

async fn has(store: &dyn ObjectStore, name: &str, body: &[u8]) -> bool {
    let etag = Md5::of(body).to_string();
    head(store, name).await.is_some_and(|head| head.object.etag.as_str() == etag)
}

/// Of two versions of one millisecond Garage may keep the older one.
async fn a_moment_later() {
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
}

pub async fn a_damaged_body_is_refused(can: Can, store: &dyn ObjectStore) {
    if !can.verify {
        return;
    }
    write(store, "a", b"good").await;
    for (md5, crc64) in [(&b"other"[..], &b"body"[..]), (b"body", b"other")] {
        for name in ["a", "new"] {
            let (md5, crc64) = (Md5::of(md5), Crc64::of(crc64));
            let result = store.put(Put { md5, crc64, ..put(name, b"body") }).await;
            assert_eq!(class(result), ErrorClass::Server);
        }
    }
    assert!(has(store, "a", b"good").await);
    assert_eq!(keys(store).await, ["a"]);
}

pub async fn only_where_nothing_is(can: Can, store: &dyn ObjectStore) {
    assert!(put_if(store, "a", b"first", Condition::Absent).await.is_ok());
    let second = put_if(store, "a", b"second", Condition::Absent).await;
    if can.conditions {
        assert_eq!(second, Err(StoreError::Precondition));
    }
    assert!(has(store, "a", if can.conditions { b"first" } else { b"second" }).await);
    store.delete(&[(key("a"), None)]).await.unwrap();
    assert!(put_if(store, "a", b"third", Condition::Absent).await.is_ok());
}

pub async fn only_over_the_object_that_is_known(can: Can, store: &dyn ObjectStore) {
    let first = write(store, "a", b"first").await;
    let over_first = || Condition::Match(first.clone());
    assert!(put_if(store, "a", b"second", over_first()).await.is_ok());
    let third = put_if(store, "a", b"third", over_first()).await;
    let absent = put_if(store, "absent", b"x", over_first()).await;
    if can.conditions {
        assert_eq!(third, Err(StoreError::Precondition));
        assert_eq!(absent, Err(StoreError::Precondition));
        assert!(has(store, "a", b"second").await);
        assert_eq!(head(store, "absent").await, None);
    }
}

pub async fn deletions_of_known_objects_only(can: Can, store: &dyn ObjectStore) {
    let known = write(store, "a", b"known").await;
    write(store, "b", b"known").await;
    write(store, "b", b"somebody else's").await;
    let items = ["a", "b", "absent"].map(|name| (key(name), Some(known.clone())));
    let results = store.delete(&items).await.unwrap();
    if can.late_conditions {
        assert_eq!(results, [Ok(()), Err(StoreError::Precondition), Ok(())]);
        assert_eq!(keys(store).await, ["b"]);
    }
}

pub async fn new_metadata_without_the_bytes(_: Can, store: &dyn ObjectStore) {
    for name in ["a", "sp ace/+%2B", "\u{e9}\u{1f600}/?&", "empty"] {
        let body = if name == "empty" { &b""[..] } else { name.as_bytes() };
        let etag = write(store, name, body).await;
        a_moment_later().await;
        let new = store.retouch(&key(name), &etag, &OTHER).await.unwrap();
        let found = head(store, name).await.unwrap();
        assert_eq!((found.meta, &found.object.etag), (OTHER, &new), "{name}");
        assert!(has(store, name, body).await, "the content is the same, and so is its MD5");
        a_moment_later().await;
        store.retouch(&key(name), &new, &Meta::default()).await.unwrap();
        assert_eq!(head(store, name).await.unwrap().meta, Meta::default());
    }
}

pub async fn new_metadata_for_the_known_object_only(can: Can, store: &dyn ObjectStore) {
    let known = write(store, "a", b"known").await;
    write(store, "a", b"somebody else's").await;
    let absent = store.retouch(&key("absent"), &known, &OTHER).await;
    assert_eq!(absent, Err(StoreError::Precondition));
    let replaced = store.retouch(&key("a"), &known, &OTHER).await;
    if can.known_copies {
        assert_eq!(replaced, Err(StoreError::Precondition));
        assert_eq!(head(store, "a").await.unwrap().meta, META);
    }
    assert_eq!(keys(store).await, ["a"]);
}

pub async fn tags_instead_of_deletions(can: Can, store: &dyn ObjectStore) {
    write(store, "a", b"x").await;
    let tagged = store.tag_deleted(&key("a"), Millis(1_790_000_000_000)).await;
    if !can.tags {
        assert!(matches!(tagged, Err(StoreError::Unsupported(_))), "{tagged:?}");
        return;
    }
    tagged.unwrap();
    store.tag_deleted(&key("a"), Millis(0)).await.unwrap();
    assert!(has(store, "a", b"x").await);
    assert_eq!(head(store, "a").await.unwrap().meta, META);
    assert_eq!(head(store, "a").await.unwrap().tags, Some(2));
    assert_eq!(store.untag_deleted(&key("a")).await, Ok(true));
    assert_eq!(store.untag_deleted(&key("a")).await, Ok(false));
    // Not every server says that there are none.
    assert_eq!(head(store, "a").await.unwrap().tags.unwrap_or(0), 0);
    // As a deletion of what is not there.
    store.tag_deleted(&key("absent"), Millis(0)).await.unwrap();
    assert_eq!(store.untag_deleted(&key("absent")).await, Ok(false));
    assert_eq!(keys(store).await, ["a"]);
}
