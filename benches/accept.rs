//! What it costs to take a connection in, against a loop that accepts, and watches what it accepted for input.
//!
//! Connections wait in the backlog while the server stands still; then it takes them in, with nothing else to do. So
//! its CPU time holds no work of the clients, whose handshakes are over, and it never waits for the next one.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use support::process::{App, Served};
use support::table::{Goal, Row, Table};
use support::turns::{Side, micros, take_turns};
use support::wire::Wire;
use support::{Bench, Plan};

fn main() -> ExitCode {
    support::main(Bench {
        name: "accept",
        of: "connections",
        full: Plan { sizes: &[2_000], rounds: 15, span: Duration::ZERO },
        smoke: Plan { sizes: &[50], rounds: 2, span: Duration::ZERO },
        measure,
    })
}

fn measure(plan: &Plan, table: &mut Table) -> Result<(), String> {
    for size in plan.sizes.iter().copied() {
        // What does not fit into the backlog would not get through while the server stands still.
        let size = size.min(backlog()?);
        let mut pair = [
            Side::new(Served::server(App::Hub, Wire::Line)?, App::Hold, Wire::Line, 0)?,
            Side::new(Served::bare(App::Hold)?, App::Hold, Wire::Line, 0)?,
        ];
        let medians = take_turns(&mut pair, plan.rounds, |side| {
            let idle = side.served.proc.descriptors()?;
            side.served.pause()?;
            side.client.connect(size)?;
            let (cpu, ()) = side.cpu_of(|side| {
                side.served.resume()?;
                side.served.wait_for_descriptors(idle + size)
            })?;
            side.client.close()?;
            side.served.wait_for_descriptors(idle)?;
            Ok([1e6 * size as f64 / micros(cpu), micros(cpu) / size as f64])
        })?;
        let ([rate, cpu], [floor_rate, floor_cpu], noisy) = (medians.server, medians.floor, medians.noisy);
        let (what, goal) = ("accepted, by a core's CPU", Goal::RatioAtLeast(0.8));
        table.add(&Row { what, size, server: rate, floor: Some(floor_rate), unit: "/s", goal, noisy })?;
        let (what, goal) = ("CPU a connection", Goal::None);
        table.add(&Row { what, size, server: cpu, floor: Some(floor_cpu), unit: "µs", goal, noisy })?;
    }
    Ok(())
}

/// Connections that may wait to be accepted: as many as server and floor ask for, and the kernel allows.
fn backlog() -> Result<usize, String> {
    let path = "/proc/sys/net/core/somaxconn";
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let allowed = text.trim().parse().map_err(|_| format!("{path} holds no number"))?;
    Ok(support::bare::BACKLOG.min(allowed))
}
