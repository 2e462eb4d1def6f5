//! The checksum that S3 keeps beside an object, in whichever algorithm it was sent with.
//!
//! Algorithms and kinds as in
//! docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html. Names and
//! arithmetic only: they are read and written where requests are.

use crc_fast::CrcAlgorithm;
use sha2::Digest as _;

use super::Crc64;

/// An algorithm, by S3's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
    Sha512,
    Md5,
    Xxhash64,
    Xxhash3,
    Xxhash128,
}

impl Algorithm {
    pub const ALL: [Self; 10] = [
        Self::Crc32,
        Self::Crc32c,
        Self::Crc64Nvme,
        Self::Sha1,
        Self::Sha256,
        Self::Sha512,
        Self::Md5,
        Self::Xxhash64,
        Self::Xxhash3,
        Self::Xxhash128,
    ];

    /// As in `x-amz-checksum-algorithm`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
            Self::Sha512 => "SHA512",
            Self::Md5 => "MD5",
            Self::Xxhash64 => "XXHASH64",
            Self::Xxhash3 => "XXHASH3",
            Self::Xxhash128 => "XXHASH128",
        }
    }

    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            _ => None,
        }
    }

    /// Whether the checksum of a whole follows from those of its parts. Only such a one can be of
    /// the full object where that is sent in parts.
    pub fn joins(self) -> bool {
        self.crc().is_some()
    }

    /// Whether this program makes such checksums for an object.
    pub fn is_made_here(self) -> bool {
        // An MD5 is compared, and sent as it always was.
        self != Self::Md5 && Hasher::new(self).is_some()
    }
}

/// What a checksum is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// `FULL_OBJECT`: the content, however it was sent.
    Content,
    /// `COMPOSITE`: the digests of the parts it was sent in.
    Parts,
}

/// The form of a checksum, apart from its value: what a copy can be asked to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub algorithm: Algorithm,
    pub over: Over,
}

impl Form {
    /// What S3 keeps where nothing else is asked for.
    pub const USUAL: Self = Self { algorithm: Algorithm::Crc64Nvme, over: Over::Content };

    /// The form that an object sent in parts can have: a digest that cannot be joined is over the
    /// digests of the parts.
    pub fn in_parts(self) -> Self {
        let over = if self.algorithm.joins() { self.over } else { Over::Parts };
        Self { over, ..self }
    }
}

/// A checksum as S3 shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    pub form: Form,
    pub digest: Box<[u8]>,
}

impl Checksum {
    /// Of a whole content, where it is a CRC64NVME.
    pub fn crc64(&self) -> Option<Crc64> {
        let digest = (self.form == Form::USUAL).then_some(&*self.digest)?;
        Some(Crc64(u64::from_be_bytes(digest.try_into().ok()?)))
    }

    /// Of this content. `None`: such are not made here.
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Option<Self> {
        let mut hasher = Hasher::new(algorithm)?;
        hasher.update(content);
        let form = Form { algorithm, over: Over::Content };
        Some(Self { form, digest: hasher.finish() })
    }

    /// Whether both are of one content. `None` where they cannot be compared: digests over parts
    /// differ also where only the cuts do.
    pub fn agrees(&self, other: &Self) -> Option<bool> {
        // A digest of another length is of another algorithm, whatever a server calls it.
        if self.form != other.form || self.digest.len() != other.digest.len() {
            return None;
        }
        let equal = self.digest == other.digest;
        (equal || self.form.over == Over::Content).then_some(equal)
    }
}

enum Hasher {
    Crc(crc_fast::Digest, usize),
    Md5(md5::Md5),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Option<Self> {
        Some(match algorithm {
            Algorithm::Crc32 | Algorithm::Crc32c => {
                Self::Crc(crc_fast::Digest::new(algorithm.crc()?), size_of::<u32>())
            }
            Algorithm::Crc64Nvme => {
                Self::Crc(crc_fast::Digest::new(algorithm.crc()?), size_of::<u64>())
            }
            Algorithm::Md5 => Self::Md5(md5::Md5::new()),
            Algorithm::Sha1 => Self::Sha1(sha1::Sha1::new()),
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            _ => return None,
        })
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc(digest, _) => digest.update(bytes),
            Self::Md5(digest) => digest.update(bytes),
            Self::Sha1(digest) => digest.update(bytes),
            Self::Sha256(digest) => digest.update(bytes),
        }
    }

    fn finish(self) -> Box<[u8]> {
        match self {
            Self::Crc(digest, length) => {
                digest.finalize().to_be_bytes()[size_of::<u64>() - length..].into()
            }
            Self::Md5(digest) => digest.finalize().as_slice().into(),
            Self::Sha1(digest) => digest.finalize().as_slice().into(),
            Self::Sha256(digest) => digest.finalize().as_slice().into(),
        }
    }
}

/// Makes the checksum of a content that comes piece by piece.
pub struct Summing {
    form: Form,
    /// Of each part but the last, where it is over parts.
    part_bytes: u64,
    whole: Hasher,
    part: Hasher,
    /// Bytes of the part so far.
    filled: u64,
}

impl Summing {
    /// `None`: such are not made here.
    pub fn new(form: Form, part_bytes: u64) -> Option<Self> {
        let hasher = || Hasher::new(form.algorithm);
        Some(Self { form, part_bytes, whole: hasher()?, part: hasher()?, filled: 0 })
    }

    pub fn add(&mut self, mut bytes: &[u8]) {
        if self.form.over == Over::Content {
            return self.whole.update(bytes);
        }
        while !bytes.is_empty() {
            let room = usize::try_from(self.part_bytes - self.filled).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.part.update(now);
            self.filled += now.len() as u64;
            if self.filled == self.part_bytes {
                self.end_part();
            }
            bytes = rest;
        }
    }

    fn end_part(&mut self) {
        if let Some(next) = Hasher::new(self.form.algorithm) {
            let part = std::mem::replace(&mut self.part, next);
            self.whole.update(&part.finish());
            self.filled = 0;
        }
    }

    pub fn finish(mut self) -> Checksum {
        if self.filled > 0 {
            self.end_part();
        }
        Checksum { form: self.form, digest: self.whole.finish() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(algorithm: Algorithm, over: Over, digest: &[u8]) -> Checksum {
        Checksum { form: Form { algorithm, over }, digest: digest.into() }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::by_name(algorithm.name()), Some(algorithm));
        }
        assert_eq!(Algorithm::by_name("CRC16"), None);
    }

    #[test]
    fn checksums_have_their_published_values() {
        let hex = |algorithm| {
            let checksum = Checksum::of(algorithm, b"123456789")?;
            Some(checksum.digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        };
        assert_eq!(hex(Algorithm::Crc32).as_deref(), Some("cbf43926"));
        assert_eq!(hex(Algorithm::Crc32c).as_deref(), Some("e3069283"));
        assert_eq!(hex(Algorithm::Crc64Nvme).as_deref(), Some("ae8b14860a799888"));
        assert_eq!(
            hex(Algorithm::Sha1).as_deref(),
            Some("f7c3bc1d808e04732adf679965ccc34ca7ae3441")
        );
        assert_eq!(
            hex(Algorithm::Sha256).as_deref(),
            Some("15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225")
        );
        assert_eq!(hex(Algorithm::Xxhash3), None);
        let crc64 = Checksum::of(Algorithm::Crc64Nvme, b"abc").unwrap().crc64();
        assert_eq!(crc64, Some(Crc64::of(b"abc")));
        assert_eq!(Checksum::of(Algorithm::Crc32, b"abc").unwrap().crc64(), None);
    }

    #[test]
    fn parts_add_up_to_the_content_or_to_their_digests() {
        for algorithm in [Algorithm::Crc32, Algorithm::Md5, Algorithm::Sha1, Algorithm::Sha256] {
            let sum = |over| {
                let mut summing = Summing::new(Form { algorithm, over }, 4).unwrap();
                [&b"12"[..], b"3456", b"", b"789"].iter().for_each(|piece| summing.add(piece));
                summing.finish()
            };
            assert_eq!(Some(sum(Over::Content)), Checksum::of(algorithm, b"123456789"));
            let digests = [&b"1234"[..], b"5678", b"9"];
            let digests = digests.map(|part| Checksum::of(algorithm, part).unwrap().digest);
            let of_digests = Checksum::of(algorithm, &digests.concat()).unwrap();
            assert_eq!(sum(Over::Parts).digest, of_digests.digest);
        }
    }

    #[test]
    fn checksums_over_parts_can_only_agree() {
        let of = |over, digest: &[u8]| checksum(Algorithm::Crc32, over, digest);
        let (content, parts) = (of(Over::Content, b"1"), of(Over::Parts, b"1"));
        assert_eq!(content.agrees(&content.clone()), Some(true));
        assert_eq!(content.agrees(&of(Over::Content, b"2")), Some(false));
        assert_eq!(content.agrees(&parts), None);
        assert_eq!(parts.agrees(&parts.clone()), Some(true));
        assert_eq!(parts.agrees(&of(Over::Parts, b"2")), None);
        assert_eq!(content.agrees(&checksum(Algorithm::Crc32c, Over::Content, b"1")), None);
    }

    #[test]
    fn only_what_joins_can_be_over_the_content_of_parts() {
        let form = |algorithm, over| Form { algorithm, over };
        let sha = form(Algorithm::Sha256, Over::Content);
        assert_eq!(sha.in_parts(), form(Algorithm::Sha256, Over::Parts));
        for over in [Over::Content, Over::Parts] {
            assert_eq!(form(Algorithm::Crc32, over).in_parts(), form(Algorithm::Crc32, over));
        }
    }
}
