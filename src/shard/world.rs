//! The world that a shard's engine runs in: rings, the mesh, the buffer pool, and the clock.

use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use glommio::channels::channel_mesh::Senders;
use glommio::{GlommioError, ResourceType};

use super::buffers::{Buffer, Pool};
use super::poller::Poller;
use crate::engine::driver::{Bell, Driver, Watched};
use crate::engine::shard_msg::ShardMsg;
use crate::transport::Plain;

/// What shards say to each other.
pub(crate) type Message = ShardMsg<Plain>;

/// The ways to the other shards.
#[derive(Default)]
pub(crate) struct Mesh {
    senders: Option<Senders<Message>>,
    /// By shard: its number in the mesh, which numbers its peers in its own way. `None` for this shard.
    peers: Vec<Option<usize>>,
}

impl Mesh {
    pub(crate) fn new(senders: Senders<Message>, peers: Vec<Option<usize>>) -> Self {
        Mesh { senders: Some(senders), peers }
    }

    fn try_send(&self, shard: usize, message: Message) -> Option<Message> {
        let peer = self.peers.get(shard).copied().flatten();
        let (Some(senders), Some(peer)) = (&self.senders, peer) else { return None };
        match senders.try_send_to(peer, message) {
            Err(GlommioError::WouldBlock(ResourceType::Channel(message))) => Some(message),
            // A shard that has ended takes nothing any more and has no connections either.
            Ok(()) | Err(_) => None,
        }
    }
}

/// The driver of a running shard's engine.
pub(crate) struct World {
    pub(crate) poller: Poller,
    pub(crate) pool: Pool,
    mesh: Mesh,
    bells: [Vec<Waker>; Bell::COUNT],
}

impl World {
    /// It must be made on the shard's executor, whose memory its pool takes.
    ///
    /// # Errors
    /// The kernel gives no ring.
    pub(crate) fn new(mesh: Mesh) -> io::Result<Self> {
        Ok(World { poller: Poller::new(true)?, pool: Pool::new(), mesh, bells: Default::default() })
    }

    /// Waits for a bell; whoever waits looks first whether there is something to do.
    pub(crate) fn wait_for(&mut self, bell: Bell, cx: &Context<'_>) -> Poll<()> {
        let waiting = &mut self.bells[bell as usize];
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Hands to the ring what is to be watched from now on. What it does not take, for want of memory or because
    /// reports wait to be collected, it is handed again.
    pub(crate) fn submit_polls(&mut self) {
        if let Err(error) = self.poller.submit() {
            tracing::debug!(%error, "the ring takes no polls for now");
        }
    }

    /// Closes the lanes to the other shards.
    pub(crate) fn close_mesh(&mut self) {
        if let Some(senders) = self.mesh.senders.take() {
            senders.close();
        }
    }
}

impl Driver for World {
    type Socket = Plain;
    type Buffer = Buffer;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn reserve(&mut self, slot: u32) -> io::Result<()> {
        self.poller.reserve(slot)
    }

    fn watch(&mut self, watched: Watched, socket: &Plain) {
        self.poller.watch(watched, socket.as_fd());
    }

    fn unwatch(&mut self, watched: Watched) {
        self.poller.unwatch(watched);
    }

    fn offer(&mut self, shard: usize, message: Message) -> Option<Message> {
        self.mesh.try_send(shard, message)
    }

    fn ring(&mut self, bell: Bell) {
        self.bells[bell as usize].drain(..).for_each(Waker::wake);
    }

    fn read_buffer(&mut self) -> Buffer {
        self.pool.take_read()
    }

    fn return_read_buffer(&mut self, buffer: Buffer) {
        self.pool.give_back_read(buffer);
    }

    fn gather_buffer(&mut self) -> Buffer {
        self.pool.take_gather()
    }

    fn return_gather_buffer(&mut self, buffer: Buffer) {
        self.pool.give_back_gather(buffer);
    }
}
