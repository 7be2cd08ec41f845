//! How fast the masks of WebSocket frames come off. The work is done in place by a loop that the compiler is to turn
//! into vector instructions; the floor is a loop that it can't, so that the ratio shows what that brings.

#[path = "../src/protocol/websocket/mask.rs"]
mod mask;
mod support;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use support::table::{Goal, Row, Table};
use support::turns::median;
use support::{Bench, Plan};

const MASK: mask::Mask = [0x37, 0xfa, 0x21, 0x3d];

/// Bytes that each turn works through.
const TOTAL: usize = 1 << 26;

fn main() -> ExitCode {
    support::main(Bench {
        name: "unmask",
        of: "bytes",
        full: Plan { sizes: &[128, 1024, 16 * 1024, 64 * 1024], rounds: 7, span: Duration::ZERO },
        smoke: Plan { sizes: &[128], rounds: 1, span: Duration::ZERO },
        measure,
    })
}

fn measure(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let cycles = cycles_per_second();
    for size in plan.sizes.iter().copied() {
        let mut bytes = vec![b'x'; size];
        let (mut vector, mut single) = (Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            vector.push(bytes_per_second(&mut bytes, |bytes| mask::unmask(bytes, MASK)));
            single.push(bytes_per_second(&mut bytes, |bytes| {
                for (at, byte) in bytes.iter_mut().enumerate() {
                    *byte = black_box(*byte ^ MASK[at % 4]);
                }
            }));
        }
        let (vector, single) = (median(vector), median(single));
        let (goal, noisy) = (Goal::None, false);
        let (what, server, floor) = ("unmasked", vector / 1e9, Some(single / 1e9));
        table.add(&Row { what, size, server, floor, unit: "GB/s", goal, noisy })?;
        if let Some(cycles) = cycles {
            let (what, server, floor) = ("unmasked in a cycle", vector / cycles, Some(single / cycles));
            table.add(&Row { what, size, server, floor, unit: "B", goal, noisy })?;
        }
    }
    Ok(())
}

fn bytes_per_second(bytes: &mut [u8], work: impl Fn(&mut [u8])) -> f64 {
    let start = Instant::now();
    for _ in 0..TOTAL / bytes.len() {
        work(black_box(&mut *bytes));
    }
    TOTAL as f64 / start.elapsed().as_secs_f64()
}

/// The clock of the first CPU as the kernel tells it; `None`: it does not.
fn cycles_per_second() -> Option<f64> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("cpu MHz"))?;
    line.split(':').nth(1)?.trim().parse::<f64>().ok().map(|mhz| mhz * 1e6)
}
