//! What an idle, subscribed connection takes in memory: of the server's process, and of the kernel, which is the same
//! for a program that accepts connections and holds them.
//!
//! All sides stay open to the end, since the kernel would give the memory of closed sockets to the next ones. Its part
//! is read for the whole machine, and holds the clients' ends too: let nothing else run beside it.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use support::proc::kernel_memory;
use support::process::{App, Served};
use support::table::{Goal, Row, Table};
use support::turns::Side;
use support::wire::Wire;
use support::{Bench, Plan};

/// Messages of a burst, after which the memory must be given back.
const BURST: usize = 32;

/// The kernel's memory is steady when it changes by less than this from one look to the next.
const STEADY_BYTES: f64 = 512.0 * 1024.0;
const STEADY_TRIES: usize = 20;

/// Process memory of a connection at the most, in bytes: 1.1 KiB.
const GOAL: Goal = Goal::AtMost(1126.0);

fn main() -> ExitCode {
    support::main(Bench {
        name: "memory",
        of: "connections",
        // The span lies between two looks at the kernel's memory.
        full: Plan { sizes: &[9_000], rounds: 1, span: Duration::from_millis(500) },
        smoke: Plan { sizes: &[50], rounds: 1, span: Duration::from_millis(10) },
        measure,
    })
}

fn measure(plan: &Plan, table: &mut Table) -> Result<(), String> {
    for size in plan.sizes.iter().copied() {
        let floor = Held::new(Served::bare(App::Hold)?, App::Hold, Wire::Line, size, plan.span)?;
        let mut all = Vec::new();
        for wire in Wire::ALL {
            let held = Held::new(Served::server(App::Hub, wire)?, App::Hub, wire, size, plan.span)?;
            let mut row = |what: &str, server, floor, goal| {
                let what = format!("{}, {what}", wire.name());
                table.add(&Row { what: &what, size, server, floor: Some(floor), unit: "B", goal, noisy: false })
            };
            row("process", held.process()?, floor.process()?, GOAL)?;
            row("kernel, with the client's end", held.kernel, floor.kernel, Goal::None)?;
            all.push(held);
        }
        let line = &mut all[0];
        line.side.client.publish(BURST)?;
        std::thread::sleep(plan.span);
        let (what, server) = ("line, process, after a burst", line.process()?);
        table.add(&Row { what, size, server, floor: None, unit: "B", goal: GOAL, noisy: false })?;
    }
    Ok(())
}

/// A server or floor that has its connections, and the memory of each.
struct Held {
    side: Side,
    size: usize,
    /// Memory of the process before they came.
    before: f64,
    /// The kernel's memory for each, at both ends.
    kernel: f64,
}

impl Held {
    fn new(served: Served, app: App, wire: Wire, size: usize, settle: Duration) -> Result<Self, String> {
        let mut side = Side::new(served, app, wire, 0)?;
        let kernel = steady_kernel_memory(settle)?;
        let (before, descriptors) = (side.served.proc.memory()?, side.served.proc.descriptors()?);
        let open = side.client.connect(size)?;
        side.served.wait_for_descriptors(descriptors + open)?;
        let kernel = (steady_kernel_memory(settle)? - kernel) / size as f64;
        Ok(Held { side, size, before, kernel })
    }

    /// Bytes that the process has taken for each connection.
    fn process(&self) -> Result<f64, String> {
        Ok((self.side.served.proc.memory()? - self.before) / self.size as f64)
    }
}

/// The kernel's memory once it stays the same: what held the sockets of programs that ended is given back bit by bit. On
/// a machine that is never at rest it is what it is after a while.
fn steady_kernel_memory(settle: Duration) -> Result<f64, String> {
    let mut last = kernel_memory()?;
    for _ in 0..STEADY_TRIES {
        std::thread::sleep(settle);
        let now = kernel_memory()?;
        if (now - last).abs() < STEADY_BYTES {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}
