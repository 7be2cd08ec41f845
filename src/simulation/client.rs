//! A client of the push server, as far as the simulation needs one: it sends commands and keeps account of what it reads.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use crate::config::Framing;
use crate::testing::world::Wire;

/// One client.
pub(super) struct Client {
    pub(super) framing: Framing,
    pub(super) wire: Rc<RefCell<Wire>>,
    /// What it will send next.
    unsent: VecDeque<u8>,
    /// What it has read and can't be cut into messages yet.
    held: Vec<u8>,
    /// For HTTP: the answer's head has come.
    upgraded: bool,
    /// For HTTP: it offers to have messages compressed, and compresses its own.
    deflates: bool,
    /// Messages that came by a publish.
    pub(super) delivered: u64,
    /// Messages that it was told it missed.
    pub(super) missed: u64,
    /// Pings that are to be answered.
    pub(super) pings: u64,
    /// The newest number of each publisher.
    newest: BTreeMap<String, u64>,
    /// The topics that it was told it is subscribed to.
    topics: BTreeSet<String>,
    /// It has been told that the connection is about to close.
    pub(super) farewell: Option<String>,
}

impl Client {
    pub(super) fn new(framing: Framing, wire: Rc<RefCell<Wire>>, deflates: bool) -> Self {
        let mut client = Client {
            framing,
            wire,
            unsent: VecDeque::new(),
            held: Vec::new(),
            upgraded: framing != Framing::Http,
            deflates: deflates && framing == Framing::Http,
            delivered: 0,
            missed: 0,
            pings: 0,
            newest: BTreeMap::new(),
            topics: BTreeSet::new(),
            farewell: None,
        };
        let rounds = client.wire.borrow().rounds.unwrap_or(0);
        client.unsent.extend(std::iter::repeat_n(b'h', rounds));
        if framing == Framing::Http {
            client.unsent.extend(
                b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            );
            if client.deflates {
                client.unsent.extend(b"Sec-WebSocket-Extensions: permessage-deflate\r\n");
            }
            client.unsent.extend(b"\r\n");
        }
        client
    }

    /// Prepares to send a message.
    pub(super) fn say(&mut self, text: &str) {
        self.pings += u64::from(text == "PING");
        match self.framing.name() {
            "line" => {
                self.unsent.extend(text.bytes());
                self.unsent.push_back(b'\n');
            }
            "length" => {
                self.unsent.extend((text.len() as u32).to_be_bytes());
                self.unsent.extend(text.bytes());
            }
            "http" => {
                const KEY: [u8; 4] = [1, 2, 3, 4];
                let (first, payload) = match deflated(text).filter(|_| self.deflates) {
                    Some(deflated) => (0xc1, deflated),
                    None => (0x81, text.as_bytes().to_vec()),
                };
                self.unsent.push_back(first);
                match payload.len() {
                    len @ 0..126 => self.unsent.push_back(0x80 | len as u8),
                    len => {
                        self.unsent.push_back(0x80 | 126);
                        self.unsent.extend((len as u16).to_be_bytes());
                    }
                }
                self.unsent.extend(KEY);
                self.unsent.extend(payload.iter().enumerate().map(|(n, byte)| byte ^ KEY[n % 4]));
            }
            other => unreachable!("no client of the simulation speaks {other}"),
        }
    }

    /// Sends up to so many bytes; whether there were any.
    pub(super) fn send(&mut self, most: usize) -> bool {
        let count = most.min(self.unsent.len());
        let wire = &mut *self.wire.borrow_mut();
        // A client whose connection is closed sends into nothing.
        if wire.client_ended || wire.reset || wire.closed {
            return false;
        }
        wire.to_server.extend(self.unsent.drain(..count));
        count > 0
    }

    /// Reads all that has come, and makes room for so many bytes more; whether anything changed.
    pub(super) fn read(&mut self, room: usize) -> bool {
        let wire = Rc::clone(&self.wire);
        let wire = &mut *wire.borrow_mut();
        let changed = !wire.to_client.is_empty() || wire.room == 0 && room > 0;
        self.held.extend(wire.to_client.drain(..));
        wire.room = wire.room.max(room);
        self.cut();
        changed
    }

    /// Whether what it has read ends with a whole message.
    pub(super) fn is_whole(&self) -> bool {
        self.held.is_empty()
    }

    fn cut(&mut self) {
        if !self.upgraded {
            let Some(end) = self.held.windows(4).position(|window| window == b"\r\n\r\n") else { return };
            let refused = [&b"HTTP/1.1 503 "[..], b"HTTP/1.1 408 "];
            if refused.iter().any(|status| self.held.starts_with(status)) {
                self.farewell = Some("refused".into());
                self.held.clear();
                return;
            }
            assert!(self.held.starts_with(b"HTTP/1.1 101 "), "{}", self.held.escape_ascii());
            self.held.drain(..end + 4);
            self.upgraded = true;
        }
        while let Some((from, to)) = self.frame() {
            let is_compressed = self.framing == Framing::Http && self.held[0] & 0x40 != 0;
            let frame: Vec<u8> = self.held.drain(..to).skip(from).collect();
            let message = if is_compressed { inflated(&frame) } else { frame };
            self.take(&String::from_utf8(message).expect("all that is sent here is text"));
        }
    }

    /// Where the next whole message lies: its first byte, and where it ends.
    fn frame(&self) -> Option<(usize, usize)> {
        let (from, to) = match self.framing.name() {
            "line" => return Some((0, self.held.iter().position(|byte| *byte == b'\n')? + 1)),
            "length" => {
                let (len, _) = self.held.split_first_chunk::<4>()?;
                (4, 4 + u32::from_be_bytes(*len) as usize)
            }
            "http" => {
                let [first, len] = *self.held.first_chunk::<2>()?;
                // A close, whose first two bytes are no text.
                if first == 0x88 {
                    return (self.held.len() >= 2 + len as usize).then_some((2 + len as usize, 2 + len as usize));
                }
                let is_known = first == 0x81 || first == 0x89 || first == 0xc1 && self.deflates;
                assert!(is_known, "a frame begins with {first:#x}");
                match len {
                    126 => (4, 4 + u16::from_be_bytes(*self.held[2..].first_chunk()?) as usize),
                    len => (2, 2 + len as usize),
                }
            }
            other => unreachable!("no client of the simulation speaks {other}"),
        };
        (self.held.len() >= to).then_some((from, to))
    }

    fn take(&mut self, text: &str) {
        let text = text.trim_end_matches('\n');
        assert!(self.farewell.is_none() || text.is_empty(), "`{text}` came after {:?}", self.farewell);
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        match verb {
            "MSG" => {
                let (topic, payload) = rest.split_once(' ').expect("a topic and a payload");
                assert!(self.topics.contains(topic), "`{text}` came while it is subscribed to {:?}", self.topics);
                self.take_message(payload);
            }
            "OK" if rest.starts_with("SUB ") => self.topics.extend(rest.split(' ').skip(1).map(str::to_owned)),
            "OK" if rest.starts_with("UNSUB ") => rest.split(' ').skip(1).for_each(|topic| {
                self.topics.remove(topic);
            }),
            "ALL" | "SELF" => self.take_message(rest),
            "GAP" => {
                let count = rest.split(' ').nth(1).and_then(|count| count.parse::<u64>().ok());
                self.missed += count.expect("the number is known here");
            }
            "PONG" => self.pings -= 1,
            "BYE" => self.farewell = Some(rest.to_owned()),
            "OK" | "ERR" | "" => {}
            _ => panic!("`{text}` is no message of the server's"),
        }
    }

    /// A payload is the publisher, its number, and something to fill it up.
    fn take_message(&mut self, payload: &str) {
        let mut words = payload.split(' ');
        let publisher = words.next().expect("a publisher").to_owned();
        let number: u64 = words.next().and_then(|number| number.parse().ok()).expect("its number");
        let newest = self.newest.entry(publisher.clone()).or_insert(0);
        assert!(number > *newest, "{publisher}: {number} came after {newest}");
        *newest = number;
        self.delivered += 1;
    }
}

/// A text as a client sends it compressed; `None`: it would not be smaller.
#[cfg(feature = "web")]
fn deflated(text: &str) -> Option<Vec<u8>> {
    use crate::protocol::Window;
    use crate::protocol::deflate::{Deflater, Effort};
    Deflater::default().deflate(Window::Wide, Effort::Few, text.as_bytes()).map(<[u8]>::to_vec)
}

#[cfg(not(feature = "web"))]
fn deflated(_: &str) -> Option<Vec<u8>> {
    None
}

#[cfg(feature = "web")]
fn inflated(payload: &[u8]) -> Vec<u8> {
    use crate::message::Kind;
    use crate::protocol::deflate::Inflater;
    let mut inflater = Inflater::default();
    inflater.inflate(Kind::Text, payload, 1 << 20).expect("it was compressed as the standard says").to_vec()
}

#[cfg(not(feature = "web"))]
fn inflated(_: &[u8]) -> Vec<u8> {
    unreachable!("nothing is compressed")
}
