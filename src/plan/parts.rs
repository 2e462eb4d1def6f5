//! How a large file is cut into parts.

use thiserror::Error;

pub const MIB: u64 = 1024 * 1024;
/// S3's limits (AWS S3 user guide, "multipart upload limits").
pub const PARTS_MAX: u64 = 10_000;
pub const PART_MIN_BYTES: u64 = 5 * MIB;
pub const PART_MAX_BYTES: u64 = 5 * 1024 * MIB;
const PART_DEFAULT_BYTES: u64 = 8 * MIB;

#[derive(Debug, Error, PartialEq, Eq)]
#[error("a file of {size_bytes} bytes needs parts of more than 5 GiB")]
pub struct TooLarge {
    pub size_bytes: u64,
}

/// The size of every part but the last: the larger of 8 MiB (or the configured size) and
/// size / 10,000 rounded up to a MiB. All parts are equal, as some servers demand.
pub fn part_size(size_bytes: u64, configured: Option<u64>) -> Result<u64, TooLarge> {
    let wanted = configured.unwrap_or(PART_DEFAULT_BYTES).max(1);
    let part = match size_bytes.div_ceil(wanted) <= PARTS_MAX {
        true => wanted,
        false => size_bytes.div_ceil(PARTS_MAX).div_ceil(MIB) * MIB,
    };
    if part > PART_MAX_BYTES { Err(TooLarge { size_bytes }) } else { Ok(part) }
}

/// Number of parts; an empty file has one empty part.
pub fn part_count(size_bytes: u64, part_size: u64) -> u64 {
    size_bytes.div_ceil(part_size).max(1)
}

/// Offset and length of part `number`, counted from 1.
pub fn part_range(number: u32, size_bytes: u64, part_size: u64) -> (u64, u64) {
    let offset = u64::from(number.saturating_sub(1)) * part_size;
    (offset, part_size.min(size_bytes.saturating_sub(offset)))
}

/// Part sizes that would cut `size_bytes` into `parts`, of those that common tools use: ours first,
/// then AWS CLI 8 MiB, rclone 5 MiB, s5cmd 50 MiB, and other round sizes. For recognising an object
/// that another tool uploaded by its composite ETag; the ETag itself is the judge.
pub fn likely_part_sizes(size_bytes: u64, parts: u32) -> Vec<u64> {
    let ours = part_size(size_bytes, None).unwrap_or(PART_DEFAULT_BYTES);
    let mut sizes = vec![ours];
    sizes.extend([8, 5, 50, 16, 15, 10, 32, 64, 100, 128, 256, 512, 1024].map(|n| n * MIB));
    let mut seen = vec![];
    for size in sizes {
        if part_count(size_bytes, size) == u64::from(parts) && !seen.contains(&size) {
            seen.push(size);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_sizes() {
        const GIB: u64 = 1024 * MIB;
        assert_eq!(part_size(1, None), Ok(8 * MIB));
        assert_eq!(part_size(80_000 * MIB, None), Ok(8 * MIB));
        assert_eq!(part_size(80_000 * MIB + 1, None), Ok(9 * MIB));
        assert_eq!(part_size(100 * GIB, Some(5 * MIB)), Ok(11 * MIB));
        assert_eq!(part_size(MIB, Some(64 * MIB)), Ok(64 * MIB));
        assert_eq!(part_size(10_000 * 5 * GIB, None), Ok(5 * GIB));
        let size_bytes = 10_000 * 5 * GIB + 1;
        assert_eq!(part_size(size_bytes, None), Err(TooLarge { size_bytes }));
        assert!(part_size(u64::MAX, None).is_err());
    }

    #[test]
    fn parts_cover_the_file_exactly() {
        let mut size: u64 = 1;
        while size < 40 * 1024 * 1024 * MIB {
            for size in [size - 1, size, size + 1, size * 3 / 2] {
                let part = part_size(size, None).unwrap();
                let count = part_count(size, part);
                assert!((1..=PARTS_MAX).contains(&count), "{size}");
                let number = u32::try_from(count).unwrap();
                let (offset, length) = part_range(number, size, part);
                assert_eq!(offset + length, size);
                assert!(length > 0 || size == 0);
            }
            size *= 2;
        }
    }

    #[test]
    fn recognises_other_tools() {
        assert!(likely_part_sizes(20 * MIB, 4).contains(&(5 * MIB)));
        assert_eq!(likely_part_sizes(20 * MIB, 3)[0], 8 * MIB);
        assert!(likely_part_sizes(20 * MIB, 7).is_empty());
    }
}
