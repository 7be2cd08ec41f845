//! A push server for Linux, as a library.

pub mod cli;
mod codec;
mod config;
mod echo;
mod handler;
mod host;
mod hub;
mod message;
mod metrics;
mod registry;
mod report;
mod server;
mod shard;
mod sys;

pub use config::{
    Config, ConfigError, Cpus, Framing, Listen, SHARDS_MAX, SlowConsumer, bytes_from_text, bytes_to_text,
    duration_from_text, duration_to_text,
};
pub use echo::Echo;
pub use handler::{Context, Event, Handler, PublishError, SendError, SubscribeError};
pub use host::HostError;
pub use hub::{ErrorCode, Hub};
pub use message::{CloseReason, ConnId, DropReason, PublishId, Topic, TopicError};
pub use metrics::{Counter, ShardMetrics};
pub use report::Reporter;
pub use server::{RunError, Server, ServerHandle, StartError};
pub use shard::listener::BindError;
