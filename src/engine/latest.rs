//! Where messages of a topic wait in a long outbox: so that the newest can take the place of those before it without a look at
//! all that wait.
//!
//! Messages are known by their number: how many came before them since the index was made. A topic is known by a hash that
//! nobody outside can foresee; that two have the same one shows when the messages are looked at. Nearly always one message of
//! a topic waits, so there is a list for the others apart.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::message::Topic;

/// The index of one outbox.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    hasher: RandomState,
    /// By hash: the newest message.
    newest: HashMap<u32, u32>,
    /// By message: the one before it of the same hash.
    before: HashMap<u32, u32>,
}

impl Latest {
    /// Adds a message behind all others.
    pub(crate) fn add(&mut self, topic: &Topic, number: u32) {
        self.add_hashed(self.hash(topic), number);
    }

    fn add_hashed(&mut self, hash: u32, number: u32) {
        if let Some(before) = self.newest.insert(hash, number) {
            self.before.insert(number, before);
        }
    }

    /// Takes a message out that was the first of all.
    pub(crate) fn remove_first(&mut self, topic: &Topic, number: u32) {
        let hash = self.hash(topic);
        if self.newest.get(&hash) == Some(&number) {
            self.newest.remove(&hash);
        }
    }

    /// Takes messages out that may be of a topic, as far as `take` says so of one after the other, the newest first. Those
    /// before message `first` are gone.
    pub(crate) fn take(&mut self, topic: &Topic, first: u32, mut take: impl FnMut(u32) -> bool) {
        let hash = self.hash(topic);
        let mut kept = Vec::new();
        let mut next = self.newest.remove(&hash);
        while let Some(number) = next.filter(|number| *number >= first) {
            next = self.before.remove(&number);
            if !take(number) {
                kept.push(number);
            }
        }
        kept.into_iter().rev().for_each(|number| self.add_hashed(hash, number));
    }

    /// Bytes of memory, about.
    pub(crate) fn memory(&self) -> usize {
        // A byte beside each entry, and an eighth left free.
        let entries = (self.newest.capacity() + self.before.capacity()) * 8 / 7;
        size_of::<Latest>() + entries * (size_of::<(u32, u32)>() + 1)
    }

    fn hash(&self, topic: &Topic) -> u32 {
        self.hasher.hash_one(topic.as_str()) as u32
    }
}
