//! Publishing by HTTP, on one core that the control plane shares with a shard, to a topic with one subscriber: beside hyper
//! alone, which answers the same requests and publishes nothing. In batches a message is a line.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use support::process::{App, Client, Served};
use support::table::{Goal, Row, Table};
use support::turns::{Side, micros, take_turns};
use support::wire::Wire;
use support::{Bench, Plan};

/// Connections that are kept, and publish at the same time.
const CONNECTIONS: usize = 8;

/// Lines of a batch, and connections that send batches.
const LINES: usize = 1_000;
const BATCHES: usize = 2;

fn main() -> ExitCode {
    support::main(Bench {
        name: "publish",
        of: "at once",
        full: Plan { sizes: &[1, 16], rounds: 9, span: Duration::from_secs(1) },
        smoke: Plan { sizes: &[1, 16], rounds: 1, span: Duration::from_millis(30) },
        measure,
    })
}

fn pair(connections: usize) -> Result<[Side; 2], String> {
    let served = [Served::server(App::Publish, Wire::Line)?, Served::bare(App::Publish)?];
    let [server, floor] = served.map(|served| {
        let mut client = Client::poster(&served)?;
        client.connect(connections)?;
        Ok::<_, String>(Side { client, served, wire: Wire::Line })
    });
    Ok([server?, floor?])
}

fn measure(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let mut sides = pair(CONNECTIONS)?;
    for size in plan.sizes.iter().copied() {
        let medians = take_turns(&mut sides, plan.rounds, |side| {
            let (cpu, (within, took, all)) = side.cpu_of(|side| side.client.post(size, plan.span))?;
            Ok([within / took.as_secs_f64(), micros(cpu) / all])
        })?;
        let ([rate, cpu], [floor_rate, floor_cpu], noisy) = (medians.server, medians.floor, medians.noisy);
        let goal = Goal::RatioAtLeast(0.5);
        table.add(&Row { what: "requests", size, server: rate, floor: Some(floor_rate), unit: "/s", goal, noisy })?;
        let (what, goal) = ("CPU a request", Goal::None);
        table.add(&Row { what, size, server: cpu, floor: Some(floor_cpu), unit: "µs", goal, noisy })?;
    }
    let mut sides = pair(BATCHES)?;
    // The floor answers the whole at once: it only tells how noisy it is.
    let medians = take_turns(&mut sides, plan.rounds, |side| {
        let (cpu, (within, took, all)) = side.cpu_of(|side| side.client.batch(LINES, plan.span))?;
        Ok([within / took.as_secs_f64(), micros(cpu) / all])
    })?;
    let ([rate, cpu], noisy) = (medians.server, medians.noisy);
    let (what, goal) = ("lines of batches", Goal::AtLeast(500_000.0));
    table.add(&Row { what, size: LINES, server: rate, floor: None, unit: "/s", goal, noisy })?;
    let (what, goal) = ("CPU a line", Goal::None);
    table.add(&Row { what, size: LINES, server: cpu, floor: None, unit: "µs", goal, noisy })
}
