//! The end of a shard: connections are closed a few at a time, each with all that was published before.

use std::time::Duration;

use super::Engine;
use super::driver::Driver;
use super::settings::ticks;
use super::shard_msg::ShardMsg;
use super::table::Key;
use super::wheel::Tick;
use crate::config::{DRAIN_CLOSES_MAX, DRAIN_STEP_MS, LINGER_MS, MESH_RETRY_MS, TICK_MS};
use crate::message::CloseReason;

/// Closes that wait at a time. Tests reach the bound with few.
pub(crate) const CLOSES_MAX: usize = if cfg!(test) { 4 } else { DRAIN_CLOSES_MAX };

/// How far a drain is. It stops for as long as it says, and goes on with [`Drain::step`].
pub(crate) struct Drain {
    over: Duration,
    stage: Stage,
}

enum Stage {
    /// All that other shards published before they drained is waited for.
    Peers {
        until: Tick,
    },
    /// All that was published before is waited for, until it is in the outboxes.
    Publishes {
        enqueued: u64,
        until: Tick,
    },
    /// Connections are closed, some in each of so many steps.
    Closing {
        keys: Vec<Key>,
        closed: usize,
        step: usize,
        steps: usize,
    },
    /// Each close that waits is waited for, however many there are: delivery never stands still.
    Farewells {
        enqueued: u64,
    },
    /// The last ones have a moment to read what waits and to close their side.
    Lingering {
        until: Tick,
    },
    /// None of them is waited for any more.
    Ending,
    Over,
}

impl Drain {
    /// Begins to drain, with the closes spread evenly over a time. The shard accepts nobody any more.
    ///
    /// Closing a million clients at once would have them come back at once, to the servers that are left.
    pub(crate) fn begin<D: Driver>(engine: &mut Engine<D>, over: Duration) -> Self {
        engine.base.draining = true;
        for peer in engine.base.lanes.peers().iter().copied() {
            engine.base.send_to_shard(peer, ShardMsg::Draining);
        }
        Drain { over, stage: Stage::Peers { until: by(engine, Drain::patience(over)) } }
    }

    /// How long what was published before is waited for.
    fn patience(over: Duration) -> Duration {
        over.max(Duration::from_millis(LINGER_MS))
    }

    /// Goes on. `Some`: how long to wait before the next step; `None`: the last connection is gone.
    pub(crate) fn step<D: Driver>(&mut self, engine: &mut Engine<D>) -> Option<Duration> {
        let look = Duration::from_millis(MESH_RETRY_MS);
        loop {
            let now = engine.base.wheel.now();
            self.stage = match &mut self.stage {
                Stage::Peers { until } => {
                    if engine.base.draining_peers < engine.base.lanes.peers().len() && now < *until {
                        return Some(look);
                    }
                    let until = by(engine, Drain::patience(self.over));
                    Stage::Publishes { enqueued: engine.base.publishes.enqueued(), until }
                }
                Stage::Publishes { enqueued, until } => {
                    if engine.base.publishes.delivered() < *enqueued && now < *until {
                        return Some(look);
                    }
                    let steps = (self.over.as_millis() / u128::from(DRAIN_STEP_MS)).max(1) as usize;
                    Stage::Closing { keys: engine.keys().collect(), closed: 0, step: 0, steps }
                }
                Stage::Closing { keys, closed, step, steps } => {
                    let due = (keys.len() * (*step + 1)).div_ceil(*steps);
                    while *closed < due && engine.base.publishes.closes() < CLOSES_MAX {
                        engine.close_in_order(keys[*closed], CloseReason::Drain);
                        *closed += 1;
                    }
                    if *closed < due {
                        return Some(look);
                    }
                    *step += 1;
                    if *step < *steps && engine.table.len() > 0 {
                        return Some(Duration::from_millis(DRAIN_STEP_MS));
                    }
                    Stage::Farewells { enqueued: engine.base.publishes.enqueued() }
                }
                Stage::Farewells { enqueued } => {
                    if engine.base.publishes.delivered() < *enqueued {
                        return Some(look);
                    }
                    Stage::Lingering { until: by(engine, Duration::from_millis(LINGER_MS + TICK_MS)) }
                }
                Stage::Lingering { until } => {
                    if engine.table.len() > 0 && now < *until {
                        return Some(look);
                    }
                    for slot in 0..engine.table.slots() {
                        if let Some(mut visit) = engine.table.key_at(slot).and_then(|key| engine.visit(key)) {
                            visit.abort(CloseReason::Drain);
                        }
                    }
                    Stage::Ending
                }
                Stage::Ending => {
                    if engine.table.len() > 0 {
                        return Some(look);
                    }
                    Stage::Over
                }
                Stage::Over => return None,
            };
        }
    }
}

/// The tick at which a time is over, by the shard's clock, which stands still while the shard is away.
fn by<D: Driver>(engine: &Engine<D>, most: Duration) -> Tick {
    engine.base.wheel.now().saturating_add(ticks(most))
}

impl<D: Driver> Engine<D> {
    /// Takes out all connections at once, for a shard that has failed: they get no turn any more.
    pub(crate) fn abandon(&mut self) {
        self.base.draining = true;
        for slot in 0..self.table.slots() {
            if let Some(key) = self.table.key_at(slot) {
                self.remove(key);
            }
        }
    }
}
