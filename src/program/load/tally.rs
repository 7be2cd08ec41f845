//! Which messages one subscriber got: pure bookkeeping of sequence numbers.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// What one subscriber has received, in a few bytes as long as nothing is wrong.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    /// The first number that it looks at.
    first: u32,
    /// The sequence number that comes next if nothing is amiss.
    next: u32,
    /// Only there once something is amiss.
    trouble: Option<Box<Trouble>>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Trouble {
    /// Numbers below `next` that have not come, in rising order.
    holes: Vec<Range<u32>>,
    duplicated: u64,
    reordered: u64,
    gap_count: u64,
}

/// What a received number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It came for the first time, in order (perhaps behind a hole).
    InOrder,
    /// It came for the first time, after a later one.
    Late,
    /// It had come before.
    Duplicate,
}

/// What became of all messages that were published, for one subscriber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Verdict {
    /// Distinct messages that came.
    pub(super) delivered: u64,
    /// Messages that are missing and that no GAP told of.
    pub(super) lost: u64,
    /// Missing messages that GAPs told of.
    pub(super) reported: u64,
    /// What GAPs told of beyond what is missing.
    pub(super) over_reported: u64,
    /// Messages that came again.
    pub(super) duplicated: u64,
    /// Messages that came after a later one.
    pub(super) reordered: u64,
    /// Messages that came although their publish was refused.
    pub(super) unexpected: u64,
}

impl std::ops::AddAssign for Verdict {
    fn add_assign(&mut self, other: Verdict) {
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.reported += other.reported;
        self.over_reported += other.over_reported;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.unexpected += other.unexpected;
    }
}

impl Tally {
    /// The tally of a subscriber that is to get the messages from `first` on.
    pub(super) fn starting_at(first: u32) -> Tally {
        Tally { first, next: first, trouble: None }
    }

    /// Takes note of message `seq`.
    pub(super) fn receive(&mut self, seq: u32) -> Arrival {
        if seq == self.next {
            self.next += 1;
            return Arrival::InOrder;
        }
        let trouble = self.trouble.get_or_insert_default();
        if seq > self.next {
            trouble.holes.push(self.next..seq);
            self.next = seq + 1;
            return Arrival::InOrder;
        }
        if take(&mut trouble.holes, seq) {
            trouble.reordered += 1;
            Arrival::Late
        } else {
            trouble.duplicated += 1;
            Arrival::Duplicate
        }
    }

    /// Takes note of a GAP over `count` messages.
    pub(super) fn gap(&mut self, count: u64) {
        self.trouble.get_or_insert_default().gap_count += count;
    }

    /// Messages accounted for so far: those that came, and those that a GAP told of.
    pub(super) fn accounted(&self) -> u64 {
        let gap_count = self.trouble.as_ref().map_or(0, |trouble| trouble.gap_count);
        self.delivered() + gap_count
    }

    fn delivered(&self) -> u64 {
        let holes = self.trouble.as_ref().map_or(0, |trouble| total(&trouble.holes));
        u64::from(self.next - self.first) - holes
    }

    /// The number behind the last one that came.
    pub(super) fn end(&self) -> u32 {
        self.next
    }

    /// Whether nothing is amiss so far.
    pub(super) fn is_clean(&self) -> bool {
        self.trouble.is_none()
    }

    /// Judges, when `published` messages have been sent of which `refused` (in rising order) were refused.
    pub(super) fn verdict(&self, published: u32, refused: &[Range<u32>]) -> Verdict {
        let mut missing = Vec::new();
        let mut verdict = Verdict { delivered: self.delivered(), ..Verdict::default() };
        let mut gap_count = 0;
        if let Some(trouble) = &self.trouble {
            missing.extend_from_slice(&trouble.holes);
            verdict.duplicated = trouble.duplicated;
            verdict.reordered = trouble.reordered;
            gap_count = trouble.gap_count;
        }
        if published > self.next {
            missing.push(self.next..published);
        }
        let span = self.first..published.max(self.next);
        let rightly_missing = overlap(&missing, refused);
        let wanting = total(&missing) - rightly_missing;
        verdict.reported = wanting.min(gap_count);
        verdict.lost = wanting - verdict.reported;
        verdict.over_reported = gap_count - verdict.reported;
        verdict.unexpected = overlap(&[span], refused) - rightly_missing;
        verdict
    }
}

/// Takes `seq` out of the holes; `false` if it is in none.
fn take(holes: &mut Vec<Range<u32>>, seq: u32) -> bool {
    let at = holes.partition_point(|hole| hole.end <= seq);
    let Some(hole) = holes.get_mut(at).filter(|hole| hole.contains(&seq)) else { return false };
    let behind = seq + 1..hole.end;
    hole.end = seq;
    if hole.start == hole.end {
        if behind.start == behind.end {
            holes.remove(at);
        } else {
            *hole = behind;
        }
    } else if behind.start < behind.end {
        holes.insert(at + 1, behind);
    }
    true
}

fn total(ranges: &[Range<u32>]) -> u64 {
    ranges.iter().map(|range| range.len() as u64).sum()
}

/// How many numbers are in both lists, each of which rises and overlaps nowhere with itself.
fn overlap(a: &[Range<u32>], b: &[Range<u32>]) -> u64 {
    let (mut i, mut j, mut count) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        let (start, end) = (a[i].start.max(b[j].start), a[i].end.min(b[j].end));
        count += u64::from(end.saturating_sub(start));
        if a[i].end <= b[j].end {
            i += 1;
        } else {
            j += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seqs: impl IntoIterator<Item = u32>) -> Tally {
        let mut tally = Tally::default();
        for seq in seqs {
            tally.receive(seq);
        }
        tally
    }

    #[test]
    fn all_in_order_is_all_well_and_needs_no_memory() {
        let tally = after(0..10);
        assert!(tally.trouble.is_none());
        assert_eq!(tally.verdict(10, &[]), Verdict { delivered: 10, ..Verdict::default() });
        assert!(size_of::<Tally>() <= 16);
    }

    #[test]
    fn a_hole_and_a_missing_end_are_losses() {
        let verdict = after([0, 1, 4]).verdict(7, &[]);
        assert_eq!(verdict, Verdict { delivered: 3, lost: 4, ..Verdict::default() });
        assert_eq!(after([]).verdict(3, &[]).lost, 3);
    }

    #[test]
    fn a_gap_covers_as_many_losses_as_it_counts() {
        let mut tally = after([0, 1, 4]);
        tally.gap(1);
        assert_eq!(tally.accounted(), 4);
        let verdict = tally.verdict(5, &[]);
        assert_eq!((verdict.reported, verdict.lost, verdict.over_reported), (1, 1, 0));
        tally.gap(3);
        let verdict = tally.verdict(5, &[]);
        assert_eq!((verdict.reported, verdict.lost, verdict.over_reported), (2, 0, 2));
    }

    #[test]
    fn a_second_copy_is_a_duplicate() {
        let mut tally = after(0..3);
        assert_eq!(tally.receive(1), Arrival::Duplicate);
        assert_eq!(tally.verdict(3, &[]), Verdict { delivered: 3, duplicated: 1, ..Verdict::default() });
    }

    #[test]
    fn a_late_message_is_reordered_and_not_lost() {
        let mut tally = after([0, 2]);
        assert_eq!(tally.receive(1), Arrival::Late);
        assert_eq!(tally.receive(1), Arrival::Duplicate);
        let verdict = tally.verdict(3, &[]);
        assert_eq!(verdict, Verdict { delivered: 3, reordered: 1, duplicated: 1, ..Verdict::default() });
    }

    #[test]
    fn a_hole_can_be_filled_from_the_middle_and_from_its_ends() {
        let mut tally = after([9]);
        for (count, seq) in [4, 0, 8, 1, 7, 2, 3, 5, 6].into_iter().enumerate() {
            assert_eq!(tally.receive(seq), Arrival::Late, "{seq}");
            assert_eq!(tally.accounted(), count as u64 + 2);
        }
        assert_eq!(tally.verdict(10, &[]), Verdict { delivered: 10, reordered: 9, ..Verdict::default() });
    }

    #[test]
    fn refused_messages_are_not_expected() {
        let verdict = after([0, 3]).verdict(6, &[1..3, 5..6]);
        assert_eq!(verdict, Verdict { delivered: 2, lost: 1, ..Verdict::default() });
        let verdict = after(0..3).verdict(3, std::slice::from_ref(&(1..2)));
        assert_eq!(verdict.unexpected, 1);
    }
}
