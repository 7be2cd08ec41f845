//! A lazy timing wheel: it remembers when to look at a connection again, not what for.
//!
//! A deadline that moves away costs nothing: the entry stays, and whoever looks when it comes up puts it back
//! in for the later time. So a message that puts off a read timeout is one store into the connection's row.

use crate::config::{TICKS_AT_ONCE, WHEEL_SLOTS};
use crate::engine::table::Key;

/// A point in time: ticks of [`crate::config::TICK_MS`] since the shard started.
pub(crate) type Tick = u32;

/// A tick that never comes.
pub(crate) const NEVER: Tick = Tick::MAX;

/// Keys by the tick at which they are due.
pub(crate) struct Wheel {
    slots: Vec<Vec<Key>>,
    now: Tick,
    /// Ticks that it was not turned by, since the shard was away.
    away: Tick,
    /// When the shard last came back.
    back_at: Tick,
}

impl Default for Wheel {
    fn default() -> Self {
        Wheel { slots: (0..WHEEL_SLOTS).map(|_| Vec::new()).collect(), now: 0, away: 0, back_at: 0 }
    }
}

impl Wheel {
    /// The tick up to which the wheel has turned.
    pub(crate) fn now(&self) -> Tick {
        self.now
    }

    /// Ticks since the shard started, those included for which it was away.
    pub(crate) fn age(&self) -> Tick {
        self.now + self.away
    }

    /// The tick at which the shard was last back after it was away. No time is left out since.
    pub(crate) fn back_at(&self) -> Tick {
        self.back_at
    }

    /// How many times to turn the wheel when so many ticks have passed since the shard started.
    ///
    /// A shard that is behind by more than a little was away: it was paused with its process or its machine, or busy with
    /// one thing. Meanwhile it read nothing, wrote nothing and pinged nobody. So that time is left out, for all deadlines.
    pub(crate) fn catch_up(&mut self, passed: Tick) -> Tick {
        let behind = passed.saturating_sub(self.age());
        if behind <= TICKS_AT_ONCE {
            return behind;
        }
        self.away += behind - 1;
        self.back_at = self.now + 1;
        1
    }

    /// Puts a key in for `due`, or for as far as the wheel reaches if that is sooner. Returns the tick at
    /// which it will come up; a tick that has passed comes up at the next.
    pub(crate) fn insert(&mut self, key: Key, due: Tick) -> Tick {
        let due = due.clamp(self.now + 1, self.now + WHEEL_SLOTS as Tick - 1);
        self.slots[due as usize % WHEEL_SLOTS].push(key);
        due
    }

    /// Turns the wheel by one tick and hands out the keys that are due at it.
    pub(crate) fn turn(&mut self) -> Vec<Key> {
        self.now += 1;
        std::mem::take(&mut self.slots[self.now as usize % WHEEL_SLOTS])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns_until(wheel: &mut Wheel, key: Key) -> usize {
        (1..=WHEEL_SLOTS).find(|_| wheel.turn().contains(&key)).expect("it comes up within one turn")
    }

    #[test]
    fn a_key_comes_up_at_its_tick() {
        let mut wheel = Wheel::default();
        let key = Key::new(7, 1);
        for due in [1, 5, 255] {
            let at = wheel.now() + due;
            assert_eq!(wheel.insert(key, at), at);
            assert_eq!(turns_until(&mut wheel, key), due as usize);
        }
    }

    #[test]
    fn a_shard_makes_up_for_a_little_and_leaves_out_the_time_that_it_was_away() {
        let mut wheel = Wheel::default();
        let mut passed = 0;
        for (step, turns) in [(1, 1), (2, 2), (0, 0), (TICKS_AT_ONCE, TICKS_AT_ONCE), (1_000_000, 1), (1, 1)] {
            passed += step;
            assert_eq!(wheel.catch_up(passed), turns);
            (0..turns).for_each(|_| drop(wheel.turn()));
            assert_eq!(wheel.age(), passed);
        }
        assert_eq!(wheel.now(), 1 + 2 + TICKS_AT_ONCE + 1 + 1);
        assert_eq!(wheel.back_at(), 1 + 2 + TICKS_AT_ONCE + 1);
        assert_eq!(wheel.catch_up(NEVER), 1);
    }

    #[test]
    fn a_tick_out_of_reach_is_brought_within_it_and_a_past_one_to_the_next() {
        let mut wheel = Wheel::default();
        let key = Key::new(7, 1);
        assert_eq!(wheel.insert(key, 10_000), 255);
        assert_eq!(turns_until(&mut wheel, key), 255);
        assert_eq!(wheel.insert(key, 3), 256);
        assert_eq!(turns_until(&mut wheel, key), 1);
    }
}
