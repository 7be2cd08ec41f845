//! The client of a pipeline: one publisher that sends all that its socket takes, and one subscriber for each topic.
//!
//! It runs in a process of its own, on its own core, and checks every byte that comes in.

use std::io::BufRead;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fs::Timespec;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Socket, Type};

use super::PATIENCE;
use super::process;

/// The first word that makes a bench's program this client.
pub(crate) const ROLE: &str = "--pipeline";

/// Bytes of a message's payload.
pub(crate) const PAYLOAD_BYTES: usize = 32;

/// Bytes of publishes that are prepared; they are sent again and again.
const PREPARED_BYTES: usize = 256 * 1024;

/// Connections of one address.
const CONNECTIONS_PER_ADDRESS: usize = 2_000;

/// To which topic each message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// To one after the other.
    InTurn,
    /// To any of them, whichever the last one was.
    Random,
}

/// Numbers that have no pattern, the same in each run (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// What publisher and subscribers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    /// corecast's language, all in lines.
    Line,
    /// The same; the publisher is a WebSocket.
    WebSocket,
    /// The protocol of nats-server.
    Nats,
}

impl Speech {
    const ALL: [Speech; 3] = [Speech::Line, Speech::WebSocket, Speech::Nats];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Speech::Line => "line",
            Speech::WebSocket => "ws",
            Speech::Nats => "nats",
        }
    }

    fn subscribe(self, topic: &str) -> String {
        match self {
            Speech::Line | Speech::WebSocket => format!("SUB {topic}\n"),
            // What follows PING is told when the subscription is made.
            Speech::Nats => format!("CONNECT {{\"verbose\":false}}\r\nSUB {topic} 1\r\nPING\r\n"),
        }
    }

    fn is_subscribed(self, answer: &[u8]) -> bool {
        match self {
            Speech::Line | Speech::WebSocket => answer.starts_with(b"OK SUB ") && answer.ends_with(b"\n"),
            Speech::Nats => answer.ends_with(b"PONG\r\n"),
        }
    }

    fn publish(self, topic: &str, payload: &str) -> Vec<u8> {
        match self {
            Speech::Line => format!("PUB {topic} {payload}\n").into_bytes(),
            Speech::WebSocket => {
                const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
                let text = format!("PUB {topic} {payload}");
                let mut frame = vec![0x81, 0x80 | text.len() as u8];
                frame.extend_from_slice(&MASK);
                frame.extend(text.bytes().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
                frame
            }
            Speech::Nats => format!("PUB {topic} {}\r\n{payload}\r\n", payload.len()).into_bytes(),
        }
    }

    fn message(self, topic: &str, payload: &str) -> Vec<u8> {
        match self {
            Speech::Line | Speech::WebSocket => format!("MSG {topic} {payload}\n").into_bytes(),
            Speech::Nats => format!("MSG {topic} 1 {}\r\n{payload}\r\n", payload.len()).into_bytes(),
        }
    }

    /// What the publisher says before the first message, and how the answer to it ends.
    fn greeting(self) -> (&'static str, &'static [u8]) {
        match self {
            Speech::Line => ("PING\n", b"PONG\n"),
            Speech::WebSocket => (
                "GET /ws HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                b"\r\n\r\n",
            ),
            Speech::Nats => ("CONNECT {\"verbose\":false}\r\nPING\r\n", b"PONG\r\n"),
        }
    }
}

impl FromStr for Speech {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Speech::ALL.into_iter().find(|speech| speech.name() == name).ok_or_else(|| format!("`{name}` is not spoken"))
    }
}

/// The client's process, as the bench sees it.
pub(crate) struct Pipeline(process::Client);

impl Pipeline {
    /// Starts one, subscribed to so many topics at `to`, which publishes at `publish_to`, in the order given. `number`: no other
    /// client has it.
    pub(crate) fn start(
        to: SocketAddr,
        publish_to: SocketAddr,
        speech: Speech,
        topics: usize,
        order: Order,
        number: u8,
    ) -> Result<Self, String> {
        let order = if order == Order::Random { "random" } else { "in-turn" };
        let [to, publish_to] = [to, publish_to].map(|addr| addr.to_string());
        let words = [&to, &publish_to, speech.name(), &topics.to_string(), order, &number.to_string()];
        let mut client = process::Client::run(ROLE, &words)?;
        // It says so once it is subscribed.
        client.answer()?;
        Ok(Pipeline(client))
    }

    /// Publishes at least so many messages; how many, and the time until all have arrived.
    pub(crate) fn publish(&mut self, messages: usize) -> Result<(f64, Duration), String> {
        match self.0.ask(&messages.to_string())?[..] {
            [messages, nanos] => Ok((messages as f64, Duration::from_nanos(nanos))),
            _ => Err("the client gave no figures".into()),
        }
    }
}

/// Runs as the client.
pub(crate) fn run(words: impl Iterator<Item = String>) -> Result<(), String> {
    let words: Vec<String> = words.collect();
    let [to, publish_to, speech, topics, order, number] = &words[..] else {
        return Err(format!("not a client: {words:?}"));
    };
    process::raise_open_files()?;
    process::settle_on(process::cpus()?.1)?;
    let addr = |text: &str| text.parse().map_err(|_| format!("`{text}` is no address"));
    let topics = topics.parse().map_err(|_| format!("`{topics}` is no number of topics"))?;
    let number: u8 = number.parse().map_err(|_| format!("`{number}` is no client's number"))?;
    let order = if order == "random" { Order::Random } else { Order::InTurn };
    let mut client = Client::connect(addr(to)?, addr(publish_to)?, speech.parse()?, topics, order, number)?;
    println!("ready");
    for command in std::io::stdin().lock().lines().map_while(Result::ok) {
        let messages = command.parse().map_err(|_| format!("`{command}` is no number of messages"))?;
        let (messages, took) = client.publish(messages)?;
        println!("done {messages} {}", took.as_nanos());
    }
    Ok(())
}

struct Subscriber {
    socket: OwnedFd,
    /// What comes for each message of its topic.
    message: Vec<u8>,
    /// Bytes of the next message that have come.
    begun: usize,
}

struct Client {
    speech: Speech,
    subscribers: Vec<Subscriber>,
    publisher: OwnedFd,
    /// Whole rounds over all topics.
    prepared: Vec<u8>,
    /// How many messages these are.
    count: usize,
    /// What has come of the publisher's next answer.
    answers: Vec<u8>,
    epoll: OwnedFd,
    events: Vec<Event>,
    buffer: Vec<u8>,
}

impl Client {
    fn connect(
        to: SocketAddr,
        publish_to: SocketAddr,
        speech: Speech,
        topics: usize,
        order: Order,
        number: u8,
    ) -> Result<Self, String> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|errno| format!("epoll: {errno}"))?;
        let names: Vec<String> = (0..topics).map(|topic| format!("t{topic}")).collect();
        let payload = "x".repeat(PAYLOAD_BYTES);
        let watch = |socket: &OwnedFd, number: usize, flags| {
            epoll::add(&epoll, socket, EventData::new_u64(number as u64), flags)
                .map_err(|errno| format!("epoll: {errno}"))
        };
        let mut subscribers = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let socket = open(to, number, index)?;
            let answered = |answer: &[u8]| speech.is_subscribed(answer);
            ask(&socket, speech.subscribe(name).as_bytes(), answered)?;
            watch(&socket, index, EventFlags::IN)?;
            subscribers.push(Subscriber { socket, message: speech.message(name, &payload), begun: 0 });
        }
        let publisher = open(publish_to, number, 0)?;
        let (greeting, end) = speech.greeting();
        ask(&publisher, greeting.as_bytes(), |answer| answer.ends_with(end))?;
        watch(&publisher, topics, EventFlags::IN)?;
        let (mut prepared, mut count) = (Vec::new(), 0);
        let mut dice = Dice(1);
        while prepared.len() < PREPARED_BYTES {
            for name in &names {
                let name = if order == Order::Random { &names[dice.below(topics)] } else { name };
                prepared.extend(speech.publish(name, &payload));
            }
            count += topics;
        }
        Ok(Client {
            speech,
            subscribers,
            publisher,
            prepared,
            count,
            answers: Vec::new(),
            epoll,
            events: Vec::with_capacity(256),
            buffer: vec![0; 256 * 1024],
        })
    }

    /// Publishes in whole rounds, until there are so many messages at least, and waits for all of them.
    fn publish(&mut self, messages: usize) -> Result<(usize, Duration), String> {
        let rounds = messages.div_ceil(self.count);
        let messages = rounds * self.count;
        let mut unsent = rounds * self.prepared.len();
        let mut missing = messages;
        let mut unanswered = if self.speech == Speech::Nats { 0 } else { messages };
        let publisher = self.subscribers.len();
        self.watch_publisher(EventFlags::IN | EventFlags::OUT)?;
        let started = Instant::now();
        while missing > 0 || unanswered > 0 {
            for (index, flags) in self.wait()? {
                if index < publisher {
                    missing = missing.checked_sub(self.take(index)?).ok_or("more came than was published")?;
                    continue;
                }
                if flags.contains(EventFlags::IN) {
                    unanswered = unanswered.checked_sub(self.take_answers()?).ok_or("there were too many answers")?;
                }
                if flags.contains(EventFlags::OUT) && unsent > 0 {
                    unsent -= self.send_from(unsent)?;
                    if unsent == 0 {
                        self.watch_publisher(EventFlags::IN)?;
                    }
                }
            }
        }
        Ok((messages, started.elapsed()))
    }

    fn watch_publisher(&self, flags: EventFlags) -> Result<(), String> {
        let number = EventData::new_u64(self.subscribers.len() as u64);
        epoll::modify(&self.epoll, &self.publisher, number, flags).map_err(|errno| format!("epoll: {errno}"))
    }

    /// Sends what comes next when so many bytes are left; how many were taken.
    fn send_from(&self, unsent: usize) -> Result<usize, String> {
        let at = (self.prepared.len() - unsent % self.prepared.len()) % self.prepared.len();
        match rustix::net::send(&self.publisher, &self.prepared[at..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(taken) => Ok(taken),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(errno) => Err(format!("the publisher can't send: {errno}")),
        }
    }

    /// Reads once from a subscriber's socket; how many messages are whole now.
    fn take(&mut self, index: usize) -> Result<usize, String> {
        let Subscriber { socket, message, begun } = &mut self.subscribers[index];
        let count = receive(socket, &mut self.buffer)?;
        let (mut bytes, mut whole) = (&self.buffer[..count], 0);
        while !bytes.is_empty() {
            let expected = &message[*begun..];
            let len = expected.len().min(bytes.len());
            if bytes[..len] != expected[..len] {
                // A server of NATS asks now and then whether its client is there.
                if self.speech == Speech::Nats && *begun == 0 && bytes.starts_with(b"PING\r\n") {
                    send(socket, b"PONG\r\n")?;
                    bytes = &bytes[6..];
                    continue;
                }
                let came = bytes[..bytes.len().min(200)].escape_ascii();
                return Err(format!("after {begun} bytes of a message subscriber {index} got {came}"));
            }
            bytes = &bytes[len..];
            *begun += len;
            if *begun == message.len() {
                *begun = 0;
                whole += 1;
            }
        }
        Ok(whole)
    }

    /// Reads once what the publisher is told; how many publishes were confirmed.
    fn take_answers(&mut self) -> Result<usize, String> {
        let count = receive(&self.publisher, &mut self.buffer)?;
        self.answers.extend_from_slice(&self.buffer[..count]);
        let (mut at, mut confirmed) = (0, 0);
        loop {
            let rest = &self.answers[at..];
            let (text, len) = match self.speech {
                Speech::Line | Speech::Nats => match rest.iter().position(|byte| *byte == b'\n') {
                    Some(end) => (&rest[..end], end + 1),
                    None => break,
                },
                // Each answer is one short frame of text.
                Speech::WebSocket => match rest {
                    [0x81, len, text @ ..] if text.len() >= usize::from(*len) => {
                        (&text[..usize::from(*len)], 2 + usize::from(*len))
                    }
                    _ => break,
                },
            };
            if text.starts_with(b"OK PUB ") {
                confirmed += 1;
            } else if text == b"PING\r" {
                send(&self.publisher, b"PONG\r\n")?;
            } else {
                return Err(format!("a publish was answered with {}", text.escape_ascii()));
            }
            at += len;
        }
        self.answers.drain(..at);
        Ok(confirmed)
    }

    /// Waits for events: the number of each socket that has some, with these.
    fn wait(&mut self) -> Result<Vec<(usize, EventFlags)>, String> {
        self.events.clear();
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&patience)) {
            Ok(0) => Err(format!("nothing came for {} s", PATIENCE.as_secs())),
            Ok(_) => Ok(self.events.iter().map(|event| (event.data.u64() as usize, event.flags)).collect()),
            Err(Errno::INTR) => Ok(Vec::new()),
            Err(errno) => Err(format!("epoll: {errno}")),
        }
    }
}

fn open(to: SocketAddr, number: u8, index: usize) -> Result<OwnedFd, String> {
    // The kernel looks long for a free port once one address has many.
    let group = u8::try_from(1 + index / CONNECTIONS_PER_ADDRESS).map_err(|_| "too many connections")?;
    let open = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from(([127, 2, number, group], 0)).into())?;
        socket.set_tcp_nodelay(true)?;
        socket.set_linger(Some(Duration::ZERO))?;
        socket.connect(&to.into())?;
        Ok(socket)
    };
    open().map(OwnedFd::from).map_err(|error: std::io::Error| format!("connecting to {to}: {error}"))
}

/// Sends something and waits for the whole answer.
fn ask(socket: &OwnedFd, question: &[u8], is_whole: impl Fn(&[u8]) -> bool) -> Result<(), String> {
    send(socket, question)?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while !is_whole(&answer) {
        match rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((n @ 1.., _)) => answer.extend_from_slice(&buffer[..n]),
            Ok(_) => return Err(format!("the server closed after {}", answer.escape_ascii())),
            Err(errno) => return Err(format!("waiting for an answer: {errno}")),
        }
    }
    Ok(())
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> Result<(), String> {
    super::client::send_all(socket, bytes).map_err(|errno| format!("a client can't send: {errno}"))
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<usize, String> {
    match rustix::net::recv(socket, buffer, RecvFlags::DONTWAIT) {
        Ok((0, _)) => Err("the server closed a connection".into()),
        Ok((n, _)) => Ok(n),
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(errno) => Err(format!("reading: {errno}")),
    }
}
