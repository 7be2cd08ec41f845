//! One message, and a burst of them, to many subscribers, against a bare loop of non-blocking sends: what a delivered
//! message costs in CPU, and whether it costs the same in a small audience and in a large one.
//!
//! For a burst the floor sends one gathered write to each socket. All audiences are there at once and take turns too.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use support::process::App;
use support::table::{Goal, Row, Table};
use support::turns::{Medians, Side, micros, take_all_turns};
use support::{Bench, Plan};

/// Messages of a burst: what the figures of other servers were measured with.
const BURST: usize = 32;

/// How far the cost of a message may be from its mean over the audiences.
const FLAT: Goal = Goal::Between(0.9, 1.1);

fn main() -> ExitCode {
    support::main(Bench {
        name: "fanout",
        of: "connections",
        full: Plan { sizes: &[1_000, 5_000, 9_000], rounds: 15, span: Duration::ZERO },
        smoke: Plan { sizes: &[20, 50], rounds: 2, span: Duration::ZERO },
        measure,
    })
}

fn measure(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let pairs = plan.sizes.iter().map(|connections| Side::pair(App::Hub, *connections));
    let mut pairs = pairs.collect::<Result<Vec<_>, _>>()?;
    deliver(plan, table, &mut pairs, 1, "one message", Goal::RatioAtMost(1.1))?;
    deliver(plan, table, &mut pairs, BURST, "burst of 32", Goal::AtMost(0.5))
}

/// So many messages at once to each audience.
fn deliver(
    plan: &Plan,
    table: &mut Table,
    pairs: &mut [[Side; 2]],
    messages: usize,
    what: &str,
    goal: Goal,
) -> Result<(), String> {
    let costs = take_all_turns(pairs, plan.rounds, |number, side| {
        let (cpu, took) = side.cpu_of(|side| side.client.publish(messages))?;
        Ok([micros(cpu) / (plan.sizes[number] * messages) as f64, took.as_secs_f64() * 1e3])
    })?;
    let mean = |of: fn(&Medians<2>) -> f64| costs.iter().map(of).sum::<f64>() / costs.len() as f64;
    let (server_mean, floor_mean) = (mean(|cost| cost.server[0]), mean(|cost| cost.floor[0]));
    for (size, cost) in plan.sizes.iter().zip(&costs) {
        let mut row = |what: &str, server, floor, unit, goal| {
            table.add(&Row { what, size: *size, server, floor: Some(floor), unit, goal, noisy: cost.noisy })
        };
        row(&format!("{what}, CPU a message"), cost.server[0], cost.floor[0], "µs", goal)?;
        row(&format!("{what}, time to the last"), cost.server[1], cost.floor[1], "ms", Goal::None)?;
        if costs.len() > 1 {
            row(
                &format!("{what}, CPU by the mean"),
                cost.server[0] / server_mean,
                cost.floor[0] / floor_mean,
                "",
                FLAT,
            )?;
        }
    }
    Ok(())
}
