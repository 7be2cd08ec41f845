//! The floors: what the server's work costs when a program does nothing but the system calls.
//!
//! Each is one thread with a level-triggered epoll, on the core that the server has in its turn.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use socket2::{Domain, Socket, Type};

use crate::client::send_all;
use crate::process;

/// The number under which epoll knows the listener; connections have lower ones.
const LISTENER: u64 = u64::MAX;

const BACKLOG: i32 = 4096;

/// Runs as the floor of the app that the first word names.
pub(crate) fn run(mut words: impl Iterator<Item = String>) -> Result<(), String> {
    let app = words.next().unwrap_or_default();
    process::settle_on(process::cpus()?.0)?;
    let floor = Floor::listen().map_err(|error| format!("can't listen: {error}"))?;
    match app.as_str() {
        "hub" => floor.run(Hub::default()),
        "echo" => floor.run(Echo),
        _ => Err(format!("`{app}` has no floor")),
    }
}

/// What is done with the bytes that came in on a connection.
trait Answer {
    fn answer(&mut self, connections: &[OwnedFd], from: usize, bytes: &[u8]) -> Result<(), Errno>;
}

/// Sends everything back.
struct Echo;

impl Answer for Echo {
    fn answer(&mut self, connections: &[OwnedFd], from: usize, bytes: &[u8]) -> Result<(), Errno> {
        send_all(&connections[from], bytes)
    }
}

/// Subscribes whoever sends `SUB`, and sends what follows each `PUB` to all of them: one `send` for each socket,
/// however many messages came in at once.
#[derive(Default)]
struct Hub {
    subscribers: Vec<usize>,
}

impl Answer for Hub {
    fn answer(&mut self, connections: &[OwnedFd], from: usize, bytes: &[u8]) -> Result<(), Errno> {
        // The client sends a burst in one write, so that it comes in at once, whole.
        assert!(bytes.ends_with(b"\n"), "a read of the floor ends within a line");
        let (mut answers, mut messages) = (Vec::new(), Vec::new());
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if let Some(rest) = line.strip_prefix(b"PUB") {
                messages.extend_from_slice(b"MSG");
                messages.extend_from_slice(rest);
                answers.extend_from_slice(b"OK PUB\n");
            } else {
                self.subscribers.push(from);
                answers.extend_from_slice(b"OK ");
                answers.extend_from_slice(line);
            }
        }
        if !messages.is_empty() {
            for subscriber in &self.subscribers {
                send_all(&connections[*subscriber], &messages)?;
            }
        }
        send_all(&connections[from], &answers)
    }
}

struct Floor {
    listener: Socket,
    connections: Vec<OwnedFd>,
    epoll: OwnedFd,
}

impl Floor {
    fn listen() -> std::io::Result<Self> {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        // Connections inherit it, as the server's do.
        listener.set_tcp_nodelay(true)?;
        listener.listen(BACKLOG)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        if let Some(addr) = listener.local_addr()?.as_socket() {
            eprintln!("ready: {addr}");
        }
        Ok(Floor { listener, connections: Vec::new(), epoll })
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
                    self.accept().map_err(|error| format!("can't accept: {error}"))?;
                    continue;
                }
                let from = number as usize;
                match rustix::net::recv(&self.connections[from], &mut buffer[..], RecvFlags::DONTWAIT) {
                    Ok((0, _)) => return Ok(()),
                    Ok((n, _)) => app
                        .answer(&self.connections, from, &buffer[..n])
                        .map_err(|errno| format!("a socket does not take its messages: {errno}"))?,
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    // The measure is over.
                    Err(_) => return Ok(()),
                }
            }
        }
    }

    fn accept(&mut self) -> std::io::Result<()> {
        let connection = OwnedFd::from(self.listener.accept()?.0);
        let number = EventData::new_u64(self.connections.len() as u64);
        epoll::add(&self.epoll, &connection, number, EventFlags::IN)?;
        self.connections.push(connection);
        Ok(())
    }
}
