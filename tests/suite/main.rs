//! The integration tests: one binary, a module for each theme.

mod support;

mod autobahn;
mod balance;
mod buffers;
mod clients;
mod closing;
#[cfg(feature = "control")]
mod commands;
#[cfg(feature = "control")]
mod control;
#[cfg(feature = "control")]
mod dashboard;
mod delivery;
#[cfg(feature = "control")]
mod deploy;
mod doctor;
mod drain;
mod foreign;
mod framing;
mod full;
mod guide;
mod kinds;
mod language;
mod layering;
mod library;
mod limits;
mod load;
mod logging;
mod memory;
mod million;
mod partial;
mod pauses;
mod peers;
mod placement;
mod ramp;
mod rates;
mod requests;
mod slow;
#[cfg(feature = "control")]
mod soak;
mod sse;
mod stacks;
mod streams;
mod terminal;
mod vanished;
mod websocket;
