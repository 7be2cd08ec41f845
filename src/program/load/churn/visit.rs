//! What one subscriber got while it was there, and what it must have got: pure bookkeeping.
//!
//! A visit owes all messages from the first one that was due after the subscription was confirmed, up to the last one
//! that the server had accepted when the subscriber decided to leave. Earlier and later ones may come; in order, too.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::load::tally::{Arrival, Tally, Verdict};

/// Visits with something missing that are kept until it is known which publishes were refused.
const KEPT_MAX: usize = 250_000;

/// One subscriber's stay.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct Visit {
    /// The first message that it must get.
    first: u32,
    /// There from the first message on.
    tally: Option<Tally>,
    gaps: u64,
}

impl Visit {
    /// Of a subscriber that must get the messages from `first` on.
    pub(in crate::load) fn from(first: u32) -> Visit {
        Visit { first, tally: None, gaps: 0 }
    }

    /// Takes note of message `seq`.
    pub(in crate::load) fn receive(&mut self, seq: u32) -> Arrival {
        let first = self.first.min(seq);
        self.tally.get_or_insert_with(|| Tally::starting_at(first)).receive(seq)
    }

    /// Takes note of a GAP over `count` messages.
    pub(in crate::load) fn gap(&mut self, count: u64) {
        self.gaps += count;
    }

    /// Whether all before message `end` have come, or were told of by GAPs.
    pub(in crate::load) fn covers(&self, end: u32) -> bool {
        let next = self.tally.as_ref().map_or(self.first, Tally::end);
        u64::from(next) + self.gaps >= end.into()
    }

    /// The tally of the whole visit.
    fn close(self) -> Tally {
        let mut tally = self.tally.unwrap_or_else(|| Tally::starting_at(self.first));
        if self.gaps > 0 {
            tally.gap(self.gaps);
        }
        tally
    }
}

/// What the visits that are over got.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::load) struct Judged {
    /// Of those with nothing amiss.
    clean: Verdict,
    /// The others, each with the number behind the last message that it must have got.
    kept: Vec<(Tally, u32)>,
    /// Visits with something amiss that there was no room for.
    pub(in crate::load) unjudged: u64,
}

impl Judged {
    /// A visit is over that must have got all messages before `end`; `None`: no more than have come.
    pub(in crate::load) fn add(&mut self, visit: Visit, end: Option<u32>) {
        let tally = visit.close();
        let end = end.unwrap_or(0);
        if tally.is_clean() && tally.end() >= end {
            self.clean += tally.verdict(end, &[]);
        } else if self.kept.len() < KEPT_MAX {
            self.kept.push((tally, end));
        } else {
            self.unjudged += 1;
        }
    }

    /// The verdict on all of them, when the publishes `refused` (in rising order) were refused.
    pub(in crate::load) fn verdict(&self, refused: &[Range<u32>]) -> Verdict {
        let mut verdict = self.clean;
        for (tally, end) in &self.kept {
            verdict += tally.verdict(*end, refused);
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(first: u32, seqs: impl IntoIterator<Item = u32>) -> Visit {
        let mut visit = Visit::from(first);
        for seq in seqs {
            visit.receive(seq);
        }
        visit
    }

    fn verdict(visit: Visit, end: Option<u32>, refused: &[Range<u32>]) -> Verdict {
        let mut judged = Judged::default();
        judged.add(visit, end);
        judged.verdict(refused)
    }

    #[test]
    fn a_visit_owes_what_was_published_in_between_and_may_get_more() {
        for (first, seqs) in [(5, 5..9), (5, 3..9), (5, 5..12), (9, 9..9)] {
            let delivered = seqs.len() as u64;
            let all_well = Verdict { delivered, ..Verdict::default() };
            assert_eq!(verdict(visit(first, seqs.clone()), Some(9), &[]), all_well, "{first}, {seqs:?}");
        }
    }

    #[test]
    fn a_missing_begin_middle_or_end_is_a_loss() {
        for (seqs, lost) in [(vec![7, 8], 2), (vec![5, 6, 8], 1), (vec![5, 6], 2), (vec![], 4), (vec![4, 5, 7, 8], 1)] {
            assert_eq!(verdict(visit(5, seqs.clone()), Some(9), &[]).lost, lost, "{seqs:?}");
        }
    }

    #[test]
    fn who_is_reset_owes_no_end_but_has_no_holes() {
        assert_eq!(verdict(visit(5, [5, 6]), None, &[]).lost, 0);
        assert_eq!(verdict(visit(5, [5, 7]), None, &[]).lost, 1);
        assert_eq!(verdict(visit(5, [6]), None, &[]).lost, 1);
    }

    #[test]
    fn refused_messages_and_those_of_a_gap_are_not_owed() {
        assert_eq!(verdict(visit(5, [5, 8]), Some(9), &[0..2, 6..8]).lost, 0);
        let seen = verdict(visit(5, [5, 6, 8]), Some(9), &[0..2, 6..8]);
        assert_eq!((seen.lost, seen.unexpected), (0, 1));
        let mut told = visit(5, [5, 8]);
        told.gap(2);
        let seen = verdict(told, Some(9), &[]);
        assert_eq!((seen.lost, seen.reported), (0, 2));
    }

    #[test]
    fn doubles_and_disorder_are_told() {
        assert_eq!(verdict(visit(5, [5, 5, 6]), Some(7), &[]).duplicated, 1);
        assert_eq!(verdict(visit(5, [5, 7, 6]), Some(8), &[]).reordered, 1);
    }

    #[test]
    fn a_subscriber_waits_until_all_is_covered() {
        let mut visit = Visit::from(5);
        assert!(visit.covers(5) && !visit.covers(6));
        visit.receive(5);
        assert!(visit.covers(6) && !visit.covers(7));
        visit.gap(1);
        assert!(visit.covers(7));
    }
}
