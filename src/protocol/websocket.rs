//! WebSocket frames (RFC 6455): bytes in, messages and control frames out; no I/O, no clock.
//!
//! A message that lies whole in the bytes at hand is unmasked where it lies and costs no memory. What comes in
//! pieces (a long frame, a fragmented message) is moved into an [`Assembly`] as it arrives, unmasked and checked
//! once, so a connection without a message under way needs no state at all.
//!
//! Where compression is agreed upon (RFC 7692), a message may come compressed. It is handed on as it came, to be inflated by
//! the caller.

mod mask;

use super::{EncodeError, Item, Label, Protocol, Step, Violation, Words, utf8};
use crate::message::{CloseReason, Kind};
use mask::{Mask, unmask};

/// Bits of a frame's first byte: the last frame of a message; bits that only an extension may set; the opcode.
const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const COMPRESSED: u8 = 0x40;
const OPCODE: u8 = 0x0f;

/// Bits of a frame's second byte: whether the payload is masked; its length, or how long the length is.
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// Bytes that a control frame may carry (RFC 6455, section 5.5).
pub(crate) const CONTROL_BYTES_MAX: usize = 125;

/// A ping without a payload.
const PING_FRAME: [u8; 2] = [FIN | PING, 0];

/// A WebSocket, once it is open. `DEFLATE`: its messages may be compressed.
pub(super) struct WebSocket<const DEFLATE: bool>;

impl<const DEFLATE: bool> Protocol for WebSocket<DEFLATE> {
    const KEEP_ALIVE: Option<&'static [u8]> = Some(&PING_FRAME);

    fn next(
        bytes: &mut [u8],
        _: usize,
        assembly: &mut Option<Box<Assembly>>,
        message_max: usize,
    ) -> Result<Step, Violation> {
        decode::<DEFLATE>(bytes, assembly, message_max)
    }

    /// One frame with the whole message: of its kind, but a text that is not UTF-8 goes as binary.
    fn encode(label: Label, message: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        frame(opcode(label, message), message, out);
        Ok(())
    }

    fn pong(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame(PONG, payload, &mut out);
        out
    }

    /// Its own code.
    fn close_answer(code: Option<u16>) -> Vec<u8> {
        let mut out = Vec::new();
        match code {
            Some(code) => frame(CLOSE, &code.to_be_bytes(), &mut out),
            None => frame(CLOSE, &[], &mut out),
        }
        out
    }

    fn farewell(reason: CloseReason, words: Option<Words<'_>>) -> Option<Vec<u8>> {
        Some(close(reason, words))
    }
}

/// What a message is sent as.
fn opcode(label: Label, message: &[u8]) -> u8 {
    let is_text = label.kind == Kind::Text && utf8::from_utf8(message).is_ok();
    if is_text { TEXT } else { BINARY }
}

/// Appends the frame of a message that has been compressed to `deflated`.
#[cfg(feature = "web")]
pub(crate) fn encode_deflated(label: Label, message: &[u8], deflated: &[u8], out: &mut Vec<u8>) {
    frame(COMPRESSED | opcode(label, message), deflated, out);
}

/// Bytes that a message of at most `message_max` may have as it is sent. What does not get smaller is compressed into blocks
/// that hold it as it is, each with 5 bytes besides; the smallest ones of usual compressors have some hundred bytes.
pub(crate) fn sent_max(message_max: usize, is_compressed: bool) -> usize {
    if is_compressed { message_max + message_max / 16 + 64 } else { message_max }
}

/// A message that comes in pieces.
#[derive(Debug)]
pub(crate) struct Assembly {
    /// What has come in, unmasked.
    message: Vec<u8>,
    /// Whether it must be inflated once it is complete.
    is_compressed: bool,
    /// How much of a text message is known to be UTF-8, unless it is compressed; `None`: it is a binary one.
    checked: Option<usize>,
    /// The frame whose payload is coming in; `None`: between two frames.
    frame: Option<Frame>,
}

#[derive(Debug)]
struct Frame {
    /// Bytes that are still to come.
    left: usize,
    /// The mask, turned so that it begins with the next byte.
    mask: Mask,
    /// Whether the message ends with this frame.
    last: bool,
}

impl Assembly {
    /// The message, once it is complete.
    pub(crate) fn message(&self) -> &[u8] {
        &self.message
    }

    /// Whether that must be inflated.
    pub(crate) fn is_compressed(&self) -> bool {
        self.is_compressed
    }

    /// Bytes of memory that it takes.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Assembly>() + self.message.capacity()
    }

    /// Whether the next bytes are a frame's payload, and not the beginning of one.
    pub(crate) fn is_within_frame(&self) -> bool {
        self.frame.is_some()
    }

    /// Whether it is text or binary.
    pub(crate) fn kind(&self) -> Kind {
        if self.checked.is_some() { Kind::Text } else { Kind::Binary }
    }

    /// Takes what has come in of the frame under way. `Ok(true)`: the message is complete.
    fn take(&mut self, bytes: &mut [u8]) -> Result<bool, Violation> {
        let Some(frame) = &mut self.frame else { return Ok(false) };
        unmask(bytes, frame.mask);
        frame.mask.rotate_left(bytes.len() % 4);
        frame.left -= bytes.len();
        let ended = frame.left == 0;
        let complete = ended && frame.last;
        if ended {
            self.frame = None;
        }
        self.message.extend_from_slice(bytes);
        if let Some(checked) = &mut self.checked
            && !self.is_compressed
        {
            match utf8::from_utf8_up_to(&self.message[*checked..]) {
                Ok(_) => *checked = self.message.len(),
                // A character may be cut by the end of what has come in, but not by the end of the message.
                Err(error) if error.error_len().is_none() && !complete => *checked += error.valid_up_to(),
                Err(_) => return Err(Violation::NotUtf8),
            }
        }
        Ok(complete)
    }
}

/// The fixed part of a frame that has been found sound in itself.
struct Header {
    opcode: u8,
    last: bool,
    is_compressed: bool,
    mask: Mask,
    /// Bytes of the header and of the payload.
    bytes: usize,
    payload: usize,
}

/// Reads a header, which may be that of a compressed message if `DEFLATE`; `Ok(None)`: it is not complete.
fn header<const DEFLATE: bool>(
    bytes: &[u8],
    under_way: Option<&Assembly>,
    message_max: usize,
) -> Result<Option<Header>, Violation> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let (opcode, last) = (first & OPCODE, first & FIN != 0);
    // It stands at the beginning of a message alone (RFC 7692, section 6).
    let is_compressed = DEFLATE && first & RESERVED == COMPRESSED && matches!(opcode, TEXT | BINARY);
    if first & RESERVED != 0 && !is_compressed {
        return Err(Violation::Protocol("a frame has a reserved bit set, and no extension in use gives it a meaning"));
    }
    if !matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG) {
        return Err(Violation::Protocol("a frame has a reserved opcode"));
    }
    if second & MASKED == 0 {
        return Err(Violation::Protocol("a client must mask its frames"));
    }
    let length = second & LENGTH;
    let is_control = opcode & 0x8 != 0;
    if is_control && !last {
        return Err(Violation::Protocol("a control frame can't be fragmented"));
    }
    if is_control && usize::from(length) > CONTROL_BYTES_MAX {
        return Err(Violation::Protocol("a control frame carries at most 125 bytes"));
    }
    let (payload, rest) = match length {
        LENGTH_16 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
            None => return Ok(None),
        },
        LENGTH_64 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(None),
        },
        length => (u64::from(length), rest),
    };
    let is_shortest = match length {
        LENGTH_16 => payload >= u64::from(LENGTH_16),
        LENGTH_64 => payload > u64::from(u16::MAX),
        _ => true,
    };
    if !is_shortest || payload > i64::MAX as u64 {
        return Err(Violation::Protocol("a frame's length is not in its shortest form, or has its highest bit set"));
    }
    let payload = usize::try_from(payload).unwrap_or(usize::MAX);
    let (so_far, goes_on_compressed) = under_way.map_or((0, is_compressed), |it| (it.message.len(), it.is_compressed));
    if !is_control && payload > sent_max(message_max, goes_on_compressed).saturating_sub(so_far) {
        return Err(Violation::TooLarge { max: message_max });
    }
    let Some((mask, payload_on)) = rest.split_first_chunk() else { return Ok(None) };
    Ok(Some(Header { opcode, last, is_compressed, mask: *mask, bytes: bytes.len() - payload_on.len(), payload }))
}

/// Finds what comes first in `bytes`, and unmasks it there. `assembly` holds the message under way, if there is one;
/// after [`Item::Assembled`] the caller takes it out. Messages may be compressed if `DEFLATE`.
///
/// # Errors
/// The client breaks the protocol, or its message is larger than `message_max` bytes.
fn decode<const DEFLATE: bool>(
    bytes: &mut [u8],
    assembly: &mut Option<Box<Assembly>>,
    message_max: usize,
) -> Result<Step, Violation> {
    if let Some(under_way) = assembly
        && let Some(frame) = &under_way.frame
    {
        let consumed = frame.left.min(bytes.len());
        let complete = under_way.take(&mut bytes[..consumed])?;
        return Ok(if complete { Step::of(Item::Assembled, consumed) } else { Step::more(consumed) });
    }
    let Some(header) = header::<DEFLATE>(bytes, assembly.as_deref(), message_max)? else { return Ok(Step::more(0)) };
    if matches!(header.opcode, CLOSE | PING | PONG) {
        return control(&header, bytes);
    }
    if (header.opcode == CONTINUATION) != assembly.is_some() {
        return Err(Violation::Protocol(match header.opcode {
            CONTINUATION => "a frame continues a message and none has begun",
            _ => "a message begins before the one under way has ended",
        }));
    }
    let payload = &mut bytes[header.bytes..];
    if header.last && assembly.is_none() && payload.len() >= header.payload {
        let message = &mut payload[..header.payload];
        unmask(message, header.mask);
        let consumed = header.bytes + header.payload;
        let kind = if header.opcode == TEXT { Kind::Text } else { Kind::Binary };
        if header.is_compressed {
            return Ok(Step::of(Item::Compressed { kind, range: header.bytes..consumed }, consumed));
        }
        if kind == Kind::Text && utf8::from_utf8(message).is_err() {
            return Err(Violation::NotUtf8);
        }
        return Ok(Step::of(Item::Message { kind, range: header.bytes..consumed }, consumed));
    }
    let under_way = assembly.get_or_insert_with(|| {
        let checked = (header.opcode == TEXT).then_some(0);
        let is_compressed = header.is_compressed;
        Box::new(Assembly { message: Vec::new(), is_compressed, checked, frame: None })
    });
    under_way.frame = Some(Frame { left: header.payload, mask: header.mask, last: header.last });
    let here = header.payload.min(payload.len());
    let complete = under_way.take(&mut payload[..here])?;
    let consumed = header.bytes + here;
    Ok(if complete { Step::of(Item::Assembled, consumed) } else { Step::more(consumed) })
}

/// A control frame; it is left alone until it has come in whole.
fn control(header: &Header, bytes: &mut [u8]) -> Result<Step, Violation> {
    let consumed = header.bytes + header.payload;
    let Some(payload) = bytes.get_mut(header.bytes..consumed) else {
        return Ok(Step::more(0));
    };
    unmask(payload, header.mask);
    let item = match header.opcode {
        PING => Item::Ping { range: header.bytes..consumed },
        PONG => Item::Pong,
        _ => Item::Close { code: close_code(payload)? },
    };
    Ok(Step::of(item, consumed))
}

/// The code in a close frame's payload (RFC 6455, section 7.4, and the codes registered with IANA since).
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        if payload.is_empty() {
            return Ok(None);
        }
        return Err(Violation::Protocol("a close frame has half a code"));
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::Protocol("a close frame has a code that can't be sent"));
    }
    if utf8::from_utf8(reason).is_err() {
        return Err(Violation::NotUtf8);
    }
    Ok(Some(code))
}

/// The server's close: the code that fits the reason, and the reason's name.
fn close(reason: CloseReason, words: Option<Words<'_>>) -> Vec<u8> {
    let code: u16 = match reason {
        CloseReason::ClientClosed | CloseReason::Handler | CloseReason::Answered => 1000,
        CloseReason::Drain => 1001,
        CloseReason::ProtocolError | CloseReason::WrongProtocol => 1002,
        CloseReason::NotUtf8 => 1007,
        CloseReason::Kicked
        | CloseReason::Rejected
        | CloseReason::ReadTimeout
        | CloseReason::HeadTimeout
        | CloseReason::WriteTimeout
        | CloseReason::SlowConsumer => 1008,
        CloseReason::MessageTooLarge => 1009,
        CloseReason::Reset | CloseReason::HandlerPanic => 1011,
        // Try again later (registered with IANA).
        CloseReason::Full | CloseReason::MemoryPressure => 1013,
    };
    let Words { code, text } = words.unwrap_or(Words { code, text: reason.name() });
    // A control frame has no room for more.
    let room = CONTROL_BYTES_MAX - size_of::<u16>();
    let end = (0..=room.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    let text = &text[..end.unwrap_or_default()];
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(text.as_bytes());
    let mut out = Vec::new();
    frame(CLOSE, &payload, &mut out);
    out
}

fn frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(10 + payload.len());
    out.push(FIN | opcode);
    match payload.len() {
        len @ 0..=125 => out.push(len as u8),
        len @ 126..=0xffff => {
            out.push(LENGTH_16);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(LENGTH_64);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests;
