//! Which connections have something to do.

use std::collections::VecDeque;

use super::Engine;
use super::connection::Polls;
use super::driver::{Bell, Driver, Report, Watched};
use super::table::Key;
use super::visit::Visit;
use crate::config::TURNS_PER_BATCH;

/// Connections that wait for their turn, in the order in which they came. Each is in it once, as its row says.
#[derive(Default)]
pub(crate) struct TurnQueue(VecDeque<Key>);

impl TurnQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn pop(&mut self) -> Option<Key> {
        let key = self.0.pop_front();
        if self.0.is_empty() {
            // After a moment in which all were busy.
            self.0.shrink_to(TURNS_PER_BATCH);
        }
        key
    }
}

impl<D: Driver> Engine<D> {
    /// The connection whose turn it is.
    pub(crate) fn next_turn(&mut self) -> Option<Key> {
        loop {
            let key = self.base.turns.pop()?;
            // Others have gone meanwhile.
            if let Some(row) = self.table.get_mut(key) {
                row.queued = false;
                return Some(key);
            }
        }
    }

    /// Takes in what was reported about the socket of a connection.
    pub(crate) fn take_report(&mut self, key: Key, report: Report) {
        let Some(mut visit) = self.visit(key) else {
            // It is gone, and the end of its watch may have come between two reports.
            if report.armed {
                self.base.driver.unwatch(report.watched);
            }
            return;
        };
        visit.base.metrics.polls.sub(u64::from(!report.armed));
        let row = &mut *visit.row;
        if let Watched::Write(_) = report.watched {
            row.writable = true;
            row.polls.set(Polls::WRITE, report.armed);
        } else {
            row.readable = true;
            row.hangup |= report.hangup;
            row.polls.set(Polls::READ, report.armed);
            // A connection that is read no further for now is woken by what it waits for.
            if row.paused && row.closing.is_none() {
                return;
            }
        }
        visit.wake();
    }
}

impl<D: Driver> Visit<'_, D> {
    /// Gives the connection a turn soon.
    pub(crate) fn wake(&mut self) {
        if !std::mem::replace(&mut self.row.queued, true) {
            self.base.turns.0.push_back(self.key);
            self.base.driver.ring(Bell::Turns);
        }
    }

    /// Has it reported what the connection waits for, unless it is so already.
    pub(crate) fn watch(&mut self) {
        let Visit { key, row, base } = self;
        // What is known to be there is read before more is asked for.
        if !row.polls.has(Polls::READ) && !row.readable {
            row.polls.set(Polls::READ, true);
            base.metrics.polls.add(1);
            base.driver.watch(Watched::Read(*key), &row.socket);
        }
        if !row.polls.has(Polls::WRITE) && row.blocked {
            row.polls.set(Polls::WRITE, true);
            base.metrics.polls.add(1);
            base.driver.watch(Watched::Write(*key), &row.socket);
        }
    }
}
