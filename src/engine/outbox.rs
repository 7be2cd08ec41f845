//! What waits to be written to one connection, and what happens when it is too much.
//!
//! An outbox holds references to frames that many connections share, and frames of its own (replies). It is
//! bounded in messages and in bytes. It does no I/O: [`Outbox::gather`] says what to write next,
//! [`Outbox::advance`] is told how much of it was.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::latest::Latest;
use crate::config::{
    Config, FRAME_OVERHEAD_BYTES_MAX, GAP_TOPICS_MAX, GATHER_FRAME_BYTES_MAX, LANGUAGE_OVERHEAD_BYTES_MAX,
    REPLY_RESERVE_MESSAGES, SPARE_OUTBOX_MESSAGES, SPARE_OUTBOX_REPLY_BYTES, SlowConsumer,
};
use crate::message::{DropReason, Topic};

/// What has become of one publish on one shard so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Connections it has been written to whole.
    written: Cell<u64>,
    /// Connections that miss it, by the number of the reason.
    dropped: [Cell<u64>; DropReason::ALL.len()],
}

impl Tally {
    pub(crate) fn written(&self) -> u64 {
        self.written.get()
    }

    pub(crate) fn dropped(&self) -> [u64; DropReason::ALL.len()] {
        std::array::from_fn(|reason| self.dropped[reason].get())
    }

    pub(crate) fn count_written(&self, count: u64) {
        self.written.set(self.written.get() + count);
    }

    pub(crate) fn count_dropped(&self, reason: DropReason) {
        let dropped = &self.dropped[reason as usize];
        dropped.set(dropped.get() + 1);
    }
}

/// Bytes of things that many share, such as frames that wait, each counted once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(Rc<Cell<usize>>);

impl Meter {
    pub(crate) fn bytes(&self) -> usize {
        self.0.get()
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.0.set(self.0.get() + bytes);
    }

    pub(crate) fn sub(&self, bytes: usize) {
        self.0.set(self.0.get() - bytes);
    }
}

/// A message in the form that goes over the wire, shared by all connections of a shard and encoding.
#[derive(Debug)]
pub(crate) struct Frame {
    bytes: Box<[u8]>,
    /// Counts it while it waits for somebody, and for how many it waits.
    meter: Meter,
    waits: Cell<u32>,
    /// The topic it was published to; `None`: it was for everyone or for this connection.
    topic: Option<Topic>,
    /// Shared by the frames of one publish in all framings.
    tally: Rc<Tally>,
}

impl Frame {
    /// A frame that `meter` counts while it waits in an outbox.
    pub(crate) fn new(bytes: Vec<u8>, topic: Option<Topic>, tally: Rc<Tally>, meter: &Meter) -> Rc<Self> {
        Rc::new(Frame { bytes: bytes.into_boxed_slice(), meter: meter.clone(), waits: Cell::new(0), topic, tally })
    }

    fn memory(&self) -> usize {
        size_of::<Frame>() + self.bytes.len()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn topic(&self) -> Option<&Topic> {
        self.topic.as_ref()
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }
}

/// A frame that waits in an outbox.
#[derive(Debug)]
struct Waiting(Rc<Frame>);

impl Waiting {
    fn new(frame: &Rc<Frame>) -> Self {
        let others = frame.waits.replace(frame.waits.get() + 1);
        if others == 0 {
            frame.meter.add(frame.memory());
        }
        Waiting(Rc::clone(frame))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let frame = &self.0;
        frame.waits.set(frame.waits.get() - 1);
        if frame.waits.get() == 0 {
            frame.meter.sub(frame.memory());
        }
    }
}

/// One thing that waits.
#[derive(Debug)]
enum Entry {
    /// A pushed message: shared, and subject to the slow-consumer policy. `None`: it was dropped, and the others have stayed in
    /// their places.
    Push(Option<Waiting>),
    /// Replies to the client itself, or notices from the server: never dropped for another message's sake.
    Replies(Box<Replies>),
}

/// Replies and notices that follow each other, in one piece.
#[derive(Debug, Default)]
struct Replies {
    bytes: Vec<u8>,
    count: u32,
}

/// Replies that follow each other are put into one piece until it has so many bytes.
const JOINED_REPLIES_BYTES: usize = GATHER_FRAME_BYTES_MAX;

impl Entry {
    fn bytes(&self) -> &[u8] {
        match self {
            Entry::Push(waiting) => waiting.as_ref().map_or(&[], |waiting| &waiting.0.bytes),
            Entry::Replies(replies) => &replies.bytes,
        }
    }

    fn is_hole(&self) -> bool {
        matches!(self, Entry::Push(None))
    }

    /// The frame of a pushed message.
    fn frame(&self) -> Option<&Rc<Frame>> {
        if let Entry::Push(Some(Waiting(frame))) = self { Some(frame) } else { None }
    }
}

/// A long queue is indexed when the newest message of a topic takes the place of others for the first time, until it is short
/// again. Tests get there with few messages.
const INDEXED_FROM: usize = if cfg!(test) { 6 } else { 32 };
const INDEXED_UNTIL: usize = INDEXED_FROM / 2;

/// What an indexed queue has besides.
#[derive(Debug, Default)]
struct Index {
    latest: Latest,
    /// The number of the queue's first entry.
    first: u32,
    /// Dropped messages in the queue, whose places are empty. The first entry is none of them.
    holes: usize,
    /// No pushed message waits before this one, but for one that is written in part.
    oldest: u32,
}

#[cfg(test)]
thread_local! {
    /// Entries that were looked at, to reckon what it costs to find one.
    static STEPS: Cell<usize> = const { Cell::new(0) };
}

/// Counts a look at an entry, in tests.
fn step() {
    #[cfg(test)]
    STEPS.set(STEPS.get() + 1);
}

/// How much an outbox takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    messages: usize,
    bytes: usize,
    reply_messages: usize,
    reply_bytes: usize,
}

impl Limits {
    pub(crate) fn new(config: &Config) -> Self {
        // Each reply may be as large as a message, but one at a time is enough to go on with.
        let reply_reserve = config.max_message + LANGUAGE_OVERHEAD_BYTES_MAX + FRAME_OVERHEAD_BYTES_MAX;
        Limits {
            messages: config.queue_messages_max,
            bytes: config.queue_bytes_max,
            reply_messages: config.queue_messages_max + REPLY_RESERVE_MESSAGES,
            reply_bytes: config.queue_bytes_max + 2 * reply_reserve,
        }
    }

    /// Bytes that one message may have.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What became of a message that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// It waits. `removed` older messages made room for it.
    Queued { removed: usize, reason: DropReason },
    /// There is no room, but the socket may take something: flush and offer again.
    Full,
    /// It was dropped for this client. `removed` older messages were too, for another reason.
    Dropped { removed: usize, reason: DropReason },
    /// There is no room, and the policy is to disconnect.
    Disconnect,
}

/// Messages that this client has missed and has not been told of yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) topic: Option<Topic>,
    pub(crate) reason: DropReason,
    pub(crate) count: u64,
}

/// What was written by one `send`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Messages that are now written whole.
    pub(crate) messages: usize,
    /// Those of them that were pushed.
    pub(crate) pushes: usize,
    pub(crate) bytes: usize,
}

/// The queue of one connection. It exists only while there is something in it.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Entry>,
    /// Replies behind the queue. Most outboxes hold nothing but one, and need no other memory for it.
    tail: Replies,
    /// Bytes of the first entry, or of the tail if there is none, that are written already.
    head_written: usize,
    /// Bytes of all that waits, the written ones of the first entry included.
    bytes: usize,
    /// Bytes of the replies in the queue, which are this outbox's alone.
    reply_bytes: usize,
    /// Replies in the queue beyond one an entry.
    joined: usize,
    gaps: Vec<Gap>,
    /// There while the queue is long and the newest messages of topics take the place of older ones.
    index: Option<Box<Index>>,
}

/// How much there is in an outbox.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// Messages that wait.
    pub(crate) messages: usize,
    /// Bytes that wait.
    pub(crate) bytes: usize,
    /// Bytes of memory that are the outbox's own: all but the frames, which it shares with others.
    pub(crate) memory: usize,
}

/// What there was in an outbox, as values of its own that nobody shares.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    messages: Vec<Message>,
    /// Bytes of the first message that are written already.
    begun: usize,
    gaps: Vec<Gap>,
}

/// A message that waits, in the form that goes over the wire.
#[derive(Debug)]
enum Message {
    Push { bytes: Box<[u8]>, topic: Option<Topic> },
    Replies(Box<Replies>),
}

impl Unsent {
    /// Whether nothing waits and nothing is to be told.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.gaps.is_empty()
    }

    /// Pushed messages among those that wait.
    #[cfg(test)]
    pub(crate) fn pushes(&self) -> usize {
        self.messages.iter().filter(|message| matches!(message, Message::Push { .. })).count()
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        let bytes = |message: &Message| match message {
            Message::Push { bytes, .. } => size_of::<Message>() + bytes.len(),
            Message::Replies(replies) => size_of::<Message>() + size_of::<Replies>() + replies.bytes.len(),
        };
        self.messages.iter().map(bytes).sum::<usize>() + self.gaps.len() * size_of::<Gap>()
    }
}

impl Outbox {
    /// Takes all out. The publishers of what waits are told no more of it.
    pub(crate) fn detach(&mut self) -> Unsent {
        let message = |entry: Entry| match entry {
            Entry::Push(waiting) => {
                waiting.map(|waiting| Message::Push { bytes: waiting.0.bytes.clone(), topic: waiting.0.topic.clone() })
            }
            Entry::Replies(replies) => Some(Message::Replies(replies)),
        };
        self.seal_tail();
        let messages = self.queue.drain(..).filter_map(message).collect();
        let unsent = Unsent { messages, begun: self.head_written, gaps: std::mem::take(&mut self.gaps) };
        self.clear();
        unsent
    }

    /// Puts into an empty outbox what was in another. `meter` counts its frames, which nobody shares.
    pub(crate) fn attach(&mut self, unsent: Unsent, meter: &Meter) {
        debug_assert!(self.is_idle(), "it is empty");
        for message in unsent.messages {
            match message {
                Message::Push { bytes, topic } => {
                    let frame = Frame::new(bytes.into(), topic, Rc::default(), meter);
                    self.push(Entry::Push(Some(Waiting::new(&frame))));
                }
                Message::Replies(replies) => self.push(Entry::Replies(replies)),
            }
        }
        self.head_written = unsent.begun;
        self.gaps = unsent.gaps;
    }

    /// Whether nothing waits and nothing is to be told.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_empty() && self.gaps.is_empty()
    }

    /// Whether nothing waits to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.tail.count == 0
    }

    /// Pieces that wait: pushed messages, and replies as far as they are not in one piece.
    fn len(&self) -> usize {
        self.entries() + usize::from(self.tail.count > 0)
    }

    /// Messages that wait.
    pub(crate) fn messages(&self) -> usize {
        self.entries() + self.joined + self.tail.count as usize
    }

    fn entries(&self) -> usize {
        self.queue.len() - self.index.as_ref().map_or(0, |index| index.holes)
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes - self.head_written
    }

    /// What there is in it.
    pub(crate) fn load(&self) -> Load {
        let entries = self.queue.capacity() * size_of::<Entry>() + self.gaps.capacity() * size_of::<Gap>();
        let index = self.index.as_ref().map_or(0, |index| size_of::<Index>() + index.latest.memory());
        let memory = size_of::<Outbox>() + entries + self.reply_bytes + self.tail.bytes.capacity() + index;
        Load { messages: self.messages(), bytes: self.bytes(), memory }
    }

    /// Offers a pushed message. `blocked`: the socket took less than it was given and has not become writable
    /// since; only then does the policy apply.
    pub(crate) fn offer(&mut self, frame: &Rc<Frame>, policy: SlowConsumer, limits: &Limits, blocked: bool) -> Offer {
        let mut removed = 0;
        let mut reason = DropReason::QueueFull;
        if blocked && policy == SlowConsumer::KeepLatest {
            reason = DropReason::Superseded;
            removed = self.supersede(frame);
        }
        while !self.has_room(frame.bytes.len(), limits) {
            if !blocked {
                return Offer::Full;
            }
            match policy {
                SlowConsumer::DropOldest => {
                    reason = DropReason::DropOldest;
                    if self.drop_oldest() {
                        removed += 1;
                        continue;
                    }
                }
                SlowConsumer::Disconnect => {
                    frame.tally.count_dropped(DropReason::QueueFull);
                    return Offer::Disconnect;
                }
                SlowConsumer::Skip | SlowConsumer::KeepLatest => {}
            }
            self.note_gap(frame.topic(), DropReason::QueueFull);
            frame.tally.count_dropped(DropReason::QueueFull);
            return Offer::Dropped { removed, reason };
        }
        self.push(Entry::Push(Some(Waiting::new(frame))));
        Offer::Queued { removed, reason }
    }

    /// Puts a reply, or a notice of the server, in; the caller has looked for room.
    pub(crate) fn push_reply(&mut self, bytes: &[u8]) {
        if self.tail.count > 0 && self.tail.bytes.len() + bytes.len() > JOINED_REPLIES_BYTES {
            self.seal_tail();
        }
        self.tail.bytes.extend_from_slice(bytes);
        self.tail.count += 1;
        self.bytes += bytes.len();
    }

    /// Makes an entry of the tail, behind which another may follow.
    fn seal_tail(&mut self) {
        if self.tail.count == 0 {
            return;
        }
        let mut replies = std::mem::take(&mut self.tail);
        replies.bytes.shrink_to_fit();
        self.bytes -= replies.bytes.len();
        self.push_entry(Entry::Replies(Box::new(replies)));
    }

    /// Puts a pushed message in of which the socket took its first bytes already; nothing else waits.
    pub(crate) fn push_begun(&mut self, frame: &Rc<Frame>, written: usize) {
        debug_assert!(self.is_empty() && written < frame.bytes.len());
        self.push(Entry::Push(Some(Waiting::new(frame))));
        self.head_written = written;
    }

    fn push(&mut self, entry: Entry) {
        self.seal_tail();
        self.push_entry(entry);
    }

    fn push_entry(&mut self, entry: Entry) {
        self.bytes += entry.bytes().len();
        if let Entry::Replies(replies) = &entry {
            self.reply_bytes += replies.bytes.len();
            self.joined += replies.count as usize - 1;
        }
        if let Some(index) = &mut self.index
            && let Some(topic) = entry.frame().and_then(|frame| frame.topic())
        {
            index.latest.add(topic, index.first + self.queue.len() as u32);
        }
        self.queue.push_back(entry);
    }

    fn has_room(&self, len: usize, limits: &Limits) -> bool {
        self.len() < limits.messages && self.bytes() + len <= limits.bytes
    }

    /// Whether a reply of `len` bytes has room. Replies have a reserve above the room for pushed messages.
    pub(crate) fn has_reply_room(&self, len: usize, limits: &Limits) -> bool {
        self.len() < limits.reply_messages && self.bytes() + len <= limits.reply_bytes
    }

    /// Whether it takes at least half of what it may hold for replies.
    pub(crate) fn is_half_empty(&self, limits: &Limits) -> bool {
        self.len() <= limits.reply_messages / 2 && self.bytes() <= limits.reply_bytes / 2
    }

    /// Remembers that a message did not reach this client.
    pub(crate) fn note_gap(&mut self, topic: Option<&Topic>, reason: DropReason) {
        if let Some(gap) = self.gaps.iter_mut().find(|gap| gap.reason == reason && gap.topic.as_ref() == topic) {
            gap.count += 1;
            return;
        }
        // The last places are for the gaps without a topic, one for each reason, so that the list is bounded.
        let topic = topic.filter(|_| self.gaps.len() < GAP_TOPICS_MAX).cloned();
        match self.gaps.iter_mut().find(|gap| gap.reason == reason && gap.topic == topic) {
            Some(gap) => gap.count += 1,
            None => self.gaps.push(Gap { topic, reason, count: 1 }),
        }
    }

    /// The next gap to tell of, if a notice has room beside the waiting messages.
    pub(crate) fn take_gap(&mut self, limits: &Limits) -> Option<Gap> {
        if !self.has_room(LANGUAGE_OVERHEAD_BYTES_MAX, limits) {
            return None;
        }
        self.take_last_gap()
    }

    /// The next gap to tell of, whether a notice has room or not: nothing else will be told after it.
    pub(crate) fn take_last_gap(&mut self) -> Option<Gap> {
        if self.gaps.is_empty() { None } else { Some(self.gaps.remove(0)) }
    }

    /// Pushed messages that wait.
    #[cfg(test)]
    pub(crate) fn pushes(&self) -> usize {
        self.queue.iter().filter_map(Entry::frame).count()
    }

    #[cfg(test)]
    fn has_gap(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// Removes the waiting messages of the frame's topic, but not one that is written in part.
    fn supersede(&mut self, newer: &Frame) -> usize {
        let Some(topic) = newer.topic() else { return 0 };
        if self.index.is_none() && self.queue.len() >= INDEXED_FROM {
            self.make_index();
        }
        let in_flight = usize::from(self.head_written > 0);
        let is_superseded = |entry: &Entry| {
            step();
            entry.frame().is_some_and(|frame| frame.topic() == Some(topic))
        };
        let mut removed = 0;
        if let Some(mut index) = self.index.take() {
            let Index { latest, first, holes, .. } = &mut *index;
            latest.take(topic, *first, |number| {
                let at = (number - *first) as usize;
                let is_superseded = at >= in_flight && is_superseded(&self.queue[at]);
                if is_superseded {
                    let dropped = std::mem::replace(&mut self.queue[at], Entry::Push(None));
                    self.note_removed(&dropped, DropReason::Superseded);
                    *holes += 1;
                    removed += 1;
                }
                is_superseded
            });
            self.index = Some(index);
            self.close_holes();
            return removed;
        }
        let mut at = in_flight;
        while at < self.queue.len() {
            if is_superseded(&self.queue[at]) {
                self.remove(at, DropReason::Superseded);
                removed += 1;
            } else {
                at += 1;
            }
        }
        removed
    }

    /// Removes the oldest pushed message that is not written in part.
    fn drop_oldest(&mut self) -> bool {
        let in_flight = usize::from(self.head_written > 0);
        let known = self.index.as_ref().map_or(0, |index| index.oldest.saturating_sub(index.first) as usize);
        let is_push = |entry: &Entry| {
            step();
            entry.frame().is_some()
        };
        let found = (in_flight.max(known)..self.queue.len()).find(|at| is_push(&self.queue[*at]));
        if let Some(index) = &mut self.index {
            index.oldest = index.first + found.unwrap_or(self.queue.len()) as u32;
        }
        found.inspect(|at| self.remove(*at, DropReason::DropOldest)).is_some()
    }

    fn remove(&mut self, at: usize, reason: DropReason) {
        let removed = match &mut self.index {
            // The others stay where the index has them.
            Some(index) => {
                index.holes += 1;
                std::mem::replace(&mut self.queue[at], Entry::Push(None))
            }
            None => self.queue.remove(at).expect("the caller found it there"),
        };
        self.note_removed(&removed, reason);
        self.close_holes();
    }

    fn note_removed(&mut self, entry: &Entry, reason: DropReason) {
        self.bytes -= entry.bytes().len();
        if let Some(frame) = entry.frame() {
            self.note_gap(frame.topic(), reason);
            frame.tally.count_dropped(reason);
        }
    }

    /// Numbers what waits, from zero.
    fn make_index(&mut self) {
        let mut index = Box::<Index>::default();
        for (number, entry) in self.queue.iter().enumerate() {
            step();
            if let Some(topic) = entry.frame().and_then(|frame| frame.topic()) {
                index.latest.add(topic, number as u32);
            }
        }
        self.index = Some(index);
    }

    /// Closes the holes at the front, and all of them when they are more than what waits: often enough that they are few, and
    /// rarely enough that it costs each removal next to nothing. A queue that has become short needs no index.
    fn close_holes(&mut self) {
        let Some(index) = &mut self.index else { return };
        while self.queue.front().is_some_and(Entry::is_hole) {
            self.queue.pop_front();
            index.first += 1;
            index.holes -= 1;
        }
        let waiting = self.queue.len() - index.holes;
        let is_short = waiting < INDEXED_UNTIL;
        // Numbers don't begin again.
        if is_short || index.holes > waiting || index.first > u32::MAX / 2 {
            self.queue.retain(|entry| {
                step();
                !entry.is_hole()
            });
            self.index = None;
            if !is_short {
                self.make_index();
            }
        }
    }

    /// What to write next: the small frames at the front gathered into `buffer`, or one large frame as it is.
    pub(crate) fn gather<'a>(&'a self, buffer: &'a mut [u8]) -> &'a [u8] {
        let mut skip = self.head_written;
        let mut filled = 0;
        let tail = (self.tail.count > 0).then_some(&self.tail.bytes[..]);
        for piece in self.queue.iter().map(Entry::bytes).chain(tail) {
            let bytes = &piece[skip..];
            if bytes.len() > GATHER_FRAME_BYTES_MAX.min(buffer.len()) || self.len() == 1 {
                if filled == 0 {
                    return bytes;
                }
                break;
            }
            if filled + bytes.len() > buffer.len() {
                break;
            }
            buffer[filled..filled + bytes.len()].copy_from_slice(bytes);
            filled += bytes.len();
            skip = 0;
        }
        &buffer[..filled]
    }

    /// Takes `n` bytes from the front: they have been written.
    pub(crate) fn advance(&mut self, n: usize) -> Written {
        let mut written = Written { bytes: n, ..Written::default() };
        let mut left = n;
        while let Some(head) = self.queue.front() {
            let rest = head.bytes().len() - self.head_written;
            if left < rest {
                self.head_written += left;
                return written;
            }
            left -= rest;
            self.head_written = 0;
            self.bytes -= head.bytes().len();
            match head {
                Entry::Push(waiting) => {
                    let Waiting(frame) = waiting.as_ref().expect("the first is no hole");
                    frame.tally.count_written(1);
                    written.pushes += 1;
                    if let (Some(index), Some(topic)) = (&mut self.index, frame.topic()) {
                        index.latest.remove_first(topic, index.first);
                    }
                }
                Entry::Replies(replies) => {
                    self.reply_bytes -= replies.bytes.len();
                    self.joined -= replies.count as usize - 1;
                    written.messages += replies.count as usize - 1;
                }
            }
            self.queue.pop_front();
            written.messages += 1;
            if let Some(index) = &mut self.index {
                index.first += 1;
                self.close_holes();
            }
        }
        self.advance_tail(left, &mut written);
        written
    }

    /// Takes `n` bytes from the tail, with nothing before it.
    fn advance_tail(&mut self, n: usize, written: &mut Written) {
        let rest = self.tail.bytes.len() - self.head_written;
        debug_assert!(n <= rest, "no more is written than waits");
        if n < rest {
            self.head_written += n;
            return;
        }
        self.head_written = 0;
        self.bytes -= self.tail.bytes.len();
        written.messages += std::mem::take(&mut self.tail.count) as usize;
        self.tail.bytes.clear();
    }

    /// Drops all that waits, since the connection is gone, and says how many pushed messages that were.
    pub(crate) fn abandon(&mut self) -> usize {
        let mut dropped = 0;
        for frame in self.queue.iter().filter_map(Entry::frame) {
            frame.tally.count_dropped(DropReason::Closed);
            dropped += 1;
        }
        self.clear();
        dropped
    }

    /// Empties the outbox for the next connection; the queue keeps some of its memory.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.queue.shrink_to(SPARE_OUTBOX_MESSAGES);
        self.tail.bytes.clear();
        self.tail.bytes.shrink_to(SPARE_OUTBOX_REPLY_BYTES);
        self.tail.count = 0;
        self.index = None;
        self.gaps.clear();
        self.head_written = 0;
        self.bytes = 0;
        self.reply_bytes = 0;
        self.joined = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { messages: 3, bytes: 100, reply_messages: 5, reply_bytes: 200 };

    fn frame(topic: &str, text: &str) -> Rc<Frame> {
        Frame::new(text.as_bytes().to_vec(), Some(topic.parse().unwrap()), Rc::default(), &Meter::default())
    }

    fn queued() -> Offer {
        Offer::Queued { removed: 0, reason: DropReason::QueueFull }
    }

    /// An outbox with the messages a1 a2 a3 (its limit), behind a socket that takes nothing.
    fn full() -> Outbox {
        let mut outbox = Outbox::default();
        for text in ["a1 ", "a2 ", "a3 "] {
            assert_eq!(outbox.offer(&frame("a", text), SlowConsumer::Skip, &LIMITS, true), queued());
        }
        outbox
    }

    fn text(outbox: &Outbox) -> String {
        String::from_utf8(outbox.gather(&mut [0; 1000]).to_vec()).unwrap()
    }

    fn gap(topic: &str, reason: DropReason, count: u64) -> Gap {
        Gap { topic: Some(topic.parse().unwrap()), reason, count }
    }

    #[test]
    fn a_frame_counts_once_while_it_waits_for_anybody() {
        let meter = Meter::default();
        let frame = Frame::new(vec![0; 50], None, Rc::default(), &meter);
        assert_eq!(meter.bytes(), 0, "it waits for nobody");
        let mut outboxes = [Outbox::default(), Outbox::default(), Outbox::default()];
        for outbox in &mut outboxes {
            assert_eq!(outbox.offer(&frame, SlowConsumer::Skip, &LIMITS, true), queued());
            assert_eq!(meter.bytes(), size_of::<Frame>() + 50);
        }
        let [first, second, third] = &mut outboxes;
        first.advance(50);
        second.abandon();
        assert_eq!(meter.bytes(), size_of::<Frame>() + 50);
        third.clear();
        assert_eq!(meter.bytes(), 0);
    }

    #[test]
    fn no_policy_applies_while_the_socket_may_take_something() {
        for policy in SlowConsumer::ALL {
            let mut outbox = full();
            assert_eq!(outbox.offer(&frame("a", "a4 "), policy, &LIMITS, false), Offer::Full);
            assert_eq!(text(&outbox), "a1 a2 a3 ");
            assert!(!outbox.has_gap());
        }
    }

    #[test]
    fn skip_drops_the_new_message_and_tells_once_there_is_room() {
        let mut outbox = full();
        for _ in 0..2 {
            let offer = outbox.offer(&frame("a", "a4 "), SlowConsumer::Skip, &LIMITS, true);
            assert_eq!(offer, Offer::Dropped { removed: 0, reason: DropReason::QueueFull });
        }
        assert_eq!(text(&outbox), "a1 a2 a3 ");
        assert_eq!(outbox.take_gap(&LIMITS), None);
        assert_eq!(outbox.advance(3), Written { messages: 1, pushes: 1, bytes: 3 });
        // The queue has room for one message, but the notice's bytes are reckoned at their most.
        let roomy = Limits { bytes: 1000, ..LIMITS };
        assert_eq!(outbox.take_gap(&roomy), Some(gap("a", DropReason::QueueFull, 2)));
        assert!(!outbox.has_gap());
    }

    #[test]
    fn drop_oldest_makes_room_but_keeps_what_is_written_in_part() {
        let mut outbox = full();
        outbox.advance(1);
        let offer = outbox.offer(&frame("b", "b4 "), SlowConsumer::DropOldest, &LIMITS, true);
        assert_eq!(offer, Offer::Queued { removed: 1, reason: DropReason::DropOldest });
        assert_eq!(text(&outbox), "1 a3 b4 ");
        assert_eq!(outbox.gaps, [gap("a", DropReason::DropOldest, 1)]);
    }

    #[test]
    fn keep_latest_keeps_one_message_per_topic_and_the_order() {
        let mut outbox = full();
        let offer = outbox.offer(&frame("b", "b1 "), SlowConsumer::KeepLatest, &LIMITS, true);
        assert_eq!(offer, Offer::Dropped { removed: 0, reason: DropReason::Superseded });
        let offer = outbox.offer(&frame("a", "a4 "), SlowConsumer::KeepLatest, &LIMITS, true);
        assert_eq!(offer, Offer::Queued { removed: 3, reason: DropReason::Superseded });
        outbox.offer(&frame("b", "b2 "), SlowConsumer::KeepLatest, &LIMITS, true);
        outbox.offer(&frame("a", "a5 "), SlowConsumer::KeepLatest, &LIMITS, true);
        assert_eq!(text(&outbox), "b2 a5 ");
        assert_eq!(outbox.gaps, [gap("b", DropReason::QueueFull, 1), gap("a", DropReason::Superseded, 4)]);
    }

    /// As a crowd of prices for a client that does not read.
    #[test]
    fn keep_latest_costs_as_much_in_a_long_queue_as_in_a_short_one() {
        let cost = |topics: usize, policy: SlowConsumer| {
            let limits =
                Limits { messages: topics + 1, bytes: 1 << 30, reply_messages: topics + 9, reply_bytes: 1 << 30 };
            let frames: Vec<_> = (0..topics).map(|number| frame(&format!("t{number}"), "price")).collect();
            let mut outbox = Outbox::default();
            outbox.push_reply(b"ok ");
            outbox.advance(1);
            STEPS.set(0);
            for round in 0..20 {
                for number in 0..topics {
                    // In an order that is another one each time.
                    let frame = &frames[(number * (2 * round + 1)) % topics];
                    outbox.offer(frame, policy, &limits, true);
                    assert!(outbox.len() <= topics + 1);
                    assert!(outbox.queue.len() <= 2 * (topics + 1), "holes are closed");
                }
            }
            STEPS.get() / (20 * topics)
        };
        // Several policies may meet in one outbox.
        for policy in [SlowConsumer::KeepLatest, SlowConsumer::DropOldest] {
            let (short, long) = (cost(64, policy), cost(8_192, policy));
            assert!(long <= short + 1 && long < 8, "{short} and {long} looks for a message");
        }
    }

    #[test]
    fn messages_of_one_topic_are_all_superseded_in_a_long_queue_too() {
        let roomy = Limits { messages: 100, bytes: 10_000, ..LIMITS };
        let mut outbox = Outbox::default();
        for number in 0..30 {
            let topic = if number % 3 == 0 { "a".into() } else { format!("t{number}") };
            outbox.offer(&frame(&topic, &format!("{number} ")), SlowConsumer::Skip, &roomy, true);
        }
        outbox.advance(1);
        let offer = outbox.offer(&frame("a", "last "), SlowConsumer::KeepLatest, &roomy, true);
        assert_eq!(offer, Offer::Queued { removed: 9, reason: DropReason::Superseded });
        // Without holes it reads as before: the one that is written in part, and all of other topics.
        let others = (0..30).filter(|number| number % 3 != 0).map(|number| format!("{number} ")).collect::<String>();
        assert_eq!(text(&outbox), format!(" {others}last "));
        let again = outbox.offer(&frame("a", "newest "), SlowConsumer::KeepLatest, &roomy, true);
        assert_eq!(again, Offer::Queued { removed: 1, reason: DropReason::Superseded });
        while !outbox.is_empty() {
            outbox.advance(1);
        }
        assert!(outbox.index.is_none() && outbox.bytes == 0);
    }

    #[test]
    fn an_entry_takes_no_more_than_it_did() {
        assert_eq!(size_of::<Entry>(), 16);
    }

    #[test]
    fn disconnect_says_so() {
        let offer = full().offer(&frame("a", "a4 "), SlowConsumer::Disconnect, &LIMITS, true);
        assert_eq!(offer, Offer::Disconnect);
    }

    #[test]
    fn replies_have_a_reserve_and_are_never_dropped_for_a_push() {
        let mut outbox = Outbox::default();
        for _ in 0..20 {
            assert!(outbox.has_reply_room(10, &LIMITS));
            outbox.push_reply(b"ok 1234567");
        }
        assert!(!outbox.has_reply_room(10, &LIMITS));
        let offer = outbox.offer(&frame("a", "a1 "), SlowConsumer::DropOldest, &LIMITS, true);
        assert_eq!(offer, Offer::Dropped { removed: 0, reason: DropReason::DropOldest });
        assert_eq!((outbox.messages(), outbox.bytes()), (20, 200));
    }

    #[test]
    fn replies_that_follow_each_other_are_one_piece_and_each_counts() {
        let limits = Limits { messages: 100, bytes: 1 << 20, reply_messages: 4, reply_bytes: 1 << 20 };
        let mut outbox = Outbox::default();
        for _ in 0..100 {
            assert!(outbox.has_reply_room(3, &limits), "it is no piece of its own");
            outbox.push_reply(b"ok ");
        }
        assert_eq!((outbox.len(), outbox.messages(), outbox.gather(&mut []).len()), (1, 100, 300));
        outbox.advance(4);
        outbox.offer(&frame("a", "a1 "), SlowConsumer::Skip, &limits, true);
        outbox.push_reply(b"ok ");
        assert_eq!((outbox.len(), outbox.messages(), outbox.bytes()), (3, 102, 302));
        let written = outbox.advance(297);
        assert_eq!((written.messages, written.pushes), (100, 0), "they are written when the last of them is");
        assert_eq!(outbox.advance(5), Written { messages: 2, pushes: 1, bytes: 5 });
        assert!(outbox.is_idle() && outbox.load().bytes == 0);
        // A piece has its bound.
        for _ in 0..3 {
            outbox.push_reply(&[b'x'; JOINED_REPLIES_BYTES / 2 + 1]);
        }
        assert_eq!((outbox.len(), outbox.messages()), (3, 3));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut outbox = Outbox::default();
        let big = frame("a", &"x".repeat(60));
        assert_eq!(outbox.offer(&big, SlowConsumer::Skip, &LIMITS, true), queued());
        let offer = outbox.offer(&big, SlowConsumer::Skip, &LIMITS, true);
        assert_eq!(offer, Offer::Dropped { removed: 0, reason: DropReason::QueueFull });
        outbox.advance(20);
        assert_eq!(outbox.bytes(), 40);
        assert_eq!(outbox.offer(&big, SlowConsumer::Skip, &LIMITS, true), queued());
    }

    #[test]
    fn gaps_in_many_topics_are_told_together() {
        let mut outbox = full();
        for number in 0..GAP_TOPICS_MAX + 10 {
            outbox.offer(&frame(&format!("t{number}"), "x"), SlowConsumer::Skip, &LIMITS, true);
        }
        assert_eq!(outbox.gaps.len(), GAP_TOPICS_MAX + 1);
        let last = outbox.gaps.last().unwrap();
        assert_eq!((last.topic.as_ref(), last.count), (None, 10));
        assert_eq!(outbox.gaps.iter().map(|gap| gap.count).sum::<u64>(), (GAP_TOPICS_MAX + 10) as u64);
    }

    #[test]
    fn a_large_frame_is_not_copied() {
        let mut outbox = Outbox::default();
        let limits = Limits { bytes: 1 << 20, ..LIMITS };
        let large = frame("a", &"x".repeat(GATHER_FRAME_BYTES_MAX + 1));
        outbox.offer(&frame("a", "small"), SlowConsumer::Skip, &limits, true);
        outbox.offer(&large, SlowConsumer::Skip, &limits, true);
        assert_eq!(text(&outbox), "small");
        outbox.advance(5);
        outbox.offer(&frame("a", "small"), SlowConsumer::Skip, &limits, true);
        assert_eq!(outbox.gather(&mut [0; 10]).as_ptr(), large.bytes.as_ptr());
    }

    proptest! {
        /// Whatever is offered, begun, dropped and written in whatever pieces: what comes out is a run of whole
        /// messages in order, nothing twice, and each message is written, waiting or told as a gap.
        #[test]
        fn every_message_is_accounted_for(
            policies in prop::sample::subsequence(
                vec![SlowConsumer::Skip, SlowConsumer::DropOldest, SlowConsumer::KeepLatest], 1..=3),
            messages in prop::sample::select(vec![4usize, 24]),
            steps in prop::collection::vec((0usize..9, 1usize..12, 0u8..5, any::<bool>()), 1..200),
        ) {
            let limits = Limits { messages, bytes: 10 * messages, reply_messages: 2 * messages, reply_bytes: 1_000 };
            let (mut outbox, mut stream) = (Outbox::default(), Vec::new());
            let (mut offered, mut dropped, mut replies) = (0, 0, 0);
            for (number, (topic, size, write, begin)) in steps.into_iter().enumerate() {
                if write == 0 || messages == 4 && write < 3 {
                    let mut buffer = [0; 64];
                    let bytes = outbox.gather(&mut buffer);
                    let n = size.min(bytes.len());
                    stream.extend_from_slice(&bytes[..n]);
                    outbox.advance(n);
                    continue;
                }
                if begin && topic < 3 {
                    outbox.push_reply(b"ok;");
                    replies += 1;
                    continue;
                }
                let policy = policies[number % policies.len()];
                let text = format!("{number}{};", "-".repeat(size));
                let name: Topic = format!("t{topic}").parse().unwrap();
                offered += 1;
                if begin && outbox.is_empty() {
                    let n = size.min(text.len() - 1);
                    stream.extend_from_slice(&text.as_bytes()[..n]);
                    outbox.push_begun(&frame(&format!("t{topic}"), &text), n);
                    prop_assert_eq!(outbox.bytes(), text.len() - n);
                    continue;
                }
                match outbox.offer(&frame(&format!("t{topic}"), &text), policy, &limits, true) {
                    Offer::Queued { removed, .. } => dropped += removed,
                    Offer::Dropped { removed, .. } => dropped += removed + 1,
                    other => prop_assert!(false, "{:?}", other),
                }
                prop_assert!(replies > 0 || outbox.len() <= messages && outbox.bytes() <= 10 * messages);
                let waiting: Vec<_> = outbox.queue.iter().skip(usize::from(outbox.head_written > 0)).collect();
                let of_topic = |entry: &&&Entry| entry.frame().is_some_and(|frame| frame.topic() == Some(&name));
                if policy == SlowConsumer::KeepLatest {
                    prop_assert!(waiting.iter().filter(of_topic).count() <= 1, "older ones are superseded");
                }
                prop_assert_eq!(outbox.entries(), outbox.queue.iter().filter(|entry| !entry.is_hole()).count());
            }
            let told: u64 = outbox.gaps.iter().map(|gap| gap.count).sum();
            prop_assert_eq!(told, dropped as u64);
            while !outbox.is_empty() {
                let mut buffer = [0; 64];
                let bytes = outbox.gather(&mut buffer);
                let n = bytes.len();
                stream.extend_from_slice(bytes);
                outbox.advance(n);
            }
            prop_assert_eq!((outbox.bytes, outbox.messages()), (0, 0));
            let text = String::from_utf8(stream).unwrap();
            let (said, told): (Vec<&str>, Vec<&str>) = text.split_terminator(';').partition(|text| *text == "ok");
            prop_assert_eq!(said.len(), replies);
            let numbers: Vec<usize> = told
                .into_iter()
                .map(|message| message.trim_end_matches('-').parse().unwrap())
                .collect();
            prop_assert!(numbers.is_sorted_by(|a, b| a < b));
            prop_assert_eq!(numbers.len() + dropped, offered);
        }
    }
}
