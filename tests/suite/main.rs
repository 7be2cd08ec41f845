//! The integration tests, a module per theme.

mod readme;
