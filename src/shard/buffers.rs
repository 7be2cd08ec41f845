//! The buffer pool of one shard: memory that is lent for a step.
//!
//! A buffer is borrowed for one poll, never across an `.await`, so a few serve all connections, and an idle connection
//! has none. The runtime registers the memory they lie in with its rings, but `recv` and `send` are plain calls, which
//! gain nothing from that: see "What the ring can do" in the guide's results.

use std::ops::{Deref, DerefMut};

use glommio::io::DmaBuffer;

use crate::config::{GATHER_BUFFER_BYTES, POOL_GATHER_BUFFERS, POOL_READ_BUFFERS, READ_BUFFER_BYTES};

/// A borrowed buffer.
pub(crate) struct Buffer(DmaBuffer);

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.as_bytes_mut()
    }
}

/// Buffers of one size.
struct Shelf {
    size: usize,
    free: Vec<Buffer>,
    /// How often it was empty.
    misses: u64,
}

impl Shelf {
    fn new(size: usize, count: usize) -> Self {
        Shelf { size, free: (0..count).map(|_| Buffer(glommio::allocate_dma_buffer(size))).collect(), misses: 0 }
    }

    /// A buffer. It holds whatever its last user left in it: only what is written to it anew may be looked at.
    fn take(&mut self) -> Buffer {
        self.free.pop().unwrap_or_else(|| {
            self.misses += 1;
            Buffer(glommio::allocate_dma_buffer(self.size))
        })
    }

    fn give_back(&mut self, buffer: Buffer) {
        if self.free.len() < self.free.capacity() {
            self.free.push(buffer);
        }
    }
}

/// The buffers of one shard. It must be made on the shard's executor.
pub(crate) struct Pool {
    read: Shelf,
    gather: Shelf,
}

impl Pool {
    pub(crate) fn new() -> Self {
        Pool {
            read: Shelf::new(READ_BUFFER_BYTES, POOL_READ_BUFFERS),
            gather: Shelf::new(GATHER_BUFFER_BYTES, POOL_GATHER_BUFFERS),
        }
    }

    /// How often all buffers of a size were lent out, so that one had to be made.
    pub(crate) fn misses(&self) -> u64 {
        self.read.misses + self.gather.misses
    }

    /// A buffer to read into: [`READ_BUFFER_BYTES`] bytes.
    pub(crate) fn take_read(&mut self) -> Buffer {
        self.read.take()
    }

    pub(crate) fn give_back_read(&mut self, buffer: Buffer) {
        self.read.give_back(buffer);
    }

    /// A buffer to gather small frames in: [`GATHER_BUFFER_BYTES`] bytes.
    pub(crate) fn take_gather(&mut self) -> Buffer {
        self.gather.take()
    }

    pub(crate) fn give_back_gather(&mut self, buffer: Buffer) {
        self.gather.give_back(buffer);
    }
}
