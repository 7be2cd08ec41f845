//! The status line: what the server does now, for the log.

use std::fmt::Write as _;
use std::time::Instant;

use crate::host;
use crate::message::DropReason;
use crate::server::handle::ServerHandle;

/// Sums over all shards at one moment.
#[derive(Clone, Copy)]
struct Totals {
    at: Instant,
    messages_in: u64,
    messages_out: u64,
    dropped: [u64; DropReason::ALL.len()],
}

/// Compares the counters with those of the last line.
pub struct Reporter {
    handle: ServerHandle,
    last: Totals,
    /// Resident bytes before the first connection.
    resident_at_start: u64,
}

impl Reporter {
    /// A reporter whose first line covers the time from now on.
    pub fn new(handle: ServerHandle) -> Self {
        let last = totals(&handle);
        Reporter { handle, last, resident_at_start: host::resident_bytes().unwrap_or(0) }
    }

    /// The line for the time since the last one: connections by shard, messages a second, drops by reason, polls,
    /// resident memory, and bytes of it per connection.
    pub fn line(&mut self) -> String {
        let now = totals(&self.handle);
        let seconds = now.at.duration_since(self.last.at).as_secs_f64().max(1e-3);
        let rate = |now: u64, last: u64| (now.wrapping_sub(last) as f64 / seconds).round();
        let by_shard: Vec<_> = self.handle.stats().map(|shard| shard.connections.get().to_string()).collect();
        let polls: u64 = self.handle.stats().map(|shard| shard.polls.get()).sum();
        let connections = self.handle.conn_count();

        let mut line = format!(
            "connections={connections} ({}) in={}/s out={}/s",
            by_shard.join("+"),
            rate(now.messages_in, self.last.messages_in),
            rate(now.messages_out, self.last.messages_out),
        );
        for reason in DropReason::ALL {
            let dropped = now.dropped[reason as usize].wrapping_sub(self.last.dropped[reason as usize]);
            if dropped > 0 {
                let _ = write!(line, " dropped[{reason}]={dropped}");
            }
        }
        let _ = write!(line, " polls={polls}");
        if let Some(resident) = host::resident_bytes() {
            let _ = write!(line, " resident={:.1}MiB", resident as f64 / f64::from(1 << 20));
            if connections > 0 {
                let each = resident.saturating_sub(self.resident_at_start) / connections as u64;
                let _ = write!(line, " bytes/connection={each}");
            }
        }
        self.last = now;
        line
    }
}

fn totals(handle: &ServerHandle) -> Totals {
    let mut totals =
        Totals { at: Instant::now(), messages_in: 0, messages_out: 0, dropped: [0; DropReason::ALL.len()] };
    for shard in handle.stats() {
        totals.messages_in += shard.messages_in.get();
        totals.messages_out += shard.messages_out.get();
        for (sum, counter) in totals.dropped.iter_mut().zip(&shard.dropped) {
            *sum += counter.get();
        }
    }
    totals
}
