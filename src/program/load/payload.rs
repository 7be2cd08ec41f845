//! What a measured message carries: who sent it, which one it is, and when it was due.

use std::ops::Range;

use super::dialect::Framed;

/// Bytes of a stamp: 6 digits of run, 6 of source, 8 of sequence number, 12 of time; all hexadecimal.
pub(super) const STAMP_BYTES: usize = 32;

/// Nanoseconds that a stamp can hold (78 hours).
pub(super) const STAMP_NS_MAX: u64 = (1 << 48) - 1;

/// Runs and sources are numbered in 24 bits.
pub(super) const STAMP_IDS: u32 = 1 << 24;

/// What fills a message up to its size.
const PADDING: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// What is written at the start of each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// This run, below [`STAMP_IDS`], so that messages of another run are told apart.
    pub(super) run: u32,
    /// The connection that sent it, below [`STAMP_IDS`].
    pub(super) source: u32,
    /// Its number among the messages of that source, from 0.
    pub(super) seq: u32,
    /// When it was due, in nanoseconds of the run's clock.
    pub(super) at_ns: u64,
}

impl Stamp {
    fn write(self, out: &mut [u8; STAMP_BYTES]) {
        put_hex(&mut out[..6], self.run.into());
        put_hex(&mut out[6..12], self.source.into());
        put_hex(&mut out[12..20], self.seq.into());
        put_hex(&mut out[20..], self.at_ns);
    }

    /// Reads the stamp of a message; `None` if it has none.
    pub(super) fn parse(message: &[u8]) -> Option<Stamp> {
        let stamp = message.first_chunk::<STAMP_BYTES>()?;
        // 24 and 32 bits fit by the number of digits.
        Some(Stamp {
            run: get_hex(&stamp[..6])? as u32,
            source: get_hex(&stamp[6..12])? as u32,
            seq: get_hex(&stamp[12..20])? as u32,
            at_ns: get_hex(&stamp[20..])?,
        })
    }
}

fn put_hex(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

fn get_hex(digits: &[u8]) -> Option<u64> {
    let mut value = 0;
    for &digit in digits {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        value = value << 4 | u64::from(nibble);
    }
    Some(value)
}

/// A message with its framing, made once; only the stamp in it changes.
#[derive(Clone, Debug)]
pub(super) struct Template {
    framed: Vec<u8>,
    payload: Range<usize>,
}

impl Template {
    /// What `frame` makes of a payload of this many bytes, at least [`STAMP_BYTES`].
    pub(super) fn new(payload_bytes: usize, frame: impl FnOnce(&[u8]) -> Framed) -> Template {
        let filler: Vec<u8> = PADDING.iter().copied().cycle().take(payload_bytes).collect();
        let Framed { bytes, payload } = frame(&filler);
        Template { framed: bytes, payload }
    }

    /// The whole frame, stamped.
    pub(super) fn stamp(&mut self, stamp: Stamp) -> &[u8] {
        let payload = &mut self.framed[self.payload.clone()];
        let room = payload.first_chunk_mut().expect("the plan refuses messages shorter than a stamp");
        stamp.write(room);
        &self.framed
    }

    /// The payload as it was stamped last.
    pub(super) fn payload(&self) -> &[u8] {
        &self.framed[self.payload.clone()]
    }

    /// Whether `payload` has the length and the filler of this template's, whatever its stamp.
    pub(super) fn matches_filler(&self, payload: &[u8]) -> bool {
        let own = self.payload();
        payload.len() == own.len() && payload[STAMP_BYTES..] == own[STAMP_BYTES..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::dialect::{Dialect, Framing};

    #[test]
    fn a_stamp_survives_the_round_trip_in_both_framings() {
        let stamps = [
            Stamp { run: 0, source: 0, seq: 0, at_ns: 0 },
            Stamp { run: STAMP_IDS - 1, source: 7, seq: u32::MAX, at_ns: STAMP_NS_MAX },
        ];
        for framing in Framing::PLAIN {
            let dialect = Dialect { framing };
            for size in [STAMP_BYTES, STAMP_BYTES + 1, 500] {
                let mut template = Template::new(size, |payload| dialect.publish("t", payload));
                for stamp in stamps {
                    let frame = template.stamp(stamp).to_vec();
                    let (range, used) = dialect.decode(&frame).unwrap().unwrap();
                    assert_eq!(used, frame.len());
                    let payload = frame[range].strip_prefix(b"PUB t ").unwrap();
                    assert_eq!(payload.len(), size);
                    assert_eq!(Stamp::parse(payload), Some(stamp));
                    assert!(template.matches_filler(payload));
                }
            }
        }
    }

    #[test]
    fn foreign_text_has_no_stamp() {
        assert_eq!(Stamp::parse(b"short"), None);
        assert_eq!(Stamp::parse(&[b'g'; STAMP_BYTES]), None);
        let template = Template::new(40, |payload| Dialect { framing: Framing::Line }.echo(payload));
        assert!(!template.matches_filler(&[b'0'; 40]));
        assert!(!template.matches_filler(&[b'0'; 39]));
    }
}
