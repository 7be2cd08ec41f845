//! Sockets that take a part of what they are given: each byte comes all the same, in order, and is counted.

use corecast::{Config, Framing};
use futures_lite::future::block_on;

use crate::support::http::HttpClient;
use crate::support::{Client, Fixture, PLAIN, Random, config, wait_until};

/// Messages of a burst at most: with the small ones, more than one `send` is given at once.
const BURST: usize = 48;

/// A subscriber of `news` of one encoding.
enum Reader {
    Plain(Client),
    WebSocket(HttpClient),
    Events(HttpClient),
}

impl Reader {
    fn plain(mut client: Client) -> Self {
        assert_eq!(client.ask("SUB news"), "OK SUB news");
        Reader::Plain(client)
    }

    #[track_caller]
    fn expect(&mut self, payload: &str) {
        let text = format!("MSG news {payload}");
        match self {
            Reader::Plain(client) => client.expect(&text),
            Reader::WebSocket(client) => assert_eq!(client.recv(), text),
            Reader::Events(client) => {
                let data = format!(r#"{{"type":"msg","topic":"news","payload":"{payload}"}}"#);
                assert_eq!(client.recv_event().data, data);
            }
        }
    }
}

/// Sockets that hold little, and room for all that they don't take.
fn narrow() -> Config {
    settings! {
        shards: Some(1),
        so_sndbuf: Some(4_096),
        queue_messages_max: 65_536,
        queue_bytes_max: 64 << 20,
        publish_queue: 65_536,
        ..config()
    }
}

/// A server with two readers of each encoding.
fn scene() -> (Vec<Reader>, Fixture) {
    let server = Fixture::hub(narrow());
    let http = server.addr(Framing::Http);
    let mut readers = Vec::new();
    for framing in PLAIN {
        readers.push(Reader::plain(server.narrow_client(framing)));
        readers.push(Reader::plain(server.client(framing)));
    }
    for _ in 0..2 {
        let mut client = HttpClient::websocket(http, "/ws?topic=news", "");
        assert_eq!(client.recv(), "OK SUB news");
        readers.push(Reader::WebSocket(client));
        readers.push(Reader::Events(HttpClient::events(http, "/sse?topic=news")));
    }
    (readers, server)
}

/// A text whose every place can be told from its neighbours; most are small, some larger than any socket's buffer.
fn payload(n: usize, random: &mut Random) -> String {
    let most = if random.below(4) == 0 { 16_384 } else { 256 };
    let len = random.below(most);
    let mut text = format!("{n}:");
    (0..len).for_each(|at| text.push((b'a' + ((n + at) % 26) as u8) as char));
    text
}

#[test]
fn clients_that_read_in_fits_and_starts_get_every_byte_and_receipts_are_exact() {
    const ROUNDS: usize = 40;
    let mut random = Random::new();
    let (mut readers, server) = scene();
    let mut read = vec![0; readers.len()];
    let mut payloads: Vec<String> = Vec::new();
    let (mut written, mut queued) = (0, 0);
    for round in 1..=ROUNDS {
        let burst = 1 + random.below(BURST);
        let first = payloads.len();
        payloads.extend((first..first + burst).map(|n| payload(n, &mut random)));
        let published: Vec<_> =
            payloads[first..].iter().map(|payload| server.publish("news", payload.clone()).unwrap()).collect();
        for published in published {
            let receipt = block_on(published.receipt());
            assert_eq!((receipt.matched, receipt.dropped()), (readers.len() as u64, 0));
            assert_eq!(receipt.last_write.is_some(), receipt.first_write.is_some());
            written += receipt.written;
            queued += receipt.queued;
        }
        for (reader, read) in readers.iter_mut().zip(&mut read) {
            // Those that have read all are written to directly again.
            let behind = payloads.len() - *read;
            let count = if round == ROUNDS || random.below(2) == 0 { behind } else { random.below(behind) };
            for payload in &payloads[*read..*read + count] {
                reader.expect(payload);
            }
            *read += count;
        }
    }
    let all = (payloads.len() * readers.len()) as u64;
    assert_eq!(written + queued, all);
    assert!(queued > all / 10 && written > all / 10, "both ways are tried: {written} written, {queued} queued");
    wait_until("all is counted", || server.sum(|shard| shard.delivered.get()) == all);
    assert_eq!(server.sum(|shard| shard.queued_messages.get() + shard.queued_bytes.get()), 0);
    assert_eq!(server.drops(), []);
}

#[test]
fn what_a_stalled_socket_took_and_what_waits_for_it_are_all_that_was_sent() {
    let mut random = Random::new();
    let (mut readers, server) = scene();
    let before = server.sum(|shard| shard.bytes_out.get());
    let payloads: Vec<String> = (0..20 * BURST).map(|n| payload(n, &mut random)).collect();
    let published: Vec<_> = payloads.iter().map(|payload| server.publish("news", payload.clone()).unwrap()).collect();
    for published in published {
        block_on(published.receipt());
    }
    let out = server.sum(|shard| shard.bytes_out.get() + shard.queued_bytes.get()) - before;
    assert!(server.sum(|shard| shard.queued_messages.get()) > 0, "the sockets are full");
    for reader in &mut readers {
        payloads.iter().for_each(|payload| reader.expect(payload));
    }
    wait_until("nothing waits", || server.sum(|shard| shard.queued_messages.get()) == 0);
    assert_eq!(server.sum(|shard| shard.queued_bytes.get()), 0);
    assert_eq!(server.sum(|shard| shard.bytes_out.get()) - before, out);
}

#[test]
fn a_receipt_counts_the_messages_that_the_socket_took_whole_before_it_was_full() {
    let server = Fixture::hub(narrow());
    // Now and then the kernel moves something on between the receipts and the count.
    wait_until("receipts and counters agree", || {
        let mut client = server.narrow_client(Framing::Line);
        assert_eq!(client.ask("SUB news"), "OK SUB news");
        let before = server.sum(|shard| shard.delivered.get());
        let published: Vec<_> = (0..BURST).map(|_| server.publish("news", "x".repeat(1_000)).unwrap()).collect();
        let receipts = published.into_iter().map(|published| block_on(published.receipt()));
        let written: u64 = receipts.map(|receipt| receipt.written).sum();
        assert!(written < BURST as u64, "the socket is full");
        drop(client);
        let delivered = server.sum(|shard| shard.delivered.get()) - before;
        server.wait_for_connections(0);
        written > 0 && written == delivered
    });
}
