//! A push server for Linux: it holds up to millions of long-lived client connections on one machine and pushes
//! messages to one of them, to the subscribers of a topic, or to all.
//!
//! One glommio executor runs on each core, with io_uring underneath. A **shard** is everything on one core:
//! listeners, connection table, buffers, outboxes, and a [`Handler`] of its own. Shards share nothing but messages.
//!
//! What clients, backends and operators need to know is in the [`guide`].
//!
//! To build a server of your own, implement [`Handler`] and start a [`Server`]. To run the push server with its
//! topics and its language, use [`Hub`], or the `corecast` program.
//!
//! # An echo server
//!
//! ```
//! use std::io::{BufRead, BufReader, Write};
//! use corecast::{Context, Framing, Handler, Server};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
//!         let _ = cx.send(message);
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let server = Server::builder(["line=127.0.0.1:0".parse()?], |_shard| Echo).start()?;
//!
//!     let mut client = std::net::TcpStream::connect(server.addr(Framing::Line).unwrap())?;
//!     client.write_all(b"hello\n")?;
//!     let mut line = String::new();
//!     BufReader::new(client).read_line(&mut line)?;
//!     assert_eq!(line, "hello\n");
//!
//!     server.handle().shutdown();
//!     Ok(server.wait()?)
//! }
//! ```
//!
//! # A chat room
//!
//! Each shard has its own instance, so state of one connection lives where the connection does. What is published
//! reaches the subscribers on all shards.
//!
//! ```
//! use std::io::{BufRead, BufReader, Write};
//! use corecast::{CloseReason, Context, Framing, Handler, Server};
//!
//! struct Chat;
//!
//! impl Handler for Chat {
//!     fn on_connect(&mut self, cx: &mut Context<'_>) {
//!         let _ = cx.subscribe("room");
//!         let _ = cx.publish("room", format!("{} came", cx.id()));
//!     }
//!
//!     fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
//!         let text = format!("{}: {}", cx.id(), String::from_utf8_lossy(message));
//!         if let Err(error) = cx.publish("room", text) {
//!             let _ = cx.send(error.to_string().as_bytes());
//!         }
//!     }
//!
//!     fn on_close(&mut self, cx: &mut Context<'_>, reason: CloseReason) {
//!         let _ = cx.publish("room", format!("{} left: {reason}", cx.id()));
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder(["line=127.0.0.1:0".parse()?], |_shard| Chat).start()?;
//! # let mut client = std::net::TcpStream::connect(server.addr(Framing::Line).unwrap())?;
//! # let mut lines = BufReader::new(client.try_clone()?).lines();
//! # let came = lines.next().unwrap()?;
//! # assert!(came.ends_with(" came"), "{came}");
//! # client.write_all(b"hello\n")?;
//! # let said = lines.next().unwrap()?;
//! # assert!(said.ends_with(": hello"), "{said}");
//! # server.handle().shutdown();
//! # server.wait()?;
//! # Ok(())
//! # }
//! ```
//!
//! # More examples
//!
//! In the repository under `tests/examples`, each of which runs by `cargo run --example NAME`: `echo`; `chat`, with names, a time
//! limit to say one, and state that shards share; `presence`, who is there on all shards; `token`, which lets users in by a token
//! in their request; `in_tokio`, a server inside a program that runs on tokio.
//!
//! # Browsers
//!
//! On an address of the framing `http`, WebSockets open at `/ws`. What else is there is the handler's to declare, in
//! `Handler::routes`: other paths, subprotocols, server-sent events, pages. It needs the feature `web`.
//!
//! # Testing a handler
//!
//! [`testing::Shard`] runs a handler in memory: without sockets and threads, and with a time that passes when a test says so.
//!
//! # From outside the shards
//!
//! A [`ServerHandle`] may be cloned and used on any thread: [`publish`](ServerHandle::publish),
//! [`broadcast`](ServerHandle::broadcast), [`send`](ServerHandle::send) to one [`ConnId`],
//! [`close`](ServerHandle::close), [`conn_count`](ServerHandle::conn_count), [`stats`](ServerHandle::stats),
//! [`drain`](ServerHandle::drain) and [`shutdown`](ServerHandle::shutdown). None of them waits for a client. A handler that
//! needs it finds a weak one in its [`ShardContext`].
//!
//! # What a handler can rely on
//!
//! - [`Handler::on_open`] is asked before a client is sent anything. Over HTTP it sees the request, and its refusal is the answer.
//! - [`Context::send`] never blocks. It says [`SendError::QueueFull`] at once when the client is too slow, and
//!   [`Handler::on_writable`] is called when there is room again.
//! - [`Context::close`] may be called any number of times; each connection gets one [`CloseReason`].
//! - What is not open is called `NotOpen` by every error.
//! - A [`ConnId`] of a closed connection never reaches another connection.
//! - One publisher's messages reach each subscriber in the order they were published, on whichever shards they are.
//! - A message that is not delivered is counted under a [`DropReason`], and the client is told of it if the handler
//!   puts [`Event::Gap`] into words.
//! - Text and binary are [`Kind`]s, which a message keeps on its way: what came over a WebSocket as binary is sent back,
//!   and published, as binary, unless the handler says otherwise.
//! - A panic in a callback ends the connection that it was called for, unless the [builder](ServerBuilder::on_panic) says
//!   otherwise.
//!
//! # Logging
//!
//! The library emits `tracing` events and writes nothing by itself. Some of them come from the shards' threads, so **a
//! subscriber must not block**: one that writes to a pipe whose reader is slow stops a shard, and all of its clients.
//! Neither must a panic hook, nor `eprintln!` in a handler. Queue the lines and write them on a thread of your own, as
//! `corecast serve` does and as `tracing_appender::non_blocking` can.

mod config;
#[cfg(feature = "control")]
pub mod control;
mod echo;
mod engine;
mod event;
pub mod guide;
mod handler;
mod heap;
pub mod host;
mod hub;
#[cfg(feature = "internals")]
pub mod internals;
#[cfg(feature = "web")]
mod json;
mod message;
mod metrics;
mod protocol;
mod publish;
mod rate;
mod receipt;
mod request;
#[cfg(feature = "web")]
pub mod routes;
mod server;
mod session;
mod shard;
#[cfg(test)]
mod simulation;
#[cfg(feature = "web")]
mod site;
mod sys;
pub mod testing;
mod transport;

pub use config::{
    Config, ConfigError, ControlAddr, Cpus, Framing, Listen, ParseError, Pin, QUERY_PAGE_MAX, SHARDS_MAX, SlowConsumer,
    bytes_to_text, duration_to_text,
};
#[cfg(feature = "web")]
pub use config::{HostName, Origin};
#[cfg(feature = "serde")]
pub use config::{bytes_from_text, duration_from_text};
pub use echo::Echo;
pub use engine::query::ConnectionInfo;
pub use event::Event;
pub use handler::{Context, Handler, OnPanic, PublishError, SendError, SubscribeError, TimerError};
pub use host::HostError;
pub use hub::{ErrorCode, Hub};
pub use message::{CloseReason, ConnId, Dialect, DropReason, Kind, Payload, PublishId, Target, Topic, TopicError};
pub use metrics::{Counter, ShardMetrics, Spans};
pub use receipt::{Published, Receipt};
pub use request::{Reject, Request};
#[cfg(feature = "web")]
pub use routes::Routes;
pub use server::bind::BindError;
pub use server::handle::{CloseError, ConnectionCursor, PolicyError, QueryError, ServerHandle, TopicInfo, WeakHandle};
pub use server::placement::Placement;
pub use server::report::Reporter;
pub use server::{Outlook, RunError, Server, ServerBuilder, ShardContext, StartError};
pub use session::Session;
