//! Listings of all versions, page by page, and whether there can be any.

use std::cmp::Ordering;

use aws_sdk_s3::types::{DeleteMarkerEntry, EncodingType, ObjectVersion};

use crate::model::{ETag, Key, Object};
use crate::plan::ErrorClass;
use crate::ports::{ListedVersion, StoreError, VersionMark, VersionPage};

use super::error::SdkFailure;
use super::head::{is_archived, millis};
use super::list::decoded;
use super::{S3Store, error};

impl S3Store {
    pub(super) async fn versions_page(
        &self,
        after: Option<&VersionMark>,
    ) -> Result<VersionPage, StoreError> {
        let prefix = self.options.prefix.as_str();
        let what = self.what(format!("list the versions in {}", self.place()));
        let key = after.map(|after| format!("{prefix}{}", after.key.as_str()));
        let version =
            after.map(|after| after.version.clone()).filter(|version| !version.is_empty());
        let sent = self
            .ask(|client| {
                client
                    .list_object_versions()
                    .bucket(&self.options.bucket)
                    .set_prefix((!prefix.is_empty()).then(|| prefix.to_owned()))
                    .set_key_marker(key.clone())
                    .set_version_id_marker(version.clone())
                    .encoding_type(EncodingType::Url)
                    .set_expected_bucket_owner(self.options.bucket_owner.clone())
                    .send()
            })
            .await;
        let reply = match sent {
            Ok(reply) => reply,
            Err(e) => return Err(self.explained(&what, &e)),
        };
        let encoded = reply.encoding_type() == Some(&EncodingType::Url);
        let versions = reply.versions().iter().map(|version| self.version_of(version, encoded));
        let markers = reply.delete_markers().iter().map(|marker| self.mark_of(marker, encoded));
        let (Some(versions), Some(markers)) = (versions.collect(), markers.collect()) else {
            return Err(error::not_s3(&what, "an entry has no key, no version or no time"));
        };
        let mut page = VersionPage { versions: merged(versions, markers), more_after: None };
        page.versions.retain(|v| !v.key.is_reserved() && !v.key.as_str().is_empty());
        if reply.is_truncated() == Some(true) {
            let key = self.key_of(reply.next_key_marker(), encoded);
            let version = reply.next_version_id_marker().unwrap_or_default().to_owned();
            page.more_after = key.map(|key| VersionMark { key, version });
            if page.more_after.is_none() || page.more_after.as_ref() == after {
                return Err(error::not_s3(
                    &what,
                    "more versions follow, but it does not say where",
                ));
            }
        }
        Ok(page)
    }

    fn version_of(&self, listed: &ObjectVersion, encoded: bool) -> Option<ListedVersion> {
        let modified = millis(listed.last_modified())?;
        let object = Object {
            size_bytes: listed.size().and_then(|n| u64::try_from(n).ok())?,
            etag: ETag::new(listed.e_tag()?),
            modified,
            archived: listed.storage_class().is_some_and(|class| is_archived(class.as_str())),
        };
        Some(ListedVersion {
            key: self.key_of(listed.key(), encoded)?,
            version: listed.version_id()?.to_owned(),
            object: Some(object),
            modified,
            latest: listed.is_latest() == Some(true),
        })
    }

    fn mark_of(&self, listed: &DeleteMarkerEntry, encoded: bool) -> Option<ListedVersion> {
        Some(ListedVersion {
            key: self.key_of(listed.key(), encoded)?,
            version: listed.version_id()?.to_owned(),
            object: None,
            modified: millis(listed.last_modified())?,
            latest: listed.is_latest() == Some(true),
        })
    }

    /// Empty for the object that has the prefix itself as its key.
    fn key_of(&self, key: Option<&str>, encoded: bool) -> Option<Key> {
        let absolute = decoded(key?, encoded)?;
        absolute.strip_prefix(self.options.prefix.as_str()).map(Key::literal)
    }

    pub(super) async fn versions_are_kept(&self) -> Result<bool, StoreError> {
        let what = self.what(format!("ask whether {} keeps versions", self.options.bucket));
        let sent = self
            .ask(|client| {
                client
                    .get_bucket_versioning()
                    .bucket(&self.options.bucket)
                    .set_expected_bucket_owner(self.options.bucket_owner.clone())
                    .send()
            })
            .await;
        if let Some(kept) = sent.as_ref().err().and_then(under_another_name) {
            return Ok(kept);
        }
        match sent {
            Ok(reply) => Ok(reply.status().is_some()),
            Err(e) => match self.explained(&what, &e) {
                StoreError::Unsupported(_) => Ok(false),
                StoreError::Failed(failure) if failure.class == ErrorClass::Denied => {
                    let hint = "allow s3:GetBucketVersioning, s3:ListBucketVersions and \
                                s3:GetObjectVersion";
                    Err(StoreError::Failed(failure.with_hint(hint)))
                }
                error => Err(error),
            },
        }
    }
}

/// Some servers name the root of the reply otherwise than S3 does, and the SDK does not read it.
fn under_another_name<E>(error: &SdkFailure<E>) -> Option<bool> {
    let reply = error.raw_response().filter(|reply| reply.status().is_success())?;
    let body = std::str::from_utf8(reply.body().bytes()?).ok()?;
    body.contains("BucketVersioning").then(|| body.contains("<Status>"))
}

/// One order out of two: the SDK gives versions and marks of deletions apart, each as the server
/// ordered them. Times have the resolution of a second. Where they do not tell which of two was
/// first, the version counts as the newer: a file that comes back does less harm than one that does
/// not.
fn merged(versions: Vec<ListedVersion>, markers: Vec<ListedVersion>) -> Vec<ListedVersion> {
    let mut all = Vec::with_capacity(versions.len() + markers.len());
    let (mut versions, mut markers) = (versions.into_iter(), markers.into_iter().peekable());
    for version in versions.by_ref() {
        while let Some(marker) = markers.next_if(|marker| is_before(marker, &version)) {
            all.push(marker);
        }
        all.push(version);
    }
    all.extend(markers);
    all
}

fn is_before(marker: &ListedVersion, version: &ListedVersion) -> bool {
    match marker.key.cmp(&version.key) {
        Ordering::Less => true,
        Ordering::Greater => false,
        Ordering::Equal => marker.latest || (!version.latest && marker.modified > version.modified),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Millis;

    fn listed(text: &str) -> ListedVersion {
        let words: Vec<&str> = text.split(' ').collect();
        let modified = Millis(words[2].parse().unwrap());
        let object = Object { size_bytes: 1, etag: ETag::new("e"), modified, archived: false };
        ListedVersion {
            key: Key::literal(words[0]),
            version: words[1].to_owned(),
            object: words[1].starts_with('v').then_some(object),
            modified,
            latest: words.get(3) == Some(&"latest"),
        }
    }

    #[test]
    fn two_lists_become_one_by_key_and_time() {
        let read = |lines: &[&str]| lines.iter().map(|line| listed(line)).collect::<Vec<_>>();
        let versions =
            read(&["a v5 50", "a v4 40", "a v1 10", "b v3 7 latest", "b v1 5", "d v1 9"]);
        let markers = read(&[
            "a m6 60 latest",
            "a m2 20",
            "a m1 10",
            "b m2 9",
            "c m1 1 latest",
            "d m2 9 latest",
        ]);
        let merged: Vec<String> =
            merged(versions, markers).iter().map(|v| format!("{} {}", v.key, v.version)).collect();
        let expected = [
            "a m6", "a v5", "a v4", "a m2", "a v1", "a m1", "b v3", "b m2", "b v1", "c m1", "d m2",
            "d v1",
        ];
        assert_eq!(merged, expected);
    }
}
