//! What the tests have in common: servers in this process and as a program, clients, and waiting.

// Some of it serves only tests that a build with fewer features leaves out.
#![cfg_attr(not(feature = "program"), allow(dead_code))]

#[macro_use]
mod settings;
mod client;
pub(crate) mod http;
#[cfg(feature = "program")]
mod program;
mod random;
mod server;
#[cfg(feature = "program")]
mod tools;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use corecast::Framing;

pub(crate) use client::Client;
#[cfg(feature = "program")]
pub(crate) use program::{Log, Program};
pub(crate) use random::Random;
pub(crate) use server::{Fixture, config, everywhere, tight};
#[cfg(feature = "program")]
pub(crate) use tools::{can_browse, node_has, runs};

/// The framings in which a stream is nothing but messages.
pub(crate) const PLAIN: [Framing; 2] = [Framing::Line, Framing::Length];

/// How long anything may take before a test gives up on it. It is no measure of speed: a machine that is busy with
/// other things must not fail a test.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Whether a tool is here that a test needs and that `.ci/setup` installs. Who runs the tests without it is told what
/// is left out; in CI every tool must be there.
#[track_caller]
pub(crate) fn is_here(tool: &str, found: bool) -> bool {
    let required = ["CI", "CORECAST_TOOLS"].iter().any(|name| std::env::var_os(name).is_some());
    assert!(found || !required, "{tool} is missing; .ci/setup installs it");
    if !found {
        println!("left out: {tool} is not here; .ci/setup installs it");
    }
    found
}

/// What a control plane answers to a GET.
#[cfg(feature = "program")]
#[track_caller]
pub(crate) fn get(control: &str, path: &str) -> String {
    use std::io::{Read, Write};

    let mut stream = std::net::TcpStream::connect(control).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {control}\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// A port that nobody listens on, for a server that is started again there. It lies below those that the kernel gives to
/// port 0 and to clients, so that none of the tests beside this one gets it meanwhile.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const PORTS: u32 = 20_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    loop {
        let number = first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = (FIRST + number % PORTS) as u16;
        // Without IPv6 there is the other family alone.
        let is_free = |addr: SocketAddr| match TcpListener::bind(addr) {
            Ok(_) => true,
            Err(error) => error.kind() != std::io::ErrorKind::AddrInUse,
        };
        if is_free((Ipv4Addr::UNSPECIFIED, port).into()) && is_free((Ipv6Addr::UNSPECIFIED, port).into()) {
            return port;
        }
    }
}

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
