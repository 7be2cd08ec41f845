//! What compresses WebSocket messages, and undoes it: permessage-deflate (RFC 7692) without context takeover.
//!
//! Each message is compressed by itself, so that no connection keeps a state for it: one [`Deflater`] and one [`Inflater`]
//! serve all connections of a shard, and a compressed message is the same for all of its recipients.

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Inflate, InflateFlush, Status};

use super::{Violation, Window, utf8};
use crate::config::{DEFLATE_KEPT_BYTES_MAX, DEFLATE_LEVEL_FEW, DEFLATE_LEVEL_MANY};
use crate::message::Kind;

/// What ends a flush of a compressor. It is left out of each message (RFC 7692, section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// A last block with nothing in it (RFC 1951, section 3.2.4). It ends a stream only where another block may begin.
const LAST_BLOCK: [u8; 5] = [0x01, 0x00, 0x00, 0xff, 0xff];

/// Bits of the largest window that a compressor may use, which every message can be inflated with.
const WINDOW_BITS_MAX: u8 = 15;

/// How hard a message is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// For few recipients: quickly.
    Few,
    /// For many: well.
    Many,
}

impl Effort {
    fn level(self) -> i32 {
        match self {
            Effort::Few => DEFLATE_LEVEL_FEW,
            Effort::Many => DEFLATE_LEVEL_MANY,
        }
    }
}

/// Compresses messages. It takes no memory before the first one.
#[derive(Default)]
pub(crate) struct Deflater {
    wide: Option<Box<Deflate>>,
    narrow: Option<Box<Deflate>>,
    /// What came out last is at its beginning.
    out: Vec<u8>,
}

impl Deflater {
    /// A message as it is sent in a compressed frame; `None`: it would not be smaller.
    pub(crate) fn deflate(&mut self, window: Window, effort: Effort, message: &[u8]) -> Option<&[u8]> {
        // Room for the worst that is made of a message (9 bits a byte), as the crate's compressor does not forget a flush that
        // found too little, not even by a reset.
        let room = message.len() + message.len() / 8 + 64;
        grow(&mut self.out, room);
        let kept = match window {
            Window::Wide => &mut self.wide,
            Window::Narrow => &mut self.narrow,
        };
        let mut deflate = kept.take().unwrap_or_else(|| {
            let window_bits = -i32::from(window.bits());
            Box::new(Deflate::new_with_config(DeflateConfig { window_bits, ..DeflateConfig::default() }))
        });
        deflate.reset();
        deflate.set_level(effort.level()).ok()?;
        let flushed = deflate.compress(message, &mut self.out[..room], DeflateFlush::SyncFlush);
        let (taken, made) = (deflate.total_in() as usize, deflate.total_out() as usize);
        let is_whole = flushed == Ok(Status::Ok) && taken == message.len() && made < room;
        // One that does not come to its end is not used again.
        *kept = is_whole.then_some(deflate);
        let deflated = self.out[..made].strip_suffix(&TAIL).filter(|_| is_whole)?;
        (deflated.len() < message.len()).then_some(deflated)
    }
}

/// Inflates messages. It takes no memory before the first one.
#[derive(Default)]
pub(crate) struct Inflater {
    inflate: Option<Box<Inflate>>,
    /// What came out last is at its beginning.
    out: Vec<u8>,
}

impl Inflater {
    /// The message of a kind that was sent compressed.
    ///
    /// # Errors
    /// It is larger than `message_max` bytes, not compressed as the standard says, or a text that is not UTF-8.
    pub(crate) fn inflate(&mut self, kind: Kind, payload: &[u8], message_max: usize) -> Result<&[u8], Violation> {
        // About what JSON grows to. There is one byte more than a message may have, which shows that it has more.
        let first_room = (4 * payload.len()).clamp(256, message_max.max(256)).min(message_max + 1);
        grow(&mut self.out, first_room);
        let inflate = self.inflate.get_or_insert_with(|| Box::new(Inflate::new(false, WINDOW_BITS_MAX)));
        inflate.reset(false);
        let mut run = Run { inflate, out: &mut self.out, made: 0, message_max };
        // The last block of a stream needs nothing behind it, and neither does a message without any block.
        let is_cut_off =
            !payload.is_empty() && !run.inflate(payload)? && { run.inflate(&TAIL)? || !run.inflate(&LAST_BLOCK)? };
        let made = run.made;
        if is_cut_off {
            return Err(Violation::Protocol("a compressed message ends in the midst of a block"));
        }
        let message = &self.out[..made];
        if kind == Kind::Text && utf8::from_utf8(message).is_err() {
            return Err(Violation::NotUtf8);
        }
        Ok(message)
    }
}

/// A message on its way out of the inflater.
struct Run<'a> {
    inflate: &'a mut Inflate,
    out: &'a mut Vec<u8>,
    /// Bytes of the message so far.
    made: usize,
    message_max: usize,
}

impl Run<'_> {
    /// Takes more bytes; whether a last block ends with them.
    fn inflate(&mut self, mut bytes: &[u8]) -> Result<bool, Violation> {
        loop {
            if self.made == self.out.len() {
                let room = (2 * self.made).min(self.message_max + 1);
                self.out.reserve_exact(room - self.made);
                self.out.resize(room, 0);
            }
            let room = &mut self.out[self.made..];
            let room_bytes = room.len();
            let (bytes_in, bytes_out) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(bytes, room, InflateFlush::SyncFlush);
            let used = (self.inflate.total_in() - bytes_in) as usize;
            let made = (self.inflate.total_out() - bytes_out) as usize;
            bytes = &bytes[used..];
            self.made += made;
            if self.made > self.message_max {
                return Err(Violation::TooLarge { max: self.message_max });
            }
            match status {
                Ok(Status::StreamEnd) if bytes.is_empty() => return Ok(true),
                // Another stream may follow a last block (RFC 7692, section 7.2.3.4).
                Ok(Status::StreamEnd) => self.inflate.reset(false),
                // What did not find room comes out with the next call.
                Ok(Status::Ok | Status::BufError) if made == room_bytes => {}
                Ok(Status::Ok | Status::BufError) => return Ok(false),
                Err(_) => return Err(Violation::Protocol("a compressed message is not in the form of RFC 1951")),
            }
        }
    }
}

/// Makes a buffer as long as that at least. The memory of a large message goes back when the next one is a smaller one.
fn grow(buffer: &mut Vec<u8>, len: usize) {
    if buffer.capacity() > DEFLATE_KEPT_BYTES_MAX.max(len) {
        *buffer = Vec::new();
    }
    if buffer.len() < len {
        buffer.reserve_exact(len - buffer.len());
        buffer.resize(len, 0);
    }
}

#[cfg(test)]
mod tests;
