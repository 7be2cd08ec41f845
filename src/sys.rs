//! The only unsafe code of the crate: three system interfaces that no safe wrapper covers.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

/// Borrows the descriptor of a socket that gives it out only as a number.
pub(crate) fn borrow_fd<S: AsRawFd>(socket: &S) -> BorrowedFd<'_> {
    // SAFETY: a socket that owns its descriptor keeps it open while it lives, and the result borrows the
    // socket for as long. The runtime's socket types, the only ones passed here, own theirs.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

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
