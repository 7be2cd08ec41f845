//! The state of one shard and what is done with it: queue, flush, close, publish.
//!
//! Everything here runs on the shard's own core and none of it waits. The tasks around it (accept, fan-out, the
//! connections themselves) borrow it for the length of one step.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use glommio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};

use crate::codec::http::{self, Site};
use crate::codec::{self, EncodeError, Encoding, Label, sse, websocket};
use crate::config::{
    Config, FANOUT_SLICE, FRAME_OVERHEAD_BYTES_MAX, Framing, LANGUAGE_OVERHEAD_BYTES_MAX, LINGER_MS, SlowConsumer,
    TICK_MS,
};
use crate::handler::{Actions, Event, PublishError, SendError, SubscribeError};
use crate::message::{CloseReason, ConnId, Dialect, DropReason, Publish, PublishId, Target, Topic};
use crate::metrics::ShardMetrics;
use crate::rate::{Micros, Rate};
use crate::receipt::{ReceiptSender, ShardReceipt};
use crate::registry::{Registry, Row};
use crate::shard::buffers::Pool;
use crate::shard::connection::Connection;
use crate::shard::mailbox::{Delivery, Job, Mesh, PublishQueue, Recipients, ShardMsg};
use crate::shard::outbox::{Frame, Gap, Limits, Offer, Outbox, Written};
use crate::shard::table::{Key, Table};
use crate::shard::timeouts::{NEVER, Tick, Wheel};
use crate::shard::topics::Topics;
use crate::sys;

/// Puts an event into the bytes of a message; see [`crate::handler::Handler::render`].
pub(crate) type Render = fn(Event<'_>, Dialect, &mut Vec<u8>) -> bool;

/// The settings that the data path looks at, in the units it uses.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) message_max: usize,
    pub(crate) reply_bytes_max: usize,
    pub(crate) slow_consumer: SlowConsumer,
    topics_max: usize,
    topic_bytes_max: usize,
    pub(crate) message_rate: Option<Rate>,
    pub(crate) read_timeout: Option<Tick>,
    write_timeout: Option<Tick>,
    pub(crate) head_timeout: Tick,
    ping_every: Option<Tick>,
    linger: Tick,
}

/// Ticks that a time span takes, rounded up; a shard's clock may be up to one tick behind.
fn ticks(span: Duration) -> Tick {
    let ticks = span.as_millis().div_ceil(u128::from(TICK_MS));
    Tick::try_from(ticks).unwrap_or(NEVER - 1) + 1
}

impl Settings {
    fn new(config: &Config) -> Self {
        let timeout = |span: Duration| (!span.is_zero()).then(|| ticks(span));
        // A ping must be answered before its silence is taken for death.
        let most = if config.read_timeout.is_zero() { Duration::MAX } else { config.read_timeout / 2 };
        let ping_every = Some(config.ping_every.min(most)).filter(|every| !every.is_zero());
        Settings {
            message_max: config.max_message,
            reply_bytes_max: config.max_message + LANGUAGE_OVERHEAD_BYTES_MAX + FRAME_OVERHEAD_BYTES_MAX,
            slow_consumer: config.slow_consumer,
            message_rate: Rate::new(config.message_rate),
            topics_max: config.topics_per_connection_max,
            topic_bytes_max: config.topic_bytes_max,
            read_timeout: timeout(config.read_timeout),
            write_timeout: timeout(config.write_timeout),
            head_timeout: ticks(config.head_timeout),
            ping_every: ping_every.map(ticks),
            linger: ticks(Duration::from_millis(LINGER_MS)),
        }
    }
}

/// The state of one shard.
pub(crate) struct Core {
    pub(crate) index: usize,
    pub(crate) settings: Settings,
    pub(crate) limits: Limits,
    pub(crate) render: Render,
    pub(crate) site: Rc<Site>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<ShardMetrics>,
    pub(crate) table: Table<Connection>,
    pub(crate) topics: Topics,
    pub(crate) publishes: PublishQueue,
    pub(crate) mesh: Mesh,
    pub(crate) pool: Pool,
    pub(crate) wheel: Wheel,
    /// Connections with something in their outbox that has not been tried to write yet.
    dirty: Vec<Key>,
    /// Connections that published while the queue of publishes was congested.
    congested: Vec<Key>,
    /// Empty outboxes for connections that need one next: a fan-out goes round in them without the allocator.
    #[allow(clippy::vec_box, reason = "a row holds a boxed outbox, so the boxes are what is kept")]
    spare: Vec<Box<Outbox>>,
    /// Where messages are rendered before they are framed.
    scratch: Vec<u8>,
    publish_sequence: u64,
    started: Instant,
    /// Whether new connections are turned away.
    pub(crate) draining: bool,
    /// How many other shards have said that they drain.
    pub(crate) draining_peers: usize,
}

impl Core {
    /// The state of shard `index`. It must be made on the shard's executor, whose registered memory it takes.
    pub(crate) fn new(
        index: usize,
        config: &Config,
        render: Render,
        registry: Arc<Registry>,
        metrics: Arc<ShardMetrics>,
        mesh: Mesh,
    ) -> Self {
        Core {
            index,
            settings: Settings::new(config),
            limits: Limits::new(config),
            render,
            site: Rc::new(Site::new(config)),
            registry,
            metrics,
            table: Table::default(),
            topics: Topics::default(),
            publishes: PublishQueue::new(config),
            mesh,
            pool: Pool::new(),
            wheel: Wheel::default(),
            dirty: Vec::new(),
            congested: Vec::new(),
            spare: Vec::new(),
            scratch: Vec::new(),
            publish_sequence: 0,
            started: Instant::now(),
            draining: false,
            draining_peers: 0,
        }
    }

    // ---- Connections come and go ----

    /// Takes a connection in that the registry has admitted.
    pub(crate) fn add(&mut self, stream: TcpStream, encoding: Option<Encoding>) -> Option<(Key, ConnId)> {
        // A client that is gone already has no address; it is closed at the first read.
        let peer = stream.peer_addr().unwrap_or_else(|_| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let (registry, shard, now) = (Arc::clone(&self.registry), self.index as u16, self.wheel.now());
        let key = self.table.insert_with(|key| {
            // A row without an id is taken out again below.
            let id = registry.insert(Row::new(shard, key, peer)).unwrap_or(ConnId::from_u64(u64::MAX));
            Connection::new(stream, id, encoding, now)
        });
        let id = self.table.get(key).map(|connection| connection.id)?;
        if id == ConnId::from_u64(u64::MAX) {
            self.table.remove(key);
            return None;
        }
        self.metrics.accepted.add(1);
        self.metrics.connections.set(self.table.len() as u64);
        self.schedule(key);
        Some((key, id))
    }

    /// Takes a connection out and closes its socket. Its reason is counted, and so is each message that waited.
    pub(crate) fn remove(&mut self, key: Key) {
        let Some(mut connection) = self.table.remove(key) else { return };
        self.topics.remove_connection(key);
        self.registry.remove(connection.id);
        self.registry.release();
        let reason = connection.closing.unwrap_or(CloseReason::Reset);
        self.metrics.closed[reason as usize].add(1);
        self.metrics.connections.set(self.table.len() as u64);
        if let Some(mut outbox) = connection.outbox.take() {
            self.metrics.queued_messages.sub(outbox.len() as u64);
            self.metrics.queued_bytes.sub(outbox.bytes() as u64);
            self.metrics.dropped[DropReason::Closed as usize].add(outbox.abandon() as u64);
            self.keep_spare(outbox);
        }
        tracing::debug!(id = %connection.id, %reason, "connection closed");
    }

    /// Closes a connection: what is queued is written first, and then its farewell, unless the reason says that
    /// nothing can be written any more. Further calls do nothing.
    pub(crate) fn close(&mut self, key: Key, reason: CloseReason) {
        let Some(connection) = self.table.get_mut(key) else { return };
        if connection.closing.is_some() {
            return;
        }
        connection.closing = Some(reason);
        match reason {
            CloseReason::Reset | CloseReason::SlowConsumer | CloseReason::WriteTimeout => connection.abort = true,
            CloseReason::ClientClosed => {
                connection.close_by = NEVER;
                self.report_last_gaps(key);
            }
            _ => {
                let patience = self.settings.write_timeout.unwrap_or(self.settings.linger);
                connection.close_by = self.wheel.now() + patience.max(self.settings.linger);
                self.report_last_gaps(key);
                self.say_farewell(key, reason);
            }
        }
        if let Some(connection) = self.table.get_mut(key) {
            connection.wake();
        }
        self.mark_dirty(key);
        self.schedule(key);
    }

    /// Queues the last words to a client, in the way of what it speaks.
    fn say_farewell(&mut self, key: Key, reason: CloseReason) {
        let Some(connection) = self.table.get(key) else { return };
        match connection.encoding {
            // A browser opens connections in advance, and one that asked for nothing expects no answer.
            None if reason == CloseReason::HeadTimeout && connection.is_receiving() => {
                self.push_reply(key, http::timed_out());
            }
            None => {}
            Some(encoding) => {
                self.notice(key, Event::Bye { reason });
                if encoding.is_websocket() {
                    self.push_reply(key, websocket::close(reason));
                }
            }
        }
    }

    /// Gives up on a connection: its task takes it out at once.
    pub(crate) fn abort(&mut self, key: Key, reason: CloseReason) {
        if let Some(connection) = self.table.get_mut(key) {
            connection.closing.get_or_insert(reason);
            connection.abort = true;
            connection.wake();
        }
    }

    // ---- Into the outbox ----

    /// Offers a pushed message to a connection, under the slow-consumer policy.
    pub(crate) fn push(&mut self, key: Key, frame: &Rc<Frame>, policy: SlowConsumer) {
        let mut flushed = false;
        loop {
            let Some(connection) = self.table.get_mut(key).filter(|connection| connection.closing.is_none()) else {
                frame.tally().count_dropped(DropReason::Closed);
                return self.dropped(DropReason::Closed, 1);
            };
            let blocked = connection.blocked || flushed;
            let outbox = connection.outbox.get_or_insert_with(|| self.spare.pop().unwrap_or_default());
            let before = (outbox.len(), outbox.bytes());
            let offer = outbox.offer(frame, policy, &self.limits, blocked);
            let after = (outbox.len(), outbox.bytes());
            count_queued(&self.metrics, before, after);
            match offer {
                Offer::Queued { removed, reason } => {
                    connection.count_dropped(removed);
                    self.dropped(reason, removed);
                    self.mark_dirty(key);
                    return;
                }
                Offer::Full => {
                    self.flush(key);
                    flushed = true;
                }
                Offer::Dropped { removed, reason } => {
                    connection.count_dropped(removed + 1);
                    self.dropped(reason, removed);
                    return self.dropped(DropReason::QueueFull, 1);
                }
                Offer::Disconnect => {
                    self.close(key, CloseReason::SlowConsumer);
                    return self.dropped(DropReason::QueueFull, 1);
                }
            }
        }
    }

    /// Notes that a pushed message can't be carried to a connection at all.
    pub(crate) fn push_unfit(&mut self, key: Key, topic: Option<&Topic>, reason: DropReason) {
        if let Some(connection) = self.table.get_mut(key) {
            let outbox = connection.outbox.get_or_insert_with(|| self.spare.pop().unwrap_or_default());
            outbox.note_gap(topic, reason);
            connection.count_dropped(1);
            self.mark_dirty(key);
        }
        self.dropped(reason, 1);
    }

    /// Queues a reply; [`Context::send`](crate::handler::Context::send) says how it behaves.
    fn reply(&mut self, key: Key, message: &[u8]) -> Result<(), SendError> {
        let connection = self.table.get(key).filter(|connection| connection.closing.is_none());
        let encoding = connection.and_then(|connection| connection.encoding).ok_or(SendError::Closed)?;
        if message.len() + FRAME_OVERHEAD_BYTES_MAX > self.limits.bytes() {
            return Err(SendError::TooLarge { len: message.len(), max: self.limits.bytes() });
        }
        if !self.has_reply_room(key, message.len() + FRAME_OVERHEAD_BYTES_MAX) {
            return Err(SendError::QueueFull);
        }
        let mut bytes = Vec::new();
        codec::encode(encoding, Label::default(), message, &mut bytes).map_err(|error| match error {
            EncodeError::LineFeed => SendError::LineFeed,
            EncodeError::NotUtf8 => SendError::NotUtf8,
        })?;
        self.push_reply(key, bytes);
        Ok(())
    }

    /// Whether a reply of `len` bytes has room. A full outbox is flushed on the spot first.
    pub(crate) fn has_reply_room(&mut self, key: Key, len: usize) -> bool {
        for flushed in [false, true] {
            let Some(connection) = self.table.get(key) else { return false };
            if connection.outbox.as_ref().is_none_or(|outbox| outbox.has_reply_room(len, &self.limits)) {
                return true;
            }
            if !flushed {
                self.flush(key);
            }
        }
        false
    }

    /// Queues what the server itself has to tell a client: an error, a gap, its farewell. There are few of them,
    /// each bounded, so they don't wait for room.
    pub(crate) fn notice(&mut self, key: Key, event: Event<'_>) {
        let Some(encoding) = self.table.get(key).and_then(|connection| connection.encoding) else { return };
        let mut bytes = Vec::new();
        self.scratch.clear();
        let label = Label { event: event.kind(), id: None };
        if (self.render)(event, encoding.dialect(), &mut self.scratch)
            && codec::encode(encoding, label, &self.scratch, &mut bytes).is_ok()
        {
            self.push_reply(key, bytes);
        }
    }

    /// Queues bytes of the server's own that are in the connection's encoding already.
    pub(crate) fn push_reply(&mut self, key: Key, bytes: Vec<u8>) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let outbox = connection.outbox.get_or_insert_with(|| self.spare.pop().unwrap_or_default());
        self.metrics.queued_messages.add(1);
        self.metrics.queued_bytes.add(bytes.len() as u64);
        outbox.push_reply(bytes);
        self.mark_dirty(key);
    }

    fn mark_dirty(&mut self, key: Key) {
        if let Some(connection) = self.table.get_mut(key)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(key);
        }
    }

    fn dropped(&self, reason: DropReason, count: usize) {
        if count > 0 {
            self.metrics.dropped[reason as usize].add(count as u64);
        }
    }

    // ---- Out of the outbox ----

    /// How many connections wait to be flushed.
    pub(crate) fn dirty(&self) -> usize {
        self.dirty.len()
    }

    /// Writes what has been queued since the last flush: each connection once.
    pub(crate) fn flush_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            self.flush(key);
        }
        // Flushing marks nothing dirty, so the list's memory can be kept.
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    /// Writes a connection's outbox until it is empty or the socket takes no more.
    pub(crate) fn flush(&mut self, key: Key) {
        let Some(connection) = self.table.get_mut(key) else { return };
        connection.dirty = false;
        if connection.blocked || connection.abort {
            return;
        }
        let mut buffer = self.pool.take_gather();
        let outcome = self.write_out(key, buffer.as_bytes_mut());
        self.pool.give_back_gather(buffer);
        match outcome {
            Ok(true) => self.release_outbox(key),
            Ok(false) => self.blocked(key),
            Err(_) => self.abort(key, CloseReason::Reset),
        }
    }

    /// `Ok(true)`: all is written. `Ok(false)`: the socket takes no more for now.
    fn write_out(&mut self, key: Key, buffer: &mut [u8]) -> Result<bool, Errno> {
        loop {
            let Some(connection) = self.table.get_mut(key) else { return Ok(true) };
            let Some(outbox) = &mut connection.outbox else { return Ok(true) };
            if outbox.is_empty() {
                if !self.report_gaps(key) {
                    return Ok(true);
                }
                continue;
            }
            let bytes = outbox.gather(buffer);
            let len = bytes.len();
            self.metrics.sends.add(1);
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(sys::borrow_fd(&connection.stream), bytes, flags) {
                Ok(sent) => {
                    let written = outbox.advance(sent);
                    connection.count_written(written, self.wheel.now());
                    self.count_written(written);
                    if sent < len {
                        return Ok(false);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
    }

    pub(crate) fn count_written(&self, written: Written) {
        self.metrics.messages_out.add(written.messages as u64);
        self.metrics.delivered.add(written.pushes as u64);
        self.metrics.bytes_out.add(written.bytes as u64);
        self.metrics.queued_messages.sub(written.messages as u64);
        self.metrics.queued_bytes.sub(written.bytes as u64);
    }

    /// Queues a notice for each gap that has room now; whether there was one.
    pub(crate) fn report_gaps(&mut self, key: Key) -> bool {
        let mut reported = false;
        while let Some(connection) = self.table.get_mut(key)
            && let Some(outbox) = &mut connection.outbox
            && let Some(gap) = outbox.take_gap(&self.limits)
        {
            self.report_gap(key, &gap);
            reported = true;
        }
        reported
    }

    /// Queues a notice for every gap there is, before the farewell.
    fn report_last_gaps(&mut self, key: Key) {
        while let Some(connection) = self.table.get_mut(key)
            && let Some(outbox) = &mut connection.outbox
            && let Some(gap) = outbox.take_last_gap()
        {
            self.report_gap(key, &gap);
        }
    }

    fn report_gap(&mut self, key: Key, gap: &Gap) {
        let event = Event::Gap { topic: gap.topic.as_ref(), count: gap.count, reason: gap.reason };
        self.notice(key, event);
    }

    /// The socket took less than it was given: the connection's task waits for it from here on.
    fn blocked(&mut self, key: Key) {
        let now = self.wheel.now();
        if let Some(connection) = self.table.get_mut(key) {
            connection.blocked = true;
            connection.last_write = now;
            connection.wake();
            self.metrics.sends_blocked.add(1);
            self.schedule(key);
        }
    }

    /// An outbox that has emptied gives its memory back.
    pub(crate) fn release_outbox(&mut self, key: Key) {
        if let Some(connection) = self.table.get_mut(key)
            && connection.outbox.as_ref().is_some_and(|outbox| outbox.is_idle())
            && let Some(outbox) = connection.outbox.take()
        {
            self.keep_spare(outbox);
        }
    }

    fn keep_spare(&mut self, mut outbox: Box<Outbox>) {
        if self.spare.len() < FANOUT_SLICE {
            outbox.clear();
            self.spare.push(outbox);
        }
    }

    // ---- Publishing ----

    /// Accepts a publish of one of this shard's clients for all shards, or refuses it whole.
    fn publish(&mut self, target: Target, payload: Bytes) -> Result<PublishId, PublishError> {
        if payload.len() > self.settings.message_max {
            return Err(PublishError::TooLarge { len: payload.len(), max: self.settings.message_max });
        }
        self.publish_sequence += 1;
        let id = PublishId::new(self.index as u16, self.publish_sequence);
        let publish = Publish { id, target, payload, slow_consumer: None, accepted: Instant::now(), receipt: None };
        let peers = self.mesh.peers();
        match &publish.target {
            Target::Conn(to) => match self.registry.get(*to).map(|row| row.shard()) {
                Some(shard) if shard != self.index => {
                    self.check_room(self.mesh.has_room(shard))?;
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
                let room = self.publishes.has_room() && peers.iter().all(|peer| self.mesh.has_room(*peer));
                self.check_room(room)?;
                for peer in peers.iter().copied() {
                    self.send_to_shard(peer, ShardMsg::Publish(publish.clone()));
                }
                self.enqueue(publish);
            }
        }
        Ok(id)
    }

    /// Closes a connection behind what has been published to it so far.
    pub(crate) fn close_in_order(&mut self, key: Key, reason: CloseReason) {
        if self.table.get(key).is_some_and(|connection| connection.closing.is_none()) {
            self.publishes.push(Job::Close { key, reason });
        }
    }

    fn check_room(&self, room: bool) -> Result<(), PublishError> {
        if room {
            return Ok(());
        }
        self.metrics.publishes_refused.add(1);
        Err(PublishError::Busy)
    }

    pub(crate) fn send_to_shard(&mut self, shard: usize, message: ShardMsg) {
        if self.mesh.send(shard, message) {
            self.metrics.mesh_full.add(1);
        }
        self.metrics.mesh_backlog.set(self.mesh.waiting() as u64);
    }

    /// Queues a publish for this shard's own connections; the caller has looked for room. A message that none of
    /// them shall get is done with, and one to a connection that is gone is counted.
    pub(crate) fn enqueue(&mut self, publish: Publish) {
        let recipients = match &publish.target {
            Target::All => Some(Recipients::All { slots: self.table.slots() }),
            Target::Topic(topic) => self.topics.members(topic.as_str()).map(Recipients::Members),
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
        let topic_policy = match &publish.target {
            Target::Topic(topic) => self.topics.policy(topic.as_str()),
            Target::All | Target::Conn(_) => None,
        };
        let policy = publish.slow_consumer.or(topic_policy).unwrap_or(self.settings.slow_consumer);
        self.publishes.push(Job::Deliver(Delivery { publish, policy, recipients }));
        self.metrics.publish_queue.set(self.publishes.len() as u64);
    }

    /// Whether this connection should be read no further for now, since the shard has much to deliver first.
    /// It is woken when that is done.
    pub(crate) fn wait_if_congested(&mut self, key: Key) -> bool {
        if !self.publishes.is_congested() {
            return false;
        }
        self.congested.push(key);
        true
    }

    /// Lets the clients go on that waited for the queue of publishes.
    pub(crate) fn relieve(&mut self) {
        self.metrics.publish_queue.set(self.publishes.len() as u64);
        if !self.publishes.is_congested() {
            for key in self.congested.split_off(0) {
                if let Some(connection) = self.table.get_mut(key) {
                    connection.wake();
                }
            }
        }
    }

    // ---- Time ----

    /// Microseconds since the shard started, for rates. Everything else goes by the wheel's ticks.
    pub(crate) fn micros(&self) -> Micros {
        self.started.elapsed().as_micros() as Micros
    }

    /// Looks at connections that the wheel has brought up.
    pub(crate) fn look_at(&mut self, keys: &[Key]) {
        let now = self.wheel.now();
        for key in keys.iter().copied() {
            // An entry that is not the connection's earliest is one that a nearer deadline has overtaken.
            if self.table.get(key).is_some_and(|connection| connection.check_at <= now) {
                self.expire(key, now);
                if let Some(connection) = self.table.get_mut(key) {
                    connection.check_at = NEVER;
                }
                self.schedule(key);
            }
        }
        self.flush_dirty();
    }

    fn expire(&mut self, key: Key, now: Tick) {
        let Some(connection) = self.table.get(key) else { return };
        if connection.abort {
            return;
        }
        let settings = self.settings;
        let overdue = |deadline: Option<Tick>| deadline.is_some_and(|deadline| deadline <= now);
        if connection.closing.is_some() {
            if overdue(connection.close_deadline(settings.write_timeout.unwrap_or(settings.linger))) {
                self.abort(key, CloseReason::WriteTimeout);
            }
        } else if overdue(connection.throttle_deadline()) {
            connection.wake();
        } else if overdue(connection.write_deadline(settings.write_timeout)) {
            self.close(key, CloseReason::WriteTimeout);
        } else if overdue(connection.read_deadline(&settings)) {
            let timeout =
                if connection.encoding.is_some() { CloseReason::ReadTimeout } else { CloseReason::HeadTimeout };
            self.close(key, timeout);
        } else if overdue(connection.ping_deadline(settings.ping_every)) {
            self.ping(key, now);
        }
    }

    /// Gives a silent connection a sign of life, and has a client that can answer give one.
    fn ping(&mut self, key: Key, now: Tick) {
        let Some(connection) = self.table.get_mut(key) else { return };
        connection.last_ping = now;
        match connection.encoding {
            Some(Encoding::Sse) => self.push_reply(key, sse::HEARTBEAT.to_vec()),
            _ => self.push_reply(key, websocket::PING_FRAME.to_vec()),
        }
    }

    /// Makes sure that the connection is looked at when its nearest deadline comes.
    pub(crate) fn schedule(&mut self, key: Key) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let deadlines = if connection.closing.is_some() {
            let patience = self.settings.write_timeout.unwrap_or(self.settings.linger);
            [connection.close_deadline(patience), None, None, None]
        } else {
            [
                connection.throttle_deadline(),
                connection.read_deadline(&self.settings),
                connection.write_deadline(self.settings.write_timeout),
                connection.ping_deadline(self.settings.ping_every),
            ]
        };
        if let Some(due) = deadlines.into_iter().flatten().min()
            && due < connection.check_at
        {
            connection.check_at = self.wheel.insert(key, due);
        }
    }

    /// Shuts a connection's sending side once all is written, and gives the client a moment to close its own, so
    /// that what was written is not destroyed by a reset.
    pub(crate) fn start_linger(&mut self, key: Key) {
        let by = self.wheel.now() + self.settings.linger;
        if let Some(connection) = self.table.get_mut(key)
            && !connection.shut
        {
            connection.shut = true;
            connection.close_by = by;
            // A socket that is not connected any more shows it at the next read.
            let _ = rustix::net::shutdown(sys::borrow_fd(&connection.stream), Shutdown::Write);
            self.schedule(key);
        }
    }
}

/// Sends one shard's part of a receipt. Its channel has a place for each shard's; who does not want it any more has
/// closed it.
pub(crate) fn answer(receipt: &ReceiptSender, part: ShardReceipt) {
    let _ = receipt.try_send(part);
}

/// Follows the length and the bytes of an outbox in the gauges.
fn count_queued(metrics: &ShardMetrics, before: (usize, usize), after: (usize, usize)) {
    metrics.queued_messages.add((after.0 as u64).wrapping_sub(before.0 as u64));
    metrics.queued_bytes.add((after.1 as u64).wrapping_sub(before.1 as u64));
}

/// A shard's state, seen from the callback of one connection.
pub(crate) struct Scope<'a> {
    pub(crate) core: &'a mut Core,
    pub(crate) key: Key,
    pub(crate) id: ConnId,
}

impl Scope<'_> {
    /// The connection's encoding. Callbacks begin when it is settled, and it is gone only when they are over.
    fn encoding(&self) -> Encoding {
        self.core.table.get(self.key).and_then(|connection| connection.encoding).unwrap_or(Encoding::Line)
    }
}

impl Actions for Scope<'_> {
    fn peer(&self) -> SocketAddr {
        let row = self.core.registry.get(self.id);
        row.map_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), |row| row.peer())
    }

    fn framing(&self) -> Framing {
        self.encoding().framing()
    }

    fn dialect(&self) -> Dialect {
        self.encoding().dialect()
    }

    fn shard(&self) -> usize {
        self.core.index
    }

    fn send(&mut self, message: &[u8]) -> Result<(), SendError> {
        self.core.reply(self.key, message)
    }

    fn close(&mut self) {
        self.core.close(self.key, CloseReason::Handler);
    }

    fn publish(&mut self, target: Target, payload: Bytes) -> Result<PublishId, PublishError> {
        self.core.publish(target, payload)
    }

    fn subscribe(&mut self, topic: &str) -> Result<bool, SubscribeError> {
        let settings = &self.core.settings;
        Topic::check(topic.as_bytes(), settings.topic_bytes_max)?;
        if self.core.table.get(self.key).is_none_or(|connection| connection.closing.is_some()) {
            return Err(SubscribeError::Closed);
        }
        if self.core.topics.count(self.key) >= settings.topics_max && !self.is_subscribed(topic) {
            return Err(SubscribeError::TooMany { max: settings.topics_max });
        }
        Ok(self.core.topics.subscribe(self.key, topic))
    }

    fn unsubscribe(&mut self, topic: &str) -> bool {
        self.core.topics.unsubscribe(self.key, topic)
    }

    fn topics(&self) -> usize {
        self.core.topics.count(self.key)
    }

    fn is_subscribed(&self, topic: &str) -> bool {
        self.core.topics.is_subscribed(self.key, topic)
    }
}
