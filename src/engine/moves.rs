//! Open connections that move from one shard to another.
//!
//! What is published to a topic, or to all, goes to each shard by a lane of its own, so two shards are never at the same
//! place: one may have delivered what the other has yet to get. So that a connection misses nothing of it on its way and gets
//! nothing twice, the two shards agree on a cut. Publishes that go to all shards are numbered by their publisher, and come to
//! each shard in the order of their numbers; [`Seen`] is how far a shard is in them.
//!
//! 1. The old shard announces the connection ([`Notice::Expect`]). The new one answers how far it is ([`Notice::Expected`]),
//!    and keeps what it takes in from then on, for all that may come.
//! 2. When the old shard is at least as far, it puts the move into its queue of publishes. What is before the move there is
//!    offered to the connection on the old shard, and nothing of what is behind it. That is the cut, and it goes along in the
//!    parcel.
//! 3. When the new shard is as far as the cut, it unpacks the parcel and offers to the connection what it has kept from behind
//!    the cut. All else it delivers to it as to any other.
//!
//! 4. The old shard tells all others that it has sent it off, and these tell the new one that they are behind that. Until
//!    then the connection is not read on the new shard: what it publishes there can't overtake what it has published before.
//!
//! What holds, therefore:
//!
//! - A publish to a topic or to all reaches the connection once, or is counted as dropped once, as if it had not moved, and
//!   those of one publisher come in their order. So do those of a publisher that moves.
//! - Bytes go on where they were: a frame that was written in part is written on, and a message of which a part has come in
//!   is read on.
//! - A message to this connection alone reaches it once, or is counted as `no-connection` if it meets the move.
//! - No receipt counts what the connection gets from behind the cut as it is unpacked.
//! - To a topic that it subscribes to while its move is queued it may get what was published a moment before.
//! - While the parcel is under way nobody finds the connection: a close, or a question, is as for one that has gone. A close
//!   that waits on the old shard when its turn to move comes closes it there.
//! - If more is published while it is expected than may be kept, and it needs that, it is closed for it (`memory-pressure`).
//!
//! No shard waits for another in a circle: what a shard waits for before it takes in a parcel, or an answer, was sent before
//! that.

use std::collections::{HashMap, VecDeque};

use super::driver::{Bell, Driver};
use super::parcel::Parcel;
use super::publish_queue::Job;
use super::registry::Place;
use super::seen::Seen;
use super::shard_msg::{Notice, ShardMsg};
use super::table::Key;
use super::{Base, Engine};
use crate::config::{ARRIVALS_PUBLISHES_MAX, MOVES_MAX, PUBLISH_QUEUE_BYTES_MAX};
use crate::message::{CloseReason, ConnId, Target};
use crate::publish::Publish;

/// Publishes that are kept for connections that are expected. Tests reach the bound with few.
const KEPT_MAX: usize = if cfg!(test) { 40 } else { ARRIVALS_PUBLISHES_MAX };

/// What is kept for connections that are expected.
struct Arrivals {
    /// How many they are.
    expected: usize,
    /// How far the shard was before the first of the publishes.
    since: Seen,
    publishes: VecDeque<Publish>,
    bytes: usize,
}

/// Where a shard is in moving connections.
pub(crate) struct Moves {
    seen: Seen,
    /// Connections that have been announced to others and not been sent yet.
    leaving: usize,
    arrivals: Option<Box<Arrivals>>,
    /// Connections that have come and are not read yet, with how many shards have to say that they are behind their leave.
    /// Some may say so before they come, so it may be a negative number.
    held_up: HashMap<ConnId, isize>,
}

impl Moves {
    pub(crate) fn new(shards: usize) -> Self {
        Moves { seen: Seen::new(shards), leaving: 0, arrivals: None, held_up: HashMap::new() }
    }

    /// Connections that are about to leave.
    #[cfg(test)]
    pub(crate) fn leaving(&self) -> usize {
        self.leaving
    }

    /// Whether nobody comes and nobody goes.
    pub(crate) fn is_quiet(&self) -> bool {
        self.leaving == 0 && self.arrivals.is_none()
    }

    /// Whether a connection must not be read yet.
    pub(crate) fn is_held_up(&self, id: ConnId) -> bool {
        !self.held_up.is_empty() && self.held_up.contains_key(&id)
    }

    /// So many more shards, or fewer, have to say that they are behind the leave of a connection; whether it is held up.
    fn hold_up(&mut self, id: ConnId, shards: isize) -> bool {
        let left = self.held_up.entry(id).or_insert(0);
        *left += shards;
        let is_held_up = *left != 0;
        if !is_held_up {
            self.held_up.remove(&id);
        }
        is_held_up
    }

    /// Whether the shard has taken in as much as another had.
    pub(crate) fn is_as_far_as(&self, seen: &Seen) -> bool {
        self.seen.reaches(seen)
    }

    /// Follows what the shard takes in.
    fn note(&mut self, publish: &Publish) {
        if matches!(publish.target, Target::Conn(_)) {
            return;
        }
        self.seen.note(publish.id);
        if let Some(arrivals) = &mut self.arrivals {
            // Who publishes is told by those who deliver it now.
            arrivals.keep(Publish { receipt: None, ..publish.clone() });
        }
    }

    fn expect(&mut self) {
        let arrivals = self.arrivals.get_or_insert_with(|| {
            Box::new(Arrivals { expected: 0, since: self.seen.clone(), publishes: VecDeque::new(), bytes: 0 })
        });
        arrivals.expected += 1;
    }

    /// One that was expected has come, or won't.
    fn expect_one_less(&mut self) {
        self.arrivals = self.arrivals.take().filter(|arrivals| arrivals.expected > 1).map(|mut arrivals| {
            arrivals.expected -= 1;
            arrivals
        });
    }
}

impl Arrivals {
    fn keep(&mut self, publish: Publish) {
        self.bytes += publish.payload.len();
        self.publishes.push_back(publish);
        while self.publishes.len() > KEPT_MAX || self.bytes > PUBLISH_QUEUE_BYTES_MAX {
            let Some(oldest) = self.publishes.pop_front() else { break };
            self.bytes -= oldest.payload.len();
            self.since.note(oldest.id);
        }
    }
}

impl<D: Driver> Engine<D> {
    /// Begins to move an open connection to another shard. `false`: for now it can't be moved. The connection may close
    /// meanwhile, and stays where it is if the other shard takes nothing when its turn comes.
    #[cfg_attr(not(test), allow(dead_code, reason = "no command moves connections yet"))]
    pub(crate) fn begin_to_move(&mut self, key: Key, to: usize) -> bool {
        let base = &mut self.base;
        let Some(row) = self.table.get(key).filter(|row| row.closing.is_none()) else { return false };
        if to == base.index || base.draining || base.moves.leaving == MOVES_MAX || !base.lanes.has_room(to) {
            return false;
        }
        base.moves.leaving += 1;
        base.send_to_shard(to, ShardMsg::Move(Notice::Expect { from: base.index, id: row.id }));
        true
    }

    /// Takes in what another shard says about a connection that moves.
    pub(crate) fn take_notice(&mut self, notice: Notice) {
        let base = &mut self.base;
        match notice {
            Notice::Expect { from, id } => {
                base.moves.expect();
                let expected = Notice::Expected { by: base.index, id, seen: base.moves.seen.clone() };
                base.send_to_shard(from, ShardMsg::Move(expected));
            }
            Notice::Expected { by, id, seen } => {
                debug_assert!(base.moves.is_as_far_as(&seen), "it is taken in when this shard is as far");
                let row = base.registry.get(id).filter(|row| row.shard() == base.index);
                match row {
                    Some(row) => {
                        let seen = base.moves.seen.clone();
                        base.publishes.push(Job::Move { key: row.key(), to: by, seen });
                        base.driver.ring(Bell::Publishes);
                    }
                    None => base.call_off(by),
                }
            }
            Notice::CalledOff => base.moves.expect_one_less(),
            Notice::SentOff { to, id } => base.send_to_shard(to, ShardMsg::Move(Notice::Behind { id })),
            Notice::Behind { id } => {
                if !base.moves.hold_up(id, -1)
                    && let Some(row) = base.registry.get(id).filter(|row| row.shard() == base.index)
                    && let Some(mut visit) = self.visit(row.key())
                {
                    visit.wake();
                }
            }
        }
    }

    /// Sends a connection off, now that all that it shall get here has been offered to it.
    pub(crate) fn send_off(&mut self, key: Key, to: usize, seen: Seen) {
        let base = &mut self.base;
        let id = self.table.get(key).map(|row| row.id);
        let id = id.filter(|id| !base.moves.is_held_up(*id) && !base.publishes.closes_later(key));
        let Some(id) = id.filter(|_| !base.draining && base.lanes.has_room(to)) else { return base.call_off(to) };
        let Some(parcel) = self.pack(key, seen) else { return self.base.call_off(to) };
        let base = &mut self.base;
        base.moves.leaving -= 1;
        base.registry.replace(base.index, to);
        let place = Place::new(&base.registry, to, Some(id));
        base.send_to_shard(to, ShardMsg::Parcel(parcel, place));
        for other in base.lanes.peers().iter().copied().filter(|peer| *peer != to) {
            base.send_to_shard(other, ShardMsg::Move(Notice::SentOff { to, id }));
        }
    }

    /// Takes in a connection that another shard has sent off, with all that was published meanwhile.
    pub(crate) fn welcome(&mut self, parcel: Parcel<D::Socket>) {
        let Parcel { socket, handler, open, .. } = parcel;
        let open = *open.expect("a fresh client is admitted");
        let (seen, draining) = (open.seen.clone(), self.base.draining);
        debug_assert!(self.base.moves.is_as_far_as(&seen), "it is taken in when this shard is as far");
        let mut visit = self.unpack(socket, handler, open);
        let arrivals = visit.base.moves.arrivals.take().expect("it was expected");
        if seen.reaches(&arrivals.since) {
            let behind = arrivals.publishes.iter().filter(|publish| !seen.includes(publish.id));
            behind.for_each(|publish| visit.push_late(publish));
        } else {
            visit.close(CloseReason::MemoryPressure);
        }
        if draining {
            visit.close(CloseReason::Drain);
        }
        let (id, others) = (visit.row.id, visit.base.registry.shards() - 2);
        let moves = &mut visit.base.moves;
        moves.arrivals = Some(arrivals);
        moves.expect_one_less();
        moves.hold_up(id, others as isize);
        self.flush_dirty();
    }
}

impl<D: Driver> Base<D> {
    /// Follows what the shard takes in, for connections that move.
    pub(crate) fn note_seen(&mut self, publish: &Publish) {
        self.moves.note(publish);
        if !self.moves.is_quiet() {
            self.driver.ring(Bell::Seen);
        }
    }

    /// Tells another shard that a connection won't come.
    fn call_off(&mut self, to: usize) {
        self.moves.leaving -= 1;
        self.send_to_shard(to, ShardMsg::Move(Notice::CalledOff));
    }
}
