//! Deletions in batches with a result for each key.

use std::collections::HashMap;

use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};

use crate::model::{ETag, Key};
use crate::plan::ErrorClass;
use crate::ports::StoreError;

use super::error::What;
use super::{S3Store, fits_xml};

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
            Err(e) => Err(self.explained(&self.describe("delete", key), &e)),
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
            .map_err(|e| self.explained(&what, &e))?;
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
}

pub(super) fn refused(what: &What, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Failed(what.failed(ErrorClass::Path, error.to_string()))
}
