//! What the program does besides serving: commands that speak to a running server, and one that looks at the host.

use std::io::{self, Write};

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

/// Prints to stdout; whether somebody reads it. That nobody does (`| head`) is no fault.
fn print(text: &str) -> bool {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}
