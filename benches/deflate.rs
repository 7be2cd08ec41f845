//! JSON to many subscribers over WebSocket, compressed and not, each against a bare loop of sends of as many bytes: what
//! compression saves on the wire, and what it costs in CPU.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use support::process::{App, Served};
use support::table::{Goal, Row, Table};
use support::turns::{Side, micros, take_all_turns};
use support::wire::Wire;
use support::{Bench, Plan};

/// What is sent: bytes of the JSON, about, and whether it is of a chat or of a market.
const MESSAGES: [(usize, bool); 6] =
    [(100, false), (100, true), (1_000, false), (1_000, true), (10_000, false), (10_000, true)];

fn main() -> ExitCode {
    support::main(Bench {
        name: "deflate",
        of: "connections",
        full: Plan { sizes: &[10, 100, 9_000], rounds: 9, span: Duration::ZERO },
        smoke: Plan { sizes: &[40], rounds: 1, span: Duration::ZERO },
        measure,
    })
}

fn measure(plan: &Plan, table: &mut Table) -> Result<(), String> {
    for connections in plan.sizes.iter().copied() {
        let mut pairs = [pair(Wire::Deflate, connections)?, pair(Wire::WebSocket, connections)?];
        for (bytes, is_chat) in MESSAGES {
            deliver(plan, table, &mut pairs, connections, bytes, is_chat)?;
        }
    }
    Ok(())
}

/// Server and floor.
fn pair(wire: Wire, connections: usize) -> Result<[Side; 2], String> {
    let mut server = Side::new(Served::server(App::Hub, wire)?, App::Hub, wire, connections)?;
    server.client.open_publisher()?;
    Ok([server, Side::new(Served::bare(App::Hub)?, App::Hub, Wire::Line, connections)?])
}

/// Messages of a size, one at a time.
fn deliver(
    plan: &Plan,
    table: &mut Table,
    pairs: &mut [[Side; 2]; 2],
    connections: usize,
    bytes: usize,
    is_chat: bool,
) -> Result<(), String> {
    // More of them where few get them, as CPU time is counted in ticks.
    let messages = (2_000 / connections).max(1);
    // By pair: bytes on the wire. The server says first how many it takes.
    let mut wire_bytes = [0; 2];
    let costs = take_all_turns(pairs, plan.rounds, |number, side| {
        let bytes = if side.wire == Wire::Line { wire_bytes[number] } else { bytes };
        let (cpu, wire) = side.cpu_of(|side| {
            let mut wire = 0;
            for _ in 0..messages {
                wire = side.client.push(bytes, is_chat)?.0;
            }
            Ok(wire)
        })?;
        wire_bytes[number] = wire;
        Ok([micros(cpu) / (connections * messages) as f64, wire as f64])
    })?;
    let [deflated, plain] = &costs[..] else { return Err("there are two pairs".into()) };
    let what = format!("{bytes} B of a {}", if is_chat { "chat" } else { "market" });
    let mut row = |which: &str, server, floor, unit, goal, noisy| {
        let what = format!("{what}, {which}");
        table.add(&Row { what: &what, size: connections, server, floor: Some(floor), unit, goal, noisy })
    };
    let goal = if connections >= 9_000 { Goal::RatioAtMost(1.1) } else { Goal::None };
    let noisy = deflated.noisy || plain.noisy;
    row("wire, by plain", deflated.server[1], plain.server[1], "B", Goal::None, false)?;
    row("CPU, by plain", deflated.server[0], plain.server[0], "µs", Goal::None, noisy)?;
    row("CPU", deflated.server[0], deflated.floor[0], "µs", goal, deflated.noisy)?;
    row("plain CPU", plain.server[0], plain.floor[0], "µs", goal, plain.noisy)
}
