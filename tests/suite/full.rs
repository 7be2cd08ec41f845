//! A server that takes no more clients tells each of them so, in what it speaks, and harms nobody by it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use corecast::{CloseReason, Framing};

use crate::support::http::{HttpClient, upgrade};
use crate::support::{Client, DEADLINE, Fixture, PLAIN, Program, config, wait_until};

/// A server with room for one client, and that client.
fn full() -> (Client, Fixture) {
    let server = Fixture::hub(settings! { shards: Some(1), max_connections: 1, ..config() });
    let mut client = server.client(Framing::Line);
    client.expect_nothing();
    (client, server)
}

/// Asserts that an answer is a 503 that says when to come back.
#[track_caller]
fn expect_unavailable(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n") && answer.contains("full: the server is full"), "{answer}");
    let seconds = answer.split("\r\nRetry-After: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap();
    assert!((5..15).contains(&seconds.parse::<u64>().unwrap()), "{answer}");
}

#[test]
fn each_kind_of_client_is_told_in_what_it_speaks() {
    let (mut old, server) = full();
    let http = server.addr(Framing::Http);
    let mut refused = 0;
    for framing in PLAIN {
        let mut client = server.client(framing);
        client.expect("BYE full");
        client.expect_end();
        // What it sent before it could know does not destroy the word.
        let mut eager = server.client(framing);
        let _ = eager.try_send_raw(eager.frame("PING ".repeat(5_000)));
        eager.expect("BYE full");
        refused += 2;
    }
    for request in ["GET / HTTP/1.1", "GET /sse?topic=news HTTP/1.1", "POST /nothing HTTP/1.1", "GET /ws HTTP/1.1"] {
        let mut client = HttpClient::connect(http);
        // In two pieces, so that the head must be waited for.
        client.send(request);
        client.send("\r\nHost: corecast\r\n\r\n");
        expect_unavailable(&client.recv_answer());
        refused += 1;
    }
    let mut head = HttpClient::connect(http);
    head.send("HEAD / HTTP/1.1\r\nHost: corecast\r\n\r\n");
    assert!(head.recv_answer().ends_with("\r\n\r\n"), "no body follows a HEAD");
    for (protocol, bye) in [("", "BYE full"), ("corecast.v1.json", r#"{"type":"bye","reason":"full"}"#)] {
        let mut client = HttpClient::websocket(http, "/ws?topic=news", protocol);
        assert_eq!(client.recv(), bye);
        client.expect_close(1013, "full");
        refused += 1;
    }
    // A page that may not connect at all is not let into the handshake.
    let mut foreign = HttpClient::connect(http);
    foreign.send(upgrade("/ws", "Origin: http://evil.example\r\n"));
    expect_unavailable(&foreign.recv_answer());
    refused += 2;

    old.expect_nothing();
    assert_eq!(server.sum(|shard| shard.refused_full.get()), refused);
    assert_eq!((server.conn_count(), server.sum(|shard| shard.accepted.get())), (1, 1));
    assert_eq!(CloseReason::ALL.map(|reason| server.closed(reason)).iter().sum::<u64>(), 0, "none of them was open");
    drop(old);
    server.wait_for_connections(0);
    assert!(server.client(Framing::Length).is_served(), "there is room again");
}

#[test]
fn clients_that_are_refused_for_want_of_memory_are_told_too() {
    // Less than the tests themselves take.
    let server = Fixture::hub(settings! { max_memory: 16 << 20, ..config() });
    wait_until("a client is refused", || {
        let mut client = server.client(Framing::Line);
        client.send("PING");
        client.recv() == "BYE full"
    });
    let mut client = HttpClient::connect(server.addr(Framing::Http));
    client.send("GET / HTTP/1.1\r\nHost: corecast\r\n\r\n");
    expect_unavailable(&client.recv_answer());
    assert!(server.sum(|shard| shard.refused_memory.get()) >= 2);
}

/// Open descriptors of a program.
fn fds(program: &Program) -> usize {
    fs::read_dir(format!("/proc/{}/fd", program.pid().as_raw_nonzero())).unwrap().count()
}

/// Connects, says nothing, and reads to the end.
fn knock(addr: SocketAddr) -> Vec<u8> {
    let Ok(mut stream) = TcpStream::connect_timeout(&addr, DEADLINE) else { return Vec::new() };
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut got = Vec::new();
    // It may be reset.
    let _ = stream.write_all(b"PING\n");
    let _ = stream.read_to_end(&mut got);
    got
}

#[test]
fn a_storm_of_refused_clients_takes_few_descriptors_and_harms_nobody() {
    const THREADS: usize = 8;
    const EACH: usize = 250;
    let program = Program::serve(["--shards", "1", "--max-connections", "2"]);
    let mut old = [(); 2].map(|()| program.client(Framing::Line));
    old.iter_mut().for_each(Client::expect_nothing);
    let before = fds(&program);
    let addrs = [Framing::Line, Framing::Length].map(|framing| program.addr(framing));
    // Some of them never go away by themselves.
    let silent: Vec<_> = (0..100).map(|_| TcpStream::connect(addrs[0]).unwrap()).collect();
    let mut most = 0;
    let told = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let addr = addrs[thread % 2];
                scope.spawn(move || (0..EACH).filter(|_| !knock(addr).is_empty()).count())
            })
            .collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            old.iter_mut().for_each(Client::expect_nothing);
            most = most.max(fds(&program));
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    // Those that get the time to read, those that are just being told, and what the control of a process takes.
    assert!(most <= before + 32 + 4, "{most} descriptors, {before} before");
    assert!(told > THREADS * EACH / 2, "only {told} were told");
    drop(silent);
    wait_until("all descriptors are given back", || fds(&program) <= before);
    old.iter_mut().for_each(Client::expect_nothing);
}
