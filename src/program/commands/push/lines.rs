//! Cuts stdin into messages, a line each, as they come: no line waits for the next.

use std::io::{self, Read};

use crate::commands::error::CommandError;
use crate::commands::text::size;

/// Bytes that are read at once, which is also about what goes into one request. A pipe holds as much.
const READ_BYTES: usize = 64 * 1024;

/// Lines of one request at the most.
const LINES_MAX: usize = 500;

/// Bytes of a line at the most: more than `max_message` can be.
const LINE_BYTES_MAX: usize = 16 << 20;

/// A line without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Its number, from 1.
    pub(super) number: u64,
    pub(super) bytes: Vec<u8>,
}

/// Reads lines.
pub(super) struct Lines<R> {
    input: R,
    /// What was read and not given out.
    held: Vec<u8>,
    /// Bytes of it that are known to hold no LF.
    searched: usize,
    number: u64,
    ended: bool,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Lines { input, held: Vec::new(), searched: 0, number: 0, ended: false }
    }

    /// The lines that are there, at least one; none: the input has ended. The last line may lack its LF.
    ///
    /// # Errors
    /// The input can't be read, or a line is too long.
    pub(super) fn next_batch(&mut self) -> Result<Vec<Line>, CommandError> {
        let mut batch = Vec::new();
        loop {
            let mut taken = 0;
            while batch.len() < LINES_MAX
                && let Some(end) = memchr::memchr(b'\n', &self.held[taken + self.searched..])
            {
                let end = taken + self.searched + end;
                batch.push(self.line(taken, end));
                taken = end + 1;
                self.searched = 0;
            }
            self.held.drain(..taken);
            if !batch.is_empty() {
                return Ok(batch);
            }
            self.searched = self.held.len();
            if self.ended {
                if !self.held.is_empty() {
                    // What has no LF has no CR before it either: all of it is the message.
                    self.number += 1;
                    batch.push(Line { number: self.number, bytes: std::mem::take(&mut self.held) });
                    self.searched = 0;
                }
                return Ok(batch);
            }
            if self.held.len() > LINE_BYTES_MAX {
                return Err(CommandError::LongLine { line: self.number + 1, max: size(LINE_BYTES_MAX as u64) });
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> Result<(), CommandError> {
        let old = self.held.len();
        self.held.resize(old + READ_BYTES, 0);
        loop {
            match self.input.read(&mut self.held[old..]) {
                Ok(count) => {
                    self.held.truncate(old + count);
                    self.ended = count == 0;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.held.truncate(old);
                    return Err(CommandError::Stdin(error));
                }
            }
        }
    }

    /// The bytes as a line. One CR before the LF is dropped, as the line framing does.
    fn line(&mut self, from: usize, end: usize) -> Line {
        self.number += 1;
        let bytes = &self.held[from..end];
        Line { number: self.number, bytes: bytes.strip_suffix(b"\r").unwrap_or(bytes).to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out its chunks, one a read.
    struct Chunks<'a>(Vec<&'a [u8]>);

    impl Read for Chunks<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let chunk = self.0.remove(0);
            to[..chunk.len()].copy_from_slice(chunk);
            Ok(chunk.len())
        }
    }

    fn batches(chunks: &[&[u8]]) -> Vec<Vec<String>> {
        let mut lines = Lines::new(Chunks(chunks.to_vec()));
        let mut batches = Vec::new();
        loop {
            let batch = lines.next_batch().unwrap();
            if batch.is_empty() {
                return batches;
            }
            batches.push(batch.into_iter().map(|line| String::from_utf8(line.bytes).unwrap()).collect());
        }
    }

    #[test]
    fn whole_lines_go_out_as_soon_as_they_are_there() {
        assert_eq!(batches(&[b"a\nb\nc", b"d\n", b"\n"]), [vec!["a", "b"], vec!["cd"], vec![""]]);
    }

    #[test]
    fn the_last_line_may_lack_its_end_and_one_cr_goes() {
        assert_eq!(batches(&[b"a\r\nb\r\r\n", b"c"]), [vec!["a", "b\r"], vec!["c"]]);
        assert_eq!(batches(&[b"a\r\nb\r"]), [vec!["a"], vec!["b\r"]]);
        assert!(batches(&[]).is_empty());
    }

    #[test]
    fn batches_are_bounded_and_lines_numbered_through() {
        let input = "x\n".repeat(2 * LINES_MAX + 1);
        let mut lines = Lines::new(input.as_bytes());
        let counts: Vec<_> = (0..4).map(|_| lines.next_batch().unwrap()).collect();
        assert_eq!(counts.iter().map(Vec::len).collect::<Vec<_>>(), [LINES_MAX, LINES_MAX, 1, 0]);
        assert_eq!(counts[2][0].number, 2 * LINES_MAX as u64 + 1);
    }

    #[test]
    fn a_line_without_end_is_refused_and_named() {
        let mut lines = Lines::new(io::Cursor::new(b"short\n".to_vec()).chain(io::repeat(b'x')));
        assert_eq!(lines.next_batch().unwrap().len(), 1);
        let error = lines.next_batch().unwrap_err().to_string();
        assert!(error.starts_with("line 2 of stdin is longer than 16.0 MiB"), "{error}");
    }
}
