//! What content is known by: MD5 (whole or composite over parts), CRC64NVME, ETags.
//!
//! Digest arithmetic only: the bytes come from the caller.

use std::fmt;
use std::str::FromStr;

use md5::Digest as _;

/// An MD5 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Md5(pub [u8; 16]);

impl Md5 {
    pub fn of(bytes: &[u8]) -> Self {
        Self(md5::Md5::digest(bytes).into())
    }
}

impl fmt::Display for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Md5 {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(());
        }
        let mut digest = [0; 16];
        for (index, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| ())?;
        }
        Ok(Self(digest))
    }
}

/// CRC-64/NVME, S3's default full-object checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crc64(pub u64);

impl Crc64 {
    pub const EMPTY: Self = Self(0);

    pub fn of(bytes: &[u8]) -> Self {
        Self(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes))
    }

    /// The checksum of this content followed by `next`, which is `next_bytes` long.
    pub fn then(self, next: Self, next_bytes: u64) -> Self {
        let algorithm = crc_fast::CrcAlgorithm::Crc64Nvme;
        Self(crc_fast::checksum_combine(algorithm, self.0, next.0, next_bytes))
    }

    /// As S3's headers carry it before base64: big-endian bytes.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

/// MD5 and CRC64NVME of content that comes in slices.
pub struct Digester {
    md5: md5::Md5,
    crc64: crc_fast::Digest,
    bytes: u64,
}

impl Default for Digester {
    fn default() -> Self {
        let crc64 = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
        Self { md5: md5::Md5::new(), crc64, bytes: 0 }
    }
}

impl Digester {
    pub fn update(&mut self, slice: &[u8]) {
        self.md5.update(slice);
        self.crc64.update(slice);
        self.bytes += slice.len() as u64;
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn finish(self) -> (Md5, Crc64) {
        (Md5(self.md5.finalize().into()), Crc64(self.crc64.finalize()))
    }
}

/// The MD5 that S3's ETag shows where it shows one: of the whole content for a single PUT
/// (`parts` 0), or the MD5 over the parts' MD5s for a multipart upload (`hex-N`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentMd5 {
    pub digest: Md5,
    /// Number of parts; 0 when the content was sent whole.
    pub parts: u32,
    /// Bytes of each part but the last; 0 when the content was sent whole.
    pub part_size: u64,
}

impl ContentMd5 {
    pub fn whole(digest: Md5) -> Self {
        Self { digest, parts: 0, part_size: 0 }
    }

    /// The composite digest over the parts, in order.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a Md5>, part_size: u64) -> Self {
        let mut hasher = md5::Md5::new();
        let mut count = 0;
        for part in parts {
            hasher.update(part.0);
            count += 1;
        }
        Self { digest: Md5(hasher.finalize().into()), parts: count, part_size }
    }

    /// Whether an ETag says that the object has this content. `None` when the ETag is not an MD5 of
    /// this shape, and so says nothing.
    pub fn matches(&self, etag: &ETag) -> Option<bool> {
        let (digest, parts) = etag.as_md5()?;
        (parts == self.parts).then_some(digest == self.digest)
    }

    /// Reads [`fmt::Display`]'s form.
    pub fn parse(text: &str, part_size: u64) -> Option<Self> {
        let (digest, parts) = ETag::new(text).as_md5()?;
        Some(Self { digest, parts, part_size })
    }
}

/// `hex`, or `hex-N` over N parts: the form of S3's ETags.
impl fmt::Display for ContentMd5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts {
            0 => write!(f, "{}", self.digest),
            parts => write!(f, "{}-{parts}", self.digest),
        }
    }
}

impl fmt::Debug for ContentMd5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An ETag without its quotes. Opaque, except where it has the form of an MD5.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ETag(Box<str>);

impl ETag {
    pub fn new(text: &str) -> Self {
        Self(text.trim_start_matches("W/").trim_matches('"').into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As the `If-Match` header wants it.
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }

    /// Digest and number of parts (0: sent whole), when it has the form of an MD5.
    pub fn as_md5(&self) -> Option<(Md5, u32)> {
        match self.0.split_once('-') {
            None => Some((self.0.parse().ok()?, 0)),
            Some((digest, parts)) => {
                let parts = parts.parse().ok().filter(|n| (1..=10_000).contains(n))?;
                Some((digest.parse().ok()?, parts))
            }
        }
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digests() {
        assert_eq!(Md5::of(b"").to_string(), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(Md5::of(b"abc").to_string().parse(), Ok(Md5::of(b"abc")));
        // The check value of CRC-64/NVME.
        assert_eq!(Crc64::of(b"123456789"), Crc64(0xae8b_1486_0a79_9888));
        let whole = Crc64::of(b"123456789");
        assert_eq!(Crc64::of(b"1234").then(Crc64::of(b"56789"), 5), whole);
        assert_eq!(Crc64::EMPTY.then(whole, 9), whole);
        let mut digester = Digester::default();
        digester.update(b"1234");
        digester.update(b"56789");
        assert_eq!(digester.bytes(), 9);
        assert_eq!(digester.finish(), (Md5::of(b"123456789"), whole));
    }

    #[test]
    fn composite_digest_is_the_md5_over_the_parts_digests() {
        let parts = [Md5::of(b"aaaa"), Md5::of(b"bb")];
        let composite = ContentMd5::of_parts(&parts, 4);
        let joined = [parts[0].0, parts[1].0].concat();
        assert_eq!(composite.to_string(), format!("{}-2", Md5::of(&joined)));
        assert_eq!(ContentMd5::parse(&composite.to_string(), 4), Some(composite));
        assert_eq!(composite.matches(&ETag::new(&format!("\"{composite}\""))), Some(true));
        assert_eq!(composite.matches(&ETag::new(&Md5::of(b"x").to_string())), None);
        let whole = ContentMd5::whole(Md5::of(b"x"));
        assert_eq!(whole.matches(&ETag::new(&Md5::of(b"y").to_string())), Some(false));
    }

    #[test]
    fn etags_that_are_no_md5_say_nothing() {
        for text in [
            "",
            "abc",
            "d41d8cd98f00b204e9800998ecf8427",
            "zz1d8cd98f00b204e9800998ecf8427e",
            "d41d8cd98f00b204e9800998ecf8427e-0",
            "d41d8cd98f00b204e9800998ecf8427e-x",
        ] {
            assert_eq!(ETag::new(text).as_md5(), None, "{text}");
        }
        assert!(ETag::new("W/\"d41d8cd98f00b204e9800998ecf8427e\"").as_md5().is_some());
    }
}
