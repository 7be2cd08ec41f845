//! The measures.

use std::time::{Duration, Instant};

use corecast::Framing;

use crate::process::{App, Client, Served};
use crate::table::{Goal, Row, Table, median, micros};

/// Connections of the echo measure, and messages of a burst: what the figures of other servers were measured with.
const ECHO_CONNECTIONS: usize = 1_000;
const BURST: usize = 32;

/// How long a server is left alone before its CPU time is read: until it sleeps, and its memory has settled.
const SETTLE: Duration = Duration::from_millis(10);

/// A turn is noisy when its processes waited for more than this part of it for a CPU that others had.
const WAITED_MAX: f64 = 0.02;

/// How many times the rounds asked for are tried to find enough that are not noisy.
const ROUNDS_TRIED: usize = 4;

/// How much of everything.
pub(crate) struct Plan {
    fanout: Vec<usize>,
    echo: usize,
    idle: usize,
    rounds: usize,
    echo_span: Duration,
    idle_span: Duration,
}

impl Plan {
    pub(crate) fn full() -> Self {
        Plan {
            fanout: vec![1_000, 5_000, 10_000],
            echo: ECHO_CONNECTIONS,
            idle: 10_000,
            rounds: 15,
            echo_span: Duration::from_secs(1),
            idle_span: Duration::from_secs(10),
        }
    }

    pub(crate) fn smoke() -> Self {
        Plan {
            fanout: vec![50],
            echo: 50,
            idle: 50,
            rounds: 2,
            echo_span: Duration::from_millis(50),
            idle_span: Duration::from_millis(100),
        }
    }

    /// Takes what the command line asks for in place of the usual.
    pub(crate) fn set(&mut self, connections: &[usize], rounds: Option<usize>) {
        if let [first, ..] = connections {
            self.fanout = connections.to_vec();
            (self.echo, self.idle) = (*first, *first);
        }
        self.rounds = rounds.unwrap_or(self.rounds).max(1);
    }
}

/// Server or floor with its client.
struct Side {
    client: Client,
    served: Served,
}

impl Side {
    fn new(served: Served, app: App, framing: Framing, connections: usize) -> Result<Self, String> {
        Ok(Side { client: Client::connect(&served, app, framing, connections)?, served })
    }

    /// Server and floor.
    fn pair(app: App, connections: usize) -> Result<[Self; 2], String> {
        Ok([
            Side::new(Served::server(app, Framing::Line)?, app, Framing::Line, connections)?,
            Side::new(Served::bare(app)?, app, Framing::Line, connections)?,
        ])
    }
}

/// What a side did in one turn.
struct Turn {
    figures: [f64; 2],
    /// Which part of the time its processes waited for a CPU that others had.
    waited: f64,
}

/// The medians of both sides.
struct Medians {
    server: [f64; 2],
    floor: [f64; 2],
    /// Too few rounds were undisturbed, so that all of them count.
    noisy: bool,
}

/// Has both sides take their turns; who begins changes from round to round. A round in which other programs got in
/// the way is left out, as long as enough others are left.
fn take_turns(
    sides: &mut [Side; 2],
    rounds: usize,
    mut turn: impl FnMut(&mut Side) -> Result<[f64; 2], String>,
) -> Result<Medians, String> {
    let (mut all, mut quiet) = (Vec::new(), Vec::new());
    // The first round only warms up.
    for round in 0..=rounds * ROUNDS_TRIED {
        let [first, second] = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        let mut turns = [first, second].map(|side| timed(&mut sides[side], &mut turn));
        turns.rotate_left(first);
        let [server, floor] = turns;
        let (server, floor) = (server?, floor?);
        if round > 0 {
            all.push([server.figures, floor.figures]);
            if server.waited.max(floor.waited) < WAITED_MAX {
                quiet.push([server.figures, floor.figures]);
            }
        }
        if quiet.len() == rounds {
            break;
        }
    }
    let noisy = quiet.len() < rounds.div_ceil(3);
    let figures = if noisy { all } else { quiet };
    let medians = |side: usize| [0, 1].map(|index| median(figures.iter().map(|round| round[side][index]).collect()));
    Ok(Medians { server: medians(0), floor: medians(1), noisy })
}

fn timed(side: &mut Side, turn: impl FnOnce(&mut Side) -> Result<[f64; 2], String>) -> Result<Turn, String> {
    let waited = |side: &Side| Ok::<_, String>(side.served.usage()?.waited + side.client.usage()?.waited);
    let (before, started) = (waited(side)?, Instant::now());
    let figures = turn(side)?;
    let waited = waited(side)? - before;
    Ok(Turn { figures, waited: waited.as_secs_f64() / started.elapsed().as_secs_f64() })
}

/// One message to all: the server's CPU for each delivered message.
pub(crate) fn fanout(plan: &Plan, table: &mut Table) -> Result<(), String> {
    for connections in plan.fanout.iter().copied() {
        let mut sides = Side::pair(App::Hub, connections)?;
        for (burst, what, what_time) in [
            (1, "fanout, CPU a message", "fanout, time to the last"),
            (BURST, "burst of 32, CPU a message", "burst of 32, time to the last"),
        ] {
            let Medians { server, floor, noisy } = take_turns(&mut sides, plan.rounds, |side| {
                std::thread::sleep(SETTLE);
                let before = side.served.usage()?.cpu;
                let took = side.client.publish(burst)?;
                std::thread::sleep(SETTLE);
                let cpu = side.served.usage()?.cpu - before;
                Ok([micros(cpu) / (connections * burst) as f64, took.as_secs_f64() * 1e3])
            })?;
            let ratio = server[0] / floor[0];
            table.add(&Row {
                what,
                connections,
                server: format!("{:.2} µs", server[0]),
                floor: Some(format!("{:.2} µs", floor[0])),
                ratio: Some(ratio),
                judged: if burst == 1 { ratio } else { server[0] },
                goal: if burst == 1 { Goal::AtMost(1.15, "") } else { Goal::AtMost(0.5, " µs") },
                noisy,
            });
            table.add(&Row {
                what: what_time,
                connections,
                server: format!("{:.1} ms", server[1]),
                floor: Some(format!("{:.1} ms", floor[1])),
                ratio: Some(server[1] / floor[1]),
                judged: 0.0,
                goal: Goal::None,
                noisy,
            });
        }
    }
    Ok(())
}

/// A closed loop: every connection sends its message again as soon as it is back.
pub(crate) fn echo(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let connections = plan.echo;
    let mut sides = Side::pair(App::Echo, connections)?;
    let Medians { server, floor, noisy } = take_turns(&mut sides, plan.rounds, |side| {
        let before = side.served.usage()?.cpu;
        let (within, took, all) = side.client.echo(plan.echo_span)?;
        std::thread::sleep(SETTLE);
        let cpu = side.served.usage()?.cpu - before;
        Ok([within / took.as_secs_f64(), micros(cpu) / all])
    })?;
    let ratio = server[0] / floor[0];
    table.add(&Row {
        what: "echo, rate",
        connections,
        server: format!("{:.0} /s", server[0]),
        floor: Some(format!("{:.0} /s", floor[0])),
        ratio: Some(ratio),
        judged: ratio,
        goal: Goal::AtLeast(0.75, ""),
        noisy,
    });
    table.add(&Row {
        what: "echo, CPU a message",
        connections,
        server: format!("{:.2} µs", server[1]),
        floor: Some(format!("{:.2} µs", floor[1])),
        ratio: Some(server[1] / floor[1]),
        judged: 0.0,
        goal: Goal::None,
        noisy,
    });
    Ok(())
}

/// Process memory for each idle, subscribed connection.
pub(crate) fn memory(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let connections = plan.idle;
    for (framing, burst, what) in [
        (Framing::Line, false, "memory, line"),
        (Framing::Length, false, "memory, length"),
        (Framing::Line, true, "memory, line, after a burst"),
    ] {
        let served = Served::server(App::Hub, framing)?;
        let before = served.memory()?;
        let mut side = Side::new(served, App::Hub, framing, connections)?;
        if burst {
            side.client.publish(BURST)?;
        }
        std::thread::sleep(SETTLE);
        let each = (side.served.memory()? - before) / connections as f64;
        table.add(&Row {
            what,
            connections,
            server: format!("{each:.0} B"),
            floor: None,
            ratio: None,
            judged: each / 1024.0,
            goal: Goal::AtMost(1.1, " KB"),
            noisy: false,
        });
    }
    Ok(())
}

/// What idle, subscribed connections cost in CPU.
pub(crate) fn idle(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let connections = plan.idle;
    let side = Side::new(Served::server(App::Hub, Framing::Line)?, App::Hub, Framing::Line, connections)?;
    std::thread::sleep(SETTLE);
    let (cpu, ticks) = (side.served.usage()?.cpu, side.served.ticks()?);
    std::thread::sleep(plan.idle_span);
    let (cpu, ticks) = (side.served.usage()?.cpu - cpu, side.served.ticks()? - ticks);
    table.add(&Row {
        what: "idle, CPU a second",
        connections,
        server: format!("{:.0} µs", micros(cpu) / plan.idle_span.as_secs_f64()),
        floor: None,
        ratio: None,
        judged: 0.0,
        goal: Goal::None,
        noisy: false,
    });
    table.add(&Row {
        what: "idle, CPU in accounting ticks",
        connections,
        server: format!("{ticks} ticks"),
        floor: None,
        ratio: None,
        judged: ticks as f64,
        goal: Goal::AtMost(0.0, " ticks"),
        noisy: false,
    });
    Ok(())
}
