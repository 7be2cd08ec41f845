//! The floors: what the server's work costs when a program does nothing but the system calls.
//!
//! Each is one thread with a level-triggered epoll, on the core that the server has in its turn. It writes
//! `ready: ADDRESS` to stderr once it listens, and ends with the process that started it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use socket2::{Domain, Socket, TcpKeepalive, Type};

use super::client::send_all;
use super::process::{self, App};

/// The number under which epoll knows the listener; connections have those of their descriptors.
const LISTENER: u64 = u64::MAX;

/// Connections that may wait to be accepted, as at the server.
pub(crate) const BACKLOG: usize = 4096;

/// As the server sets it.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Runs as the floor of the app that the first word names.
pub(crate) fn run(mut words: impl Iterator<Item = String>) -> Result<(), String> {
    let app = words.next().unwrap_or_default().parse()?;
    process::raise_open_files()?;
    process::settle_on(process::cpus()?.0)?;
    if app == App::Publish {
        return super::hyper::run();
    }
    let floor = Floor::listen().map_err(|error| format!("can't listen: {error}"))?;
    match app {
        App::Hub => floor.run(Hub::default()),
        App::Echo => floor.run(Echo),
        App::Hold | App::Publish => floor.run(Hold),
        App::Topics => floor.run(Topics::default()),
    }
}

/// What is done with the bytes that came in on a connection.
trait Answer {
    fn answer(&mut self, connections: &Connections, from: usize, bytes: &[u8]) -> Result<(), String>;
}

/// Sends everything back.
struct Echo;

impl Answer for Echo {
    fn answer(&mut self, connections: &Connections, from: usize, bytes: &[u8]) -> Result<(), String> {
        connections.send(from, bytes)
    }
}

/// Has connections, and nothing to say.
struct Hold;

impl Answer for Hold {
    fn answer(&mut self, _: &Connections, _: usize, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// Subscribes whoever sends `SUB`, answers `PING`, and sends what follows each `PUB` to all subscribers: one `send`
/// for each socket, however many messages came in at once.
#[derive(Default)]
struct Hub {
    subscribers: Vec<usize>,
}

impl Answer for Hub {
    fn answer(&mut self, connections: &Connections, from: usize, bytes: &[u8]) -> Result<(), String> {
        // The client sends a burst in one write, so that it comes in at once, whole.
        if !bytes.ends_with(b"\n") {
            return Err("a read ended within a line, which the floor can't go on with".into());
        }
        let (mut answers, mut messages) = (Vec::new(), Vec::new());
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if let Some(rest) = line.strip_prefix(b"PUB") {
                messages.extend_from_slice(b"MSG");
                messages.extend_from_slice(rest);
                answers.extend_from_slice(b"OK PUB\n");
            } else if line == b"PING\n" {
                answers.extend_from_slice(b"PONG\n");
            } else {
                self.subscribers.push(from);
                answers.extend_from_slice(b"OK ");
                answers.extend_from_slice(line);
            }
        }
        if !messages.is_empty() {
            for subscriber in &self.subscribers {
                connections.send(*subscriber, &messages)?;
            }
        }
        connections.send(from, &answers)
    }
}

/// Passes on to the subscribers of topics what is published to these: reads what a socket holds, puts each message where it
/// goes, and then writes each socket once.
#[derive(Default)]
struct Topics {
    subscribers: HashMap<Vec<u8>, Vec<usize>>,
    /// By connection: what waits to be written.
    waiting: Vec<Vec<u8>>,
    /// Those for whom something waits.
    dirty: Vec<usize>,
    /// By connection: what has come of its next line.
    begun: HashMap<usize, Vec<u8>>,
    published: u64,
}

impl Topics {
    fn queue(waiting: &mut Vec<Vec<u8>>, dirty: &mut Vec<usize>, to: usize, parts: &[&[u8]]) {
        if waiting.len() <= to {
            waiting.resize_with(to + 1, Vec::new);
        }
        if waiting[to].is_empty() {
            dirty.push(to);
        }
        parts.iter().for_each(|part| waiting[to].extend_from_slice(part));
    }

    fn take_line(&mut self, from: usize, line: &[u8]) {
        let Topics { subscribers, waiting, dirty, published, .. } = self;
        if let Some(rest) = line.strip_prefix(b"PUB ") {
            let topic = rest.split(|byte| *byte == b' ').next().unwrap_or_default();
            for to in subscribers.get(topic).into_iter().flatten() {
                Self::queue(waiting, dirty, *to, &[b"MSG ", rest]);
            }
            *published += 1;
            Self::queue(waiting, dirty, from, &[b"OK PUB ", published.to_string().as_bytes(), b"\n"]);
        } else if let Some(topic) = line.strip_prefix(b"SUB ") {
            subscribers.entry(topic.trim_ascii_end().to_vec()).or_default().push(from);
            Self::queue(waiting, dirty, from, &[b"OK ", line]);
        } else {
            Self::queue(waiting, dirty, from, &[b"PONG\n"]);
        }
    }
}

impl Answer for Topics {
    fn answer(&mut self, connections: &Connections, from: usize, bytes: &[u8]) -> Result<(), String> {
        let mut held = self.begun.remove(&from).unwrap_or_default();
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let (mut whole, rest) = bytes.split_at(end);
        if !held.is_empty() && !whole.is_empty() {
            let first = whole.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            held.extend_from_slice(&whole[..first]);
            whole = &whole[first..];
            self.take_line(from, &std::mem::take(&mut held));
        }
        for line in whole.split_inclusive(|byte| *byte == b'\n') {
            self.take_line(from, line);
        }
        held.extend_from_slice(rest);
        if !held.is_empty() {
            self.begun.insert(from, held);
        }
        for to in self.dirty.drain(..) {
            // What a socket does not take at once is waited for: the floor has no outboxes.
            connections.send_whole(to, &self.waiting[to])?;
            self.waiting[to].clear();
        }
        Ok(())
    }
}

/// The open connections by the numbers of their descriptors.
#[derive(Default)]
struct Connections(Vec<Option<OwnedFd>>);

impl Connections {
    fn get(&self, number: usize) -> Option<&OwnedFd> {
        self.0.get(number)?.as_ref()
    }

    fn add(&mut self, number: usize, connection: OwnedFd) {
        if self.0.len() <= number {
            self.0.resize_with(number + 1, || None);
        }
        self.0[number] = Some(connection);
    }

    fn send(&self, to: usize, bytes: &[u8]) -> Result<(), String> {
        let Some(connection) = self.get(to) else { return Err("a subscriber is gone".into()) };
        send_all(connection, bytes).map_err(|errno| format!("a socket does not take its messages: {errno}"))
    }

    /// Sends all bytes, and waits until the socket has taken them.
    fn send_whole(&self, to: usize, mut bytes: &[u8]) -> Result<(), String> {
        let Some(connection) = self.get(to) else { return Err("a subscriber is gone".into()) };
        while !bytes.is_empty() {
            match rustix::net::send(connection, bytes, SendFlags::NOSIGNAL) {
                Ok(taken) => bytes = &bytes[taken..],
                Err(Errno::INTR) => {}
                Err(errno) => return Err(format!("a socket does not take its messages: {errno}")),
            }
        }
        Ok(())
    }
}

struct Floor {
    listener: Socket,
    connections: Connections,
    epoll: OwnedFd,
}

impl Floor {
    fn listen() -> std::io::Result<Self> {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        // Connections inherit the options, as the server's do.
        listener.set_tcp_nodelay(true)?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(3);
        listener.set_tcp_keepalive(&keepalive)?;
        listener.set_nonblocking(true)?;
        listener.listen(BACKLOG as i32)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        if let Some(addr) = listener.local_addr()?.as_socket() {
            eprintln!("ready: {addr}");
        }
        Ok(Floor { listener, connections: Connections::default(), epoll })
    }

    fn run(mut self, mut app: impl Answer) -> Result<(), String> {
        let mut events: Vec<Event> = Vec::with_capacity(1024);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(format!("epoll: {errno}")),
            }
            for event in &events {
                let number = event.data.u64();
                if number == LISTENER {
                    self.accept().map_err(|errno| format!("can't accept: {errno}"))?;
                    continue;
                }
                let from = number as usize;
                let Some(connection) = self.connections.get(from) else { continue };
                match rustix::net::recv(connection, &mut buffer[..], RecvFlags::DONTWAIT) {
                    Ok((n @ 1.., _)) => app.answer(&self.connections, from, &buffer[..n])?,
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    // Closing it takes it out of the epoll too.
                    Ok(_) | Err(_) => self.connections.0[from] = None,
                }
            }
        }
    }

    /// Accepts all that wait.
    fn accept(&mut self) -> Result<(), Errno> {
        loop {
            let connection = match rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC) {
                Ok(connection) => connection,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(errno) => return Err(errno),
            };
            let number = connection.as_raw_fd();
            epoll::add(&self.epoll, &connection, EventData::new_u64(number as u64), EventFlags::IN)?;
            self.connections.add(number as usize, connection);
        }
    }
}
