//! Publishing: who gets what, in which order, and what is refused.

use std::collections::HashSet;
use std::time::Duration;

use corecast::{CloseError, CloseReason, Config, ConnId, Context, DropReason, Framing, Handler, PublishError};
#[cfg(feature = "web")]
use futures_lite::future::block_on;

#[cfg(feature = "web")]
use crate::support::http::HttpClient;
use crate::support::{Client, Fixture, PLAIN, config, everywhere, wait_until};

/// Room for all that a test publishes, so that nothing is dropped or refused.
fn roomy() -> Config {
    settings! {
        client_publish: true,
        queue_messages_max: 65_536,
        queue_bytes_max: 64 << 20,
        publish_queue: 65_536,
        mesh_queue: 4_096,
        mesh_backlog: 65_536,
        ..config()
    }
}

fn subscribe(client: &mut Client, topic: &str) {
    assert_eq!(client.ask(format!("SUB {topic}")), format!("OK SUB {topic}"));
}

/// Has one publisher on each shard in turn publish numbers to subscribers on all of them.
fn publish_in_order(server: &Fixture, messages: usize) {
    let mut subscribers = everywhere(server, 3);
    subscribers.iter_mut().for_each(|client| subscribe(client, "news"));
    for (shard, framing) in PLAIN.into_iter().enumerate() {
        let publisher = server.client_on(shard, framing);
        std::thread::scope(|scope| {
            for client in &mut subscribers {
                scope.spawn(|| {
                    for n in 0..messages {
                        client.expect(&format!("MSG news {n}"));
                    }
                    client.expect_nothing();
                });
            }
            let (mut sender, mut receiver) = (publisher.clone(), publisher);
            scope.spawn(move || (0..messages).for_each(|n| sender.send(format!("PUB news {n}"))));
            scope.spawn(move || {
                for n in 0..messages {
                    let answer = receiver.recv();
                    assert!(answer.starts_with("OK PUB "), "message {n}: {answer}");
                }
            });
        });
    }
    assert_eq!(server.drops(), []);
}

#[test]
fn one_publishers_messages_reach_subscribers_on_all_shards_in_order_once_each() {
    publish_in_order(&Fixture::hub(roomy()), 5_000);
}

#[test]
fn messages_that_wait_for_a_full_queue_between_shards_stay_in_order() {
    let server = Fixture::hub(settings! { mesh_queue: 1, ..roomy() });
    publish_in_order(&server, 1_000);
    let waited = server.sum(|shard| shard.mesh_full.get());
    assert!(waited > 100, "the test has messages wait: {waited} did");
    wait_until("none waits any more", || server.sum(|shard| shard.mesh_backlog.get()) == 0);
}

#[test]
fn messages_of_several_topics_and_to_all_keep_their_order_within_a_batch() {
    const MESSAGES: usize = 600;
    let server = Fixture::hub(roomy());
    let mut subscribers = everywhere(&server, 2);
    for client in &mut subscribers {
        ["a", "b"].iter().for_each(|topic| subscribe(client, topic));
    }
    let mut publisher = server.client(Framing::Line);
    let verbs = ["PUB a", "PUB b", "CAST"];
    let sent: Vec<u8> = (0..MESSAGES).flat_map(|n| publisher.frame(format!("{} {n}", verbs[n / 3 % 3]))).collect();
    publisher.send_raw(sent);
    for client in &mut subscribers {
        for n in 0..MESSAGES {
            client.expect(&format!("{} {n}", ["MSG a", "MSG b", "ALL"][n / 3 % 3]));
        }
    }
}

#[test]
fn publishes_from_outside_reach_all_shards_in_order() {
    const MESSAGES: usize = 2_000;
    let server = Fixture::hub(roomy());
    let mut subscribers = everywhere(&server, 2);
    subscribers.iter_mut().for_each(|client| subscribe(client, "news"));
    for n in 0..MESSAGES {
        // The lane from outside is the only bound that they can meet here.
        wait_until("the server takes the publish", || match server.publish("news", n.to_string()) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error, PublishError::Busy);
                false
            }
        });
    }
    for client in &mut subscribers {
        for n in 0..MESSAGES {
            client.expect(&format!("MSG news {n}"));
        }
        client.expect_nothing();
    }
}

#[test]
fn what_is_refused_as_busy_from_outside_reaches_nobody_and_all_else_everybody() {
    // So many, since a shard must be met at the moment in which it takes a command.
    const TAKEN: usize = 20_000;
    // Its clients only listen, for as long as it takes.
    let config = settings! { control_queue: 1, read_timeout: Duration::ZERO, ..roomy() };
    let server = Fixture::hub(config);
    let mut subscribers = everywhere(&server, 1);
    subscribers.iter_mut().for_each(|client| subscribe(client, "news"));
    let (mut taken, mut refused) = (Vec::new(), 0);
    for n in 0.. {
        match server.publish("news", n.to_string()) {
            Ok(_) => taken.push(n),
            Err(PublishError::Busy) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        if taken.len() >= TAKEN && refused > 0 {
            break;
        }
    }
    for client in &mut subscribers {
        for n in &taken {
            client.expect(&format!("MSG news {n}"));
        }
        client.expect_nothing();
    }
}

#[test]
fn a_publish_to_a_topic_without_subscribers_is_done_with_and_changes_nothing() {
    let server = Fixture::hub(roomy());
    let mut clients = everywhere(&server, 1);
    for client in &mut clients {
        assert!(client.ask("PUB nobody text").starts_with("OK PUB "));
    }
    server.publish("nobody", "text").unwrap();
    // Each is done with on both shards.
    let publishes = 2 * (clients.len() as u64 + 1);
    wait_until("all are done with", || server.sum(|shard| shard.publishes.get()) == publishes);
    assert_eq!(server.sum(|shard| shard.matched.get()), 0);
    for client in &mut clients {
        client.expect_nothing();
        subscribe(client, "nobody");
    }
    server.publish("nobody", "now somebody").unwrap();
    clients.iter_mut().for_each(|client| client.expect("MSG nobody now somebody"));
    assert_eq!(server.drops(), []);
}

#[test]
fn the_handle_publishes_broadcasts_and_sends_to_one() {
    let server = Fixture::hub(config());
    let mut clients = everywhere(&server, 2);
    subscribe(&mut clients[0], "news");
    let ids: Vec<ConnId> = clients.iter_mut().map(Client::id).collect();
    server.publish("news", "for one topic").unwrap();
    clients[0].expect("MSG news for one topic");
    server.broadcast("for all").unwrap();
    clients.iter_mut().for_each(|client| client.expect("ALL for all"));
    for (client, id) in clients.iter_mut().zip(&ids) {
        server.send(*id, format!("for {id}")).unwrap();
        client.expect(&format!("SELF for {id}"));
    }
    clients.iter_mut().for_each(Client::expect_nothing);
}

#[test]
fn the_handle_refuses_what_clients_may_not_send_either() {
    let server = Fixture::hub(settings! { max_message: 64, ..config() });
    let mut client = server.client(Framing::Line);
    assert_eq!(server.broadcast(vec![b'x'; 65]).unwrap_err(), PublishError::TooLarge { len: 65, max: 64 });
    assert!(matches!(server.publish("two words", "x"), Err(PublishError::Topic(_))));
    client.expect_nothing();
    server.broadcast(vec![b'x'; 64]).unwrap();
    client.expect(&format!("ALL {}", "x".repeat(64)));
}

#[test]
fn an_id_of_a_closed_connection_never_reaches_a_later_one() {
    let server = Fixture::hub(config());
    let mut ids = HashSet::new();
    for round in 0..300 {
        let mut client = server.client(PLAIN[round % 2]);
        let id = client.id();
        assert!(ids.insert(id), "{id} was given before");
        if round % 50 == 0 {
            for old in ids.iter().filter(|old| **old != id) {
                assert_eq!(server.send(*old, "for another").err(), Some(PublishError::NotOpen));
                assert_eq!(server.close(*old), Err(CloseError::NotOpen));
                assert_eq!(server.peer(*old), None);
            }
            client.expect_nothing();
        }
        drop(client);
        // The next connection shall take this one's place in the tables.
        server.wait_for_connections(0);
    }
}

/// Sends `payload` on to the connection named before it: `<id> <payload>`. `ID` asks for one's own.
struct Forward;

impl Handler for Forward {
    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        let text = std::str::from_utf8(message).unwrap();
        match text.split_once(' ') {
            Some((id, payload)) => drop(cx.send_to(id.parse().unwrap(), payload.to_owned()).unwrap()),
            None => cx.send(format!("ID {}", cx.id()).as_bytes()).unwrap(),
        }
    }
}

#[test]
fn a_handler_sends_to_connections_on_any_shard_and_to_closed_ones_the_message_is_counted() {
    let server = Fixture::start(config(), |_| Forward);
    let mut clients = everywhere(&server, 2);
    let ids: Vec<ConnId> = clients.iter_mut().map(Client::id).collect();
    let count = clients.len();
    for from in 0..count {
        for to in 0..count {
            clients[from].send(format!("{} from {from} to {to}", ids[to]));
            clients[to].expect(&format!("from {from} to {to}"));
        }
    }
    let gone = ids[count - 1];
    drop(clients.pop());
    wait_until("it is gone", || server.peer(gone).is_none());
    assert_eq!(server.drops(), []);
    for client in &mut clients {
        client.send(format!("{gone} lost"));
    }
    wait_until("all are counted", || server.dropped(DropReason::NoConnection) == clients.len() as u64);
}

#[test]
fn closing_by_id_says_kicked_and_a_second_time_changes_nothing() {
    let server = Fixture::hub(config());
    let mut witness = server.client(Framing::Line);
    // It is counted from here on, so that one connection is this one.
    witness.id();
    for framing in PLAIN {
        let mut client = server.client(framing);
        let id = client.id();
        server.close(id).unwrap();
        // It is open until the client has closed its side too, so there may be something to close again.
        server.close(id).unwrap();
        server.close(id).unwrap();
        client.expect("BYE kicked");
        client.expect_end();
        drop(client);
        server.wait_for_connections(1);
        assert_eq!(server.close(id), Err(CloseError::NotOpen));
    }
    assert_eq!(server.closed(CloseReason::Kicked), 2);
    witness.expect_nothing();
}

#[test]
fn what_was_sent_before_a_kick_arrives_before_the_farewell() {
    let server = Fixture::hub(roomy());
    for mut client in everywhere(&server, 1) {
        let id = client.id();
        for n in 0..100 {
            server.send(id, n.to_string()).unwrap();
        }
        server.close(id).unwrap();
        for n in 0..100 {
            client.expect(&format!("SELF {n}"));
        }
        client.expect("BYE kicked");
        client.expect_end();
    }
}

/// One publisher of the flood: it sends in bursts until `count` messages were taken, and notes which they were.
fn flood(mut client: Client, name: usize, count: usize) -> (Vec<String>, usize) {
    const BURST: usize = 5;
    let (mut taken, mut refused, mut sent) = (Vec::new(), 0, 0);
    wait_until("enough messages are taken", || {
        let texts: Vec<_> = (sent..sent + BURST).map(|n| format!("{name} {n}")).collect();
        sent += BURST;
        client.send_raw(texts.iter().flat_map(|text| client.frame(format!("PUB news {text}"))).collect::<Vec<_>>());
        for text in texts {
            let answer = client.recv();
            let ok = answer.starts_with("OK PUB ");
            assert!(ok || answer.starts_with("ERR busy "), "{answer}");
            if ok { taken.push(text) } else { refused += 1 }
        }
        taken.len() >= count
    });
    let end = format!("{name} end");
    wait_until("the last message is taken", || {
        let ok = client.ask(format!("PUB news {end}")).starts_with("OK PUB ");
        refused += usize::from(!ok);
        ok
    });
    taken.push(end);
    (taken, refused)
}

#[test]
fn full_queues_between_shards_never_lock_up_and_refused_publishes_reach_nobody() {
    const PUBLISHERS: usize = 4;
    let config = settings! { publish_queue: 2, mesh_queue: 1, mesh_backlog: 1, ..roomy() };
    let server = Fixture::hub(config);
    let mut subscribers = everywhere(&server, 2);
    subscribers.iter_mut().for_each(|client| subscribe(client, "news"));
    // Two on each shard, so that both directions of the mesh are full.
    let publishers: Vec<_> = (0..PUBLISHERS).map(|n| server.client_on(n % 2, PLAIN[n / 2 % 2])).enumerate().collect();
    let (taken, received) = std::thread::scope(|scope| {
        let subscribers: Vec<_> = subscribers
            .iter_mut()
            .map(|client| {
                scope.spawn(|| {
                    let (mut messages, mut ends) = (Vec::new(), 0);
                    while ends < PUBLISHERS {
                        let message = client.recv().strip_prefix("MSG news ").expect("a message").to_owned();
                        ends += usize::from(message.ends_with("end"));
                        messages.push(message);
                    }
                    client.expect_nothing();
                    messages
                })
            })
            .collect();
        let publishers: Vec<_> =
            publishers.into_iter().map(|(n, client)| scope.spawn(move || flood(client, n, 200))).collect();
        let taken: Vec<_> = publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect();
        let received: Vec<_> = subscribers.into_iter().map(|subscriber| subscriber.join().unwrap()).collect();
        (taken, received)
    });
    for messages in received {
        for (n, (taken, _)) in taken.iter().enumerate() {
            let name = format!("{n} ");
            let from: Vec<_> = messages.iter().filter(|message| message.starts_with(&name)).collect();
            assert_eq!(from, taken.iter().collect::<Vec<_>>(), "publisher {n}");
        }
        assert_eq!(messages.len(), taken.iter().map(|(taken, _)| taken.len()).sum::<usize>());
    }
    let refused: usize = taken.iter().map(|(_, refused)| refused).sum();
    println!("refused: {refused}, waited: {}", server.sum(|shard| shard.mesh_full.get()));
    assert_eq!(server.sum(|shard| shard.publishes_refused.get()), refused as u64);
    assert!(server.sum(|shard| shard.mesh_full.get()) > 0, "the test fills the queues");
    assert_eq!(server.sum(|shard| shard.mesh_backlog.get()), 0);
    assert_eq!(server.drops(), []);
}

#[test]
fn a_shutdown_delivers_what_was_published_before_it() {
    let config = settings! { drain_time: Duration::ZERO, ..roomy() };
    let server = Fixture::hub(config);
    let mut clients = everywhere(&server, 2);
    for n in 0..500 {
        server.broadcast(n.to_string()).unwrap();
    }
    server.shutdown();
    for client in &mut clients {
        for n in 0..500 {
            client.expect(&format!("ALL {n}"));
        }
        client.expect("BYE drain");
        client.expect_end();
    }
}

#[test]
fn a_shutdown_right_behind_a_clients_publishes_waits_for_them_on_all_shards() {
    const MESSAGES: usize = 500;
    // The other shard is told to drain while most of the messages wait for their way to it.
    let server = Fixture::hub(settings! { mesh_queue: 8, ..roomy() });
    let mut subscribers = everywhere(&server, 50);
    subscribers.iter_mut().for_each(|client| subscribe(client, "news"));
    let mut publisher = server.client(Framing::Line);
    publisher.send_raw((0..MESSAGES).flat_map(|n| publisher.frame(format!("PUB news {n}"))).collect::<Vec<_>>());
    for _ in 0..MESSAGES {
        let answer = publisher.recv();
        assert!(answer.starts_with("OK PUB "), "{answer}");
    }
    server.shutdown();
    for client in &mut subscribers {
        for n in 0..MESSAGES {
            client.expect(&format!("MSG news {n}"));
        }
        client.expect("BYE drain");
        client.expect_end();
    }
}

#[cfg(feature = "web")]
#[test]
fn one_publish_reaches_the_clients_of_every_framing_and_is_encoded_once_for_each() {
    const EACH: usize = 500;
    let server = Fixture::hub(settings! { max_connections: 5 * EACH, ..config() });
    let http = server.addr(Framing::Http);
    let mut plain: Vec<Client> = (0..2 * EACH).map(|n| server.client(PLAIN[n % 2])).collect();
    plain.iter_mut().for_each(|client| subscribe(client, "news"));
    let mut sockets: Vec<_> = (0..EACH).map(|_| HttpClient::websocket(http, "/ws?topic=news", "")).collect();
    sockets.iter_mut().for_each(|client| assert_eq!(client.recv(), "OK SUB news"));
    let mut streams: Vec<_> = (0..EACH).map(|_| HttpClient::events(http, "/sse?topic=news")).collect();

    let receipt = block_on(server.publish("news", "hello").unwrap().receipt());
    assert_eq!((receipt.matched, receipt.written), (4 * EACH as u64, 4 * EACH as u64));
    plain.iter_mut().for_each(|client| client.expect("MSG news hello"));
    sockets.iter_mut().for_each(|client| assert_eq!(client.recv(), "MSG news hello"));
    let data = r#"{"type":"msg","topic":"news","payload":"hello"}"#;
    streams.iter_mut().for_each(|client| assert_eq!(client.recv_event().data, data));
    // Four encodings on two shards.
    assert_eq!(server.sum(|shard| shard.encoded.get()), 4 * 2);
    assert_eq!(server.drops(), []);
}
