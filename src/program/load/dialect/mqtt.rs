//! MQTT 3.1.1 with QoS 0, for comparing with brokers (<https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html>).
//!
//! A publish of QoS 0 has no answer, so a PINGREQ behind each asks for one: a broker reads packets in order.
//!
//! The five kinds of packets that a run meets are read in place here. The crates that read MQTT copy each payload, and
//! either bring a runtime along or are not kept any more.

use super::{BadFrame, Decoded, Framed, MESSAGE_BYTES_MAX, Reply};

/// First bytes of packets, with the flags that the standard fixes for them.
const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const PINGREQ: u8 = 0xc0;
const PINGRESP: u8 = 0xd0;

/// What SUBACK says of a subscription that failed.
const FAILURE: u8 = 0x80;

pub(super) const PING: &[u8] = &[PINGREQ, 0];

/// The first packet, its header included.
pub(super) fn decode(buf: &[u8]) -> Result<Option<Decoded>, BadFrame> {
    let Some((&first, rest)) = buf.split_first() else { return Ok(None) };
    // 0 and 15 are no packets of this version; of the others a server sends these alone.
    if !matches!(first & 0xf0, CONNACK | PUBLISH | SUBACK | PINGRESP) {
        return Err(BadFrame);
    }
    let Some((length, header)) = remaining_length(rest)? else { return Ok(None) };
    if length > MESSAGE_BYTES_MAX {
        return Err(BadFrame);
    }
    let end = 1 + header + length;
    Ok((buf.len() >= end).then_some((0..end, end)))
}

/// The `remaining length` of a packet: seven bits a byte, lowest first, in at most four bytes; and the bytes it took.
fn remaining_length(buf: &[u8]) -> Result<Option<(usize, usize)>, BadFrame> {
    let mut length = 0;
    for (index, byte) in buf.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((length, index + 1)));
        }
    }
    if buf.len() < 4 { Ok(None) } else { Err(BadFrame) }
}

/// Takes a packet apart.
pub(super) fn reply(packet: &[u8]) -> Reply<'_> {
    parse(packet).unwrap_or(Reply::Other)
}

fn parse(packet: &[u8]) -> Option<Reply<'_>> {
    let (&first, rest) = packet.split_first()?;
    let body = rest.get(remaining_length(rest).ok()??.1..)?;
    Some(match first & 0xf0 {
        CONNACK => match body.get(1)? {
            0 => Reply::Greeting,
            1 => Reply::Error(b"protocol version refused"),
            2 => Reply::Error(b"client identifier refused"),
            3 => Reply::Error(b"server unavailable"),
            4 => Reply::Error(b"bad user name or password"),
            _ => Reply::Error(b"not authorized"),
        },
        SUBACK if body.get(2)? == &FAILURE => Reply::Error(b"subscription refused"),
        SUBACK => Reply::Subscribed,
        PUBLISH => {
            let (length, rest) = body.split_first_chunk()?;
            let (topic, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
            // A packet of QoS 1 or 2 has an identifier there.
            let identifier = if first & 0x06 == 0 { 0 } else { 2 };
            Reply::Message { topic: Some(topic), payload: rest.get(identifier..)? }
        }
        PINGRESP => Reply::Pong,
        _ => Reply::Other,
    })
}

/// The beginning of a packet with this many bytes in its body.
fn header(first: u8, mut length: usize) -> Vec<u8> {
    let mut header = vec![first];
    loop {
        // What is left is below 128 in the last byte.
        let byte = (length & 0x7f) as u8;
        length >>= 7;
        if length == 0 {
            header.push(byte);
            return header;
        }
        header.push(byte | 0x80);
    }
}

/// A text behind its length. A topic has 255 bytes at the most.
fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// CONNECT for a clean session without a keep-alive: what keeps a connection alive is up to the scenario. The broker
/// chooses the client identifier.
pub(super) fn introduction() -> Vec<u8> {
    const CLEAN_SESSION: u8 = 0x02;
    let body = [&text("MQTT")[..], &[4, CLEAN_SESSION, 0, 0], &text("")].concat();
    [header(CONNECT, body.len()), body].concat()
}

/// CONNECT and SUBSCRIBE at once: a client need not wait for CONNACK (section 3.1.4).
pub(super) fn subscribe(topic: &str) -> Vec<u8> {
    let body = [&[0, 1][..], &text(topic), &[0]].concat();
    [introduction(), header(SUBSCRIBE, body.len()), body].concat()
}

pub(super) fn publish(topic: &str, payload: &[u8]) -> Framed {
    let topic = text(topic);
    let before = [header(PUBLISH, topic.len() + payload.len()), topic].concat();
    Framed::new(&before, payload, PING)
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_says;
    use super::super::{Dialect, Framing};
    use super::*;

    const MQTT: Dialect = Dialect { framing: Framing::Mqtt };

    #[test]
    fn a_session_is_read_wherever_it_is_cut() {
        let long = vec![b'x'; 300];
        let stream = [
            &b"\x20\x02\x00\x00\x90\x03\x00\x01\x00\x30\x06\x00\x01tabc\x32\x06\x00\x01t\x00\x07a\xd0\x00"[..],
            b"\x30\xaf\x02\x00\x01t",
            &long,
            b"\x20\x02\x00\x05\x90\x03\x00\x01\x80\x20\x00",
        ]
        .concat();
        let replies = [
            Reply::Greeting,
            Reply::Subscribed,
            Reply::Message { topic: Some(b"t"), payload: b"abc" },
            Reply::Message { topic: Some(b"t"), payload: b"a" },
            Reply::Pong,
            Reply::Message { topic: Some(b"t"), payload: &long },
            Reply::Error(b"not authorized"),
            Reply::Error(b"subscription refused"),
            Reply::Other,
        ];
        assert_says(MQTT, &stream, &replies);
    }

    #[test]
    fn a_length_takes_as_many_bytes_as_it_needs() {
        // The limits of each size, from the standard's table 2.4.
        for (length, bytes) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (2_097_152, 4), (268_435_455, 4)]
        {
            let header = header(PUBLISH, length);
            assert_eq!(header.len(), 1 + bytes);
            assert_eq!(remaining_length(&header[1..]), Ok(Some((length, bytes))));
        }
    }

    #[test]
    fn what_is_no_mqtt_is_refused() {
        for bad in [&b"ERR x\n"[..], b"\xf0\x00", b"\x00", b"\x30\xff\xff\xff\xff", b"\x30\xff\xff\xff\x7f"] {
            assert_eq!(decode(bad), Err(BadFrame), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn packets_are_those_of_the_standard() {
        assert_eq!(introduction(), b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00");
        assert_eq!(subscribe("t")[14..], *b"\x82\x06\x00\x01\x00\x01t\x00");
        let framed = publish("t", b"abc");
        assert_eq!(framed.bytes, b"\x30\x06\x00\x01tabc\xc0\x00");
        assert_eq!(&framed.bytes[framed.payload], b"abc");
    }
}
