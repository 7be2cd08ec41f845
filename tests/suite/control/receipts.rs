//! Receipts add up, whatever clients do meanwhile.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use corecast::Framing;
use serde_json::Value;

use super::http::Http;
use super::{Plane, config};
use crate::support::{Client, Fixture, PLAIN, Random, wait_until};

/// What receipts sum up to.
#[derive(Debug, Default)]
struct Sums {
    matched: u64,
    written: u64,
    queued: u64,
    dropped: u64,
}

impl Sums {
    /// Adds a receipt, which must add up itself.
    #[track_caller]
    fn add(&mut self, receipt: &Value) {
        let count = |key: &str| receipt[key].as_u64().unwrap_or_else(|| panic!("no {key}: {receipt}"));
        let dropped: u64 = receipt["dropped"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
        let (matched, written, queued) = (count("matched"), count("written"), count("queued"));
        assert_eq!(matched, written + queued + dropped, "{receipt}");
        self.matched += matched;
        self.written += written;
        self.queued += queued;
        self.dropped += dropped;
    }
}

/// Subscribes, reads for a while, leaves in order, and comes again, until all is published; counts what came.
fn churn(
    addrs: [SocketAddr; 2],
    framing: Framing,
    mut stays: impl FnMut() -> usize,
    done: &AtomicBool,
    counted: &AtomicU64,
) {
    let is_message = |message: &[u8]| message.starts_with(b"MSG t ");
    while !done.load(Ordering::SeqCst) {
        let mut client = Client::connect(addrs[framing as usize], framing);
        client.send("SUB t");
        let mut messages = 0;
        for _ in 0..stays() {
            client.send("PING");
            loop {
                let message = client.recv_bytes();
                messages += u64::from(is_message(&message));
                if message == b"PONG" {
                    break;
                }
            }
        }
        client.finish_sending();
        while let Some(message) = client.try_recv().expect("the server ends it in order") {
            messages += u64::from(is_message(&message));
        }
        counted.fetch_add(messages, Ordering::SeqCst);
    }
}

#[test]
fn a_thousand_parallel_publishes_are_all_accounted_for_while_clients_come_and_go() {
    const PUBLISHERS: usize = 8;
    const EACH: usize = 125;
    let plane =
        Plane::over(Fixture::hub(settings! { queue_messages_max: 4096, queue_bytes_max: 64 << 20, ..config() }));
    let (done, counted) = (AtomicBool::new(false), AtomicU64::new(0));
    let (addr, addrs) = (plane.addr(), PLAIN.map(|framing| plane.server.addr(framing)));
    let mut random = Random::new();
    let mut sums = Sums::default();
    std::thread::scope(|scope| {
        for n in 0..16 {
            let mut random = Random::from_seed(random.any());
            let (done, counted) = (&done, &counted);
            scope.spawn(move || churn(addrs, PLAIN[n % 2], || 1 + random.below(20), done, counted));
        }
        wait_until("somebody is subscribed", || plane.sum(|shard| shard.topics.get()) > 0 || plane.conn_count() > 8);
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| {
                scope.spawn(move || {
                    let mut http = Http::connect(addr);
                    let publish =
                        |n| http.post("/v1/topics/t/messages?receipt=true", format!("{publisher}-{n}")).json();
                    (0..EACH).map(publish).collect::<Vec<_>>()
                })
            })
            .collect();
        for publisher in publishers {
            publisher.join().unwrap().iter().for_each(|receipt| sums.add(receipt));
        }
        done.store(true, Ordering::SeqCst);
    });
    plane.wait_for_connections(0);
    let counted = counted.into_inner();
    println!("{sums:?}, counted {counted}");
    assert!(sums.matched > 1000, "the clients were there: {sums:?}");
    assert_eq!(plane.sum(|shard| shard.matched.get()), sums.matched);
    let dropped: u64 = plane.drops().iter().map(|(_, count)| count).sum();
    assert_eq!(plane.sum(|shard| shard.delivered.get()), counted, "what was delivered was received");
    assert_eq!(counted + dropped, sums.matched, "and the rest was dropped under a name");
    assert!(sums.written <= counted && counted <= sums.written + sums.queued, "{sums:?}, counted {counted}");
}
