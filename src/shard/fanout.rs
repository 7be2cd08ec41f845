//! Delivery: from a shard's queue of publishes into the outboxes of its connections.
//!
//! A batch of publishes is delivered together. Publishes that follow each other to the same recipients go
//! recipient by recipient, so that each socket is written once for all of them. The work is cut into slices, with
//! a chance for other tasks between them; per connection, order is the order of the queue.

use std::future::poll_fn;
use std::rc::Rc;

use crate::codec::{self, EncodeError};
use crate::config::{FANOUT_SLICE, Framing, PUBLISH_BATCH};
use crate::handler::{Event, Handler};
use crate::message::{DropReason, Publish, Target, Topic};
use crate::shard::Shard;
use crate::shard::core::Core;
use crate::shard::mailbox::{Job, Recipients, policy_of};
use crate::shard::outbox::Frame;
use crate::shard::table::Key;

/// One publish with its frames: one for each framing, made when the first connection of that framing needs it.
struct Encoded {
    publish: Publish,
    frames: [Option<Rendered>; Framing::ALL.len()],
}

/// What a publish is in one framing.
#[derive(Clone)]
enum Rendered {
    Frame(Rc<Frame>),
    /// The framing can't carry it.
    Unfit(DropReason),
    /// The handler has nothing to say of it.
    Silent,
}

/// Delivers what is published for as long as the shard runs.
pub(crate) async fn run<H: Handler>(shard: Rc<Shard<H>>) {
    let mut batch = Vec::new();
    loop {
        poll_fn(|cx| shard.core.borrow_mut().publishes.poll_nonempty(cx)).await;
        shard.core.borrow_mut().publishes.take(PUBLISH_BATCH, &mut batch);
        let count = batch.len();
        let mut jobs = batch.drain(..).peekable();
        while let Some(Job { publish, recipients }) = jobs.next() {
            let mut run = vec![Encoded::new(publish)];
            while let Some(next) = jobs.next_if(|next| next.recipients.same_as(&recipients)) {
                run.push(Encoded::new(next.publish));
            }
            deliver(&shard, &mut run, &recipients).await;
        }
        let mut core = shard.core.borrow_mut();
        core.flush_dirty();
        core.publishes.count_delivered(count);
        core.relieve();
    }
}

/// Delivers publishes to their common recipients.
async fn deliver<H: Handler>(shard: &Shard<H>, run: &mut [Encoded], recipients: &Recipients) {
    let mut matched = 0;
    let mut from = 0;
    let slots = recipients.slots();
    while from < slots {
        let to = slots.min(from + FANOUT_SLICE);
        {
            let core = &mut *shard.core.borrow_mut();
            for index in from..to {
                if let Some(key) = recipients.at(&core.table, index) {
                    matched += u64::from(deliver_to(core, run, key));
                }
            }
            // A small remainder is left for the end of the batch, where more may have joined it.
            if core.dirty() >= FANOUT_SLICE {
                core.flush_dirty();
            }
        }
        from = to;
        glommio::yield_if_needed().await;
    }
    for encoded in run.iter() {
        tracing::trace!(id = %encoded.publish.id, recipients = matched, "delivered");
    }
    let core = shard.core.borrow();
    core.metrics.publishes.add(run.len() as u64);
    core.metrics.matched.add(matched * run.len() as u64);
}

/// Queues all messages of a run for one connection; whether it is still there.
fn deliver_to(core: &mut Core, run: &mut [Encoded], key: Key) -> bool {
    let Some(framing) = core.table.get(key).map(|connection| connection.framing) else { return false };
    for encoded in run {
        let policy = policy_of(&encoded.publish, core.settings.slow_consumer);
        match encoded.rendered(core, framing) {
            Rendered::Frame(frame) => core.push(key, &frame, policy),
            Rendered::Unfit(reason) => core.push_unfit(key, encoded.topic(), reason),
            Rendered::Silent => {}
        }
    }
    true
}

impl Encoded {
    fn new(publish: Publish) -> Self {
        Encoded { publish, frames: [const { None }; Framing::ALL.len()] }
    }

    fn topic(&self) -> Option<&Topic> {
        match &self.publish.target {
            Target::Topic(topic) => Some(topic),
            Target::All | Target::Conn(_) => None,
        }
    }

    /// The message as connections of `framing` read it.
    fn rendered(&mut self, core: &Core, framing: Framing) -> Rendered {
        if let Some(rendered) = &self.frames[framing as usize] {
            return rendered.clone();
        }
        let payload = &self.publish.payload;
        let event = match &self.publish.target {
            Target::All => Event::Broadcast { payload },
            Target::Topic(topic) => Event::Publish { topic, payload },
            Target::Conn(_) => Event::Direct { payload },
        };
        let (mut message, mut bytes) = (Vec::new(), Vec::new());
        let rendered = if !(core.render)(event, &mut message) {
            Rendered::Silent
        } else {
            core.metrics.encoded.add(1);
            match codec::encode(framing, &message, &mut bytes) {
                Ok(()) => Rendered::Frame(Frame::new(bytes, self.topic().cloned())),
                Err(EncodeError::LineFeed) => Rendered::Unfit(DropReason::LineFeed),
            }
        };
        self.frames[framing as usize].insert(rendered).clone()
    }
}
