//! One publisher that sends all that its socket takes, small messages, to few topics and to many, of one subscriber each:
//! how many messages a second arrive, and what one costs in CPU.
//!
//! The floor reads what the socket holds and then writes each subscriber once. nats-server, where it is installed, is a peer
//! on the same core with the same client; it answers no publish, where corecast confirms each.

mod support;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use support::pipeline::{Order, Pipeline, Speech};
use support::process::{App, Served, cpus};
use support::table::{Goal, Row, Table};
use support::turns::{SETTLE, median, micros};
use support::{Bench, Plan, wait_until};

/// Messages of a turn at the least.
const MESSAGES: usize = 400_000;
const SMOKE_MESSAGES: usize = 2_000;

fn main() -> ExitCode {
    support::main(Bench {
        name: "pipeline",
        of: "topics",
        full: Plan { sizes: &[1, 10, 200, 2_000], rounds: 7, span: Duration::from_secs(1) },
        smoke: Plan { sizes: &[1, 20], rounds: 1, span: Duration::ZERO },
        measure,
    })
}

/// A server with its client.
struct Side {
    name: &'static str,
    served: Served,
    client: Pipeline,
    /// By round: messages a second, and microseconds of CPU for one.
    figures: Vec<[f64; 2]>,
}

impl Side {
    fn turn(&mut self, messages: usize) -> Result<(), String> {
        std::thread::sleep(SETTLE);
        let before = self.served.proc.usage()?.cpu;
        let (messages, took) = self.client.publish(messages)?;
        std::thread::sleep(SETTLE);
        let cpu = self.served.proc.usage()?.cpu - before;
        self.figures.push([messages / took.as_secs_f64(), micros(cpu) / messages]);
        Ok(())
    }

    fn median(&self, index: usize) -> f64 {
        median(self.figures.iter().map(|figures| figures[index]).collect())
    }
}

fn measure(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let messages = if plan.span.is_zero() { SMOKE_MESSAGES } else { MESSAGES };
    for topics in plan.sizes.iter().copied() {
        let mut sides = sides(topics)?;
        // The first round only warms up.
        for round in 0..=plan.rounds {
            for side in &mut sides {
                side.turn(messages)?;
            }
            if round == 0 {
                sides.iter_mut().for_each(|side| side.figures.clear());
            }
        }
        let find = |name: &str| sides.iter().find(|side| side.name == name);
        let floor = find("floor").ok_or("there is no floor")?;
        let peer = find("nats");
        for side in sides.iter().filter(|side| !["floor", "nats"].contains(&side.name)) {
            let others = peer.map(|peer| ("nats-server", peer)).into_iter().chain([("the floor", floor)]);
            for (by, other) in others {
                let goal = if by == "nats-server" { Goal::RatioAtLeast(1.0) } else { Goal::None };
                let figures = [("", "/s", goal), (" CPU of one,", "µs", Goal::None)];
                for (index, (figure, unit, goal)) in figures.into_iter().enumerate() {
                    table.add(&Row {
                        what: &format!("{}:{figure} by {by}", side.name),
                        size: topics,
                        server: side.median(index),
                        floor: Some(other.median(index)),
                        unit,
                        goal,
                        noisy: false,
                    })?;
                }
            }
        }
    }
    Ok(())
}

fn sides(topics: usize) -> Result<Vec<Side>, String> {
    let mut sides = Vec::new();
    let mut add = |name, served: Served, publish_to: Option<SocketAddr>, speech| {
        let number = sides.len() as u8 + 1;
        let client =
            Pipeline::start(served.addr, publish_to.unwrap_or(served.addr), speech, topics, Order::InTurn, number)?;
        sides.push(Side { name, served, client, figures: Vec::new() });
        Ok::<_, String>(())
    };
    let (served, _) = server(1)?;
    add("line", served, None, Speech::Line)?;
    let (served, web) = server(1)?;
    add("ws", served, Some(web), Speech::WebSocket)?;
    if cpus()?.0 != cpus()?.1 {
        let (served, _) = server(2)?;
        add("line, two shards", served, None, Speech::Line)?;
    }
    add("floor", Served::bare(App::Topics)?, None, Speech::Line)?;
    if let Some(served) = nats()? {
        add("nats", served, None, Speech::Nats)?;
    }
    Ok(sides)
}

/// The server with so many shards, and where its WebSockets go.
fn server(shards: usize) -> Result<(Served, SocketAddr), String> {
    // Nothing may be dropped: a subscriber that is slower than the publisher is waited for.
    let queues = ["--queue-messages-max", "65536", "--queue-bytes-max", "256MiB"];
    let mut served = Served::serve(App::Hub, shards, &["line", "http"], &queues)?;
    let web = served.addrs.pop().ok_or("there is no second address")?;
    Ok((served, web))
}

/// Debian's server of NATS, if it is there.
fn nats() -> Result<Option<Served>, String> {
    let is_there = Command::new("nats-server").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !is_there.is_ok_and(|status| status.success()) {
        return Ok(None);
    }
    let addr = free_address()?;
    let config = std::env::temp_dir().join(format!("corecast-pipeline-{}.conf", addr.port()));
    let settings = format!(
        "host: 127.0.0.1\nport: {}\nlog_file: \"/dev/null\"\nwrite_deadline: \"60s\"\nmax_pending: 256MB\nping_interval: \"1h\"\n",
        addr.port()
    );
    std::fs::write(&config, settings).map_err(|error| format!("{}: {error}", config.display()))?;
    let mut command = support::process::this_program(support::process::LEASH)?;
    command.args([support::process::PINNED, "nats-server", "-c"]).arg(&config);
    command.env("GOMAXPROCS", "1").stderr(Stdio::null());
    let served = Served::of(command.spawn().map_err(|error| format!("{command:?}: {error}"))?, addr);
    wait_until("nats-server", || Ok(TcpStream::connect(addr).is_ok()))?;
    let _ = std::fs::remove_file(&config);
    Ok(Some(served))
}

fn free_address() -> Result<SocketAddr, String> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    bound.map_err(|error| format!("finding a free port: {error}"))
}
