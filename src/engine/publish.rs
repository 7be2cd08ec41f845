//! Publishing: a message is accepted for all shards or refused, and queued for this shard's own connections.

use bytes::Bytes;

use super::driver::{Bell, Driver};
use super::publish_queue::{Delivery, Job, Recipients};
use super::shard_msg::ShardMsg;
use super::table::Key;
use super::visit::Visit;
use super::{Base, Engine};
use crate::config::SlowConsumer;
use crate::handler::PublishError;
use crate::message::{CloseReason, DropReason, Kind, PublishId, Target};
use crate::publish::Publish;
use crate::receipt::{ReceiptSender, ShardReceipt};

impl<D: Driver> Base<D> {
    /// Accepts a publish of one of this shard's clients for all shards, or refuses it whole.
    pub(crate) fn publish(&mut self, target: Target, kind: Kind, payload: Bytes) -> Result<PublishId, PublishError> {
        if payload.len() > self.settings.message_max {
            return Err(PublishError::TooLarge { len: payload.len(), max: self.settings.message_max });
        }
        self.publish_sequence += 1;
        let id = PublishId::new(self.index as u16, self.publish_sequence);
        let accepted = *self.moment.get_or_insert_with(|| self.driver.now());
        let publish = Publish { id, target, payload, kind, slow_consumer: None, accepted, receipt: None };
        let peers = self.lanes.peers();
        match &publish.target {
            Target::Conn(to) => match self.registry.get(*to).map(|row| row.shard()) {
                Some(shard) if shard != self.index => {
                    self.check_room(self.lanes.has_room(shard))?;
                    self.send_to_shard(shard, ShardMsg::Publish(publish));
                }
                Some(_) => {
                    self.check_room(self.publishes.has_room())?;
                    self.enqueue(publish);
                }
                None => {
                    self.dropped(DropReason::NoConnection, 1);
                }
            },
            Target::All | Target::Topic(_) => {
                let room = self.publishes.has_room() && peers.iter().all(|peer| self.lanes.has_room(*peer));
                self.check_room(room)?;
                for peer in peers.iter().copied() {
                    self.send_to_shard(peer, ShardMsg::Publish(publish.clone()));
                }
                self.enqueue(publish);
            }
        }
        Ok(id)
    }

    /// Whether much waits to be delivered here, or to be taken by another shard.
    pub(crate) fn is_congested(&self) -> bool {
        self.publishes.is_congested() || self.lanes.is_congested()
    }

    fn check_room(&self, room: bool) -> Result<(), PublishError> {
        if room {
            return Ok(());
        }
        self.metrics.publishes_refused.add(1);
        Err(PublishError::Busy)
    }

    pub(crate) fn send_to_shard(&mut self, shard: usize, message: ShardMsg<D::Socket>) {
        if self.lanes.send(&mut self.driver, shard, message) {
            self.metrics.mesh_full.add(1);
            self.driver.ring(Bell::Backlog);
        }
        self.metrics.mesh_backlog.set(self.lanes.waiting() as u64);
    }

    /// Queues a publish for this shard's own connections; the caller has looked for room. A message that none of
    /// them shall get is done with, and one to a connection that is gone is counted.
    pub(crate) fn enqueue(&mut self, publish: Publish) {
        self.note_seen(&publish);
        let recipients = match &publish.target {
            Target::All => Some(Recipients::All { slots: self.slots, generation: self.generation }),
            Target::Topic(topic) => self.topics.audience(topic.as_str()).map(Recipients::Audience),
            Target::Conn(id) => {
                let row = self.registry.get(*id).filter(|row| row.shard() == self.index);
                if row.is_none() {
                    self.dropped(DropReason::NoConnection, 1);
                }
                row.map(|row| Recipients::One(row.key()))
            }
        };
        let Some(recipients) = recipients else {
            self.metrics.publishes.add(1);
            if let Some(receipt) = &publish.receipt {
                let dropped = std::array::from_fn(|reason| {
                    u64::from(matches!(publish.target, Target::Conn(_)) && reason == DropReason::NoConnection as usize)
                });
                let matched = dropped.iter().sum();
                answer(receipt, ShardReceipt { matched, written: 0, dropped, first_write: None, last_write: None });
            }
            return;
        };
        let policy = self.policy(&publish);
        self.publishes.push(Job::Deliver(Delivery { publish, policy, recipients }));
        self.driver.ring(Bell::Publishes);
        self.metrics.publish_queue.set(self.publishes.len() as u64);
    }

    /// The policy for slow consumers of a message.
    pub(crate) fn policy(&self, publish: &Publish) -> SlowConsumer {
        let topic_policy = match &publish.target {
            Target::Topic(topic) => self.topics.policy(topic.as_str()),
            Target::All | Target::Conn(_) => None,
        };
        publish.slow_consumer.or(topic_policy).unwrap_or(self.settings.slow_consumer)
    }
}

impl<D: Driver> Visit<'_, D> {
    /// Whether this connection should be read no further for now, since the shard has much to deliver, or to pass on, first.
    /// It is woken when that is done.
    pub(crate) fn wait_if_congested(&mut self) -> bool {
        let is_congested = self.base.is_congested();
        if is_congested {
            self.base.congested.push(self.key);
        }
        is_congested
    }
}

impl<D: Driver> Engine<D> {
    /// Closes a connection behind what has been published to it so far.
    pub(crate) fn close_in_order(&mut self, key: Key, reason: CloseReason) {
        if self.table.get(key).is_some_and(|row| row.closing.is_none()) {
            self.base.publishes.push_close(key, reason);
            self.base.driver.ring(Bell::Publishes);
        }
    }

    /// Tries again to send what waits for other shards.
    pub(crate) fn retry_lanes(&mut self) {
        self.base.lanes.retry(&mut self.base.driver);
        self.base.metrics.mesh_backlog.set(self.base.lanes.waiting() as u64);
        self.relieve();
    }
}

/// Sends one shard's part of a receipt. Its channel has a place for each shard's; who does not want it any more has
/// closed it.
pub(crate) fn answer(receipt: &ReceiptSender, part: ShardReceipt) {
    let _ = receipt.try_send(part);
}
