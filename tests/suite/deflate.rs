//! Compressed WebSocket messages (permessage-deflate): which are, what they cost, and clients that send bad ones.

use corecast::{CloseReason, Config, Framing};
use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush};

use crate::support::http::{BINARY, CLOSE, FIN, HttpClient, PING, PONG, TEXT, frame, upgrade};
use crate::support::{Fixture, config, wait_until};

/// The bit of a frame's first byte that says its message is compressed.
const COMPRESSED: u8 = 0x40;

/// What ends a flush, and is left out of a message.
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

fn publishing() -> Config {
    settings! { client_publish: true, ..config() }
}

/// Opens a WebSocket with an offer, which must be met.
#[track_caller]
fn open(server: &Fixture, target: &str, offer: &str) -> HttpClient {
    let mut client = HttpClient::connect(server.addr(Framing::Http));
    client.send(upgrade(target, &format!("Sec-WebSocket-Extensions: {offer}\r\n")));
    let head = client.recv_head();
    let said =
        "\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(said), "{head}");
    client
}

fn deflated(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0; message.len() + message.len() / 8 + 64];
    let mut deflate = Deflate::new(6, false, 15);
    deflate.compress(message, &mut out, DeflateFlush::SyncFlush).unwrap();
    out.truncate(deflate.total_out() as usize);
    out.strip_suffix(&TAIL).unwrap().to_vec()
}

fn inflated(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 1 << 20];
    let mut inflate = Inflate::new(false, 15);
    inflate.decompress(&[payload, &TAIL].concat(), &mut out, InflateFlush::SyncFlush).unwrap();
    out.truncate(inflate.total_out() as usize);
    out
}

/// The next message, with whether it came compressed and with how many bytes.
#[track_caller]
fn recv(client: &mut HttpClient) -> (String, bool, usize) {
    let (first, payload) = client.recv_whole_frame();
    let is_compressed = first & COMPRESSED != 0;
    let message = if is_compressed { inflated(&payload) } else { payload.clone() };
    assert_eq!(first & !COMPRESSED, FIN | TEXT);
    (String::from_utf8(message).unwrap(), is_compressed, payload.len())
}

/// Orders of a market, as JSON.
fn orders(count: usize) -> String {
    let order = |n: usize| format!(r#"{{"symbol":"S{}","price":{}.{:02},"side":"buy"}}"#, n % 7, n * 31, n % 100);
    format!("[{}]", (0..count).map(order).collect::<Vec<_>>().join(","))
}

#[test]
fn a_publish_is_compressed_once_for_all_who_read_that_and_left_alone_for_others() {
    let server = Fixture::hub(publishing());
    let mut wide: Vec<_> = (0..20).map(|_| open(&server, "/ws?topic=a", "permessage-deflate")).collect();
    let mut narrow = open(&server, "/ws?topic=a", "permessage-deflate; server_max_window_bits=10");
    let mut plain = HttpClient::websocket(server.addr(Framing::Http), "/ws?topic=a", "");
    for client in wide.iter_mut().chain([&mut narrow, &mut plain]) {
        assert_eq!(recv(client), ("OK SUB a".into(), false, 8));
    }
    let message = orders(50);
    server.publish("a", message.clone()).unwrap();
    let expected = format!("MSG a {message}");
    assert_eq!(recv(&mut plain), (expected.clone(), false, expected.len()));
    let mut sizes = Vec::new();
    for client in wide.iter_mut().chain([&mut narrow]) {
        let (message, is_compressed, bytes) = recv(client);
        assert!(message == expected && is_compressed && 2 * bytes < expected.len(), "{bytes} of {}", expected.len());
        sizes.push(bytes);
    }
    assert!(sizes[..20].iter().all(|bytes| *bytes == sizes[0]) && sizes[20] > sizes[0], "{sizes:?}");
    // One for each of the two windows, on each shard that has any.
    let (deflates, bytes_in) =
        (server.sum(|shard| shard.deflated.get()), server.sum(|shard| shard.deflated_from.get()));
    assert!(deflates >= 2 && deflates <= 2 * server.sum(|_| 1), "{deflates}");
    assert_eq!(bytes_in, deflates * expected.len() as u64);
    assert!(server.sum(|shard| shard.deflated_to.get()) < bytes_in / 2);
}

#[test]
fn what_is_short_or_does_not_get_smaller_is_left_alone() {
    let server = Fixture::hub(publishing());
    let mut client = open(&server, "/ws?topic=a", "permessage-deflate; client_max_window_bits");
    recv(&mut client);
    let mut others: Vec<_> = (0..30).map(|_| open(&server, "/ws?topic=a", "permessage-deflate")).collect();
    others.iter_mut().for_each(|client| drop(recv(client)));
    for (payload, is_compressed) in [("x".repeat(100), false), ("x".repeat(300), true)] {
        server.publish("a", payload.clone()).unwrap();
        let (message, compressed, _) = recv(&mut client);
        assert_eq!((message, compressed), (format!("MSG a {payload}"), is_compressed));
    }
    // An answer is for one alone.
    for (payload, is_compressed) in [("x".repeat(900), false), ("x".repeat(1_100), true)] {
        client.say(&format!("PING {payload}"));
        let (message, compressed, _) = recv(&mut client);
        assert_eq!((message, compressed), (format!("PONG {payload}"), is_compressed));
    }
    let noise: Vec<u8> = (0..4_000_u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 37) as u8).collect();
    let noise: String = noise.iter().map(|byte| char::from_u32(0x4e00 + u32::from(*byte) * 53).unwrap()).collect();
    server.publish("a", noise.clone()).unwrap();
    assert_eq!(recv(&mut client).0, format!("MSG a {noise}"));
}

#[test]
fn compressed_messages_are_taken_whole_in_pieces_and_with_pings_between() {
    let server = Fixture::echo(config());
    let mut client = open(&server, "/ws", "permessage-deflate");
    let text = orders(300);
    let sent = deflated(text.as_bytes());
    let [head, tail] = [&sent[..50], &sent[50..]];
    client.send(frame(FIN | COMPRESSED | TEXT, &sent));
    assert_eq!(recv(&mut client).0, text);
    client.send([frame(COMPRESSED | TEXT, head), frame(FIN | PING, "between"), frame(0, "")].concat());
    assert_eq!(client.recv_frame(), (PONG, b"between".to_vec()));
    client.send(frame(FIN, tail));
    assert_eq!(recv(&mut client).0, text);
    client.send(frame(FIN | TEXT, "not compressed"));
    assert_eq!(recv(&mut client).0, "not compressed");
    client.send(frame(FIN | COMPRESSED | BINARY, deflated(&[0xff; 10])));
    assert_eq!(client.recv_frame(), (BINARY, vec![0xff; 10]));
    assert_eq!(server.sum(|shard| shard.inflated.get()), 3);
}

#[test]
fn many_messages_at_once_are_inflated_in_turns_and_in_order() {
    let server = Fixture::hub(config());
    let (mut greedy, mut other) =
        (open(&server, "/ws", "permessage-deflate"), open(&server, "/ws", "permessage-deflate"));
    // Each inflates to a thousand times as much as it has.
    let messages: Vec<u8> = (0..200)
        .flat_map(|n| frame(FIN | COMPRESSED | TEXT, deflated(format!("UNKNOWN{n} {}", " ".repeat(60_000)).as_bytes())))
        .collect();
    greedy.send(&messages);
    other.say("PING");
    assert_eq!(recv(&mut other).0, "PONG");
    for n in 0..200 {
        let (answer, ..) = recv(&mut greedy);
        assert!(answer.starts_with("ERR ") && answer.contains(&format!("UNKNOWN{n}")), "{n}: {answer}");
    }
}

#[test]
fn bad_ones_close_the_connection_with_the_code_that_fits() {
    let server = Fixture::hub(settings! { max_message: 10_000, ..config() });
    let bomb = deflated(&vec![b'x'; 1 << 24]);
    assert!(bomb.len() < 20_000);
    let not_utf8 = deflated(&[0xff; 100]);
    let half = deflated(orders(20).as_bytes());
    for (name, offer, sent, code, reason) in [
        ("a bomb", true, frame(FIN | COMPRESSED | TEXT, &bomb[..9_000]), 1009, "message-too-large"),
        (
            "one byte too much",
            true,
            frame(FIN | COMPRESSED | TEXT, deflated(&[b'x'; 10_001])),
            1009,
            "message-too-large",
        ),
        ("no compressed data", true, frame(FIN | COMPRESSED | TEXT, "not compressed"), 1002, "protocol-error"),
        ("half a message", true, frame(FIN | COMPRESSED | TEXT, &half[..100]), 1002, "protocol-error"),
        ("a text that is not UTF-8", true, frame(FIN | COMPRESSED | TEXT, not_utf8), 1007, "not-utf8"),
        ("nothing agreed upon", false, frame(FIN | COMPRESSED | TEXT, deflated(b"hello")), 1002, "protocol-error"),
        ("a compressed ping", true, frame(FIN | COMPRESSED | PING, ""), 1002, "protocol-error"),
        ("another bit", true, frame(FIN | 0x20 | TEXT, "x"), 1002, "protocol-error"),
    ] {
        let mut client = match offer {
            true => open(&server, "/ws", "permessage-deflate"),
            false => HttpClient::websocket(server.addr(Framing::Http), "/ws", ""),
        };
        client.send(sent);
        let error = recv(&mut client).0;
        assert!(error.starts_with(&format!("ERR {reason} ")), "{name}: {error}");
        assert_eq!(recv(&mut client).0, format!("BYE {reason}"), "{name}");
        let expected = [&u16::to_be_bytes(code)[..], reason.as_bytes()].concat();
        assert_eq!(client.recv_frame(), (CLOSE, expected), "{name}");
    }
    // The largest that may be, from a client that makes it larger.
    let mut client = open(&server, "/ws", "permessage-deflate");
    let message = format!("PING {}", "x".repeat(9_995));
    client.send(frame(FIN | COMPRESSED | TEXT, deflated(message.as_bytes())));
    assert_eq!(recv(&mut client).0, message.replace("PING", "PONG"));
    wait_until("all are counted", || server.closed(CloseReason::ProtocolError) == 5);
}

#[test]
fn it_can_be_switched_off_and_a_client_may_do_without() {
    let server = Fixture::hub(settings! { deflate: false, ..publishing() });
    let mut client = HttpClient::connect(server.addr(Framing::Http));
    client.send(upgrade("/ws?topic=a", "Sec-WebSocket-Extensions: permessage-deflate\r\n"));
    let head = client.recv_head();
    assert!(head.starts_with("HTTP/1.1 101 ") && !head.contains("Extensions"), "{head}");
    assert_eq!(client.recv(), "OK SUB a");
    server.publish("a", "x".repeat(5_000)).unwrap();
    assert_eq!(client.recv(), format!("MSG a {}", "x".repeat(5_000)));
    assert_eq!(server.sum(|shard| shard.deflated.get()), 0);
}
