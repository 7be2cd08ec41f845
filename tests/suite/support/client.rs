//! A blocking client for both framings. Whatever it waits for fails the test after [`DEADLINE`].

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use corecast::{ConnId, Framing};
use socket2::{Domain, Socket, Type};

use super::DEADLINE;

/// One connection to a server.
pub(crate) struct Client {
    stream: TcpStream,
    framing: Framing,
    /// Bytes that have been read and not been looked at.
    held: Vec<u8>,
}

impl Client {
    /// Connects.
    pub(crate) fn connect(addr: SocketAddr, framing: Framing) -> Client {
        Client::try_connect(addr, framing).expect("the server accepts")
    }

    /// Connects, or says why not.
    pub(crate) fn try_connect(addr: SocketAddr, framing: Framing) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&addr, DEADLINE)?;
        Client::over(stream, framing)
    }

    /// Connects with a receive buffer so small that a few KiB fill it.
    pub(crate) fn connect_narrow(addr: SocketAddr, framing: Framing) -> Client {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect_timeout(&addr.into(), DEADLINE).unwrap();
        Client::over(socket.into(), framing).unwrap()
    }

    fn over(stream: TcpStream, framing: Framing) -> io::Result<Client> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Client { stream, framing, held: Vec::new() })
    }

    /// The client's own address.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// The framing it speaks.
    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    // ---- Sending ----

    /// The bytes of a message in this client's framing.
    pub(crate) fn frame(&self, message: impl AsRef<[u8]>) -> Vec<u8> {
        frame(self.framing, message.as_ref())
    }

    /// Sends a message.
    #[track_caller]
    pub(crate) fn send(&mut self, message: impl AsRef<[u8]>) {
        let bytes = self.frame(message);
        self.send_raw(bytes);
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub(crate) fn send_raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server takes what is sent");
    }

    /// Sends bytes to a server that may have closed the connection.
    pub(crate) fn try_send_raw(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Closes the sending side.
    pub(crate) fn finish_sending(&self) {
        self.try_finish_sending().unwrap();
    }

    /// Closes the sending side of a connection that may be closed.
    pub(crate) fn try_finish_sending(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Closes the connection with a reset.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    // ---- Receiving ----

    /// The next message; `None`: the server has closed the connection in order.
    ///
    /// # Errors
    /// The connection was reset.
    #[track_caller]
    pub(crate) fn try_recv(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(message) = take_message(self.framing, &mut self.held) {
                return Ok(Some(message));
            }
            match self.read_some() {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if is_timeout(&error) => {
                    panic!("no message came, {} bytes of one are held", self.held.len())
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Like [`Client::try_recv`], but waits no longer than `patience`; `None`: nothing came.
    pub(crate) fn recv_within(&mut self, patience: Duration) -> Option<io::Result<Option<Vec<u8>>>> {
        if let Some(message) = take_message(self.framing, &mut self.held) {
            return Some(Ok(Some(message)));
        }
        self.stream.set_read_timeout(Some(patience)).unwrap();
        let read = self.read_some();
        self.stream.set_read_timeout(Some(DEADLINE)).unwrap();
        match read {
            Ok(0) => Some(Ok(None)),
            Ok(_) => take_message(self.framing, &mut self.held).map(|message| Ok(Some(message))),
            Err(error) if is_timeout(&error) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// The next message as bytes.
    #[track_caller]
    pub(crate) fn recv_bytes(&mut self) -> Vec<u8> {
        self.try_recv().expect("no reset").expect("a message before the connection's end")
    }

    /// The next message as text.
    #[track_caller]
    pub(crate) fn recv(&mut self) -> String {
        String::from_utf8(self.recv_bytes()).expect("the server writes UTF-8 here")
    }

    /// Sends a message and returns the next one that comes.
    #[track_caller]
    pub(crate) fn ask(&mut self, message: impl AsRef<[u8]>) -> String {
        self.send(message);
        self.recv()
    }

    /// Asks the hub for this connection's id.
    #[track_caller]
    pub(crate) fn id(&mut self) -> ConnId {
        let answer = self.ask("ID");
        answer.strip_prefix("ID ").and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("no id: {answer}"))
    }

    /// Asserts that `text` is the next message.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) {
        assert_eq!(self.recv(), text);
    }

    /// Asserts that nothing is under way to this client: the answer to a fresh `PING` comes next.
    #[track_caller]
    pub(crate) fn expect_nothing(&mut self) {
        assert_eq!(self.ask("PING nothing-between"), "PONG nothing-between");
    }

    /// Asserts that the server has closed the connection in order.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let got = self.try_recv().expect("an end, not a reset");
        assert_eq!(got.map(|message| String::from_utf8_lossy(&message).into_owned()), None);
        assert_eq!(self.held, b"", "the stream ended inside a message");
    }

    /// Everything up to the connection's end, in order or by a reset.
    pub(crate) fn recv_to_end(&mut self) -> Vec<String> {
        let mut messages = Vec::new();
        while let Ok(Some(message)) = self.try_recv() {
            messages.push(String::from_utf8_lossy(&message).into_owned());
        }
        messages
    }

    /// Whether the server serves this client: `false` if it has closed the connection.
    pub(crate) fn is_served(&mut self) -> bool {
        let ping = self.frame("PING served");
        let _ = self.try_send_raw(ping);
        matches!(self.try_recv(), Ok(Some(pong)) if pong == b"PONG served")
    }

    fn read_some(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let n = loop {
            match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.held.extend_from_slice(&buffer[..n]);
        Ok(n)
    }
}

impl Clone for Client {
    /// A second handle to the same connection, for another thread: what it reads, the first does not.
    fn clone(&self) -> Self {
        Client { stream: self.stream.try_clone().unwrap(), framing: self.framing, held: self.held.clone() }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn frame(framing: Framing, message: &[u8]) -> Vec<u8> {
    match framing {
        Framing::Line => [message, b"\n"].concat(),
        Framing::Length => [&(message.len() as u32).to_be_bytes(), message].concat(),
        _ => panic!("this client speaks plain framings"),
    }
}

fn take_message(framing: Framing, held: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (header, len, trailer) = match framing {
        Framing::Line => (0, held.iter().position(|byte| *byte == b'\n')?, 1),
        Framing::Length => (4, u32::from_be_bytes(*held.first_chunk()?) as usize, 0),
        _ => panic!("this client speaks plain framings"),
    };
    if held.len() < header + len + trailer {
        return None;
    }
    let rest = held.split_off(header + len + trailer);
    let frame = std::mem::replace(held, rest);
    Some(frame[header..header + len].to_vec())
}
