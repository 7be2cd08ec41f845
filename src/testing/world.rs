//! A world of memory: sockets whose other end the test holds, lanes between shards, and a clock that is moved on by hand.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::engine::driver::{Bell, Driver, Watched};
use crate::engine::shard_msg::ShardMsg;
use crate::transport::{Broken, Handshake, Outstanding, Received, Transport};

/// What lies between a client and its server.
#[derive(Default)]
pub(crate) struct Wire {
    /// What the client has sent and the server has not read.
    pub(crate) to_server: VecDeque<u8>,
    /// What the server has sent and the client has not read.
    pub(crate) to_client: VecDeque<u8>,
    /// Bytes that the server may send before it is blocked.
    pub(crate) room: usize,
    /// At most so many bytes are read and taken at once.
    pub(crate) piece: usize,
    /// The client sends no more.
    pub(crate) client_ended: bool,
    /// The connection is broken.
    pub(crate) reset: bool,
    /// The server sends no more.
    pub(crate) server_ended: bool,
    /// The server has let go of its end.
    pub(crate) closed: bool,
    /// Rounds of the handshake that are left; each takes a byte of the client's. `None`: there is no handshake.
    pub(crate) rounds: Option<usize>,
}

/// The server's end of a wire.
pub(crate) struct Socket(pub(crate) Rc<RefCell<Wire>>);

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.borrow_mut().closed = true;
    }
}

impl Socket {
    /// Whether what is watched for would be reported.
    pub(crate) fn is_ready(&self, watched: Watched) -> bool {
        let wire = self.0.borrow();
        match watched {
            Watched::Read(_) => !wire.to_server.is_empty() || wire.client_ended || wire.reset,
            Watched::Write(_) => wire.room > 0 || wire.reset,
            Watched::Accept(_) => false,
        }
    }
}

impl Transport for Socket {
    fn has_handshake(&self) -> bool {
        self.0.borrow().rounds.is_some()
    }

    fn handshake(&mut self) -> Handshake {
        let wire = &mut *self.0.borrow_mut();
        loop {
            if wire.reset {
                return Handshake::Failed;
            }
            let Some(rounds) = wire.rounds.filter(|rounds| *rounds > 0) else { return Handshake::Done };
            // Both sides have something to say in each round.
            if wire.room == 0 {
                return Handshake::WantsWrite;
            }
            match wire.to_server.pop_front() {
                Some(_) => {
                    wire.room -= 1;
                    wire.rounds = Some(rounds - 1);
                }
                None if wire.client_ended => return Handshake::Failed,
                None => return Handshake::WantsRead,
            }
        }
    }

    fn recv(&mut self, buffer: &mut [u8]) -> Received {
        let wire = &mut *self.0.borrow_mut();
        assert_eq!(wire.rounds.unwrap_or(0), 0, "nothing is read before the handshake is done");
        if wire.reset {
            return Received::Failed;
        }
        let count = buffer.len().min(wire.piece).min(wire.to_server.len());
        if count == 0 {
            return if wire.client_ended { Received::End } else { Received::Nothing };
        }
        for (place, byte) in buffer.iter_mut().zip(wire.to_server.drain(..count)) {
            *place = byte;
        }
        Received::Bytes { count, more: !wire.to_server.is_empty() }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let wire = &mut *self.0.borrow_mut();
        assert!(!wire.server_ended, "nothing is sent behind the end");
        assert_eq!(wire.rounds.unwrap_or(0), 0, "nothing is sent before the handshake is done");
        if wire.reset {
            return Err(Broken);
        }
        let taken = bytes.len().min(wire.room);
        wire.room -= taken;
        wire.to_client.extend(&bytes[..taken]);
        Ok(taken)
    }

    fn finish(&mut self) {
        self.0.borrow_mut().server_ended = true;
    }

    fn has_room(&self) -> bool {
        self.0.borrow().room > 0
    }

    fn outstanding(&self) -> Option<Outstanding> {
        // All that is sent arrives at once: the client's machine answers, whatever the client does.
        Some(Outstanding { packets: 0, unsent: 0, probes: 0, since_answer_ms: 0 })
    }
}

/// What shards of a simulation say to each other.
pub(crate) type Message = ShardMsg<Socket>;

/// The lanes between the shards, by sender and receiver.
pub(crate) struct Net {
    pub(crate) lanes: Vec<Vec<VecDeque<Message>>>,
    pub(crate) capacity: usize,
}

/// The driver of one shard.
pub(crate) struct World {
    pub(crate) index: usize,
    pub(crate) start: Instant,
    pub(crate) clock: Rc<Cell<Duration>>,
    pub(crate) net: Rc<RefCell<Net>>,
    /// What is watched for.
    pub(crate) watched: Vec<Watched>,
    /// Bells that have been rung and not been answered.
    pub(crate) rung: [bool; Bell::COUNT],
    /// Buffers that are lent.
    pub(crate) lent: usize,
}

impl Driver for World {
    type Socket = Socket;
    type Buffer = Vec<u8>;

    fn now(&self) -> Instant {
        self.start + self.clock.get()
    }

    fn reserve(&mut self, _: u32) -> io::Result<()> {
        Ok(())
    }

    fn watch(&mut self, watched: Watched, _: &Socket) {
        assert!(!self.watched.contains(&watched), "{watched:?} is watched twice");
        self.watched.push(watched);
    }

    fn unwatch(&mut self, watched: Watched) {
        let before = self.watched.len();
        self.watched.retain(|other| *other != watched);
        assert_eq!(self.watched.len() + 1, before, "{watched:?} was not watched");
    }

    fn offer(&mut self, shard: usize, message: Message) -> Option<Message> {
        let net = &mut *self.net.borrow_mut();
        let lane = &mut net.lanes[self.index][shard];
        if lane.len() >= net.capacity {
            return Some(message);
        }
        lane.push_back(message);
        None
    }

    fn ring(&mut self, bell: Bell) {
        self.rung[bell as usize] = true;
    }

    fn read_buffer(&mut self) -> Vec<u8> {
        self.lent += 1;
        vec![0xaa; 64]
    }

    fn return_read_buffer(&mut self, _: Vec<u8>) {
        self.lent -= 1;
    }

    fn gather_buffer(&mut self) -> Vec<u8> {
        self.lent += 1;
        vec![0xaa; 256]
    }

    fn return_gather_buffer(&mut self, _: Vec<u8>) {
        self.lent -= 1;
    }
}
