//! What the program writes to its standard streams: whole, and without a panic where nobody reads.

use std::io;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::printable;

/// Why text for stdout was lost, if it was for another reason than a reader that left.
static LOST: OnceLock<Errno> = OnceLock::new();

/// Writes all of `bytes`. A stream that another program has set to be non-blocking is waited for.
///
/// # Errors
/// The error of `write(2)`, and how many bytes were written before.
pub(crate) fn write_whole(to: impl AsFd, bytes: &[u8]) -> Result<(), (Errno, usize)> {
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::write(&to, &bytes[written..]) {
            Ok(0) => return Err((Errno::IO, written)),
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                // That it failed shows at the next write.
                let _ = poll(&mut [PollFd::new(&to, PollFlags::OUT)], None);
            }
            Err(errno) => return Err((errno, written)),
        }
    }
    Ok(())
}

/// Prints lines to stdout, with what a terminal must not be given escaped; whether somebody reads it. That a reader has
/// left (`| head -1`) is not a fault; [`lost`] tells of others.
pub(crate) fn print(text: &str) -> bool {
    match write_whole(io::stdout(), printable::lines(text).as_bytes()) {
        Ok(()) => true,
        Err((Errno::PIPE, _)) => false,
        Err((errno, _)) => {
            let _ = LOST.set(errno);
            false
        }
    }
}

/// Why text for stdout was lost: a full disk, as an example. `None`: none was, or its reader has left.
pub(crate) fn lost() -> Option<io::Error> {
    LOST.get().map(|errno| (*errno).into())
}

/// Writes a line, or more, to stderr, with what a terminal must not be given escaped. If nobody reads it, there is nobody
/// to be told.
pub(crate) fn complain(line: &str) {
    let _ = write_whole(io::stderr(), format!("{}\n", printable::lines(line)).as_bytes());
}
