//! The integration tests: one binary, a module for each theme.

#[macro_use]
mod support;

#[cfg(feature = "program")]
mod autobahn;
mod balance;
mod buffers;
#[cfg(feature = "program")]
mod clients;
mod closing;
#[cfg(feature = "program")]
mod commands;
#[cfg(feature = "program")]
mod control;
#[cfg(feature = "program")]
mod dashboard;
#[cfg(feature = "web")]
mod deflate;
mod delivery;
#[cfg(feature = "program")]
mod deploy;
#[cfg(feature = "program")]
mod doctor;
#[cfg(feature = "program")]
mod drain;
mod embedding;
mod examples;
mod features;
#[cfg(feature = "web")]
mod foreign;
mod framing;
#[cfg(feature = "program")]
mod full;
#[cfg(feature = "web")]
mod fuzz;
mod guide;
#[cfg(feature = "web")]
mod kinds;
mod lanes;
mod language;
mod layering;
mod library;
#[cfg(feature = "program")]
mod limits;
#[cfg(feature = "load")]
mod load;
#[cfg(feature = "program")]
mod logging;
#[cfg(feature = "web")]
mod memory;
mod million;
#[cfg(feature = "web")]
mod partial;
#[cfg(feature = "program")]
mod pauses;
#[cfg(feature = "load")]
mod peers;
#[cfg(feature = "program")]
mod placement;
#[cfg(feature = "load")]
mod ramp;
#[cfg(feature = "web")]
mod rates;
#[cfg(feature = "program")]
mod requests;
#[cfg(feature = "web")]
mod routes;
mod slow;
#[cfg(feature = "program")]
mod soak;
#[cfg(feature = "web")]
mod sse;
#[cfg(feature = "web")]
mod stacks;
#[cfg(feature = "load")]
mod streams;
#[cfg(feature = "load")]
mod terminal;
#[cfg(feature = "web")]
mod vanished;
mod wakeups;
#[cfg(feature = "web")]
mod websocket;
