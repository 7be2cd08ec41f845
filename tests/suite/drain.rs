//! The end of the program: in order, over time, with nothing lost, and at once when it is told so twice.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use corecast::Framing;
use rustix::process::Signal;

use crate::support::{Client, Fixture, PLAIN, Program, config, free_port, wait_until};

/// Room for all that a test publishes, so that nothing is dropped on the way.
const ROOMY: [&str; 6] = [
    "--shards=2",
    "--client-publish",
    "--queue-messages-max=65536",
    "--queue-bytes-max=64MiB",
    "--publish-queue=65536",
    "--mesh-backlog=65536",
];

/// Publishes numbers until the server closes the connection, up to 64 ahead of its answers, and counts the answers.
fn publish_to_the_end(mut client: Client, taken: &AtomicUsize) {
    const AHEAD: usize = 64;
    let (mut sent, mut answered) = (0, 0);
    loop {
        while sent < answered + AHEAD {
            let frame = client.frame(format!("PUB news {sent}"));
            // The server stops reading when it drains.
            let _ = client.try_send_raw(frame);
            sent += 1;
        }
        match client.try_recv() {
            Ok(Some(answer)) if answer.starts_with(b"OK PUB ") => {
                answered += 1;
                taken.store(answered, Ordering::SeqCst);
            }
            Ok(Some(answer)) => assert_eq!(answer, b"BYE drain", "{}", answer.escape_ascii()),
            Ok(None) | Err(_) => return,
        }
    }
}

#[test]
fn a_drain_under_load_delivers_all_that_was_taken_before_it_and_no_gaps() {
    let mut program = Program::serve(ROOMY.iter().copied().chain(["--drain-time=1s"]));
    let mut subscribers: Vec<Client> = (0..20).map(|n| program.client(PLAIN[n % 2])).collect();
    subscribers.iter_mut().for_each(|client| assert_eq!(client.ask("SUB news"), "OK SUB news"));
    let publisher = program.client(Framing::Line);
    let taken = AtomicUsize::new(0);
    let (before, streams) = std::thread::scope(|scope| {
        let streams: Vec<_> = subscribers.iter_mut().map(|client| scope.spawn(|| client.recv_to_end())).collect();
        scope.spawn(|| publish_to_the_end(publisher, &taken));
        wait_until("the load is on", || taken.load(Ordering::SeqCst) >= 1_000);
        let before = taken.load(Ordering::SeqCst);
        program.signal(Signal::TERM);
        (before, streams.into_iter().map(|stream| stream.join().unwrap()).collect::<Vec<_>>())
    });
    drop(subscribers);
    assert_eq!(program.wait(), Some(0));
    for mut messages in streams {
        assert_eq!(messages.pop().as_deref(), Some("BYE drain"));
        for (n, message) in messages.iter().enumerate() {
            assert_eq!(*message, format!("MSG news {n}"));
        }
        assert!(messages.len() >= before, "{} of {before} that were taken before the signal", messages.len());
    }
    let log = program.log();
    assert!(log.contains("draining: 21 connections over 1s") && log.contains("drained"), "{log}");
}

#[test]
fn a_drain_closes_connections_spread_over_its_time() {
    const CLIENTS: usize = 200;
    let mut program = Program::serve(["--shards=2", "--drain-time=4s"]);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|n| program.client(PLAIN[n % 2])).collect();
    clients.iter_mut().for_each(Client::expect_nothing);
    program.signal(Signal::TERM);
    let mut closed = 0;
    wait_until("half of the clients are closed", || {
        clients.retain_mut(|client| match client.recv_within(Duration::from_micros(1)) {
            Some(end) => {
                assert_eq!(end.unwrap().as_deref(), Some(&b"BYE drain"[..]));
                client.expect_end();
                closed += 1;
                false
            }
            None => true,
        });
        closed >= CLIENTS / 2
    });
    assert!(closed < CLIENTS, "some are still open when half are closed");
    // Those are served while they wait for their turn.
    let last = clients.last_mut().unwrap();
    last.send("PING");
    assert_eq!(last.recv(), "PONG");
    for client in &mut clients {
        client.expect("BYE drain");
        client.expect_end();
    }
    drop(clients);
    assert_eq!(program.wait(), Some(0));
}

#[test]
fn a_draining_server_takes_no_new_connections() {
    let mut program = Program::serve(["--shards=2", "--drain-time=1h"]);
    // Each shard closes its first connection at once, and the others one by one over the hour.
    let mut old: Vec<_> = (0..8).map(|_| program.client(Framing::Line)).collect();
    old.iter_mut().for_each(|client| assert_eq!(client.ask("PING"), "PONG"));
    program.signal(Signal::TERM);
    program.wait_for_line(0, |line| line.contains("draining: 8 connections over 1h"));
    wait_until("new connections are refused", || {
        let client = Client::try_connect(program.addr(Framing::Line), Framing::Line);
        client.map_or(true, |mut client| !client.is_served())
    });
    let is_served = |client: &mut &mut Client| {
        let ping = client.frame("PING");
        client.try_send_raw(ping).is_ok() && matches!(client.try_recv(), Ok(Some(answer)) if answer == b"PONG")
    };
    let served = old.iter_mut().filter_map(|mut client| is_served(&mut client).then_some(())).count();
    assert!(served >= 6, "{served} of the old connections are served");
}

#[test]
fn without_connections_the_end_comes_at_once_on_either_signal() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut program = Program::serve(["--shards=2", "--drain-time=1h"]);
        program.signal(signal);
        assert_eq!(program.wait(), Some(0));
        assert!(program.log().contains("drained"));
    }
}

#[test]
fn a_second_signal_ends_it_at_once_with_a_fault() {
    for signals in [[Signal::TERM, Signal::TERM], [Signal::INT, Signal::TERM]] {
        let mut program = Program::serve(["--shards=2", "--drain-time=1h"]);
        // More than the shards close at once, so that the drain would take its hour.
        let mut clients: Vec<_> = (0..8).map(|_| program.client(Framing::Line)).collect();
        clients.iter_mut().for_each(Client::expect_nothing);
        program.signal(signals[0]);
        program.wait_for_line(0, |line| line.contains("draining: "));
        program.signal(signals[1]);
        assert_eq!(program.wait(), Some(1));
        assert!(program.log().contains("second signal"));
    }
}

#[test]
fn clients_that_never_close_their_side_do_not_keep_a_drain_from_ending() {
    let mut program = Program::serve(["--shards=2", "--drain-time=0"]);
    let mut clients: Vec<Client> = (0..10).map(|n| program.client(PLAIN[n % 2])).collect();
    clients.iter_mut().for_each(Client::expect_nothing);
    program.signal(Signal::TERM);
    assert_eq!(program.wait(), Some(0));
    // They are told all the same.
    for client in &mut clients {
        client.expect("BYE drain");
        client.expect_end();
    }
}

#[test]
fn a_grace_beyond_all_reckoning_lasts_until_it_is_called_off() {
    let server = Fixture::hub(config());
    let mut client = server.client(Framing::Line);
    server.drain_after(Duration::MAX, Duration::ZERO);
    assert!(server.is_draining());
    assert_eq!(client.ask("PING"), "PONG");
    server.end().unwrap();
    client.expect("BYE drain");
}

/// Tells a thread to stop when it is dropped: also when the test fails, which would wait for it without end.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Connects again and again until told to stop; how many connects were refused.
fn connect_until(stop: &AtomicBool, addr: std::net::SocketAddr) -> usize {
    let mut refused = 0;
    while !stop.load(Ordering::SeqCst) {
        refused += usize::from(std::net::TcpStream::connect(addr).is_err());
    }
    refused
}

#[test]
fn a_new_program_takes_over_from_one_that_drains_and_nobody_is_refused() {
    let port = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let listen = format!("--listen=line={port}");
    let flags = ["--shards=1", "--drain-grace=1h", "--drain-time=1h", &listen];
    let mut programs = vec![Program::serve(flags)];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let connects = scope.spawn(|| connect_until(&stop, port));
        let stopping = Stop(&stop);
        for generation in 0..3 {
            let old = programs.last_mut().unwrap();
            // Enough that the drain would take its hour.
            let mut clients: Vec<_> = (0..8).map(|_| Client::connect(port, Framing::Line)).collect();
            clients.iter_mut().for_each(Client::expect_nothing);
            // While it does not drain, another one is refused.
            let ended = Program::run(flags);
            assert_eq!(ended.code, Some(1), "{}", ended.stderr);
            assert!(ended.stderr.contains("the port is in use"), "{}", ended.stderr);
            old.signal(Signal::TERM);
            old.wait_for_line(0, |line| line.contains("not ready from now on"));
            let new = Program::serve(flags);
            assert!(new.log().contains("took over"), "generation {generation}: {}", new.log());
            programs.push(new);
        }
        drop(stopping);
        assert_eq!(connects.join().unwrap(), 0, "connects that were refused");
    });
}

#[test]
fn a_server_whose_addresses_are_all_taken_over_lets_go_of_them_and_drains() {
    let port = free_port();
    let hour = Duration::from_secs(3600);
    let config = |addr: &str| {
        settings! {
            listen: vec![format!("line={addr}:{port}").parse().unwrap()],
            shards: Some(1),
            drain_grace: hour,
            ..config()
        }
    };
    let old = Fixture::hub(config("127.0.0.1"));
    let mut client = old.client(Framing::Line);
    client.expect_nothing();
    old.drain(Duration::ZERO);
    client.expect_nothing();
    // The new one listens on more than the old one did.
    let new = Fixture::hub(config("0.0.0.0"));
    client.expect("BYE drain");
    drop(client);
    old.wait_for_connections(0);
    let addr = ([127, 0, 0, 1], port).into();
    let mut clients: Vec<_> = (0..8).map(|_| Client::connect(addr, Framing::Line)).collect();
    clients.iter_mut().for_each(Client::expect_nothing);
    assert_eq!((old.conn_count(), new.conn_count()), (0, 8));
}
