//! Subscribing, unsubscribing, and finding who is subscribed, with few topics and with many, beside a bare `HashMap` from
//! the same names to lists of numbers. The server's map keeps an order, and each connection's topics, besides.

#[path = "support/micro.rs"]
mod micro;
mod support;

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use corecast::internals::Topics;

use micro::{Micro, repeat};
use support::table::Table;
use support::{Bench, Plan};

/// Subscriptions that are made before they are ended again, each by a connection of its own.
const AT_ONCE: usize = 64;

fn main() -> ExitCode {
    support::main(Bench {
        name: "topics",
        of: "topics",
        full: Plan { sizes: &[1, 1_000, 100_000, 1_000_000], rounds: 30, span: Duration::from_millis(500) },
        smoke: Plan { sizes: &[1, 1_000], rounds: 1, span: Duration::ZERO },
        measure,
    })
}

fn measure(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let mut micro = Micro::new("topics", plan, table);
    for size in plan.sizes.iter().copied() {
        let names: Vec<String> = (0..size).map(|number| format!("room/{number}")).collect();
        let new: Vec<String> = (0..AT_ONCE).map(|number| format!("new/{number}")).collect();
        // One subscriber each, and then those that come and go.
        let (mut topics, mut bare) = (Topics::with_connections(size + AT_ONCE), Bare::default());
        for (connection, name) in names.iter().enumerate() {
            topics.subscribe(connection, name);
            bare.subscribe(connection, name);
        }
        for (what, end_what, names) in
            [("subscribe", "unsubscribe", &names), ("subscribe, first", "unsubscribe, last", &new)]
        {
            for (what, part) in [(what, 0), (end_what, 1)] {
                micro.compare(
                    what,
                    size,
                    |times| come_and_go(&mut topics, times, size, names)[part],
                    |times| come_and_go(&mut bare, times, size, names)[part],
                );
            }
        }
        micro.compare("match", size, |times| look_up(&topics, times, &names), |times| look_up(&bare, times, &names));
        let left = |store: &dyn Store| names.iter().chain(&new).map(|name| store.members(name)).sum::<usize>();
        if (left(&topics), left(&bare)) != (size, size) {
            return Err(format!("of {size} subscribers, {} and {} are left", left(&topics), left(&bare)));
        }
    }
    micro.finish()
}

/// Who is subscribed to what.
trait Store {
    fn subscribe(&mut self, connection: usize, name: &str);
    fn unsubscribe(&mut self, connection: usize, name: &str);
    fn members(&self, name: &str) -> usize;
}

impl Store for Topics {
    fn subscribe(&mut self, connection: usize, name: &str) {
        assert!(self.subscribe(connection, name), "{connection} is not subscribed to {name} yet");
    }

    fn unsubscribe(&mut self, connection: usize, name: &str) {
        assert!(self.unsubscribe(connection, name), "{connection} is subscribed to {name}");
    }

    fn members(&self, name: &str) -> usize {
        self.members(name)
    }
}

/// The floor.
#[derive(Default)]
struct Bare(HashMap<String, Vec<usize>>);

impl Store for Bare {
    fn subscribe(&mut self, connection: usize, name: &str) {
        match self.0.get_mut(name) {
            Some(members) => members.push(connection),
            None => drop(self.0.insert(name.to_owned(), vec![connection])),
        }
    }

    fn unsubscribe(&mut self, _: usize, name: &str) {
        if let Some(members) = self.0.get_mut(name) {
            members.pop();
            if members.is_empty() {
                self.0.remove(name);
            }
        }
    }

    fn members(&self, name: &str) -> usize {
        self.0.get(name).map_or(0, Vec::len)
    }
}

/// How long it takes to make so many subscriptions to topics here and there, and how long to end them. The connections
/// from the number `first` on come and go.
fn come_and_go(store: &mut impl Store, times: u64, first: usize, names: &[String]) -> [Duration; 2] {
    let (mut coming, mut going) = (Duration::ZERO, Duration::ZERO);
    for done in (0..times).step_by(AT_ONCE) {
        let chosen = (done..times.min(done + AT_ONCE as u64)).map(|number| here_and_there(number, names));
        let started = Instant::now();
        for (connection, name) in chosen.clone().enumerate() {
            store.subscribe(first + connection, name);
        }
        let come = Instant::now();
        for (connection, name) in chosen.enumerate() {
            store.unsubscribe(first + connection, name);
        }
        coming += come - started;
        going += come.elapsed();
    }
    [coming, going]
}

fn look_up(store: &impl Store, times: u64, names: &[String]) -> Duration {
    let mut number = 0;
    repeat(times, || {
        number += 1;
        store.members(here_and_there(number, names))
    })
}

/// Spreads consecutive numbers over the names; those of so few as come and go at once get one each.
fn here_and_there(number: u64, names: &[String]) -> &str {
    let spread = if names.len() > AT_ONCE { number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20 } else { number };
    &names[spread as usize % names.len()]
}
