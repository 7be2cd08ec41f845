//! What the tests have in common: servers in this process and as a program, clients, and waiting.

mod client;
pub(crate) mod http;
mod program;
mod random;
mod server;

use std::time::{Duration, Instant};

use corecast::Framing;

pub(crate) use client::Client;
#[allow(unused_imports)]
pub(crate) use program::{Ended, Program};
pub(crate) use random::Random;
pub(crate) use server::{Fixture, config, everywhere};

/// The framings in which a stream is nothing but messages.
pub(crate) const PLAIN: [Framing; 2] = [Framing::Line, Framing::Length];

/// How long anything may take before a test gives up on it. It is no measure of speed: a machine that is busy with
/// other things must not fail a test.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until something holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    let mut pause = Duration::from_micros(50);
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "gave up waiting until {what}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}
