//! The integration tests: one binary, a module for each theme.

mod support;

mod closing;
mod delivery;
mod framing;
mod language;
mod layering;
mod limits;
mod readme;
mod slow;
