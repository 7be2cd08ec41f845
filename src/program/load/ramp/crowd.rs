//! The connections of a ramp: all of them subscribe to one topic, one in a hundred to a second one, and each says
//! what it got that it should not have got.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::RampPlan;
use crate::load::LoadError;
use crate::load::clock::ns;
use crate::load::dialect::Reply;
use crate::load::link::Link;
use crate::load::payload::{Stamp, Template};
use crate::load::plan::Plan;
use crate::load::scenario::{Scenario, Step};
use crate::load::shared::{Counts, Phase};
use crate::load::subscriber::Subscriber;

/// One connection in this many subscribes to the second topic too.
const FEW_ONE_IN: usize = 100;

/// What the threads note while a message is under way, for the coordinator to read.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// The number of the message under way; 0 before the first one.
    message: AtomicU32,
    /// Subscribers of the first topic, and of the second one.
    everyone: AtomicU64,
    few: AtomicU64,
    /// How many have got the message under way, and when the last one did.
    received: AtomicU64,
    last_ns: AtomicU64,
    /// Until then no PING is sent.
    quiet_until_ns: AtomicU64,
    duplicated: AtomicU64,
    strayed: AtomicU64,
    late: AtomicU64,
    corrupted: AtomicU64,
    gaps: AtomicU64,
}

/// What came that should not have come, in the whole run so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::load) struct Wrongs {
    /// The same message again.
    pub(in crate::load) duplicated: u64,
    /// A message of a topic that the connection has not subscribed to.
    pub(in crate::load) strayed: u64,
    /// A message after its time, or one that is not of this run.
    pub(in crate::load) late: u64,
    /// A message that is not what was published.
    pub(in crate::load) corrupted: u64,
    /// A `GAP`.
    pub(in crate::load) gaps: u64,
}

impl Board {
    /// Puts message `number` under way.
    pub(super) fn begin(&self, number: u32, quiet_until_ns: u64) {
        self.received.store(0, Ordering::Relaxed);
        self.last_ns.store(0, Ordering::Relaxed);
        self.quiet_until_ns.store(quiet_until_ns, Ordering::Relaxed);
        self.message.store(number, Ordering::Release);
    }

    /// Lets connections send PING again.
    pub(super) fn end(&self) {
        self.quiet_until_ns.store(0, Ordering::Relaxed);
    }

    pub(super) fn everyone(&self) -> u64 {
        self.everyone.load(Ordering::Relaxed)
    }

    pub(super) fn few(&self) -> u64 {
        self.few.load(Ordering::Relaxed)
    }

    /// How many got the message under way, and when the last one did.
    pub(super) fn received(&self) -> (u64, u64) {
        (self.received.load(Ordering::Acquire), self.last_ns.load(Ordering::Relaxed))
    }

    pub(super) fn wrongs(&self) -> Wrongs {
        Wrongs {
            duplicated: self.duplicated.load(Ordering::Relaxed),
            strayed: self.strayed.load(Ordering::Relaxed),
            late: self.late.load(Ordering::Relaxed),
            corrupted: self.corrupted.load(Ordering::Relaxed),
            gaps: self.gaps.load(Ordering::Relaxed),
        }
    }
}

/// One thread's part of the crowd.
pub(super) struct Crowd {
    board: Arc<Board>,
    run: u32,
    topic: Vec<u8>,
    few_topic: Vec<u8>,
    /// What the few say once they have the first topic.
    few_hello: Vec<u8>,
    subscriber: Subscriber,
    template: Template,
    is_settling: bool,
}

/// A connection, in as few bytes as will do.
pub(super) struct Member {
    /// The number of the last message that came.
    last: u32,
    is_few: bool,
    /// Whether the first topic is subscribed to, and the second one is asked for.
    has_first: bool,
}

impl Crowd {
    pub(super) fn new(plan: &Plan, ramp: &RampPlan, board: &Arc<Board>) -> Crowd {
        Crowd {
            board: board.clone(),
            run: plan.run,
            topic: ramp.topic.clone().into_bytes(),
            few_topic: ramp.few_topic.clone().into_bytes(),
            few_hello: ramp.few_hello.clone(),
            subscriber: Subscriber::new(plan, &ramp.topic),
            template: Template::new(ramp.message_bytes, |payload| {
                plan.dialect.publishing().publish(&ramp.topic, payload)
            }),
            is_settling: false,
        }
    }

    fn delivered(&self, member: &mut Member, topic: &[u8], payload: &[u8], now: u64) {
        let add = |count: &AtomicU64| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let is_mine = topic == self.topic || (member.is_few && topic == self.few_topic);
        if !is_mine {
            return add(&self.board.strayed);
        }
        let under_way = self.board.message.load(Ordering::Acquire);
        let Some(stamp) = Stamp::parse(payload).filter(|stamp| stamp.run == self.run && stamp.seq <= under_way) else {
            return add(&self.board.late);
        };
        if !self.template.matches_filler(payload) {
            add(&self.board.corrupted);
        }
        if stamp.seq == member.last {
            add(&self.board.duplicated);
        } else if stamp.seq < under_way {
            add(&self.board.late);
        } else {
            member.last = stamp.seq;
            self.board.last_ns.fetch_max(now, Ordering::Relaxed);
            self.board.received.fetch_add(1, Ordering::Release);
        }
    }

    fn count_in(&self, member: &Member) {
        self.board.everyone.fetch_add(1, Ordering::Relaxed);
        self.board.few.fetch_add(member.is_few.into(), Ordering::Relaxed);
    }
}

impl Scenario for Crowd {
    type Conn = Member;
    type Result = ();

    fn conn(&self, index: usize) -> Member {
        Member { last: 0, is_few: index.is_multiple_of(FEW_ONE_IN), has_first: false }
    }

    fn greet(&mut self, link: &mut Link, member: &mut Member, _now: u64) {
        member.has_first = false;
        self.subscriber.greet(link);
    }

    fn message(&mut self, link: &mut Link, member: &mut Member, message: &[u8], now: u64) -> Result<Step, LoadError> {
        match self.subscriber.dialect().reply(message) {
            Reply::Message { topic: Some(topic), payload } if link.is_ready() || member.has_first => {
                self.delivered(member, topic, payload, now);
                Ok(Step::Stay)
            }
            Reply::Gap { count, .. } => {
                self.board.gaps.fetch_add(count, Ordering::Relaxed);
                Ok(Step::Stay)
            }
            Reply::Pong => Ok(Step::Stay),
            Reply::Subscribed if member.is_few && !member.has_first => {
                member.has_first = true;
                link.send(&self.few_hello);
                Ok(Step::Stay)
            }
            reply => {
                let step = self.subscriber.answer(link, reply, message)?;
                if step == Step::Ready && !link.is_ready() {
                    self.count_in(member);
                }
                Ok(step)
            }
        }
    }

    fn keep_alive(&mut self, link: &mut Link, _member: &mut Member, now: u64) {
        if !self.is_settling && now >= self.board.quiet_until_ns.load(Ordering::Relaxed) {
            self.subscriber.ping(link);
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.is_settling = phase >= Phase::Settling;
    }

    fn closed(&mut self, link: &Link, member: &mut Member) {
        if link.is_ready() {
            self.board.everyone.fetch_sub(1, Ordering::Relaxed);
            self.board.few.fetch_sub(member.is_few.into(), Ordering::Relaxed);
        }
    }

    fn counts(&self) -> Counts {
        Counts { received: self.board.received.load(Ordering::Relaxed), ..Counts::default() }
    }

    fn p99_ns(&self) -> u64 {
        0
    }

    fn finish(self, _conns: impl Iterator<Item = (Member, bool)>) {}
}

/// When PING may be sent again if a message is put under way now: a period later, so that each connection misses one
/// turn at the most.
pub(super) fn quiet_until(plan: &Plan, now: u64) -> u64 {
    plan.ping_every.map_or(0, |period| now + ns(period))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::dialect::Framing;
    use crate::load::link::Stage;
    use crate::load::plan::Load;
    use crate::load::tests::plan;

    struct Scene {
        crowd: Crowd,
        template: Template,
        board: Arc<Board>,
        run: u32,
    }

    impl Scene {
        fn new() -> Scene {
            let plan = plan("ramp --steps 1000 --message-size 64").unwrap();
            let Load::Ramp(ramp) = &plan.load else { unreachable!() };
            let board = Arc::new(Board::default());
            let crowd = Crowd::new(&plan, ramp, &board);
            assert_eq!(plan.dialect.framing, Framing::Line);
            let template = Template::new(64, |payload| plan.dialect.publish("t", payload));
            Scene { crowd, template, board, run: plan.run }
        }

        /// A connection that has said its hellos.
        fn join(&mut self, index: usize) -> (Link, Member) {
            let (mut link, mut member) = (Link::default(), self.crowd.conn(index));
            self.crowd.greet(&mut link, &mut member, 0);
            if member.is_few {
                assert_eq!(self.crowd.message(&mut link, &mut member, b"OK SUB a", 1).unwrap(), Step::Stay);
            }
            assert_eq!(self.crowd.message(&mut link, &mut member, b"OK SUB a", 1).unwrap(), Step::Ready);
            link.stage = Stage::Ready;
            (link, member)
        }

        fn message(&mut self, topic: &[u8], seq: u32) -> Vec<u8> {
            let stamp = Stamp { run: self.run, source: 0, seq, at_ns: 0 };
            self.template.stamp(stamp);
            [b"MSG ", topic, b" ", self.template.payload()].concat()
        }

        fn give(&mut self, to: &mut (Link, Member), message: &[u8], now: u64) {
            assert_eq!(self.crowd.message(&mut to.0, &mut to.1, message, now).unwrap(), Step::Stay);
        }
    }

    #[test]
    fn one_in_a_hundred_has_both_topics_and_all_are_counted_while_they_are_there() {
        let mut scene = Scene::new();
        let mut members: Vec<_> = (0..200).map(|index| scene.join(index)).collect();
        assert_eq!((scene.board.everyone(), scene.board.few()), (200, 2));
        for (link, member) in &mut members[..101] {
            scene.crowd.closed(link, member);
        }
        assert_eq!((scene.board.everyone(), scene.board.few()), (99, 0));
    }

    #[test]
    fn a_message_counts_once_and_everything_else_is_a_wrong_of_its_own() {
        let mut scene = Scene::new();
        let (topic, few_topic) = (scene.crowd.topic.clone(), scene.crowd.few_topic.clone());
        let (mut few, mut other) = (scene.join(0), scene.join(1));
        scene.board.begin(1, 0);
        let first = scene.message(&topic, 1);
        scene.give(&mut few, &first, 7);
        scene.give(&mut other, &first, 9);
        assert_eq!((scene.board.received(), scene.board.wrongs()), ((2, 9), Wrongs::default()));

        scene.give(&mut other, &first, 10);
        assert_eq!(scene.board.wrongs(), Wrongs { duplicated: 1, ..Wrongs::default() });

        scene.board.begin(2, 0);
        let second = scene.message(&few_topic, 2);
        scene.give(&mut few, &second, 11);
        assert_eq!((scene.board.received(), scene.board.wrongs().strayed), ((1, 11), 0));
        scene.give(&mut other, &second, 12);
        assert_eq!((scene.board.received(), scene.board.wrongs().strayed), ((1, 11), 1));

        // The first one again, when its time is over; one of another run; one that nobody has published yet.
        scene.give(&mut few, &first, 13);
        scene.give(&mut few, &[b"MSG ", &topic[..], b" hello"].concat(), 13);
        let third = scene.message(&topic, 3);
        scene.give(&mut few, &third, 13);
        assert_eq!(scene.board.wrongs().late, 3);

        scene.board.begin(3, 0);
        let mut broken = third.clone();
        *broken.last_mut().unwrap() = b'!';
        scene.give(&mut few, &broken, 14);
        scene.give(&mut few, b"GAP load 2 queue-full", 14);
        assert_eq!((scene.board.wrongs().corrupted, scene.board.wrongs().gaps), (1, 2));
    }

    #[test]
    fn no_ping_is_sent_while_a_message_is_measured_for_one_period() {
        let plan = plan("ramp --steps 1000 --ping-every 20s").unwrap();
        assert_eq!(quiet_until(&plan, 5), 20_000_000_005);
        assert_eq!(quiet_until(&super::super::super::tests::plan("ramp --ping-every 0").unwrap(), 5), 0);
        let mut scene = Scene::new();
        let (mut link, mut member) = scene.join(1);
        // Without a stream, what is sent waits to be sent.
        link.close();
        scene.board.begin(1, 100);
        scene.crowd.keep_alive(&mut link, &mut member, 99);
        assert!(link.is_flushed());
        scene.board.end();
        scene.crowd.keep_alive(&mut link, &mut member, 99);
        assert!(!link.is_flushed());
    }
}
