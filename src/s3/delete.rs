//! Deletions in batches with a result for each key, and tags instead of deletions.

use std::collections::HashMap;

use aws_sdk_s3::types::{Delete, ObjectIdentifier, Tag, Tagging};

use crate::model::{ETag, Key, Millis};
use crate::plan::ErrorClass;
use crate::ports::StoreError;

use super::error::What;
use super::{S3Store, error};

impl S3Store {
    pub(super) async fn delete_objects(
        &self,
        items: &[(Key, Option<ETag>)],
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
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
        let mut results: HashMap<String, Result<(), StoreError>> = HashMap::new();
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
        // A key that the reply does not mention is not known to be gone.
        let silent = || {
            let cause = "the reply does not mention this object";
            Err(StoreError::Failed(what.failed(ErrorClass::Server, cause)))
        };
        let mut ordered = Vec::with_capacity(items.len());
        for (key, _) in items {
            let absolute = self.absolute(key)?;
            ordered.push(results.remove(&absolute).unwrap_or_else(silent));
        }
        Ok(ordered)
    }

    /// Adds the tags to those that the object has.
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
            .await
            .map_err(|e| error::explain(&what, &e))?;
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
