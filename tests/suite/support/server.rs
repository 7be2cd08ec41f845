//! A server inside the test's process, whose counters the test can read.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::mpsc;
use std::time::Duration;

use corecast::{
    CloseReason, Config, DropReason, Echo, Framing, Handler, Hub, Listen, Server, ServerBuilder, ServerHandle,
    ShardMetrics,
};

use super::{Client, DEADLINE, PLAIN, wait_until};

/// Settings for tests: two shards, all framings that are built in on ports that the kernel chooses, an end without delay.
pub(crate) fn config() -> Config {
    let framings = Framing::ALL.into_iter().filter(|framing| cfg!(feature = "web") || *framing != Framing::Http);
    settings! {
        listen: framings.map(|framing| format!("{framing}=127.0.0.1:0").parse().unwrap()).collect(),
        shards: Some(2),
        max_connections: 2_000,
        drain_time: Duration::ZERO,
        ..Config::default()
    }
}

/// Settings for a shard on which a client that does not read is noticed after a few messages of up to 2 KiB.
pub(crate) fn tight() -> Config {
    settings! {
        shards: Some(1),
        max_message: 2_048,
        queue_messages_max: 4,
        queue_bytes_max: 8_192,
        so_sndbuf: Some(4_096),
        ..config()
    }
}

/// A running server. It is shut down when it is dropped.
pub(crate) struct Fixture {
    server: Option<Server>,
    handle: ServerHandle,
    listen: Vec<Listen>,
}

impl Fixture {
    /// Starts the push server.
    pub(crate) fn hub(config: Config) -> Fixture {
        let hub = Hub::new(&config);
        Fixture::start(config, move |_| hub.clone())
    }

    /// Starts the echo server.
    pub(crate) fn echo(config: Config) -> Fixture {
        Fixture::start(config, |_| Echo)
    }

    /// Starts a server with a handler of the test's own.
    pub(crate) fn start<H: Handler>(config: Config, make: impl Fn(usize) -> H + Send + Sync + 'static) -> Fixture {
        Fixture::build(config, make, |builder| builder)
    }

    /// Starts such a server, with more said to its builder.
    pub(crate) fn build<H: Handler>(
        config: Config,
        make: impl Fn(usize) -> H + Send + Sync + 'static,
        more: impl FnOnce(ServerBuilder) -> ServerBuilder,
    ) -> Fixture {
        let builder = Server::builder(config.listen.clone(), move |shard| make(shard.index()));
        let server = more(builder.config(config)).start().expect("the server starts");
        let listen = server.listen().to_vec();
        Fixture { handle: server.handle(), server: Some(server), listen }
    }

    /// Connects.
    pub(crate) fn client(&self, framing: Framing) -> Client {
        Client::connect(self.addr(framing), framing)
    }

    /// Connects with a small receive buffer.
    pub(crate) fn narrow_client(&self, framing: Framing) -> Client {
        Client::connect_narrow(self.addr(framing), framing)
    }

    /// The address of a framing.
    pub(crate) fn addr(&self, framing: Framing) -> SocketAddr {
        let listen = self.listen.iter().find(|listen| listen.framing == framing);
        listen.unwrap_or_else(|| panic!("the server does not listen on {framing}")).addr
    }

    /// Connects until a connection lands on `shard`. Nobody else may connect meanwhile, and the shard must not have
    /// clearly more connections than others: then all that come are handed over to those.
    pub(crate) fn client_on(&self, shard: usize, framing: Framing) -> Client {
        loop {
            let (landed, client) = self.placed_client(framing);
            if landed == shard {
                return client;
            }
        }
    }

    /// Connects, and finds out which shard took the connection. Nobody else may connect meanwhile.
    pub(crate) fn placed_client(&self, framing: Framing) -> (usize, Client) {
        let accepted = |handle: &ServerHandle| handle.stats().map(|shard| shard.accepted.get()).collect::<Vec<_>>();
        let before = accepted(self);
        let client = self.client(framing);
        wait_until("the connection is accepted", || accepted(self) != before);
        let after = accepted(self);
        (before.iter().zip(&after).position(|(before, after)| before != after).unwrap(), client)
    }

    /// The sum of one counter over all shards.
    pub(crate) fn sum(&self, counter: impl Fn(&ShardMetrics) -> u64) -> u64 {
        self.stats().map(counter).fold(0, u64::wrapping_add)
    }

    /// Connections closed for a reason.
    pub(crate) fn closed(&self, reason: CloseReason) -> u64 {
        self.sum(|shard| shard.closed[reason as usize].get())
    }

    /// Messages dropped for a reason.
    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.sum(|shard| shard.dropped[reason as usize].get())
    }

    /// Messages dropped, by every reason for which some were.
    pub(crate) fn drops(&self) -> Vec<(DropReason, u64)> {
        let all = DropReason::ALL.into_iter().map(|reason| (reason, self.dropped(reason)));
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// Waits until `count` connections are open, and as many polls are armed.
    #[track_caller]
    pub(crate) fn wait_for_connections(&self, count: usize) {
        let gauges = || {
            let connections = self.sum(|shard| shard.connections.get());
            (self.conn_count(), connections, self.sum(|shard| shard.polls.get()))
        };
        wait_until(&format!("{count} connections are open"), || gauges() == (count, count as u64, count as u64));
    }

    /// Waits until the server has received `count` bytes since its start.
    #[track_caller]
    pub(crate) fn wait_for_bytes_in(&self, count: usize) {
        wait_until(&format!("{count} bytes came in"), || self.sum(|shard| shard.bytes_in.get()) >= count as u64);
    }

    /// Shuts the server down and returns how it ended.
    pub(crate) fn end(mut self) -> Result<(), corecast::RunError> {
        self.handle.shutdown();
        self.wait().expect("the server ends in time")
    }

    /// Waits for the server's end, which something else must bring about; `None`: it did not come.
    pub(crate) fn wait(&mut self) -> Option<Result<(), corecast::RunError>> {
        let server = self.server.take()?;
        let (ended_to, ended) = mpsc::channel();
        std::thread::spawn(move || {
            // The test has given up when nobody listens.
            let _ = ended_to.send(server.wait());
        });
        ended.recv_timeout(DEADLINE).ok()
    }
}

impl Deref for Fixture {
    type Target = ServerHandle;

    fn deref(&self) -> &ServerHandle {
        &self.handle
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.handle.shutdown();
        self.wait();
    }
}

/// Connects until each shard has `each` of the connections at least, over both framings in turn.
pub(crate) fn everywhere(server: &Fixture, each: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    let mut by_shard = vec![0; server.stats().len()];
    while by_shard.iter().any(|count| *count < each) {
        let framing = PLAIN[clients.len() % PLAIN.len()];
        let (shard, client) = server.placed_client(framing);
        by_shard[shard] += 1;
        clients.push(client);
    }
    clients
}
