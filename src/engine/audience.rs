//! The subscribers of a topic, in chunks that whoever holds them shares.
//!
//! A tree of chunks: a change copies the chunk it is made in, and the short lists that lead there, if they are held, and
//! nothing otherwise. A topic with up to [`AUDIENCE_CHUNK_MEMBERS`] subscribers is one chunk, and one with a million is
//! two lists away from each of its chunks. All chunks but the last are full.

use std::cell::Cell;
use std::rc::Rc;

use crate::config::{AUDIENCE_CHUNK_MEMBERS, AUDIENCE_LIST_CHUNKS};
use crate::engine::outbox::Meter;

/// Members of one chunk, and chunks or lists of one list. Tests reach the third level with few.
const CHUNK: usize = if cfg!(test) { 4 } else { AUDIENCE_CHUNK_MEMBERS };
const LIST: usize = if cfg!(test) { 2 } else { AUDIENCE_LIST_CHUNKS };

const _: () = assert!(AUDIENCE_CHUNK_MEMBERS.is_power_of_two() && AUDIENCE_LIST_CHUNKS.is_power_of_two());

/// One subscriber of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// The connection's slot. A connection that leaves the table ends its subscriptions, so a subscription that still
    /// stands needs no generation.
    pub(crate) slot: u32,
    /// Tells the subscription from all others, also from a later one of the same connection to the same topic.
    pub(crate) number: u32,
    /// Where the subscription stands in the connection's list.
    pub(crate) back: u32,
}

struct Node {
    /// Set once it belongs to no topic any more and is only held: what counts it from then on.
    stale: Cell<Option<Meter>>,
    shape: Shape,
}

enum Shape {
    Chunk(Vec<Member>),
    /// Each child but the last holds `1 << bits` members.
    List {
        bits: u32,
        children: Vec<Rc<Node>>,
    },
}

impl Node {
    fn new(shape: Shape) -> Rc<Self> {
        Rc::new(Node { stale: Cell::new(None), shape })
    }

    /// A chunk, or a list of children that hold `1 << bits` each, with one member in it; zero bits: a chunk.
    fn with(member: Member, bits: u32) -> Rc<Self> {
        Node::new(match bits {
            0 => Shape::Chunk(vec![member]),
            _ => Shape::List { bits, children: vec![Node::with(member, child_bits(bits))] },
        })
    }

    fn copy(&self) -> Rc<Self> {
        // A copy is about to change, and has as much room as the original.
        fn copied<T: Clone>(list: &Vec<T>) -> Vec<T> {
            let mut copy = Vec::with_capacity(list.capacity());
            copy.extend_from_slice(list);
            copy
        }
        Node::new(match &self.shape {
            Shape::Chunk(members) => Shape::Chunk(copied(members)),
            Shape::List { bits, children } => Shape::List { bits: *bits, children: copied(children) },
        })
    }

    /// Bytes of memory, those of its children left out.
    fn memory(&self) -> usize {
        const COUNTS: usize = 2 * size_of::<usize>();
        let list = match &self.shape {
            Shape::Chunk(members) => members.capacity() * size_of::<Member>(),
            Shape::List { children, .. } => children.capacity() * size_of::<Rc<Node>>(),
        };
        COUNTS + size_of::<Node>() + list
    }

    fn len(&self) -> usize {
        match &self.shape {
            Shape::Chunk(members) => members.len(),
            Shape::List { bits, children } => {
                let last = children.last().map_or(0, |last| last.len());
                (children.len().saturating_sub(1) << bits) + last
            }
        }
    }

    fn has_room(&self) -> bool {
        match &self.shape {
            Shape::Chunk(members) => members.len() < CHUNK,
            Shape::List { children, .. } => {
                children.len() < LIST || children.last().is_some_and(|last| last.has_room())
            }
        }
    }

    /// The base-two logarithm of how many members it can hold.
    fn capacity_bits(&self) -> u32 {
        match &self.shape {
            Shape::Chunk(_) => CHUNK.ilog2(),
            Shape::List { bits, .. } => bits + LIST.ilog2(),
        }
    }

    /// Adds a member behind the others; there is room.
    fn push(&mut self, member: Member, stale: &Meter) {
        match &mut self.shape {
            Shape::Chunk(members) => {
                // Most topics have few subscribers, and room for more of them is not had for nothing.
                if members.len() == members.capacity() {
                    members.reserve_exact(members.len().clamp(1, CHUNK));
                }
                members.push(member);
            }
            Shape::List { bits, children } => match children.last_mut().filter(|last| last.has_room()) {
                Some(last) => own(last, stale).push(member, stale),
                None => children.push(Node::with(member, child_bits(*bits))),
            },
        }
    }

    /// Takes the last member out; there is one.
    fn pop(&mut self, stale: &Meter) -> Option<Member> {
        match &mut self.shape {
            Shape::Chunk(members) => {
                let last = members.pop();
                give_back(members);
                last
            }
            Shape::List { children, .. } => {
                let child = own(children.last_mut()?, stale);
                let last = child.pop(stale);
                if child.len() == 0 {
                    children.pop();
                    give_back(children);
                }
                last
            }
        }
    }

    fn get_mut(&mut self, at: usize, stale: &Meter) -> Option<&mut Member> {
        match &mut self.shape {
            Shape::Chunk(members) => members.get_mut(at),
            Shape::List { bits, children } => {
                let child = children.get_mut(at >> *bits)?;
                own(child, stale).get_mut(at & ((1 << *bits) - 1), stale)
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(meter) = self.stale.take() {
            meter.sub(self.memory());
        }
    }
}

/// The bits of the children of a list; zero: they are chunks.
fn child_bits(bits: u32) -> u32 {
    if bits == CHUNK.ilog2() { 0 } else { bits - LIST.ilog2() }
}

/// A node to change: a copy of it if somebody holds it, who is then the only one to keep the original.
fn own<'a>(node: &'a mut Rc<Node>, stale: &Meter) -> &'a mut Node {
    if Rc::strong_count(node) > 1 {
        let copy = node.copy();
        let held = std::mem::replace(node, copy);
        stale.add(held.memory());
        held.stale.set(Some(stale.clone()));
    }
    Rc::get_mut(node).expect("nobody else has it")
}

/// Gives memory back once a list is a quarter of what it was: rarely enough that it costs each removal next to nothing.
fn give_back<T>(list: &mut Vec<T>) {
    const WORTH_IT: usize = 16;
    if list.capacity() > WORTH_IT && list.len() < list.capacity() / 4 {
        list.shrink_to(list.len() * 2);
    }
}

/// Members of a topic. What is held is a clone; it costs nothing, and later changes don't show in it.
#[derive(Clone)]
pub(crate) struct Members(Rc<Node>);

impl Default for Members {
    fn default() -> Self {
        Members(Node::new(Shape::Chunk(Vec::new())))
    }
}

impl Members {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether both are the same members and nothing has changed between them. One of them must be held.
    pub(crate) fn same_as(&self, other: &Members) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// The members from a place on, as far as they lie in one chunk; none: the place is behind the last.
    pub(crate) fn chunk(&self, mut at: usize) -> &[Member] {
        let mut node = &self.0;
        loop {
            match &node.shape {
                Shape::Chunk(members) => return members.get(at..).unwrap_or_default(),
                Shape::List { bits, children } => {
                    let Some(child) = children.get(at >> bits) else { return &[] };
                    at &= (1 << bits) - 1;
                    node = child;
                }
            }
        }
    }

    pub(crate) fn get(&self, at: usize) -> Option<Member> {
        self.chunk(at).first().copied()
    }

    /// A member to change. `stale` counts what is only held from then on.
    pub(crate) fn get_mut(&mut self, at: usize, stale: &Meter) -> Option<&mut Member> {
        own(&mut self.0, stale).get_mut(at, stale)
    }

    /// Adds a member behind the others.
    pub(crate) fn push(&mut self, member: Member, stale: &Meter) {
        if self.0.has_room() {
            return own(&mut self.0, stale).push(member, stale);
        }
        let bits = self.0.capacity_bits();
        let children = vec![Rc::clone(&self.0), Node::with(member, child_bits(bits))];
        self.0 = Node::new(Shape::List { bits, children });
    }

    /// Takes a member out, which must be there. The last one moves into its place.
    pub(crate) fn swap_remove(&mut self, at: usize, stale: &Meter) -> Member {
        let root = own(&mut self.0, stale);
        let last = root.pop(stale).expect("only a member that is there is removed");
        let removed = match root.get_mut(at, stale) {
            Some(member) => std::mem::replace(member, last),
            None => last,
        };
        if let Shape::List { children, .. } = &mut root.shape
            && children.len() == 1
            && let Some(only) = children.pop()
        {
            self.0 = only;
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(number: u32) -> Member {
        Member { slot: number, number, back: 0 }
    }

    fn all(members: &Members) -> Vec<Member> {
        let mut all = Vec::new();
        while let chunk @ [_, ..] = members.chunk(all.len()) {
            assert!(chunk.len() <= CHUNK);
            all.extend_from_slice(chunk);
        }
        all
    }

    /// Bytes of the nodes that can be reached, each counted once.
    fn memory<'a>(trees: impl IntoIterator<Item = &'a Members>) -> usize {
        fn walk(node: &Rc<Node>, seen: &mut std::collections::HashSet<*const Node>) -> usize {
            if !seen.insert(Rc::as_ptr(node)) {
                return 0;
            }
            let below = match &node.shape {
                Shape::Chunk(_) => 0,
                Shape::List { children, .. } => children.iter().map(|child| walk(child, seen)).sum(),
            };
            node.memory() + below
        }
        let mut seen = Default::default();
        trees.into_iter().map(|tree| walk(&tree.0, &mut seen)).sum()
    }

    /// The manual says what an idle connection costs, and most of them have a subscription.
    #[test]
    fn a_subscription_takes_no_more_than_it_did() {
        assert_eq!(size_of::<Member>(), 12);
        assert_eq!(size_of::<Members>(), 8);
        // With its counts, a node is a block of 64 bytes to the allocator.
        assert!(size_of::<Node>() <= 40);
        let mut members = Members::default();
        members.push(member(1), &Meter::default());
        assert_eq!(memory([&members]), 16 + size_of::<Node>() + size_of::<Member>());
    }

    #[test]
    fn a_change_copies_one_chunk_and_the_lists_that_lead_there() {
        let (mut members, stale) = (Members::default(), Meter::default());
        (0..1_000).for_each(|number| members.push(member(number), &stale));
        assert_eq!(stale.bytes(), 0, "nothing is held");
        let whole = memory([&members]);
        let held = members.clone();
        members.get_mut(500, &stale).unwrap().back = 7;
        assert!((1..whole / 20).contains(&stale.bytes()), "{} of {whole} bytes", stale.bytes());
        let once = stale.bytes();
        members.get_mut(500, &stale).unwrap().back = 8;
        assert_eq!(stale.bytes(), once, "what was copied is nobody else's");
        drop(held);
        assert_eq!(stale.bytes(), 0);
    }

    proptest! {
        /// Whatever changes, whatever is held meanwhile: the members are those of a list, what is held stays as it was, and
        /// the bytes that are only held are counted to the last one.
        #[test]
        fn it_behaves_as_a_list_and_what_is_held_never_changes(
            steps in prop::collection::vec((0u8..10, any::<prop::sample::Index>()), 0..200),
        ) {
            let (mut members, stale) = (Members::default(), Meter::default());
            let mut list: Vec<Member> = Vec::new();
            let mut held: Vec<(Members, Vec<Member>)> = Vec::new();
            for (number, (action, index)) in steps.into_iter().enumerate() {
                match action {
                    0..=4 => {
                        members.push(member(number as u32), &stale);
                        list.push(member(number as u32));
                    }
                    5 | 6 if !list.is_empty() => {
                        let at = index.index(list.len());
                        prop_assert_eq!(members.swap_remove(at, &stale), list.swap_remove(at));
                    }
                    7 if !list.is_empty() => {
                        let at = index.index(list.len());
                        members.get_mut(at, &stale).unwrap().back = number as u32;
                        list[at].back = number as u32;
                    }
                    8 => held.push((members.clone(), list.clone())),
                    9 if !held.is_empty() => drop(held.swap_remove(index.index(held.len()))),
                    _ => {}
                }
                prop_assert_eq!(members.len(), list.len());
                prop_assert_eq!(members.get(list.len()), None);
                let reachable = memory(held.iter().map(|(members, _)| members).chain([&members]));
                prop_assert_eq!(stale.bytes(), reachable - memory([&members]));
            }
            prop_assert_eq!(all(&members), list);
            for (held, list) in &held {
                prop_assert_eq!(&all(held), list);
            }
            drop(held);
            prop_assert_eq!(stale.bytes(), 0);
        }
    }
}
