//! Slow consumers: a client that reads nothing is treated as its policy says, is told exactly what it missed, and
//! harms nobody else.

use std::collections::BTreeMap;
use std::time::Duration;

use corecast::{CloseReason, Config, DropReason, Framing, SlowConsumer, Target};

use futures_lite::future::block_on;

use crate::support::{Client, Fixture, PLAIN, config, wait_until};

const MESSAGES: usize = 200;

/// Buffers so small that a few messages of a KiB fill socket and queue.
fn narrow(slow_consumer: SlowConsumer) -> Config {
    settings! {
        shards: Some(1),
        max_message: 2_048,
        queue_messages_max: 4,
        queue_bytes_max: 16 * 1024,
        so_sndbuf: Some(4_096),
        write_timeout: Duration::ZERO,
        slow_consumer,
        ..config()
    }
}

/// A server with a client that never reads and one that reads all.
struct Scene {
    stalled: Client,
    healthy: Client,
    /// Last, so that the clients are gone when it ends: it would give them time to say farewell.
    server: Fixture,
}

impl Scene {
    fn new(config: Config, framing: Framing) -> Scene {
        let server = Fixture::hub(config);
        let mut stalled = server.narrow_client(framing);
        let mut healthy = server.client(framing);
        for client in [&mut stalled, &mut healthy] {
            assert_eq!(client.ask("SUB even odd"), "OK SUB even odd");
        }
        Scene { stalled, healthy, server }
    }

    /// Publishes numbered messages to two topics in turn, each once the healthy client has the one before.
    fn publish(&mut self, numbers: std::ops::Range<usize>) {
        for n in numbers {
            let text = text(n);
            self.server.publish(topic(n), text.clone()).unwrap();
            self.healthy.expect(&format!("MSG {} {text}", topic(n)));
        }
    }

    /// Has the stalled client read until it has got, or been told that it missed, `count` messages.
    fn catch_up(&mut self, count: usize) -> Caught {
        let mut caught = Caught::default();
        while caught.numbers.len() + caught.missed() < count {
            caught.take(&self.stalled.recv());
        }
        assert_eq!(caught.numbers.len() + caught.missed(), count);
        self.stalled.expect_nothing();
        caught
    }
}

fn topic(n: usize) -> &'static str {
    ["even", "odd"][n % 2]
}

fn text(n: usize) -> String {
    format!("{n} {}", "x".repeat(1_024))
}

/// What a client got, and what it was told that it missed.
#[derive(Default)]
struct Caught {
    numbers: Vec<usize>,
    /// By reason and topic.
    gaps: BTreeMap<(String, String), usize>,
}

impl Caught {
    fn take(&mut self, message: &str) {
        let words: Vec<_> = message.split(' ').collect();
        match words[..] {
            ["MSG", to, n, padding] => {
                let n = n.parse().unwrap();
                assert_eq!((to, padding.len()), (topic(n), 1_024), "message {n} is whole");
                self.numbers.push(n);
            }
            ["GAP", topic, count, reason] => {
                *self.gaps.entry((reason.to_owned(), topic.to_owned())).or_default() += count.parse::<usize>().unwrap();
            }
            _ => panic!("unexpected: {message}"),
        }
    }

    fn missed(&self) -> usize {
        self.gaps.values().sum()
    }

    /// How many were missed for a reason, over all topics.
    fn missed_for(&self, reason: DropReason) -> usize {
        self.gaps.iter().filter(|((name, _), _)| name == reason.name()).map(|(_, count)| count).sum()
    }

    /// Asserts that each message is there, or told of as missed under its own topic, and that the server counts as
    /// many drops by the same reasons.
    fn hold_against(&self, server: &Fixture, published: usize) {
        assert!(self.numbers.is_sorted_by(|a, b| a < b), "in order, none twice: {:?}", self.numbers);
        for parity in 0..2 {
            let got = self.numbers.iter().filter(|n| *n % 2 == parity).count();
            let missed: usize =
                self.gaps.iter().filter(|((_, name), _)| name == topic(parity)).map(|(_, count)| count).sum();
            assert_eq!(got + missed, published / 2, "topic {}: {:?}", topic(parity), self.gaps);
        }
        for reason in DropReason::ALL {
            assert_eq!(server.dropped(reason), self.missed_for(reason) as u64, "{reason}");
        }
    }
}

#[test]
fn skip_drops_what_does_not_fit_and_tells_how_many() {
    for framing in PLAIN {
        let mut scene = Scene::new(narrow(SlowConsumer::Skip), framing);
        scene.publish(0..MESSAGES);
        let caught = scene.catch_up(MESSAGES);
        let got = &caught.numbers;
        assert!(got.starts_with(&[0, 1, 2, 3]), "the queue keeps the first: {got:?}");
        assert!(got.len() < MESSAGES / 2, "{got:?}");
        assert_eq!(caught.missed_for(DropReason::QueueFull), MESSAGES - got.len());
        caught.hold_against(&scene.server, MESSAGES);

        // Later messages arrive again.
        scene.publish(MESSAGES..MESSAGES + 2);
        assert_eq!(scene.catch_up(2).numbers, [MESSAGES, MESSAGES + 1]);
    }
}

#[test]
fn drop_oldest_keeps_the_newest_and_tells_how_many_went() {
    for framing in PLAIN {
        let mut scene = Scene::new(narrow(SlowConsumer::DropOldest), framing);
        scene.publish(0..MESSAGES);
        let caught = scene.catch_up(MESSAGES);
        let got = &caught.numbers;
        assert_eq!((got[0], got[got.len() - 1]), (0, MESSAGES - 1), "the first is in the socket: {got:?}");
        assert!(got.len() < MESSAGES / 2, "{got:?}");
        assert_eq!(caught.missed_for(DropReason::DropOldest), MESSAGES - got.len());
        caught.hold_against(&scene.server, MESSAGES);
    }
}

#[test]
fn keep_latest_keeps_the_newest_of_each_topic() {
    for framing in PLAIN {
        // Room for the newest of each topic beside the notices of gaps, which have places in the queue too.
        let config = settings! { queue_messages_max: 16, ..narrow(SlowConsumer::KeepLatest) };
        let mut scene = Scene::new(config, framing);
        scene.publish(0..MESSAGES);
        let caught = scene.catch_up(MESSAGES);
        let got = &caught.numbers;
        assert!(got.ends_with(&[MESSAGES - 2, MESSAGES - 1]), "the newest of each topic: {got:?}");
        assert_eq!(got[0], 0);
        assert!(got.len() < MESSAGES / 2, "{got:?}");
        assert_eq!(caught.missed_for(DropReason::Superseded), MESSAGES - got.len());
        caught.hold_against(&scene.server, MESSAGES);
    }
}

#[test]
fn a_burst_of_which_the_socket_takes_a_part_is_accounted_for_under_every_policy() {
    const BURST: usize = 32;
    for policy in [SlowConsumer::Skip, SlowConsumer::DropOldest, SlowConsumer::KeepLatest] {
        for framing in PLAIN {
            let config = settings! { queue_messages_max: 16, ..narrow(policy) };
            let server = Fixture::hub(config);
            let mut client = server.narrow_client(framing);
            assert_eq!(client.ask("SUB even odd"), "OK SUB even odd");
            let (mut caught, mut published) = (Caught::default(), 0);
            for round in 1..=10 {
                // One topic a burst, so that the burst is one run of messages.
                let burst: Vec<_> = (published..published + 2 * BURST).filter(|n| n % 2 == round % 2).collect();
                published += 2 * BURST;
                let receipts: Vec<_> = burst.iter().map(|n| server.publish(topic(*n), text(*n)).unwrap()).collect();
                for receipt in receipts {
                    let receipt = block_on(receipt.receipt());
                    assert_eq!(receipt.matched, 1);
                    assert_eq!(receipt.written + receipt.queued + receipt.dropped(), 1);
                }
                // Every other time it has read all, so that nothing waits for it.
                while round % 2 == 0 && caught.numbers.len() + caught.missed() < round * BURST {
                    caught.take(&client.recv());
                }
            }
            client.expect_nothing();
            caught.hold_against(&server, published / 2);
            assert!(caught.missed() > 0, "the bursts are too much for it");
        }
    }
}

#[test]
fn disconnect_ends_the_connection_and_counts_each_message_that_waited() {
    for framing in PLAIN {
        let mut scene = Scene::new(narrow(SlowConsumer::Disconnect), framing);
        let mut published = 0;
        while scene.server.closed(CloseReason::SlowConsumer) == 0 {
            assert!(published < MESSAGES, "it is not disconnected");
            scene.publish(published..published + 1);
            published += 1;
        }
        // Others go on.
        scene.server.wait_for_connections(1);
        scene.publish(published..published + 20);
        published += 20;

        let mut caught = Caught::default();
        scene.stalled.recv_to_end().iter().for_each(|message| caught.take(message));
        assert_eq!(caught.numbers, Vec::from_iter(0..caught.numbers.len()));
        assert_eq!(caught.missed(), 0);
        let server = &scene.server;
        wait_until("all is counted", || server.sum(|shard| shard.publishes.get()) == published as u64);
        let meant_for_it = server.sum(|shard| shard.matched.get()) - published as u64;
        let dropped = server.dropped(DropReason::QueueFull) + server.dropped(DropReason::Closed);
        assert_eq!(server.dropped(DropReason::QueueFull), 1, "the message that did not fit");
        assert_eq!(caught.numbers.len() as u64 + dropped, meant_for_it, "received and dropped are all");
        assert_eq!(server.closed(CloseReason::SlowConsumer), 1);
    }
}

#[test]
fn the_policy_of_a_publish_overrides_the_servers() {
    let mut scene = Scene::new(narrow(SlowConsumer::Disconnect), Framing::Line);
    for n in 0..MESSAGES {
        scene.server.publish_to(Target::Topic(topic(n).parse().unwrap()), text(n), Some(SlowConsumer::Skip)).unwrap();
        scene.healthy.expect(&format!("MSG {} {}", topic(n), text(n)));
    }
    assert_eq!(scene.server.conn_count(), 2);
    let caught = scene.catch_up(MESSAGES);
    assert!(caught.missed_for(DropReason::QueueFull) > 0);
    caught.hold_against(&scene.server, MESSAGES);
}

#[test]
fn the_bytes_that_wait_for_a_client_are_bounded_as_well_as_the_messages() {
    let config = settings! { queue_messages_max: 1_000, ..narrow(SlowConsumer::Skip) };
    // The healthy client may hold its message before the server has counted it as written.
    let bound = (config.queue_bytes_max + text(0).len() + 64) as u64;
    let mut scene = Scene::new(config, Framing::Length);
    for n in 0..MESSAGES {
        scene.publish(n..n + 1);
        let queued = scene.server.sum(|shard| shard.queued_bytes.get());
        assert!(queued <= bound, "{queued} bytes wait");
    }
    assert!(scene.server.sum(|shard| shard.queued_bytes.get()) > bound / 2, "the bound is what stops them");
    let caught = scene.catch_up(MESSAGES);
    caught.hold_against(&scene.server, MESSAGES);
    wait_until("the queues are empty", || {
        let queued = |shard: &corecast::ShardMetrics| shard.queued_bytes.get() + shard.queued_messages.get();
        scene.server.sum(queued) == 0
    });
}

#[test]
fn broadcasts_and_direct_messages_that_a_client_misses_are_told_without_a_topic() {
    let mut scene = Scene::new(narrow(SlowConsumer::Skip), Framing::Line);
    let payload = "x".repeat(1_024);
    for _ in 0..MESSAGES {
        scene.server.broadcast(payload.clone()).unwrap();
        scene.healthy.expect(&format!("ALL {payload}"));
    }
    let (mut got, mut missed) = (0, 0);
    while got + missed < MESSAGES {
        let message = scene.stalled.recv();
        match message.strip_prefix("GAP * ").map(|gap| gap.split_once(' ').unwrap()) {
            Some((count, reason)) => {
                assert_eq!(reason, "queue-full");
                missed += count.parse::<usize>().unwrap();
            }
            None => got += usize::from(message == format!("ALL {payload}")),
        }
    }
    assert_eq!(scene.server.drops(), [(DropReason::QueueFull, missed as u64)]);
    scene.stalled.expect_nothing();
}

#[test]
fn a_client_that_takes_nothing_is_closed_by_the_write_timeout() {
    let config = settings! { write_timeout: Duration::from_secs(1), ..narrow(SlowConsumer::Skip) };
    let mut scene = Scene::new(config, Framing::Line);
    scene.publish(0..MESSAGES);
    wait_until("the write timeout closes it", || scene.server.closed(CloseReason::WriteTimeout) == 1);
    scene.server.wait_for_connections(1);
    scene.publish(0..2);
    scene.healthy.expect_nothing();
}

#[test]
fn a_client_that_reads_no_answers_is_not_read_until_it_does() {
    let config = settings! { max_message: 2_048, ..narrow(SlowConsumer::Skip) };
    let mut scene = Scene::new(config, Framing::Line);
    let ping = scene.stalled.frame(format!("PING {}", "x".repeat(1_024)));
    let mut sender = scene.stalled.clone();
    const PINGS: usize = 2_000;
    std::thread::scope(|scope| {
        scope.spawn(|| (0..PINGS).for_each(|_| sender.send_raw(&ping)));
        // The server stops reading: what it has answered and what it holds is a small part.
        wait_until("its queue is full", || scene.server.sum(|shard| shard.queued_messages.get()) >= 16);
        scene.publish(0..20);
        assert!(scene.server.sum(|shard| shard.messages_in.get()) < PINGS as u64 / 2);
        let mut pongs = 0;
        while pongs < PINGS {
            pongs += usize::from(scene.stalled.recv().starts_with("PONG "));
        }
    });
    assert_eq!(scene.server.conn_count(), 2);
}

#[test]
fn a_farewell_comes_after_all_else_that_a_client_is_told() {
    let mut scene = Scene::new(narrow(SlowConsumer::Skip), Framing::Line);
    scene.publish(0..MESSAGES);
    scene.server.shutdown();
    let messages = scene.stalled.recv_to_end();
    let (last, rest) = messages.split_last().unwrap();
    assert_eq!(last, "BYE drain");
    let mut caught = Caught::default();
    rest.iter().for_each(|message| caught.take(message));
    caught.hold_against(&scene.server, MESSAGES);
}
