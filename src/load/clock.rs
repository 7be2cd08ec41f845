//! The run's clock.

use std::time::{Duration, Instant};

/// Monotonic nanoseconds since the run began; all threads of a run share it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Clock {
        Clock(Instant::now())
    }

    pub(super) fn now(self) -> u64 {
        // 64 bits of nanoseconds last for 584 years.
        self.0.elapsed().as_nanos() as u64
    }
}

/// A time span in the clock's unit.
pub(super) const fn ns(span: Duration) -> u64 {
    span.as_nanos() as u64
}
