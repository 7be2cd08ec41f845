//! What the program does besides serving: commands that speak to a running server, and one that looks at the host.

use std::io::{self, Write};

mod client;
pub mod doctor;
mod error;
pub mod push;
mod text;

pub use client::{ControlArgs, ControlUrl, Problem};
pub use error::CommandError;

/// Prints to stdout. A reader that has gone away (`| head`) is no fault: there is nobody left to tell.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
