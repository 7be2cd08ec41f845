//! What comes to a shard from outside: nothing waits behind what it need not wait for, and nobody for a shard that is gone.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use corecast::{
    CloseReason, Config, Context, Dialect, Event, Framing, Handler, Kind, OnPanic, PublishError, QueryError,
    ServerHandle, SlowConsumer, Topic,
};
use futures_lite::future::{block_on, poll_once};

use crate::support::{Client, DEADLINE, Fixture, config, wait_until};

/// Makes something of each message only when the test lets it. Each test has a gate of its own.
struct Gated<const GATE: usize>;

#[derive(Default)]
struct Gate {
    /// Messages that have come to it.
    reached: AtomicUsize,
    permits: Mutex<Option<Receiver<()>>>,
}

static GATES: [Gate; 2] = [const { Gate { reached: AtomicUsize::new(0), permits: Mutex::new(None) } }; 2];

impl<const GATE: usize> Gated<GATE> {
    fn gate() -> &'static Gate {
        &GATES[GATE]
    }

    /// A server with one shard, and a client of it, whose queue holds one publish.
    fn start(waiting: usize) -> (Fixture, Client, Sender<()>) {
        let (permit, permits) = mpsc::channel();
        *Self::gate().permits.lock().unwrap() = Some(permits);
        let config = settings! { shards: Some(1), publish_queue: 1, control_queue: waiting, ..config() };
        let server = Fixture::start(config, |_| Gated::<GATE>);
        let client = server.client(Framing::Line);
        server.wait_for_connections(1);
        (server, client, permit)
    }

    /// Publishes until no more may wait; how many were taken.
    fn fill(server: &Fixture) -> usize {
        let mut taken = 0;
        loop {
            match server.broadcast(taken.to_string()) {
                Ok(_) => taken += 1,
                Err(error) => {
                    assert_eq!(error, PublishError::Busy);
                    // One is at the gate, one in the queue, one waits for room there, and the lane is full.
                    if Self::gate().reached.load(Ordering::Relaxed) > 0 {
                        return taken;
                    }
                }
            }
        }
    }

    /// Lets the message through that comes to the gate next, after so many.
    fn pass(permit: &Sender<()>, passed: usize) {
        let reached = || Self::gate().reached.load(Ordering::Relaxed) > passed;
        wait_until("the next message comes to the gate", reached);
        permit.send(()).unwrap();
    }
}

impl<const GATE: usize> Handler for Gated<GATE> {
    fn on_message(&mut self, _: &mut Context<'_>, _: &[u8]) {}

    fn render(event: Event<'_>, _: Dialect, out: &mut Vec<u8>) -> Option<Kind> {
        let Event::Broadcast { payload, kind } = event else { return None };
        Self::gate().reached.fetch_add(1, Ordering::Relaxed);
        let permits = Self::gate().permits.lock().unwrap_or_else(PoisonError::into_inner);
        // The end of the test lets all through.
        let _ = permits.as_ref().map(Receiver::recv);
        out.extend_from_slice(payload);
        Some(kind)
    }
}

/// Waits for something on a thread of its own; what it came to shows when it has.
fn begin<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Receiver<T> {
    let (done, result) = mpsc::channel();
    std::thread::spawn(move || {
        // The test has given up when nobody listens.
        let _ = done.send(block_on(work));
    });
    result
}

#[test]
fn questions_are_answered_while_publishes_wait_for_room() {
    // Going through them takes many of the slices after which a shard looks for what has come.
    const WAITING: usize = 5_000;
    type Own = Gated<0>;
    let (server, mut client, permit) = Own::start(WAITING);
    let news = Topic::new(b"news").unwrap();
    let taken = Own::fill(&server);
    assert!(taken >= WAITING, "{taken}");
    server.set_slow_consumer(&news, Some(SlowConsumer::Disconnect)).unwrap();
    let mut question = pin!(server.topic(&news));
    let mut answer = || block_on(poll_once(question.as_mut()));
    assert!(answer().is_none(), "the shard is at the gate");
    let mut passed = 0;
    let answer = loop {
        if let Some(answer) = answer() {
            break answer.unwrap();
        }
        Own::pass(&permit, passed);
        passed += 1;
        assert!(passed < WAITING / 2, "the question waits for {passed} of {taken} publishes");
    };
    assert_eq!(answer.slow_consumer, Some(SlowConsumer::Disconnect), "policies don't wait either");
    // Its client takes all that comes, or it would be a slow one.
    for n in 0..taken {
        if n >= passed {
            Own::pass(&permit, n);
        }
        client.expect(&n.to_string());
    }
}

#[test]
fn a_close_comes_behind_all_that_was_published_before_and_waits_for_nothing_later() {
    const WAITING: usize = 50;
    type Own = Gated<1>;
    let (server, mut client, permit) = Own::start(WAITING);
    let (connections, _) = block_on(server.connections(Default::default(), 1)).unwrap();
    let mut other = server.client(Framing::Line);
    server.wait_for_connections(2);
    let taken = Own::fill(&server);
    assert_eq!(server.close(connections[0].id), Ok(()));
    // Publishes go on coming, so that some wait at all times. As many as go through beyond those that were there were taken
    // later: more than twice as many, however seldom this thread gets to publish.
    let mut later = 0;
    for passed in 0..=3 * taken {
        let reached = || Own::gate().reached.load(Ordering::Relaxed) > passed;
        wait_until("the next message comes to the gate", || {
            later += usize::from(server.broadcast("later").is_ok());
            reached()
        });
        permit.send(()).unwrap();
    }
    drop(permit);
    (0..taken).for_each(|n| client.expect(&n.to_string()));
    let after = client.recv_to_end();
    assert!(after.iter().all(|text| text == "later"), "{after:?}");
    // Some come into the queue before the close does.
    assert!(after.len() <= 4 && later > 2 * taken, "it got {} of {later} later ones", after.len());
    (0..taken).for_each(|n| other.expect(&n.to_string()));
}

/// Subscribes all to `news`; blocks its shard on a message until the test lets it go, and then may panic.
struct Blocker {
    let_go: Arc<Mutex<Receiver<()>>>,
    panics: bool,
}

impl Handler for Blocker {
    fn on_connect(&mut self, cx: &mut Context<'_>) {
        cx.subscribe("news").unwrap();
    }

    fn on_message(&mut self, _: &mut Context<'_>, _: &[u8]) {
        // The end of the test lets it go too.
        let _ = self.let_go.lock().unwrap_or_else(PoisonError::into_inner).recv();
        assert!(!self.panics, "let go");
    }
}

/// Starts a server of blockers, and what lets them go.
fn blockers(config: Config, panics: bool) -> (Fixture, Sender<()>) {
    let (release, let_go) = mpsc::channel();
    let let_go = Arc::new(Mutex::new(let_go));
    let make = move |_| Blocker { let_go: Arc::clone(&let_go), panics };
    (Fixture::build(config, make, |builder| builder.on_panic(OnPanic::EndServer)), release)
}

/// Blocks the shard of a client.
fn block(server: &Fixture, client: &mut Client) {
    let before = server.sum(|shard| shard.messages_in.get());
    client.send("block");
    wait_until("the shard is blocked", || server.sum(|shard| shard.messages_in.get()) > before);
}

#[test]
fn a_policy_holds_for_what_is_published_while_it_is_set_whenever_the_shard_gets_to_it() {
    let news = Topic::new(b"news").unwrap();
    let config = settings! { shards: Some(1), queue_messages_max: 2, so_sndbuf: Some(4_096), ..config() };
    let (server, release) = blockers(config, false);
    let mut blocker = server.client(Framing::Line);
    let slow = server.narrow_client(Framing::Line);
    server.wait_for_connections(2);
    // One client reads, the other one gets behind.
    let payload = "x".repeat(32 * 1024);
    loop {
        let receipt = block_on(server.publish("news", payload.clone()).unwrap().receipt());
        while blocker.recv_within(Duration::from_millis(1)).is_some() {}
        if receipt.dropped() > 0 {
            break;
        }
    }
    let receipts = |policy: Option<SlowConsumer>| {
        server.set_slow_consumer(&news, policy).unwrap();
        begin(server.publish("news", payload.clone()).unwrap().receipt())
    };
    block(&server, &mut blocker);
    // All come to the shard together, with the first policy taken back long before the shard looks at anything.
    let closed = server.closed(CloseReason::SlowConsumer);
    let before = begin(server.publish("news", payload.clone()).unwrap().receipt());
    let during = receipts(Some(SlowConsumer::Disconnect));
    let after = receipts(None);
    release.send(()).unwrap();
    for receipt in [before, during, after] {
        receipt.recv_timeout(DEADLINE).expect("a receipt comes");
    }
    wait_until("the slow client is closed, by the second of three publishes", || {
        server.closed(CloseReason::SlowConsumer) > closed
    });
    drop(slow);
}

#[test]
fn nobody_waits_for_a_shard_that_has_failed() {
    let config = settings! { shards: Some(2), control_queue: 4, ..config() };
    let (mut server, release) = blockers(config, true);
    let mut victim = server.client_on(1, Framing::Line);
    block(&server, &mut victim);
    let topic = Topic::new(b"news").unwrap();
    let mut receipts = Vec::new();
    while let Ok(published) = server.publish("news", "x") {
        receipts.push(begin(published.receipt()));
    }
    assert!(receipts.len() >= 4);
    let questions: Vec<_> = (0..3)
        .map(|_| {
            let (handle, topic) = (ServerHandle::clone(&server), topic.clone());
            begin(async move { handle.topic(&topic).await })
        })
        .collect();
    // Some more, so that the lane of the blocked shard is full; or it has ended by then.
    let busy = Err(QueryError::Busy { shard: 1 });
    wait_until("no more questions are taken", || {
        let (handle, topic) = (ServerHandle::clone(&server), topic.clone());
        let asked = begin(async move { handle.topic(&topic).await.map(|_| ()) });
        asked.recv_timeout(Duration::from_millis(100)) == Ok(busy)
    });
    release.send(()).unwrap();
    server.wait().expect("the server ends").expect_err("it ends with an error");
    for receipt in receipts {
        let receipt = receipt.recv_timeout(DEADLINE).expect("a receipt ends with the shards that are left");
        assert!(receipt.shards <= 1, "{receipt:?}");
    }
    for question in questions {
        assert_eq!(question.recv_timeout(DEADLINE).expect("a question ends"), Err(QueryError::Down));
    }
    // Full queues are no excuse.
    assert_eq!(server.publish("news", "x").err(), Some(PublishError::Down));
    assert_eq!(block_on(server.topic(&topic)).err(), Some(QueryError::Down));
}

#[test]
fn clients_that_were_handed_to_a_shard_which_failed_count_no_more() {
    // So many that the other shard hands some of its own over, however the kernel spreads them.
    const CLIENTS: usize = 60;
    let (mut server, release) = blockers(config(), true);
    let mut victim = server.client_on(1, Framing::Line);
    block(&server, &mut victim);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.client(Framing::Line)).collect();
    wait_until("some are handed over", || server.sum(|shard| shard.handed_over.get()) > 0);
    release.send(()).unwrap();
    server.wait().expect("the server ends").expect_err("it ends with an error");
    assert_eq!(server.conn_count(), 0);
    clients.iter_mut().for_each(|client| {
        let _ = client.try_recv();
    });
}

#[test]
fn publishes_that_a_shard_does_not_take_are_bounded_in_bytes() {
    const MIB: usize = 1 << 20;
    let config = settings! { shards: Some(1), max_message: MIB, queue_bytes_max: 2 * MIB, ..config() };
    let (server, release) = blockers(config, false);
    let mut client = server.client(Framing::Line);
    block(&server, &mut client);
    let payload = bytes::Bytes::from(vec![b'x'; MIB]);
    let taken = (0..1_000).take_while(|_| server.publish("news", payload.clone()).is_ok()).count();
    assert!((16..=17).contains(&taken), "{taken} of 1 MiB each");
    release.send(()).unwrap();
    wait_until("there is room again", || server.publish("news", "small").is_ok());
}
