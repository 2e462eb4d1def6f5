//! Listings in key order, page by page.

use aws_sdk_s3::types::{EncodingType, Object as ListedObject, ObjectStorageClass};
use percent_encoding::percent_decode_str;

use crate::model::{ETag, Key, Millis, Object};
use crate::ports::{ListPage, StoreError};

use super::{S3Store, error};

impl S3Store {
    /// One page after `after`. Every page is asked for by its first key: no token can expire, and a
    /// listing goes on where it stopped.
    pub(super) async fn list_objects(&self, after: Option<&Key>) -> Result<ListPage, StoreError> {
        let prefix = self.options.prefix.as_str();
        let what = self.what(format!("list {}", self.place()));
        let start_after = match after {
            Some(after) => Some(self.absolute(after)?),
            None => None,
        };
        let reply = self
            .client()
            .list_objects_v2()
            .bucket(&self.options.bucket)
            .set_prefix((!prefix.is_empty()).then(|| prefix.to_owned()))
            .set_start_after(start_after)
            // Control characters in keys cannot be in XML.
            .encoding_type(EncodingType::Url)
            .set_expected_bucket_owner(self.options.bucket_owner.clone())
            .send()
            .await
            .map_err(|e| error::explain(&what, &e))?;
        let encoded = reply.encoding_type() == Some(&EncodingType::Url);
        let mut page = ListPage::default();
        let mut last = None;
        for listed in reply.contents() {
            let Some((absolute, object)) = read_object(listed, encoded) else {
                return Err(error::not_s3(&what, "an entry has no key or no ETag"));
            };
            let Some(key) = self.options.prefix.relative(&absolute) else { continue };
            last = Some(key.clone());
            if !key.is_reserved() {
                page.objects.push((key, object));
            }
        }
        if reply.is_truncated() == Some(true) {
            page.more_after = last;
            if page.more_after.is_none() {
                return Err(error::not_s3(&what, "a page is empty, and yet not the last"));
            }
        }
        Ok(page)
    }
}

fn read_object(listed: &ListedObject, encoded: bool) -> Option<(String, Object)> {
    let key = listed.key()?;
    let key = match encoded {
        // Some servers write a space as '+', and '+' itself as %2B.
        true => percent_decode_str(&key.replace('+', " ")).decode_utf8().ok()?.into_owned(),
        false => key.to_owned(),
    };
    let archived = matches!(
        listed.storage_class(),
        Some(ObjectStorageClass::Glacier | ObjectStorageClass::DeepArchive)
    );
    let object = Object {
        size_bytes: listed.size().and_then(|n| u64::try_from(n).ok())?,
        etag: ETag::new(listed.e_tag()?),
        modified: listed.last_modified().and_then(|t| t.to_millis().ok()).map_or(Millis(0), Millis),
        archived,
    };
    Some((key, object))
}
