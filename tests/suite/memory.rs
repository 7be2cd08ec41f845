//! What all connections hold together has a bound: those that hold the most are closed, and the others notice nothing.

#[cfg(feature = "program")]
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use corecast::{CloseReason, Config, Framing, SlowConsumer};

#[cfg(feature = "program")]
use crate::support::Program;
use crate::support::http::{FIN, HttpClient, TEXT, frame};
use crate::support::{Client, Fixture, PLAIN, config, wait_until};

const MIB: usize = 1 << 20;

fn bounded() -> Config {
    settings! { shards: Some(2), buffers_max: 2 * MIB, client_publish: true, ..config() }
}

fn held(server: &Fixture) -> u64 {
    server.sum(|shard| shard.held_bytes.get())
}

/// Idle clients of each kind, one of which has subscribed.
fn idle(server: &Fixture) -> (Vec<Client>, HttpClient) {
    let mut clients: Vec<_> = (0..20).map(|n| server.client(PLAIN[n % 2])).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.ask("SUB idle"), "OK SUB idle"));
    let mut browser = HttpClient::websocket(server.addr(Framing::Http), "/ws?topic=idle", "");
    assert_eq!(browser.recv(), "OK SUB idle");
    (clients, browser)
}

/// Asserts that those have noticed nothing.
fn expect_unharmed(server: &Fixture, (mut clients, mut browser): (Vec<Client>, HttpClient)) {
    server.publish("idle", "still here").unwrap();
    clients.iter_mut().for_each(|client| client.expect("MSG idle still here"));
    assert_eq!(browser.recv(), "MSG idle still here");
    clients.iter_mut().for_each(Client::expect_nothing);
}

/// Connects so many that each send the beginning of something and never its end; what is held must stay within the bound
/// all the while.
fn besiege(what: &str, framing: Framing, count: usize, beginning: &[u8], config: Config) {
    let server = Fixture::hub(config);
    let bystanders = idle(&server);
    let most = server.buffers_max() as u64;
    let addr = server.addr(framing);
    let mut besiegers = Vec::new();
    let mut peak = 0;
    for _ in 0..count {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.write_all(beginning).unwrap();
        besiegers.push(stream);
        peak = peak.max(held(&server));
    }
    wait_until(&format!("some are closed: {what}"), || {
        server.closed(CloseReason::MemoryPressure) > 0 || besiegers.is_empty()
    });
    wait_until("all that came is read", || {
        peak = peak.max(held(&server));
        server.conn_count() < count + 21 && held(&server) <= most
    });
    // A turn may add what it reads before it is looked at.
    assert!(peak <= most + 600_000, "{what}: {peak} bytes were held");
    expect_unharmed(&server, bystanders);
    assert_eq!(server.drops(), []);
    drop(besiegers);
    wait_until("nothing is held", || held(&server) == 0);
}

#[test]
fn messages_without_an_end_are_bounded_over_all_connections() {
    let line = vec![b'x'; 63_000];
    besiege("lines", Framing::Line, 80, &line, bounded());
    let length = [&60_000_u32.to_be_bytes()[..], &line[..50_000]].concat();
    besiege("lengths", Framing::Length, 80, &length, bounded());
    let upgrade = crate::support::http::upgrade("/ws", "").into_bytes();
    let long = [&upgrade[..], &frame(FIN | TEXT, vec![b'x'; 60_000])[..59_000]].concat();
    besiege("WebSocket messages", Framing::Http, 80, &long, bounded());
    let fragments = [&upgrade[..], &frame(TEXT, "x"), &frame(0, vec![b'x'; 1_000]).repeat(50)].concat();
    besiege("WebSocket fragments", Framing::Http, 80, &fragments, bounded());
}

#[test]
fn many_connections_that_hold_a_little_each_are_bounded_too() {
    let small = settings! { max_message: 4_096, queue_bytes_max: 8_192, buffers_max: 256 * 1024, ..bounded() };
    besiege("short lines", Framing::Line, 600, &[b'x'; 700], small.clone());
    let head = format!("GET /ws HTTP/1.1\r\nHost: x\r\nCookie: {}", "x".repeat(2_000));
    besiege("heads", Framing::Http, 300, head.as_bytes(), small);
}

#[test]
fn a_client_that_is_closed_for_it_is_told() {
    let server = Fixture::hub(settings! { shards: Some(1), ..bounded() });
    let mut clients: Vec<_> = (0..60).map(|_| server.client(Framing::Line)).collect();
    for client in &mut clients {
        client.send_raw(vec![b'x'; 60_000]);
    }
    server.wait_for_bytes_in(60 * 60_000);
    let mut told = 0;
    for client in &mut clients {
        match client.recv_within(Duration::from_millis(20)) {
            Some(Ok(Some(bye))) => {
                assert_eq!(String::from_utf8(bye).unwrap(), "BYE memory-pressure");
                client.expect_end();
                told += 1;
            }
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    }
    drop(clients);
    wait_until("all are counted", || server.closed(CloseReason::MemoryPressure) == told);
    assert!(told > 10, "{told} of 60 were closed: only so many fit");
}

#[test]
fn slow_consumers_with_full_queues_are_bounded_together_and_what_they_miss_is_counted() {
    let server = Fixture::hub(settings! {
        shards: Some(1),
        so_sndbuf: Some(4_096),
        slow_consumer: SlowConsumer::Skip,
        write_timeout: Duration::ZERO,
        queue_messages_max: 1_024,
        ..bounded()
    });
    let bystanders = idle(&server);
    let mut stalled: Vec<_> = (0..40).map(|_| server.narrow_client(Framing::Line)).collect();
    for (n, client) in stalled.iter_mut().enumerate() {
        // Each has messages of its own: what many wait for counts once.
        assert_eq!(client.ask(format!("SUB own{n}")), format!("OK SUB own{n}"));
    }
    let mut published = 0;
    wait_until("some are closed", || {
        for n in 0..stalled.len() {
            if server.publish(&format!("own{n}"), vec![b'x'; 8_000]).is_ok() {
                published += 1;
            }
        }
        assert!(held(&server) < 3 * MIB as u64, "{} bytes are held", held(&server));
        server.closed(CloseReason::MemoryPressure) > 0
    });
    assert!(published > 200, "{published}");
    expect_unharmed(&server, bystanders);
    wait_until("what waited for them is counted", || server.dropped(corecast::DropReason::Closed) > 0);
    drop(stalled);
    wait_until("nothing is held", || held(&server) == 0);
    assert_eq!(server.sum(|shard| shard.queued_bytes.get()), 0);
}

#[test]
fn what_many_wait_for_counts_once() {
    let server =
        Fixture::hub(settings! { shards: Some(1), so_sndbuf: Some(4_096), write_timeout: Duration::ZERO, ..bounded() });
    let mut stalled: Vec<_> = (0..40).map(|_| server.narrow_client(Framing::Line)).collect();
    stalled.iter_mut().for_each(|client| assert_eq!(client.ask("SUB news"), "OK SUB news"));
    // 40 queues of 256 KiB each are ten times the bound.
    for _ in 0..60 {
        futures_lite::future::block_on(server.publish("news", vec![b'x'; 8_000]).unwrap().receipt());
    }
    assert!(server.sum(|shard| shard.queued_bytes.get()) > 4 * MIB as u64);
    assert!(held(&server) < MIB as u64, "{}", held(&server));
    assert_eq!(server.closed(CloseReason::MemoryPressure), 0);
}

#[test]
fn those_that_hold_the_most_for_the_longest_go_first() {
    let server = Fixture::hub(settings! { shards: Some(1), ..bounded() });
    let mut small: Vec<_> = (0..50).map(|_| server.client(Framing::Line)).collect();
    for client in &mut small {
        client.send_raw(format!("PING {}", "y".repeat(500)));
    }
    let mut large: Vec<_> = (0..60).map(|_| server.client(Framing::Line)).collect();
    for client in &mut large {
        client.send_raw(vec![b'x'; 60_000]);
    }
    server.wait_for_bytes_in(60 * 60_000 + 50 * 505);
    for client in &mut small {
        client.send_raw("z\n");
        assert!(client.recv().ends_with("yz"), "a short message is not what the memory is needed for");
    }
    drop(large);
    wait_until("some were closed", || server.closed(CloseReason::MemoryPressure) > 10);
}

#[test]
fn no_subscription_is_taken_in_while_the_process_has_too_much_memory() {
    // Less than the tests themselves take; who comes before that is noticed is let in.
    let (server, mut client) = (0..100)
        .find_map(|_| {
            let server = Fixture::hub(settings! { max_memory: 16 * MIB, ..config() });
            let mut client = server.client(Framing::Line);
            (client.ask("SUB early") == "OK SUB early").then_some((server, client))
        })
        .expect("one is let in");
    let mut n = 0;
    wait_until("a subscription is refused", || {
        n += 1;
        client.ask(format!("SUB early late{n} later{n}")).starts_with("ERR full ")
    });
    assert_eq!(client.ask("SUB early"), "OK SUB early", "it has that one");
    server.publish(&format!("late{n}"), "refused").unwrap();
    server.publish("early", "taken in").unwrap();
    client.expect("MSG early taken in");
    assert_eq!(client.ask("UNSUB early"), "OK UNSUB early");
}

/// Resident bytes of a program.
#[cfg(feature = "program")]
fn resident(program: &Program) -> usize {
    let text = fs::read_to_string(format!("/proc/{}/statm", program.pid().as_raw_nonzero())).unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

/// Each publish keeps the list of subscribers as it was, and each one here has another list.
#[test]
#[cfg(feature = "program")]
fn a_client_that_comes_and_goes_between_its_publishes_takes_little_memory() {
    const ROUNDS: usize = 30;
    const EACH: usize = 64;
    let program = Program::serve(["--shards", "1", "--client-publish"]);
    let mut subscribers: Vec<_> = (0..3_000).map(|_| program.client(Framing::Line)).collect();
    subscribers.iter_mut().for_each(|client| client.send("SUB big"));
    subscribers.iter_mut().for_each(|client| client.expect("OK SUB big"));
    let before = resident(&program);
    let (mut client, mut peak) = (program.client(Framing::Line), 0);
    for _ in 0..ROUNDS {
        client.send_raw("PUB big x\nUNSUB big\nSUB big\n".repeat(EACH));
        let mut ended = 0;
        while ended < EACH {
            ended += usize::from(client.recv().starts_with("OK SUB "));
        }
        peak = peak.max(resident(&program));
    }
    let grown = peak.saturating_sub(before);
    assert!(grown < 20 * MIB, "{grown} bytes for {} publishes", ROUNDS * EACH);
}

/// Starts a siege as it was seen: thousands of clients, each with nearly a whole message.
#[cfg(feature = "program")]
#[test]
fn the_memory_of_the_process_stays_below_max_memory_under_a_siege() {
    let program = Program::serve(["--shards", "2", "--max-memory", "64MiB", "--max-connections", "8000"]);
    let mut bystander = program.client(Framing::Line);
    assert_eq!(bystander.ask("SUB news"), "OK SUB news");
    let beginning = vec![b'x'; 63_000];
    let mut peak = 0;
    // All of them come before any sends something, so that none is refused.
    let mut besiegers: Vec<_> = (0..2_500).map(|_| program.client(Framing::Length)).collect();
    besiegers.last_mut().unwrap().expect_nothing();
    for (n, client) in besiegers.iter_mut().enumerate() {
        // It may be closed before it has sent all.
        let _ = client.try_send_raw(63_000_u32.to_be_bytes()).and_then(|()| client.try_send_raw(&beginning[1..]));
        if n % 50 == 0 {
            peak = peak.max(resident(&program));
            bystander.expect_nothing();
        }
    }
    peak = peak.max(resident(&program));
    assert!(peak < 80 * MIB, "{} MiB", peak / MIB);
    bystander.expect_nothing();
}
