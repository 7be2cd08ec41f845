//! A TCP socket as it is.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use super::{Broken, Outstanding, Received, Transport};
use crate::sys;

/// A connected socket. It is closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Plain(OwnedFd);

impl Plain {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Plain(socket)
    }
}

impl AsFd for Plain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Transport for Plain {
    fn recv(&mut self, buffer: &mut [u8]) -> Received {
        let room = buffer.len();
        loop {
            return match rustix::net::recv(&self.0, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => Received::End,
                // A read that did not fill the buffer has emptied the socket.
                Ok((_, count)) => Received::Bytes { count, more: count == room },
                Err(Errno::AGAIN) => Received::Nothing,
                Err(Errno::INTR) => continue,
                Err(_) => Received::Failed,
            };
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        loop {
            return match rustix::net::send(&self.0, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(taken) => Ok(taken),
                Err(Errno::AGAIN) => Ok(0),
                Err(Errno::INTR) => continue,
                Err(_) => Err(Broken),
            };
        }
    }

    fn finish(&mut self) {
        // A socket that is not connected any more shows it at the next read.
        let _ = rustix::net::shutdown(&self.0, Shutdown::Write);
    }

    fn has_room(&self) -> bool {
        let mut polled = [PollFd::new(&self.0, PollFlags::OUT)];
        // An error is one of the socket, which shows when it is written to.
        poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).map_or(true, |ready| ready > 0)
    }

    fn outstanding(&self) -> Option<Outstanding> {
        sys::outstanding(self.0.as_fd()).ok()
    }
}
