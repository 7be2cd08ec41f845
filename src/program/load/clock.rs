//! The run's clock.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Monotonic nanoseconds since the run began; all threads and processes of a run share it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// The begin, in nanoseconds of the machine's clock.
    base_ns: u64,
}

impl Clock {
    pub(super) fn start() -> Clock {
        Clock { base_ns: machine_ns() }
    }

    /// The clock of a run that began at [`Clock::base_ns`] of another process.
    pub(super) fn from_base(base_ns: u64) -> Clock {
        Clock { base_ns }
    }

    pub(super) fn base_ns(self) -> u64 {
        self.base_ns
    }

    pub(super) fn now(self) -> u64 {
        // A begin that was not this machine's is no reason to panic.
        machine_ns().saturating_sub(self.base_ns)
    }
}

/// Nanoseconds since the machine started; 64 bits of them last for 584 years.
fn machine_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A time span in the clock's unit.
pub(super) const fn ns(span: Duration) -> u64 {
    span.as_nanos() as u64
}
