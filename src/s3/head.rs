//! What a reply says of an object beside its bytes.

use std::collections::HashMap;

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{ChecksumType, ServerSideEncryption};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::model::{ETag, Md5, Meta, Millis, Object};
use crate::ports::{ReadHead, Thaw};

use super::checksum;

/// What replies to HEAD and GET say alike. Their types in the SDK are two.
macro_rules! told {
    ($reply:expr) => {
        $crate::s3::head::Told {
            size_bytes: $reply.content_length(),
            etag: $reply.e_tag(),
            modified: $reply.last_modified(),
            class: $reply.storage_class().map(|class| class.as_str()),
            restore: $reply.restore(),
            metadata: $reply.metadata(),
            checksums: $crate::s3::checksum::checksums!($reply),
            checksum_type: $reply.checksum_type(),
            sse: $reply.server_side_encryption(),
            sse_customer: $reply.sse_customer_algorithm(),
            tags: $reply.tag_count(),
        }
    };
}

pub(super) use told;

/// The parts of a reply that tell something of the object.
pub(super) struct Told<'a> {
    pub size_bytes: Option<i64>,
    pub etag: Option<&'a str>,
    pub modified: Option<&'a DateTime>,
    pub class: Option<&'a str>,
    pub restore: Option<&'a str>,
    pub metadata: Option<&'a HashMap<String, String>>,
    pub checksums: checksum::Values<'a>,
    pub checksum_type: Option<&'a ChecksumType>,
    pub sse: Option<&'a ServerSideEncryption>,
    /// Encrypted with a key that only the client has.
    pub sse_customer: Option<&'a str>,
    pub tags: Option<i32>,
}

impl Told<'_> {
    /// `None` where the reply has no ETag or no size, and so is not one of S3.
    pub fn head(&self) -> Option<ReadHead> {
        let etag = ETag::new(self.etag?);
        let archived = self.class.is_some_and(is_archived);
        let of_content = self.sse_customer.is_none() && shows_md5(self.sse);
        let shown = etag.as_md5().filter(|_| of_content);
        let whole = shown.and_then(|(digest, parts)| (parts == 0).then_some(digest));
        Some(ReadHead {
            meta: Meta::from_pairs(self.pairs()),
            checksum: checksum::read(&self.checksums, self.checksum_type),
            md5: whole.or_else(|| self.md5_beside()),
            etag_is_md5: shown.is_some(),
            tags: self.tags.and_then(|count| u32::try_from(count).ok()),
            thaw: archived.then(|| thaw(self.restore)),
            object: Object {
                size_bytes: u64::try_from(self.size_bytes?).ok()?,
                modified: millis(self.modified).unwrap_or_default(),
                etag,
                archived,
            },
        })
    }

    /// User metadata, without the `x-amz-meta-`.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.metadata.into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The MD5 that rclone writes beside content whose ETag does not show it.
    fn md5_beside(&self) -> Option<Md5> {
        let (_, text) = self.pairs().find(|(name, _)| *name == "md5chksum")?;
        Some(Md5(BASE64.decode(text).ok()?.try_into().ok()?))
    }
}

/// Whether ETags of objects under this encryption are MD5s of the content.
pub(super) fn shows_md5(sse: Option<&ServerSideEncryption>) -> bool {
    matches!(sse, None | Some(ServerSideEncryption::Aes256))
}

/// Whether objects of this class must be thawed before they can be read or copied.
pub(super) fn is_archived(class: &str) -> bool {
    matches!(class, "GLACIER" | "DEEP_ARCHIVE")
}

pub(super) fn millis(time: Option<&DateTime>) -> Option<Millis> {
    time?.to_millis().ok().map(Millis)
}

/// What `x-amz-restore` says of an archived object.
pub(super) fn thaw(restore: Option<&str>) -> Thaw {
    match restore {
        Some(text) if text.contains("ongoing-request=\"true\"") => Thaw::Ongoing,
        Some(text) if text.contains("ongoing-request=\"false\"") => Thaw::Thawed,
        _ => Thaw::Frozen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Crc64;
    use crate::model::checksum::Algorithm;

    const NOTHING: Told<'_> = Told {
        size_bytes: Some(3),
        etag: Some("\"900150983cd24fb0d6963f7d28e17f72\""),
        modified: None,
        class: None,
        restore: None,
        metadata: None,
        checksums: [(Algorithm::Crc64Nvme, None); 10],
        checksum_type: None,
        sse: None,
        sse_customer: None,
        tags: None,
    };

    #[test]
    fn an_etag_is_an_md5_unless_it_is_encrypted_or_of_parts() {
        let md5 = Md5::of(b"abc");
        let digests = |told: &Told<'_>| {
            let head = told.head().unwrap();
            (head.md5, head.etag_is_md5)
        };
        assert_eq!(digests(&NOTHING), (Some(md5), true));
        let aes = Told { sse: Some(&ServerSideEncryption::Aes256), ..NOTHING };
        assert_eq!(digests(&aes), (Some(md5), true));
        let kms = Told { sse: Some(&ServerSideEncryption::AwsKms), ..NOTHING };
        assert_eq!(digests(&kms), (None, false));
        let customer = Told { sse_customer: Some("AES256"), ..NOTHING };
        assert_eq!(digests(&customer), (None, false));
        let parts = Told { etag: Some("\"900150983cd24fb0d6963f7d28e17f72-2\""), ..NOTHING };
        assert_eq!(digests(&parts), (None, true));
        let beside = HashMap::from([("md5chksum".to_owned(), BASE64.encode(md5.0))]);
        assert_eq!(digests(&Told { metadata: Some(&beside), ..parts }), (Some(md5), true));
        assert_eq!(digests(&Told { metadata: Some(&beside), ..kms }), (Some(md5), false));
        let strange = HashMap::from([("md5chksum".to_owned(), "!".to_owned())]);
        assert_eq!(digests(&Told { metadata: Some(&strange), ..kms }), (None, false));
        assert_eq!(Told { etag: None, ..NOTHING }.head(), None);
        assert_eq!(Told { size_bytes: None, ..NOTHING }.head(), None);
    }

    #[test]
    fn only_checksums_of_the_whole_count() {
        let text = BASE64.encode(Crc64::of(b"abc").to_bytes());
        let told = |text| {
            let mut checksums = NOTHING.checksums;
            checksums[0].1 = Some(text);
            Told { checksums, ..NOTHING }
        };
        let whole = told(&text);
        assert_eq!(whole.head().unwrap().crc64(), Some(Crc64::of(b"abc")));
        let composite = Told { checksum_type: Some(&ChecksumType::Composite), ..whole };
        assert_eq!(composite.head().unwrap().crc64(), None);
        let of_parts = format!("{text}-2");
        assert_eq!(told(&of_parts).head().unwrap().crc64(), None);
    }

    #[test]
    fn thaws_are_told_of_archived_objects() {
        let thaw = |class, restore| Told { class, restore, ..NOTHING }.head().unwrap().thaw;
        let done = Some("ongoing-request=\"false\", expiry-date=\"Tue, 24 Nov 2026 00:00:00 GMT\"");
        assert_eq!(thaw(Some("GLACIER"), None), Some(Thaw::Frozen));
        assert_eq!(thaw(Some("GLACIER"), Some("ongoing-request=\"true\"")), Some(Thaw::Ongoing));
        assert_eq!(thaw(Some("DEEP_ARCHIVE"), done), Some(Thaw::Thawed));
        assert_eq!(thaw(Some("GLACIER_IR"), None), None);
        assert_eq!(thaw(None, done), None);
    }
}
