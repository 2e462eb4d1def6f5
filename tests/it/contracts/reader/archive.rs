//! Objects in archive classes.

use aws_sdk_s3::types::StorageClass;
use keepwatch::ports::{Thaw, ThawReply, Tier};

use super::*;

pub async fn archived_objects_are_read_when_they_are_thawed(subject: &Subject) {
    let reader = subject.reader("cold");
    subject.put("cold/warm", b"warm").send().await.unwrap();
    let gone = reader.thaw(&current("none"), Tier::Standard, 1).await;
    if !subject.can.archive {
        assert!(matches!(gone, Err(StoreError::Unsupported(_))), "{gone:?}");
        return;
    }
    assert_eq!(gone, Ok(ThawReply::Gone));
    let warm = reader.thaw(&current("warm"), Tier::Standard, 1).await;
    assert_eq!(warm, Ok(ThawReply::NotArchived));

    let put = subject.put("cold/a", b"cold").storage_class(StorageClass::DeepArchive);
    put.send().await.unwrap();
    let id = ObjectId { etag: Some(etag_of(b"cold")), ..current("a") };
    let head = found(ObjectReader::head(&reader, &id).await);
    assert_eq!((head.object.archived, head.thaw), (true, Some(Thaw::Frozen)));
    let listed = all(&reader).await.remove(0);
    assert!(listed.object.archived);
    assert!(matches!(listed.thaw, None | Some(Thaw::Frozen)), "{listed:?}");
    assert_eq!(outcome(reader.read(&id, None).await), Ok(Fetched::Archived));
    assert_eq!(outcome(reader.read(&id, Some(0..2)).await), Ok(Fetched::Archived));

    if subject.can.slow_thaws {
        match reader.thaw(&id, Tier::Expedited, 1).await {
            Err(StoreError::Failed(failure)) => {
                assert_eq!(failure.hint.as_deref(), Some("use --tier standard"));
            }
            other => panic!("deep archives have no fast lane: {other:?}"),
        }
    }
    assert_eq!(reader.thaw(&id, Tier::Bulk, 2).await, Ok(ThawReply::Requested));
    let again = reader.thaw(&id, Tier::Bulk, 2).await;
    assert!(matches!(again, Ok(ThawReply::Ongoing | ThawReply::Thawed)), "{again:?}");
    loop {
        let head = found(ObjectReader::head(&reader, &id).await);
        assert!(head.object.archived);
        match head.thaw {
            Some(Thaw::Thawed) => break,
            Some(Thaw::Ongoing) => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(content(&reader, &id).await, b"cold");
    assert_eq!(reader.thaw(&id, Tier::Bulk, 2).await, Ok(ThawReply::Thawed));
    if subject.can.slow_thaws {
        assert_eq!(all(&reader).await.remove(0).thaw, Some(Thaw::Thawed));
    }
}

/// Before any case switches versions on.
pub async fn a_bucket_without_versions(subject: &Subject) {
    let reader = subject.reader("unversioned");
    assert_eq!(reader.keeps_versions().await, Ok(false));
    if subject.can.versions {
        subject.put("unversioned/a", b"x").send().await.unwrap();
        let page = reader.list_versions(None).await.unwrap();
        let [only] = &page.versions[..] else { panic!("{page:?}") };
        assert_eq!((only.version.as_str(), only.latest), ("null", true));
        let id = ObjectId { version: Some(only.version.clone()), ..current("a") };
        assert_eq!(content(&reader, &id).await, b"x");
    }
}
