//! Names in listings as S3 encodes them for `encoding-type=url`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::S3Result;
use s3s::dto::EncodingType;

use crate::store::fault::invalid_argument;

/// What S3 leaves as it is: that of `application/x-www-form-urlencoded`, and the slash.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'*').remove(b'_').remove(b'/').remove(b' ');

/// How the names of one answer are written.
#[derive(Clone, Copy)]
pub(super) enum Names {
    AsTheyAre,
    UrlEncoded,
}

impl Names {
    pub(super) fn of_request(encoding_type: Option<&EncodingType>) -> S3Result<Self> {
        match encoding_type.map(EncodingType::as_str) {
            None => Ok(Self::AsTheyAre),
            Some("url") => Ok(Self::UrlEncoded),
            Some(_) => Err(invalid_argument("Invalid Encoding Method specified in Request")),
        }
    }

    /// A space becomes `+`, as S3 has it: clients must decode forms, not paths.
    pub(super) fn write(self, name: &str) -> String {
        match self {
            Self::AsTheyAre => name.to_owned(),
            Self::UrlEncoded => utf8_percent_encode(name, ENCODED).to_string().replace(' ', "+"),
        }
    }

    /// For the answer's own `EncodingType`.
    pub(super) fn encoding_type(self) -> Option<EncodingType> {
        match self {
            Self::AsTheyAre => None,
            Self::UrlEncoded => Some(EncodingType::from_static(EncodingType::URL)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_like_forms_but_keep_their_slashes() {
        let encoded = Names::UrlEncoded.write("a b+c/d%e(3)~é*_.-\u{1}\n");
        assert_eq!(encoded, "a+b%2Bc/d%25e%283%29%7E%C3%A9*_.-%01%0A");
        assert_eq!(Names::AsTheyAre.write("a b+c"), "a b+c");
    }
}
