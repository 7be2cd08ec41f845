//! The only unsafe code of the crate: system interfaces that no safe wrapper covers.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use io_uring::types::Timespec;
use io_uring::{IoUring, squeue};

/// Hands a descriptor over to a type of the runtime that takes it only as a number.
pub(crate) fn from_fd<S: FromRawFd>(fd: impl Into<OwnedFd>) -> S {
    // SAFETY: the descriptor is open and owned by nobody else, since it was an `OwnedFd` until here.
    unsafe { S::from_raw_fd(fd.into().into_raw_fd()) }
}

/// Asks the kernel for a ring and gives it back: whether io_uring may be used here.
///
/// # Errors
/// The error of `io_uring_setup(2)`.
pub(crate) fn probe_io_uring() -> io::Result<()> {
    let mut params = rustix::io_uring::io_uring_params::default();
    // SAFETY: `params` is a valid, zeroed structure that the kernel fills in; no flag that would make it
    // point to memory of ours is set, and the ring is closed without being used.
    unsafe { rustix::io_uring::io_uring_setup(2, &mut params) }?;
    Ok(())
}

/// Hands memory back to the system that the C library's allocator keeps for later. It takes some milliseconds for a
/// hundred megabytes. Without effect where that library is not glibc, or a program brings its own allocator.
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time from any thread, and what is in use stays as it is.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Moves as many polls, and cancellations of polls, as a ring has room for from the beginning of a list into the ring.
pub(crate) fn push_polls(ring: &mut IoUring, polls: &mut Vec<squeue::Entry>) {
    let mut submissions = ring.submission();
    let room = submissions.capacity() - submissions.len();
    for poll in polls.drain(..room.min(polls.len())) {
        // SAFETY: a poll and its cancellation hold no pointer, so there is no memory that must outlive them. A descriptor
        // that is closed by then, or stands for another file, leads to an error or to a report that nobody expects.
        let pushed = unsafe { submissions.push(&poll) };
        debug_assert!(pushed.is_ok(), "there was room");
    }
}

/// Has the kernel write down the completions that it has put off (`IORING_SETUP_DEFER_TASKRUN`) or had no room for.
///
/// # Errors
/// The error of `io_uring_enter(2)`.
pub(crate) fn gather_completions(ring: &IoUring) -> io::Result<()> {
    const GETEVENTS: u32 = 1;
    // SAFETY: nothing is submitted, and without a signal mask no pointer is passed.
    unsafe { ring.submitter().enter::<Timespec>(0, 0, GETEVENTS, None) }?;
    Ok(())
}
