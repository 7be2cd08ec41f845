//! A client's bytes cut into messages, as a connection does it.

use crate::config::FRAME_OVERHEAD_BYTES_MAX;
use crate::message::Kind;
use crate::protocol::deflate::Inflater;
use crate::protocol::websocket::{Assembly, sent_max};
use crate::protocol::{self, Encoding, Item, Step, Violation};

/// What a client has sent, whichever way it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Message(Kind, Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

/// Reads a stream that arrives in pieces, up to a close or to what breaks the protocol.
pub(super) fn read(encoding: Encoding, pieces: &[&[u8]], message_max: usize) -> (Vec<Sent>, Option<Violation>) {
    let (mut sent, mut assembly) = (Vec::new(), None::<Box<Assembly>>);
    let (mut held, mut scanned) = (Vec::new(), 0);
    let mut inflater = Inflater::default();
    for piece in pieces {
        held.extend_from_slice(piece);
        let mut used = 0;
        while used < held.len() {
            let rest = &mut held[used..];
            let Step { item, consumed, frame_bytes } =
                match protocol::next(encoding, rest, scanned, &mut assembly, message_max) {
                    Ok(step) => step,
                    Err(violation) => return (sent, Some(violation)),
                };
            assert!(consumed <= rest.len(), "{consumed} of {} bytes are used up", rest.len());
            assert!(item.is_none() || consumed > 0, "{item:?} took no bytes");
            if let Some(bytes) = frame_bytes {
                let is_room = bytes > rest.len() && bytes <= message_max + FRAME_OVERHEAD_BYTES_MAX;
                assert!(item.is_none() && is_room, "{bytes} bytes are announced behind {}", rest.len());
            }
            if let Some(assembly) = &assembly {
                let (held, memory) = (assembly.message().len(), assembly.memory());
                let message_max = sent_max(message_max, assembly.is_compressed());
                assert!(held <= message_max, "{held} bytes are held of a message of {message_max}");
                // A vector grows to twice what it holds at the most, and has room for a few bytes from the first one on.
                assert!(memory <= size_of::<Assembly>() + (2 * message_max).max(8), "{memory} bytes for {held}");
            }
            let is_over = item.is_none();
            scanned = if is_over { rest.len() - consumed } else { 0 };
            match item {
                Some(Item::Message { kind, range }) => {
                    assert!(range.end <= consumed && range.len() <= message_max, "{range:?} of {consumed}");
                    sent.push(Sent::Message(kind, rest[range].to_vec()));
                }
                Some(Item::Assembled) => {
                    let whole = assembly.take().expect("what is assembled is there");
                    let message = match whole.is_compressed() {
                        true => inflater.inflate(whole.kind(), whole.message(), message_max),
                        false => Ok(whole.message()),
                    };
                    match message {
                        Ok(message) => sent.push(Sent::Message(whole.kind(), message.to_vec())),
                        Err(violation) => return (sent, Some(violation)),
                    }
                }
                Some(Item::Compressed { kind, range }) => match inflater.inflate(kind, &rest[range], message_max) {
                    Ok(message) => {
                        assert!(message.len() <= message_max, "{} of {message_max} bytes", message.len());
                        sent.push(Sent::Message(kind, message.to_vec()));
                    }
                    Err(violation) => return (sent, Some(violation)),
                },
                Some(Item::Ping { range }) => sent.push(Sent::Ping(rest[range].to_vec())),
                Some(Item::Pong) => sent.push(Sent::Pong),
                Some(Item::Close { code }) => {
                    sent.push(Sent::Close(code));
                    return (sent, None);
                }
                Some(Item::Stray) => unreachable!("event streams are not read"),
                None => {}
            }
            used += consumed;
            if is_over && consumed == 0 {
                break;
            }
        }
        held.drain(..used);
    }
    (sent, None)
}
