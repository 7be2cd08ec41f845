//! Who is subscribed to what on one shard.
//!
//! Both directions are kept, and each entry knows where its counterpart stands, so that a subscription is made
//! and ended in constant time, also in a topic with a million subscribers.

use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::ops::{Bound, Range};

use crate::config::SlowConsumer;
use crate::engine::audience::{Member, Members};
use crate::engine::outbox::Meter;
use crate::engine::subscriptions::{BySlot, Subscription};
use crate::engine::table::Key;
use crate::message::Topic;

/// Is told who comes to topics and who leaves them. What it does not care about does nothing, and costs nothing.
pub(crate) trait Listener {
    /// A topic has a subscriber now.
    fn first(&mut self, _topic: &Topic) {}
    /// It has none any more.
    fn last(&mut self, _topic: &Topic) {}
    /// A connection has subscribed: after `first`, if it is the first.
    fn joined(&mut self, _topic: &Topic, _key: Key) {}
    /// A connection is not subscribed any more: before `last`, if it was the last.
    fn left(&mut self, _topic: &Topic, _key: Key) {}
}

/// Nobody listens.
impl Listener for () {}

/// The subscribers of a topic as they were at one moment; later changes don't show in it.
#[derive(Clone)]
pub(crate) struct Audience {
    topic: u32,
    members: Members,
}

impl Audience {
    /// How many they were.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether both are the same subscribers, and none has come or gone between the two moments.
    pub(crate) fn same_as(&self, other: &Audience) -> bool {
        self.topic == other.topic && self.members.same_as(&other.members)
    }
}

struct Entry {
    name: Topic,
    members: Members,
    counts: Counts,
}

/// A shard with so many topics remembers which were asked for.
const RECENT_FROM: usize = 16;

/// How many.
const RECENT: usize = 1 << 14;

/// Numbers of topics by a hash of their names, one for each hash. A name that collides with another is looked for in the map,
/// so that nothing is gained by finding such names.
#[derive(Default)]
struct Recent(OnceCell<Box<[Cell<u32>]>>);

impl Recent {
    /// Where the number of a topic of this name may stand.
    fn place(&self, name: &str) -> &Cell<u32> {
        let mut hash = name.len() as u64;
        for chunk in name.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            // As FxHash mixes.
            hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
        let places = self.0.get_or_init(|| vec![Cell::new(u32::MAX); RECENT].into());
        &places[(hash >> (u64::BITS - RECENT.ilog2())) as usize]
    }
}

/// What has been published to a topic on one shard since it has had subscribers there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) published: u64,
    pub(crate) written: u64,
    pub(crate) dropped: u64,
}

/// The topics of one shard with their subscribers, and each connection's topics.
#[derive(Default)]
pub(crate) struct Interest<L = ()> {
    /// Ordered, so that an operator can page through a million topics without a shard standing still.
    by_name: BTreeMap<Topic, u32>,
    /// The topics that were asked for last.
    recent: Recent,
    /// Policies that were set for single topics, whether they have subscribers or not.
    policies: BTreeMap<Topic, SlowConsumer>,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    subscriptions: BySlot,
    /// Subscriptions made so far: the number of the last one.
    made: u32,
    /// Subscriptions ended so far.
    ended: u64,
    /// Bytes that nothing but audiences keeps, since the topics have changed.
    stale: Meter,
    listener: L,
}

impl<L: Listener> Interest<L> {
    /// Adds a subscription; `false`: it was there already.
    pub(crate) fn subscribe(&mut self, key: Key, name: &str) -> bool {
        if self.is_subscribed(key, name) {
            return false;
        }
        let topic = match self.find(name) {
            Some(topic) => topic,
            None => self.add_topic(Topic::new(name.as_bytes()).expect("names are checked before they come here")),
        };
        let entry = self.entries[topic as usize].as_mut().expect("by_name holds topics that are there");
        if entry.members.is_empty() {
            self.listener.first(&entry.name);
        }
        let back = self.subscriptions.push(key.slot, Subscription { topic, at: entry.members.len() as u32 });
        self.made = self.made.wrapping_add(1);
        entry.members.push(Member { slot: key.slot, number: self.made, back }, &self.stale);
        self.listener.joined(&entry.name, key);
        true
    }

    /// Ends a subscription; `false`: there was none.
    pub(crate) fn unsubscribe(&mut self, key: Key, name: &str) -> bool {
        match self.position(key, name) {
            Some(at) => {
                self.remove(key, at);
                true
            }
            None => false,
        }
    }

    /// Ends all subscriptions of a connection.
    pub(crate) fn remove_connection(&mut self, key: Key) {
        while self.count(key) > 0 {
            self.remove(key, self.count(key) - 1);
        }
    }

    pub(crate) fn is_subscribed(&self, key: Key, name: &str) -> bool {
        self.position(key, name).is_some()
    }

    /// How many topics a connection is subscribed to.
    pub(crate) fn count(&self, key: Key) -> usize {
        self.of(key).len()
    }

    /// The subscribers of a topic; `None`: it has none here.
    pub(crate) fn audience(&self, name: &str) -> Option<Audience> {
        let topic = self.find(name)?;
        self.entry(topic).map(|entry| Audience { topic, members: entry.members.clone() })
    }

    /// Calls `each` with the slots of those in some places of an audience whose subscription has not ended since. A
    /// connection that has left the topic and come back is none of them.
    pub(crate) fn present(&self, audience: &Audience, places: Range<usize>, mut each: impl FnMut(u32)) {
        let now = self.entries.get(audience.topic as usize).and_then(Option::as_ref).map(|entry| &entry.members);
        let mut at = places.start;
        while at < places.end {
            let chunk = audience.members.chunk(at);
            let chunk = &chunk[..chunk.len().min(places.end - at)];
            let same_place = now.map_or(&[][..], |now| now.chunk(at));
            // What is held is never written to: the same memory is the same members.
            if std::ptr::eq(chunk.as_ptr(), same_place.as_ptr()) {
                chunk.iter().for_each(|member| each(member.slot));
            } else {
                for (index, member) in chunk.iter().enumerate() {
                    let stays = same_place.get(index).is_some_and(|there| there.number == member.number);
                    if stays || now.is_some_and(|now| self.stands(audience.topic, now, member)) {
                        each(member.slot);
                    }
                }
            }
            at += chunk.len();
        }
    }

    /// Whether the subscription of a member stands, wherever it has moved.
    fn stands(&self, topic: u32, members: &Members, member: &Member) -> bool {
        let subscription = self.subscriptions.of(member.slot).iter().find(|subscription| subscription.topic == topic);
        let there = subscription.and_then(|subscription| members.get(subscription.at as usize));
        there.is_some_and(|there| there.number == member.number)
    }

    /// What counts the bytes that nothing but audiences keeps.
    pub(crate) fn stale(&self) -> &Meter {
        &self.stale
    }

    /// Topics that have a subscriber.
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// The names of a connection's topics.
    pub(crate) fn names(&self, key: Key) -> impl Iterator<Item = &Topic> {
        self.of(key).iter().filter_map(|subscription| self.entry(subscription.topic)).map(|entry| &entry.name)
    }

    /// The topics after `after` in the order of their names, as far as they begin with `prefix`.
    pub(crate) fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Topic, usize, Counts)> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.by_name
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(move |(name, _)| name.as_str().starts_with(prefix))
            .filter_map(|(name, topic)| self.entry(*topic).map(|entry| (name, entry.members.len(), entry.counts)))
    }

    /// Counts a publish to a topic, and what became of it.
    pub(crate) fn record(&mut self, name: &str, written: u64, dropped: u64) {
        if let Some(topic) = self.find(name)
            && let Some(entry) = &mut self.entries[topic as usize]
        {
            entry.counts.published += 1;
            entry.counts.written += written;
            entry.counts.dropped += dropped;
        }
    }

    /// The policy that was set for a topic.
    pub(crate) fn policy(&self, name: &str) -> Option<SlowConsumer> {
        // Few servers set any, and every publish asks.
        if self.policies.is_empty() { None } else { self.policies.get(name).copied() }
    }

    /// Sets a topic's policy, or takes it back.
    pub(crate) fn set_policy(&mut self, topic: Topic, policy: Option<SlowConsumer>) {
        match policy {
            Some(policy) => self.policies.insert(topic, policy),
            None => self.policies.remove(&topic),
        };
    }

    /// The number of a topic that has a subscriber.
    fn find(&self, name: &str) -> Option<u32> {
        // In a small map there is little to search for.
        if self.by_name.len() < RECENT_FROM {
            return self.by_name.get(name).copied();
        }
        let recent = self.recent.place(name);
        let is_it = |topic: &u32| {
            self.entries
                .get(*topic as usize)
                .is_some_and(|entry| entry.as_ref().is_some_and(|entry| entry.name.as_str() == name))
        };
        if let Some(topic) = Some(recent.get()).filter(is_it) {
            return Some(topic);
        }
        self.by_name.get(name).copied().inspect(|topic| recent.set(*topic))
    }

    /// The name of a topic that has a subscriber.
    pub(crate) fn name(&self, name: &str) -> Option<&Topic> {
        self.entry(self.find(name)?).map(|entry| &entry.name)
    }

    /// Subscriptions ended so far: while that stays the same, whoever was subscribed is subscribed.
    pub(crate) fn ended(&self) -> u64 {
        self.ended
    }

    fn entry(&self, topic: u32) -> Option<&Entry> {
        self.entries[topic as usize].as_ref()
    }

    fn of(&self, key: Key) -> &[Subscription] {
        self.subscriptions.of(key.slot)
    }

    /// Where a topic stands in a connection's list. The list is short: `topics_per_connection_max`.
    fn position(&self, key: Key, name: &str) -> Option<usize> {
        let topic = self.find(name)?;
        self.of(key).iter().position(|subscription| subscription.topic == topic)
    }

    fn add_topic(&mut self, name: Topic) -> u32 {
        let entry = Some(Entry { name: name.clone(), members: Members::default(), counts: Counts::default() });
        let topic = match self.free.pop() {
            Some(topic) => {
                self.entries[topic as usize] = entry;
                topic
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.by_name.insert(name, topic);
        topic
    }

    /// Removes the subscription at `at` in a connection's list, from both directions. The last entry of each
    /// list moves into the hole, and its counterpart is told where it stands now.
    fn remove(&mut self, key: Key, at: usize) {
        self.ended += 1;
        let removed = self.subscriptions.swap_remove(key.slot, at);
        if let Some(moved) = self.of(key).get(at).copied() {
            let entry = self.entries[moved.topic as usize].as_mut().expect("a subscription's topic is there");
            let member = entry.members.get_mut(moved.at as usize, &self.stale).expect("its member is there");
            member.back = at as u32;
        }

        let entry = self.entries[removed.topic as usize].as_mut().expect("a subscription's topic is there");
        entry.members.swap_remove(removed.at as usize, &self.stale);
        if let Some(moved) = entry.members.get(removed.at as usize) {
            self.subscriptions.of_mut(moved.slot)[moved.back as usize].at = removed.at;
        }
        self.listener.left(&entry.name, key);
        if entry.members.is_empty() {
            self.listener.last(&entry.name);
            self.by_name.remove(entry.name.as_str());
            self.entries[removed.topic as usize] = None;
            self.free.push(removed.topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The slots of an audience that would get a message now, in order.
    fn present<L: Listener>(interest: &Interest<L>, audience: &Audience) -> Vec<u32> {
        let mut slots = Vec::new();
        // In pieces of a size that fits no chunk.
        for from in (0..audience.len()).step_by(3) {
            interest.present(audience, from..audience.len().min(from + 3), |slot| slots.push(slot));
        }
        slots
    }

    fn slots(interest: &Interest, name: &str) -> BTreeSet<u32> {
        interest.audience(name).map(|audience| present(interest, &audience).into_iter().collect()).unwrap_or_default()
    }

    #[test]
    fn an_audience_gains_nobody_and_who_has_left_is_not_present() {
        let mut interest = Interest::<()>::default();
        let [a, b, c] = [0, 1, 2].map(|slot| Key::new(slot, 1));
        interest.subscribe(a, "news");
        interest.subscribe(b, "news");
        let before = interest.audience("news").unwrap();
        interest.subscribe(c, "news");
        assert_eq!((before.len(), present(&interest, &before)), (2, vec![0, 1]));
        interest.remove_connection(a);
        assert_eq!((before.len(), present(&interest, &before)), (2, vec![1]));
        assert_eq!(slots(&interest, "news"), BTreeSet::from([1, 2]));
    }

    #[test]
    fn who_leaves_and_comes_back_gets_nothing_of_before() {
        let mut interest = Interest::<()>::default();
        let (a, b) = (Key::new(0, 1), Key::new(1, 2));
        interest.subscribe(a, "news");
        let alone = interest.audience("news").unwrap();
        interest.unsubscribe(a, "news");
        interest.subscribe(a, "news");
        assert!(present(&interest, &alone).is_empty(), "the topic is another one");
        interest.subscribe(b, "news");
        let both = interest.audience("news").unwrap();
        interest.unsubscribe(a, "news");
        interest.subscribe(a, "news");
        assert_eq!(present(&interest, &both), [1]);
        // Another topic in the place of the first.
        interest.remove_connection(a);
        interest.remove_connection(b);
        interest.subscribe(b, "sport");
        assert!(present(&interest, &both).is_empty());
    }

    #[test]
    fn a_listener_hears_of_the_first_the_last_and_all_between() {
        #[derive(Default)]
        struct Journal(Vec<String>);
        impl Listener for Journal {
            fn first(&mut self, topic: &Topic) {
                self.0.push(format!("first {topic}"));
            }
            fn last(&mut self, topic: &Topic) {
                self.0.push(format!("last {topic}"));
            }
            fn joined(&mut self, topic: &Topic, key: Key) {
                self.0.push(format!("{} joined {topic}", key.slot));
            }
            fn left(&mut self, topic: &Topic, key: Key) {
                self.0.push(format!("{} left {topic}", key.slot));
            }
        }
        let mut interest = Interest::<Journal>::default();
        let (a, b) = (Key::new(0, 1), Key::new(1, 2));
        interest.subscribe(a, "news");
        interest.subscribe(a, "news");
        interest.subscribe(b, "news");
        interest.unsubscribe(b, "sport");
        interest.unsubscribe(a, "news");
        interest.remove_connection(b);
        assert_eq!(
            interest.listener.0,
            ["first news", "0 joined news", "1 joined news", "0 left news", "1 left news", "last news"]
        );
    }

    #[test]
    fn a_topic_without_subscribers_takes_no_memory() {
        let mut interest = Interest::<()>::default();
        for number in 0..100 {
            interest.subscribe(Key::new(0, 1), &format!("topic-{number}"));
        }
        interest.remove_connection(Key::new(0, 1));
        assert_eq!(interest.len(), 0);
        for number in 0..100 {
            interest.subscribe(Key::new(0, 1), &format!("other-{number}"));
        }
        assert_eq!(interest.entries.len(), 100);
    }

    #[test]
    fn topics_are_listed_by_name_from_a_place_on() {
        let mut interest = Interest::<()>::default();
        for name in ["b/2", "a", "b/1", "c", "b/3"] {
            interest.subscribe(Key::new(0, 1), name);
        }
        interest.record("b/3", 4, 2);
        let list = |prefix: &str, after: Option<&str>| -> Vec<String> {
            interest.list(prefix, after).map(|(name, ..)| name.to_string()).collect()
        };
        assert_eq!(list("", None), ["a", "b/1", "b/2", "b/3", "c"]);
        assert_eq!(list("b/", Some("b/1")), ["b/2", "b/3"]);
        assert_eq!(list("b/", Some("a")), ["b/1", "b/2", "b/3"]);
        assert_eq!(list("b/", Some("c")), Vec::<String>::new());
        let (_, members, counts) = interest.list("b/3", None).next().unwrap();
        assert_eq!((members, counts.published, counts.written, counts.dropped), (1, 1, 4, 2));
    }

    proptest! {
        /// Whatever comes and goes: what is kept is a set of pairs, and those present of an audience are those whose
        /// subscription has stood since.
        #[test]
        fn it_behaves_as_a_set_of_pairs(
            steps in prop::collection::vec((0u8..8, 0u32..24, 0u32..3), 0..400),
        ) {
            let mut interest = Interest::<()>::default();
            // Each with the step in which it was made.
            let mut pairs = BTreeMap::new();
            let mut held: Vec<(Audience, u32, BTreeMap<u32, usize>)> = Vec::new();
            for (step, (action, slot, name)) in steps.into_iter().enumerate() {
                let (key, text) = (Key::new(slot, 1), format!("t{name}"));
                match action {
                    0..=3 => {
                        let new = !pairs.contains_key(&(slot, name));
                        prop_assert_eq!(interest.subscribe(key, &text), new);
                        pairs.entry((slot, name)).or_insert(step);
                    }
                    4 => prop_assert_eq!(interest.unsubscribe(key, &text), pairs.remove(&(slot, name)).is_some()),
                    5 => {
                        interest.remove_connection(key);
                        pairs.retain(|pair, _| pair.0 != slot);
                    }
                    6 => {
                        let audience = interest.audience(&text);
                        let made = pairs.iter().filter(|(pair, _)| pair.1 == name).map(|(pair, step)| (pair.0, *step));
                        held.extend(audience.map(|audience| (audience, name, made.collect())));
                    }
                    _ if !held.is_empty() => drop(held.remove(0)),
                    _ => {}
                }
                for name in 0..3 {
                    let expected = pairs.keys().filter(|pair| pair.1 == name).map(|pair| pair.0).collect();
                    prop_assert_eq!(slots(&interest, &format!("t{name}")), expected);
                }
                for slot in 0..24 {
                    let expected = pairs.keys().filter(|pair| pair.0 == slot).count();
                    prop_assert_eq!(interest.count(Key::new(slot, 1)), expected);
                }
                for (audience, name, made) in &held {
                    let stand = |(slot, step): (&u32, &usize)| (pairs.get(&(*slot, *name)) == Some(step)).then_some(*slot);
                    let mut present = present(&interest, audience);
                    present.sort_unstable();
                    prop_assert_eq!(audience.len(), made.len());
                    prop_assert_eq!(present, made.iter().filter_map(stand).collect::<Vec<_>>());
                }
            }
            drop(held);
            prop_assert_eq!(interest.stale().bytes(), 0);
        }
    }
}
