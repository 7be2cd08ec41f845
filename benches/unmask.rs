//! How fast the masks of WebSocket frames come off. The work is done in place by a loop that the compiler is to turn
//! into vector instructions; a loop that it can't shows what that brings.
//!
//! Run it with `cargo bench --bench unmask`.

#[path = "../src/codec/websocket/mask.rs"]
mod mask;

use std::hint::black_box;
use std::time::Instant;

const MASK: mask::Mask = [0x37, 0xfa, 0x21, 0x3d];

/// Bytes that each measurement works through.
const TOTAL: usize = 1 << 29;

fn main() {
    let cycles = cycles_per_second();
    println!("{:>12} {:>10} {:>14} {:>16}", "payload", "GB/s", "bytes/cycle", "byte by byte");
    for len in [128, 1024, 16 * 1024, 64 * 1024] {
        let mut bytes = vec![b'x'; len];
        let vector = bytes_per_second(&mut bytes, |bytes| mask::unmask(bytes, MASK));
        let single = bytes_per_second(&mut bytes, |bytes| {
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte = black_box(*byte ^ MASK[at % 4]);
            }
        });
        let per_cycle = |rate: f64| cycles.map_or("?".into(), |cycles| format!("{:.1}", rate / cycles));
        println!("{len:>10} B {:>10.1} {:>14} {:>16}", vector / 1e9, per_cycle(vector), per_cycle(single));
    }
}

/// The best of five runs: what else the machine does only makes one slower.
fn bytes_per_second(bytes: &mut [u8], work: impl Fn(&mut [u8])) -> f64 {
    let rounds = TOTAL / bytes.len();
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..rounds {
            work(black_box(&mut *bytes));
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    TOTAL as f64 / best
}

/// The clock of the first CPU as the kernel tells it; `None`: it does not.
fn cycles_per_second() -> Option<f64> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("cpu MHz"))?;
    line.split(':').nth(1)?.trim().parse::<f64>().ok().map(|mhz| mhz * 1e6)
}
