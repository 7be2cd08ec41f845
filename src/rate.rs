//! Rates: who may go on now, and who must wait for how long.
//!
//! A bucket is one number, the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371). It
//! lets a burst of one second's worth through, and the rate from then on.

use std::sync::atomic::{AtomicU64, Ordering};

/// Microseconds since some start, the same for all that a bucket is asked.
pub(crate) type Micros = u64;

/// Nanoseconds since the same start: at which a bucket will be full again. Coarser ones would round high rates.
pub(crate) type Nanos = u64;

/// A second's worth may come at once.
const BURST: Nanos = 1_000_000_000;

/// So many a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    interval: Nanos,
}

impl Rate {
    /// `per_second` events a second, at most a million; `None`: there is no limit.
    pub(crate) fn new(per_second: u32) -> Option<Rate> {
        (per_second > 0).then(|| Rate { interval: (1_000_000_000 / u64::from(per_second)).max(1) })
    }

    /// Whether one more may come at `now`, given the time at which the bucket will be full again.
    pub(crate) fn allows(self, full_at: Nanos, now: Micros) -> bool {
        self.wait(full_at, now) == 0
    }

    /// The bucket after one has come.
    pub(crate) fn taken(self, full_at: Nanos, now: Micros) -> Nanos {
        full_at.max(nanos(now)) + self.interval
    }

    /// Nanoseconds until one more may come.
    fn wait(self, full_at: Nanos, now: Micros) -> Nanos {
        (full_at.saturating_sub(nanos(now)) + self.interval).saturating_sub(BURST.max(self.interval))
    }
}

fn nanos(time: Micros) -> Nanos {
    time.saturating_mul(1_000)
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
            .map_err(|full_at| self.rate.wait(full_at, now).div_ceil(1_000))
    }

    /// Puts back what was taken for something that did not come.
    pub(crate) fn put_back(&self) {
        self.full_at.fetch_sub(self.rate.interval, Ordering::Relaxed);
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
        for per_second in [1, 7, 100, 600_000, 1_000_000] {
            let bucket = SharedBucket::new(Rate::new(per_second).unwrap());
            let count = through(&bucket, 3_000_000) as f64;
            let expected = f64::from(per_second) * 4.0;
            assert!((count - expected).abs() <= expected * 0.001 + 1.0, "{per_second}/s: {count}, not {expected}");
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
    fn what_did_not_come_takes_nothing_from_those_who_do() {
        let bucket = SharedBucket::new(Rate::new(10).unwrap());
        for now in [0, 5_000_000, 90_000_000] {
            for _ in 0..1_000 {
                bucket.take(now).unwrap();
                bucket.put_back();
            }
            assert_eq!((0..20).filter(|_| bucket.take(now).is_ok()).count(), 10, "at {now} µs");
        }
    }

    #[test]
    fn a_client_that_sends_as_much_as_it_may_gets_its_rate_and_a_seconds_worth_more() {
        let rate = Rate::new(30).unwrap();
        let (mut full_at, mut count) = (0, 0);
        for now in (0..10_000_000).step_by(1_000) {
            while rate.allows(full_at, now) {
                full_at = rate.taken(full_at, now);
                count += 1;
            }
        }
        assert!((329..=330).contains(&count), "{count}");
    }

    #[test]
    fn no_rate_is_no_limit() {
        assert!(Rate::new(0).is_none());
    }
}
