//! The end of a shard: connections are closed a few at a time, each with all that was published before.

use std::rc::Rc;
use std::time::Duration;

use glommio::timer::sleep;

use crate::config::{DRAIN_STEP_MS, LINGER_MS, MESH_RETRY_MS, TICK_MS};
use crate::engine::mailbox::ShardMsg;
use crate::engine::table::Key;
use crate::engine::{Engine, ticks};
use crate::handler::Handler;
use crate::message::CloseReason;
use crate::shard::Shard;
use crate::shard::listener::Listening;

/// Stops accepting, closes all connections evenly over a time span, and returns when the last one is gone.
///
/// Closing a million clients at once would have them come back at once, to the servers that are left.
pub(crate) async fn run<H: Handler>(shard: &Rc<Shard<H>>, listeners: &[Listening], over: Duration) {
    listeners.iter().for_each(|listening| listening.take_in_waiting(shard));
    shard.core.borrow_mut().draining = true;
    listeners.iter().for_each(Listening::stop);
    settle(shard, over.max(Duration::from_millis(LINGER_MS))).await;

    let steps = (over.as_millis() / u128::from(DRAIN_STEP_MS)).max(1) as usize;
    let keys: Vec<Key> = {
        let table = &shard.core.borrow().table;
        (0..table.slots()).filter_map(|slot| table.key_at(slot)).collect()
    };
    let mut closed = 0;
    for step in 1..=steps {
        let until = (keys.len() * step).div_ceil(steps);
        {
            let core = &mut *shard.core.borrow_mut();
            for key in &keys[closed..until] {
                core.close_in_order(*key, CloseReason::Drain);
            }
        }
        closed = until;
        if shard.core.borrow().table.len() == 0 {
            break;
        }
        if step < steps {
            sleep(Duration::from_millis(DRAIN_STEP_MS)).await;
        }
    }

    // The last ones closed get as long to read what waits and to close their side as the others had.
    let patience = Duration::from_millis(LINGER_MS + TICK_MS);
    wait(shard, patience, |core| core.table.len() == 0).await;
    {
        let core = &mut *shard.core.borrow_mut();
        for slot in 0..core.table.slots() {
            if let Some(key) = core.table.key_at(slot) {
                core.abort(key, CloseReason::Drain);
            }
        }
    }
    while shard.core.borrow().table.len() > 0 {
        sleep(Duration::from_millis(MESH_RETRY_MS)).await;
    }
    shard.core.borrow_mut().mesh.close();
}

/// Closes everything at once, for a shard that has failed: its connections get no turn any more.
pub(crate) fn abandon<H: Handler>(shard: &Rc<Shard<H>>, listeners: &[Listening]) {
    let core = &mut *shard.core.borrow_mut();
    core.draining = true;
    listeners.iter().for_each(Listening::stop);
    for slot in 0..core.table.slots() {
        if let Some(key) = core.table.key_at(slot) {
            core.remove(key);
        }
    }
    core.submit_polls();
    core.mesh.close();
}

/// Waits until all that was published before the drain, here and on other shards, is in the outboxes.
async fn settle<H: Handler>(shard: &Rc<Shard<H>>, most: Duration) {
    let peers = {
        let core = &mut *shard.core.borrow_mut();
        let peers = core.mesh.peers();
        for peer in peers.iter().copied() {
            core.send_to_shard(peer, ShardMsg::Draining);
        }
        peers.len()
    };
    wait(shard, most, |core| core.draining_peers >= peers).await;
    let enqueued = shard.core.borrow().publishes.enqueued();
    wait(shard, most, |core| core.publishes.delivered() >= enqueued).await;
}

/// Waits until something holds, but not for longer than `most` by the shard's clock, which stands still while the shard
/// is away.
async fn wait<H>(shard: &Shard<H>, most: Duration, holds: impl Fn(&Engine) -> bool) {
    let until = shard.core.borrow().wheel.now().saturating_add(ticks(most));
    while !holds(&shard.core.borrow()) && shard.core.borrow().wheel.now() < until {
        sleep(Duration::from_millis(MESH_RETRY_MS)).await;
    }
}
