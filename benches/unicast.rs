//! Messages to one connection each, whichever the last one was for: what one costs in CPU, beside a bare loop that reads the
//! same publishes and sends each message to its socket.
//!
//! A client publishes them, to topics of one subscriber each.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use support::pipeline::{Order, Pipeline, Speech};
use support::process::{App, Served};
use support::table::{Goal, Row, Table};
use support::turns::{SETTLE, median, micros};
use support::{Bench, Plan};

/// Messages of a turn, about.
const MESSAGES: usize = 200_000;
const SMOKE_MESSAGES: usize = 2_000;

fn main() -> ExitCode {
    support::main(Bench {
        name: "unicast",
        of: "connections",
        full: Plan { sizes: &[1_000, 9_000], rounds: 9, span: Duration::from_secs(1) },
        smoke: Plan { sizes: &[50], rounds: 1, span: Duration::ZERO },
        measure,
    })
}

fn measure(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let messages = if plan.span.is_zero() { SMOKE_MESSAGES } else { MESSAGES };
    for size in plan.sizes.iter().copied() {
        let served = [Served::serve(App::Hub, 1, &["line"], &[])?, Served::bare(App::Topics)?];
        let mut clients = Vec::new();
        for (number, served) in served.iter().enumerate() {
            let number = number as u8 + 1;
            clients.push(Pipeline::start(served.addr, served.addr, Speech::Line, size, Order::Random, number)?);
        }
        let mut figures = [Vec::new(), Vec::new()];
        // The first round only warms up.
        for round in 0..=plan.rounds {
            for side in [round % 2, 1 - round % 2] {
                std::thread::sleep(SETTLE);
                let before = served[side].proc.usage()?.cpu;
                let (messages, took) = clients[side].publish(messages)?;
                std::thread::sleep(SETTLE);
                let cpu = served[side].proc.usage()?.cpu - before;
                if round > 0 {
                    figures[side].push([messages / took.as_secs_f64(), micros(cpu) / messages]);
                }
            }
        }
        let of = |side: usize, index: usize| median(figures[side].iter().map(|figures| figures[index]).collect());
        let row = |what, index, unit, goal| Row {
            what,
            size,
            server: of(0, index),
            floor: Some(of(1, index)),
            unit,
            goal,
            noisy: false,
        };
        table.add(&row("messages", 0, "/s", Goal::None))?;
        table.add(&row("CPU of one", 1, "µs", Goal::RatioAtMost(1.15)))?;
    }
    Ok(())
}
