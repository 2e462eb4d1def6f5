//! Deletions in batches with a result for each key, and tags instead of deletions.

use std::collections::HashMap;

use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::types::{Delete, ObjectIdentifier, Tag, Tagging};

use crate::model::{ETag, Key, Millis};
use crate::plan::ErrorClass;
use crate::ports::{ObjectId, StoreError};

use super::error::What;
use super::read::is_gone;
use super::{S3Store, error, fits_xml};

type Results = HashMap<String, Result<(), StoreError>>;

impl S3Store {
    pub(super) async fn delete_objects(
        &self,
        items: &[(Key, Option<ETag>)],
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let (listed, odd): (Vec<_>, Vec<_>) = items.iter().partition(|item| fits_xml(&item.0));
        let mut results = match listed.is_empty() {
            true => Results::new(),
            false => self.delete_listed(&listed).await?,
        };
        for (key, etag) in odd {
            results.insert(self.absolute(key)?, self.delete_one(key, etag.as_ref()).await);
        }
        // A key that the reply does not mention is not known to be gone.
        let silent = |key: &Key| {
            let cause = "the reply does not mention this object";
            let failure = self.describe("delete", key).failed(ErrorClass::Server, cause);
            Err(StoreError::Failed(failure))
        };
        let mut ordered = Vec::with_capacity(items.len());
        for (key, _) in items {
            let absolute = self.absolute(key)?;
            ordered.push(results.remove(&absolute).unwrap_or_else(|| silent(key)));
        }
        Ok(ordered)
    }

    async fn delete_one(&self, key: &Key, etag: Option<&ETag>) -> Result<(), StoreError> {
        let request = self
            .client()
            .delete_object()
            .bucket(&self.options.bucket)
            .key(self.absolute(key)?)
            .set_if_match(etag.map(ETag::quoted))
            .set_expected_bucket_owner(self.options.bucket_owner.clone());
        match request.send().await {
            Ok(_) => Ok(()),
            Err(e) if e.code() == Some("NoSuchKey") => Ok(()),
            Err(e) => Err(error::explain(&self.describe("delete", key), &e)),
        }
    }

    /// Results by the keys in the bucket.
    async fn delete_listed(&self, items: &[&(Key, Option<ETag>)]) -> Result<Results, StoreError> {
        let what = self.what(format!("delete {} objects in {}", items.len(), self.place()));
        let mut objects = Vec::with_capacity(items.len());
        for (key, etag) in items {
            let identifier = ObjectIdentifier::builder()
                .key(self.absolute(key)?)
                .set_e_tag(etag.as_ref().map(ETag::quoted))
                .build();
            objects.push(identifier.map_err(|e| refused(&what, &e))?);
        }
        let delete = Delete::builder().set_objects(Some(objects)).build();
        let reply = self
            .client()
            .delete_objects()
            .bucket(&self.options.bucket)
            .delete(delete.map_err(|e| refused(&what, &e))?)
            .set_expected_bucket_owner(self.options.bucket_owner.clone())
            .send()
            .await
            .map_err(|e| error::explain(&what, &e))?;
        let mut results = Results::new();
        for deleted in reply.deleted() {
            results.extend(deleted.key().map(|key| (key.to_owned(), Ok(()))));
        }
        for failed in reply.errors() {
            let code = failed.code().unwrap_or("an error without a code");
            let words = [Some(code), failed.message()].into_iter().flatten();
            let because = |class| {
                let cause = words.collect::<Vec<_>>().join(": ");
                Err(StoreError::Failed(what.failed(class, cause)))
            };
            let result = match code {
                "NoSuchKey" => Ok(()),
                "PreconditionFailed" | "ConditionalRequestConflict" => {
                    Err(StoreError::Precondition)
                }
                "AccessDenied" => because(ErrorClass::Denied),
                "InternalError" | "ServiceUnavailable" | "SlowDown" => because(ErrorClass::Server),
                _ => because(ErrorClass::Path),
            };
            results.extend(failed.key().map(|key| (key.to_owned(), result)));
        }
        Ok(results)
    }

    /// Adds the tags to those that the object has. One that is gone needs none.
    pub(super) async fn tag_as_deleted(&self, key: &Key, at: Millis) -> Result<(), StoreError> {
        let what = self.describe("tag", key);
        let absolute = self.absolute(key)?;
        let client = self.client();
        let known = client
            .get_object_tagging()
            .bucket(&self.options.bucket)
            .key(&absolute)
            .set_expected_bucket_owner(self.options.bucket_owner.clone())
            .send()
            .await;
        let known = match known {
            Ok(known) => known,
            Err(e) if e.code() == Some("NoSuchKey") => return Ok(()),
            Err(e) => return Err(error::explain(&what, &e)),
        };
        let ours = |tag: &Tag| matches!(tag.key(), "Deleted" | "DeletedAt");
        let mut tags: Vec<Tag> = known.tag_set().iter().filter(|t| !ours(t)).cloned().collect();
        for (name, value) in [("Deleted", "True".to_owned()), ("DeletedAt", minute(at))] {
            let tag = Tag::builder().key(name).value(value).build();
            tags.push(tag.map_err(|e| refused(&what, &e))?);
        }
        let tagging = Tagging::builder().set_tag_set(Some(tags)).build();
        client
            .put_object_tagging()
            .bucket(&self.options.bucket)
            .key(&absolute)
            .tagging(tagging.map_err(|e| refused(&what, &e))?)
            .set_expected_bucket_owner(self.options.bucket_owner.clone())
            .send()
            .await
            .map_err(|e| error::explain(&what, &e))?;
        Ok(())
    }

    /// Reads what [`Self::tag_as_deleted`] wrote.
    pub(super) async fn tagged_deleted_at(
        &self,
        id: &ObjectId,
    ) -> Result<Option<Millis>, StoreError> {
        let key = self.absolute(&id.key)?;
        let sent = self
            .ask(|client| {
                client
                    .get_object_tagging()
                    .bucket(&self.options.bucket)
                    .key(&key)
                    .set_version_id(id.version.clone())
                    .set_expected_bucket_owner(self.options.bucket_owner.clone())
                    .send()
            })
            .await;
        let reply = match sent {
            Ok(reply) => reply,
            Err(e) if is_gone(&e) => return Ok(None),
            Err(e) => {
                return match self.explained(&self.about("read the tags of", id), &e).await {
                    StoreError::Unsupported(_) => Ok(None),
                    StoreError::Failed(failure) if failure.class == ErrorClass::Denied => {
                        let hint = "allow s3:GetObjectTagging and s3:GetObjectVersionTagging";
                        Err(StoreError::Failed(failure.with_hint(hint)))
                    }
                    error => Err(error),
                };
            }
        };
        let tag = |name| reply.tag_set().iter().find(|tag| tag.key() == name).map(Tag::value);
        Ok((tag("Deleted") == Some("True")).then(|| moment(tag("DeletedAt"))))
    }
}

/// Reads [`minute`]; the beginning of time where it is none.
fn moment(minute: Option<&str>) -> Millis {
    let time = minute.and_then(|text| text.parse::<jiff::civil::DateTime>().ok());
    let time = time.and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC).ok());
    time.map_or(Millis(0), |time| Millis(time.timestamp().as_millisecond()))
}

/// `YYYY-MM-DDTHH:MM` in UTC.
fn minute(at: Millis) -> String {
    match jiff::Timestamp::from_millisecond(at.0) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M").to_string(),
        Err(_) => "1970-01-01T00:00".to_owned(),
    }
}

fn refused(what: &What, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Failed(what.failed(ErrorClass::Path, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minute_of_a_deletion_is_read_back() {
        assert_eq!(minute(Millis(1_795_262_459_999)), "2026-11-21T12:00");
        assert_eq!(moment(Some("2026-11-21T12:00")), Millis(1_795_262_400_000));
        for text in [None, Some(""), Some("yesterday"), Some("2026-13-01T00:00")] {
            assert_eq!(moment(text), Millis(0), "{text:?}");
        }
    }
}
