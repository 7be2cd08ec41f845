//! One connection at hand: how it ends, and what its deadlines lead to.

use super::Base;
use super::connection::{Connection, Due, Marks, spread};
use super::driver::Driver;
use super::table::Key;
use super::wheel::{NEVER, Tick};
use crate::config::OVERDUE_TURNS_MAX;
use crate::event::Event;
use crate::message::CloseReason;
use crate::protocol::{Encoding, Words, answer};
use crate::transport::Transport;

/// A connection's row, borrowed once for a step, with what all connections of the shard share.
pub(crate) struct Visit<'a, D: Driver> {
    pub(crate) key: Key,
    pub(crate) row: &'a mut Connection<D::Socket>,
    pub(crate) base: &'a mut Base<D>,
}

impl<D: Driver> Visit<'_, D> {
    /// Closes the connection: what is queued is written first, and then its farewell, unless the reason says that
    /// nothing can be written any more. Further calls do nothing.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        self.close_with(reason, None);
    }

    /// Does so with last words of the handler's own.
    pub(crate) fn close_with(&mut self, reason: CloseReason, words: Option<Words<'_>>) {
        if self.row.closing.is_some() {
            return;
        }
        self.row.begin_to_close(reason, NEVER);
        match reason {
            CloseReason::Reset | CloseReason::SlowConsumer | CloseReason::WriteTimeout => self.row.abort = true,
            CloseReason::ClientClosed => self.report_last_gaps(),
            _ => {
                let settings = &self.base.settings;
                self.row.set_close_by(self.base.wheel.now() + settings.close_patience().max(settings.linger));
                self.report_last_gaps();
                self.say_farewell(reason, words);
            }
        }
        self.wake();
        self.mark_dirty();
        self.schedule();
    }

    /// Queues the last words to a client, in the way of what it speaks.
    fn say_farewell(&mut self, reason: CloseReason, words: Option<Words<'_>>) {
        match self.row.encoding {
            // A browser opens connections in advance, and one that asked for nothing expects no answer.
            None if reason == CloseReason::HeadTimeout && self.row.is_receiving() => {
                self.push_reply(&answer::timed_out());
            }
            None if reason == CloseReason::MemoryPressure && self.row.handshaking.is_none() => {
                let answer = answer::unavailable(reason, b"", spread(self.row.id));
                self.push_reply(&answer);
            }
            None => {}
            // It has been told, in words that it can read.
            Some(_) if matches!(reason, CloseReason::WrongProtocol | CloseReason::Rejected) => {}
            Some(encoding) => {
                self.notice(Event::Bye { reason, text: words.map(|words| words.text) });
                if let Some(farewell) = encoding.farewell(reason, words) {
                    self.push_reply(&farewell);
                }
            }
        }
    }

    /// Gives up on the connection: its next turn takes it out.
    pub(crate) fn abort(&mut self, reason: CloseReason) {
        if self.row.closing.is_none() {
            self.row.begin_to_close(reason, NEVER);
        }
        self.row.abort = true;
        self.wake();
    }

    // ---- Time ----

    /// Gives a connection whose time is over a turn in which it is read, and written to if there is room, whatever was
    /// reported of it. Then it is judged.
    pub(crate) fn give_last_turn(&mut self) {
        let row = &mut *self.row;
        if row.overdue == 0 {
            row.overdue = 1;
            row.readable = true;
            row.writable |= row.blocked && row.socket.has_room();
            self.wake();
        }
    }

    /// Judges a connection that has had a turn since its time was over. `more`: it has not read all that there is.
    pub(crate) fn judge(&mut self, more: bool) {
        if self.row.overdue == 0 {
            return;
        }
        if more && self.row.overdue < OVERDUE_TURNS_MAX {
            self.row.overdue += 1;
            return;
        }
        self.row.overdue = 0;
        match self.row.due(&self.base.settings, self.base.wheel.now()) {
            Some(Due::Close(reason)) => self.close(reason),
            Some(Due::End) => self.abort(CloseReason::WriteTimeout),
            // What else is due the wheel brings up.
            Some(Due::ReadOn | Due::Ping) | None => {}
        }
    }

    /// Gives a silent connection a sign of life, and has a client that can answer give one.
    pub(crate) fn ping(&mut self, now: Tick) {
        self.row.last_ping = now;
        let keep_alive = self.row.encoding.and_then(Encoding::keep_alive);
        self.push_reply(keep_alive.expect("only who can be pinged is due for it"));
    }

    /// Makes sure that the connection is looked at when its nearest deadline comes.
    pub(crate) fn schedule(&mut self) {
        if let Some(due) = self.row.next_deadline(&self.base.settings)
            && due < self.row.check_at
        {
            self.row.check_at = self.base.wheel.insert(self.key, due);
        }
    }

    /// Shuts the connection's sending side once all is written, and gives the client a moment to close its own, so
    /// that what was written is not destroyed by a reset.
    pub(crate) fn start_linger(&mut self) {
        if self.row.marks.has(Marks::SHUT) {
            return;
        }
        self.row.marks.set(Marks::SHUT);
        self.row.rate = 0;
        self.row.set_close_by(self.base.wheel.now() + self.base.settings.linger);
        self.row.socket.finish();
        self.schedule();
    }
}
