//! The client process: all connections of one side, in one thread, on a core of its own.
//!
//! It checks every byte it gets against what it must get.

use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fs::Timespec;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Socket, Type};

use super::PATIENCE;
use super::json;
use super::process::{self, App};
use super::wire::{TOPIC, Wire, served_frame};

/// The kernel looks long for a free port once one address has many.
const CONNECTIONS_PER_ADDRESS: usize = 2_000;

/// Connections that are opened before the server is given the time to take them in: fewer than its backlog.
const CONNECT_BATCH: usize = 500;

/// Bytes of a published payload, and of an echoed message with its line feed.
const PAYLOAD_BYTES: usize = 128;

/// Runs as the client. The words: address, app, framing, and a number that no other client has now. Commands come in by
/// stdin.
pub(crate) fn run(words: impl Iterator<Item = String>) -> Result<(), String> {
    let words: Vec<String> = words.collect();
    let [addr, app, wire, number] = &words[..] else { return Err(format!("not a client: {words:?}")) };
    process::raise_open_files()?;
    process::settle_on(process::cpus()?.1)?;
    let addr = addr.parse().map_err(|_| format!("`{addr}` is no address"))?;
    let number = number.parse().map_err(|_| format!("`{number}` is no client's number"))?;
    let mut client = Client::new(addr, app.parse()?, wire.parse()?, number)?;
    for command in std::io::stdin().lock().lines().map_while(Result::ok) {
        let given = client.obey(&command)?;
        let given: Vec<_> = given.iter().map(u64::to_string).collect();
        // Nobody listens any more when the measure has failed, which shows elsewhere.
        let _ = writeln!(std::io::stdout(), "done {}", given.join(" "));
    }
    Ok(())
}

struct Client {
    addr: SocketAddr,
    app: App,
    wire: Wire,
    /// Part of the addresses that it connects from, so that clients don't take each other's ports.
    number: u8,
    /// The last one is the publisher, where there is one.
    sockets: Vec<OwnedFd>,
    /// By socket: bytes it has got in this round.
    got: Vec<usize>,
    epoll: OwnedFd,
    events: Vec<Event>,
    buffer: Vec<u8>,
    round: usize,
    /// The connection whose turn it is to say something.
    next: usize,
}

impl Client {
    fn new(addr: SocketAddr, app: App, wire: Wire, number: u8) -> Result<Self, String> {
        Ok(Client {
            addr,
            app,
            wire,
            number,
            sockets: Vec::new(),
            got: Vec::new(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|errno| format!("epoll: {errno}"))?,
            events: Vec::with_capacity(1024),
            buffer: vec![0; 256 * 1024],
            round: 0,
            next: 0,
        })
    }

    /// Carries out a command; the figures it gives.
    fn obey(&mut self, command: &str) -> Result<Vec<u64>, String> {
        let mut words = command.split(' ');
        let verb = words.next().unwrap_or_default();
        let numbers: Vec<usize> = words.filter_map(|word| word.parse().ok()).collect();
        let millis = |number: usize| Duration::from_millis(number as u64);
        match (verb, &numbers[..]) {
            ("connect", [connections]) => self.connect(*connections).map(|()| vec![self.sockets.len() as u64]),
            ("close", []) => {
                self.sockets.clear();
                self.got.clear();
                Ok(Vec::new())
            }
            ("publish", [messages]) => self.publish(*messages).map(|nanos| vec![nanos]),
            ("publisher", []) => self.open_publisher().map(|()| Vec::new()),
            ("push", [bytes, is_chat]) => self.push(*bytes, *is_chat != 0).map(Vec::from),
            ("echo", [span]) => self.echo(millis(*span)).map(Vec::from),
            ("ping", [pings, span]) => self.ping(*pings, millis(*span)).map(|()| Vec::new()),
            _ => Err(format!("`{command}` is no command")),
        }
    }

    /// Opens connections. Those to a hub each subscribe, and over the line framing one more is there to publish.
    fn connect(&mut self, connections: usize) -> Result<(), String> {
        while self.sockets.len() < connections {
            let from = self.sockets.len();
            for index in from..connections.min(from + CONNECT_BATCH) {
                self.open(index)?;
                if self.app == App::Hub {
                    self.send(index, &self.wire.subscribe())?;
                }
            }
            if self.app == App::Hub {
                self.confirm(from)?;
            }
        }
        if self.app == App::Hub && self.wire == Wire::Line {
            self.open(connections)?;
        }
        Ok(())
    }

    fn open(&mut self, index: usize) -> Result<(), String> {
        let group = u8::try_from(1 + index / CONNECTIONS_PER_ADDRESS).map_err(|_| "too many connections")?;
        let local = SocketAddr::from((Ipv4Addr::new(127, 1, self.number, group), 0));
        let open = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&local.into())?;
            socket.set_tcp_nodelay(true)?;
            // Closed at once: a connection in TIME_WAIT would keep its port from the next round.
            socket.set_linger(Some(Duration::ZERO))?;
            socket.connect(&self.addr.into())?;
            Ok(socket)
        };
        let socket = OwnedFd::from(open().map_err(|error: std::io::Error| format!("connection {index}: {error}"))?);
        epoll::add(&self.epoll, &socket, EventData::new_u64(index as u64), EventFlags::IN)
            .map_err(|errno| format!("epoll: {errno}"))?;
        self.sockets.push(socket);
        self.got.push(0);
        Ok(())
    }

    /// Waits until the connections from the number `from` on are told that they are subscribed.
    fn confirm(&mut self, from: usize) -> Result<(), String> {
        let mut answers = vec![Vec::new(); self.sockets.len() - from];
        let mut missing = answers.len();
        while missing > 0 {
            for index in self.wait(PATIENCE)? {
                let n = self.receive(index)?;
                let answer = answers.get_mut(index.wrapping_sub(from));
                let answer = answer.ok_or_else(|| format!("connection {index} got something out of turn"))?;
                answer.extend_from_slice(&self.buffer[..n]);
                if n > 0 && self.wire.is_subscribed(answer) {
                    missing -= 1;
                }
            }
        }
        Ok(())
    }

    fn send(&self, index: usize, bytes: &[u8]) -> Result<(), String> {
        send_all(&self.sockets[index], bytes).map_err(|errno| format!("connection {index} can't send: {errno}"))
    }

    /// Waits for events; the number of each socket that has something.
    fn wait(&mut self, patience: Duration) -> Result<Vec<usize>, String> {
        let ready = self.poll(patience)?;
        if ready.is_empty() { Err(format!("nothing came for {} s", patience.as_secs())) } else { Ok(ready) }
    }

    /// Waits for events until the time is over.
    fn poll(&mut self, span: Duration) -> Result<Vec<usize>, String> {
        let end = Instant::now() + span;
        loop {
            self.events.clear();
            let left = Timespec::try_from(end.saturating_duration_since(Instant::now()));
            let left = left.map_err(|_| "the time to wait is too long")?;
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&left)) {
                Ok(_) => return Ok(self.events.iter().map(|event| event.data.u64() as usize).collect()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(format!("epoll: {errno}")),
            }
        }
    }

    /// Reads once. The bytes are at the beginning of the buffer.
    fn receive(&mut self, index: usize) -> Result<usize, String> {
        match rustix::net::recv(&self.sockets[index], &mut self.buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err(format!("connection {index} was closed by the server")),
            Ok((n, _)) => Ok(n),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(errno) => Err(format!("connection {index}: {errno}")),
        }
    }

    /// Takes what came in on a socket. It must go on with `expected`, which is what this socket gets in this round.
    fn take(&mut self, index: usize, expected: &[u8]) -> Result<usize, String> {
        let n = self.receive(index)?;
        let got = self.got[index];
        if expected.get(got..got + n) != Some(&self.buffer[..n]) {
            let came = self.buffer[..n.min(200)].escape_ascii();
            return Err(format!("after {got} of {} bytes, connection {index} got {came}", expected.len()));
        }
        self.got[index] += n;
        Ok(n)
    }

    /// Publishes messages in one write. The nanoseconds until every subscriber has got them, and the publisher its
    /// answers.
    fn publish(&mut self, messages: usize) -> Result<u64, String> {
        if self.wire != Wire::Line {
            return Err("messages are published over the line framing alone".into());
        }
        self.round += 1;
        let (mut publishes, mut expected) = (String::new(), String::new());
        for number in 0..messages {
            let payload = format!("{} {number} {}", self.round, "x".repeat(PAYLOAD_BYTES));
            let payload = &payload[..PAYLOAD_BYTES];
            publishes += &format!("PUB {TOPIC} {payload}\n");
            expected += &format!("MSG {TOPIC} {payload}\n");
        }
        let publisher = self.sockets.len() - 1;
        let mut missing = publisher * expected.len();
        let mut answers = Vec::new();
        let answered = |answers: &[u8]| answers.iter().filter(|byte| **byte == b'\n').count();
        let started = Instant::now();
        self.send(publisher, publishes.as_bytes())?;
        while missing > 0 || answered(&answers) < messages {
            for index in self.wait(PATIENCE)? {
                if index < publisher {
                    missing -= self.take(index, expected.as_bytes())?;
                } else {
                    let n = self.receive(index)?;
                    answers.extend_from_slice(&self.buffer[..n]);
                }
            }
        }
        let took = started.elapsed();
        if let Some(answer) =
            answers.trim_ascii().split(|byte| *byte == b'\n').find(|line| !line.starts_with(b"OK PUB"))
        {
            return Err(format!("a publish was answered with {}", answer.escape_ascii()));
        }
        self.got.fill(0);
        Ok(took.as_nanos() as u64)
    }

    /// Opens the WebSocket that publishes.
    fn open_publisher(&mut self) -> Result<(), String> {
        let publisher = self.sockets.len();
        self.open(publisher)?;
        self.send(publisher, &self.wire.upgrade("/ws"))?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            for index in self.wait(PATIENCE)? {
                let n = self.receive(index)?;
                answer.extend_from_slice(&self.buffer[..n]);
            }
        }
        Ok(())
    }

    /// Publishes JSON of about so many bytes, or over the line framing a line with which each subscriber gets just so many.
    /// The nanoseconds until every subscriber has got it, and the publisher its answer, and what one got: bytes as they
    /// came, and the message's.
    fn push(&mut self, bytes: usize, is_chat: bool) -> Result<[u64; 3], String> {
        self.round += 1;
        let payload = match self.wire {
            Wire::Line => "x".repeat(bytes.saturating_sub(format!("MSG {TOPIC} \n").len())),
            _ if is_chat => json::chat(bytes, self.round as u64),
            _ => json::market(bytes, self.round as u64),
        };
        let message = format!("MSG {TOPIC} {payload}");
        let publisher = self.sockets.len() - 1;
        let (mut expected, mut first) = (self.wire.served(message.as_bytes()), Vec::new());
        let mut missing = publisher;
        let mut answer = Vec::new();
        let publish = self.wire.frame(format!("PUB {TOPIC} {payload}").as_bytes());
        let started = Instant::now();
        self.send(publisher, &publish)?;
        while missing > 0 || answer.is_empty() {
            for index in self.wait(PATIENCE)? {
                if index == publisher {
                    let n = self.receive(index)?;
                    answer.extend_from_slice(&self.buffer[..n]);
                    continue;
                }
                if let Some(expected) = &expected {
                    self.take(index, expected)?;
                } else if first.is_empty() || self.got[index] > 0 {
                    // What the others get shows when one has got it all.
                    let n = self.receive(index)?;
                    self.got[index] += n;
                    first.extend_from_slice(&self.buffer[..n]);
                    expected = check_frame(&first, message.as_bytes())?.then(|| first.clone());
                }
                let is_whole = expected.as_ref().is_some_and(|expected| self.got[index] == expected.len());
                missing -= usize::from(is_whole);
            }
        }
        let took = started.elapsed();
        if answer.windows(6).all(|word| word != b"OK PUB") {
            return Err(format!("a publish was answered with {}", answer.escape_ascii()));
        }
        self.got.fill(0);
        let bytes = expected.map_or(0, |expected| expected.len());
        Ok([took.as_nanos() as u64, bytes as u64, message.len() as u64])
    }

    /// Sends on every connection, and again on each as soon as its message is back, for so long.
    fn echo(&mut self, span: Duration) -> Result<[u64; 3], String> {
        let message = self.wire.frame("x".repeat(PAYLOAD_BYTES - 1).as_bytes());
        let (mut within, mut late) = (0, 0);
        let started = Instant::now();
        for index in 0..self.sockets.len() {
            self.send(index, &message)?;
        }
        let mut took = None;
        while late < self.sockets.len() as u64 {
            for index in self.wait(PATIENCE)? {
                self.take(index, &message)?;
                if self.got[index] < message.len() {
                    continue;
                }
                self.got[index] = 0;
                if took.is_some() {
                    late += 1;
                } else {
                    within += 1;
                    self.send(index, &message)?;
                }
            }
            if took.is_none() && started.elapsed() >= span {
                took = Some(started.elapsed());
            }
        }
        Ok([within, took.unwrap_or_default().as_nanos() as u64, within + late])
    }

    /// Sends PINGs, each on the next connection, evenly over the time, and waits for all answers.
    fn ping(&mut self, pings: usize, span: Duration) -> Result<(), String> {
        let (ping, pong) = (self.wire.frame(b"PING"), self.wire.frame(b"PONG"));
        let (mut sent, mut missing) = (0, pings * pong.len());
        let started = Instant::now();
        while missing > 0 {
            while sent < pings && started.elapsed() >= span * sent as u32 / pings as u32 {
                self.send(self.next, &ping)?;
                self.next = (self.next + 1) % self.sockets.len();
                sent += 1;
            }
            let ready = if sent < pings {
                self.poll((span * sent as u32 / pings as u32).saturating_sub(started.elapsed()))?
            } else {
                self.wait(PATIENCE)?
            };
            for index in ready {
                missing -= self.take(index, &pong)?;
                if self.got[index] == pong.len() {
                    self.got[index] = 0;
                }
            }
        }
        Ok(())
    }
}

/// Whether a server's frame has come whole; it must hold the message, compressed or not.
fn check_frame(bytes: &[u8], message: &[u8]) -> Result<bool, String> {
    let Some((is_compressed, payload)) = served_frame(bytes) else { return Ok(false) };
    let mut inflated = vec![0; message.len()];
    let mut inflate = zlib_rs::Inflate::new(false, 15);
    if is_compressed {
        // It ends with the flush of its compressor, which is left out.
        let whole = [payload, &[0, 0, 0xff, 0xff]].concat();
        let done = inflate.decompress(&whole, &mut inflated, zlib_rs::InflateFlush::SyncFlush);
        done.map_err(|error| format!("a message is compressed wrongly: {error:?}"))?;
    }
    let got = if is_compressed { &inflated[..inflate.total_out() as usize] } else { payload };
    if got == message { Ok(true) } else { Err(format!("a message came as {}", got.escape_ascii())) }
}

/// Sends all bytes without waiting; a socket that does not take them is an error.
pub(crate) fn send_all(socket: impl AsFd, bytes: &[u8]) -> Result<(), Errno> {
    match rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(n) if n == bytes.len() => Ok(()),
        Ok(_) => Err(Errno::AGAIN),
        Err(errno) => Err(errno),
    }
}
