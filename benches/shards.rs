//! How evenly connections lie on two shards. The kernel spreads them over the sockets of one port by a hash, which is
//! chance, and the server evens them out. The floor is chance alone: two bare listeners.

mod support;

use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use corecast::{Config, Echo, Framing, Server};
use socket2::{Domain, Socket, Type};

use support::process::{App, Client};
use support::table::{Goal, Row, Table};
use support::turns::median;
use support::wire::Wire;
use support::{Bench, Plan, wait_until};

const SHARDS: usize = 2;

fn main() -> ExitCode {
    support::main(Bench {
        name: "shards",
        of: "connections",
        full: Plan { sizes: &[9_000], rounds: 5, span: Duration::ZERO },
        smoke: Plan { sizes: &[100], rounds: 1, span: Duration::ZERO },
        measure,
    })
}

fn measure(plan: &Plan, table: &mut Table) -> Result<(), String> {
    for size in plan.sizes.iter().copied() {
        let (mut server, mut floor) = (Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            server.push(unevenness(served(size)?)?);
            floor.push(unevenness(bare(size)?)?);
        }
        let (what, goal, floor) = ("busiest shard by least busy", Goal::AtMost(1.05), Some(median(floor)));
        table.add(&Row { what, size, server: median(server), floor, unit: "", goal, noisy: false })?;
    }
    Ok(())
}

fn unevenness(shards: [u64; SHARDS]) -> Result<f64, String> {
    let (least, most) = (shards.iter().min(), shards.iter().max());
    match (least, most) {
        (Some(least @ 1..), Some(most)) => Ok(*most as f64 / *least as f64),
        _ => Err(format!("a shard has no connection: {shards:?}")),
    }
}

/// How many of the connections each shard of the server got.
fn served(connections: usize) -> Result<[u64; SHARDS], String> {
    let listen = vec!["line=127.0.0.1:0".parse()?];
    let mut config = Config::default();
    config.shards = Some(SHARDS);
    config.read_timeout = Duration::ZERO;
    let server = Server::builder(listen, |_| Echo).config(config).start().map_err(|error| error.to_string())?;
    let handle = server.handle();
    let addr = server.addr(Framing::Line).ok_or("the server has no address")?;
    let mut client = Client::start(addr, App::Echo, Wire::Line)?;
    client.connect(connections)?;
    let read = || handle.stats().map(|shard| shard.connections.get()).collect::<Vec<_>>();
    // The last ones are there for the client before they are accepted.
    wait_until("connection on a shard for each of the client's", || {
        Ok(read().iter().sum::<u64>() == connections as u64)
    })?;
    let shards = read();
    drop(client);
    handle.shutdown();
    server.wait().map_err(|error| error.to_string())?;
    shards.try_into().map_err(|shards| format!("not {SHARDS} shards: {shards:?}"))
}

/// How many of the connections each bare listener got.
fn bare(connections: usize) -> Result<[u64; SHARDS], String> {
    let mut addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut listeners = Vec::new();
    for _ in 0..SHARDS {
        let listener = listen(&mut addr).map_err(|error| format!("can't listen on {addr}: {error}"))?;
        listeners.push(listener);
    }
    let counts = [const { AtomicU64::new(0) }; SHARDS];
    let read = || counts.each_ref().map(|count| count.load(Ordering::Relaxed));
    std::thread::scope(|scope| {
        for (listener, count) in listeners.iter().zip(&counts) {
            scope.spawn(move || {
                while listener.accept().is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let connected = Client::start(addr, App::Echo, Wire::Line).and_then(|mut client| {
            client.connect(connections)?;
            wait_until("connection for each of the client's", || Ok(read().iter().sum::<u64>() == connections as u64))?;
            Ok(read())
        });
        for listener in &listeners {
            // It ends the accept that waits, and so the thread.
            let _ = listener.shutdown(Shutdown::Read);
        }
        connected
    })
}

/// Listens on the address, which is given its port by the first one.
fn listen(addr: &mut SocketAddr) -> std::io::Result<Socket> {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.set_reuse_port(true)?;
    listener.bind(&(*addr).into())?;
    listener.listen(support::bare::BACKLOG as i32)?;
    if let Some(bound) = listener.local_addr()?.as_socket() {
        *addr = bound;
    }
    Ok(listener)
}
