//! Points in time as values. Nothing here knows what time it is: "now" is always an argument.

use std::fmt;

/// A file time as `stat` gives it: seconds since the Unix epoch, nanoseconds within that second.
///
/// Times before 1970 have negative `secs`; `nanos` always counts forward (0..1_000_000_000).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    pub secs: i64,
    pub nanos: u32,
}

impl Timestamp {
    pub const fn new(secs: i64, nanos: u32) -> Self {
        Self { secs, nanos }
    }

    /// Milliseconds since the epoch, rounded down.
    pub fn millis(self) -> Millis {
        Millis(self.secs.saturating_mul(1000).saturating_add(i64::from(self.nanos / 1_000_000)))
    }
}

/// The decimal form of rclone's `mtime` metadata: seconds since the epoch with a fraction
/// (`1598548803.846034345`, `-1.500000000`). Whole seconds have no fraction.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.secs, self.nanos) {
            (secs, 0) => write!(f, "{secs}"),
            (secs, nanos) if secs >= 0 => write!(f, "{secs}.{nanos:09}"),
            (secs, nanos) => {
                // -1.5 s is stored as -2 s + 0.5 s; written, the sign covers both parts.
                let whole = (secs + 1).unsigned_abs();
                write!(f, "-{whole}.{:09}", 1_000_000_000 - nanos)
            }
        }
    }
}

impl std::str::FromStr for Timestamp {
    type Err = ();

    /// Reads the decimal form; up to nine digits of fraction count, more are cut off.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return Err(());
        }
        if fraction.contains('.') {
            return Err(());
        }
        let secs: i64 = whole.parse().map_err(|_| ())?;
        let fraction: String = fraction.chars().chain("000000000".chars()).take(9).collect();
        let nanos: u32 = fraction.parse().map_err(|_| ())?;
        Ok(match (negative, nanos) {
            (false, _) => Self::new(secs, nanos),
            (true, 0) => Self::new(-secs, 0),
            (true, _) => Self::new(-secs - 1, 1_000_000_000 - nanos),
        })
    }
}

/// Wall-clock time in milliseconds since the Unix epoch. Kept in the state database and shown to
/// people; never used to measure a delay within a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub i64);

impl Millis {
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add_unsigned(ms))
    }

    pub fn minus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub_unsigned(ms))
    }

    /// A time on record, unless it is later than now: the clock was ahead then, and when it was is
    /// not known.
    pub fn credible(recorded: Option<Self>, now: Self) -> Option<Self> {
        recorded.filter(|at| *at <= now)
    }

    /// Milliseconds from `earlier` to `self`, 0 when the clock was set back.
    pub fn since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}

/// Monotonic milliseconds since the start of the run: the engine's only notion of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

impl Tick {
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_form_round_trips() {
        for (stamp, text) in [
            (Timestamp::new(0, 0), "0"),
            (Timestamp::new(1_598_548_803, 846_034_345), "1598548803.846034345"),
            (Timestamp::new(5, 1), "5.000000001"),
            (Timestamp::new(-1, 0), "-1"),
            (Timestamp::new(-2, 500_000_000), "-1.500000000"),
            (Timestamp::new(-1, 999_999_999), "-0.000000001"),
            (Timestamp::new(16_725_225_600, 0), "16725225600"),
        ] {
            assert_eq!(stamp.to_string(), text);
            assert_eq!(text.parse(), Ok(stamp));
        }
    }

    #[test]
    fn decimal_form_refuses_what_is_not_a_number() {
        for text in ["", "-", ".", ".5", "1.2.3", "abc", "1e3", "+1", "1 "] {
            assert_eq!(text.parse::<Timestamp>(), Err(()), "{text:?}");
        }
        assert_eq!("1.".parse(), Ok(Timestamp::new(1, 0)));
        assert_eq!("1.1234567899".parse(), Ok(Timestamp::new(1, 123_456_789)));
    }
}
