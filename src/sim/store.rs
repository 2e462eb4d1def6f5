//! An object store in memory, with the faults of networks and servers: lost replies, throttling,
//! errors, and a switch for conditions that are not honoured.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::model::{ContentMd5, Crc64, ETag, Key, Md5, Meta, Millis, Object, ObjectHead};
use crate::plan::ErrorClass;
use crate::ports::{
    Clock as _, Complete, Condition, Fut, ListPage, ObjectStore, OpenUpload, Put, PutPart,
    ReplyCounts, RequestCounts, SmallObject, StoreError, Stored, StoredPart, UploadMark,
    UploadPage,
};

use super::clock::SimClock;
use super::faults::{Fate, Faults, error};

/// An object as the oracle sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimObject {
    pub body: Bytes,
    pub meta: Meta,
    pub etag: ETag,
    pub modified: Millis,
    pub deleted_tag: bool,
    part_size: Option<u64>,
}

#[derive(Debug)]
struct SimUpload {
    key: Key,
    meta: Meta,
    parts: BTreeMap<u32, Bytes>,
    begun: Millis,
}

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<Key, SimObject>,
    uploads: BTreeMap<String, SimUpload>,
    next_upload: u64,
    counts: RequestCounts,
    /// Bytes of bodies that were accepted, by key: the store's own log.
    accepted: Vec<(Key, Md5)>,
}

/// A change of the bucket.
#[derive(Debug)]
pub enum Writing<'a> {
    Put(&'a Key, &'a [u8]),
    Retouch(&'a Key),
    Upload(&'a Key),
    Delete(&'a Key),
}

/// Sees every change before it happens: the oracle of a simulated world.
pub type Witness = Arc<dyn Fn(&Writing<'_>) + Send + Sync>;

/// Clones are the same bucket.
#[derive(Clone)]
pub struct SimStore {
    bucket: Arc<Mutex<Bucket>>,
    witness: Arc<Mutex<Option<Witness>>>,
    pub faults: Faults,
    clock: SimClock,
    conditional: bool,
}

impl SimStore {
    pub fn new(clock: SimClock, faults: Faults, conditional: bool) -> Self {
        Self { bucket: Arc::default(), witness: Arc::default(), faults, clock, conditional }
    }

    pub fn set_witness(&self, witness: Witness) {
        *self.witness.lock().unwrap_or_else(PoisonError::into_inner) = Some(witness);
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, writing: &Writing<'_>) {
        let witness = self.witness.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(witness) = witness {
            witness(writing);
        }
    }

    /// All objects but the owner record.
    pub fn objects(&self) -> BTreeMap<Key, SimObject> {
        let bucket = self.bucket();
        let own = |(key, object): (&Key, &SimObject)| (key.clone(), object.clone());
        bucket.objects.iter().filter(|(key, _)| !key.is_reserved()).map(own).collect()
    }

    pub fn open_uploads(&self) -> usize {
        self.bucket().uploads.len()
    }

    /// Bodies accepted so far.
    pub fn accepted(&self) -> Vec<(Key, Md5)> {
        self.bucket().accepted.clone()
    }

    /// Somebody else writes, or removes, an object.
    pub fn tamper(&self, key: &Key, body: Option<&[u8]>) {
        let mut bucket = self.bucket();
        match body {
            Some(body) => {
                let body = Bytes::copy_from_slice(body);
                let etag = ETag::new(&Md5::of(&body).to_string());
                let object = self.object(body, Meta::default(), etag, None);
                bucket.objects.insert(key.clone(), object);
            }
            None => {
                bucket.objects.remove(key);
            }
        }
    }

    fn object(&self, body: Bytes, meta: Meta, etag: ETag, part_size: Option<u64>) -> SimObject {
        let modified = self.clock.now();
        SimObject { body, meta, etag, modified, deleted_tag: false, part_size }
    }

    fn check(&self, bucket: &Bucket, key: &Key, condition: &Condition) -> Result<(), StoreError> {
        let known = bucket.objects.get(key).map(|object| &object.etag);
        let holds = match (self.conditional, condition) {
            (false, _) | (_, Condition::None) => true,
            (true, Condition::Absent) => known.is_none(),
            (true, Condition::Match(etag)) => known == Some(etag),
        };
        if holds { Ok(()) } else { Err(StoreError::Precondition) }
    }

    /// Runs a call under its fate.
    async fn call<T>(
        &self,
        count: fn(&mut RequestCounts) -> &mut u64,
        work: impl FnOnce(&Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        *count(&mut self.bucket().counts) += 1;
        match self.faults.call().await {
            Fate::Fine => work(self),
            Fate::FailBefore(class) => Err(error(class)),
            Fate::FailAfter(class) => {
                work(self)?;
                Err(error(class))
            }
            Fate::CrashBefore => {
                self.faults.die().await;
                Err(error(ErrorClass::Server))
            }
            Fate::CrashAfter => {
                work(self)?;
                self.faults.die().await;
                Err(error(ErrorClass::Server))
            }
        }
    }

    fn put_now(&self, put: Put) -> Result<Stored, StoreError> {
        if Md5::of(&put.body) != put.md5 || Crc64::of(&put.body) != put.crc64 {
            return Err(error(ErrorClass::Server));
        }
        self.check(&self.bucket(), &put.key, &put.condition)?;
        self.tell(&Writing::Put(&put.key, &put.body));
        let etag = ETag::new(&put.md5.to_string());
        let object = self.object(put.body, put.meta, etag.clone(), None);
        let mut bucket = self.bucket();
        bucket.accepted.push((put.key.clone(), put.md5));
        bucket.objects.insert(put.key, object);
        Ok(Stored { etag, is_md5: true })
    }

    fn complete_now(&self, complete: Complete) -> Result<Stored, StoreError> {
        let Complete { key, upload_id, parts, size_bytes, crc64, condition } = complete;
        let mut bucket = self.bucket();
        let upload = bucket.uploads.get(&upload_id).ok_or(StoreError::NoSuchUpload)?;
        let mut body = vec![];
        for part in &parts {
            let sent = upload.parts.get(&part.stored.number);
            let sent = sent.filter(|sent| Md5::of(sent) == part.digest.md5);
            body.extend_from_slice(sent.ok_or_else(|| error(ErrorClass::Server))?);
        }
        if body.len() as u64 != size_bytes || Crc64::of(&body) != crc64 {
            return Err(error(ErrorClass::Server));
        }
        self.check(&bucket, &key, &condition)?;
        let part_size = parts.first().map_or(0, |part| part.digest.bytes);
        let md5 = ContentMd5::of_parts(parts.iter().map(|part| &part.digest.md5), part_size);
        let (etag, meta) = (ETag::new(&md5.to_string()), upload.meta);
        bucket.uploads.remove(&upload_id);
        bucket.accepted.push((key.clone(), md5.digest));
        drop(bucket);
        self.tell(&Writing::Put(&key, &body));
        let object = self.object(Bytes::from(body), meta, etag.clone(), Some(part_size));
        self.bucket().objects.insert(key, object);
        Ok(Stored { etag, is_md5: true })
    }

    fn delete_now(&self, items: &[(Key, Option<ETag>)]) -> Vec<Result<(), StoreError>> {
        let one = |(key, etag): &(Key, Option<ETag>)| {
            let known = self.bucket().objects.get(key).map(|object| object.etag.clone());
            let wrong = self.conditional && etag.is_some() && known.is_some() && known != *etag;
            if wrong {
                return Err(StoreError::Precondition);
            }
            if known.is_some() {
                self.tell(&Writing::Delete(key));
                self.bucket().objects.remove(key);
            }
            Ok(())
        };
        items.iter().map(one).collect()
    }
}

fn listed(object: &SimObject) -> Object {
    Object {
        size_bytes: object.body.len() as u64,
        etag: object.etag.clone(),
        modified: object.modified,
        archived: false,
    }
}

fn stored_part(number: u32, body: &Bytes) -> StoredPart {
    let etag = ETag::new(&Md5::of(body).to_string());
    StoredPart { number, size_bytes: body.len() as u64, etag, checksum: None }
}

impl ObjectStore for SimStore {
    fn put(&self, put: Put) -> Fut<'_, Result<Stored, StoreError>> {
        Box::pin(self.call(|c| &mut c.put, move |store| store.put_now(put)))
    }

    fn head(&self, key: &Key) -> Fut<'_, Result<Option<ObjectHead>, StoreError>> {
        let key = key.clone();
        Box::pin(self.call(
            |c| &mut c.head,
            move |store| {
                let head = |object: &SimObject| ObjectHead {
                    object: listed(object),
                    meta: object.meta,
                    crc64: Some(Crc64::of(&object.body)),
                    tags: Some(if object.deleted_tag { 2 } else { 0 }),
                };
                Ok(store.bucket().objects.get(&key).map(head))
            },
        ))
    }

    fn get_small(
        &self,
        key: &Key,
        unless: Option<&ETag>,
    ) -> Fut<'_, Result<SmallObject, StoreError>> {
        let (key, unless) = (key.clone(), unless.cloned());
        Box::pin(self.call(
            |c| &mut c.get,
            move |store| {
                Ok(match store.bucket().objects.get(&key) {
                    None => SmallObject::Absent,
                    Some(object) if unless.as_ref() == Some(&object.etag) => SmallObject::Unchanged,
                    Some(object) => {
                        SmallObject::Found { body: object.body.clone(), etag: object.etag.clone() }
                    }
                })
            },
        ))
    }

    fn get_above(&self, _: &Key) -> Fut<'_, Result<Vec<(Key, Bytes)>, StoreError>> {
        // This bucket has no prefix.
        Box::pin(std::future::ready(Ok(vec![])))
    }

    fn list(&self, after: Option<&Key>) -> Fut<'_, Result<ListPage, StoreError>> {
        const PAGE: usize = 3;
        let after = after.cloned();
        Box::pin(self.call(
            |c| &mut c.list,
            move |store| {
                let bucket = store.bucket();
                let rest = bucket.objects.iter().filter(|(key, _)| {
                    !key.is_reserved() && after.as_ref().is_none_or(|after| *key > after)
                });
                let mut objects: Vec<(Key, Object)> = rest
                    .take(PAGE + 1)
                    .map(|(key, object)| (key.clone(), listed(object)))
                    .collect();
                let more = objects.len() > PAGE;
                objects.truncate(PAGE);
                let more_after = objects.last().map(|(key, _)| key.clone()).filter(|_| more);
                Ok(ListPage { objects, more_after })
            },
        ))
    }

    fn retouch(&self, key: &Key, etag: &ETag, meta: &Meta) -> Fut<'_, Result<ETag, StoreError>> {
        let (key, etag, meta) = (key.clone(), etag.clone(), *meta);
        Box::pin(self.call(
            |c| &mut c.copy,
            move |store| {
                store.tell(&Writing::Retouch(&key));
                let mut bucket = store.bucket();
                match bucket.objects.get_mut(&key).filter(|object| object.etag == etag) {
                    None => Err(StoreError::Precondition),
                    Some(object) => {
                        object.meta = meta;
                        object.etag = ETag::new(&Md5::of(&object.body).to_string());
                        Ok(object.etag.clone())
                    }
                }
            },
        ))
    }

    fn delete(
        &self,
        items: &[(Key, Option<ETag>)],
    ) -> Fut<'_, Result<Vec<Result<(), StoreError>>, StoreError>> {
        let items = items.to_vec();
        Box::pin(self.call(|c| &mut c.delete, move |store| Ok(store.delete_now(&items))))
    }

    fn tag_deleted(&self, key: &Key, _at: Millis) -> Fut<'_, Result<(), StoreError>> {
        let key = key.clone();
        Box::pin(self.call(
            |c| &mut c.other,
            move |store| {
                store.tell(&Writing::Delete(&key));
                if let Some(object) = store.bucket().objects.get_mut(&key) {
                    object.deleted_tag = true;
                }
                Ok(())
            },
        ))
    }

    fn untag_deleted(&self, key: &Key) -> Fut<'_, Result<bool, StoreError>> {
        let key = key.clone();
        Box::pin(self.call(
            |c| &mut c.other,
            move |store| {
                store.tell(&Writing::Retouch(&key));
                let mut bucket = store.bucket();
                let object = bucket.objects.get_mut(&key);
                Ok(object.is_some_and(|object| std::mem::take(&mut object.deleted_tag)))
            },
        ))
    }

    fn create_upload(&self, key: &Key, meta: &Meta) -> Fut<'_, Result<String, StoreError>> {
        let (key, meta) = (key.clone(), *meta);
        Box::pin(self.call(
            |c| &mut c.multipart,
            move |store| {
                store.tell(&Writing::Upload(&key));
                let begun = store.clock.now();
                let mut bucket = store.bucket();
                bucket.next_upload += 1;
                let id = format!("upload-{:06}", bucket.next_upload);
                let upload = SimUpload { key, meta, parts: BTreeMap::new(), begun };
                bucket.uploads.insert(id.clone(), upload);
                Ok(id)
            },
        ))
    }

    fn put_part(&self, part: PutPart) -> Fut<'_, Result<StoredPart, StoreError>> {
        Box::pin(self.call(
            |c| &mut c.multipart,
            move |store| {
                let mut bucket = store.bucket();
                let upload = bucket.uploads.get_mut(&part.upload_id);
                let upload = upload.ok_or(StoreError::NoSuchUpload)?;
                if Md5::of(&part.body) != part.md5 {
                    return Err(error(ErrorClass::Server));
                }
                let stored = stored_part(part.number, &part.body);
                upload.parts.insert(part.number, part.body);
                Ok(stored)
            },
        ))
    }

    fn complete_upload(&self, complete: Complete) -> Fut<'_, Result<Stored, StoreError>> {
        Box::pin(self.call(|c| &mut c.multipart, move |store| store.complete_now(complete)))
    }

    fn abort_upload(&self, _key: &Key, upload_id: &str) -> Fut<'_, Result<(), StoreError>> {
        let id = upload_id.to_owned();
        Box::pin(self.call(
            |c| &mut c.multipart,
            move |store| {
                store.bucket().uploads.remove(&id);
                Ok(())
            },
        ))
    }

    fn list_parts(
        &self,
        _key: &Key,
        upload_id: &str,
    ) -> Fut<'_, Result<Vec<StoredPart>, StoreError>> {
        let id = upload_id.to_owned();
        Box::pin(self.call(
            |c| &mut c.multipart,
            move |store| {
                let bucket = store.bucket();
                let upload = bucket.uploads.get(&id).ok_or(StoreError::NoSuchUpload)?;
                Ok(upload.parts.iter().map(|(number, body)| stored_part(*number, body)).collect())
            },
        ))
    }

    fn list_uploads(&self, key: &Key) -> Fut<'_, Result<Vec<String>, StoreError>> {
        let key = key.clone();
        Box::pin(self.call(
            |c| &mut c.multipart,
            move |store| {
                let bucket = store.bucket();
                let ids = bucket.uploads.iter().filter(|(_, upload)| upload.key == key);
                Ok(ids.map(|(id, _)| id.clone()).collect())
            },
        ))
    }

    fn list_open_uploads(
        &self,
        after: Option<&UploadMark>,
    ) -> Fut<'_, Result<UploadPage, StoreError>> {
        const PAGE: usize = 2;
        let after =
            after.map(|mark| (mark.key.clone(), mark.upload_id.clone().unwrap_or_default()));
        Box::pin(self.call(
            |c| &mut c.multipart,
            move |store| {
                let bucket = store.bucket();
                let mut open: Vec<_> = bucket.uploads.iter().collect();
                open.sort_by_key(|(id, upload)| (upload.key.as_str(), id.as_str()));
                let place = |(id, upload): &(&String, &SimUpload)| {
                    (upload.key.as_str().to_owned(), (*id).clone())
                };
                open.retain(|one| after.as_ref().is_none_or(|after| place(one) > *after));
                let more = open.len() > PAGE;
                open.truncate(PAGE);
                let mark = |(key, id)| UploadMark { key, upload_id: Some(id) };
                let more_after = open.last().filter(|_| more).map(place).map(mark);
                let uploads = open.iter().map(|(id, upload)| OpenUpload {
                    key: upload.key.clone(),
                    upload_id: (*id).clone(),
                    begun: upload.begun,
                });
                Ok(UploadPage { uploads: uploads.collect(), more_after })
            },
        ))
    }

    fn first_part_size(&self, key: &Key) -> Fut<'_, Result<Option<u64>, StoreError>> {
        let key = key.clone();
        Box::pin(self.call(
            |c| &mut c.head,
            move |store| Ok(store.bucket().objects.get(&key).and_then(|object| object.part_size)),
        ))
    }

    fn create_bucket(&self) -> Fut<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }

    fn requests(&self) -> RequestCounts {
        self.bucket().counts
    }

    fn replies(&self) -> ReplyCounts {
        ReplyCounts::default()
    }

    fn deletes_on_condition(&self) -> bool {
        self.conditional
    }
}
