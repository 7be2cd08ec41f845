//! What the way from one shard to another takes.
//!
//! One connection publishes, another one waits for it: on the same shard, or on the other one. With one message under way
//! both shards sleep when it comes, with several they are awake. The floor is the way within one shard; what the other
//! way takes longer is held against the bare channel mesh of glommio between two executors, there and back, halved.
//!
//! Where there are but two CPUs the client shares them with the shards: each figure is the mean over both shards as the
//! one that is published on.

mod support;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use corecast::{Config, Context, Framing, Handler, Server};
use glommio::channels::channel_mesh::{FullMesh, MeshBuilder};
use glommio::{LocalExecutorBuilder, Placement};

use support::table::{Goal, Row, Table};
use support::turns::{median, micros};
use support::{Bench, PATIENCE, Plan};

/// Messages of one turn.
const MESSAGES: usize = 200;

/// Connections that are opened at the most until there are two on each shard.
const CONNECTIONS_MAX: usize = 256;

fn main() -> ExitCode {
    support::main(Bench {
        name: "mesh",
        of: "under way",
        full: Plan { sizes: &[1, 16], rounds: 15, span: Duration::ZERO },
        smoke: Plan { sizes: &[1, 16], rounds: 1, span: Duration::ZERO },
        measure,
    })
}

fn measure(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let listen = vec!["line=127.0.0.1:0".parse()?];
    let mut config = Config::default();
    config.shards = Some(2);
    config.read_timeout = Duration::ZERO;
    let server = Server::builder(listen, |_| Relay).config(config).start().map_err(|error| error.to_string())?;
    let mut ends = Ends::open(server.addr(Framing::Line).ok_or("the server has no address")?)?;
    for size in plan.sizes.iter().copied() {
        let (mut near, mut far, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            near.push((ends.time(0, 0, size)? + ends.time(1, 1, size)?) / 2.0);
            far.push((ends.time(0, 1, size)? + ends.time(1, 0, size)?) / 2.0);
            bare.push(bare_hop(size)?);
        }
        let (near, far, bare) = (median(near), median(far), median(bare));
        let awake = if size == 1 { "parked" } else { "busy" };
        let mut row = |what: &str, server, floor| {
            let (what, floor) = (format!("{awake}, {what}"), Some(floor));
            table.add(&Row { what: &what, size, server, floor, unit: "µs", goal: Goal::None, noisy: false })
        };
        row("to the other shard", far, near)?;
        row("the hop alone", far - near, bare)?;
    }
    server.handle().shutdown();
    server.wait().map_err(|error| error.to_string())
}

/// Publishes the second word of a message to the topic that the first one names. `where` tells the connection's shard;
/// `join` does too, and subscribes to the topic that the shard's number names.
struct Relay;

impl Handler for Relay {
    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        let text = String::from_utf8_lossy(message);
        let shard = cx.shard().to_string();
        let done = match text.split_once(' ') {
            Some((topic, payload)) => cx.publish(topic, payload.to_owned()).is_ok(),
            None => (text != "join" || cx.subscribe(&shard).is_ok()) && cx.send(shard.as_bytes()).is_ok(),
        };
        // The client finds out.
        if !done {
            cx.close();
        }
    }
}

/// A client's connection.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(addr: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Connection(BufReader::new(stream)))
    }

    fn send(&mut self, message: &str) -> Result<(), String> {
        let sent = self.0.get_mut().write_all(format!("{message}\n").as_bytes());
        sent.map_err(|error| format!("can't send `{message}`: {error}"))
    }

    fn receive(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(1..) => Ok(line.trim_end().to_owned()),
            Ok(0) => Err("the server closed a connection".into()),
            Err(error) => Err(format!("a message did not come: {error}")),
        }
    }
}

/// By shard: a connection that publishes, and one that is subscribed to the shard's topic.
struct Ends {
    publishers: [Connection; 2],
    subscribers: [Connection; 2],
    /// Messages that were published so far.
    count: u64,
}

impl Ends {
    fn open(addr: SocketAddr) -> Result<Self, String> {
        let mut shards = [Vec::new(), Vec::new()];
        for _ in 0..CONNECTIONS_MAX {
            let mut connection = Connection::open(addr).map_err(|error| format!("can't connect to {addr}: {error}"))?;
            connection.send("where")?;
            let shard = connection.receive()?;
            let of_shard = shard.parse().ok().and_then(|shard: usize| shards.get_mut(shard));
            of_shard.ok_or_else(|| format!("`{shard}` is not one of two shards"))?.push(connection);
            if shards.iter().all(|connections| connections.len() > 1) {
                let mut take = || shards.each_mut().map(|connections| connections.swap_remove(0));
                let mut ends = Ends { publishers: take(), subscribers: take(), count: 0 };
                for subscriber in &mut ends.subscribers {
                    subscriber.send("join")?;
                    subscriber.receive()?;
                }
                return Ok(ends);
            }
        }
        Err(format!("{CONNECTIONS_MAX} connections did not reach both shards twice"))
    }

    /// The microseconds from a publish on one shard to its arrival at the subscriber of another, while so many messages
    /// are under way.
    fn time(&mut self, from: usize, to: usize, under_way: usize) -> Result<f64, String> {
        let (publisher, subscriber) = (&mut self.publishers[from], &mut self.subscribers[to]);
        let (mut sent, mut took) = (VecDeque::new(), Vec::new());
        let mut left = MESSAGES;
        while left > 0 || !sent.is_empty() {
            while left > 0 && sent.len() < under_way {
                self.count += 1;
                left -= 1;
                sent.push_back((self.count, Instant::now()));
                publisher.send(&format!("{to} {}", self.count))?;
            }
            let got = subscriber.receive()?;
            match sent.pop_front() {
                Some((number, at)) if got == number.to_string() => took.push(micros(at.elapsed())),
                expected => return Err(format!("{expected:?} was to come, and `{got}` came")),
            }
        }
        Ok(median(took))
    }
}

/// The microseconds that a message takes from one bare executor to another, while so many are under way.
fn bare_hop(under_way: usize) -> Result<f64, String> {
    let failed = |error: glommio::GlommioError<()>| format!("a bare executor: {error}");
    let mesh = MeshBuilder::full(2, 1024);
    let cpus = support::process::cpus()?;
    let mut threads = Vec::new();
    for cpu in [cpus.0, cpus.1] {
        let mesh = mesh.clone();
        let start = LocalExecutorBuilder::new(Placement::Fixed(cpu)).spawn(move || async move {
            futures_lite::future::or(there_and_back(mesh, under_way), look_often()).await
        });
        threads.push(start.map_err(failed)?);
    }
    let mut hop = None;
    for thread in threads {
        hop = hop.or(thread.join().map_err(failed)??);
    }
    hop.ok_or_else(|| "no executor measured the mesh".into())
}

/// An executor that connects to a channel does not wake the one at its other end (glommio 0.9).
async fn look_often<T>() -> T {
    loop {
        glommio::timer::sleep(Duration::from_millis(10)).await;
    }
}

/// The first executor measures; the other one sends back what it gets, until there is no more.
async fn there_and_back(mesh: FullMesh<Instant>, under_way: usize) -> Result<Option<f64>, String> {
    let (senders, receivers) = mesh.join().await.map_err(|error| format!("joining the bare mesh: {error}"))?;
    let lost = |error: glommio::GlommioError<Instant>| format!("sending over the bare mesh: {error}");
    if senders.peer_id() == 1 {
        while let Some(at) = receivers.recv_from(0).await.map_err(|error| error.to_string())? {
            senders.try_send_to(0, at).map_err(lost)?;
        }
        return Ok(None);
    }
    let mut took = Vec::new();
    let mut sent = 0;
    while took.len() < MESSAGES {
        while sent < MESSAGES && sent - took.len() < under_way {
            senders.try_send_to(1, Instant::now()).map_err(lost)?;
            sent += 1;
        }
        let at = receivers.recv_from(1).await.map_err(|error| error.to_string())?;
        took.push(micros(at.ok_or("the bare mesh closed")?.elapsed()) / 2.0);
    }
    senders.close();
    Ok(Some(median(took)))
}
