//! What an idle, subscribed connection takes in memory of the server's process.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use support::process::{App, Served};
use support::table::{Goal, Row, Table};
use support::turns::{SETTLE, Side};
use support::wire::Wire;
use support::{Bench, Plan};

/// Messages of a burst, after which the memory must be given back.
const BURST: usize = 32;

fn main() -> ExitCode {
    support::main(Bench {
        name: "memory",
        of: "connections",
        full: Plan { sizes: &[9_000], rounds: 1, span: Duration::ZERO },
        smoke: Plan { sizes: &[50], rounds: 1, span: Duration::ZERO },
        measure,
    })
}

fn measure(plan: &Plan, table: &mut Table) -> Result<(), String> {
    for size in plan.sizes.iter().copied() {
        for (wire, burst) in Wire::ALL.map(|wire| (wire, false)).into_iter().chain([(Wire::Line, true)]) {
            let served = Served::server(App::Hub, wire)?;
            let before = served.memory()?;
            let mut side = Side::new(served, App::Hub, wire, size)?;
            if burst {
                side.client.publish(BURST)?;
            }
            std::thread::sleep(SETTLE);
            let each = (side.served.memory()? - before) / size as f64;
            let what = format!("{}{}, process", wire.name(), if burst { " after a burst" } else { "" });
            let goal = Goal::AtMost(1126.0);
            table.add(&Row { what: &what, size, server: each, floor: None, unit: "B", goal, noisy: false })?;
        }
    }
    Ok(())
}
