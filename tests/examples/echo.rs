//! Sends each message back to whom it came from.
//!
//! `cargo run --example echo`, and then `nc localhost 8888`.

use corecast::{Context, Handler, Listen, SendError, Server, StartError};

struct Echo;

impl Handler for Echo {
    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        match cx.send(message) {
            Ok(()) => {}
            // A client that sends and does not read has a full queue at some time. It is the server's choice what then.
            Err(SendError::QueueFull) => cx.close_with(1008, "you don't read what you ask for"),
            Err(error) => eprintln!("{}: {error}", cx.id()),
        }
    }
}

/// Starts the server.
pub(crate) fn start(listen: impl IntoIterator<Item = Listen>) -> Result<Server, StartError> {
    Server::builder(listen, |_shard| Echo).start()
}

#[allow(dead_code, reason = "the tests call `start`")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = start(["line=[::]:8888".parse()?])?;
    println!("listening on {}", server.listen()[0]);
    Ok(server.wait()?)
}
