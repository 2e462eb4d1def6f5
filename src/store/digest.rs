//! The digests of S3: MD5 for ETags, and the five checksum algorithms; computed over a stream,
//! compared with what the client claims, and combined over the parts of an upload.
//!
//! Arithmetic only. Claims are read from request headers and trailers as S3 names them
//! (docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html). Used by
//! `intake`, `api::copy` and `api::complete`.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc_fast::CrcAlgorithm;
use http::HeaderMap;
use s3s::crypto::{Checksum as _, Md5, Sha1, Sha256};
use s3s::{S3ErrorCode, S3Result};

use super::fault::{invalid_request, not_carried, refuse, refuse_as};

/// A checksum algorithm of S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// As in `x-amz-checksum-algorithm`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// By its name in any case: headers carry it in lower case.
    pub(super) fn by_name(name: &str) -> S3Result<Self> {
        let known = Self::ALL.into_iter().find(|a| a.name().eq_ignore_ascii_case(name));
        known.ok_or_else(|| not_carried(&format!("the checksum algorithm {name}")))
    }

    fn size_bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// The CRC behind it, if it is one: only these can be combined.
    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }

    /// What S3 takes for a multipart upload that names the algorithm only.
    pub(super) fn default_kind(self) -> Kind {
        if self == Self::Crc64Nvme { Kind::FullObject } else { Kind::Composite }
    }

    /// Whether a multipart upload can have a checksum of this kind.
    pub(super) fn allows(self, kind: Kind) -> bool {
        match kind {
            Kind::FullObject => self.crc().is_some(),
            Kind::Composite => self != Self::Crc64Nvme,
        }
    }
}

/// What a checksum of a multipart object is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    FullObject,
    /// Over the digests of the parts, written `base64-N`.
    Composite,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FullObject => "FULL_OBJECT",
            Self::Composite => "COMPOSITE",
        }
    }

    pub(super) fn by_name(name: &str) -> S3Result<Self> {
        [Self::FullObject, Self::Composite]
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| invalid_request("Value for x-amz-checksum-type header is invalid."))
    }
}

/// A checksum as S3 shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checksum {
    pub(super) algorithm: Algorithm,
    pub(super) kind: Kind,
    /// Base64, with `-N` when composite.
    pub(super) value: String,
}

impl Checksum {
    pub(super) fn full(algorithm: Algorithm, digest: &[u8]) -> Self {
        Self { algorithm, kind: Kind::FullObject, value: BASE64.encode(digest) }
    }
}

/// The form in the index: `ALGORITHM KIND value`.
impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.algorithm.name(), self.kind.name(), self.value)
    }
}

impl FromStr for Checksum {
    type Err = s3s::S3Error;

    fn from_str(text: &str) -> S3Result<Self> {
        let mut words = text.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default();
        Ok(Self {
            algorithm: Algorithm::by_name(word())?,
            kind: Kind::by_name(word())?,
            value: word().to_owned(),
        })
    }
}

enum Extra {
    Crc(crc_fast::Digest),
    Sha1(Sha1),
    Sha256(Sha256),
}

/// Digests of a stream of bytes.
pub(super) struct Digests {
    size_bytes: u64,
    md5: Md5,
    crc64: crc_fast::Digest,
    extra: Option<(Algorithm, Extra)>,
}

/// The digests of a whole body. CRC64NVME is always there: every object has it.
#[derive(Clone, Debug)]
pub(super) struct Sums {
    pub(super) size_bytes: u64,
    pub(super) md5: [u8; 16],
    pub(super) crc64: u64,
    extra: Option<(Algorithm, Vec<u8>)>,
}

/// How much is hashed by one algorithm before the next one's turn, so that all read it from cache.
const SLICE_BYTES: usize = 128 * 1024;

impl Digests {
    /// MD5, CRC64NVME, and `algorithm` if that is another one.
    pub(super) fn new(algorithm: Option<Algorithm>) -> Self {
        let extra = algorithm.filter(|a| *a != Algorithm::Crc64Nvme).map(|algorithm| {
            let digest = match (algorithm.crc(), algorithm) {
                (Some(crc), _) => Extra::Crc(crc_fast::Digest::new(crc)),
                (None, Algorithm::Sha1) => Extra::Sha1(Sha1::new()),
                (None, _) => Extra::Sha256(Sha256::new()),
            };
            (algorithm, digest)
        });
        let crc64 = crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme);
        Self { size_bytes: 0, md5: Md5::new(), crc64, extra }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.size_bytes += bytes.len() as u64;
        for slice in bytes.chunks(SLICE_BYTES) {
            self.md5.update(slice);
            self.crc64.update(slice);
            match &mut self.extra {
                None => {}
                Some((_, Extra::Crc(digest))) => digest.update(slice),
                Some((_, Extra::Sha1(digest))) => digest.update(slice),
                Some((_, Extra::Sha256(digest))) => digest.update(slice),
            }
        }
    }

    pub(super) fn finish(self) -> Sums {
        let extra = self.extra.map(|(algorithm, digest)| {
            let bytes = match digest {
                Extra::Crc(digest) => crc_bytes(algorithm, digest.finalize()),
                Extra::Sha1(digest) => digest.finalize().to_vec(),
                Extra::Sha256(digest) => digest.finalize().to_vec(),
            };
            (algorithm, bytes)
        });
        Sums {
            size_bytes: self.size_bytes,
            md5: self.md5.finalize(),
            crc64: self.crc64.finalize(),
            extra,
        }
    }
}

impl Sums {
    /// The one checksum S3 keeps: that of the algorithm asked for, else CRC64NVME.
    pub(super) fn checksum(&self) -> Checksum {
        match &self.extra {
            Some((algorithm, digest)) => Checksum::full(*algorithm, digest),
            None => Checksum::full(Algorithm::Crc64Nvme, &self.crc64.to_be_bytes()),
        }
    }
}

fn crc_bytes(algorithm: Algorithm, crc: u64) -> Vec<u8> {
    crc.to_be_bytes()[8 - algorithm.size_bytes()..].to_vec()
}

/// What a client claims of the body it sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    md5: Option<[u8; 16]>,
    checksum: Option<(Algorithm, String)>,
    /// Announced in `x-amz-trailer`; the value comes after the body.
    trailer: Option<Algorithm>,
}

impl Claim {
    /// # Errors
    /// A malformed or doubled claim, or an algorithm that is not carried.
    pub(super) fn of_headers(headers: &HeaderMap) -> S3Result<Self> {
        let md5 = match headers.get("content-md5") {
            None => None,
            Some(value) => {
                let digest = BASE64.decode(value).ok().and_then(|bytes| bytes.try_into().ok());
                Some(digest.ok_or_else(|| {
                    refuse(S3ErrorCode::InvalidDigest, "The Content-MD5 you specified is invalid.")
                })?)
            }
        };
        let checksum = claimed_checksum(headers)?;
        let trailer = match headers.get("x-amz-trailer").and_then(|v| v.to_str().ok()) {
            None => None,
            Some(name) => Some(Algorithm::by_name(
                name.trim().strip_prefix("x-amz-checksum-").unwrap_or(name),
            )?),
        };
        if checksum.is_some() && trailer.is_some() {
            return Err(several_checksums());
        }
        if checksum.is_none() && trailer.is_none() && headers.contains_key(SDK_ALGORITHM) {
            return Err(invalid_request(
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* \
                 or x-amz-trailer headers were found.",
            ));
        }
        Ok(Self { md5, checksum, trailer })
    }

    /// The algorithm the body must be hashed with to check the claim.
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        self.checksum.as_ref().map(|(algorithm, _)| *algorithm).or(self.trailer)
    }

    /// Takes the announced checksum from the trailers, which came after the body.
    pub(super) fn add_trailers(&mut self, trailers: Option<&HeaderMap>) -> S3Result<()> {
        let Some(announced) = self.trailer else { return Ok(()) };
        self.checksum = trailers.map(claimed_checksum).transpose()?.flatten();
        if self.checksum.as_ref().map(|(algorithm, _)| *algorithm) == Some(announced) {
            return Ok(());
        }
        Err(refuse_as(
            "MalformedTrailerError",
            400,
            "The request contained trailing data that was not well-formed or did not conform to \
             our published schema.",
        ))
    }

    /// Compares the claim with what came.
    pub(super) fn check(&self, sums: &Sums) -> S3Result<()> {
        if self.md5.is_some_and(|claimed| claimed != sums.md5) {
            return Err(refuse(
                S3ErrorCode::BadDigest,
                "The Content-MD5 you specified did not match what we received.",
            ));
        }
        match &self.checksum {
            Some((algorithm, claimed)) if *claimed != sums.checksum().value => {
                Err(bad_checksum(*algorithm))
            }
            _ => Ok(()),
        }
    }
}

const SDK_ALGORITHM: &str = "x-amz-sdk-checksum-algorithm";

pub(super) fn bad_checksum(algorithm: Algorithm) -> s3s::S3Error {
    let name = algorithm.name();
    refuse(
        S3ErrorCode::BadDigest,
        format!("The {name} you specified did not match the calculated checksum."),
    )
}

fn several_checksums() -> s3s::S3Error {
    invalid_request(
        "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
    )
}

/// The one `x-amz-checksum-*` of a request, as base64; composite values keep their `-N`.
///
/// # Errors
/// More than one, a value that is no digest of its algorithm, or an algorithm not carried.
pub(super) fn claimed_checksum(headers: &HeaderMap) -> S3Result<Option<(Algorithm, String)>> {
    let mut claimed = None;
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("x-amz-checksum-") else { continue };
        if matches!(name, "algorithm" | "type" | "mode") {
            continue;
        }
        let algorithm = Algorithm::by_name(name)?;
        let value = value.to_str().unwrap_or_default();
        let digest = value.split_once('-').map_or(value, |(digest, _)| digest);
        let size_bytes = BASE64.decode(digest).map_or(0, |bytes| bytes.len());
        if size_bytes != algorithm.size_bytes() {
            let message = format!("Value for x-amz-checksum-{name} header is invalid.");
            return Err(invalid_request(message));
        }
        if claimed.replace((algorithm, value.to_owned())).is_some() {
            return Err(several_checksums());
        }
    }
    Ok(claimed)
}

/// The checksum of an object from those of its parts, each base64 with its size in bytes.
/// `None` when a part has no checksum of this algorithm, or the algorithm cannot do this kind.
pub(super) fn of_parts<'a>(
    algorithm: Algorithm,
    kind: Kind,
    parts: impl ExactSizeIterator<Item = (Option<&'a str>, u64)>,
) -> Option<Checksum> {
    let count = parts.len();
    let mut digests = Vec::with_capacity(count);
    for (value, size_bytes) in parts {
        digests.push((BASE64.decode(value?).ok()?, size_bytes));
    }
    let value = match kind {
        Kind::FullObject => {
            let crcs = digests.iter().map(|(digest, size)| (crc_of_bytes(digest), *size));
            let crc = combined_crc(algorithm, crcs)?;
            BASE64.encode(crc_bytes(algorithm, crc))
        }
        Kind::Composite => {
            let mut over = Digests::new(Some(algorithm));
            digests.iter().for_each(|(digest, _)| over.update(digest));
            format!("{}-{count}", over.finish().checksum().value)
        }
    };
    Some(Checksum { algorithm, kind, value })
}

fn crc_of_bytes(digest: &[u8]) -> u64 {
    digest.iter().fold(0, |crc, byte| crc << 8 | u64::from(*byte))
}

/// The CRC of bytes from the CRCs and sizes of consecutive pieces.
pub(super) fn combined_crc(
    algorithm: Algorithm,
    pieces: impl Iterator<Item = (u64, u64)>,
) -> Option<u64> {
    let crc = algorithm.crc()?;
    let combine = |(whole, size_bytes): (u64, u64)| {
        move |piece: u64| crc_fast::checksum_combine(crc, whole, piece, size_bytes)
    };
    pieces.fold(None, |whole: Option<u64>, (piece, size_bytes)| match whole {
        None => Some(piece),
        Some(whole) => Some(combine((whole, size_bytes))(piece)),
    })
}

/// The ETag, without quotes, of a body that came in one piece.
pub(super) fn etag(md5: &[u8; 16]) -> String {
    md5.iter().fold(String::with_capacity(32), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The ETag, without quotes, of a multipart object: `hex-N`. `None` when an ETag is not 32 hex
/// digits.
pub(super) fn etag_of_parts<'a>(etags: impl ExactSizeIterator<Item = &'a str>) -> Option<String> {
    let count = etags.len();
    let mut over = Md5::new();
    for etag in etags {
        let mut bytes = [0; 16];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(etag.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        over.update(&bytes);
    }
    Some(format!("{}-{count}", etag(&over.finalize())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(algorithm: Algorithm, bytes: &[u8]) -> Sums {
        let mut digests = Digests::new(Some(algorithm));
        bytes.chunks(7).for_each(|chunk| digests.update(chunk));
        digests.finish()
    }

    #[test]
    fn checksums_have_their_published_values() {
        for (algorithm, value) in [
            (Algorithm::Crc32, "y/Q5Jg=="),
            (Algorithm::Crc32c, "4waSgw=="),
            (Algorithm::Crc64Nvme, "rosUhgp5mIg="),
            (Algorithm::Sha1, "98O8HYCOBHMq32eZZczDTKeuNEE="),
            (Algorithm::Sha256, "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="),
        ] {
            let checksum = sums(algorithm, b"123456789").checksum();
            assert_eq!((checksum.algorithm, checksum.value.as_str()), (algorithm, value));
            assert_eq!(checksum.to_string().parse::<Checksum>().unwrap(), checksum);
        }
        let md5 = sums(Algorithm::Crc32, b"123456789").md5;
        assert_eq!(etag(&md5), "25f9e794323b453885f5181f1b624d0b");
    }

    #[test]
    fn crcs_of_pieces_combine_to_that_of_the_whole() {
        let whole: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            for cuts in [vec![10_000], vec![0, 1, 9_999], vec![3_333, 3_333, 0, 3_334]] {
                let mut rest = whole.as_slice();
                let mut pieces = Vec::new();
                for cut in cuts {
                    let (piece, behind) = rest.split_at(cut);
                    pieces.push((sums(algorithm, piece).checksum().value, cut as u64));
                    rest = behind;
                }
                let pieces = pieces.iter().map(|(value, size)| (Some(value.as_str()), *size));
                let combined = of_parts(algorithm, Kind::FullObject, pieces).unwrap();
                assert_eq!(combined, sums(algorithm, &whole).checksum());
            }
        }
        let sha = [(Some("98O8HYCOBHMq32eZZczDTKeuNEE="), 9)].into_iter();
        assert_eq!(of_parts(Algorithm::Sha1, Kind::FullObject, sha), None);
    }
}
