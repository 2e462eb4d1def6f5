//! Delays between attempts: exponential, capped, with jitter from a seed.

/// A small deterministic generator for jitter (SplitMix64, Steele et al. 2014). Not for secrets.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `value` changed by at most `percent` up or down.
    pub fn around(&mut self, value: u64, percent: u64) -> u64 {
        let spread = value / 100 * percent;
        if spread == 0 {
            return value;
        }
        let within = spread.saturating_mul(2).saturating_add(1);
        (value - spread).saturating_add(self.next() % within)
    }
}

/// Doubling delays from `first_ms` up to `max_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub first_ms: u64,
    pub max_ms: u64,
}

impl Backoff {
    /// One key's attempts at a request that the server failed.
    pub const REQUEST: Self = Self { first_ms: 500, max_ms: 15 * 60_000 };
    /// One path that cannot be sent as it is.
    pub const PATH: Self = Self { first_ms: 60_000, max_ms: 15 * 60_000 };
    /// Probes of a destination that is away.
    pub const PROBE: Self = Self { first_ms: 1_000, max_ms: 30_000 };
    /// Writes that the destination refused, as it is full: each attempt sends a whole content.
    pub const REFUSED: Self = Self { first_ms: 1_000, max_ms: 5 * 60_000 };
    /// A file that changes while it is read.
    pub const TORN: Self = Self { first_ms: 250, max_ms: 15 * 60_000 };
    /// Looks at everything that an overflow asked for.
    pub const OVERFLOW: Self = Self { first_ms: 1_000, max_ms: 5 * 60_000 };

    /// The delay before attempt `attempt + 1`; `attempt` counts from 1.
    pub fn delay_ms(self, attempt: u32, jitter: &mut Jitter) -> u64 {
        let doubled = self.first_ms.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        jitter.around(doubled.min(self.max_ms), 20)
    }

    /// The least delay that [`Self::delay_ms`] can give.
    pub fn least_ms(self, attempt: u32) -> u64 {
        let doubled = self.first_ms.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        let capped = doubled.min(self.max_ms);
        capped - capped / 100 * 20
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_end_has_no_spread_beyond_it() {
        let mut jitter = Jitter::new(7);
        for value in [u64::MAX, u64::MAX / 2, 0, 3] {
            assert!(jitter.around(value, 25) >= value / 2);
        }
    }

    #[test]
    fn delays_grow_and_are_capped() {
        let mut jitter = Jitter::new(7);
        let mut before = 0;
        for attempt in 1..40 {
            let delay = Backoff::REQUEST.delay_ms(attempt, &mut jitter);
            assert!(delay >= Backoff::REQUEST.least_ms(attempt));
            assert!(delay <= Backoff::REQUEST.max_ms * 12 / 10);
            assert!(delay > before || attempt > 10, "attempt {attempt}: {delay} after {before}");
            before = delay;
        }
    }

    #[test]
    fn same_seed_same_jitter() {
        let draw = |seed| {
            let mut jitter = Jitter::new(seed);
            (0..9).map(|_| jitter.around(1000, 25)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(draw(3).iter().all(|d| (750..=1250).contains(d)));
    }
}
