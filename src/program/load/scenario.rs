//! What a worker asks of a scenario, and how bytes get there as messages.

use super::LoadError;
use super::dialect::{BadFrame, Dialect};
use super::link::{Link, Stage};
use super::shared::{Counts, Phase, Totals};

/// What a message from the server does to the connection that it came on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Stay,
    /// The server has answered; the connection is ready for the load.
    Ready,
    /// The server wants it closed, or can't serve it; the text says why, in few words.
    Close(String),
}

/// A kind of load on one thread's share of the connections. Times are nanoseconds of the run's clock.
pub(super) trait Scenario: Send + 'static {
    /// What is kept for each connection.
    type Conn: Send;
    /// What the thread hands in at the end.
    type Result: Send + 'static;

    /// State for connection `index` (of the whole run).
    fn conn(&self, index: usize) -> Self::Conn;

    /// Whether the connection is to stop reading once it is ready.
    fn is_stalled(&self, _conn: &Self::Conn) -> bool {
        false
    }

    /// The connection is made: say hello.
    fn greet(&mut self, link: &mut Link, conn: &mut Self::Conn, now: u64);

    /// A complete message came.
    fn message(&mut self, link: &mut Link, conn: &mut Self::Conn, message: &[u8], now: u64) -> Result<Step, LoadError>;

    /// A ready connection's turn to show that it lives; it comes every 20 s.
    fn keep_alive(&mut self, link: &mut Link, conn: &mut Self::Conn, now: u64);

    /// The run enters `phase`.
    fn enter(&mut self, phase: Phase);

    /// The load begins, for each connection that is ready.
    fn begin(&mut self, _link: &mut Link, _conn: &mut Self::Conn, _now: u64) {}

    /// A connection was closed before it was ready (it may be tried again), or was lost afterwards.
    fn closed(&mut self, link: &Link, conn: &mut Self::Conn);

    fn counts(&self) -> Counts;

    /// The 99th percentile of what it measures so far, in nanoseconds.
    fn p99_ns(&self) -> u64;

    /// Whether all that is under way is in.
    fn is_settled(totals: &Totals) -> bool {
        totals.counts.outstanding == 0
    }

    /// Hands in what was measured; `conns` is what is left of each connection, with whether it is still up.
    fn finish(self, conns: impl Iterator<Item = (Self::Conn, bool)>) -> Self::Result;
}

/// Cuts `bytes` into messages and passes each on; returns why to close the connection, if so.
pub(super) fn deliver(
    dialect: Dialect,
    link: &mut Link,
    bytes: &[u8],
    mut message: impl FnMut(&mut Link, &[u8]) -> Result<Step, LoadError>,
) -> Result<Option<String>, LoadError> {
    let mut held = std::mem::take(&mut link.tail);
    let bytes = if held.is_empty() {
        bytes
    } else {
        held.extend_from_slice(bytes);
        &held
    };
    let mut used = 0;
    loop {
        let (range, consumed) = match dialect.decode(&bytes[used..]) {
            Ok(Some(found)) => found,
            Ok(None) => break,
            Err(BadFrame) => return Ok(Some("not a message in this framing".into())),
        };
        let Ok(whole) = dialect.message(&bytes[used..], range) else {
            return Ok(Some("not a compressed message".into()));
        };
        match message(link, &whole)? {
            Step::Stay => {}
            Step::Ready => link.stage = Stage::Ready,
            Step::Close(reason) => return Ok(Some(reason)),
        }
        used += consumed;
    }
    if used < bytes.len() {
        link.tail = if held.is_empty() {
            bytes[used..].to_vec()
        } else {
            held.drain(..used);
            held
        };
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::dialect::Framing;

    /// Notes every message.
    fn note(notes: &mut Vec<Vec<u8>>, message: &[u8]) -> Result<Step, LoadError> {
        notes.push(message.to_vec());
        Ok(if message == b"BYE" { Step::Close("bye".into()) } else { Step::Stay })
    }

    #[test]
    fn messages_come_whole_wherever_the_bytes_are_cut_and_nothing_is_kept_behind_them() {
        let messages: [&[u8]; 4] = [b"one", b"", b"three and more", b"4"];
        for framing in Framing::PLAIN {
            let dialect = Dialect { framing };
            let bytes = messages.map(|message| dialect.echo(message).bytes).concat();
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    let (mut notes, mut link) = (Vec::new(), Link::default());
                    for piece in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                        let closed =
                            deliver(dialect, &mut link, piece, |_, message| note(&mut notes, message)).unwrap();
                        assert!(closed.is_none());
                    }
                    assert_eq!(notes, messages, "{framing:?} cut at {first} and {second}");
                    assert_eq!(link.tail.capacity(), 0);
                }
            }
        }
    }

    #[test]
    fn what_comes_behind_a_close_is_not_looked_at() {
        let dialect = Dialect { framing: Framing::Line };
        let (mut notes, mut link) = (Vec::new(), Link::default());
        let reason = deliver(dialect, &mut link, b"BYE\nmore\n", |_, message| note(&mut notes, message)).unwrap();
        assert_eq!((reason.as_deref(), notes.len()), (Some("bye"), 1));
    }
}
