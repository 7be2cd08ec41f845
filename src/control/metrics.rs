//! Metrics in the Prometheus text format, read from the shards' counters when somebody asks.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{TEXT_FORMAT, TextEncoder};

use crate::control::api::Api;
use crate::control::counts::Refusal;
use crate::control::exposition::{counter, gauge, histogram};
use crate::control::figures::Start;
use crate::control::problem::{Problem, ProblemCode};
use crate::host;
use crate::message::{CloseReason, DropReason};
use crate::metrics::{ShardMetrics, Spans};
use crate::server::handle::ServerHandle;

/// A metric: its name, what it counts, and where its values come from.
#[non_exhaustive]
pub struct MetricInfo {
    /// The name, without what histograms append to it.
    pub name: &'static str,
    /// What it counts, in one sentence.
    pub help: &'static str,
    source: Source,
}

enum Source {
    Counter(fn(&ShardMetrics) -> u64),
    Gauge(fn(&ShardMetrics) -> u64),
    /// A value for each reason.
    Reasons(fn(&ShardMetrics) -> Counts),
    Spans(fn(&ShardMetrics) -> &Spans),
    /// A gauge of the whole process; `None`: it can't be known here.
    Process(fn(&Whole<'_>) -> Option<f64>),
    /// A counter of the whole process.
    ProcessCounter(fn(&Whole<'_>) -> u64),
    /// 1, with the version as a label.
    Build,
}

/// A count by the name of its reason.
type Counts = Vec<(&'static str, u64)>;

/// What metrics of the whole process are taken from.
struct Whole<'a> {
    handle: &'a ServerHandle,
    resident_bytes: u64,
    start: Start,
}

impl MetricInfo {
    /// `counter`, `gauge` or `histogram`.
    pub fn kind(&self) -> &'static str {
        match self.source {
            Source::Counter(_) | Source::Reasons(_) | Source::ProcessCounter(_) => "counter",
            Source::Spans(_) => "histogram",
            Source::Gauge(_) | Source::Process(..) | Source::Build => "gauge",
        }
    }

    /// The names of its labels.
    pub fn labels(&self) -> &'static [&'static str] {
        match self.source {
            Source::Counter(_) | Source::Gauge(_) | Source::Spans(_) => &["shard"],
            Source::Reasons(_) => &["shard", "reason"],
            Source::Process(..) | Source::ProcessCounter(_) => &[],
            Source::Build => &["version"],
        }
    }
}

macro_rules! metrics {
    ($($name:literal $help:literal $source:expr,)*) => {
        /// Every metric, in the order in which they are written.
        pub const METRICS: &[MetricInfo] = &[$(MetricInfo { name: $name, help: $help, source: $source },)*];
    };
}

metrics! {
    "corecast_connections"
        "Open connections."
        Source::Gauge(|shard| shard.connections.get()),
    "corecast_connections_max"
        "Connections that may be open at a time."
        Source::Process(|all| Some(all.handle.max_connections() as f64)),
    "corecast_accepts_total"
        "Connections accepted."
        Source::Counter(|shard| shard.accepted.get()),
    "corecast_handovers_total"
        "Connections that the shard accepted and handed over to one that had fewer."
        Source::Counter(|shard| shard.handed_over.get()),
    "corecast_accept_errors_total"
        "Calls to accept that failed for lack of file descriptors or memory."
        Source::Counter(|shard| shard.accept_errors.get()),
    "corecast_refusals_total"
        "Connections refused, by reason."
        Source::Reasons(refusals),
    "corecast_closes_total"
        "Connections closed, by reason."
        Source::Reasons(closes),
    "corecast_pages_refused_total"
        "Requests from pages that may not connect, according to allow_origin and host."
        Source::Counter(|shard| shard.pages_refused.get()),
    "corecast_throttles_total"
        "Times that a client was read more slowly because it sent more than message_rate."
        Source::Counter(|shard| shard.throttled.get()),
    "corecast_messages_received_total"
        "Complete messages received from clients."
        Source::Counter(|shard| shard.messages_in.get()),
    "corecast_received_bytes_total"
        "Bytes received from clients."
        Source::Counter(|shard| shard.bytes_in.get()),
    "corecast_messages_sent_total"
        "Messages handed to the kernel whole, replies included."
        Source::Counter(|shard| shard.messages_out.get()),
    "corecast_sent_bytes_total"
        "Bytes handed to the kernel."
        Source::Counter(|shard| shard.bytes_out.get()),
    "corecast_publishes_total"
        "Publishes delivered by the shard to its connections; each shard counts each publish."
        Source::Counter(|shard| shard.publishes.get()),
    "corecast_publishes_refused_total"
        "Publishes by clients that were refused because a queue was full."
        Source::Counter(|shard| shard.publishes_refused.get()),
    "corecast_recipients_total"
        "Recipients that publishes were meant for."
        Source::Counter(|shard| shard.matched.get()),
    "corecast_deliveries_total"
        "Pushed messages handed to the kernel whole."
        Source::Counter(|shard| shard.delivered.get()),
    "corecast_drops_total"
        "Messages that did not reach a client, by reason."
        Source::Reasons(drops),
    "corecast_outbox_messages"
        "Messages that wait for clients."
        Source::Gauge(|shard| shard.queued_messages.get()),
    "corecast_outbox_bytes"
        "Bytes that wait for clients."
        Source::Gauge(|shard| shard.queued_bytes.get()),
    "corecast_held_bytes"
        "Bytes of memory that connections hold: incomplete messages, and what waits for clients."
        Source::Gauge(|shard| shard.held_bytes.get()),
    "corecast_held_bytes_max"
        "Bytes that they may hold together (buffers_max)."
        Source::Process(|all| Some(all.handle.buffers_max() as f64)),
    "corecast_publish_queue_messages"
        "Publishes that wait in the shard's queue."
        Source::Gauge(|shard| shard.publish_queue.get()),
    "corecast_mesh_backlog_messages"
        "Messages that wait for other shards whose queue is full."
        Source::Gauge(|shard| shard.mesh_backlog.get()),
    "corecast_mesh_waits_total"
        "Messages that did not fit into a queue to another shard at once."
        Source::Counter(|shard| shard.mesh_full.get()),
    "corecast_time_to_last_seconds"
        "Time from a publish's acceptance to its last write on the shard."
        Source::Spans(|shard| &shard.time_to_last),
    "corecast_fanout_seconds"
        "Time a batch of publishes took to deliver."
        Source::Spans(|shard| &shard.fanout),
    "corecast_encodes_total"
        "Frames encoded: one for each publish and framing."
        Source::Counter(|shard| shard.encoded.get()),
    "corecast_deflates_total"
        "Frames whose message was compressed: for a publish, one for each framing that carries it."
        Source::Counter(|shard| shard.deflated.get()),
    "corecast_deflate_in_bytes_total"
        "Bytes of these messages before they were compressed."
        Source::Counter(|shard| shard.deflated_from.get()),
    "corecast_deflate_out_bytes_total"
        "Bytes of these messages once they were compressed."
        Source::Counter(|shard| shard.deflated_to.get()),
    "corecast_inflates_total"
        "Compressed messages received from clients."
        Source::Counter(|shard| shard.inflated.get()),
    "corecast_sends_total"
        "Calls to send."
        Source::Counter(|shard| shard.sends.get()),
    "corecast_sends_blocked_total"
        "Calls to send that the kernel took only in part or not at all."
        Source::Counter(|shard| shard.sends_blocked.get()),
    "corecast_stalls_total"
        "Times that the shard was away from its tasks for 50 ms or longer."
        Source::Counter(|shard| shard.stalls.get()),
    "corecast_pool_misses_total"
        "Buffers that the shard's pool could not lend."
        Source::Counter(|shard| shard.pool_misses.get()),
    "corecast_topics"
        "Topics that have a subscriber on the shard."
        Source::Gauge(|shard| shard.topics.get()),
    "corecast_polls"
        "Polls armed on the sockets of connections: one for each, and a second for one whose socket takes no more."
        Source::Gauge(|shard| shard.polls.get()),
    "corecast_draining"
        "1 while the server drains."
        Source::Process(|all| Some(f64::from(u8::from(all.handle.is_draining())))),
    "corecast_bytes_per_connection"
        "Memory growth since the start, divided by the connections."
        Source::Process(per_connection),
    "corecast_log_lines_dropped_total"
        "Log lines dropped because the log's reader was too slow, or gone."
        Source::ProcessCounter(|all| (all.start.log_lines_dropped)()),
    "corecast_build_info"
        "The version that runs."
        Source::Build,
    "process_resident_memory_bytes"
        "Resident memory of the process."
        Source::Process(|all| Some(all.resident_bytes as f64)),
    "process_open_fds"
        "Open file descriptors."
        Source::Process(|_| host::open_fds().map(|fds| fds as f64)),
    "process_max_fds"
        "File descriptors that may be open."
        Source::Process(|_| host::fd_limit().map(|fds| fds as f64)),
}

fn refusals(shard: &ShardMetrics) -> Counts {
    Refusal::ALL.map(|reason| (reason.name(), reason.count(shard))).to_vec()
}

fn closes(shard: &ShardMetrics) -> Counts {
    CloseReason::ALL.map(|reason| (reason.name(), shard.closed[reason as usize].get())).to_vec()
}

fn drops(shard: &ShardMetrics) -> Counts {
    DropReason::ALL.map(|reason| (reason.name(), shard.dropped[reason as usize].get())).to_vec()
}

fn per_connection(all: &Whole<'_>) -> Option<f64> {
    let grown = all.resident_bytes.saturating_sub(all.start.resident_bytes);
    grown.checked_div(all.handle.conn_count() as u64).map(|bytes| bytes as f64)
}

impl MetricInfo {
    fn family(&self, all: &Whole<'_>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(match self.kind() {
            "counter" => MetricType::COUNTER,
            "histogram" => MetricType::HISTOGRAM,
            _ => MetricType::GAUGE,
        });
        let shards = || all.handle.stats().enumerate().map(|(shard, metrics)| (shard.to_string(), metrics));
        family.set_metric(match self.source {
            Source::Counter(value) => {
                shards().map(|(name, shard)| counter(&[("shard", &name)], value(shard) as f64)).collect()
            }
            Source::Gauge(value) => {
                shards().map(|(name, shard)| gauge(&[("shard", &name)], value(shard) as f64)).collect()
            }
            Source::Reasons(values) => shards()
                .flat_map(|(name, shard)| {
                    let value = move |(reason, value)| counter(&[("shard", &name), ("reason", reason)], value as f64);
                    values(shard).into_iter().map(value)
                })
                .collect(),
            Source::Spans(spans) => {
                shards().map(|(name, shard)| histogram(&[("shard", &name)], spans(shard))).collect()
            }
            Source::Process(value) => value(all).map(|value| gauge(&[], value)).into_iter().collect(),
            Source::ProcessCounter(value) => vec![counter(&[], value(all) as f64)],
            Source::Build => vec![gauge(&[("version", env!("CARGO_PKG_VERSION"))], 1.0)],
        });
        family
    }
}

/// All metrics, as text.
fn text(handle: &ServerHandle, start: Start) -> Result<String, prometheus::Error> {
    let resident_bytes = host::resident_bytes().unwrap_or(0);
    let all = Whole { handle, resident_bytes, start };
    let families: Vec<_> = METRICS.iter().map(|metric| metric.family(&all)).collect();
    // The encoder takes a family without a value for a fault.
    let families: Vec<_> = families.into_iter().filter(|family| !family.get_metric().is_empty()).collect();
    TextEncoder::new().encode_to_string(&families)
}

/// Metrics for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "observe",
    responses((status = 200, description = "The text format, version 0.0.4", body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(State(api): State<Api>) -> Result<impl IntoResponse, Problem> {
    let text = text(api.handle(), api.start())
        .map_err(|error| Problem::new(ProblemCode::Busy, format!("the metrics can't be written: {error}")))?;
    Ok(([(CONTENT_TYPE, TEXT_FORMAT)], text))
}
