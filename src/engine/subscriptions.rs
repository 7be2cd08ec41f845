//! What each connection of a shard is subscribed to, by its slot in the connection table.

/// One subscription of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) topic: u32,
    /// Where the connection stands in the topic's list.
    pub(crate) at: u32,
}

/// The subscriptions of a connection. One is kept in place: most clients have just one.
#[derive(Default)]
enum Subscriptions {
    #[default]
    None,
    One(Subscription),
    #[allow(clippy::box_collection, reason = "the box keeps the common cases at 16 bytes")]
    Many(Box<Vec<Subscription>>),
}

impl Subscriptions {
    fn as_slice(&self) -> &[Subscription] {
        match self {
            Subscriptions::None => &[],
            Subscriptions::One(one) => std::slice::from_ref(one),
            Subscriptions::Many(many) => many,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Subscription] {
        match self {
            Subscriptions::None => &mut [],
            Subscriptions::One(one) => std::slice::from_mut(one),
            Subscriptions::Many(many) => many,
        }
    }

    fn push(&mut self, subscription: Subscription) {
        match self {
            Subscriptions::None => *self = Subscriptions::One(subscription),
            Subscriptions::One(one) => *self = Subscriptions::Many(Box::new(vec![*one, subscription])),
            Subscriptions::Many(many) => many.push(subscription),
        }
    }

    fn swap_remove(&mut self, at: usize) -> Subscription {
        match self {
            Subscriptions::Many(many) => {
                let removed = many.swap_remove(at);
                if many.is_empty() {
                    *self = Subscriptions::None;
                }
                removed
            }
            Subscriptions::One(one) => {
                let removed = *one;
                *self = Subscriptions::None;
                removed
            }
            Subscriptions::None => unreachable!("only what is there is removed"),
        }
    }
}

/// Slots of one page.
const PAGE_SLOTS: usize = 1024;

/// The subscriptions of all connections, in pages that are there only while one of their slots has some.
#[derive(Default)]
pub(crate) struct BySlot(Vec<Option<Page>>);

struct Page {
    lists: Box<[Subscriptions]>,
    /// Slots with a subscription.
    taken: usize,
}

impl BySlot {
    /// The subscriptions of a slot.
    pub(crate) fn of(&self, slot: u32) -> &[Subscription] {
        let page = self.0.get(slot as usize / PAGE_SLOTS).and_then(Option::as_ref);
        page.map_or(&[], |page| page.lists[slot as usize % PAGE_SLOTS].as_slice())
    }

    pub(crate) fn of_mut(&mut self, slot: u32) -> &mut [Subscription] {
        let page = self.0.get_mut(slot as usize / PAGE_SLOTS).and_then(Option::as_mut);
        page.map_or(&mut [], |page| page.lists[slot as usize % PAGE_SLOTS].as_mut_slice())
    }

    /// Adds a subscription behind the others of its slot and says where it stands.
    pub(crate) fn push(&mut self, slot: u32, subscription: Subscription) -> u32 {
        let number = slot as usize / PAGE_SLOTS;
        if self.0.len() <= number {
            self.0.resize_with(number + 1, || None);
        }
        let page = self.0[number].get_or_insert_with(Page::new);
        let list = &mut page.lists[slot as usize % PAGE_SLOTS];
        let at = list.as_slice().len();
        page.taken += usize::from(at == 0);
        list.push(subscription);
        at as u32
    }

    /// Takes a subscription out of a slot's list. The last one moves into the hole.
    pub(crate) fn swap_remove(&mut self, slot: u32, at: usize) -> Subscription {
        let number = slot as usize / PAGE_SLOTS;
        let page = self.0[number].as_mut().expect("a slot with a subscription has its page");
        let list = &mut page.lists[slot as usize % PAGE_SLOTS];
        let removed = list.swap_remove(at);
        if list.as_slice().is_empty() {
            page.taken -= 1;
            // The first page is in use most of the time.
            if page.taken == 0 && number > 0 {
                self.0[number] = None;
            }
        }
        removed
    }
}

impl Page {
    fn new() -> Self {
        Page { lists: (0..PAGE_SLOTS).map(|_| Subscriptions::None).collect(), taken: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(topic: u32) -> Subscription {
        Subscription { topic, at: 0 }
    }

    #[test]
    fn a_page_is_there_while_one_of_its_slots_has_a_subscription() {
        let mut all = BySlot::default();
        let (low, high) = (PAGE_SLOTS as u32, 5 * PAGE_SLOTS as u32);
        assert_eq!(all.of(high), []);
        assert_eq!(all.push(high, subscription(1)), 0);
        assert_eq!(all.push(high, subscription(2)), 1);
        assert_eq!(all.push(low, subscription(3)), 0);
        assert_eq!(all.0.iter().filter(|page| page.is_some()).count(), 2);
        assert_eq!(all.swap_remove(high, 0), subscription(1));
        assert_eq!(all.of(high), [subscription(2)]);
        assert_eq!(all.swap_remove(high, 0), subscription(2));
        assert_eq!(all.of(high), []);
        assert_eq!(all.0.iter().filter(|page| page.is_some()).count(), 1);
        assert_eq!(all.of(low), [subscription(3)]);
    }
}
