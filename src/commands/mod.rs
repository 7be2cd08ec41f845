//! What the program does besides serving: commands that speak to a running server, and one that looks at the host.

use std::io::{self, Write};

mod client;
pub mod doctor;
mod error;
pub mod push;
pub mod stats;
mod text;

pub use client::{ControlArgs, ControlUrl, Problem};
pub use error::CommandError;

/// Prints to stdout. A reader that has gone away (`| head`) is no fault: there is nobody left to tell.
fn print(text: &str) {
    let _ = is_printed(text);
}

/// Prints to stdout; whether somebody reads it.
fn is_printed(text: &str) -> bool {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}
