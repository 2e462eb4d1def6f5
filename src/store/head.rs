//! What an object says of itself beside its bytes: content headers, user metadata, encryption,
//! storage class, tags.
//!
//! Parses and checks what a request brings, and keeps it as it came. Encryption is echoed, not
//! performed. Used by the operations that make objects, and by those that show them.

use std::collections::BTreeMap;

use http::HeaderMap;
use s3s::{S3ErrorCode, S3Result};
use serde::{Deserialize, Serialize};

use super::fault::{invalid_argument, invalid_request, refuse, refuse_as};

/// S3's limit for names and values of the user metadata of one object together, in bytes.
const METADATA_MAX_BYTES: usize = 2048;
const TAGS_MAX: usize = 10;
const TAG_KEY_MAX_CHARS: usize = 128;
const TAG_VALUE_MAX_CHARS: usize = 256;

pub(super) const STANDARD: &str = "STANDARD";
const CLASSES: [&str; 8] = [
    STANDARD,
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
    GLACIER,
    DEEP_ARCHIVE,
];
const GLACIER: &str = "GLACIER";
pub(super) const DEEP_ARCHIVE: &str = "DEEP_ARCHIVE";

/// The storage class a request asks for.
pub(super) fn storage_class(asked: Option<&str>) -> S3Result<&'static str> {
    let asked = asked.unwrap_or(STANDARD);
    CLASSES.into_iter().find(|class| *class == asked).ok_or_else(|| {
        refuse(S3ErrorCode::InvalidStorageClass, "The storage class you specified is not valid.")
    })
}

/// Whether objects of this class must be thawed before they can be read.
pub(super) fn is_archive(class: &str) -> bool {
    matches!(class, GLACIER | DEEP_ARCHIVE)
}

/// Content headers, user metadata and encryption of one object, as the client sent them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Head {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cache_control: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_disposition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_encoding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<String>,
    /// Without the `x-amz-meta-`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    pub(super) encryption: Encryption,
}

/// Server-side encryption, echoed and not performed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Encryption {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sse: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kms_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bucket_key: Option<bool>,
}

impl Encryption {
    fn of_headers(headers: &HeaderMap) -> S3Result<Self> {
        const PREFIX: &str = "x-amz-server-side-encryption";
        let sse = text(headers, PREFIX)?;
        let kms_key = text(headers, &format!("{PREFIX}-aws-kms-key-id"))?;
        let bucket_key = text(headers, &format!("{PREFIX}-bucket-key-enabled"))?;
        match sse.as_deref() {
            None | Some("AES256" | "aws:kms" | "aws:kms:dsse") => {}
            Some(_) => {
                return Err(refuse(
                    S3ErrorCode::InvalidEncryptionAlgorithmError,
                    "The encryption request you specified is not valid. Supported values: \
                     AES256, aws:kms, aws:kms:dsse.",
                ));
            }
        }
        let is_kms = sse.as_deref().is_some_and(|sse| sse.starts_with("aws:kms"));
        if kms_key.is_some() && !is_kms {
            return Err(invalid_argument(
                "Server Side Encryption with AWS KMS managed key requires HTTP header \
                 x-amz-server-side-encryption : aws:kms",
            ));
        }
        Ok(Self { sse, kms_key, bucket_key: bucket_key.map(|value| value == "true") })
    }

    /// Whether S3 would give ETags that are not the MD5 of the content.
    pub(super) fn hides_md5(&self) -> bool {
        self.sse.as_deref().is_some_and(|sse| sse != "AES256")
    }
}

impl Head {
    /// # Errors
    /// Headers that are no text, metadata beyond 2 KB, an unknown encryption.
    pub(super) fn of_headers(headers: &HeaderMap) -> S3Result<Self> {
        Ok(Self {
            content_type: text(headers, "content-type")?,
            cache_control: text(headers, "cache-control")?,
            content_disposition: text(headers, "content-disposition")?,
            content_encoding: text(headers, "content-encoding")?.and_then(without_aws_chunked),
            content_language: text(headers, "content-language")?,
            expires: text(headers, "expires")?,
            metadata: user_metadata(headers)?,
            encryption: Encryption::of_headers(headers)?,
        })
    }

    pub(super) fn content_type(&self) -> String {
        self.content_type.clone().unwrap_or_else(|| "binary/octet-stream".to_owned())
    }
}

fn text(headers: &HeaderMap, name: &str) -> S3Result<Option<String>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let value = std::str::from_utf8(value.as_bytes())
        .map_err(|_| invalid_argument(format!("The header {name} is not UTF-8.")))?;
    Ok((!value.is_empty()).then(|| value.to_owned()))
}

/// `aws-chunked` tells how the body was sent, not what it is.
fn without_aws_chunked(value: String) -> Option<String> {
    let kept: Vec<&str> =
        value.split(',').map(str::trim).filter(|coding| *coding != "aws-chunked").collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

/// Read from the raw headers: s3s decodes RFC 2047 words, and S3 gives back what it was given.
fn user_metadata(headers: &HeaderMap) -> S3Result<BTreeMap<String, String>> {
    let mut metadata = BTreeMap::new();
    let mut size_bytes = 0;
    for name in headers.keys() {
        let Some(short) = name.as_str().strip_prefix("x-amz-meta-") else { continue };
        let mut values = Vec::new();
        for value in headers.get_all(name) {
            let value = std::str::from_utf8(value.as_bytes())
                .map_err(|_| invalid_argument(format!("The header {name} is not UTF-8.")))?;
            values.push(value);
        }
        let value = values.join(",");
        size_bytes += short.len() + value.len();
        metadata.insert(short.to_owned(), value);
    }
    if size_bytes > METADATA_MAX_BYTES {
        return Err(refuse(
            S3ErrorCode::MetadataTooLarge,
            format!(
                "Your metadata headers exceed the maximum allowed metadata size: {size_bytes} of \
                 {METADATA_MAX_BYTES} bytes."
            ),
        ));
    }
    Ok(metadata)
}

/// The tags of one object, in the order they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Tags(pub(super) Vec<(String, String)>);

impl Tags {
    /// Of an `x-amz-tagging` header: `a=1&b=2`, URL-encoded.
    pub(super) fn of_header(header: Option<&str>) -> S3Result<Self> {
        let mut tags = Vec::new();
        for pair in header.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            tags.push((form_decoded(key)?, form_decoded(value)?));
        }
        Self::checked(tags)
    }

    /// # Errors
    /// More than 10, a key or value that is too long or has characters S3 does not take, a key
    /// given twice, a key reserved for AWS.
    pub(super) fn checked(tags: Vec<(String, String)>) -> S3Result<Self> {
        if tags.len() > TAGS_MAX {
            return Err(refuse_as("BadRequest", 400, "Object tags cannot be greater than 10"));
        }
        for (index, (key, value)) in tags.iter().enumerate() {
            let invalid = |what: &str| Err(refuse(S3ErrorCode::InvalidTag, what));
            if !(1..=TAG_KEY_MAX_CHARS).contains(&key.chars().count()) || !key.chars().all(tag_char)
            {
                return invalid("The TagKey you have provided is invalid");
            }
            if value.chars().count() > TAG_VALUE_MAX_CHARS || !value.chars().all(tag_char) {
                return invalid("The TagValue you have provided is invalid");
            }
            if key.starts_with("aws:") {
                return invalid("System tags cannot be added/updated by requester");
            }
            if tags[..index].iter().any(|(earlier, _)| earlier == key) {
                return invalid("Cannot provide multiple Tags with the same key");
            }
        }
        Ok(Self(tags))
    }
}

fn tag_char(c: char) -> bool {
    c.is_alphanumeric() || c == ' ' || "+-=._:/@".contains(c)
}

/// Decodes one name or value of `application/x-www-form-urlencoded`.
pub(super) fn form_decoded(text: &str) -> S3Result<String> {
    let spaced = text.replace('+', " ");
    match percent_encoding::percent_decode_str(&spaced).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(invalid_request(format!("{text:?} is not URL-encoded UTF-8."))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_aws_chunked_is_stripped_from_the_content_encoding() {
        let stripped = |value: &str| without_aws_chunked(value.to_owned());
        assert_eq!(stripped("aws-chunked"), None);
        assert_eq!(stripped("aws-chunked,gzip"), Some("gzip".into()));
        assert_eq!(stripped("gzip, aws-chunked"), Some("gzip".into()));
        assert_eq!(stripped("br"), Some("br".into()));
    }

    #[test]
    fn tags_of_a_header_are_decoded_and_checked() {
        let tags = Tags::of_header(Some("a=1&b%20c=x%2By+z&d")).unwrap();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(tags.0, [pair("a", "1"), pair("b c", "x+y z"), pair("d", "")]);
        let code = |header: &str| Tags::of_header(Some(header)).unwrap_err().code().clone();
        assert_eq!(code("a=1&a=2"), S3ErrorCode::InvalidTag);
        assert_eq!(code("a=%3C"), S3ErrorCode::InvalidTag);
        assert_eq!(code("aws:x=1"), S3ErrorCode::InvalidTag);
        assert_eq!(code(&format!("{}=1", "k".repeat(129))), S3ErrorCode::InvalidTag);
        let eleven: Vec<String> = (0..11).map(|n| format!("k{n}=v")).collect();
        assert_eq!(code(&eleven.join("&")).as_str(), "BadRequest");
    }
}
