//! The way to the other shards.
//!
//! Nothing here waits for another shard: a lane that is full is not waited for (two full shards would wait for each other).
//! What it refuses is kept in a bounded backlog, in order, and tried again. When that is full too, a publish is refused to
//! its publisher.

use std::collections::VecDeque;
use std::rc::Rc;

use super::driver::{Bell, Driver};
use super::parcel::Parcel;
use super::registry::Place;
use super::shard_msg::{Notice, ShardMsg};
use super::{Base, Engine};
use crate::config::{Config, PUBLISH_QUEUE_BYTES_MAX};
use crate::handler::Handlers;

/// What waits for lanes that are full, by shard.
pub(crate) struct Lanes<S> {
    peers: Rc<[usize]>,
    backlogs: Vec<Backlog<S>>,
    backlog_max: usize,
    /// Messages in all of them.
    waiting: usize,
}

struct Backlog<S> {
    queue: VecDeque<ShardMsg<S>>,
    bytes: usize,
}

impl<S> Lanes<S> {
    /// The lanes from shard `own` to the others of so many.
    pub(crate) fn new(own: usize, shards: usize, config: &Config) -> Self {
        Lanes {
            peers: (0..shards).filter(|shard| *shard != own).collect(),
            backlogs: (0..shards).map(|_| Backlog { queue: VecDeque::new(), bytes: 0 }).collect(),
            backlog_max: config.mesh_backlog,
            waiting: 0,
        }
    }

    /// The numbers of the other shards.
    pub(crate) fn peers(&self) -> Rc<[usize]> {
        Rc::clone(&self.peers)
    }

    /// Whether a message to this shard would be taken.
    pub(crate) fn has_room(&self, shard: usize) -> bool {
        let backlog = &self.backlogs[shard];
        backlog.queue.len() < self.backlog_max && backlog.bytes < PUBLISH_QUEUE_BYTES_MAX
    }

    /// Whether clients of this shard should publish no more before others have taken some of what waits for them.
    pub(crate) fn is_congested(&self) -> bool {
        let is_half_full = |backlog: &Backlog<S>| {
            backlog.queue.len() >= self.backlog_max.div_ceil(2) || backlog.bytes >= PUBLISH_QUEUE_BYTES_MAX / 2
        };
        // Each message of a client asks, and mostly nothing waits.
        self.waiting > 0 && self.backlogs.iter().any(is_half_full)
    }

    /// Sends to a shard, behind what waits for it already. The caller has looked for room. Says whether it had
    /// to be put into the backlog.
    pub(crate) fn send(&mut self, driver: &mut impl Driver<Socket = S>, shard: usize, message: ShardMsg<S>) -> bool {
        let backlog = &mut self.backlogs[shard];
        let message = if backlog.queue.is_empty() { driver.offer(shard, message) } else { Some(message) };
        let Some(message) = message else { return false };
        backlog.bytes += message.bytes();
        backlog.queue.push_back(message);
        self.waiting += 1;
        true
    }

    /// Sends a fresh client to a shard, unless something waits for that shard already; then it is given back.
    pub(crate) fn hand_over(
        &mut self,
        driver: &mut impl Driver<Socket = S>,
        shard: usize,
        client: Parcel<S>,
        place: Place,
    ) -> Result<(), Parcel<S>> {
        if !self.backlogs[shard].queue.is_empty() {
            place.keep();
            return Err(client);
        }
        match driver.offer(shard, ShardMsg::Parcel(client, place)) {
            Some(ShardMsg::Parcel(client, place)) => {
                place.keep();
                Err(client)
            }
            _ => Ok(()),
        }
    }

    /// Tries again to send what waits.
    pub(crate) fn retry(&mut self, driver: &mut impl Driver<Socket = S>) {
        for (shard, backlog) in self.backlogs.iter_mut().enumerate() {
            while let Some(message) = backlog.queue.pop_front() {
                let bytes = message.bytes();
                if let Some(message) = driver.offer(shard, message) {
                    backlog.queue.push_front(message);
                    break;
                }
                backlog.bytes -= bytes;
                self.waiting -= 1;
            }
        }
    }

    /// Drops all that waits.
    pub(crate) fn clear(&mut self) {
        self.backlogs.iter_mut().for_each(|backlog| backlog.queue.clear());
        self.waiting = 0;
    }

    /// What waits for full lanes.
    #[cfg(test)]
    pub(crate) fn backlog(&self) -> impl Iterator<Item = &ShardMsg<S>> {
        self.backlogs.iter().flat_map(|backlog| &backlog.queue)
    }

    /// Messages that wait for full lanes.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }
}

impl<S> ShardMsg<S> {
    /// Where the receiver is told that it may have room for this now.
    pub(crate) fn bell(&self) -> Bell {
        if let ShardMsg::Publish(_) = self { Bell::Room } else { Bell::Seen }
    }
}

impl<D: Driver> Base<D> {
    /// Whether what another shard says may be taken in now. Until it may, it waits, and what is behind it in its lane.
    pub(crate) fn has_room_for(&self, message: &ShardMsg<D::Socket>) -> bool {
        match message {
            ShardMsg::Publish(_) => self.publishes.has_room(),
            ShardMsg::Parcel(Parcel { open: Some(open), .. }, _) => self.moves.is_as_far_as(&open.seen),
            ShardMsg::Move(Notice::Expected { seen, .. }) => self.moves.is_as_far_as(seen),
            _ => true,
        }
    }
}

impl<D: Driver> Engine<D> {
    /// Takes in what another shard says; there is room for it.
    pub(crate) fn receive(&mut self, handlers: &mut Handlers, message: ShardMsg<D::Socket>) {
        match message {
            ShardMsg::Publish(publish) => self.base.enqueue(publish),
            ShardMsg::Parcel(parcel, place) => {
                place.keep();
                if parcel.open.is_some() {
                    self.welcome(parcel);
                } else if let Err(refusal) = self.take_in(handlers, parcel) {
                    tracing::debug!("a connection that another shard handed over was refused: {refusal}");
                }
            }
            ShardMsg::Move(notice) => self.take_notice(notice),
            ShardMsg::Reclaim => self.reclaim_if_needed(),
            ShardMsg::Draining => self.base.draining_peers += 1,
            // It is read when the lanes are numbered.
            ShardMsg::Hello { .. } => {}
        }
    }
}
