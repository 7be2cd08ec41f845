//! The client process that publishes by HTTP, on a core of its own: connections that are kept, on each of which as many
//! requests are on their way as is asked for, and a subscriber that counts what comes.

use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::PATIENCE;
use super::client::send_all;
use super::process;
use super::wire::{TOPIC, Wire};

/// Bytes of a published payload.
const PAYLOAD_BYTES: usize = 128;

/// Runs as the client. The words: where to publish, and where to subscribe, or `-`. Commands come in by stdin.
pub(crate) fn run(words: impl Iterator<Item = String>) -> Result<(), String> {
    let words: Vec<String> = words.collect();
    let [to, listen] = &words[..] else { return Err(format!("not a publisher: {words:?}")) };
    let parse = |addr: &str| addr.parse::<SocketAddr>().map_err(|_| format!("`{addr}` is no address"));
    process::settle_on(process::cpus()?.1)?;
    let subscriber = if listen == "-" { None } else { Some(Subscriber::connect(parse(listen)?)?) };
    let mut poster = Poster { to: parse(to)?, subscriber, connections: Vec::new(), buffer: vec![0; 1 << 20] };
    for command in std::io::stdin().lock().lines().map_while(Result::ok) {
        let given = poster.obey(&command)?;
        let given: Vec<_> = given.iter().map(u64::to_string).collect();
        // Nobody listens any more when the measure has failed, which shows elsewhere.
        let _ = writeln!(std::io::stdout(), "done {}", given.join(" "));
    }
    Ok(())
}

struct Poster {
    to: SocketAddr,
    subscriber: Option<Subscriber>,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
}

/// A connection to the control plane.
struct Connection {
    stream: TcpStream,
    /// What has come of answers that are not whole.
    tail: Vec<u8>,
    /// Requests without an answer.
    waiting: usize,
}

/// What is sent again and again, and what each part of it publishes.
struct Requests {
    bytes: Vec<u8>,
    count: usize,
    /// Messages of one request.
    messages: usize,
}

impl Poster {
    /// Carries out a command; the figures it gives.
    fn obey(&mut self, command: &str) -> Result<Vec<u64>, String> {
        let mut words = command.split(' ');
        let verb = words.next().unwrap_or_default();
        let numbers: Vec<usize> = words.filter_map(|word| word.parse().ok()).collect();
        match (verb, &numbers[..]) {
            ("connect", [count]) => self.connect(*count).map(|()| vec![*count as u64]),
            ("post", [depth, millis]) => self.publish(&single(*depth), *millis),
            ("batch", [lines, millis]) => self.publish(&batch(*lines), *millis),
            _ => Err(format!("`{command}` is no command")),
        }
    }

    fn connect(&mut self, count: usize) -> Result<(), String> {
        for _ in 0..count {
            let stream = TcpStream::connect(self.to).map_err(|error| format!("can't connect: {error}"))?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            self.connections.push(Connection { stream, tail: Vec::new(), waiting: 0 });
        }
        Ok(())
    }

    /// Sends the requests on every connection, and again on each as soon as all are answered, for so long. How many
    /// messages were answered within the time, the nanoseconds that it was, and how many messages in all.
    fn publish(&mut self, requests: &Requests, millis: usize) -> Result<Vec<u64>, String> {
        let span = Duration::from_millis(millis as u64);
        let started = Instant::now();
        let mut within = 0;
        let mut took = None;
        let mut all = 0;
        for connection in &mut self.connections {
            connection.send(requests)?;
        }
        while self.connections.iter().any(|connection| connection.waiting > 0) {
            self.wait()?;
            for connection in &mut self.connections {
                let answered = connection.take(&mut self.buffer)? * requests.messages;
                all += answered;
                within += if took.is_none() { answered } else { 0 };
                if connection.waiting == 0 && took.is_none() {
                    connection.send(requests)?;
                }
            }
            if let Some(subscriber) = &mut self.subscriber {
                subscriber.take(&mut self.buffer)?;
            }
            if took.is_none() && started.elapsed() >= span {
                took = Some(started.elapsed());
            }
        }
        if let Some(subscriber) = &mut self.subscriber {
            subscriber.expect(all, &mut self.buffer)?;
        }
        Ok(vec![within as u64, took.unwrap_or_default().as_nanos() as u64, all as u64])
    }

    /// Waits until something has come.
    fn wait(&self) -> Result<(), String> {
        let sockets = self.connections.iter().map(|connection| &connection.stream);
        let sockets = sockets.chain(self.subscriber.iter().map(|subscriber| &subscriber.stream));
        let mut polled: Vec<_> = sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        match poll(&mut polled, Some(&patience)) {
            Ok(0) => Err(format!("nothing came for {} s", PATIENCE.as_secs())),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(format!("poll: {errno}")),
        }
    }
}

impl Connection {
    fn send(&mut self, requests: &Requests) -> Result<(), String> {
        self.stream.write_all(&requests.bytes).map_err(|error| format!("a request can't be sent: {error}"))?;
        self.waiting = requests.count;
        Ok(())
    }

    /// Takes the answers that have come; how many they are.
    fn take(&mut self, buffer: &mut [u8]) -> Result<usize, String> {
        let n = receive(&self.stream, buffer)?;
        self.tail.extend_from_slice(&buffer[..n]);
        let (mut used, mut answers) = (0, 0);
        while let Some(end) = answer(&self.tail[used..])? {
            used += end;
            answers += 1;
        }
        self.tail.drain(..used);
        self.waiting = self.waiting.checked_sub(answers).ok_or("there are more answers than requests")?;
        Ok(answers)
    }
}

/// The bytes of the answer that some begin with, if it is whole.
fn answer(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let (Some(length), "2") =
        (length, head.get("http/1.1 ".len()..).and_then(|rest| rest.get(..1)).unwrap_or_default())
    else {
        return Err(format!("a publish was answered with {}", bytes[..bytes.len().min(400)].escape_ascii()));
    };
    let end = end + 4 + length;
    if bytes.len() < end {
        return Ok(None);
    }
    if memchr::memmem::find(&bytes[end - length..end], b"\"code\"").is_some() {
        return Err("a line of a batch was refused".into());
    }
    Ok(Some(end))
}

/// One message a request.
fn single(depth: usize) -> Requests {
    let head = format!(
        "POST /v1/topics/{TOPIC}/messages HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\
         Content-Type: text/plain\r\nContent-Length: {PAYLOAD_BYTES}\r\n\r\n"
    );
    let request = [head.as_bytes(), &[b'x'; PAYLOAD_BYTES]].concat();
    Requests { bytes: request.repeat(depth), count: depth, messages: 1 }
}

/// One request for many messages.
fn batch(lines: usize) -> Requests {
    let line = format!("{{\"topic\":\"{TOPIC}\",\"payload\":\"{}\"}}\n", "x".repeat(PAYLOAD_BYTES));
    let body = line.repeat(lines);
    let head = format!(
        "POST /v1/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    Requests { bytes: (head + &body).into_bytes(), count: 1, messages: lines }
}

/// One that gets all that is published.
struct Subscriber {
    stream: TcpStream,
    /// Messages that have come and were not expected yet.
    came: usize,
}

impl Subscriber {
    fn connect(to: SocketAddr) -> Result<Self, String> {
        let connect = || {
            let mut stream = TcpStream::connect(to)?;
            send_all(&stream, &Wire::Line.subscribe())?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                answer.extend_from_slice(&byte);
            }
            Ok((stream, answer))
        };
        let (stream, answer) = connect().map_err(|error: std::io::Error| format!("can't subscribe: {error}"))?;
        if !Wire::Line.is_subscribed(&answer) {
            return Err(format!("the subscriber was told {}", answer.escape_ascii()));
        }
        Ok(Subscriber { stream, came: 0 })
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<(), String> {
        let n = receive(&self.stream, buffer)?;
        if memchr::memmem::find(&buffer[..n], b"GAP").is_some() {
            return Err("the subscriber misses messages".into());
        }
        self.came += memchr::memchr_iter(b'\n', &buffer[..n]).count();
        Ok(())
    }

    /// Waits until so many messages have come.
    fn expect(&mut self, messages: usize, buffer: &mut [u8]) -> Result<(), String> {
        let started = Instant::now();
        while self.came < messages {
            if started.elapsed() > PATIENCE {
                return Err(format!("of {messages} messages, {} came", self.came));
            }
            let polled = PollFd::new(&self.stream, PollFlags::IN);
            let step = Timespec { tv_sec: 1, tv_nsec: 0 };
            let _ = poll(&mut [polled], Some(&step));
            self.take(buffer)?;
        }
        self.came -= messages;
        Ok(())
    }
}

/// Reads once what is there.
fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<usize, String> {
    match recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
        Ok((0, _)) => Err("a connection was closed by the server".into()),
        Ok((n, _)) => Ok(n),
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(errno) => Err(format!("a connection broke: {errno}")),
    }
}
