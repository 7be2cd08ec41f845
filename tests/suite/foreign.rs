//! Clients that speak another protocol than their port: they are told so, and nothing of what they send is carried out.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use corecast::{CloseReason, Framing};

use crate::support::{DEADLINE, Fixture, PLAIN, Random, config, wait_until};

/// What a page has a visitor's browser send, with a body that is a command in either plain framing.
const POST: &[u8] = b"POST /\xc3\xa9 HTTP/1.1\r\nHost: 127.0.0.1:8888\r\nOrigin: http://evil.example\r\n\
    Content-Type: text/plain\r\nContent-Length: 42\r\n\r\nPUB news x\nCAST x\n\0\0\0\x0aPUB news x\nPUB news y\n";

/// What follows another protocol's greeting: commands in either plain framing.
const COMMANDS: &[u8] = b"\nPUB news x\nCAST x\n\0\0\0\x0aPUB news x\0\0\0\x06CAST x";

fn open_hub() -> Fixture {
    Fixture::hub(settings! { client_publish: true, ..config() })
}

/// Sends bytes in pieces that end at these places, each once the server has read the one before, and returns what comes
/// up to the connection's end.
fn tell(server: &Fixture, addr: SocketAddr, bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let answered = || server.sum(|shard| shard.messages_out.get());
    let (mut from, answered_before) = (0, answered());
    for to in cuts.iter().copied().chain([bytes.len()]) {
        let read = server.sum(|shard| shard.bytes_in.get()) + (to - from) as u64;
        // It may be closed before the last piece.
        if stream.write_all(&bytes[from..to]).is_err() {
            break;
        }
        from = to;
        let is_read = || server.sum(|shard| shard.bytes_in.get()) >= read || answered() > answered_before;
        wait_until("the piece is read", is_read);
    }
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error} after {}", answer.escape_ascii()),
        _ => answer,
    }
}

#[test]
fn a_page_cannot_publish_by_a_request_to_a_plain_port() {
    let server = open_hub();
    let mut subscriber = server.client(Framing::Line);
    assert_eq!(subscriber.ask("SUB news"), "OK SUB news");
    let mut random = Random::new();
    let mut count = 0;
    for framing in PLAIN {
        for lead in ["", "\n", "\r\n\r\n"] {
            if framing == Framing::Length && !lead.is_empty() {
                continue;
            }
            let request = [lead.as_bytes(), POST].concat();
            let one_by_one: Vec<usize> = (1..request.len()).collect();
            let somewhere = 1 + random.below(request.len() - 1);
            for cuts in [&[][..], &[somewhere], &one_by_one[..40]] {
                let answer = String::from_utf8(tell(&server, server.addr(framing), &request, cuts)).unwrap();
                // Empty lines are answered each, as they always are.
                let at = answer.find("HTTP/1.1 400 Bad Request\r\n").unwrap_or_else(|| panic!("{answer}"));
                assert!(answer[at..].contains(&format!("corecast's {framing} framing, not HTTP")), "{answer}");
                assert!(!answer.contains("OK ") && !answer.contains("Access-Control"), "{answer}");
                count += 1;
                wait_until("it is counted", || server.closed(CloseReason::WrongProtocol) == count);
            }
        }
    }
    subscriber.expect_nothing();
    server.wait_for_connections(1);
    assert_eq!(server.sum(|shard| shard.publishes.get()), 0);
}

#[test]
fn each_protocol_is_answered_in_its_own_words_on_every_port_and_nothing_of_it_is_carried_out() {
    let server = open_hub();
    let mut subscriber = server.client(Framing::Length);
    assert_eq!(subscriber.ask("SUB news"), "OK SUB news");
    let alert: &[u8] = &[0x15, 3, 1, 0, 2, 2, 10];
    let own: &[u8] = b"";
    let greetings: [(&[u8], &[u8]); 11] = [
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\n", alert),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", b"this port speaks "),
        (b"\x10\x10\0\x04MQTT\x04\x02\0\x3c\0\x04abcd", &[0x20, 2, 0, 1]),
        (b"\x10\x10\0\x04MQTT\x05\x02\0\x3c\0\0\x03abc", &[0x20, 3, 0, 0x84, 0]),
        (b"*1\r\n$4\r\nPING\r\n", b"-ERR this port speaks "),
        (b"\0\0\0\x29\0\x03\0\0user\0postgres\0", b"E\0\0\0"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 8888\r\n", own),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\0\x50\0\x51", own),
        (b"\0\0\0\x85\xffSMBr\0\0", own),
        (b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0", own),
        (b"\0\x03\0\x08\x21\x12\xa4\x42abcdefghijkl", own),
    ];
    let mut count = 0;
    for framing in Framing::ALL {
        for (greeting, begin) in greetings {
            let answer = tell(&server, server.addr(framing), &[greeting, COMMANDS].concat(), &[]);
            let shown = answer.escape_ascii().to_string();
            assert!(answer.starts_with(begin), "{framing}: {}: {shown}", greeting.escape_ascii());
            let text = String::from_utf8_lossy(&answer);
            if begin == own {
                match framing {
                    Framing::Http => assert!(text.starts_with("HTTP/1.1 400 "), "{shown}"),
                    Framing::Line => assert!(text.starts_with("ERR wrong-protocol "), "{shown}"),
                    _ => assert!(answer[4..].starts_with(b"ERR wrong-protocol "), "{shown}"),
                }
                assert_eq!(text.contains("BYE wrong-protocol"), framing != Framing::Http, "{shown}");
            }
            if text.len() > 10 {
                let spoken = if framing == Framing::Http { "HTTP".into() } else { format!("{framing} framing") };
                assert!(text.contains(&spoken) && text.contains(", not "), "{shown}");
            }
            count += 1;
            wait_until("it is counted", || server.closed(CloseReason::WrongProtocol) == count);
        }
    }
    subscriber.expect_nothing();
    server.wait_for_connections(1);
    assert_eq!(server.sum(|shard| shard.publishes.get()), 0);
    // The SUB and the PINGs of the subscriber.
    assert_eq!(server.sum(|shard| shard.messages_in.get()), 2);
}

#[test]
fn a_client_of_one_framing_on_the_port_of_another_is_told_in_its_own() {
    let server = open_hub();
    let line = tell(&server, server.addr(Framing::Length), b"SUB news\nPUB news x\n", &[]);
    let line = String::from_utf8(line).unwrap();
    assert!(line.starts_with("ERR wrong-protocol this port speaks corecast's length framing, not "), "{line}");
    assert!(line.ends_with("\nBYE wrong-protocol\n"), "{line}");
    for framing in [Framing::Line, Framing::Http] {
        let frames = tell(&server, server.addr(framing), b"\0\0\0\x08SUB news", &[]);
        let length = u32::from_be_bytes(frames[..4].try_into().unwrap()) as usize;
        let text = std::str::from_utf8(&frames[4..4 + length]).unwrap();
        assert!(text.starts_with("ERR wrong-protocol this port speaks ") && text.contains("length framing"), "{text}");
        assert_eq!(&frames[4 + length..], b"\0\0\0\x12BYE wrong-protocol");
    }
    wait_until("they are counted", || server.closed(CloseReason::WrongProtocol) == 3);
    let http = tell(&server, server.addr(Framing::Http), b"SUB news\nPUB news x\n", &[]);
    let http = String::from_utf8(http).unwrap();
    assert!(http.starts_with("HTTP/1.1 400 ") && http.contains("framings line and length"), "{http}");
}

#[test]
fn what_looks_like_another_protocol_later_on_is_a_message_like_any_other() {
    let server = Fixture::echo(config());
    for framing in PLAIN {
        let mut client = server.client(framing);
        for text in ["hello", "GET / HTTP/1.1", "*1", "SSH-2.0-x", "PROXY TCP4 x", "\x16\x03\x01", "\0\0\0\x04PING"] {
            assert_eq!(client.ask(text), text);
        }
    }
    // What is a command may hold anything from the first.
    let server = open_hub();
    let mut subscriber = server.client(Framing::Line);
    assert_eq!(subscriber.ask("SUB log"), "OK SUB log");
    for framing in PLAIN {
        assert!(server.client(framing).ask("PUB log GET / HTTP/1.1").starts_with("OK PUB "));
        subscriber.expect("MSG log GET / HTTP/1.1");
    }
    assert_eq!(server.closed(CloseReason::WrongProtocol), 0);
}
