//! The only unsafe code of the crate: system interfaces that no safe wrapper covers.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

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
/// hundred megabytes, in which it holds the locks of the allocator's arenas one after the other. Without effect where that
/// library is not glibc, or a program brings its own allocator.
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time from any thread, and what is in use stays as it is.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A limit of this process, the soft and the hard one; [`NO_LIMIT`]: there is none. Unlike rustix' function it tells when a
/// system-call filter forbids to read it.
///
/// # Errors
/// The error of `getrlimit(2)`.
pub(crate) fn limit(resource: Resource) -> io::Result<(u64, u64)> {
    let number = match resource {
        Resource::OpenFiles => libc::RLIMIT_NOFILE,
        Resource::LockedMemory => libc::RLIMIT_MEMLOCK,
    };
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills in the structure, in which any numbers are valid.
    let outcome = unsafe { libc::getrlimit(number, &raw mut limit) };
    if outcome == 0 { Ok((limit.rlim_cur, limit.rlim_max)) } else { Err(io::Error::last_os_error()) }
}

/// The number that stands for no limit.
pub(crate) const NO_LIMIT: u64 = libc::RLIM_INFINITY;

/// What there are limits on.
#[derive(Clone, Copy)]
pub(crate) enum Resource {
    OpenFiles,
    LockedMemory,
}

/// Keeps a later `bind` to port 0 from taking a port (`IP_BIND_ADDRESS_NO_PORT`, ip(7)).
///
/// # Errors
/// The error of `setsockopt(2)`.
pub(crate) fn bind_address_no_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    let yes: libc::c_int = 1;
    let len = size_of_val(&yes) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes, which are the integer's own.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const yes).cast(),
            len,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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

/// What has been written to a TCP socket and has not arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outstanding {
    /// Packets that were sent and are not acknowledged.
    pub(crate) packets: u32,
    /// Bytes that were not sent, since the other side takes no more for now.
    pub(crate) unsent: u32,
    /// Times that it was asked in vain, one after the other, whether it does now.
    pub(crate) probes: u8,
    /// Milliseconds since it last acknowledged anything.
    pub(crate) since_answer_ms: u32,
}

/// Asks the kernel for the state of a TCP socket (`TCP_INFO`, tcp(7)).
///
/// # Errors
/// The socket is not one of TCP.
pub(crate) fn outstanding(socket: BorrowedFd<'_>) -> io::Result<Outstanding> {
    /// `struct tcp_info` of the kernel's `linux/tcp.h` up to `tcpi_notsent_bytes`, which it has had since 4.6. Longer ones
    /// begin alike: the kernel gives as much as is asked for.
    #[repr(C)]
    #[derive(Default)]
    struct TcpInfo {
        state: [u8; 3],
        probes: u8,
        options: [u8; 4],
        timers: [u32; 4],
        unacked: u32,
        losses: [u32; 4],
        last_sent: [u32; 2],
        last_data_recv: u32,
        last_ack_recv: u32,
        metrics: [u32; 11],
        rates: [u64; 4],
        segments: [u32; 2],
        notsent_bytes: u32,
        min_rtt: u32,
    }
    const _: () = assert!(std::mem::offset_of!(TcpInfo, notsent_bytes) == 144);
    let mut info = TcpInfo::default();
    let mut len = size_of::<TcpInfo>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which are the structure's own, and any bytes are valid in it.
    let outcome = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut len)
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Outstanding {
        packets: info.unacked,
        unsent: info.notsent_bytes,
        probes: info.probes,
        since_answer_ms: info.last_ack_recv,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    #[test]
    fn what_is_outstanding_is_what_the_other_side_has_not_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut receiver, _) = listener.accept().unwrap();
        let wait_until = |holds: &dyn Fn(Outstanding) -> bool| {
            let started = Instant::now();
            while !holds(outstanding(sender.as_fd()).unwrap()) {
                assert!(started.elapsed() < Duration::from_secs(10), "{:?}", outstanding(sender.as_fd()));
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        (&sender).write_all(b"hello").unwrap();
        wait_until(&|outstanding| (outstanding.packets, outstanding.unsent) == (0, 0));
        sender.set_nonblocking(true).unwrap();
        let mut sent = 5;
        while let Ok(taken) = (&sender).write(&[7; 60_000]) {
            sent += taken;
        }
        // Its machine acknowledges what it has room for, and answers when it is asked for more.
        wait_until(&|outstanding| outstanding.packets == 0 && outstanding.unsent > 0);
        receiver.set_nonblocking(false).unwrap();
        receiver.read_exact(&mut vec![0; sent]).unwrap();
        wait_until(&|outstanding| (outstanding.packets, outstanding.unsent) == (0, 0));
        sender.set_nonblocking(false).unwrap();
        assert!(outstanding(std::fs::File::open("/dev/null").unwrap().as_fd()).is_err());
    }
}
