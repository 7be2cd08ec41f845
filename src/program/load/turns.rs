//! Each of many connections gets its turn once in a period, evenly spread.

use std::time::Duration;

use super::clock::ns;

/// Once in this time each connection shows that it lives, if nothing else is asked for; servers close silent ones
/// after 60 s.
pub(super) const PERIOD: Duration = Duration::from_secs(20);

/// Turns are taken in groups at least this far apart, so that they don't wake the thread one by one.
const STEP: Duration = Duration::from_millis(50);

/// Hands out connection numbers in a circle.
#[derive(Debug)]
pub(super) struct Turns {
    count: u64,
    period_ns: u64,
    start: u64,
    /// Turns handed out.
    done: u64,
    /// When the last group was handed out.
    last: u64,
}

impl Turns {
    /// Without a period nobody ever gets a turn.
    pub(super) fn new(count: usize, period: Option<Duration>, now: u64) -> Turns {
        let count = if period.is_some() { count as u64 } else { 0 };
        Turns { count, period_ns: period.map_or(0, ns), start: now, done: 0, last: now }
    }

    /// The connection whose turn has come by `now`, if there is one.
    pub(super) fn next(&mut self, now: u64) -> Option<usize> {
        if self.count == 0 || self.turn_at() > now {
            return None;
        }
        self.last = now;
        self.done += 1;
        Some(((self.done - 1) % self.count) as usize)
    }

    /// When the next group is due.
    pub(super) fn due_at(&self) -> Option<u64> {
        (self.count > 0).then(|| self.turn_at().max(self.last + ns(STEP)))
    }

    /// When the next single turn is due: the first one a period after the start.
    fn turn_at(&self) -> u64 {
        let periods = 1 + self.done / self.count;
        let part = u128::from(self.done % self.count) * u128::from(self.period_ns) / u128::from(self.count);
        self.start + periods * self.period_ns + part as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn each_connection_gets_one_turn_a_period_and_groups_are_apart() {
        let mut turns = Turns::new(1_000, Some(PERIOD), 0);
        let mut seen = vec![0; 1_000];
        let (mut now, mut groups) = (0, 0);
        while now < 60 * SECOND - 1 {
            now = turns.due_at().unwrap().min(60 * SECOND - 1);
            groups += 1;
            while let Some(index) = turns.next(now) {
                seen[index] += 1;
            }
        }
        assert!(seen.iter().all(|&count| count == 2), "two periods after the first one");
        assert!(groups <= 801, "{groups} groups in 40 s are more than one in 50 ms");
    }

    #[test]
    fn no_connections_or_no_period_no_turns() {
        for mut turns in [Turns::new(0, Some(PERIOD), 5), Turns::new(7, None, 5)] {
            assert_eq!((turns.next(u64::MAX / 2), turns.due_at()), (None, None));
        }
    }
}
