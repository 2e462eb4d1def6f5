//! The store's clock and the forms its times take. The clock is given from outside, so that tests
//! can thaw and expire without waiting. It does not judge signatures: s3s uses the system's clock.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use s3s::dto::{Timestamp, TimestampFormat};

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The system's clock.
pub fn system_clock() -> Clock {
    Arc::new(SystemTime::now)
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Milliseconds since the epoch; 0 for anything before it.
pub(super) fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Whole seconds since the epoch, the precision of S3's `Last-Modified`.
pub(super) fn seconds(time: SystemTime) -> i64 {
    millis(time) / 1000
}

pub(super) fn timestamp_of_s(seconds: i64) -> Timestamp {
    timestamp_of_ms(seconds.saturating_mul(1000))
}

pub(super) fn timestamp_of_ms(millis: i64) -> Timestamp {
    let since = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    Timestamp::from(SystemTime::UNIX_EPOCH + since)
}

/// `Sat, 21 Nov 2026 00:00:00 GMT`, as HTTP headers want it.
pub(super) fn http_date(time: &Timestamp) -> String {
    let mut text = Vec::new();
    match time.format(TimestampFormat::HttpDate, &mut text) {
        Ok(()) => String::from_utf8_lossy(&text).into_owned(),
        Err(_) => String::new(),
    }
}

/// `days` after `from_ms`, rounded up to the next midnight UTC: when a restored copy expires.
pub(super) fn expiry_ms(from_ms: i64, days: i64) -> i64 {
    let end = from_ms.saturating_add(days.saturating_mul(DAY_MS));
    end.saturating_add(DAY_MS - 1) / DAY_MS * DAY_MS
}
