//! Every setting and every bound of the server, with its unit, in one file.
//!
//! [`Config`] holds what an operator may change; the constants above it hold what only a change of the code may.
//! Relations between them are asserted at compile time, or by [`Config::validate`]. The types of settings stand in
//! `values` and `origin`, the forms in which they are written in `text` and `fields`.

#[cfg(feature = "serde")]
mod fields;
#[cfg(feature = "web")]
mod origin;
mod text;
mod values;

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};
use thiserror::Error;

#[cfg(feature = "serde")]
use fields::{bytes_option, bytes_text, duration_text, text_list, text_option, text_value};
#[cfg(feature = "web")]
pub use origin::{HostName, Origin};
#[cfg(feature = "web")]
pub(crate) use origin::{Origins, Standing, is_authority, is_same_authority};
pub use text::{ParseError, bytes_to_text, duration_to_text};
#[cfg(feature = "serde")]
pub use text::{bytes_from_text, duration_from_text};
pub use values::{ControlAddr, Cpus, Framing, Listen, Pin, SlowConsumer};
pub(crate) use values::{canonical, covers};

// ---- Bounds that are not settings -------------------------------------------------------------

/// Bytes of the buffer that one `recv` reads into: large enough that a busy client is read in few calls,
/// small enough to stay in the core's L2 cache.
pub(crate) const READ_BUFFER_BYTES: usize = 64 * KIB;

/// Bytes that small frames are gathered into before one `send`. A frame above [`GATHER_FRAME_BYTES_MAX`]
/// is not copied.
pub(crate) const GATHER_BUFFER_BYTES: usize = 64 * KIB;

/// A frame of at most this many bytes is copied into the gather buffer; a larger one is sent from where it is.
pub(crate) const GATHER_FRAME_BYTES_MAX: usize = 8 * KIB;

/// Read buffers of one shard. A buffer is borrowed for one poll and a shard polls one task at a time, so
/// one is in use; the second keeps a handler that reads while it is called from touching the heap.
pub(crate) const POOL_READ_BUFFERS: usize = 2;

/// Gather buffers of one shard, by the same reasoning.
pub(crate) const POOL_GATHER_BUFFERS: usize = 2;

/// Bytes the allocator inside the executor's arena needs for itself (a buddy tree), rounded up generously.
pub(crate) const POOL_ALLOCATOR_BYTES: usize = 64 * KIB;

/// Bytes of memory that each executor registers with its ring: the sum of what the pool takes from it.
pub(crate) const POOL_ARENA_BYTES: usize =
    POOL_READ_BUFFERS * READ_BUFFER_BYTES + POOL_GATHER_BUFFERS * GATHER_BUFFER_BYTES + POOL_ALLOCATOR_BYTES;

/// Entries of each of an executor's rings. They carry the shard's timers and signals; what its sockets report goes
/// through rings of its own.
pub(crate) const RING_DEPTH: usize = 128;

/// Bytes of locked memory without which an executor does not start (glommio's own minimum).
pub(crate) const MEMLOCK_BYTES_MIN: u64 = 512 * KIB as u64;

/// Connections that a shard may have more than the one with the fewest before it hands new ones over: so many, and one
/// in [`UNEVEN_SHARE`] of its own. The kernel spreads clients by chance; handing each over would cost more than it gains.
pub(crate) const UNEVEN_CONNECTIONS: usize = 8;

/// See [`UNEVEN_CONNECTIONS`].
pub(crate) const UNEVEN_SHARE: usize = 64;

/// Sockets that one ring of a shard's own watches; further ones go to further rings. To cancel a poll, the kernel walks
/// one of the ring's chains of polls, and there are 256 of them at the most.
pub(crate) const POLLS_PER_RING: usize = 16_384;

/// Completions such a ring holds until they are collected. The kernel makes 256 chains of polls from 8,192 on.
pub(crate) const POLL_COMPLETIONS: u32 = 8_192;

/// Polls handed to the kernel with one call.
pub(crate) const POLL_SUBMISSIONS: u32 = 256;

/// How many connections get their turn before what they have to say to the ring is submitted.
pub(crate) const TURNS_PER_BATCH: usize = 128;

/// How many `recv` calls one connection may make before the next connection gets its turn.
pub(crate) const READS_PER_TURN: usize = 4;

/// How many messages, or WebSocket frames, of one connection are taken before the next connection gets its turn. A frame
/// takes six bytes, so that a buffer holds ten thousand.
pub(crate) const MESSAGES_PER_TURN: usize = 2_048;

/// Bytes that are read, and thrown away, of a client whose connection closes: as much as the largest message has, since it
/// may be in the midst of one. Who sends more is reset.
pub(crate) const LINGER_BYTES_MAX: u64 = MESSAGE_BYTES_MAX as u64;

/// How many publishes a shard takes from its queue at once, at the most: they are delivered together.
pub(crate) const BATCH_PUBLISHES: usize = 8_192;

/// Bytes of payload of such a batch; the last message may go beyond.
pub(crate) const BATCH_BYTES: usize = 1024 * KIB;

/// Sockets that such a batch writes to, about: what comes later waits for so many. One publish may go beyond, and so may those
/// that are written with it.
pub(crate) const BATCH_WRITES: usize = 16_384;

/// Publishes to the same large audience that are written together.
pub(crate) const RUN_MESSAGES: usize = 64;

/// Messages, each counted for each of its recipients, that are gathered by connection before they are written.
pub(crate) const GATHERED_PAIRS: usize = 16_384;

/// Bytes of such messages, in all wordings that are needed, that are kept at a time.
pub(crate) const GATHERED_BYTES: usize = 2 * 1024 * KIB;

/// How many connections get frames before the shard flushes them and lets other tasks run.
pub(crate) const FANOUT_SLICE: usize = 128;

/// Subscribers of a topic in one chunk of its list, which a publish that waits shares with the topic, and chunks in one list
/// of them. A change copies the chunk it is made in, of 3 KiB, and a list of 0.5 KiB for each level above it.
pub(crate) const AUDIENCE_CHUNK_MEMBERS: usize = 256;

/// See [`AUDIENCE_CHUNK_MEMBERS`].
pub(crate) const AUDIENCE_LIST_CHUNKS: usize = 64;

/// Bytes that may wait in one publish queue or mesh backlog: payloads and, in a queue, what its publishes keep of the
/// topics' lists as they were before they changed. A queue that is below takes one publish of any size, so that it can be
/// exceeded by one payload and by once the lists themselves, if all of them change.
pub(crate) const PUBLISH_QUEUE_BYTES_MAX: usize = 16 * 1024 * KIB;

/// Bytes of payload that may wait in a lane into a shard. One that is below takes an item of any size.
pub(crate) const LANE_BYTES_MAX: usize = PUBLISH_QUEUE_BYTES_MAX;

/// Frames of replies (to the client's own commands) that an outbox takes beyond `queue_messages_max`, so
/// that a client whose queue is full of pushes can still unsubscribe.
pub(crate) const REPLY_RESERVE_MESSAGES: usize = 16;

/// Bytes that a framing may add to a message (the largest header or terminator of all framings).
pub(crate) const FRAME_OVERHEAD_BYTES_MAX: usize = 16;

/// Bytes that the hub's language may put before a payload: a verb, a topic and two spaces.
pub(crate) const LANGUAGE_OVERHEAD_BYTES_MAX: usize = TOPIC_BYTES_MAX + 16;

/// Timers that a handler may have set for one connection at a time. Each takes some hundred bytes.
pub(crate) const TIMERS_PER_CONNECTION_MAX: usize = 16;

/// Pings are spread over the last part of their interval: one in so many.
pub(crate) const PING_SPREAD: u32 = 4;

/// Fields of an HTTP request's head at the most.
#[cfg(feature = "web")]
pub(crate) const HEAD_FIELDS_MAX: usize = 256;

/// Bytes of empty lines that may come before a request at the most.
#[cfg(feature = "web")]
pub(crate) const HEAD_EMPTY_BYTES_MAX: usize = 16;

/// Bytes of the names of the fields that a page is allowed to send, of which it asks for some itself.
#[cfg(feature = "web")]
pub(crate) const PREFLIGHT_FIELDS_BYTES_MAX: usize = KIB;

/// Bytes of a page that a handler declares. Each client that asks for it gets a copy into its outbox.
#[cfg(feature = "web")]
pub(crate) const PAGE_BYTES_MAX: usize = 1024 * KIB;

/// Milliseconds that a reader of server-sent events waits before it connects again: at the least, and how much longer
/// at the most. A random part keeps those that lose a server together from coming back together.
#[cfg(feature = "web")]
pub(crate) const SSE_RETRY_MS: (u64, u64) = (2_000, 4_000);

/// Bytes that a message must have to be compressed. A smaller one loses some dozen bytes, fewer than its packet has besides.
#[cfg(feature = "web")]
pub(crate) const DEFLATE_BYTES_MIN: usize = 256;

/// Bytes that a message to one connection alone must have. Compressing it takes longer than sending it, at 5 to 10 µs for a
/// kilobyte, and saves half of that kilobyte.
#[cfg(feature = "web")]
pub(crate) const DEFLATE_SINGLE_BYTES_MIN: usize = KIB;

/// Recipients from which on a message is compressed by [`DEFLATE_LEVEL_MANY`]: three times as long for a quarter less.
#[cfg(feature = "web")]
pub(crate) const DEFLATE_MANY: usize = 16;

/// How hard messages to few and to many are compressed, from 1 to 9.
#[cfg(feature = "web")]
pub(crate) const DEFLATE_LEVEL_FEW: i32 = 1;

/// See [`DEFLATE_LEVEL_FEW`].
#[cfg(feature = "web")]
pub(crate) const DEFLATE_LEVEL_MANY: i32 = 3;

/// Bytes of a buffer for compressed or inflated messages that are kept for the next one.
#[cfg(feature = "web")]
pub(crate) const DEFLATE_KEPT_BYTES_MAX: usize = 64 * KIB;

/// Bytes that messages of one connection may be inflated to before the next connection gets its turn: as much as is read
/// in a turn, so that those who send compressed messages get no more of it than others.
pub(crate) const INFLATED_BYTES_PER_TURN: usize = READS_PER_TURN * READ_BUFFER_BYTES;

/// Topics one client may have unreported gaps in; further ones are reported together under `*`.
pub(crate) const GAP_TOPICS_MAX: usize = 16;

/// Bytes of one message that no setting may exceed.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 * 1024 * KIB;

/// Bytes of a topic's name that no setting may exceed.
pub(crate) const TOPIC_BYTES_MAX: usize = 255;

/// Milliseconds between two looks at how busy the CPUs are, where shards are fewer than they.
pub(crate) const CPU_LOOK_MS: u64 = 50;

/// Threads of this machine that are looked at for those which are pinned to a CPU.
pub(crate) const CPU_LOOK_THREADS_MAX: usize = 16_384;

/// Milliseconds that a shard may be late for its tick before that counts as a stall: something kept its core, or its
/// tasks, busy long enough that all of its clients waited.
pub(crate) const STALL_MS: u64 = 50;

/// Milliseconds from which a stall is worth a line in the log.
pub(crate) const ABSENCE_MS: u64 = 1_000;

/// Milliseconds for which a task goes on before all others, and what comes from outside, have their turn. Looking for
/// events takes some microseconds.
pub(crate) const SLICE_MS: u64 = 5;

/// Slots of a shard's table that are looked at for connections that hold much memory, when it must be given back: some
/// milliseconds' worth. In a larger table the next look begins where this one ended.
pub(crate) const RECLAIM_SLOTS: u32 = 131_072;

/// Connections that are closed for it at once.
pub(crate) const RECLAIM_CLOSES: usize = 4_096;

/// Milliseconds between two times that connections are closed because the process has more memory than `max_memory`. What
/// was given back shows only after the allocator has handed it to the system.
pub(crate) const RECLAIM_EVERY_MS: u64 = 2_000;

/// Then none is closed while all together hold less than one part in this many of `buffers_max`: something else has the
/// memory.
pub(crate) const RECLAIM_SHARE: usize = 8;

/// Messages that the queue of a spare outbox has room for.
pub(crate) const SPARE_OUTBOX_MESSAGES: usize = 64;

/// Bytes of replies that an empty outbox keeps room for until another connection needs it.
pub(crate) const SPARE_OUTBOX_REPLY_BYTES: usize = KIB;

/// `buffers_max` where it is not set: one part in this many of `max_memory`, or of the memory of the machine or of its
/// control group.
pub(crate) const BUFFERS_OF_MAX_MEMORY: usize = 2;

/// See [`BUFFERS_OF_MAX_MEMORY`].
pub(crate) const BUFFERS_OF_MACHINE: usize = 4;

/// Bytes of `buffers_max` where nothing is known of the machine.
pub(crate) const BUFFERS_UNKNOWN: usize = 1024 * 1024 * KIB;

/// Milliseconds of one tick of the timing wheel. Timeouts are late by at most one tick.
pub(crate) const TICK_MS: u64 = 250;

/// Ticks that a shard makes up for at once. If it is further behind it was away (the process or the machine paused, or
/// something kept its core busy), and the time that it was away counts against no client.
pub(crate) const TICKS_AT_ONCE: u32 = 2;

/// Turns that a connection gets at the most to read what waits in its socket before it is judged for a deadline that it
/// has missed: enough for one message of any size, and an end to a client that only keeps the socket full.
pub(crate) const OVERDUE_TURNS_MAX: u8 = (MESSAGE_BYTES_MAX / (READS_PER_TURN * READ_BUFFER_BYTES) + 1) as u8;

/// How long a shard must have needed little memory before it has what it needed once handed back to the system.
pub(crate) const TRIM_AFTER_MS: u64 = 2_000;

/// Bytes below which that is not worth it.
pub(crate) const TRIM_BYTES_MIN: u64 = 1 << 20;

/// Slots of the timing wheel: one turn takes `WHEEL_SLOTS * TICK_MS` = 64 s.
pub(crate) const WHEEL_SLOTS: usize = 256;

/// Milliseconds a connection that the server closes may take to receive what is queued and to close its side.
pub(crate) const LINGER_MS: u64 = 2_000;

/// Milliseconds between two looks of a starting shard whether the others have joined the mesh.
pub(crate) const START_LOOK_MS: u64 = 20;

/// Milliseconds between two tries to pass on what a full mesh queue refused.
pub(crate) const MESH_RETRY_MS: u64 = 1;

/// Milliseconds of the first and of the longest pause after `accept` failed for lack of fds or memory.
pub(crate) const ACCEPT_BACKOFF_MS: (u64, u64) = (10, 1_000);

/// Clients of the whole process that are refused and get time to read why; the others are told and closed at once. Each
/// takes one of [`FDS_RESERVED`].
pub(crate) const REFUSALS_MAX: usize = 32;

/// Milliseconds that a refused client has to send its request, and to read why it is refused.
pub(crate) const REFUSAL_MS: u64 = 1_000;

/// Milliseconds between two looks at those clients.
pub(crate) const REFUSAL_LOOK_MS: u64 = 20;

/// Bytes that are read of one of them: a request's head, and what follows it.
pub(crate) const REFUSAL_BYTES_MAX: usize = REFUSAL_HEAD_BYTES_MAX + 64 * KIB;

/// Bytes of a refused client's request to wait for; after that it is answered, whatever it wants.
pub(crate) const REFUSAL_HEAD_BYTES_MAX: usize = 32 * KIB;

/// Seconds after which a client that was answered with status 503 is told to come back: at least, and how many more at
/// most. A random part keeps those that are refused together from coming back together.
pub(crate) const RETRY_AFTER_S: (u64, u64) = (5, 10);

/// Milliseconds between two log lines about the same kind of refused connection.
pub(crate) const REFUSAL_LOG_MS: u64 = 5_000;

/// File descriptors the process needs besides connections: rings, eventfds, listeners, logs, libraries.
pub(crate) const FDS_RESERVED: u64 = 64;

/// File descriptors that each shard needs on top.
pub(crate) const FDS_PER_SHARD: u64 = 16;

/// File descriptors that the control plane needs: its connections, its runtime, its listener.
pub(crate) const FDS_CONTROL: u64 = (control::CONTROL_CONNECTIONS_MAX + control::CONTROL_LOBBY_MAX) as u64 + 8;

/// Slots of a connection table that one question about connections looks through at the most.
pub(crate) const QUERY_SLOTS_MAX: u32 = 8_192;

/// Connections or topics that one page of an answer holds at the most.
pub const QUERY_PAGE_MAX: usize = 1_000;

/// Topics that may have a slow-consumer policy of their own.
pub(crate) const TOPIC_POLICIES_MAX: usize = 65_536;

/// Milliseconds between two steps of a drain: connections are closed in groups, one group a step.
pub(crate) const DRAIN_STEP_MS: u64 = 50;

/// Closes of a drain that wait in a shard's queue at a time. Besides, one can wait for each connection, as it is asked for.
pub(crate) const DRAIN_CLOSES_MAX: usize = 8_192;

/// Connections that a shard has announced to others and not sent off yet.
pub(crate) const MOVES_MAX: usize = 1_024;

/// Publishes that a shard keeps while connections of others are expected.
pub(crate) const ARRIVALS_PUBLISHES_MAX: usize = 65_536;

/// Shards at the most (the shard's number is 16 bits in a connection's registry row).
pub const SHARDS_MAX: usize = 1_024;

const KIB: usize = 1024;

/// The bounds of the control plane.
#[cfg_attr(not(feature = "control"), allow(dead_code))]
pub(crate) mod control {
    /// Connections to the control plane whose callers may call. While all are being served, further ones are told so.
    pub(crate) const CONTROL_CONNECTIONS_MAX: usize = 128;

    /// Connections to the control plane besides: new ones, and those that ask for health alone or are refused.
    pub(crate) const CONTROL_LOBBY_MAX: usize = 64;

    /// Bytes of the head of one request to the control plane.
    pub(crate) const CONTROL_HEAD_BYTES_MAX: usize = 64 * super::KIB;

    /// Milliseconds in which a request's head must be complete, counted from the end of the request before.
    pub(crate) const CONTROL_HEAD_MS: u64 = 30_000;

    /// Milliseconds in which a request's body must be complete.
    pub(crate) const CONTROL_BODY_MS: u64 = 30_000;

    /// Milliseconds in which a client of the control plane must take something of its response.
    pub(crate) const CONTROL_WRITE_MS: u64 = 10_000;

    /// What a client of the control plane may still send after its last response, so that it gets that: milliseconds in
    /// all, milliseconds of silence, bytes.
    pub(crate) const CONTROL_LINGER_MS: u64 = 30_000;
    pub(crate) const CONTROL_LINGER_SILENCE_MS: u64 = 2_000;
    pub(crate) const CONTROL_LINGER_BYTES_MAX: usize = 256 * 1024 * super::KIB;

    /// Milliseconds that a request waits for the shards to answer.
    pub(crate) const CONTROL_ANSWER_MS: u64 = 10_000;

    /// Bytes of request bodies that the control plane holds at a time, over all requests.
    pub(crate) const CONTROL_BODIES_BYTES_MAX: usize = 64 * 1024 * super::KIB;

    /// Bytes that one permit of that budget stands for, and all permits.
    pub(crate) const PERMIT_BYTES: usize = 1024;

    /// See [`PERMIT_BYTES`].
    pub(crate) const BODY_PERMITS: usize = CONTROL_BODIES_BYTES_MAX / PERMIT_BYTES;

    /// Bytes and lines of one batch of publishes.
    pub(crate) const BATCH_BYTES_MAX: usize = 8 * 1024 * super::KIB;
    pub(crate) const BATCH_LINES_MAX: usize = 10_000;

    /// Messages that are published before the shards are woken for them, at the most: a part of what may wait there.
    pub(crate) const QUIET_PUBLISHES_MAX: usize = 256;

    /// Bytes of small responses that wait for each other on one connection.
    pub(crate) const GATHER_BYTES_MAX: usize = 16 * super::KIB;

    /// Milliseconds that one batch waits, in all, for shards that are behind before its lines are refused.
    pub(crate) const BATCH_PATIENCE_MS: u64 = 2_000;

    /// Listeners of the control plane's event stream.
    pub(crate) const EVENT_LISTENERS_MAX: usize = 32;

    /// Events that may wait for one of them before it is dropped.
    pub(crate) const EVENT_QUEUE: usize = 4;

    /// Milliseconds between two events, and two samples of the history.
    pub(crate) const EVENT_MS: u64 = 1_000;

    /// Samples of the history: five minutes of them, which the dashboard shows. Each takes some 0.5 KiB, and 8 bytes a
    /// shard.
    pub(crate) const HISTORY_SAMPLES: usize = 300;

    /// Milliseconds that requests in progress get to end when the control plane stops.
    pub(crate) const CONTROL_STOP_MS: u64 = 2_000;

    /// Bytes of a token file at the most.
    pub(crate) const TOKEN_BYTES_MAX: u64 = 4 * super::KIB as u64;
}

const _: () = {
    assert!(2 * REFUSALS_MAX as u64 <= FDS_RESERVED, "refused clients leave descriptors for other things");
    assert!(GATHER_FRAME_BYTES_MAX <= GATHER_BUFFER_BYTES);
    assert!(TICK_MS >= 250, "ticks are a quarter second or coarser");
    assert!(WHEEL_SLOTS.is_power_of_two());
    assert!(LINGER_MS > TICK_MS, "a linger shorter than a tick would end at once");
    assert!(POOL_ARENA_BYTES as u64 <= MEMLOCK_BYTES_MIN, "a shard starts within the least memlock");
    assert!(control::CONTROL_HEAD_BYTES_MAX >= 8 * KIB, "the least buffer that the HTTP parser takes");
    assert!(control::BATCH_BYTES_MAX <= control::CONTROL_BODIES_BYTES_MAX, "one batch fits");
    assert!(MESSAGE_BYTES_MAX <= control::CONTROL_BODIES_BYTES_MAX, "one message fits");
    #[cfg(feature = "web")]
    assert!(DEFLATE_BYTES_MIN <= DEFLATE_SINGLE_BYTES_MIN && DEFLATE_MANY > 1, "what goes to many is worth more");
    assert!(FANOUT_SLICE > 0 && BATCH_PUBLISHES > 0 && READS_PER_TURN > 0 && MESSAGES_PER_TURN > 0);
    assert!(MESSAGE_BYTES_MAX / (READS_PER_TURN * READ_BUFFER_BYTES) < u8::MAX as usize, "the turns can be counted");
};

// ---- Settings ---------------------------------------------------------------------------------

/// Everything an operator may set. `Config::default()` is what the server runs with when nothing is set.
///
/// A field of type [`Duration`] that is zero turns its feature off where the field's text says so. There may be more fields one
/// day, so settings are made from the defaults:
///
/// ```
/// let mut config = corecast::Config::default();
/// config.shards = Some(2);
/// config.max_message = 4096;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Config {
    /// Addresses to listen on, each with its framing. A library's [`ServerBuilder`](crate::ServerBuilder) has its own.
    #[cfg_attr(feature = "serde", serde(with = "text_list"))]
    pub listen: Vec<Listen>,
    /// Number of shards; `None`: one for each CPU the process may use.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub shards: Option<usize>,
    /// CPUs to pin the shards to; `None`: those the process may use.
    #[cfg_attr(feature = "serde", serde(with = "text_option", skip_serializing_if = "Option::is_none"))]
    pub cpus: Option<Cpus>,
    /// Whether shards are pinned to CPUs where `cpus` names none.
    pub pin: Pin,
    /// Most connections at a time, over all shards.
    pub max_connections: usize,
    /// Bytes of resident memory above which new connections are refused; zero: no limit.
    #[cfg_attr(feature = "serde", serde(with = "bytes_text"))]
    pub max_memory: usize,
    /// Bytes that all connections together may hold: messages that have not come in whole, and what waits to be written.
    /// When it is more, those that hold the most, for the longest, are closed. Zero: half of `max_memory`, or where that is
    /// not set a quarter of the memory of the machine or its control group.
    #[cfg_attr(feature = "serde", serde(with = "bytes_text"))]
    pub buffers_max: usize,
    /// New connections a second, over all shards; more wait in the backlog. Zero: no limit.
    pub accept_rate: u32,
    /// Messages, and WebSocket frames of any kind, a second from one connection; one that sends more is read more slowly.
    /// Zero: no limit.
    pub message_rate: u32,
    /// Largest message, in bytes, without its framing.
    #[cfg_attr(feature = "serde", serde(with = "bytes_text"))]
    pub max_message: usize,
    /// Pushed messages that may wait for one client.
    pub queue_messages_max: usize,
    /// Bytes of pushed messages that may wait for one client.
    #[cfg_attr(feature = "serde", serde(with = "bytes_text"))]
    pub queue_bytes_max: usize,
    /// What happens when they don't fit.
    pub slow_consumer: SlowConsumer,
    /// A connection that completes no message for this long is closed; zero: never.
    #[cfg_attr(feature = "serde", serde(with = "duration_text"))]
    pub read_timeout: Duration,
    /// A connection that takes no byte of what waits for it for this long is closed; zero: never.
    #[cfg_attr(feature = "serde", serde(with = "duration_text"))]
    pub write_timeout: Duration,
    /// An HTTP connection whose request is not complete after this long is closed.
    #[cfg_attr(feature = "serde", serde(with = "duration_text"))]
    pub head_timeout: Duration,
    /// Bytes of an HTTP request's head at the most.
    #[cfg_attr(feature = "serde", serde(with = "bytes_text"))]
    pub head_bytes_max: usize,
    /// A silent WebSocket is pinged, and an idle event stream gets a comment, after this long; zero: never. Where the
    /// read timeout is shorter than two of it, half of the read timeout counts.
    #[cfg_attr(feature = "serde", serde(with = "duration_text"))]
    pub ping_every: Duration,
    /// Origins whose pages may connect, besides the server's own.
    #[cfg_attr(feature = "serde", serde(with = "text_list"))]
    #[cfg(feature = "web")]
    pub allow_origin: Vec<Origin>,
    /// Names that are the server's own, besides addresses and `localhost`: pages under them may connect.
    #[cfg_attr(feature = "serde", serde(with = "text_list"))]
    #[cfg(feature = "web")]
    pub host: Vec<HostName>,
    /// Whether WebSocket messages are compressed (permessage-deflate, RFC 7692) for clients that offer it.
    #[cfg(feature = "web")]
    pub deflate: bool,
    /// Whether a [`Hub`](crate::Hub) serves the demo page.
    #[cfg(feature = "web")]
    pub demo: bool,
    /// TCP keepalive: idle time, interval (and three probes); zero: off.
    #[cfg_attr(feature = "serde", serde(with = "duration_text"))]
    pub keepalive: Duration,
    /// SO_RCVBUF of each connection in bytes; `None`: the kernel's own sizing.
    #[cfg_attr(feature = "serde", serde(with = "bytes_option", skip_serializing_if = "Option::is_none"))]
    pub so_rcvbuf: Option<usize>,
    /// SO_SNDBUF of each connection in bytes; `None`: the kernel's own sizing.
    #[cfg_attr(feature = "serde", serde(with = "bytes_option", skip_serializing_if = "Option::is_none"))]
    pub so_sndbuf: Option<usize>,
    /// Connections that may wait to be accepted, per listener and shard (the kernel caps it at somaxconn).
    pub backlog: u32,
    /// Whether clients of a [`Hub`](crate::Hub) may publish (`PUB`, `CAST`).
    pub client_publish: bool,
    /// Topics one client may subscribe to.
    pub topics_per_connection_max: usize,
    /// Longest topic name, in bytes.
    pub topic_bytes_max: usize,
    /// Time for which a server that is to drain takes and serves clients all the same, while it says that it is not ready:
    /// load balancers look only every few seconds. Zero: none.
    #[cfg_attr(feature = "serde", serde(with = "duration_text"))]
    pub drain_grace: Duration,
    /// Time over which connections are closed when the server drains.
    #[cfg_attr(feature = "serde", serde(with = "duration_text"))]
    pub drain_time: Duration,
    /// Publishes that may wait in one shard to be delivered.
    pub publish_queue: usize,
    /// Messages that may wait between each pair of shards.
    pub mesh_queue: usize,
    /// Messages that a shard keeps for a shard whose mesh queue is full.
    pub mesh_backlog: usize,
    /// Publishes from outside the shards that may wait, per shard, and as many questions and closes each.
    pub control_queue: usize,
    /// Where the control plane listens. Outside the loopback it needs a token. A library starts it by itself.
    #[cfg_attr(feature = "serde", serde(with = "text_value"))]
    pub control: ControlAddr,
    /// The file that holds the token which calls to the control plane must show.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub control_token_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: vec![
                Listen { framing: Framing::Line, addr: (Ipv6Addr::UNSPECIFIED, 8888).into() },
                #[cfg(feature = "web")]
                Listen { framing: Framing::Http, addr: (Ipv6Addr::UNSPECIFIED, 8080).into() },
            ],
            shards: None,
            cpus: None,
            pin: Pin::Auto,
            max_connections: 1_000_000,
            max_memory: 0,
            buffers_max: 0,
            accept_rate: 0,
            message_rate: 0,
            max_message: 64 * KIB,
            queue_messages_max: 64,
            queue_bytes_max: 256 * KIB,
            slow_consumer: SlowConsumer::Skip,
            read_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(10),
            head_bytes_max: 32 * KIB,
            ping_every: Duration::from_secs(25),
            #[cfg(feature = "web")]
            allow_origin: Vec::new(),
            #[cfg(feature = "web")]
            host: Vec::new(),
            #[cfg(feature = "web")]
            deflate: true,
            #[cfg(feature = "web")]
            demo: false,
            keepalive: Duration::from_secs(30),
            so_rcvbuf: None,
            so_sndbuf: None,
            backlog: 4_096,
            client_publish: false,
            topics_per_connection_max: 128,
            topic_bytes_max: TOPIC_BYTES_MAX,
            drain_grace: Duration::ZERO,
            drain_time: Duration::from_secs(10),
            publish_queue: 16_384,
            mesh_queue: 1_024,
            mesh_backlog: 4_096,
            control_queue: 1_024,
            control: ControlAddr::localhost(8081),
            control_token_file: None,
        }
    }
}

/// A setting whose value can't be used. The text names the setting, the value and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field} is {value}; {allowed}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The setting's name, as in the config file.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What would be allowed.
    pub allowed: String,
}

impl Config {
    /// Checks every field against its range and against the fields it depends on.
    ///
    /// # Errors
    /// The first field that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        fn range<T: PartialOrd + fmt::Display>(
            field: &'static str,
            value: T,
            min: T,
            max: T,
        ) -> Result<(), ConfigError> {
            if value < min || value > max {
                return Err(ConfigError {
                    field,
                    value: value.to_string(),
                    allowed: format!("it must be from {min} to {max}"),
                });
            }
            Ok(())
        }
        let bytes = |field, value: usize, min: usize, max: usize| {
            if value < min || value > max {
                return Err(ConfigError {
                    field,
                    value: bytes_to_text(value),
                    allowed: format!("it must be from {} to {}", bytes_to_text(min), bytes_to_text(max)),
                });
            }
            Ok(())
        };
        let time = |field, value: Duration, min: Duration, max: Duration, off: bool| {
            if (value.is_zero() && off) || (value >= min && value <= max) {
                return Ok(());
            }
            Err(ConfigError {
                field,
                value: duration_to_text(value),
                allowed: format!(
                    "it must be from {} to {}{}",
                    duration_to_text(min),
                    duration_to_text(max),
                    if off { ", or 0 to turn it off" } else { "" }
                ),
            })
        };
        const SECOND: Duration = Duration::from_secs(1);
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);

        if self.listen.is_empty() {
            return Err(ConfigError {
                field: "listen",
                value: "empty".into(),
                allowed: "it needs at least one address, as in line=[::]:8888".into(),
            });
        }
        for (index, listen) in self.listen.iter().enumerate() {
            if listen.framing == Framing::Http && cfg!(not(feature = "web")) {
                return Err(ConfigError {
                    field: "listen",
                    value: listen.to_string(),
                    allowed: "this build of corecast knows no HTTP; build it with its cargo feature `web`".into(),
                });
            }
            if listen.addr.port() != 0 && self.listen[..index].iter().any(|other| other.addr == listen.addr) {
                return Err(ConfigError {
                    field: "listen",
                    value: format!("{} twice", listen.addr),
                    allowed: "each address may be given once, with one framing".into(),
                });
            }
        }
        if let Some(shards) = self.shards {
            range("shards", shards, 1, SHARDS_MAX)?;
        }
        if let (Some(shards), Some(cpus)) = (self.shards, &self.cpus)
            && shards != cpus.0.len()
        {
            return Err(ConfigError {
                field: "shards",
                value: shards.to_string(),
                allowed: format!(
                    "cpus names {} CPUs, and each shard takes one; leave one of the two out",
                    cpus.0.len()
                ),
            });
        }
        if let (Some(cpus), Pin::Off) = (&self.cpus, self.pin) {
            return Err(ConfigError {
                field: "pin",
                value: self.pin.to_string(),
                allowed: format!("cpus pins the shards to CPUs {cpus}; leave one of the two out"),
            });
        }
        range("max_connections", self.max_connections, 1, 16_000_000)?;
        if self.max_memory != 0 {
            bytes("max_memory", self.max_memory, 16 * 1024 * KIB, usize::MAX / 2)?;
        }
        range("accept_rate", self.accept_rate, 0, 1_000_000)?;
        range("message_rate", self.message_rate, 0, 1_000_000)?;
        bytes("max_message", self.max_message, 16, MESSAGE_BYTES_MAX)?;
        range("queue_messages_max", self.queue_messages_max, 1, 65_536)?;
        let message_most = self.max_message + LANGUAGE_OVERHEAD_BYTES_MAX + FRAME_OVERHEAD_BYTES_MAX;
        if self.queue_bytes_max < message_most {
            return Err(ConfigError {
                field: "queue_bytes_max",
                value: bytes_to_text(self.queue_bytes_max),
                allowed: format!(
                    "a queue must hold one message of max_message ({}) and its framing, so it must be at least {}",
                    bytes_to_text(self.max_message),
                    bytes_to_text(message_most)
                ),
            });
        }
        bytes("queue_bytes_max", self.queue_bytes_max, 1, 1024 * 1024 * KIB)?;
        if self.buffers_max != 0 {
            let most = if self.max_memory > 0 { self.max_memory } else { usize::MAX / 2 };
            bytes("buffers_max", self.buffers_max, self.buffers_least(), most)?;
        }
        time("read_timeout", self.read_timeout, SECOND / 2, DAY, true)?;
        time("write_timeout", self.write_timeout, SECOND / 2, DAY, true)?;
        time("head_timeout", self.head_timeout, SECOND / 2, DAY, false)?;
        bytes("head_bytes_max", self.head_bytes_max, KIB, 1024 * KIB)?;
        time("ping_every", self.ping_every, SECOND / 2, DAY, true)?;
        time("keepalive", self.keepalive, SECOND, DAY / 4, true)?;
        if let Some(size) = self.so_rcvbuf {
            bytes("so_rcvbuf", size, KIB, 1024 * 1024 * KIB)?;
        }
        if let Some(size) = self.so_sndbuf {
            bytes("so_sndbuf", size, KIB, 1024 * 1024 * KIB)?;
        }
        range("backlog", self.backlog, 1, 1 << 20)?;
        range("topics_per_connection_max", self.topics_per_connection_max, 1, 65_536)?;
        range("topic_bytes_max", self.topic_bytes_max, 1, TOPIC_BYTES_MAX)?;
        time("drain_grace", self.drain_grace, Duration::ZERO, DAY, false)?;
        time("drain_time", self.drain_time, Duration::ZERO, DAY, false)?;
        range("publish_queue", self.publish_queue, 1, 1 << 20)?;
        range("mesh_queue", self.mesh_queue, 1, 1 << 16)?;
        range("mesh_backlog", self.mesh_backlog, 1, 1 << 20)?;
        range("control_queue", self.control_queue, 1, 1 << 16)?;
        self.validate_control()
    }

    /// Bytes that one client may hold: a full queue, and a message, whose buffer doubles as it grows.
    fn buffers_least(&self) -> usize {
        self.queue_bytes_max + 2 * self.max_message
    }

    /// `buffers_max`, or what stands for it where it is not set, on a machine or in a control group with so many bytes of
    /// memory, if that is known.
    pub fn buffers_max_in(&self, memory: Option<u64>) -> usize {
        let share = match (self.buffers_max, self.max_memory) {
            (0, 0) => memory
                .map_or(BUFFERS_UNKNOWN, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX) / BUFFERS_OF_MACHINE),
            (0, max_memory) => max_memory / BUFFERS_OF_MAX_MEMORY,
            (set, _) => return set,
        };
        share.max(self.buffers_least())
    }

    fn validate_control(&self) -> Result<(), ConfigError> {
        let open = self.control.0.iter().find(|addr| !addr.ip().is_loopback());
        if let Some(addr) = open
            && self.control_token_file.is_none()
        {
            return Err(ConfigError {
                field: "control",
                value: addr.to_string(),
                allowed:
                    "anyone who reaches it there could publish and close connections, so it needs control_token_file, \
                          a file with a token that calls must show; or use an address like 127.0.0.1:8081"
                        .into(),
            });
        }
        for addr in self.control.0.iter().filter(|addr| addr.port() != 0) {
            let meets = |listen: &&Listen| covers(listen.addr, *addr) || covers(*addr, listen.addr);
            if let Some(listen) = self.listen.iter().find(meets) {
                return Err(ConfigError {
                    field: "control",
                    value: self.control.to_string(),
                    allowed: format!("clients connect there (listen: {listen}); each needs a port of its own"),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        Config::default().validate().unwrap();
    }

    #[cfg(feature = "program")]
    #[test]
    fn the_defaults_survive_a_round_trip() {
        let config = Config::default();
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), config);
    }

    #[cfg(not(feature = "web"))]
    #[test]
    fn a_listener_for_a_framing_that_is_not_built_in_names_the_feature() {
        let config = Config { listen: vec!["http=127.0.0.1:0".parse().unwrap()], ..Config::default() };
        let text = config.validate().unwrap_err().to_string();
        assert!(text.starts_with("listen is http=127.0.0.1:0; ") && text.contains("feature `web`"), "{text}");
    }

    #[test]
    fn an_error_names_field_value_and_range() {
        let config = Config { queue_messages_max: 0, ..Config::default() };
        let text = config.validate().unwrap_err().to_string();
        assert_eq!(text, "queue_messages_max is 0; it must be from 1 to 65536");

        let config = Config { read_timeout: Duration::from_millis(1), ..Config::default() };
        let text = config.validate().unwrap_err().to_string();
        assert_eq!(text, "read_timeout is 1ms; it must be from 500ms to 1day, or 0 to turn it off");

        let config = Config { queue_bytes_max: 1024, ..Config::default() };
        let text = config.validate().unwrap_err().to_string();
        assert!(text.starts_with("queue_bytes_max is 1KiB; a queue must hold one message"), "{text}");
    }

    #[test]
    fn the_bound_of_all_buffers_is_a_share_of_what_there_is() {
        const MIB: usize = 1 << 20;
        let auto = Config::default();
        assert_eq!(auto.buffers_max_in(Some(1 << 30)), 256 * MIB);
        assert_eq!(auto.buffers_max_in(None), BUFFERS_UNKNOWN);
        assert_eq!(auto.buffers_max_in(Some(1)), auto.buffers_least());
        let limited = Config { max_memory: 64 * MIB, ..Config::default() };
        assert_eq!(limited.buffers_max_in(Some(1 << 30)), 32 * MIB);
        let set = Config { buffers_max: 3 * MIB, ..limited };
        set.validate().unwrap();
        assert_eq!(set.buffers_max_in(Some(1 << 30)), 3 * MIB);

        let text = |config: Config| config.validate().unwrap_err().to_string();
        let small = Config { buffers_max: 383 * KIB, ..Config::default() };
        assert!(text(small).starts_with("buffers_max is 383KiB; it must be from 384KiB to "));
        let large = Config { max_memory: 64 * MIB, buffers_max: 65 * MIB, ..Config::default() };
        assert_eq!(text(large), "buffers_max is 65MiB; it must be from 384KiB to 64MiB");
    }

    #[cfg(feature = "program")]
    #[test]
    fn unknown_fields_and_bad_values_are_named() {
        let text = toml::from_str::<Config>("max_conections = 5").unwrap_err().to_string();
        assert!(text.contains("max_conections"), "{text}");
        let text = toml::from_str::<Config>("read_timeout = 'soon'").unwrap_err().to_string();
        assert!(text.contains("`soon` is not a time span"), "{text}");
        let text = toml::from_str::<Config>("listen = ['morse=0.0.0.0:1']").unwrap_err().to_string();
        assert!(text.contains("`morse` is not a framing; use one of: line, length, http"), "{text}");
    }

    #[test]
    fn a_control_plane_that_others_can_reach_needs_a_token() {
        let control = |text: &str, file: Option<&str>| {
            let config = Config {
                control: text.parse().unwrap(),
                control_token_file: file.map(PathBuf::from),
                ..Config::default()
            };
            config.validate().map_err(|error| error.to_string())
        };
        for good in ["off", "localhost:8081", "127.0.0.1:8081", "127.9.9.9:1", "[::1]:8081"] {
            control(good, None).unwrap();
        }
        for open in ["0.0.0.0:8081", "[::]:8081", "192.0.2.1:8081"] {
            let text = control(open, None).unwrap_err();
            assert!(text.starts_with(&format!("control is {open}; ")) && text.contains("control_token_file"), "{text}");
            control(open, Some("token")).unwrap();
        }
        for taken in ["0.0.0.0:8888", "[::]:8888", "localhost:8888", "127.0.0.1:8888", "[::1]:8888"] {
            assert!(
                control(taken, Some("token")).unwrap_err().to_string().contains("clients connect there"),
                "{taken}"
            );
        }
        assert!("8081".parse::<ControlAddr>().unwrap_err().to_string().contains("or off"));
    }

    #[test]
    fn one_address_with_two_framings_is_refused() {
        let listen = ["line=127.0.0.1:9", "length=127.0.0.1:9"].map(|text| text.parse().unwrap()).to_vec();
        let config = Config { listen, ..Config::default() };
        assert!(config.validate().unwrap_err().to_string().contains("127.0.0.1:9 twice"));
    }
}
