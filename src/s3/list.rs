//! Listings in key order, page by page.

use std::sync::atomic::Ordering;

use aws_sdk_s3::operation::list_objects_v2::{ListObjectsV2Error, ListObjectsV2Output};
use aws_sdk_s3::types::{EncodingType, OptionalObjectAttributes, RestoreStatus};
use percent_encoding::percent_decode_str;

use crate::model::{ETag, Key, Object};
use crate::ports::{ListPage, ListedObject, ObjectPage, StoreError, Thaw};

use super::error::SdkFailure;
use super::head::{is_archived, millis};
use super::{S3Store, error};

impl S3Store {
    /// One page after `after`. Every page is asked for by its first key: no token can expire, and a
    /// listing goes on where it stopped.
    pub(super) async fn list_objects(&self, after: Option<&Key>) -> Result<ListPage, StoreError> {
        let reply = self.ask_for_page(after, false).await;
        let page = self.page_of(reply).await?;
        let objects = page.objects.into_iter().map(|listed| (listed.key, listed.object)).collect();
        Ok(ListPage { objects, more_after: page.more_after })
    }

    /// The same, and how far archived objects are thawed. A server that refuses to be asked for
    /// that is not asked again.
    pub(super) async fn list_thaws(&self, after: Option<&Key>) -> Result<ObjectPage, StoreError> {
        let asks = self.lists_thaws.load(Ordering::Relaxed);
        let mut sent = self.ask_for_page(after, asks).await;
        let status = sent.as_ref().err().and_then(|e| Some(e.raw_response()?.status().as_u16()));
        if asks && matches!(status, Some(400 | 501)) {
            sent = self.ask_for_page(after, false).await;
            self.lists_thaws.store(sent.is_err(), Ordering::Relaxed);
        }
        self.page_of(sent).await
    }

    async fn ask_for_page(
        &self,
        after: Option<&Key>,
        thaws: bool,
    ) -> Result<ListObjectsV2Output, SdkFailure<ListObjectsV2Error>> {
        let prefix = self.options.prefix.as_str();
        let start_after = after.map(|after| format!("{prefix}{}", after.as_str()));
        self.ask(|client| {
            client
                .list_objects_v2()
                .bucket(&self.options.bucket)
                .set_prefix((!prefix.is_empty()).then(|| prefix.to_owned()))
                .set_start_after(start_after.clone())
                // Control characters in keys cannot be in XML.
                .encoding_type(EncodingType::Url)
                .set_optional_object_attributes(
                    thaws.then(|| vec![OptionalObjectAttributes::RestoreStatus]),
                )
                .set_expected_bucket_owner(self.options.bucket_owner.clone())
                .send()
        })
        .await
    }

    async fn page_of(
        &self,
        sent: Result<ListObjectsV2Output, SdkFailure<ListObjectsV2Error>>,
    ) -> Result<ObjectPage, StoreError> {
        let what = self.what(format!("list {}", self.place()));
        let reply = match sent {
            Ok(reply) => reply,
            Err(e) => return Err(self.explained(&what, &e)),
        };
        let encoded = reply.encoding_type() == Some(&EncodingType::Url);
        let mut page = ObjectPage::default();
        let prefix = self.options.prefix.as_str();
        let mut last = None;
        for listed in reply.contents() {
            let Some((absolute, object)) = read_object(listed, encoded) else {
                return Err(error::not_s3(&what, "an entry has no key or no ETag"));
            };
            let Some(key) = self.options.prefix.relative(&absolute) else {
                page.nameless |= absolute == prefix && object.size_bytes > 0;
                continue;
            };
            last = Some(key.clone());
            if !key.is_reserved() {
                let thaw = self.thaw_of(&object, listed.restore_status());
                page.objects.push(ListedObject { key, object, thaw });
            }
        }
        match reply.is_truncated() {
            Some(false) => {}
            // What ends without saying so may have been cut.
            None => return Err(error::not_s3(&what, "a page does not say whether it is the last")),
            Some(true) => {
                page.more_after = last;
                if page.more_after.is_none() {
                    return Err(error::not_s3(&what, "a page is empty, and yet not the last"));
                }
            }
        }
        Ok(page)
    }

    /// An archived object without a status is frozen, or the server does not tell.
    fn thaw_of(&self, object: &Object, status: Option<&RestoreStatus>) -> Option<Thaw> {
        if !object.archived {
            return None;
        }
        match status {
            Some(status) if status.is_restore_in_progress() == Some(true) => Some(Thaw::Ongoing),
            Some(status) if status.restore_expiry_date().is_some() => Some(Thaw::Thawed),
            _ if self.tells_all() && self.lists_thaws.load(Ordering::Relaxed) => Some(Thaw::Frozen),
            _ => None,
        }
    }
}

fn read_object(listed: &aws_sdk_s3::types::Object, encoded: bool) -> Option<(String, Object)> {
    let object = Object {
        size_bytes: listed.size().and_then(|n| u64::try_from(n).ok())?,
        etag: ETag::new(listed.e_tag()?),
        modified: millis(listed.last_modified()).unwrap_or_default(),
        archived: listed.storage_class().is_some_and(|class| is_archived(class.as_str())),
    };
    Some((decoded(listed.key()?, encoded)?, object))
}

/// A key as a listing shows it.
pub(super) fn decoded(key: &str, encoded: bool) -> Option<String> {
    match encoded {
        // Some servers write a space as '+', and '+' itself as %2B.
        true => Some(percent_decode_str(&key.replace('+', " ")).decode_utf8().ok()?.into_owned()),
        false => Some(key.to_owned()),
    }
}
