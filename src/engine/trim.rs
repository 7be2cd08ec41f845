//! When to hand memory back to the system that the allocator keeps.
//!
//! glibc's allocator keeps what is freed, unless it lies at the end of a heap. After a rush of clients, or of messages
//! that waited for slow ones, the process would stay as large as it was at its worst.

use crate::config::{TICK_MS, TRIM_AFTER_MS, TRIM_BYTES_MIN};

/// Ticks for which little must have been in use.
const TRIM_AFTER: u64 = TRIM_AFTER_MS.div_ceil(TICK_MS);

/// How much less memory is in use than was, since memory was last handed back.
#[derive(Default)]
pub(crate) struct Trim {
    peak: u64,
    /// For how many ticks no more than half of the peak has been in use.
    low: u64,
}

impl Trim {
    /// Takes note of the bytes in use, once a tick; whether it is time to hand memory back.
    pub(crate) fn is_due(&mut self, bytes: u64) -> bool {
        self.peak = self.peak.max(bytes);
        if bytes > self.peak / 2 || self.peak - bytes < TRIM_BYTES_MIN {
            self.low = 0;
            return false;
        }
        self.low += 1;
        let is_due = self.low >= TRIM_AFTER;
        if is_due {
            *self = Trim { peak: bytes, low: 0 };
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: u64 = 10 * TRIM_BYTES_MIN;

    /// How many of so many ticks hand memory back.
    fn due(trim: &mut Trim, ticks: u64, bytes: u64) -> usize {
        (0..ticks).filter(|_| trim.is_due(bytes)).count()
    }

    #[test]
    fn memory_goes_back_once_when_half_has_not_been_in_use_for_a_while() {
        let mut trim = Trim::default();
        assert_eq!(due(&mut trim, 3, MANY), 0);
        assert_eq!(due(&mut trim, TRIM_AFTER - 1, MANY / 2), 0);
        assert_eq!(due(&mut trim, 1, MANY / 2 + 1), 0, "more again");
        assert_eq!(due(&mut trim, TRIM_AFTER - 1, 0), 0, "not for long enough");
        assert_eq!(due(&mut trim, 10 * TRIM_AFTER, 0), 1);
        assert_eq!(due(&mut trim, 1, MANY), 0);
        assert_eq!(due(&mut trim, 10 * TRIM_AFTER, 0), 1, "after the next rush again");
    }

    #[test]
    fn little_memory_is_not_worth_it() {
        let mut trim = Trim::default();
        assert_eq!(due(&mut trim, 1, TRIM_BYTES_MIN - 1), 0);
        assert_eq!(due(&mut trim, 2 * TRIM_AFTER, 0), 0);
    }
}
