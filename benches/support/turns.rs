//! Server and floor take turns.

use std::time::{Duration, Instant};

use super::process::{App, Client, Served};
use super::wire::Wire;

/// How long a server is left alone before its CPU time is read: until it sleeps, and its memory has settled.
pub(crate) const SETTLE: Duration = Duration::from_millis(10);

/// A turn is noisy when its processes waited for more than this part of it for a CPU that others had.
const WAITED_MAX: f64 = 0.02;

/// How many times the rounds asked for are tried to find enough that are not noisy.
const ROUNDS_TRIED: usize = 3;

/// Server or floor with its client.
pub(crate) struct Side {
    pub(crate) client: Client,
    pub(crate) served: Served,
    pub(crate) wire: Wire,
}

impl Side {
    /// A client with so many open connections; with none, it is yet to connect.
    pub(crate) fn new(served: Served, app: App, wire: Wire, connections: usize) -> Result<Self, String> {
        let mut side = Side { client: Client::start(served.addr, app, wire)?, served, wire };
        if connections > 0 {
            side.client.connect(connections)?;
        }
        Ok(side)
    }

    /// Server and floor, over the line framing.
    pub(crate) fn pair(app: App, connections: usize) -> Result<[Self; 2], String> {
        Ok([
            Side::new(Served::server(app, Wire::Line)?, app, Wire::Line, connections)?,
            Side::new(Served::bare(app)?, app, Wire::Line, connections)?,
        ])
    }

    /// What the server or floor does for some work, in CPU time, and what the work gave.
    pub(crate) fn cpu_of<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, String>,
    ) -> Result<(Duration, T), String> {
        std::thread::sleep(SETTLE);
        let before = self.served.proc.usage()?.cpu;
        let given = work(self)?;
        std::thread::sleep(SETTLE);
        Ok((self.served.proc.usage()?.cpu - before, given))
    }

    fn waited(&self) -> Result<Duration, String> {
        Ok(self.served.proc.usage()?.waited + self.client.proc.usage()?.waited)
    }
}

/// The medians of server and floor.
pub(crate) struct Medians<const N: usize> {
    pub(crate) server: [f64; N],
    pub(crate) floor: [f64; N],
    /// Too few rounds were undisturbed, so that all of them count.
    pub(crate) noisy: bool,
}

/// Has both sides of one pair take their turns; see [`take_all_turns`].
pub(crate) fn take_turns<const N: usize>(
    pair: &mut [Side; 2],
    rounds: usize,
    mut turn: impl FnMut(&mut Side) -> Result<[f64; N], String>,
) -> Result<Medians<N>, String> {
    let medians = take_all_turns(std::slice::from_mut(pair), rounds, |_, side| turn(side))?;
    Ok(medians.into_iter().next().expect("one pair has one result"))
}

/// Has all sides of several pairs take their turns; `turn` gets the pair's number. Who begins changes from round to
/// round. A turn in which other programs got in the way is left out, as long as enough others are left.
pub(crate) fn take_all_turns<const N: usize>(
    pairs: &mut [[Side; 2]],
    rounds: usize,
    mut turn: impl FnMut(usize, &mut Side) -> Result<[f64; N], String>,
) -> Result<Vec<Medians<N>>, String> {
    let mut records: Vec<_> = pairs.iter().map(|_| Record::default()).collect();
    // The first round only warms up.
    for round in 0..=rounds * ROUNDS_TRIED {
        for (number, (pair, record)) in pairs.iter_mut().zip(&mut records).enumerate() {
            let [first, second] = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            let mut turns = [first, second].map(|side| timed(&mut pair[side], |side| turn(number, side)));
            turns.rotate_left(first);
            let [server, floor] = turns;
            let (server, floor) = (server?, floor?);
            if round > 0 {
                let figures = [server.figures, floor.figures];
                record.all.push(figures);
                if server.waited.max(floor.waited) < WAITED_MAX {
                    record.quiet.push(figures);
                }
            }
        }
        if records.iter().all(|record| record.quiet.len() >= rounds) {
            break;
        }
    }
    Ok(records.into_iter().map(|record| record.medians(rounds)).collect())
}

/// The figures of a pair, by round and side.
struct Record<const N: usize> {
    all: Vec<[[f64; N]; 2]>,
    quiet: Vec<[[f64; N]; 2]>,
}

impl<const N: usize> Default for Record<N> {
    fn default() -> Self {
        Record { all: Vec::new(), quiet: Vec::new() }
    }
}

impl<const N: usize> Record<N> {
    fn medians(self, rounds: usize) -> Medians<N> {
        let noisy = self.quiet.len() < rounds.div_ceil(3);
        let figures = if noisy { self.all } else { self.quiet };
        let of =
            |side: usize| std::array::from_fn(|index| median(figures.iter().map(|round| round[side][index]).collect()));
        Medians { server: of(0), floor: of(1), noisy }
    }
}

/// What a side did in one turn.
struct Turn<const N: usize> {
    figures: [f64; N],
    /// Which part of the time its processes waited for a CPU that others had.
    waited: f64,
}

fn timed<const N: usize>(
    side: &mut Side,
    turn: impl FnOnce(&mut Side) -> Result<[f64; N], String>,
) -> Result<Turn<N>, String> {
    let (before, started) = (side.waited()?, Instant::now());
    let figures = turn(side)?;
    let waited = side.waited()? - before;
    Ok(Turn { figures, waited: waited.as_secs_f64() / started.elapsed().as_secs_f64() })
}

/// The middle one of some figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => figures[len / 2],
        len => (figures[len / 2 - 1] + figures[len / 2]) / 2.0,
    }
}

pub(crate) fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}
