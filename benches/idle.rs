//! What idle, subscribed connections cost in CPU.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use support::process::{App, Served};
use support::table::{Goal, Row, Table};
use support::turns::{SETTLE, Side, micros};
use support::wire::Wire;
use support::{Bench, Plan};

fn main() -> ExitCode {
    support::main(Bench {
        name: "idle",
        of: "connections",
        full: Plan { sizes: &[9_000], rounds: 3, span: Duration::from_secs(10) },
        smoke: Plan { sizes: &[50], rounds: 1, span: Duration::from_millis(100) },
        measure,
    })
}

fn measure(plan: &Plan, table: &mut Table) -> Result<(), String> {
    for size in plan.sizes.iter().copied() {
        let side = Side::new(Served::server(App::Hub, Wire::Line)?, App::Hub, Wire::Line, size)?;
        std::thread::sleep(SETTLE);
        let (cpu, ticks) = (side.served.usage()?.cpu, side.served.ticks()?);
        std::thread::sleep(plan.span);
        let (cpu, ticks) = (side.served.usage()?.cpu - cpu, side.served.ticks()? - ticks);
        let cpu = micros(cpu) / plan.span.as_secs_f64();
        let (floor, noisy) = (None, false);
        let what = "silent, CPU a second";
        table.add(&Row { what, size, server: cpu, floor, unit: "µs", goal: Goal::None, noisy })?;
        let (what, goal) = ("silent, accounting ticks", Goal::AtMost(0.0));
        table.add(&Row { what, size, server: ticks as f64, floor, unit: "ticks", goal, noisy })?;
    }
    Ok(())
}
