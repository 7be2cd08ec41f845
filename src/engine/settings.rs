//! The settings that the data path looks at, in the units it uses.

use std::time::Duration;

use super::wheel::{NEVER, Tick};
use crate::config::{Config, FRAME_OVERHEAD_BYTES_MAX, LANGUAGE_OVERHEAD_BYTES_MAX, LINGER_MS, SlowConsumer, TICK_MS};
#[cfg(feature = "web")]
use crate::config::{DEFLATE_BYTES_MIN, DEFLATE_SINGLE_BYTES_MIN};
use crate::rate::Rate;

/// Limits and times of one shard.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) message_max: usize,
    pub(crate) reply_bytes_max: usize,
    pub(crate) slow_consumer: SlowConsumer,
    pub(crate) topics_max: usize,
    pub(crate) topic_bytes_max: usize,
    pub(crate) message_rate: Option<Rate>,
    pub(crate) read_timeout: Option<Tick>,
    pub(crate) write_timeout: Option<Tick>,
    pub(crate) head_timeout: Tick,
    pub(crate) ping_every: Option<Tick>,
    pub(crate) linger: Tick,
    /// Bytes of a message that is compressed for several connections, and for one.
    #[cfg(feature = "web")]
    pub(crate) deflate_bytes_min: usize,
    #[cfg(feature = "web")]
    pub(crate) deflate_single_bytes_min: usize,
}

/// Ticks that a time span takes, rounded up; a shard's clock may be up to one tick behind.
pub(crate) fn ticks(span: Duration) -> Tick {
    let ticks = span.as_millis().div_ceil(u128::from(TICK_MS));
    Tick::try_from(ticks).unwrap_or(NEVER - 1) + 1
}

impl Settings {
    pub(crate) fn new(config: &Config) -> Self {
        let timeout = |span: Duration| (!span.is_zero()).then(|| ticks(span));
        // A ping must be answered before its silence is taken for death.
        let most = if config.read_timeout.is_zero() { Duration::MAX } else { config.read_timeout / 2 };
        let ping_every = Some(config.ping_every.min(most)).filter(|every| !every.is_zero());
        Settings {
            message_max: config.max_message,
            reply_bytes_max: config.max_message + LANGUAGE_OVERHEAD_BYTES_MAX + FRAME_OVERHEAD_BYTES_MAX,
            slow_consumer: config.slow_consumer,
            message_rate: Rate::new(config.message_rate),
            topics_max: config.topics_per_connection_max,
            topic_bytes_max: config.topic_bytes_max,
            read_timeout: timeout(config.read_timeout),
            write_timeout: timeout(config.write_timeout),
            head_timeout: ticks(config.head_timeout),
            ping_every: ping_every.map(ticks),
            linger: ticks(Duration::from_millis(LINGER_MS)),
            #[cfg(feature = "web")]
            deflate_bytes_min: DEFLATE_BYTES_MIN,
            #[cfg(feature = "web")]
            deflate_single_bytes_min: DEFLATE_SINGLE_BYTES_MIN,
        }
    }

    /// How long a closing connection may take nothing of what waits for it.
    pub(crate) fn close_patience(&self) -> Tick {
        self.write_timeout.unwrap_or(self.linger)
    }
}
