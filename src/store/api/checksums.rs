//! Puts checksums into the many structs of s3s that have a field for each algorithm, and takes
//! them out again.

use s3s::dto::CompletedPart;

use crate::store::digest::{Algorithm, Checksum};

/// Sets the field of `$output` that belongs to the algorithm of an `Option<&Checksum>`.
macro_rules! set_checksum {
    ($output:expr, $checksum:expr) => {
        if let Some(checksum) = $checksum {
            let value = Some(checksum.value.clone());
            match checksum.algorithm {
                $crate::store::digest::Algorithm::Crc32 => $output.checksum_crc32 = value,
                $crate::store::digest::Algorithm::Crc32c => $output.checksum_crc32c = value,
                $crate::store::digest::Algorithm::Crc64Nvme => $output.checksum_crc64nvme = value,
                $crate::store::digest::Algorithm::Sha1 => $output.checksum_sha1 = value,
                $crate::store::digest::Algorithm::Sha256 => $output.checksum_sha256 = value,
            }
        }
    };
}

/// As [`set_checksum`], and the field that says whether it is of the full object or composite.
macro_rules! set_checksum_and_type {
    ($output:expr, $checksum:expr) => {
        let checksum: Option<&$crate::store::digest::Checksum> = $checksum;
        $output.checksum_type = checksum.map(|c| c.kind.name().to_owned().into());
        $crate::store::api::checksums::set_checksum!($output, checksum);
    };
}

pub(super) use {set_checksum, set_checksum_and_type};

/// The checksum of a part in its text form, as the index has it.
pub(super) fn parsed(text: &str) -> Option<Checksum> {
    text.parse().ok()
}

/// The checksum that a request to complete an upload gives for a part.
pub(super) fn claimed_of_part(part: &CompletedPart, algorithm: Algorithm) -> Option<&str> {
    match algorithm {
        Algorithm::Crc32 => part.checksum_crc32.as_deref(),
        Algorithm::Crc32c => part.checksum_crc32c.as_deref(),
        Algorithm::Crc64Nvme => part.checksum_crc64nvme.as_deref(),
        Algorithm::Sha1 => part.checksum_sha1.as_deref(),
        Algorithm::Sha256 => part.checksum_sha256.as_deref(),
    }
}
