//! What the program does besides serving: commands that speak to a running server, and one that looks at the host.

#[cfg(feature = "control")]
mod client;
pub mod doctor;
#[cfg(feature = "control")]
mod error;
#[cfg(feature = "control")]
pub mod push;
#[cfg(feature = "control")]
pub mod stats;
mod text;

#[cfg(feature = "control")]
pub(crate) use client::count_connections;
#[cfg(feature = "control")]
pub use client::{ControlArgs, ControlUrl, Problem};
#[cfg(feature = "control")]
pub use error::CommandError;

use crate::output::print;
