//! The integration tests: one binary, a module for each theme.

mod support;

mod delivery;
mod framing;
mod language;
mod layering;
mod readme;
mod slow;
