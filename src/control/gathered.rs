//! A client's socket whose small writes wait for each other: the responses to requests that came together go out together.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_io_timeout::TimeoutStream;

use crate::config::control::GATHER_BYTES_MAX;

/// A client's socket, which must take something of what is written within a time. What is written waits until
/// [`Gathered::poll_send`]: whoever serves the connection calls it after each of its turns, so that nothing waits for the
/// client's next request. Clones are the same socket.
#[derive(Clone)]
pub(super) struct Gathered(Arc<Mutex<Held>>);

struct Held {
    /// Pinned, since it holds a timer.
    stream: Pin<Box<TimeoutStream<TcpStream>>>,
    waiting: Vec<u8>,
    /// Bytes of what waits that are sent.
    sent: usize,
}

impl Gathered {
    pub(super) fn new(stream: TcpStream, write_time: Duration) -> Self {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(write_time));
        Gathered(Arc::new(Mutex::new(Held { stream: Box::pin(stream), waiting: Vec::new(), sent: 0 })))
    }

    /// Sends what waits, as far as the socket takes it.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held().poll_send(cx)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.waiting.len() {
            match ready!(self.stream.as_mut().poll_write(cx, &self.waiting[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        // An idle connection keeps no memory for it.
        (self.waiting, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Whether so many bytes may wait. Otherwise nothing waits any more when it is ready, and they are to be written.
    fn poll_room(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<io::Result<bool>> {
        if self.waiting.len() + len > GATHER_BYTES_MAX {
            ready!(self.poll_send(cx))?;
        }
        Poll::Ready(Ok(len <= GATHER_BYTES_MAX))
    }
}

impl AsyncRead for Gathered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.held().stream.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Gathered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let held = &mut *self.held();
        let len = bufs.iter().map(|buf| buf.len()).sum();
        if !ready!(held.poll_room(cx, len))? {
            return held.stream.as_mut().poll_write_vectored(cx, bufs);
        }
        bufs.iter().for_each(|buf| held.waiting.extend_from_slice(buf));
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let held = &mut *self.held();
        ready!(held.poll_send(cx))?;
        held.stream.as_mut().poll_shutdown(cx)
    }
}
