//! Nouns: what the program talks about.
//!
//! Pure values without IO, async, clocks, randomness, threads or hash-map iteration. Everything
//! else may use this layer; it uses nothing but the standard library and digest arithmetic.

pub mod checksum;
pub mod content;
pub mod entry;
pub mod key;
pub mod path;
pub mod record;
pub mod time;
pub mod words;

pub use checksum::Checksum;
pub use content::{ContentMd5, Crc64, ETag, Md5};
pub use entry::{Entry, Fingerprint, Kind, Meta, Object, ObjectHead, Observed, Source};
pub use key::{Key, KeyTarget, KeyTooLong, Prefix};
pub use path::{Escaped, PathError, RelPath, is_unsafe_to_show};
pub use record::{Record, Trust};
pub use time::{Millis, Tick, Timestamp};
