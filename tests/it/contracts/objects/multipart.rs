//! Multipart uploads: created, sent part by part, listed, completed, aborted.

use keepwatch::ports::{Complete, JournaledPart, PartDigest, PutPart, StoredPart};

use keepwatch::model::ETag;

use super::*;

/// No part but the last may be smaller.
const PART: usize = 5 * 1024 * 1024;

/// An upload under way.
struct Upload<'a> {
    store: &'a dyn ObjectStore,
    key: Key,
    id: String,
    parts: Vec<(Bytes, JournaledPart)>,
}

impl<'a> Upload<'a> {
    async fn begin(store: &'a dyn ObjectStore, name: &str) -> Self {
        // A server shows by a first PUT which checksums it knows.
        write(store, "first", b"x").await;
        let id = store.create_upload(&key(name), &META).await.unwrap();
        Self { store, key: key(name), id, parts: vec![] }
    }

    fn part(&self, number: u32, body: &Bytes) -> PutPart {
        PutPart {
            key: self.key.clone(),
            upload_id: self.id.clone(),
            number,
            body: body.clone(),
            md5: Md5::of(body),
            crc64: Crc64::of(body),
        }
    }

    async fn send(&mut self, number: u32, body: Vec<u8>) {
        let body = Bytes::from(body);
        let part = self.part(number, &body);
        let digest = PartDigest { bytes: body.len() as u64, md5: part.md5, crc64: part.crc64 };
        let stored = self.store.put_part(part).await.unwrap();
        let etag = ETag::new(&digest.md5.to_string());
        let expected = StoredPart { number, size_bytes: digest.bytes, etag, checksum: None };
        assert_eq!(stored, expected);
        self.parts.retain(|(_, known)| known.stored.number != number);
        self.parts.push((body, JournaledPart { stored, digest }));
        self.parts.sort_by_key(|(_, part)| part.stored.number);
    }

    /// Two parts, the second of one byte.
    async fn of_two(store: &'a dyn ObjectStore, name: &str) -> Self {
        let mut upload = Self::begin(store, name).await;
        upload.send(2, vec![2]).await;
        upload.send(1, vec![1; PART]).await;
        upload
    }

    fn complete(&self, condition: Condition) -> Complete {
        let digests: Vec<PartDigest> = self.parts.iter().map(|(_, part)| part.digest).collect();
        Complete {
            key: self.key.clone(),
            upload_id: self.id.clone(),
            parts: self.parts.iter().map(|(_, part)| part.clone()).collect(),
            size_bytes: digests.iter().map(|digest| digest.bytes).sum(),
            crc64: PartDigest::combine(&digests, PART as u64).1,
            condition,
        }
    }

    async fn stored_parts(&self) -> Result<Vec<StoredPart>, StoreError> {
        self.store.list_parts(&self.key, &self.id).await
    }

    /// The server's parts are these, where it can tell.
    async fn has_parts(&self, can: Can, wanted: &[StoredPart]) {
        if can.upload_state {
            assert_eq!(self.stored_parts().await.unwrap(), wanted);
        }
    }
}

pub async fn parts_become_one_object(can: Can, store: &dyn ObjectStore) {
    let upload = Upload::of_two(store, "a/sp ace+%").await;
    let wanted: Vec<StoredPart> =
        upload.parts.iter().map(|(_, part)| part.stored.clone()).collect();
    upload.has_parts(can, &wanted).await;
    assert_eq!(keys(store).await, ["first"], "nothing to see before its end");
    let complete = upload.complete(Condition::None);
    let stored = store.complete_upload(complete.clone()).await.unwrap();
    let digests: Vec<PartDigest> = upload.parts.iter().map(|(_, part)| part.digest).collect();
    let (content, crc64) = PartDigest::combine(&digests, PART as u64);
    assert_eq!((stored.etag.as_str(), stored.is_md5), (&*content.to_string(), true));
    let head = head(store, "a/sp ace+%").await.unwrap();
    assert_eq!((head.object.size_bytes, head.meta), (complete.size_bytes, META));
    assert_eq!(head.object.etag, stored.etag);
    assert!(head.crc64.is_none_or(|found| found == crc64));
    assert_eq!(head.crc64.is_some(), can.crc64);
    let size = store.first_part_size(&upload.key).await.unwrap();
    assert_eq!(size, can.part_sizes.then_some(PART as u64));
    assert_eq!(store.list_uploads(&upload.key).await.unwrap(), [""; 0]);
    let again = store.complete_upload(complete).await;
    assert!(matches!(again, Err(StoreError::NoSuchUpload) | Ok(_)), "{again:?}");
}

pub async fn parts_can_be_sent_again(can: Can, store: &dyn ObjectStore) {
    let mut upload = Upload::of_two(store, "a").await;
    upload.send(2, vec![22; 22]).await;
    let wanted: Vec<StoredPart> =
        upload.parts.iter().map(|(_, part)| part.stored.clone()).collect();
    upload.has_parts(can, &wanted).await;
    store.complete_upload(upload.complete(Condition::None)).await.unwrap();
    assert_eq!(head(store, "a").await.unwrap().object.size_bytes, PART as u64 + 22);
}

pub async fn open_uploads_of_a_key(_: Can, store: &dyn ObjectStore) {
    let first = Upload::begin(store, "a").await;
    let second = Upload::begin(store, "a").await;
    let other = Upload::begin(store, "a/b").await;
    let sorted = |mut ids: Vec<String>| {
        // How it was begun is not to be seen from outside.
        ids.iter_mut().for_each(|id| *id = id.split('/').next_back().unwrap().to_owned());
        ids.sort();
        ids
    };
    let ids = async |name: &str| sorted(store.list_uploads(&key(name)).await.unwrap());
    assert_eq!(ids("a").await, sorted(vec![first.id.clone(), second.id.clone()]));
    assert_eq!(ids("a/b").await, sorted(vec![other.id.clone()]));
    assert_eq!(ids("").await, [""; 0]);
    for id in store.list_uploads(&key("a")).await.unwrap() {
        store.abort_upload(&key("a"), &id).await.unwrap();
    }
    assert_eq!((ids("a").await.len(), ids("a/b").await.len()), (0, 1));
    store.abort_upload(&key("a/b"), &other.id).await.unwrap();
}

/// All pages of the open uploads: keys in order, and ids with nothing of how they were begun.
async fn all_open(store: &dyn ObjectStore) -> Vec<(String, String)> {
    let mut open = vec![];
    let mut after = None;
    loop {
        let page = store.list_open_uploads(after.as_ref()).await.unwrap();
        open.extend(page.uploads.into_iter().map(|upload| {
            assert!(upload.begun.0 > 0);
            let id = upload.upload_id.split('/').next_back().unwrap().to_owned();
            (upload.key.as_str().to_owned(), id)
        }));
        after = page.more_after;
        if after.is_none() {
            return open;
        }
    }
}

pub async fn all_open_uploads(_: Can, store: &dyn ObjectStore) {
    assert_eq!(all_open(store).await, []);
    let mut begun = vec![];
    for name in ["b+%", "a", "a", "a/c", "sp ace"] {
        begun.push(Upload::begin(store, name).await);
    }
    let place = |upload: &Upload<'_>| {
        let id = upload.id.split('/').next_back().unwrap().to_owned();
        (upload.key.as_str().to_owned(), id)
    };
    let mut wanted: Vec<_> = begun.iter().map(place).collect();
    let mut found = all_open(store).await;
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted);
    // What is listed can be aborted, however it was begun.
    let page = store.list_open_uploads(None).await.unwrap();
    for upload in &page.uploads {
        store.abort_upload(&upload.key, &upload.upload_id).await.unwrap();
    }
    assert_eq!(all_open(store).await.len(), wanted.len() - page.uploads.len());
    for upload in &begun {
        store.abort_upload(&upload.key, &upload.id).await.unwrap();
    }
    assert_eq!(all_open(store).await, []);
}

pub async fn an_aborted_upload_is_gone(can: Can, store: &dyn ObjectStore) {
    let upload = Upload::of_two(store, "a").await;
    store.abort_upload(&upload.key, &upload.id).await.unwrap();
    store.abort_upload(&upload.key, &upload.id).await.unwrap();
    if can.upload_state {
        let part = store.put_part(upload.part(1, &Bytes::from_static(b"x"))).await;
        assert_eq!(part, Err(StoreError::NoSuchUpload));
        assert_eq!(upload.stored_parts().await, Err(StoreError::NoSuchUpload));
        let complete = store.complete_upload(upload.complete(Condition::None)).await;
        assert_eq!(complete, Err(StoreError::NoSuchUpload));
    }
    assert_eq!(keys(store).await, ["first"]);
}

pub async fn a_damaged_part_is_refused(can: Can, store: &dyn ObjectStore) {
    if !can.verify {
        return;
    }
    let upload = Upload::begin(store, "a").await;
    let part = upload.part(1, &Bytes::from_static(b"body"));
    let damaged = store.put_part(PutPart { md5: Md5::of(b"other"), ..part }).await;
    assert_eq!(class(damaged), ErrorClass::Server);
    upload.has_parts(can, &[]).await;
    store.abort_upload(&upload.key, &upload.id).await.unwrap();
}

pub async fn a_damaged_whole_is_refused(can: Can, store: &dyn ObjectStore) {
    if !can.verify || !can.crc64 {
        return;
    }
    let upload = Upload::of_two(store, "a").await;
    let complete = Complete { crc64: Crc64::of(b"other"), ..upload.complete(Condition::None) };
    let refused = store.complete_upload(complete).await;
    assert_eq!(class(refused), ErrorClass::Server);
    assert_eq!(keys(store).await, ["first"]);
    // Nothing is lost: with the right digest it can still be completed.
    store.complete_upload(upload.complete(Condition::None)).await.unwrap();
}

/// A reply to a multipart request has the key in it, and XML has no U+FFFF.
pub async fn names_that_xml_cannot_carry(can: Can, store: &dyn ObjectStore) {
    if can.buckets {
        let refused = store.create_upload(&key("\u{ffff}"), &META).await;
        assert_eq!(class(refused), ErrorClass::Path, "this name only");
    }
}

pub async fn conditions_hold_at_the_end_too(can: Can, store: &dyn ObjectStore) {
    if !can.late_conditions {
        return;
    }
    let upload = Upload::of_two(store, "a").await;
    let etag = write(store, "a", b"somebody else's").await;
    for condition in [Condition::Absent, Condition::Match(ETag::new(&"0".repeat(32)))] {
        let refused = store.complete_upload(upload.complete(condition)).await;
        assert_eq!(refused, Err(StoreError::Precondition));
        assert_eq!(head(store, "a").await.unwrap().object.etag, etag);
    }
    store.complete_upload(upload.complete(Condition::Match(etag))).await.unwrap();
    assert_eq!(head(store, "a").await.unwrap().object.size_bytes, PART as u64 + 1);
}
