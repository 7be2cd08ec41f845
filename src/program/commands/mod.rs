//! What the program does besides serving: commands that speak to a running server, and one that looks at the host.

mod client;
pub(crate) mod doctor;
mod error;
mod problem;
pub(crate) mod push;
pub(crate) mod stats;
pub(crate) mod text;

#[cfg(feature = "load")]
pub(crate) use client::{ControlUrl, count_connections};
pub(crate) use error::CommandError;

use crate::output::print;
