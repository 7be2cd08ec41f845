//! A push server inside a program that runs on tokio: its shards have threads of their own, and everything of its handle can be
//! called, and awaited, anywhere.
//!
//! `cargo run --example in_tokio`, and then `nc localhost 8888`: the time comes once a second, to all.

use std::time::{Duration, Instant};

use corecast::{Context, Handler, Listen, PublishError, RunError, Server, ServerHandle, StartError};

struct Clock;

impl Handler for Clock {
    fn on_connect(&mut self, cx: &mut Context<'_>) {
        let _ = cx.subscribe("time");
    }

    fn on_message(&mut self, _: &mut Context<'_>, _: &[u8]) {}
}

/// Starts the server.
pub(crate) fn start(listen: impl IntoIterator<Item = Listen>) -> Result<Server, StartError> {
    Server::builder(listen, |_shard| Clock).start()
}

/// Tells everybody the time, until the server has ended. Each message's receipt is awaited, so that a slow server is
/// asked no faster than it goes.
pub(crate) async fn tell_time(server: ServerHandle, every: Duration) -> PublishError {
    let started = Instant::now();
    loop {
        match server.publish("time", format!("{} ms", started.elapsed().as_millis())) {
            Ok(published) => {
                let receipt = published.receipt().await;
                println!("{} subscribers, {} got it at once", receipt.matched, receipt.written);
            }
            Err(PublishError::Busy) => {}
            Err(error) => return error,
        }
        tokio::time::sleep(every).await;
    }
}

/// Serves until `stop` resolves, and lets the clients go over some time.
pub(crate) async fn serve(server: Server, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    let handle = server.handle();
    let teller = tokio::spawn(tell_time(handle.clone(), Duration::from_secs(1)));
    let stopper = async {
        stop.await;
        handle.drain(Duration::from_secs(1));
    };
    let (ended, ()) = futures_lite::future::zip(server.ended(), stopper).await;
    teller.abort();
    ended
}

#[allow(dead_code, reason = "the tests call `serve`")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let server = start(["line=[::]:8888".parse()?])?;
    println!("listening on {}", server.listen()[0]);
    // A real program waits for a signal here.
    runtime.block_on(async { serve(server, tokio::time::sleep(Duration::from_secs(60))).await })?;
    Ok(())
}
