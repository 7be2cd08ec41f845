//! Whole runs in the dialects of other servers, against small servers that speak them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{Figures, execute};
use crate::load::dialect::split_word;

/// What a client wants.
enum Command {
    /// To be greeted; nothing else.
    Nothing,
    Subscribe(String),
    Publish(String, Vec<u8>),
    Ping,
    Echo(Vec<u8>),
}

/// One side of a dialect: what a server understands and says.
struct Side {
    framing: &'static str,
    greeting: &'static [u8],
    /// The first command, and the bytes that it took.
    read: fn(&[u8]) -> Option<(Command, usize)>,
    subscribed: fn(&str) -> Vec<u8>,
    published: &'static [u8],
    pong: &'static [u8],
    message: fn(&str, &[u8]) -> Vec<u8>,
}

const SIDES: [Side; 4] = [
    Side {
        framing: "nats",
        // A real one asks now and then whether a client lives.
        greeting: b"INFO {}\r\nPING\r\n",
        read: read_nats,
        subscribed: |_| Vec::new(),
        published: b"",
        pong: b"PONG\r\n",
        message: |topic, payload| {
            [format!("MSG {topic} 1 {}\r\n", payload.len()).as_bytes(), payload, b"\r\n"].concat()
        },
    },
    Side {
        framing: "redis",
        greeting: b"",
        read: read_redis,
        subscribed: |topic| format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{topic}\r\n:1\r\n", topic.len()).into(),
        published: b":20\r\n",
        pong: b"+PONG\r\n",
        message: |topic, payload| {
            let head = format!("*3\r\n$7\r\nmessage\r\n${}\r\n{topic}\r\n${}\r\n", topic.len(), payload.len());
            [head.as_bytes(), payload, b"\r\n"].concat()
        },
    },
    Side {
        framing: "mqtt",
        greeting: b"\x20\x02\x00\x00",
        read: read_mqtt,
        subscribed: |_| b"\x90\x03\x00\x01\x00".to_vec(),
        published: b"",
        pong: b"\xd0\x00",
        message: |topic, payload| {
            let length = u8::try_from(2 + topic.len() + payload.len()).unwrap();
            assert!(length < 128, "one byte holds the length");
            [&[0x30, length, 0, topic.len() as u8], topic.as_bytes(), payload].concat()
        },
    },
    Side {
        framing: "nchan",
        greeting: b"",
        read: read_http,
        subscribed: |_| b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec(),
        published: b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok",
        pong: b"",
        message: |_, payload| [&[0x81, payload.len() as u8], payload].concat(),
    },
];

fn read_nats(buf: &[u8]) -> Option<(Command, usize)> {
    let end = buf.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let line = std::str::from_utf8(&buf[..end - 2]).unwrap();
    let words: Vec<_> = line.split(' ').collect();
    Some(match words[..] {
        ["SUB", topic, _] => (Command::Subscribe(topic.into()), end),
        ["PUB", topic, length] => {
            let payload = buf.get(end..end + length.parse::<usize>().unwrap())?;
            (Command::Publish(topic.into(), payload.to_vec()), end + payload.len() + 2)
        }
        ["PING"] => (Command::Ping, end),
        // CONNECT, PONG, and what is no NATS.
        _ => (Command::Nothing, end),
    })
}

fn read_redis(buf: &[u8]) -> Option<(Command, usize)> {
    let mut at = 0;
    let mut number = |prefix: u8, skip: usize| {
        at += skip;
        let end = at + buf.get(at..)?.windows(2).position(|pair| pair == b"\r\n")?;
        assert_eq!(buf[at], prefix);
        let number = std::str::from_utf8(&buf[at + 1..end]).unwrap().parse::<usize>().unwrap();
        at = end + 2;
        Some((number, at))
    };
    let (count, _) = number(b'*', 0)?;
    let (mut words, mut skip, mut used) = (Vec::new(), 0, 0);
    for _ in 0..count {
        let (length, start) = number(b'$', skip)?;
        words.push(buf.get(start..start + length)?);
        skip = length + 2;
        used = start + skip;
    }
    let text = |word: &[u8]| String::from_utf8(word.to_vec()).unwrap();
    let command = match words[..] {
        [b"SUBSCRIBE", topic] => Command::Subscribe(text(topic)),
        [b"PUBLISH", topic, payload] => Command::Publish(text(topic), payload.to_vec()),
        [b"PING"] => Command::Ping,
        [b"ECHO", payload] => Command::Echo(payload.to_vec()),
        _ => panic!("no command of Redis"),
    };
    (buf.len() >= used).then_some((command, used))
}

fn read_mqtt(buf: &[u8]) -> Option<(Command, usize)> {
    let [first, length, rest @ ..] = buf else { return None };
    let body = rest.get(..usize::from(*length))?;
    let text = |bytes: &[u8]| String::from_utf8(bytes[2..2 + usize::from(bytes[1])].to_vec()).unwrap();
    let command = match first {
        0x10 => Command::Nothing,
        0x82 => Command::Subscribe(text(&body[2..])),
        0x30 => Command::Publish(text(body), body[2 + usize::from(body[1])..].to_vec()),
        0xc0 => Command::Ping,
        _ => panic!("no packet of a client: {first:#x}"),
    };
    Some((command, 2 + body.len()))
}

fn read_http(buf: &[u8]) -> Option<(Command, usize)> {
    let end = buf.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&buf[..end]).unwrap();
    let target = split_word(split_word(head.as_bytes()).1).0;
    let (path, topic) = std::str::from_utf8(target).unwrap().split_once("?id=").unwrap();
    if path == "/sub" {
        return Some((Command::Subscribe(topic.into()), end));
    }
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse::<usize>().unwrap();
    let payload = buf.get(end..end + length)?;
    Some((Command::Publish(topic.into(), payload.to_vec()), end + length))
}

type Subscribers = Mutex<Vec<(String, TcpStream)>>;

/// A server of one side, on a free port until the test process ends. `loses` names a publish that one subscriber does
/// not get; the first one is the publisher's probe.
fn start(side: &'static Side, loses: Option<u32>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let subscribers = Arc::new(Subscribers::default());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let subscribers = subscribers.clone();
            thread::spawn(move || serve(side, &subscribers, stream.unwrap(), loses));
        }
    });
    addr
}

fn serve(side: &Side, subscribers: &Subscribers, mut stream: TcpStream, loses: Option<u32>) {
    // A client that has left doesn't concern the server.
    let say = |stream: &mut TcpStream, bytes: &[u8]| drop(stream.write_all(bytes));
    say(&mut stream, side.greeting);
    let (mut bytes, mut buffer, mut published) = (Vec::new(), [0; 4096], 0);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
        while let Some((command, used)) = (side.read)(&bytes) {
            bytes.drain(..used);
            match command {
                Command::Nothing => {}
                Command::Ping => say(&mut stream, side.pong),
                Command::Echo(payload) => {
                    say(&mut stream, &[format!("${}\r\n", payload.len()).as_bytes(), &payload, b"\r\n"].concat());
                }
                Command::Subscribe(topic) => {
                    let mut subscribers = subscribers.lock().unwrap();
                    say(&mut stream, &(side.subscribed)(&topic));
                    subscribers.push((topic, stream.try_clone().unwrap()));
                }
                Command::Publish(topic, payload) => {
                    let lost = usize::from(loses == Some(published));
                    published += 1;
                    let message = (side.message)(&topic, &payload);
                    let mut subscribers = subscribers.lock().unwrap();
                    let listening = subscribers.iter_mut().filter(|(subscribed, _)| *subscribed == topic);
                    listening.skip(lost).for_each(|(_, stream)| say(stream, &message));
                    say(&mut stream, side.published);
                }
            }
        }
    }
}

const FANOUT: &str = "fanout --connections 20 --duration 50ms --publish-rate 200 --burst 2 --message-size 64";

fn figures(line: &str, side: &Side, addr: SocketAddr) -> Figures {
    let line = format!("{line} --framing {}", side.framing);
    Figures(execute(&line, addr).unwrap_or_else(|error| panic!("{}: {error}", side.framing)).to_json())
}

#[test]
fn fanout_counts_every_delivery_of_other_servers() {
    for side in &SIDES {
        let figures = figures(FANOUT, side, start(side, None));
        assert!(figures.is_ok(), "{}: {}", side.framing, figures.problems());
        assert_eq!((figures.count("fanout", "published"), figures.count("fanout", "delivered")), (20, 400));
        assert_eq!(figures.count("fanout", "foreign"), 0);
    }
}

#[test]
fn fanout_tells_what_other_servers_lose() {
    for side in &SIDES {
        let figures = figures(FANOUT, side, start(side, Some(4)));
        assert!(!figures.is_ok(), "{}", side.framing);
        assert_eq!(figures.count("fanout", "lost"), 1, "{}", side.framing);
    }
}

#[test]
fn idle_holds_connections_of_other_servers() {
    for side in &SIDES {
        let figures = figures("idle --connections 20 --duration 50ms", side, start(side, None));
        assert!(figures.is_ok(), "{}: {}", side.framing, figures.problems());
        assert_eq!(figures.count("connect", "ready"), 20);
    }
}

#[test]
fn echo_measures_redis() {
    let redis = &SIDES[1];
    let figures = figures("echo --connections 4 --duration 50ms", redis, start(redis, None));
    assert!(figures.is_ok(), "{}", figures.problems());
    assert!(figures.count("echo", "round_trips") >= 4);
}

/// An echo over WebSocket as others write it: it asks whether the client lives before it sends anything back, takes any
/// opcode for text, and sends messages in fragments. At last it closes, if it is `closing`.
fn echo_websocket(mut stream: TcpStream, closing: bool) {
    let (mut bytes, mut buffer, mut messages) = (Vec::new(), [0; 4096], 0_u32);
    let (mut is_open, mut lives) = (false, false);
    let mut kept = Vec::new();
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n").filter(|_| !is_open) {
            assert!(!String::from_utf8_lossy(&bytes[..end]).contains("Protocol"), "no subprotocol is asked for");
            bytes.drain(..end + 4);
            is_open = true;
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nx: y\r\n\r\n\x8a\x00\x89\x03abc").unwrap();
        }
        while let Some((first, payload, used)) = is_open.then(|| read_masked(&bytes)).flatten() {
            bytes.drain(..used);
            match first {
                0x8a => {
                    assert_eq!(payload, b"abc");
                    lives = true;
                }
                _ => kept.push(payload),
            }
            for payload in if lives { std::mem::take(&mut kept) } else { Vec::new() } {
                let (one, two) = payload.split_at(payload.len() / 2);
                let frame = |first: u8, payload: &[u8]| [&[first, payload.len() as u8], payload].concat();
                let answer = match messages % 3 {
                    0 => frame(0x81, &payload),
                    1 => frame(0x82, &payload),
                    _ => [frame(1, one), frame(0x89, b""), frame(0x80, two)].concat(),
                };
                messages += 1;
                // A client that has left doesn't concern the server.
                let _ = stream.write_all(&answer);
                if closing && messages == 9 {
                    let _ = stream.write_all(b"\x88\x06\x03\xe9away");
                    return;
                }
            }
        }
    }
}

/// The first frame of a client: its first byte, its payload, and the bytes that it took.
fn read_masked(buf: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let [first, length, rest @ ..] = buf else { return None };
    assert!((128..128 + 126).contains(length), "it is masked, and short");
    let length = usize::from(length - 128);
    let (mask, payload) = (rest.get(..4)?, rest.get(4..4 + length)?);
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Some((*first, payload, 6 + length))
}

fn start_websocket(closing: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || echo_websocket(stream.unwrap(), closing));
        }
    });
    addr
}

#[test]
fn echo_measures_any_websocket() {
    let line = "echo --connections 4 --duration 100ms --message-size 64 --framing ws";
    let figures = Figures(execute(line, start_websocket(false)).unwrap().to_json());
    assert!(figures.is_ok(), "{}", figures.problems());
    assert!(figures.count("echo", "round_trips") >= 12);
    let figures = Figures(execute(line, start_websocket(true)).unwrap().to_json());
    assert!(figures.problems().contains("BYE away"), "{}", figures.problems());
}

#[test]
fn another_server_than_the_named_one_is_told_with_the_remedy() {
    let [nats, redis, ..] = &SIDES;
    let line = format!("idle --connections 2 --duration 50ms --framing {}", redis.framing);
    let text = execute(&line, start(nats, None)).unwrap_err().to_string();
    assert!(text.contains("none of 2 connections") && text.contains("this run speaks redis"), "{text}");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    drop(socket);
    let text = execute(&line, addr).unwrap_err().to_string();
    assert!(text.contains("`redis-server --bind 127.0.0.1 --port"), "{text}");
}
