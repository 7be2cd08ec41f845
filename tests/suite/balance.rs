//! How connections are spread over the shards.

use corecast::Framing;

use crate::support::{Client, Fixture, PLAIN, config};

fn by_shard(server: &Fixture) -> Vec<u64> {
    server.stats().map(|shard| shard.connections.get()).collect()
}

fn connect(server: &Fixture, count: usize) -> Vec<Client> {
    (0..count).map(|number| server.client(PLAIN[number % PLAIN.len()])).collect()
}

#[test]
fn no_shard_has_many_more_connections_than_another() {
    const CLIENTS: usize = 900;
    let server = Fixture::hub(settings! { shards: Some(3), client_publish: true, ..config() });
    let mut clients = connect(&server, CLIENTS);
    server.wait_for_connections(CLIENTS);
    let loads = by_shard(&server);
    let (most, fewest) = (loads.iter().max().unwrap(), loads.iter().min().unwrap());
    assert!(*most as f64 <= *fewest as f64 * 1.05, "{loads:?}");
    // Wherever they were accepted, they are clients like all others.
    clients[0].send("CAST hello");
    for client in &mut clients[1..] {
        client.expect("ALL hello");
    }
}

#[test]
fn a_shard_that_has_lost_its_clients_gets_the_next_ones() {
    const EACH: usize = 60;
    let server = Fixture::hub(config());
    let mut clients: Vec<_> = (0..2 * EACH).map(|_| server.placed_client(Framing::Line)).collect();
    clients.retain(|(shard, _)| *shard == 1);
    server.wait_for_connections(clients.len());
    let handed_over = server.sum(|shard| shard.handed_over.get());

    let more = connect(&server, clients.len());
    server.wait_for_connections(clients.len() + more.len());
    let loads = by_shard(&server);
    assert!(loads[0].abs_diff(loads[1]) <= 10, "{loads:?}");
    assert!(server.sum(|shard| shard.handed_over.get()) > handed_over);
}
