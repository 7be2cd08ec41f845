//! The load generator: the parts without I/O.

mod client;
mod clock;
mod latency;
mod payload;
mod sources;
mod tally;
mod turns;

pub use sources::SourceIps;
