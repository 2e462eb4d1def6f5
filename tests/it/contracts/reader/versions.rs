//! All versions of objects, and the marks of their deletions.

use aws_sdk_s3::types::{BucketVersioningStatus, StorageClass, VersioningConfiguration};
use keepwatch::ports::{ListedVersion, ThawReply, Tier, VersionMark};

use super::*;

impl Subject {
    async fn keep_versions(&self) {
        let status = BucketVersioningStatus::Enabled;
        let configuration = VersioningConfiguration::builder().status(status).build();
        let put = self.client.put_bucket_versioning().bucket(BUCKET);
        put.versioning_configuration(configuration).send().await.unwrap();
    }

    async fn delete(&self, key: &str) {
        self.client.delete_object().bucket(BUCKET).key(key).send().await.unwrap();
    }
}

/// All versions, page by page, and how many pages.
async fn all_versions(reader: &S3Store) -> (Vec<ListedVersion>, usize) {
    let (mut versions, mut pages) = (vec![], 0);
    let mut after: Option<VersionMark> = None;
    loop {
        let page = reader.list_versions(after.as_ref()).await.unwrap();
        versions.extend(page.versions);
        pages += 1;
        after = page.more_after;
        if after.is_none() {
            return (versions, pages);
        }
    }
}

fn version_of(listed: &ListedVersion) -> ObjectId {
    ObjectId {
        key: listed.key.clone(),
        version: Some(listed.version.clone()),
        etag: listed.object.as_ref().map(|object| object.etag.clone()),
    }
}

pub async fn every_version_is_listed_and_read(subject: &Subject) {
    if !subject.can.versions {
        return;
    }
    let reader = subject.reader("versions");
    // From the time before versions were kept.
    subject.put("versions/a +%\u{e9}", b"zero").send().await.unwrap();
    subject.put("versions/.keepwatch/owner.json", b"x").send().await.unwrap();
    subject.put("versions/", b"").send().await.unwrap();
    subject.keep_versions().await;
    assert_eq!(reader.keeps_versions().await, Ok(true));
    subject.put("versions/a +%\u{e9}", b"one").tagging("Deleted=True").send().await.unwrap();
    subject.put("versions/a +%\u{e9}", b"two!").send().await.unwrap();
    subject.delete("versions/a +%\u{e9}").await;
    subject.put("versions/b", b"b").send().await.unwrap();

    let (listed, _) = all_versions(&reader).await;
    let shown: Vec<(&str, Option<u64>, bool)> = listed
        .iter()
        .map(|v| (v.key.as_str(), v.object.as_ref().map(|o| o.size_bytes), v.latest))
        .collect();
    let a = "a +%\u{e9}";
    let expected = [
        (a, None, true),
        (a, Some(4), false),
        (a, Some(3), false),
        (a, Some(4), false),
        ("b", Some(1), true),
    ];
    assert_eq!(shown, expected);
    assert_eq!(listed[3].version, "null");
    for (index, body) in [(1, &b"two!"[..]), (2, b"one"), (3, b"zero")] {
        let id = version_of(&listed[index]);
        let head = found(ObjectReader::head(&reader, &id).await);
        assert_eq!(head.md5, Some(Md5::of(body)));
        assert_eq!(content(&reader, &id).await, body);
        let Ok(Fetched::Found(reading)) = reader.read(&id, Some(1..2)).await else { panic!() };
        assert_eq!(received(reading).await, (body[1..2].to_vec(), None));
        let deleted = reader.deleted_at(&id).await.unwrap();
        assert_eq!(deleted.is_some(), index == 2);
    }
    // The mark itself, and the name that it hides.
    for id in [version_of(&listed[0]), current(a)] {
        assert_eq!(ObjectReader::head(&reader, &id).await, Ok(Fetched::Gone), "{id:?}");
        assert_eq!(outcome(reader.read(&id, None).await), Ok(Fetched::Gone), "{id:?}");
        assert_eq!(reader.deleted_at(&id).await, Ok(None), "{id:?}");
    }
    // A version that was removed since.
    let id = version_of(&listed[2]);
    let delete = subject.client.delete_object().bucket(BUCKET).key(format!("versions/{a}"));
    delete.version_id(id.version.as_deref().unwrap()).send().await.unwrap();
    assert_eq!(ObjectReader::head(&reader, &id).await, Ok(Fetched::Gone));
    assert_eq!(outcome(reader.read(&id, None).await), Ok(Fetched::Gone));
}

pub async fn older_versions_are_thawed(subject: &Subject) {
    // Some servers thaw the current version whatever is asked for.
    if !subject.can.slow_thaws {
        return;
    }
    let reader = subject.reader("old");
    subject.keep_versions().await;
    let put = subject.put("old/cold", b"cold").storage_class(StorageClass::Glacier);
    put.send().await.unwrap();
    subject.put("old/cold", b"warm").send().await.unwrap();
    let (listed, _) = all_versions(&reader).await;
    let [warm, cold] = &listed[..] else { panic!("{listed:?}") };
    assert!(cold.object.as_ref().unwrap().archived);
    let thaw = async |version| reader.thaw(&version_of(version), Tier::Bulk, 1).await;
    assert_eq!(thaw(warm).await, Ok(ThawReply::NotArchived));
    assert_eq!(thaw(cold).await, Ok(ThawReply::Requested));
}

pub async fn long_listings_of_versions_have_pages(subject: &Subject) {
    if !subject.can.versions {
        return;
    }
    let reader = subject.reader("long");
    for name in ["long/a", "long/b+ %"] {
        for n in 0..520 {
            match n % 10 {
                9 => subject.delete(name).await,
                _ => {
                    subject.put(name, format!("{n}").as_bytes()).send().await.unwrap();
                }
            }
        }
    }
    let (listed, pages) = all_versions(&reader).await;
    assert_eq!((listed.len(), pages), (1_040, 2));
    for (index, version) in listed.iter().enumerate() {
        let name = if index < 520 { "a" } else { "b+ %" };
        assert_eq!((version.key.as_str(), version.latest), (name, index % 520 == 0));
    }
    let ids: std::collections::BTreeSet<&str> =
        listed.iter().map(|version| version.version.as_str()).collect();
    assert_eq!(ids.len(), 1_040, "each once");
    // Between the marks of one second the order of versions is kept.
    for half in listed.chunks(520) {
        assert!(half.is_sorted_by_key(|version| -version.modified.0 / 1000));
        let mut etags = half.iter().filter_map(|version| version.object.as_ref());
        for n in (0..520).rev().filter(|n| n % 10 != 9) {
            assert_eq!(etags.next().unwrap().etag, etag_of(format!("{n}").as_bytes()));
        }
    }
}
