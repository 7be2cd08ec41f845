//! Publishes to small audiences, gathered by connection: many messages to few clients each cost one write a client.
//!
//! For each publish its recipients are listed, as pairs of a connection's slot and the publish's number. Sorted, they say what
//! each connection gets, in order. That is put together in one buffer and goes to the socket in one piece; only what the socket
//! does not take is made into frames that wait in the outbox.

use std::ops::Range;
use std::time::Instant;

use super::driver::Driver;
use super::publish_queue::{Delivery, Recipients};
use super::pushed::Message;
use super::table::Key;
use super::visit::Visit;
use super::wording::Wording;
use super::{Base, Engine};
use crate::config::{FANOUT_SLICE, GATHERED_BYTES, GATHERED_PAIRS};
use crate::message::DropReason;

/// A message for a connection: the slot of this in the high half, the number of that in the low one.
type Pair = u64;

fn pair(slot: u32, number: usize) -> Pair {
    u64::from(slot) << 32 | number as u64
}

fn slot_of(pair: Pair) -> u32 {
    (pair >> 32) as u32
}

fn number_of(pair: Pair) -> usize {
    pair as u32 as usize
}

/// Connections that one step delivers to. Tests see several steps with few.
const STEP: usize = if cfg!(test) { 3 } else { FANOUT_SLICE };

/// A publish, and its bytes as far as some connection has needed them.
struct Item {
    message: Message,
    recipients: Recipients,
    /// It was for one connection, which has gone.
    is_gone: bool,
    /// In the wording that was needed first.
    first: Option<(Wording, Said)>,
    others: Vec<(Wording, Said)>,
    /// Whether it has been written to a socket whole since that was last noted.
    is_written: bool,
    first_write: Option<Instant>,
    last_write: Option<Instant>,
}

/// What there is to say of a message in one wording.
#[derive(Clone)]
enum Said {
    /// These of the gathering's bytes.
    Bytes(Range<usize>),
    /// The encoding can't carry it.
    Unfit(DropReason),
    Nothing,
}

/// The publishes of one batch that are for few connections each.
#[derive(Default)]
pub(crate) struct Gathering {
    items: Vec<Item>,
    pairs: Vec<Pair>,
    /// The messages in the wordings that were needed, one after the other.
    bytes: Vec<u8>,
    /// Where the next pair to deliver stands; `None`: it has not begun.
    at: Option<usize>,
    /// What had been counted of those who leave when the pairs were listed.
    departures: u64,
    /// Where recipients are listed.
    keys: Vec<Key>,
    /// Messages with the places of their ends in what is written next.
    ends: Vec<(usize, usize)>,
}

impl Gathering {
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether what was gathered is being delivered.
    pub(crate) fn is_begun(&self) -> bool {
        self.at.is_some()
    }

    /// Whether it should be delivered before more is added.
    pub(crate) fn is_full(&self) -> bool {
        self.pairs.len() >= GATHERED_PAIRS
    }

    /// Adds a publish to a small audience, behind the others.
    pub(crate) fn add<D: Driver>(&mut self, engine: &mut Engine<D>, delivery: Delivery) {
        let Delivery { publish, policy, recipients } = delivery;
        if self.items.is_empty() {
            self.departures = engine.departures();
        }
        let mut item = Item {
            message: Message::new(publish, policy, recipients.slots()),
            recipients,
            is_gone: false,
            first: None,
            others: Vec::new(),
            is_written: false,
            first_write: None,
            last_write: None,
        };
        item.note_if_gone(engine, 0);
        list(&item.recipients, engine, self.items.len(), &mut self.keys, &mut self.pairs);
        self.items.push(item);
    }

    /// Delivers to some of the connections.
    pub(crate) fn step<D: Driver>(&mut self, engine: &mut Engine<D>) {
        match self.at {
            None => self.pairs.sort_unstable(),
            Some(at) if self.departures != engine.departures() => self.list_again(engine, at),
            Some(_) => {}
        }
        let mut at = self.at.unwrap_or(0);
        for _ in 0..STEP {
            let Some(first) = self.pairs.get(at).copied() else { break };
            let slot = slot_of(first);
            let count = self.pairs[at..].iter().take_while(|pair| slot_of(**pair) == slot).count();
            let numbers = at..at + count;
            at += count;
            let visit = engine.table.key_at(slot).and_then(|key| engine.visit(key));
            if let Some(mut visit) = visit {
                self.write_to(&mut visit, numbers);
            }
            if self.bytes.len() > GATHERED_BYTES {
                self.forget_bytes();
            }
        }
        if engine.base.dirty.len() >= FANOUT_SLICE {
            engine.flush_dirty();
            engine.relieve_memory();
        }
        if at < self.pairs.len() {
            self.note_writes(engine);
            self.at = Some(at);
        } else {
            self.end(engine);
        }
    }

    /// Lists those again who have not been written to, since somebody has left.
    fn list_again<D: Driver>(&mut self, engine: &Engine<D>, at: usize) {
        let Some(next) = self.pairs.get(at).map(|pair| slot_of(*pair)) else { return };
        self.pairs.truncate(at);
        for (number, item) in self.items.iter_mut().enumerate() {
            item.note_if_gone(engine, next);
            list(&item.recipients, engine, number, &mut self.keys, &mut self.pairs);
        }
        // Whoever stands before the next one has been written to.
        let mut kept = at;
        for index in at..self.pairs.len() {
            if slot_of(self.pairs[index]) >= next {
                self.pairs[kept] = self.pairs[index];
                kept += 1;
            }
        }
        self.pairs.truncate(kept);
        self.pairs[at..].sort_unstable();
        self.departures = engine.departures();
    }

    /// Gives a connection its messages: those of some pairs.
    fn write_to<D: Driver>(&mut self, visit: &mut Visit<'_, D>, pairs: Range<usize>) {
        let mut buffer = visit.base.driver.gather_buffer();
        self.write_by_way_of(visit, pairs, &mut buffer);
        visit.base.driver.return_gather_buffer(buffer);
    }

    /// Does so by way of a buffer in which messages are put together.
    fn write_by_way_of<D: Driver>(&mut self, visit: &mut Visit<'_, D>, pairs: Range<usize>, buffer: &mut [u8]) {
        let Some(wording) = visit.row.wording() else { return };
        let mut filled = 0;
        self.ends.clear();
        for at in pairs {
            let number = number_of(self.pairs[at]);
            match self.items[number].said(visit.base, wording, &mut self.bytes) {
                Said::Nothing => {}
                Said::Unfit(reason) => {
                    self.send(visit, wording, &buffer[..filled]);
                    filled = 0;
                    self.items[number].message.push_unfit(visit, reason);
                }
                Said::Bytes(range) => {
                    if filled + range.len() > buffer.len() {
                        self.send(visit, wording, &buffer[..filled]);
                        filled = 0;
                    }
                    // Behind what waits in the outbox the others wait, too.
                    if visit.idle_wording().is_none() {
                        let message = &mut self.items[number].message;
                        let frame = message.keep(visit.base, wording, &self.bytes[range]);
                        message.count_direct(1, 0);
                        visit.push(&frame, message.policy);
                        continue;
                    }
                    if range.len() > buffer.len() {
                        self.ends.push((number, range.len()));
                        let bytes = std::mem::take(&mut self.bytes);
                        self.send(visit, wording, &bytes[range]);
                        self.bytes = bytes;
                        continue;
                    }
                    buffer[filled..filled + range.len()].copy_from_slice(&self.bytes[range.clone()]);
                    filled += range.len();
                    self.ends.push((number, filled));
                }
            }
        }
        self.send(visit, wording, &buffer[..filled]);
    }

    /// Sends the messages of `ends`, which these bytes are. What the socket does not take is queued, or dropped as the policy
    /// says.
    fn send<D: Driver>(&mut self, visit: &mut Visit<'_, D>, wording: Wording, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let taken = visit.send_now(bytes);
        let whole = self.ends.iter().take_while(|(_, end)| *end <= taken).count();
        visit.count_direct(whole, taken);
        let mut start = 0;
        for (index, (number, end)) in self.ends.drain(..).enumerate() {
            let item = &mut self.items[number];
            if index < whole {
                item.message.count_direct(1, 1);
                item.is_written = true;
            } else {
                item.message.count_direct(1, 0);
                let frame = item.message.keep(visit.base, wording, &bytes[start..end]);
                if start < taken {
                    visit.push_begun(&frame, taken - start);
                } else {
                    visit.push(&frame, item.message.policy);
                }
            }
            start = end;
        }
    }

    /// Notes when messages have been written.
    fn note_writes<D: Driver>(&mut self, engine: &Engine<D>) {
        let now = engine.base.driver.now();
        for item in &mut self.items {
            if std::mem::take(&mut item.is_written) {
                item.first_write.get_or_insert(now);
                item.last_write = Some(now);
            }
        }
    }

    /// All have been given what is theirs.
    fn end<D: Driver>(&mut self, engine: &mut Engine<D>) {
        let waiting = |item: &Item| item.message.written();
        let before: u64 = self.items.iter().map(waiting).sum();
        engine.flush_dirty();
        engine.relieve_memory();
        self.note_writes(engine);
        let now = (self.items.iter().map(waiting).sum::<u64>() > before).then(|| engine.base.driver.now());
        for item in self.items.drain(..) {
            // What was queued behind others has gone out with them.
            let flushed = now.filter(|_| item.message.has_waited());
            let (first, last) = (item.first_write.or(flushed), flushed.or(item.last_write));
            let written = item.message.written() > 0;
            item.message.settle(&mut engine.base, first.filter(|_| written), last.filter(|_| written));
        }
        self.pairs.clear();
        self.forget_bytes();
        self.at = None;
    }

    /// Forgets the messages' bytes; who needs them yet has them made again.
    fn forget_bytes(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(GATHERED_BYTES);
        for item in &mut self.items {
            item.first = None;
            item.others.clear();
        }
    }
}

impl Item {
    /// Counts it as missed if it was for one connection, from this slot on, that is gone.
    fn note_if_gone<D: Driver>(&mut self, engine: &Engine<D>, from: u32) {
        if let Recipients::One(key) = &self.recipients
            && key.slot >= from
            && !self.is_gone
            && engine.table.get(*key).is_none()
        {
            self.is_gone = true;
            self.message.note_gone(&engine.base);
        }
    }

    /// What there is to say of it in a wording.
    fn said<D: Driver>(&mut self, base: &mut Base<D>, wording: Wording, bytes: &mut Vec<u8>) -> Said {
        let known = self.first.iter().chain(&self.others).find(|(other, _)| *other == wording);
        if let Some((_, said)) = known {
            return said.clone();
        }
        let before = bytes.len();
        let said = match self.message.write(base, wording, bytes) {
            Ok(true) => Said::Bytes(before..bytes.len()),
            Ok(false) => Said::Nothing,
            Err(reason) => {
                bytes.truncate(before);
                Said::Unfit(reason)
            }
        };
        match &self.first {
            None => self.first = Some((wording, said.clone())),
            Some(_) => self.others.push((wording, said.clone())),
        }
        said
    }
}

/// Appends a pair for each recipient of a publish that is there.
fn list<D: Driver>(
    recipients: &Recipients,
    engine: &Engine<D>,
    number: usize,
    keys: &mut Vec<Key>,
    pairs: &mut Vec<Pair>,
) {
    match recipients {
        Recipients::One(key) => pairs.extend(engine.table.get(*key).map(|_| pair(key.slot, number))),
        Recipients::Audience(audience) => {
            engine.base.topics.present(audience, 0..audience.len(), |slot| pairs.push(pair(slot, number)));
        }
        Recipients::All { .. } => {
            recipients.list(&engine.table, &engine.base.topics, 0..recipients.slots(), keys);
            pairs.extend(keys.drain(..).map(|key| pair(key.slot, number)));
        }
    }
}

impl<D: Driver> Engine<D> {
    /// Counts connections that have gone and subscriptions that have ended: while that stays the same, a slot is whose it was.
    fn departures(&self) -> u64 {
        self.base.departed + self.base.topics.ended()
    }
}
