//! What the threads of a run tell each other: the phase downwards, figures upwards.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread::Thread;

use serde::{Deserialize, Serialize};

/// Where the run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub(super) enum Phase {
    /// Connections are made.
    Connecting,
    /// The load is on.
    Running,
    /// Nothing new is sent; what is under way comes in.
    Settling,
    /// The threads hand in their results.
    Stopping,
}

/// Figures that one thread writes and the coordinator reads, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Gauges {
    /// Connections that the server has accepted, so far.
    connected: AtomicU64,
    /// Connections that the server has answered, so far.
    ready: AtomicU64,
    /// Connections that are given up before they were ready.
    given_up: AtomicU64,
    /// Ready connections that were closed.
    closed: AtomicU64,
    /// Ready connections that left as they were to.
    left: AtomicU64,
    received: AtomicU64,
    accounted: AtomicU64,
    listening: AtomicU64,
    outstanding: AtomicU64,
    /// The 99th percentile so far, in nanoseconds; only while progress is shown.
    p99_ns: AtomicU64,
}

/// What a thread's connections have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LinkCounts {
    pub(super) connected: u64,
    pub(super) ready: u64,
    pub(super) given_up: u64,
    pub(super) closed: u64,
    /// Of a churn: those that ended as planned.
    pub(super) left: u64,
}

impl LinkCounts {
    /// Connections that are open and answered now.
    pub(super) fn open(&self) -> u64 {
        // The figures of a running thread are not read at one instant.
        self.ready.saturating_sub(self.closed + self.left)
    }
}

impl std::ops::AddAssign for LinkCounts {
    fn add_assign(&mut self, other: LinkCounts) {
        self.connected += other.connected;
        self.ready += other.ready;
        self.given_up += other.given_up;
        self.closed += other.closed;
        self.left += other.left;
    }
}

/// What a scenario has come to, for progress and to know when all is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    /// What the scenario counts: messages, round trips, answered pings.
    pub(super) received: u64,
    /// Of a fan-out: messages that came or were reported missing, over all listening subscribers.
    pub(super) accounted: u64,
    /// Of a fan-out: subscribers that are open and read.
    pub(super) listening: u64,
    /// Messages that wait for their answer.
    pub(super) outstanding: u64,
}

/// The sum over all threads, and what the publisher has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) links: LinkCounts,
    pub(super) counts: Counts,
    pub(super) p99_ns: u64,
    pub(super) published: u64,
    pub(super) refused: u64,
    pub(super) publisher_done: bool,
}

/// The common ground of a run's threads.
#[derive(Debug)]
pub(super) struct Shared {
    phase: AtomicU8,
    /// Connections to make, so far, over all threads.
    wanted: AtomicUsize,
    gauges: Vec<Gauges>,
    coordinator: Thread,
    pub(super) published: AtomicU64,
    pub(super) refused: AtomicU64,
    /// The number behind the last message that the server has accepted from the publisher.
    pub(super) accepted: AtomicU32,
    /// When the load began, in nanoseconds of the run's clock.
    begin_ns: AtomicU64,
    pub(super) publisher_done: AtomicBool,
    /// Whether the run ends before its time.
    cut_short: AtomicBool,
    /// Whether anyone looks at the live percentile.
    pub(super) shows_progress: bool,
}

impl Shared {
    /// For `threads` workers that make `wanted` connections first; the calling thread is the coordinator.
    pub(super) fn new(threads: usize, wanted: usize, shows_progress: bool) -> Shared {
        Shared {
            phase: AtomicU8::new(Phase::Connecting as u8),
            wanted: AtomicUsize::new(wanted),
            gauges: (0..threads).map(|_| Gauges::default()).collect(),
            coordinator: std::thread::current(),
            published: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            accepted: AtomicU32::new(0),
            begin_ns: AtomicU64::new(0),
            publisher_done: AtomicBool::new(false),
            cut_short: AtomicBool::new(false),
            shows_progress,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Connecting,
            1 => Phase::Running,
            2 => Phase::Settling,
            _ => Phase::Stopping,
        }
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// When the load began; 0 before it did.
    pub(super) fn begin_ns(&self) -> u64 {
        self.begin_ns.load(Ordering::Relaxed)
    }

    /// Set before the phase in which the load is on.
    pub(super) fn set_begin(&self, begin_ns: u64) {
        self.begin_ns.store(begin_ns, Ordering::Relaxed);
    }

    /// Connections to make, so far, over all threads.
    pub(super) fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Acquire)
    }

    /// Has the threads make connections up to so many, as soon as they are woken.
    pub(super) fn extend(&self, wanted: usize) {
        self.wanted.store(wanted, Ordering::Release);
    }

    pub(super) fn is_cut_short(&self) -> bool {
        self.cut_short.load(Ordering::Relaxed)
    }

    /// Has the publisher stop, and the coordinator end the load.
    pub(super) fn cut_short(&self) {
        self.cut_short.store(true, Ordering::Relaxed);
    }

    /// Has the coordinator look at the figures now.
    pub(super) fn notify(&self) {
        self.coordinator.unpark();
    }

    pub(super) fn report_links(&self, worker: usize, links: LinkCounts) {
        let gauges = &self.gauges[worker];
        gauges.connected.store(links.connected, Ordering::Relaxed);
        gauges.given_up.store(links.given_up, Ordering::Relaxed);
        gauges.closed.store(links.closed, Ordering::Relaxed);
        gauges.left.store(links.left, Ordering::Relaxed);
        gauges.ready.store(links.ready, Ordering::Release);
    }

    pub(super) fn report_counts(&self, worker: usize, counts: Counts) {
        let gauges = &self.gauges[worker];
        gauges.received.store(counts.received, Ordering::Relaxed);
        gauges.listening.store(counts.listening, Ordering::Relaxed);
        gauges.accounted.store(counts.accounted, Ordering::Relaxed);
        gauges.outstanding.store(counts.outstanding, Ordering::Release);
    }

    pub(super) fn report_p99(&self, worker: usize, p99_ns: u64) {
        self.gauges[worker].p99_ns.store(p99_ns, Ordering::Relaxed);
    }

    /// Whether any thread has been connected at all.
    pub(super) fn has_connected(&self) -> bool {
        self.gauges.iter().any(|gauges| gauges.connected.load(Ordering::Relaxed) > 0)
    }

    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals {
            published: self.published.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            publisher_done: self.publisher_done.load(Ordering::Acquire),
            ..Totals::default()
        };
        for gauges in &self.gauges {
            totals.links.ready += gauges.ready.load(Ordering::Acquire);
            totals.links.connected += gauges.connected.load(Ordering::Relaxed);
            totals.links.given_up += gauges.given_up.load(Ordering::Relaxed);
            totals.links.closed += gauges.closed.load(Ordering::Relaxed);
            totals.links.left += gauges.left.load(Ordering::Relaxed);
            totals.counts.outstanding += gauges.outstanding.load(Ordering::Acquire);
            totals.counts.received += gauges.received.load(Ordering::Relaxed);
            totals.counts.listening += gauges.listening.load(Ordering::Relaxed);
            totals.counts.accounted += gauges.accounted.load(Ordering::Relaxed);
            totals.p99_ns = totals.p99_ns.max(gauges.p99_ns.load(Ordering::Relaxed));
        }
        totals
    }
}
