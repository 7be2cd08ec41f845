//! A timer that wakes a poll loop on time: the loop's own time-out is whole milliseconds.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use rustix::event::Timespec;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use super::LoadError;

/// One moment at a time.
#[derive(Debug)]
pub(super) struct Alarm {
    timer: OwnedFd,
    due_ns: Option<u64>,
}

impl Alarm {
    /// It wakes `poll` with an event of this token.
    pub(super) fn new(poll: &Poll, token: Token) -> Result<Alarm, LoadError> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)
            .map_err(io::Error::from)
            .and_then(|timer| {
                poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
                Ok(timer)
            })
            .map_err(LoadError::system("make a timer"))?;
        Ok(Alarm { timer, due_ns: None })
    }

    /// Sets it to a moment of the run's clock, or turns it off; what is due already needs none.
    pub(super) fn set(&mut self, due_ns: Option<u64>, now: u64) -> Result<(), LoadError> {
        if due_ns == self.due_ns {
            return Ok(());
        }
        self.due_ns = due_ns;
        // A span of 0 turns it off.
        let span = due_ns.map_or(0, |due| due.saturating_sub(now));
        let it_value = Timespec { tv_sec: (span / 1_000_000_000) as i64, tv_nsec: (span % 1_000_000_000) as i64 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)
            .map_err(io::Error::from)
            .map_err(LoadError::system("set a timer"))?;
        Ok(())
    }
}
