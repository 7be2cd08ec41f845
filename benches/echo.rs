//! A closed loop against a bare epoll echo: every connection sends its message again as soon as it is back.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use support::process::App;
use support::table::{Goal, Row, Table};
use support::turns::{Side, micros, take_turns};
use support::{Bench, Plan};

fn main() -> ExitCode {
    support::main(Bench {
        name: "echo",
        of: "connections",
        full: Plan { sizes: &[1_000], rounds: 15, span: Duration::from_secs(1) },
        smoke: Plan { sizes: &[50], rounds: 2, span: Duration::from_millis(50) },
        measure,
    })
}

fn measure(plan: &Plan, table: &mut Table) -> Result<(), String> {
    for size in plan.sizes.iter().copied() {
        let medians = take_turns(&mut Side::pair(App::Echo, size)?, plan.rounds, |side| {
            let (cpu, (within, took, all)) = side.cpu_of(|side| side.client.echo(plan.span))?;
            Ok([within / took.as_secs_f64(), micros(cpu) / all])
        })?;
        let ([rate, cpu], [floor_rate, floor_cpu], noisy) = (medians.server, medians.floor, medians.noisy);
        let goal = Goal::RatioAtLeast(0.95);
        table.add(&Row { what: "echoes", size, server: rate, floor: Some(floor_rate), unit: "/s", goal, noisy })?;
        let (what, goal) = ("CPU an echo", Goal::None);
        table.add(&Row { what, size, server: cpu, floor: Some(floor_cpu), unit: "µs", goal, noisy })?;
    }
    Ok(())
}
