//! The checksum that S3 keeps beside content: how requests carry it, and how replies tell it.
//!
//! An upload in parts that was opened with a checksum must go on with it, also after a restart.
//! The upload id that leaves this module says so: `crc64/ID`, `sha256-parts/ID`, `plain/ID`.

use aws_sdk_s3::types::ChecksumType;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::model::Checksum;
use crate::model::checksum::{Algorithm, Form, Over};

/// What a reply of the SDK tells of each algorithm. Its types have a function for each.
macro_rules! checksums {
    ($reply:expr) => {{
        use $crate::model::checksum::Algorithm;
        [
            (Algorithm::Crc64Nvme, $reply.checksum_crc64_nvme()),
            (Algorithm::Crc32, $reply.checksum_crc32()),
            (Algorithm::Crc32c, $reply.checksum_crc32_c()),
            (Algorithm::Sha1, $reply.checksum_sha1()),
            (Algorithm::Sha256, $reply.checksum_sha256()),
            (Algorithm::Sha512, $reply.checksum_sha512()),
            (Algorithm::Md5, $reply.checksum_md5()),
            (Algorithm::Xxhash64, $reply.checksum_xxhash64()),
            (Algorithm::Xxhash3, $reply.checksum_xxhash3()),
            (Algorithm::Xxhash128, $reply.checksum_xxhash128()),
        ]
    }};
}

/// Puts an `Option<&Checksum>` into a request, or a part of one.
macro_rules! with_checksum {
    ($request:expr, $checksum:expr) => {{
        use $crate::model::checksum::Algorithm;
        let (request, checksum) = ($request, $checksum);
        let value = checksum.map($crate::s3::checksum::base64);
        match checksum.map(|checksum| checksum.form.algorithm) {
            None => request,
            Some(Algorithm::Crc64Nvme) => request.set_checksum_crc64_nvme(value),
            Some(Algorithm::Crc32) => request.set_checksum_crc32(value),
            Some(Algorithm::Crc32c) => request.set_checksum_crc32_c(value),
            Some(Algorithm::Sha1) => request.set_checksum_sha1(value),
            Some(Algorithm::Sha256) => request.set_checksum_sha256(value),
            Some(Algorithm::Sha512) => request.set_checksum_sha512(value),
            Some(Algorithm::Md5) => request.set_checksum_md5(value),
            Some(Algorithm::Xxhash64) => request.set_checksum_xxhash64(value),
            Some(Algorithm::Xxhash3) => request.set_checksum_xxhash3(value),
            Some(Algorithm::Xxhash128) => request.set_checksum_xxhash128(value),
        }
    }};
}

pub(super) use {checksums, with_checksum};

/// What [`checksums!`] gives.
pub(super) type Values<'a> = [(Algorithm, Option<&'a str>); 10];

/// The one checksum of a reply. S3 writes one over parts as `digest-N`.
pub(super) fn read(values: &Values<'_>, kind: Option<&ChecksumType>) -> Option<Checksum> {
    let told = |(algorithm, value): &(Algorithm, Option<&str>)| {
        let (digest, over) = match value.as_ref()?.split_once('-') {
            Some((digest, _)) => (digest, Over::Parts),
            None if kind == Some(&ChecksumType::Composite) => (*value.as_ref()?, Over::Parts),
            None => (*value.as_ref()?, Over::Content),
        };
        let form = Form { algorithm: *algorithm, over };
        Some(Checksum { form, digest: BASE64.decode(digest).ok()?.into() })
    };
    values.iter().find_map(told)
}

pub(super) fn base64(checksum: &Checksum) -> String {
    BASE64.encode(&checksum.digest)
}

const PLAIN: &str = "plain";
/// As journals of the first releases have it.
const USUAL: &str = "crc64";
const OF_PARTS: &str = "-parts";

/// The id of an upload whose requests carry checksums of this form.
pub(super) fn write_id(form: Option<Form>, id: &str) -> String {
    let word = match form {
        None => PLAIN.to_owned(),
        Some(Form::USUAL) => USUAL.to_owned(),
        Some(Form { algorithm, over }) => {
            let suffix = if over == Over::Parts { OF_PARTS } else { "" };
            format!("{}{suffix}", algorithm.name().to_lowercase())
        }
    };
    format!("{word}/{id}")
}

/// The server's own id, and the form of the checksums that the upload's requests carry.
pub(super) fn read_id(upload_id: &str) -> (&str, Option<Form>) {
    let Some((word, id)) = upload_id.split_once('/') else { return (upload_id, None) };
    if word == PLAIN || word == USUAL {
        return (id, (word == USUAL).then_some(Form::USUAL));
    }
    let (name, over) = match word.strip_suffix(OF_PARTS) {
        Some(name) => (name, Over::Parts),
        None => (word, Over::Content),
    };
    match Algorithm::by_name(&name.to_uppercase()) {
        Some(algorithm) => (id, Some(Form { algorithm, over })),
        None => (upload_id, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told<'a>(algorithm: Algorithm, value: &'a str) -> Values<'a> {
        Algorithm::ALL.map(|one| (one, (one == algorithm).then_some(value)))
    }

    #[test]
    fn a_checksum_is_read_as_s3_writes_it() {
        let whole = Checksum::of(Algorithm::Crc32, b"abc").unwrap();
        let text = base64(&whole);
        assert_eq!(text, "NSRBwg==");
        assert_eq!(read(&told(Algorithm::Crc32, &text), None), Some(whole.clone()));
        let full = Some(&ChecksumType::FullObject);
        assert_eq!(read(&told(Algorithm::Crc32, &text), full), Some(whole));
        let composite = Some(&ChecksumType::Composite);
        for (text, kind) in [("NSRBwg==-2", composite), ("NSRBwg==-2", None), (&text, composite)] {
            let read = read(&told(Algorithm::Crc32, text), kind).unwrap();
            assert_eq!((read.form.over, base64(&read)), (Over::Parts, "NSRBwg==".to_owned()));
        }
        assert_eq!(read(&told(Algorithm::Crc32, "no base64!"), None), None);
        assert_eq!(read(&Algorithm::ALL.map(|one| (one, None)), None), None);
    }

    #[test]
    fn ids_say_how_an_upload_goes_on() {
        for algorithm in Algorithm::ALL {
            for over in [Over::Content, Over::Parts] {
                let form = Some(Form { algorithm, over });
                assert_eq!(read_id(&write_id(form, "a/b-parts")), ("a/b-parts", form));
            }
        }
        assert_eq!(write_id(Some(Form::USUAL), "x"), "crc64/x");
        assert_eq!(read_id(&write_id(None, "x")), ("x", None));
        for foreign in ["x", "x/y", "x-parts/y"] {
            assert_eq!(read_id(foreign), (foreign, None));
        }
    }
}
