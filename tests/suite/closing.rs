//! How connections end: by a timeout, a reset, a half-close, and thousands at once.

use std::time::Duration;

use corecast::{CloseReason, Config, Framing};

#[cfg(feature = "program")]
use crate::support::{Client, Program};
use crate::support::{Fixture, PLAIN, config, wait_until};

/// How long a step of a test listens while it has nothing else to wait for.
const BEAT: Duration = Duration::from_millis(100);

fn impatient() -> Config {
    settings! { read_timeout: Duration::from_secs(1), ..config() }
}

/// Waits until a silent client of a server with [`impatient`] settings is closed, and does `meanwhile` again and again.
fn outlast_a_silent_client(server: &Fixture, mut meanwhile: impl FnMut()) {
    let mut silent = server.client(Framing::Line);
    wait_until("the silent client is closed", || {
        meanwhile();
        match silent.recv_within(BEAT) {
            Some(end) => {
                assert_eq!(end.unwrap().as_deref(), Some(&b"BYE read-timeout"[..]));
                true
            }
            None => false,
        }
    });
    silent.expect_end();
}

#[test]
fn bytes_that_complete_no_message_do_not_put_off_the_read_timeout() {
    let server = Fixture::hub(impatient());
    for framing in PLAIN {
        let mut client = server.client(framing);
        client.expect_nothing();
        let mut bytes = client.frame("PING trickled ".repeat(1_000)).into_iter();
        // It sends a byte with each beat until it is told that this is not enough.
        let mut end = None;
        wait_until("the trickling client is closed", || {
            client.send_raw([bytes.next().unwrap()]);
            end = client.recv_within(BEAT);
            end.is_some()
        });
        assert_eq!(end.unwrap().unwrap().as_deref(), Some(&b"BYE read-timeout"[..]));
        client.expect_end();
    }
    server.wait_for_connections(0);
    assert_eq!(server.closed(CloseReason::ReadTimeout), 2);
}

#[test]
fn a_client_that_pings_in_time_stays_and_a_silent_one_does_not() {
    let server = Fixture::hub(impatient());
    let mut lively = PLAIN.map(|framing| server.client(framing));
    for _ in 0..3 {
        outlast_a_silent_client(&server, || {
            lively.iter_mut().for_each(|client| assert_eq!(client.ask("PING"), "PONG"));
        });
    }
    server.wait_for_connections(2);
    assert_eq!(server.closed(CloseReason::ReadTimeout), 3);
}

#[test]
fn a_client_that_only_receives_is_closed_by_the_read_timeout_all_the_same() {
    let server = Fixture::hub(impatient());
    let mut listener = server.client(Framing::Line);
    assert_eq!(listener.ask("SUB news"), "OK SUB news");
    wait_until("it is closed", || {
        server.publish("news", "text").unwrap();
        listener.recv().starts_with("BYE ")
    });
    listener.expect_end();
    assert_eq!(server.closed(CloseReason::ReadTimeout) + server.conn_count() as u64, 1);
}

#[test]
fn without_a_read_timeout_silence_never_closes() {
    let patient = Fixture::hub(settings! { read_timeout: Duration::ZERO, ..config() });
    let mut silent = PLAIN.map(|framing| patient.client(framing));
    silent[0].send_raw("PING begun");
    let impatient = Fixture::hub(impatient());
    for _ in 0..3 {
        outlast_a_silent_client(&impatient, || {});
    }
    silent[0].send_raw(" and finished\n");
    silent[0].expect("PONG begun and finished");
    silent[1].expect_nothing();
}

#[test]
fn a_reset_in_the_middle_of_a_message_leaves_nothing_behind() {
    let server = Fixture::hub(config());
    let mut witness = server.client(Framing::Line);
    let mut sent = 0;
    for round in 0..40 {
        let mut client = server.client(PLAIN[round % 2]);
        let (whole, half) = (client.frame("SUB news"), client.frame("PING never finished"));
        let bytes = [&whole[..], &half[..half.len() - 3]].concat();
        client.send_raw(&bytes);
        client.expect("OK SUB news");
        sent += bytes.len();
        // The half message is held by the server, not by the kernel.
        server.wait_for_bytes_in(sent);
        client.reset();
    }
    server.wait_for_connections(1);
    assert_eq!(server.closed(CloseReason::Reset), 40);
    let matched = server.sum(|shard| shard.matched.get());
    server.publish("news", "nobody is left").unwrap();
    witness.expect_nothing();
    assert_eq!(server.sum(|shard| shard.matched.get()), matched);
}

#[test]
fn a_client_that_closes_its_sending_side_gets_every_answer_first() {
    const PINGS: usize = 5_000;
    // Small buffers, so that most answers are still to be written when the client's end is seen.
    let server = Fixture::hub(settings! { so_sndbuf: Some(4_096), ..config() });
    for framing in PLAIN {
        let mut client = server.narrow_client(framing);
        let mut sender = client.clone();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                (0..PINGS).for_each(|n| sender.send(format!("PING {n} {}", "x".repeat(100))));
                sender.finish_sending();
            });
            for n in 0..PINGS {
                client.expect(&format!("PONG {n} {}", "x".repeat(100)));
            }
            client.expect_end();
        });
    }
    server.wait_for_connections(0);
    assert_eq!(server.closed(CloseReason::ClientClosed), 2);
}

#[test]
fn a_message_without_its_end_is_not_delivered_when_the_client_closes() {
    let server = Fixture::hub(settings! { client_publish: true, ..config() });
    let mut subscriber = server.client(Framing::Line);
    assert_eq!(subscriber.ask("SUB news"), "OK SUB news");
    for framing in PLAIN {
        let mut client = server.client(framing);
        let frame = client.frame("PUB news text");
        client.send_raw(&frame[..frame.len() - 1]);
        client.finish_sending();
        client.expect_end();
    }
    server.wait_for_connections(1);
    subscriber.expect_nothing();
}

#[cfg(feature = "program")]
#[test]
fn five_thousand_clients_that_close_at_once_leave_nothing_behind() {
    const CLIENTS: usize = 5_000;
    const MARGIN_BYTES: u64 = 2 << 20;
    let mut program = Program::serve(["--shards", "2", "--report-every", "200ms"]);
    let all_gone = |line: &str| line.contains("connections=0 (0+0) ") && line.contains(" polls=0 ");
    // What is opened and taken with the first connections belongs to the server, not to them.
    let mut first = program.client(Framing::Line);
    assert!(first.is_served());
    let logged = program.lines().len();
    drop(first);
    program.wait_for_line(logged, all_gone);
    let fds = program.open_fds();

    let mut resident = Vec::new();
    for _ in 0..2 {
        let mut clients: Vec<Client> = (0..CLIENTS).map(|n| program.client(PLAIN[n % 2])).collect();
        clients.iter_mut().for_each(|client| client.send("SUB news"));
        clients.iter_mut().for_each(|client| client.expect("OK SUB news"));
        resident.push(program.resident_bytes());
        assert_eq!(program.open_fds(), fds + CLIENTS);

        let logged = program.lines().len();
        // Half of them end in order, half with a reset.
        for (n, client) in clients.into_iter().enumerate() {
            if n % 4 < 2 { drop(client) } else { client.reset() }
        }
        program.wait_for_line(logged, all_gone);
        assert_eq!(program.open_fds(), fds);
    }
    println!("resident bytes with {CLIENTS} connections: {resident:?}");
    assert!(resident[1] <= resident[0] + MARGIN_BYTES, "the second round took more memory: {resident:?}");
    assert!(program.client(Framing::Line).is_served());
}
