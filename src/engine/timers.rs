//! The timers that a handler has set for its connections.

use std::collections::{BTreeSet, HashMap};

use super::table::Key;
use super::wheel::Tick;
use crate::config::TIMERS_PER_CONNECTION_MAX;

/// Timers of one shard. Connections without one cost nothing here.
#[derive(Default)]
pub(crate) struct Timers {
    /// In the order in which they are due.
    due: BTreeSet<(Tick, Key, u64)>,
    /// By connection: its tokens, and when each is due.
    set: HashMap<Key, Vec<(u64, Tick)>>,
}

impl Timers {
    /// Sets the timer of a token, in place of one that runs under it; `false`: the connection has as many as it may have.
    pub(crate) fn set(&mut self, key: Key, token: u64, at: Tick) -> bool {
        let own = self.set.entry(key).or_default();
        if let Some((_, before)) = own.iter_mut().find(|(own, _)| *own == token) {
            self.due.remove(&(*before, key, token));
            *before = at;
        } else if own.len() >= TIMERS_PER_CONNECTION_MAX {
            return false;
        } else {
            own.push((token, at));
        }
        self.due.insert((at, key, token));
        true
    }

    /// Ends the timer of a token; `false`: there is none.
    pub(crate) fn cancel(&mut self, key: Key, token: u64) -> bool {
        let Some(own) = self.set.get_mut(&key) else { return false };
        let Some(place) = own.iter().position(|(own, _)| *own == token) else { return false };
        let (_, at) = own.swap_remove(place);
        self.due.remove(&(at, key, token));
        if own.is_empty() {
            self.set.remove(&key);
        }
        true
    }

    /// Ends all timers of a connection.
    pub(crate) fn remove_connection(&mut self, key: Key) {
        self.take(key);
    }

    /// Takes out all timers of a connection: their tokens, and when they are due.
    pub(crate) fn take(&mut self, key: Key) -> Vec<(u64, Tick)> {
        let own = self.set.remove(&key).unwrap_or_default();
        for (token, at) in own.iter().copied() {
            self.due.remove(&(at, key, token));
        }
        own
    }

    /// Takes out the timer that is due first, if one is due at `now`.
    pub(crate) fn take_due(&mut self, now: Tick) -> Option<(Key, u64)> {
        let (_, key, token) = self.due.first().copied().filter(|(at, ..)| *at <= now)?;
        self.cancel(key, token);
        Some((key, token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(timers: &mut Timers, now: Tick) -> Vec<(u32, u64)> {
        std::iter::from_fn(|| timers.take_due(now)).map(|(key, token)| (key.slot, token)).collect()
    }

    #[test]
    fn timers_come_when_they_are_due_once_and_in_order() {
        let (mut timers, (a, b)) = (Timers::default(), (Key::new(1, 1), Key::new(2, 1)));
        assert!(timers.set(a, 7, 5) && timers.set(b, 7, 3) && timers.set(a, 8, 4));
        assert_eq!(due(&mut timers, 2), []);
        assert_eq!(due(&mut timers, 4), [(2, 7), (1, 8)]);
        assert_eq!(due(&mut timers, 100), [(1, 7)]);
        assert!(timers.set.is_empty() && timers.due.is_empty());
    }

    #[test]
    fn a_token_has_one_timer_and_what_is_cancelled_does_not_come() {
        let (mut timers, (a, b)) = (Timers::default(), (Key::new(1, 1), Key::new(2, 1)));
        assert!(timers.set(a, 1, 2) && timers.set(a, 1, 9) && timers.set(a, 2, 2) && timers.set(b, 1, 2));
        assert!(timers.cancel(a, 2) && !timers.cancel(a, 2) && !timers.cancel(b, 2));
        assert_eq!(due(&mut timers, 2), [(2, 1)]);
        timers.remove_connection(a);
        assert_eq!(due(&mut timers, 100), []);
        assert!(timers.set.is_empty() && timers.due.is_empty());
    }

    #[test]
    fn a_connection_has_no_more_than_it_may_have() {
        let (mut timers, key) = (Timers::default(), Key::new(1, 1));
        let most = TIMERS_PER_CONNECTION_MAX as u64;
        assert!((0..most).all(|token| timers.set(key, token, 1)));
        assert!(!timers.set(key, most, 1) && timers.set(key, 0, 2));
        assert!(timers.set(Key::new(2, 1), 0, 1));
    }
}
