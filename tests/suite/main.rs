//! The integration tests: one binary, a module for each theme.

mod support;

mod language;
mod layering;
mod readme;
