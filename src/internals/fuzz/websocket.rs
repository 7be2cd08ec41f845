//! The frames of a WebSocket's client.

use super::Arrival;
use super::stream::{Sent, read};
use crate::message::{CloseReason, Kind};
use crate::protocol::deflate::{Deflater, Effort, Inflater};
use crate::protocol::websocket::sent_max;
use crate::protocol::{Encoding, Label, Window, encode, encode_deflated};

/// Bytes that a message may have: on both sides of where a frame's length takes another form.
const MESSAGE_MAX: [usize; 8] = [0, 1, 5, 125, 126, 1000, 65_535, 1 << 20];

/// The bit of the settings that says whether messages may be compressed.
const DEFLATE: u8 = 8;

/// Frames of a client: any split of them gives the same messages and the same error, which are those of a plain reading
/// of RFC 6455 and RFC 7692; nothing larger than a message may be is held. What the server writes for a message reads back
/// as it, compressed or not.
pub fn websocket(data: &[u8]) {
    let Some(arrival) = Arrival::of(data) else { return };
    let message_max = MESSAGE_MAX[usize::from(arrival.settings) % MESSAGE_MAX.len()];
    let [whole, other_splits @ ..] = arrival.splits();
    let deflates = arrival.settings & DEFLATE != 0;
    let encoding = if deflates { Encoding::WebSocketWide } else { Encoding::WebSocket };
    let (sent, violation) = read(encoding, &whole, message_max);
    let expected = expected(arrival.bytes, deflates, message_max);
    assert_eq!((&sent, violation.map(|violation| violation.close_reason())), (&expected.0, expected.1));
    for pieces in other_splits {
        assert_eq!(read(encoding, &pieces, message_max), (sent.clone(), violation));
    }
    for sent in sent {
        if let Sent::Message(kind, message) = &sent
            && deflates
        {
            check_deflated(*kind, message);
        }
        check_answer(sent);
    }
}

/// What the server writes for a message that gets smaller when it is compressed, in either window.
fn check_deflated(kind: Kind, message: &[u8]) {
    let mut deflater = Deflater::default();
    for (window, effort) in [(Window::Wide, Effort::Many), (Window::Narrow, Effort::Few), (Window::Wide, Effort::Few)] {
        let Some(deflated) = deflater.deflate(window, effort, message) else { continue };
        assert!(deflated.len() < message.len(), "{} of {} bytes", deflated.len(), message.len());
        let mut frame = Vec::new();
        encode_deflated(Label { kind, ..Label::default() }, message, deflated, &mut frame);
        let expected = vec![Sent::Message(kind, message.to_vec())];
        assert_eq!(read(Encoding::WebSocketWide, &[&mask(&frame)], message.len()), (expected, None), "{window:?}");
    }
}

/// What the server writes in answer, or passes on.
fn check_answer(sent: Sent) {
    let encoding = Encoding::WebSocket;
    let (answer, expected) = match sent {
        Sent::Message(kind, message) => {
            let mut answer = Vec::new();
            encode(encoding, Label { kind, ..Label::default() }, &message, &mut answer).expect("it carries any bytes");
            (answer, Sent::Message(kind, message))
        }
        Sent::Ping(payload) => (encoding.pong(&payload), Sent::Pong),
        Sent::Pong => return,
        Sent::Close(code) => (encoding.close_answer(code), Sent::Close(code)),
    };
    let masked = mask(&answer);
    assert_eq!(read(encoding, &[&masked], masked.len()), (vec![expected], None));
}

/// A server's frame as a client would send it, with a mask that changes nothing.
fn mask(frame: &[u8]) -> Vec<u8> {
    assert!(frame[1] & 0x80 == 0, "a server's frame has no mask");
    let header_bytes = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let (header, payload) = frame.split_at(header_bytes);
    let mut masked = [header, &[0; 4], payload].concat();
    masked[1] |= 0x80;
    masked
}

/// Reads all frames at once, as RFC 6455 (section 5.2 to 5.6) and RFC 7692 (section 6) say it, with neither speed nor memory
/// in mind.
fn expected(stream: &[u8], deflates: bool, message_max: usize) -> (Vec<Sent>, Option<CloseReason>) {
    let (mut sent, mut under_way, mut rest) = (Vec::new(), None::<(Kind, bool, Vec<u8>)>, stream);
    let error = 'error: {
        while let [first, second, behind @ ..] = rest {
            let (opcode, is_last, short_length) = (first & 0xf, first & 0x80 != 0, second & 0x7f);
            let is_control = opcode >= 8;
            let begins_compressed = deflates && first & 0x70 == 0x40 && matches!(opcode, 1 | 2);
            if first & 0x70 != 0 && !begins_compressed || second & 0x80 == 0 || !matches!(opcode, 0..=2 | 8..=10) {
                break 'error CloseReason::ProtocolError;
            }
            if is_control && (!is_last || short_length > 125) {
                break 'error CloseReason::ProtocolError;
            }
            let length_bytes = match short_length {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let Some((long_length, behind)) = behind.split_at_checked(length_bytes) else { break };
            let long_length = long_length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
            let (length, least) = match short_length {
                126 => (long_length, 126),
                127 => (long_length, 1 << 16),
                short => (u64::from(short), 0),
            };
            if length < least || length >> 63 != 0 {
                break 'error CloseReason::ProtocolError;
            }
            let (is_compressed, so_far) = under_way
                .as_ref()
                .map_or((begins_compressed, 0), |(_, is_compressed, sent)| (*is_compressed, sent.len()));
            if !is_control && length > (sent_max(message_max, is_compressed) - so_far) as u64 {
                break 'error CloseReason::MessageTooLarge;
            }
            let Some((mask, behind)) = behind.split_first_chunk::<4>() else { break };
            let payload = &behind[..behind.len().min(usize::try_from(length).unwrap_or(usize::MAX))];
            let is_whole = payload.len() as u64 == length;
            rest = &behind[payload.len()..];
            let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
            if is_control {
                if !is_whole {
                    break;
                }
                let payload: Vec<u8> = payload.collect();
                match (opcode, &payload[..]) {
                    (9, _) => sent.push(Sent::Ping(payload)),
                    (10, _) => sent.push(Sent::Pong),
                    (_, []) => {
                        sent.push(Sent::Close(None));
                        return (sent, None);
                    }
                    (_, [high, low, reason @ ..]) => {
                        let code = u16::from_be_bytes([*high, *low]);
                        if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                            break 'error CloseReason::ProtocolError;
                        }
                        if std::str::from_utf8(reason).is_err() {
                            break 'error CloseReason::NotUtf8;
                        }
                        sent.push(Sent::Close(Some(code)));
                        return (sent, None);
                    }
                    (_, [_]) => break 'error CloseReason::ProtocolError,
                }
                continue;
            }
            if (opcode == 0) != under_way.is_some() {
                break 'error CloseReason::ProtocolError;
            }
            let kind = if opcode == 1 { Kind::Text } else { Kind::Binary };
            let (kind, _, message) = under_way.get_or_insert_with(|| (kind, is_compressed, Vec::new()));
            message.extend(payload);
            let is_complete = is_whole && is_last;
            let is_sound = match std::str::from_utf8(message) {
                Ok(_) => true,
                // The end of what is there may cut a character, but not the end of the message.
                Err(error) => error.error_len().is_none() && !is_complete,
            };
            if *kind == Kind::Text && !is_compressed && !is_sound {
                break 'error CloseReason::NotUtf8;
            }
            if is_complete {
                let Some((kind, is_compressed, mut message)) = under_way.take() else { break };
                if is_compressed {
                    match Inflater::default().inflate(kind, &message, message_max) {
                        Ok(inflated) => message = inflated.to_vec(),
                        Err(violation) => break 'error violation.close_reason(),
                    }
                }
                sent.push(Sent::Message(kind, message));
            }
        }
        return (sent, None);
    };
    (sent, Some(error))
}
