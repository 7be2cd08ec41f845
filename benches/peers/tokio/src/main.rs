//! A push server of the classic shape on tokio, to compare with: one thread, a task for each connection, and an mpsc of
//! 64 messages before it. It speaks the lines that the load generator needs: SUB, PUB, PING; with `--echo` it sends back
//! what it gets. A buffer lives only while bytes are under way.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memchr;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::LocalSet;

const QUEUE_MESSAGES: usize = 64;
const LINE_BYTES_MAX: usize = 64 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
const READ_BYTES: usize = 16 * 1024;

/// Subscribers by the number of their connection.
type Subscribers = HashMap<u64, Sender<Bytes>>;

#[derive(Default)]
struct Hub {
    topics: RefCell<HashMap<Vec<u8>, Subscribers>>,
    echo: bool,
}

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let (mut listen, mut hub) = ("127.0.0.1:8888".to_owned(), Hub::default());
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.len()) {
            ("--echo", _) => hub.echo = true,
            ("--listen", 1..) => listen = args.next().unwrap_or_default(),
            _ => return Err(io::Error::other("usage: corecast-peer-tokio [--listen ADDR] [--echo]")),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(&listen, Rc::new(hub)))
}

async fn serve(listen: &str, hub: Rc<Hub>) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    eprintln!("ready: {}", listener.local_addr()?);
    let mut number = 0;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, for example; others leave in time.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        number += 1;
        let hub = hub.clone();
        tokio::task::spawn_local(async move {
            let (sender, queue) = mpsc::channel(QUEUE_MESSAGES);
            let mut topics = Vec::new();
            // How a client leaves makes no difference.
            let _ = hub.connection(number, stream, sender, queue, &mut topics).await;
            hub.leave(number, &topics);
        });
    }
}

impl Hub {
    async fn connection(
        &self,
        number: u64,
        mut stream: TcpStream,
        sender: Sender<Bytes>,
        mut queue: Receiver<Bytes>,
        topics: &mut Vec<Vec<u8>>,
    ) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut tail = BytesMut::new();
        let mut replies = BytesMut::new();
        loop {
            tokio::select! {
                ready = stream.readable() => {
                    ready?;
                    if !self.read(number, &stream, &sender, &mut tail, &mut replies, topics)? {
                        return Ok(());
                    }
                }
                Some(message) = queue.recv() => {
                    if queue.is_empty() {
                        stream.write_all(&message).await?;
                    } else {
                        // What has gathered meanwhile goes out in one system call.
                        let mut batch = BytesMut::from(message);
                        while let Ok(message) = queue.try_recv() {
                            batch.put(message);
                        }
                        stream.write_all(&batch).await?;
                    }
                }
            }
            if !replies.is_empty() {
                stream.write_all(&std::mem::take(&mut replies)).await?;
            }
        }
    }

    /// Reads what is there and carries it out; `false` if the client has left. The buffer is on the stack of this
    /// function, so that no waiting task holds one.
    fn read(
        &self,
        number: u64,
        stream: &TcpStream,
        sender: &Sender<Bytes>,
        tail: &mut BytesMut,
        replies: &mut BytesMut,
        topics: &mut Vec<Vec<u8>>,
    ) -> io::Result<bool> {
        let mut buffer = [0; READ_BYTES];
        let mut bytes = match stream.try_read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(count) => &buffer[..count],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        };
        while let Some(end) = memchr(b'\n', bytes) {
            if tail.is_empty() {
                self.command(number, &bytes[..end], sender, replies, topics);
            } else {
                let mut line = std::mem::take(tail);
                line.extend_from_slice(&bytes[..end]);
                self.command(number, &line, sender, replies, topics);
            }
            bytes = &bytes[end + 1..];
        }
        tail.extend_from_slice(bytes);
        Ok(tail.len() <= LINE_BYTES_MAX)
    }

    fn command(
        &self,
        number: u64,
        line: &[u8],
        sender: &Sender<Bytes>,
        replies: &mut BytesMut,
        topics: &mut Vec<Vec<u8>>,
    ) {
        let (verb, rest) = split_word(line);
        match verb {
            _ if self.echo => put_line(replies, &[line]),
            b"SUB" => {
                self.topics.borrow_mut().entry(rest.to_vec()).or_default().insert(number, sender.clone());
                topics.push(rest.to_vec());
                put_line(replies, &[b"OK SUB ", rest]);
            }
            b"PUB" => {
                let mut message = BytesMut::with_capacity(rest.len() + 5);
                put_line(&mut message, &[b"MSG ", rest]);
                self.publish(split_word(rest).0, message.freeze());
                put_line(replies, &[b"OK PUB 1"]);
            }
            b"PING" => put_line(replies, &[b"PONG"]),
            _ => put_line(replies, &[b"ERR unknown-verb ", verb]),
        }
    }

    /// Never waits: a client whose queue is full misses the message.
    fn publish(&self, topic: &[u8], message: Bytes) {
        if let Some(clients) = self.topics.borrow().get(topic) {
            for client in clients.values() {
                let _ = client.try_send(message.clone());
            }
        }
    }

    fn leave(&self, number: u64, left: &[Vec<u8>]) {
        let mut topics = self.topics.borrow_mut();
        for topic in left {
            if let Some(clients) = topics.get_mut(topic) {
                clients.remove(&number);
                if clients.is_empty() {
                    topics.remove(topic);
                }
            }
        }
    }
}

fn split_word(text: &[u8]) -> (&[u8], &[u8]) {
    match memchr(b' ', text) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[]),
    }
}

fn put_line(out: &mut BytesMut, parts: &[&[u8]]) {
    for part in parts {
        out.put_slice(part);
    }
    out.put_u8(b'\n');
}
