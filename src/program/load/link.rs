//! One connection's bytes: no buffer of its own but for what is incomplete.

use std::io::{self, Read, Write};

use mio::net::TcpStream;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not connected now: not yet, not any more, or waiting for the next try.
    #[default]
    Down,
    /// The connect is under way.
    Connecting,
    /// Connected; the server has not answered yet.
    Greeting,
    /// The server has answered.
    Ready,
}

/// A client's connection.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) stream: Option<TcpStream>,
    pub(super) stage: Stage,
    /// Connects that failed so far.
    pub(super) failed_tries: u8,
    /// Whether it does not read any more, on purpose.
    pub(super) is_stalled: bool,
    /// When the connect began, in nanoseconds of the run's clock.
    pub(super) began_ns: u64,
    /// Bytes of a message that is not complete yet.
    pub(super) tail: Vec<u8>,
    /// Bytes that the kernel did not take yet.
    unsent: Vec<u8>,
    error: Option<io::Error>,
}

impl Link {
    pub(super) fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    /// Whether everything sent so far is in the kernel's hands.
    pub(super) fn is_flushed(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Sends now what the kernel takes and keeps the rest. An error is kept for [`Link::take_error`].
    pub(super) fn send(&mut self, bytes: &[u8]) {
        let sent = if self.unsent.is_empty() { self.write(bytes) } else { 0 };
        if self.error.is_none() {
            self.unsent.extend_from_slice(&bytes[sent..]);
        }
    }

    /// Sends what was kept.
    pub(super) fn flush(&mut self) {
        if self.unsent.is_empty() {
            return;
        }
        let unsent = std::mem::take(&mut self.unsent);
        let sent = self.write(&unsent);
        if sent < unsent.len() && self.error.is_none() {
            self.unsent = unsent;
            self.unsent.drain(..sent);
        }
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let Some(stream) = &mut self.stream else { return 0 };
        let mut sent = 0;
        while sent < bytes.len() {
            match stream.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.error = Some(error);
                    break;
                }
            }
        }
        sent
    }

    /// Reads once; `None` if there is nothing to read now.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        match read(stream, buffer) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the server has closed a connection that was not read: reads what lies there, in at most `reads`
    /// reads, to see what is behind it.
    pub(super) fn has_ended(&mut self, buffer: &mut [u8], reads: usize) -> bool {
        for _ in 0..reads {
            match self.receive(buffer) {
                Ok(None) => return false,
                Ok(Some(0)) | Err(_) => return true,
                Ok(Some(_)) => {}
            }
        }
        false
    }

    /// The error that a send ran into, or that the kernel noted.
    pub(super) fn take_error(&mut self) -> Option<io::Error> {
        self.error.take().or_else(|| self.stream.as_ref()?.take_error().ok().flatten())
    }

    /// The error that a send ran into; asks the kernel nothing.
    pub(super) fn take_send_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    /// Closes the connection and gives its memory back.
    pub(super) fn close(&mut self) {
        let failed_tries = self.failed_tries;
        *self = Link { failed_tries, ..Link::default() };
    }
}

/// Reads once. A read with a timeout fails when the process was stopped and goes on, signal(7); it is tried again then.
pub(super) fn read(mut stream: impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Is interrupted at first.
    struct Disturbed(u32);

    impl Read for Disturbed {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 > 0 {
                self.0 -= 1;
                return Err(io::ErrorKind::Interrupted.into());
            }
            buffer[0] = b'a';
            Ok(1)
        }
    }

    #[test]
    fn a_read_goes_on_after_a_stop_of_the_process() {
        let mut buffer = [0; 4];
        assert_eq!(read(Disturbed(2), &mut buffer).unwrap(), 1);
    }
}
