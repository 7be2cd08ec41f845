//! What idle, subscribed connections cost in CPU: silent ones, and those that each say once in a while that they live,
//! against an epoll loop that answers them.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use support::process::App;
use support::table::{Goal, Row, Table};
use support::turns::{SETTLE, Side, micros, take_turns};
use support::{Bench, Plan};

/// How often each connection sends a PING.
const HEARTBEAT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    support::main(Bench {
        name: "idle",
        of: "connections",
        full: Plan { sizes: &[9_000], rounds: 3, span: Duration::from_secs(5) },
        smoke: Plan { sizes: &[50], rounds: 1, span: Duration::from_millis(100) },
        measure,
    })
}

fn measure(plan: &Plan, table: &mut Table) -> Result<(), String> {
    for size in plan.sizes.iter().copied() {
        let mut pair = Side::pair(App::Hub, size)?;
        silent(plan, table, &pair[0], size)?;
        heartbeat(plan, table, &mut pair, size)?;
    }
    Ok(())
}

/// Nobody says anything, for long enough to be seen in the kernel's coarse accounting.
fn silent(plan: &Plan, table: &mut Table, server: &Side, size: usize) -> Result<(), String> {
    std::thread::sleep(SETTLE);
    let span = plan.span * 2;
    let (cpu, ticks) = (server.served.proc.usage()?.cpu, server.served.proc.ticks()?);
    std::thread::sleep(span);
    let (cpu, ticks) = (server.served.proc.usage()?.cpu - cpu, server.served.proc.ticks()? - ticks);
    let cpu = micros(cpu) / span.as_secs_f64();
    let (floor, noisy) = (None, false);
    let (what, goal) = ("silent, CPU of all a second", Goal::None);
    table.add(&Row { what, size, server: cpu, floor, unit: "µs", goal, noisy })?;
    let (what, goal) = ("silent, accounting ticks", Goal::AtMost(0.0));
    table.add(&Row { what, size, server: ticks as f64, floor, unit: "ticks", goal, noisy })
}

fn heartbeat(plan: &Plan, table: &mut Table, pair: &mut [Side; 2], size: usize) -> Result<(), String> {
    let pings = (size as f64 * plan.span.as_secs_f64() / HEARTBEAT.as_secs_f64()).ceil() as usize;
    let medians = take_turns(pair, plan.rounds, |side| {
        let (cpu, ()) = side.cpu_of(|side| side.client.ping(pings, plan.span))?;
        Ok([micros(cpu) / size as f64 / plan.span.as_secs_f64(), micros(cpu) / pings as f64])
    })?;
    let ([cpu, each], [floor_cpu, floor_each], noisy) = (medians.server, medians.floor, medians.noisy);
    let (what, goal) = ("PING every 30 s, CPU of one a second", Goal::AtMost(1.0));
    table.add(&Row { what, size, server: cpu, floor: Some(floor_cpu), unit: "µs", goal, noisy })?;
    let (what, goal) = ("PING every 30 s, CPU a PING", Goal::None);
    table.add(&Row { what, size, server: each, floor: Some(floor_each), unit: "µs", goal, noisy })
}
