//! The checksum that S3 keeps beside an object, in whichever algorithm it was sent with.
//!
//! Algorithms and kinds as in
//! docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html. Names and
//! arithmetic only: digests are made, read and written where requests are.

use crc_fast::CrcAlgorithm;

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

    /// The checksum over the content of consecutive parts, each with its size in bytes. `None`
    /// where their algorithm cannot say, or one of them has another.
    pub fn joined<'a>(
        algorithm: Algorithm,
        parts: impl IntoIterator<Item = (&'a Self, u64)>,
    ) -> Option<Self> {
        let crc = algorithm.crc()?;
        let form = Form { algorithm, over: Over::Content };
        let mut whole: Option<(u64, usize)> = None;
        for (part, size_bytes) in parts {
            let length = part.digest.len();
            if part.form != form || length > size_of::<u64>() {
                return None;
            }
            let next = part.digest.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            let sum = match whole {
                Some((sum, _)) => crc_fast::checksum_combine(crc, sum, next, size_bytes),
                None => next,
            };
            whole = Some((sum, length));
        }
        let (sum, length) = whole?;
        Some(Self { form, digest: sum.to_be_bytes()[size_of::<u64>() - length..].into() })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(algorithm: Algorithm, over: Over, digest: &[u8]) -> Checksum {
        Checksum { form: Form { algorithm, over }, digest: digest.into() }
    }

    fn crc(algorithm: Algorithm, bytes: &[u8]) -> Checksum {
        let sum = crc_fast::checksum(algorithm.crc().unwrap(), bytes).to_be_bytes();
        let length = if algorithm == Algorithm::Crc64Nvme { 8 } else { 4 };
        checksum(algorithm, Over::Content, &sum[8 - length..])
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::by_name(algorithm.name()), Some(algorithm));
        }
        assert_eq!(Algorithm::by_name("CRC16"), None);
    }

    #[test]
    fn crcs_of_parts_join_to_that_of_the_whole() {
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let parts = [crc(algorithm, b"1234"), crc(algorithm, b"5678"), crc(algorithm, b"9")];
            let parts = parts.iter().zip([4, 4, 1]);
            let whole = crc(algorithm, b"123456789");
            assert_eq!(Checksum::joined(algorithm, parts.clone()), Some(whole));
            assert_eq!(Checksum::joined(Algorithm::Sha1, parts.clone()), None);
            let other = crc(Algorithm::Crc32, b"x");
            let mixed = Checksum::joined(algorithm, parts.chain([(&other, 1)]));
            assert_eq!(mixed.is_some(), algorithm == Algorithm::Crc32);
        }
        assert_eq!(Checksum::joined(Algorithm::Crc32, []), None);
        let long = checksum(Algorithm::Crc32, Over::Content, &[0; 9]);
        assert_eq!(Checksum::joined(Algorithm::Crc32, [(&long, 1)]), None);
        assert_eq!(crc(Algorithm::Crc64Nvme, b"abc").crc64(), Some(Crc64::of(b"abc")));
        assert_eq!(crc(Algorithm::Crc32, b"abc").crc64(), None);
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
