//! How streams are cut into messages, whatever the pieces they come in.

use corecast::{CloseReason, Config, DropReason, Framing};

use crate::support::{Client, Fixture, PLAIN, Random, config};

/// A limit that a test reaches with few bytes.
const MESSAGE_MAX: usize = 64;

fn small() -> Config {
    settings! { max_message: MESSAGE_MAX, queue_bytes_max: 64 * 1024, client_publish: true, ..config() }
}

/// What a client that sent too much is told before the connection ends in order.
fn expect_refusal(client: &mut Client) {
    client
        .expect(&format!("ERR message-too-large a message has at most {MESSAGE_MAX} bytes; the connection is closed"));
    client.expect("BYE message-too-large");
    client.expect_end();
}

#[test]
fn a_message_of_the_largest_size_is_taken_and_one_byte_more_is_refused() {
    let server = Fixture::hub(small());
    for framing in PLAIN {
        let mut client = server.client(framing);
        let largest = format!("PING {}", "x".repeat(MESSAGE_MAX - 5));
        assert_eq!(client.ask(&largest), largest.replace("PING", "PONG"));
        client.send(largest + "x");
        expect_refusal(&mut client);
    }
    server.wait_for_connections(0);
    assert_eq!(server.closed(CloseReason::MessageTooLarge), 2);
}

#[test]
fn a_line_without_an_end_is_refused_as_soon_as_it_is_too_long() {
    let server = Fixture::hub(small());
    let mut client = server.client(Framing::Line);
    client.send_raw([b'x'; MESSAGE_MAX + 1]);
    expect_refusal(&mut client);
}

#[test]
fn a_length_over_the_limit_is_refused_before_its_bytes_come() {
    let server = Fixture::hub(small());
    for length in [MESSAGE_MAX as u32 + 1, u32::MAX] {
        let mut client = server.client(Framing::Length);
        client.send_raw(length.to_be_bytes());
        expect_refusal(&mut client);
    }
}

#[test]
fn a_client_that_sent_far_more_than_was_read_still_receives_the_reason() {
    let server = Fixture::hub(small());
    for framing in PLAIN {
        let mut client = server.client(framing);
        client.send("PING first");
        // More than the server reads in one turn, and more than the kernel holds: unread bytes at a close would
        // make it a reset, which destroys what the client has not read yet.
        client.send_raw(vec![0xff; 8 << 20]);
        client.expect("PONG first");
        expect_refusal(&mut client);
    }
    server.wait_for_connections(0);
    assert_eq!(server.closed(CloseReason::MessageTooLarge), 2);
}

#[test]
fn a_command_cut_at_any_byte_is_read_as_one() {
    let server = Fixture::hub(config());
    let mut sent = 0;
    for framing in PLAIN {
        let mut client = server.client(framing);
        let mut bytes = client.frame("PING one\r");
        bytes.extend(client.frame("SUB two three"));
        // One CR before the LF is no part of a line.
        let pong = if framing == Framing::Line { "PONG one" } else { "PONG one\r" };
        let answers = [pong, "OK SUB two three"];
        for cut in 1..bytes.len() {
            for piece in [&bytes[..cut], &bytes[cut..]] {
                client.send_raw(piece);
                sent += piece.len();
                // The server has read the first piece by itself when the second one is sent.
                server.wait_for_bytes_in(sent);
            }
            answers.iter().for_each(|answer| client.expect(answer));
        }
        for byte in bytes {
            client.send_raw([byte]);
            sent += 1;
            server.wait_for_bytes_in(sent);
        }
        answers.iter().for_each(|answer| client.expect(answer));
        client.expect_nothing();
        sent += client.frame("PING nothing-between").len();
    }
}

#[test]
fn a_thousand_messages_in_one_segment_are_all_answered_in_order() {
    let server = Fixture::hub(config());
    for framing in PLAIN {
        let mut client = server.client(framing);
        let segment: Vec<u8> = (0..1_000).flat_map(|n| client.frame(format!("PING {n}"))).collect();
        assert!(segment.len() < 65_000, "it fits a segment of the loopback interface");
        client.send_raw(segment);
        for n in 0..1_000 {
            client.expect(&format!("PONG {n}"));
        }
        client.expect_nothing();
    }
}

#[test]
fn messages_of_any_size_come_back_whole_whatever_the_pieces() {
    let config = settings! { max_message: 200_000, queue_bytes_max: 1 << 20, ..config() };
    let server = Fixture::echo(config);
    let mut random = Random::new();
    for framing in PLAIN {
        let mut client = server.client(framing);
        for len in [0, 1, 8_191, 8_192, 8_193, 65_535, 65_536, 65_537, 131_072, 200_000] {
            let message: Vec<u8> = random.bytes(len).into_iter().map(|byte| byte | 0x20).collect();
            let bytes = client.frame(&message);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (piece, later) = rest.split_at((1 + random.below(50_000)).min(rest.len()));
                client.send_raw(piece);
                rest = later;
            }
            assert!(client.recv_bytes() == message, "{framing}: {len} bytes came back different");
        }
    }
}

#[test]
fn a_payload_with_a_line_feed_is_told_as_a_gap_to_line_clients_and_delivered_to_the_others() {
    let server = Fixture::hub(small());
    let [mut line, mut length] = PLAIN.map(|framing| server.client(framing));
    let mut publisher = server.client(Framing::Length);
    for client in [&mut line, &mut length] {
        assert_eq!(client.ask("SUB news"), "OK SUB news");
    }
    assert!(publisher.ask("PUB news two\nlines").starts_with("OK PUB "));
    line.expect("GAP news 1 line-feed");
    length.expect("MSG news two\nlines");
    assert_eq!(server.drops(), [(DropReason::LineFeed, 1)]);

    server.publish("news", "one line").unwrap();
    line.expect("MSG news one line");
    length.expect("MSG news one line");

    // Neither a broadcast nor a message to one connection has a topic.
    server.broadcast("a\nb").unwrap();
    line.expect("GAP * 1 line-feed");
    length.expect("ALL a\nb");
    server.send(line.id(), "a\nb").unwrap();
    line.expect("GAP * 1 line-feed");
    assert_eq!(server.drops(), [(DropReason::LineFeed, 3)]);
}

#[test]
fn a_carriage_return_before_the_line_feed_is_dropped_and_no_other() {
    let server = Fixture::hub(config());
    let mut client = server.client(Framing::Line);
    client.send_raw("PING a\r\nPING b\r\r\nPING c\rd\n\r\n");
    client.expect("PONG a");
    // The second one belongs to the text, and an answer that ends in one would lose it.
    let error = client.recv();
    assert!(error.starts_with("ERR unsendable ") && error.contains("carriage return"), "{error}");
    client.expect("PONG c\rd");
    assert!(client.recv().starts_with("ERR empty-message "));
    client.expect_nothing();
}

#[test]
fn a_payload_that_ends_in_a_carriage_return_is_told_as_a_gap_to_line_clients_and_delivered_to_the_others() {
    let server = Fixture::hub(small());
    let [mut line, mut length] = PLAIN.map(|framing| server.client(framing));
    for client in [&mut line, &mut length] {
        assert_eq!(client.ask("SUB news"), "OK SUB news");
    }
    let mut by_length = server.client(Framing::Length);
    for payload in ["x\r", "\r", "x\r\r"] {
        assert!(by_length.ask(format!("PUB news {payload}")).starts_with("OK PUB "));
        line.expect("GAP news 1 carriage-return");
        length.expect(&format!("MSG news {payload}"));
    }
    // One CR before the LF ends the line, the other one is the payload's.
    let mut by_line = server.client(Framing::Line);
    by_line.send_raw("PUB news x\r\r\nPUB news y\r\nPUB news z\ra\r\n");
    for message in ["MSG news x\r", "MSG news y", "MSG news z\ra"] {
        length.expect(message);
    }
    // Of a batch the gap comes last, and how much is in one is not known.
    let mut got = [line.recv(), line.recv(), line.recv()];
    got.sort();
    assert_eq!(got, ["GAP news 1 carriage-return", "MSG news y", "MSG news z\ra"]);
    server.broadcast("x\r").unwrap();
    line.expect("GAP * 1 carriage-return");
    length.expect("ALL x\r");
    server.send(line.id(), "x\r").unwrap();
    line.expect("GAP * 1 carriage-return");
    for _ in 0..3 {
        assert!(by_line.recv().starts_with("OK PUB "));
    }
    // It is a client that the broadcast was for, too.
    by_line.expect("GAP * 1 carriage-return");
    assert_eq!(server.drops(), [(DropReason::CarriageReturn, 7)]);
}

#[test]
fn an_echo_that_a_line_cannot_carry_ends_the_connection() {
    let server = Fixture::echo(config());
    let mut client = server.client(Framing::Line);
    client.send_raw("a\r\nb\rc\nd\r\r\n");
    client.expect("a");
    client.expect("b\rc");
    client.expect_end();
    drop(client);
    server.wait_for_connections(0);
    assert_eq!(server.closed(CloseReason::Handler), 1);
}
