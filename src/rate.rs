//! Rates: who may go on now, and who must wait for how long.
//!
//! A bucket is one number, the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371). It
//! lets a burst of one second's worth through, and the rate from then on.

use std::sync::atomic::{AtomicU64, Ordering};

/// Microseconds since some start, the same for all that a bucket is asked.
pub(crate) type Micros = u64;

/// A second's worth may come at once.
const BURST_US: Micros = 1_000_000;

/// So many a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    interval_us: Micros,
}

impl Rate {
    /// `per_second` events a second, at most a million; `None`: there is no limit.
    pub(crate) fn new(per_second: u32) -> Option<Rate> {
        (per_second > 0).then(|| Rate { interval_us: (1_000_000 / u64::from(per_second)).max(1) })
    }

    /// Whether one more may come at `now`, given the time at which the bucket will be full again.
    pub(crate) fn allows(self, full_at: Micros, now: Micros) -> bool {
        full_at.saturating_sub(now) + self.interval_us <= BURST_US.max(self.interval_us)
    }

    /// The bucket after one has come.
    pub(crate) fn taken(self, full_at: Micros, now: Micros) -> Micros {
        full_at.max(now) + self.interval_us
    }

    /// Microseconds until one more may come.
    fn wait(self, full_at: Micros, now: Micros) -> Micros {
        (full_at.saturating_sub(now) + self.interval_us).saturating_sub(BURST_US.max(self.interval_us))
    }
}

/// A bucket that several threads take from.
#[derive(Debug)]
pub(crate) struct SharedBucket {
    rate: Rate,
    full_at: AtomicU64,
}

impl SharedBucket {
    pub(crate) fn new(rate: Rate) -> Self {
        SharedBucket { rate, full_at: AtomicU64::new(0) }
    }

    /// Takes one at `now`.
    ///
    /// # Errors
    /// Microseconds to wait; nothing was taken.
    pub(crate) fn take(&self, now: Micros) -> Result<(), Micros> {
        let take = |full_at| self.rate.allows(full_at, now).then(|| self.rate.taken(full_at, now));
        self.full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .map(|_| ())
            .map_err(|full_at| self.rate.wait(full_at, now).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of an endless stream of takers get through until `end`.
    fn through(bucket: &SharedBucket, end: Micros) -> usize {
        let (mut now, mut count) = (0, 0);
        while now < end {
            match bucket.take(now) {
                Ok(()) => count += 1,
                Err(wait) => now += wait,
            }
        }
        count
    }

    #[test]
    fn a_burst_goes_through_and_then_the_rate() {
        for per_second in [1, 7, 100, 1_000_000] {
            let bucket = SharedBucket::new(Rate::new(per_second).unwrap());
            let count = through(&bucket, 10_000_000) as f64;
            let expected = f64::from(per_second) * 11.0;
            assert!((count - expected).abs() <= expected * 0.01 + 1.0, "{per_second}/s: {count}, not {expected}");
        }
    }

    #[test]
    fn a_bucket_fills_up_while_nobody_takes() {
        let bucket = SharedBucket::new(Rate::new(10).unwrap());
        assert_eq!((0..20).filter(|_| bucket.take(0).is_ok()).count(), 10);
        assert_eq!((0..20).filter(|_| bucket.take(500_000).is_ok()).count(), 5);
        assert_eq!((0..20).filter(|_| bucket.take(90_000_000).is_ok()).count(), 10);
    }

    #[test]
    fn no_rate_is_no_limit() {
        assert!(Rate::new(0).is_none());
    }
}
