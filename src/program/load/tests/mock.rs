//! A server of one thread a connection that can be told to misbehave.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::load::dialect::Framing;
use crate::load::dialect::{Dialect, split_word};

/// The message that a fault hits: the fourth of a connection, or the fourth that is published.
const FAULTY: u32 = 3;

/// What the server does with messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum App {
    Hub,
    Echo,
}

/// What the server does wrong, once, to one subscriber (or to each connection of an echo).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    Lose,
    /// Loses the tenth message.
    LoseLast,
    LoseWithGap,
    /// The same, but the GAP is for topic `*`.
    LoseWithGapOfAll,
    Duplicate,
    /// Sends a message behind the one that follows it.
    Reorder,
    Corrupt,
    /// Refuses a publish for lack of room.
    Busy,
    /// Refuses all publishes.
    Forbidden,
    /// Sends each message in two pieces.
    Pieces,
    /// Closes one subscriber.
    CloseOne,
    CloseAfterSubscribe,
    /// Does not close when a client has shut down.
    KeepOpen,
    /// Closes that many connections before it serves one.
    RefuseFirst(u32),
}

pub(super) struct Mock {
    pub(super) addr: SocketAddr,
    hub: Arc<Hub>,
}

struct Hub {
    dialect: Dialect,
    app: App,
    fault: Fault,
    state: Mutex<State>,
    published: Condvar,
}

#[derive(Default)]
struct State {
    subscribers: Vec<TcpStream>,
    /// Publishes but for the first one, which is the publisher's probe.
    published: u32,
    is_probed: bool,
    /// What is to be sent late to the first subscriber.
    kept: Vec<u8>,
}

impl Mock {
    /// Serves on a free port until the test process ends.
    pub(super) fn start(framing: Framing, app: App, fault: Fault) -> Mock {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let hub = Arc::new(Hub {
            dialect: Dialect { framing },
            app,
            fault,
            state: Mutex::default(),
            published: Condvar::new(),
        });
        let serving = hub.clone();
        thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                if matches!(fault, Fault::RefuseFirst(count) if (index as u64) < u64::from(count)) {
                    continue;
                }
                let hub = serving.clone();
                thread::spawn(move || hub.serve(stream.unwrap()));
            }
        });
        Mock { addr, hub }
    }

    pub(super) fn wait_for_publishes(&self, count: u32) {
        let state = self.hub.state.lock().unwrap();
        drop(self.hub.published.wait_while(state, |state| state.published < count).unwrap());
    }
}

impl Hub {
    /// Until the client closes, or breaks off.
    fn serve(&self, mut stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        let mut received = 0;
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..count]);
            while let Some((range, used)) = self.dialect.decode(&bytes).unwrap() {
                let message = bytes[range].to_vec();
                bytes.drain(..used);
                match self.app {
                    App::Echo => self.echo(&mut stream, &message, received),
                    App::Hub => self.command(&mut stream, &message),
                }
                received += 1;
            }
        }
        if self.fault != Fault::KeepOpen {
            // The subscribers hold the stream, too. A client that has broken off is gone already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn send(&self, stream: &mut TcpStream, message: &[u8]) {
        let frame = self.dialect.echo(message).bytes;
        let (first, rest) = frame.split_at(if self.fault == Fault::Pieces { frame.len() / 2 } else { 0 });
        // A client that has left doesn't concern the server.
        let _ = stream.write_all(first).and_then(|()| stream.write_all(rest));
    }

    fn echo(&self, stream: &mut TcpStream, message: &[u8], number: u32) {
        match self.fault {
            Fault::Lose if number == FAULTY => {}
            Fault::Corrupt if number == FAULTY => self.send(stream, &corrupt(message)),
            Fault::Duplicate if number == FAULTY => {
                self.send(stream, message);
                self.send(stream, message);
            }
            _ => self.send(stream, message),
        }
    }

    fn command(&self, stream: &mut TcpStream, message: &[u8]) {
        match split_word(message) {
            (b"SUB", topic) => {
                let mut state = self.state.lock().unwrap();
                self.send(stream, &[b"OK SUB ", topic].concat());
                if self.fault == Fault::CloseAfterSubscribe {
                    let _ = stream.shutdown(Shutdown::Both);
                }
                state.subscribers.push(stream.try_clone().unwrap());
            }
            (b"PUB", _) if self.fault == Fault::Forbidden => self.send(stream, b"ERR publish-forbidden not here"),
            (b"PUB", rest) => {
                let mut state = self.state.lock().unwrap();
                if !std::mem::replace(&mut state.is_probed, true) {
                    return self.send(stream, b"OK PUB 0");
                }
                let number = state.published;
                state.published += 1;
                self.published.notify_all();
                if self.fault == Fault::Busy && number == FAULTY {
                    return self.send(stream, b"ERR busy try again");
                }
                self.send(stream, format!("OK PUB {number}").as_bytes());
                self.fan_out(&mut state, rest, number);
            }
            (b"PING", _) => self.send(stream, b"PONG"),
            _ => self.send(stream, b"ERR unknown-verb no such verb"),
        }
    }

    fn fan_out(&self, state: &mut State, topic_and_payload: &[u8], number: u32) {
        let message = [b"MSG ", topic_and_payload].concat();
        let topic = split_word(topic_and_payload).0;
        let State { subscribers, kept, .. } = state;
        let Some((first, others)) = subscribers.split_first_mut() else { return };
        for subscriber in others {
            self.send(subscriber, &message);
        }
        let is_faulty = number == if self.fault == Fault::LoseLast { 9 } else { FAULTY };
        match self.fault {
            Fault::Lose | Fault::LoseLast if is_faulty => {}
            Fault::LoseWithGap if is_faulty => self.send(first, &[b"GAP ", topic, b" 1 queue-full"].concat()),
            Fault::LoseWithGapOfAll if is_faulty => self.send(first, b"GAP * 1 queue-full"),
            Fault::Corrupt if is_faulty => self.send(first, &corrupt(&message)),
            Fault::Duplicate if is_faulty => {
                self.send(first, &message);
                self.send(first, &message);
            }
            Fault::Reorder if is_faulty => *kept = message,
            Fault::CloseOne if is_faulty => {
                self.send(first, b"BYE slow-consumer");
                let _ = first.shutdown(Shutdown::Both);
            }
            _ => {
                self.send(first, &message);
                if !kept.is_empty() {
                    self.send(first, &std::mem::take(kept));
                }
            }
        }
    }
}

/// The message with another last byte.
fn corrupt(message: &[u8]) -> Vec<u8> {
    let mut changed = message.to_vec();
    *changed.last_mut().unwrap() = b'!';
    changed
}
