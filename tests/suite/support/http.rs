//! A client of the framing `http`: requests, WebSocket frames and events, as bytes. It takes nothing for granted, so
//! that a test sees what really comes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::DEADLINE;

/// Opcodes of RFC 6455, section 5.2.
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
pub(crate) const FIN: u8 = 0x80;

/// A WebSocket's request for a target, with further header lines.
pub(crate) fn upgrade(target: &str, fields: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: corecast\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    )
}

/// A client's frame with this first byte.
pub(crate) fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let payload = payload.as_ref();
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// A connection to an `http` address.
pub(crate) struct HttpClient {
    stream: TcpStream,
    held: Vec<u8>,
}

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SseEvent {
    pub(crate) id: String,
    /// Its name; empty: it has none.
    pub(crate) event: String,
    pub(crate) data: String,
}

impl HttpClient {
    /// Connects, and says nothing yet.
    pub(crate) fn connect(addr: SocketAddr) -> HttpClient {
        let stream = TcpStream::connect_timeout(&addr, DEADLINE).expect("the server accepts");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        HttpClient { stream, held: Vec::new() }
    }

    /// Opens a WebSocket, with a subprotocol unless that is empty.
    #[track_caller]
    pub(crate) fn websocket(addr: SocketAddr, target: &str, protocol: &str) -> HttpClient {
        let mut client = HttpClient::connect(addr);
        let offer = if protocol.is_empty() { String::new() } else { format!("Sec-WebSocket-Protocol: {protocol}\r\n") };
        client.send(upgrade(target, &offer));
        let head = client.recv_head();
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        assert!(head.contains(&offer), "{head}");
        client
    }

    /// Opens an event stream. Its pause before the next try has been read when it returns.
    #[track_caller]
    pub(crate) fn events(addr: SocketAddr, target: &str) -> HttpClient {
        let mut client = HttpClient::connect(addr);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: corecast\r\n\r\n"));
        let head = client.recv_head();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"), "{head}");
        let retry = client.recv_block();
        let ms: u64 = retry.strip_prefix("retry: ").unwrap_or_else(|| panic!("{retry}")).parse().unwrap();
        assert!((2_000..6_000).contains(&ms), "{ms}");
        client
    }

    /// A second handle to the same connection, for another thread to send with.
    pub(crate) fn try_clone(&self) -> HttpClient {
        HttpClient { stream: self.stream.try_clone().unwrap(), held: Vec::new() }
    }

    // ---- Sending ----

    /// Sends bytes as they are.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server takes what is sent");
    }

    /// Sends bytes to a server that may have closed the connection.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends a text message.
    #[track_caller]
    pub(crate) fn say(&mut self, text: &str) {
        self.send(frame(FIN | TEXT, text));
    }

    /// Closes the sending side.
    pub(crate) fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    // ---- Receiving ----

    /// Reads up to and with the end of a head, and returns what stands before the empty line.
    #[track_caller]
    pub(crate) fn recv_head(&mut self) -> String {
        let end = self.wait_for("a head", |held| held.windows(4).position(|four| four == b"\r\n\r\n"));
        let head: Vec<u8> = self.held.drain(..end + 4).collect();
        String::from_utf8(head[..end + 2].to_vec()).unwrap()
    }

    /// The whole answer to a request, after which the server closes the connection.
    #[track_caller]
    pub(crate) fn recv_answer(&mut self) -> String {
        while self.read_some() {}
        String::from_utf8(std::mem::take(&mut self.held)).unwrap()
    }

    /// The next frame: its opcode and payload.
    #[track_caller]
    pub(crate) fn recv_frame(&mut self) -> (u8, Vec<u8>) {
        let (first, payload) = self.recv_whole_frame();
        assert_eq!(first & 0xf0, FIN, "the server neither fragments nor extends");
        (first & 0x0f, payload)
    }

    /// The next frame: its first byte and payload.
    #[track_caller]
    pub(crate) fn recv_whole_frame(&mut self) -> (u8, Vec<u8>) {
        let (header, len) = self.wait_for("a frame", |held| {
            let len = usize::from(*held.get(1)?);
            match len {
                126 => held.get(2..4).map(|len| (4, usize::from(u16::from_be_bytes(len.try_into().unwrap())))),
                127 => held.get(2..10).map(|len| (10, u64::from_be_bytes(len.try_into().unwrap()) as usize)),
                len => Some((2, len)),
            }
            .filter(|(header, len)| held.len() >= header + len)
        });
        let bytes: Vec<u8> = self.held.drain(..header + len).collect();
        (bytes[0], bytes[header..].to_vec())
    }

    /// The next message, which must be text.
    #[track_caller]
    pub(crate) fn recv(&mut self) -> String {
        let (opcode, payload) = self.recv_frame();
        let text = String::from_utf8(payload).unwrap();
        assert_eq!(opcode, TEXT, "{text}");
        text
    }

    /// Sends a text message and returns the next one that comes.
    #[track_caller]
    pub(crate) fn ask(&mut self, text: &str) -> String {
        self.say(text);
        self.recv()
    }

    /// Asserts that the server closes a WebSocket with this code and reason, and then the connection.
    #[track_caller]
    pub(crate) fn expect_close(&mut self, code: u16, reason: &str) {
        let expected = [&code.to_be_bytes(), reason.as_bytes()].concat();
        let (opcode, payload) = self.recv_frame();
        assert_eq!((opcode, payload.escape_ascii().to_string()), (CLOSE, expected.escape_ascii().to_string()));
        self.expect_end();
    }

    /// Asserts that the server has closed the connection in order.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        assert!(!self.read_some(), "{}", self.held.escape_ascii());
        assert_eq!(self.held, b"", "the stream ended inside a message");
    }

    /// The next event; comments before it are passed over.
    #[track_caller]
    pub(crate) fn recv_event(&mut self) -> SseEvent {
        loop {
            let block = self.recv_block();
            if block == ":" {
                continue;
            }
            let mut event = SseEvent::default();
            for line in block.lines() {
                match line.split_once(": ").unwrap_or((line, "")) {
                    ("id", id) => event.id = id.into(),
                    ("event", name) => event.event = name.into(),
                    ("data", data) if event.data.is_empty() => event.data = data.into(),
                    ("data", data) => event.data = format!("{}\n{data}", event.data),
                    other => panic!("{other:?} in {block}"),
                }
            }
            return event;
        }
    }

    /// The lines up to an empty one.
    #[track_caller]
    pub(crate) fn recv_block(&mut self) -> String {
        let end = self.wait_for("an event", |held| held.windows(2).position(|two| two == b"\n\n"));
        let block: Vec<u8> = self.held.drain(..end + 2).collect();
        String::from_utf8(block[..end].to_vec()).unwrap()
    }

    #[track_caller]
    fn wait_for<T>(&mut self, what: &str, find: impl Fn(&[u8]) -> Option<T>) -> T {
        loop {
            if let Some(found) = find(&self.held) {
                return found;
            }
            assert!(self.read_some(), "the connection ended before {what}: {}", self.held.escape_ascii());
        }
    }

    /// Reads what has come; `false`: the server has closed the connection.
    #[track_caller]
    fn read_some(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(n) => {
                    self.held.extend_from_slice(&buffer[..n]);
                    return n > 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}, held: {}", self.held.escape_ascii()),
            }
        }
    }
}
