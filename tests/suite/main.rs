//! The integration tests: one binary, a module for each theme.

mod support;

mod buffers;
mod closing;
#[cfg(feature = "control")]
mod dashboard;
mod delivery;
mod drain;
mod framing;
mod language;
mod layering;
mod limits;
mod readme;
mod slow;
