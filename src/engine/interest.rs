//! Who is subscribed to what on one shard.
//!
//! Both directions are kept, and each entry knows where its counterpart stands, so that a subscription is made
//! and ended in constant time, also in a topic with a million subscribers.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use crate::config::SlowConsumer;
use crate::engine::subscriptions::{BySlot, Subscription};
use crate::engine::table::Key;
use crate::message::Topic;

/// One subscriber of a topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) key: Key,
    /// Where the subscription stands in the connection's list.
    back: u32,
}

/// The subscribers of a topic as they were at one moment; later changes don't show in it.
pub(crate) type Members = Rc<Vec<Member>>;

struct Entry {
    name: Topic,
    members: Members,
    counts: Counts,
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
pub(crate) struct Topics {
    /// Ordered, so that an operator can page through a million topics without a shard standing still.
    by_name: BTreeMap<Topic, u32>,
    /// Policies that were set for single topics, whether they have subscribers or not.
    policies: BTreeMap<Topic, SlowConsumer>,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    subscriptions: BySlot,
}

impl Topics {
    /// Adds a subscription; `false`: it was there already.
    pub(crate) fn subscribe(&mut self, key: Key, name: &str) -> bool {
        if self.is_subscribed(key, name) {
            return false;
        }
        let topic = match self.by_name.get(name) {
            Some(topic) => *topic,
            None => self.add_topic(Topic::new(name.as_bytes()).expect("names are checked before they come here")),
        };
        let entry = self.entries[topic as usize].as_mut().expect("by_name holds topics that are there");
        let back = self.subscriptions.push(key.slot, Subscription { topic, at: entry.members.len() as u32 });
        // A fan-out that is under way keeps the list it began with: this copies it then, and only then.
        Rc::make_mut(&mut entry.members).push(Member { key, back });
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
    pub(crate) fn members(&self, name: &str) -> Option<Members> {
        let topic = *self.by_name.get(name)?;
        self.entries[topic as usize].as_ref().map(|entry| Rc::clone(&entry.members))
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
        if let Some(topic) = self.by_name.get(name)
            && let Some(entry) = &mut self.entries[*topic as usize]
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

    fn entry(&self, topic: u32) -> Option<&Entry> {
        self.entries[topic as usize].as_ref()
    }

    fn of(&self, key: Key) -> &[Subscription] {
        self.subscriptions.of(key.slot)
    }

    /// Where a topic stands in a connection's list. The list is short: `topics_per_connection_max`.
    fn position(&self, key: Key, name: &str) -> Option<usize> {
        let topic = *self.by_name.get(name)?;
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
        let removed = self.subscriptions.swap_remove(key.slot, at);
        if let Some(moved) = self.of(key).get(at).copied() {
            let entry = self.entries[moved.topic as usize].as_mut().expect("a subscription's topic is there");
            Rc::make_mut(&mut entry.members)[moved.at as usize].back = at as u32;
        }

        let entry = self.entries[removed.topic as usize].as_mut().expect("a subscription's topic is there");
        let members = Rc::make_mut(&mut entry.members);
        members.swap_remove(removed.at as usize);
        give_back(members);
        if let Some(moved) = members.get(removed.at as usize) {
            self.subscriptions.of_mut(moved.key.slot)[moved.back as usize].at = removed.at;
        }
        if members.is_empty() {
            self.by_name.remove(entry.name.as_str());
            self.entries[removed.topic as usize] = None;
            self.free.push(removed.topic);
        }
    }
}

/// Gives memory back once a list is a quarter of what it was: rarely enough that it costs each removal next to nothing.
fn give_back<T>(list: &mut Vec<T>) {
    const WORTH_IT: usize = 1024;
    if list.capacity() > WORTH_IT && list.len() < list.capacity() / 4 {
        list.shrink_to(list.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn slots(topics: &Topics, name: &str) -> BTreeSet<u32> {
        topics.members(name).map(|members| members.iter().map(|member| member.key.slot).collect()).unwrap_or_default()
    }

    #[test]
    fn a_fan_out_keeps_the_list_it_began_with() {
        let mut topics = Topics::default();
        let (a, b) = (Key::new(0, 1), Key::new(1, 2));
        topics.subscribe(a, "news");
        let before = topics.members("news").unwrap();
        topics.subscribe(b, "news");
        topics.remove_connection(a);
        assert_eq!(before.iter().map(|member| member.key).collect::<Vec<_>>(), [a]);
        assert_eq!(slots(&topics, "news"), BTreeSet::from([1]));
    }

    #[test]
    fn a_topic_without_subscribers_takes_no_memory() {
        let mut topics = Topics::default();
        for number in 0..100 {
            topics.subscribe(Key::new(0, 1), &format!("topic-{number}"));
        }
        topics.remove_connection(Key::new(0, 1));
        assert_eq!(topics.len(), 0);
        for number in 0..100 {
            topics.subscribe(Key::new(0, 1), &format!("other-{number}"));
        }
        assert_eq!(topics.entries.len(), 100);
    }

    #[test]
    fn topics_are_listed_by_name_from_a_place_on() {
        let mut topics = Topics::default();
        for name in ["b/2", "a", "b/1", "c", "b/3"] {
            topics.subscribe(Key::new(0, 1), name);
        }
        topics.record("b/3", 4, 2);
        let list = |prefix: &str, after: Option<&str>| -> Vec<String> {
            topics.list(prefix, after).map(|(name, ..)| name.to_string()).collect()
        };
        assert_eq!(list("", None), ["a", "b/1", "b/2", "b/3", "c"]);
        assert_eq!(list("b/", Some("b/1")), ["b/2", "b/3"]);
        assert_eq!(list("b/", Some("a")), ["b/1", "b/2", "b/3"]);
        assert_eq!(list("b/", Some("c")), Vec::<String>::new());
        let (_, members, counts) = topics.list("b/3", None).next().unwrap();
        assert_eq!((members, counts.published, counts.written, counts.dropped), (1, 1, 4, 2));
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_set_of_pairs(
            steps in prop::collection::vec((0u8..5, 0u32..8, 0u32..6), 0..400),
        ) {
            let mut topics = Topics::default();
            let mut pairs = BTreeSet::new();
            for (action, slot, name) in steps {
                let (key, text) = (Key::new(slot, 1), format!("t{name}"));
                match action {
                    0..=2 => prop_assert_eq!(topics.subscribe(key, &text), pairs.insert((slot, name))),
                    3 => prop_assert_eq!(topics.unsubscribe(key, &text), pairs.remove(&(slot, name))),
                    _ => {
                        topics.remove_connection(key);
                        pairs.retain(|pair| pair.0 != slot);
                    }
                }
                for name in 0..6 {
                    let expected = pairs.iter().filter(|pair| pair.1 == name).map(|pair| pair.0).collect();
                    prop_assert_eq!(slots(&topics, &format!("t{name}")), expected);
                }
                for slot in 0..8 {
                    let expected = pairs.iter().filter(|pair| pair.0 == slot).count();
                    prop_assert_eq!(topics.count(Key::new(slot, 1)), expected);
                }
            }
        }
    }
}
