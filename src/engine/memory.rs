//! How much memory the connections of one shard hold, and when that is too much.
//!
//! All shards share one bound. None of them asks the others while there is room: a shard looks at what all hold when it has
//! grown by its part of what was left when it looked last, and once a tick. It may always hold an even part of the bound;
//! what is more is lent, and given back when others need it.

use crate::engine::outbox::Meter;

/// What one shard holds.
pub(crate) struct Holdings {
    /// Bytes that are one connection's alone: what came in and is no whole message, queues, replies.
    own: usize,
    /// Bytes of frames that wait, for whomever.
    frames: Meter,
    /// Bytes over all shards, and this shard's even part of them.
    max: usize,
    part: usize,
    shards: usize,
    /// Up to so many bytes there is nothing to look at.
    quiet: usize,
    /// What the others were told last.
    told: usize,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is room.
    Fine,
    /// There is none, but others hold more than their part.
    AskOthers,
    /// This shard must come down to so many bytes.
    Reclaim { target: usize },
}

impl Holdings {
    /// For one of `shards` shards that may hold `max` bytes together.
    pub(crate) fn new(max: usize, shards: usize) -> Self {
        Holdings { own: 0, frames: Meter::default(), max, part: max / shards, shards, quiet: 0, told: 0 }
    }

    /// Where frames are counted.
    pub(crate) fn frames(&self) -> &Meter {
        &self.frames
    }

    /// Bytes that are held.
    pub(crate) fn bytes(&self) -> usize {
        self.own + self.frames.bytes()
    }

    /// Follows what one connection holds.
    pub(crate) fn change(&mut self, before: usize, after: usize) {
        self.own = self.own + after - before;
    }

    /// The bytes that are held, for the others to know; `None`: they know.
    pub(crate) fn news(&mut self) -> Option<usize> {
        let bytes = self.bytes();
        (std::mem::replace(&mut self.told, bytes) != bytes).then_some(bytes)
    }

    /// Whether there is nothing to look at.
    pub(crate) fn is_quiet(&self) -> bool {
        self.bytes() <= self.quiet
    }

    /// What is to be done when all shards, this one included, hold `sum` bytes together.
    pub(crate) fn judge(&mut self, sum: usize) -> Verdict {
        let bytes = self.bytes();
        let Some(room) = self.max.checked_sub(sum) else {
            self.be_quiet_for_now();
            if bytes <= self.part {
                return Verdict::AskOthers;
            }
            // Some room is made beyond what is needed, or the next byte would be too much again.
            let too_much = sum - self.max / 8 * 7;
            return Verdict::Reclaim { target: bytes.saturating_sub(too_much).max(self.part / 8 * 7) };
        };
        self.quiet = bytes + room / (2 * self.shards);
        Verdict::Fine
    }

    /// Looks again when it has grown by some more: what there was to do has been done.
    pub(crate) fn be_quiet_for_now(&mut self) {
        self.quiet = self.bytes() + self.part / 64;
    }

    /// Looks again at once.
    pub(crate) fn be_alert(&mut self) {
        self.quiet = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holding(bytes: usize, max: usize, shards: usize) -> Holdings {
        let mut holdings = Holdings::new(max, shards);
        holdings.change(0, bytes);
        holdings
    }

    #[test]
    fn a_shard_may_borrow_what_others_leave_and_gives_it_back() {
        let mut shard = holding(700, 800, 2);
        assert_eq!(shard.judge(700), Verdict::Fine);
        assert!(shard.is_quiet());
        // The other one has come to 200.
        assert_eq!(shard.judge(900), Verdict::Reclaim { target: 500 });
        assert_eq!(holding(200, 800, 2).judge(900), Verdict::AskOthers);
        // It need not go below its own part, whatever others do.
        assert_eq!(holding(401, 800, 2).judge(2_000), Verdict::Reclaim { target: 350 });
        assert_eq!(holding(400, 800, 2).judge(2_000), Verdict::AskOthers);
    }

    #[test]
    fn what_is_told_is_told_once() {
        let mut shard = holding(5, 100, 1);
        assert_eq!((shard.news(), shard.news()), (Some(5), None));
        shard.change(5, 0);
        assert_eq!((shard.news(), shard.news()), (Some(0), None));
    }

    proptest! {
        /// Shards grow in turn and shrink as they are told to: together they never hold more than the bound and what they
        /// grow by before they look.
        #[test]
        fn together_they_hold_no_more_than_the_bound(
            shards in 1usize..5,
            steps in prop::collection::vec((any::<prop::sample::Index>(), 1usize..50), 0..400),
        ) {
            const MAX: usize = 10_000;
            let mut all: Vec<_> = (0..shards).map(|_| Holdings::new(MAX, shards)).collect();
            for (index, more) in steps {
                let index = index.index(shards);
                all[index].change(0, more);
                if all[index].is_quiet() {
                    continue;
                }
                let sum: usize = all.iter().map(Holdings::bytes).sum();
                match all[index].judge(sum) {
                    Verdict::Fine => {}
                    Verdict::Reclaim { target } => {
                        let bytes = all[index].bytes();
                        prop_assert!(target < bytes);
                        all[index].change(bytes, target);
                    }
                    Verdict::AskOthers => {
                        for other in 0..shards {
                            let sum = all.iter().map(Holdings::bytes).sum();
                            if let Verdict::Reclaim { target } = all[other].judge(sum) {
                                let bytes = all[other].bytes();
                                all[other].change(bytes, target);
                            }
                        }
                    }
                }
                let sum: usize = all.iter().map(Holdings::bytes).sum();
                prop_assert!(sum <= MAX + MAX / 64 + 50 * shards, "{sum}");
            }
        }
    }
}
