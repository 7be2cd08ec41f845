//! A shard: everything on one base. It shares nothing with the others but messages, counters and the registry.

mod accept;
pub(crate) mod buffers;
pub(crate) mod inbox;
pub(crate) mod lane;
pub(crate) mod poller;
mod turns;
mod world;
pub(crate) mod yielding;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use futures_lite::StreamExt;
use glommio::channels::channel_mesh::{FullMesh, Receivers};
use glommio::channels::shared_channel::ConnectedReceiver;
use glommio::{Latency, Shares, Task, TaskQueueHandle};
use socket2::Socket;

use crate::config::{
    ABSENCE_MS, Config, FANOUT_SLICE, Framing, MESH_RETRY_MS, REFUSAL_LOOK_MS, STALL_MS, START_LOOK_MS, TICK_MS,
};
use crate::engine::drain::Drain;
use crate::engine::driver::{Bell, Report};
use crate::engine::fanout::Fanout;
use crate::engine::panics::panic_text;
use crate::engine::registry::Registry;
use crate::engine::shard_msg::ShardMsg;
use crate::engine::wheel::{NEVER, Tick};
use crate::engine::{Base, Behaviour, Engine};
use crate::handler::Handlers;
use crate::host;
use crate::metrics::ShardMetrics;
use accept::{Listeners, Listening};
use inbox::Inbox;
pub(crate) use world::Message;
use world::{Mesh, World};
use yielding::Slice;

/// The sockets that one shard listens on.
pub(crate) type Sockets = Vec<Listener>;

/// A socket that is listened on, with the framing that is spoken there and the number of the handler that serves it.
pub(crate) struct Listener {
    pub(crate) socket: Socket,
    pub(crate) framing: Framing,
    pub(crate) handler: u8,
}

/// What a shard is started with.
pub(crate) struct Start {
    pub(crate) index: usize,
    pub(crate) config: Arc<Config>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<ShardMetrics>,
    pub(crate) sockets: Sockets,
    pub(crate) mesh: FullMesh<Message>,
    pub(crate) inbox: Inbox,
    /// The first request to drain, with the time to do it over.
    pub(crate) drain: Receiver<Duration>,
}

/// A running shard: its state and its handlers.
pub(crate) struct Shard {
    pub(crate) engine: RefCell<Engine<World>>,
    pub(crate) handlers: RefCell<Handlers>,
    pub(crate) listeners: RefCell<Listeners>,
    /// What the ring has reported and nobody has looked at.
    pub(crate) reports: Cell<Vec<Report>>,
    /// Where tasks run that carry messages to many: between two batches of the connections' turns.
    urgent: TaskQueueHandle,
    /// Takes the words of the first task that panicked.
    failure: Sender<String>,
}

/// Runs a shard on the executor of the calling thread, until it has drained. `ready` is called once it accepts.
pub(crate) async fn run(
    start: Start,
    handlers: Handlers,
    behaviour: Behaviour,
    ready: impl FnOnce(),
) -> Result<(), String> {
    let Start { index, config, registry, metrics, sockets, mesh, inbox, drain } = start;
    let urgent = glommio::executor().create_task_queue(
        Shares::default(),
        Latency::NotImportant,
        &format!("shard-{index}-urgent"),
    );
    // Another shard may fail before it joins; then this one is told to end.
    let given_up = async {
        let _ = drain.recv().await;
        Ok(None)
    };
    let joined = async { join_mesh(mesh, index).await.map(Some) };
    let joined = kept_awake(futures_lite::future::or(joined, given_up));
    let Some((mesh, lanes)) = joined.await? else { return Ok(()) };
    let world = World::new(mesh);
    let world = world.map_err(|error| format!("shard {index} got no ring to watch its sockets with: {error}"))?;
    let signal = world.poller.signal().map_err(|error| format!("holding on to a ring's signal failed: {error}"))?;
    let engine = Engine::new(index, &config, behaviour, registry, metrics, world);
    let (failure, failed) = async_channel::bounded(1);
    let shard = Rc::new(Shard {
        engine: RefCell::new(engine),
        handlers: RefCell::new(handlers),
        listeners: RefCell::default(),
        reports: Cell::default(),
        urgent,
        failure,
    });

    let queued = Rc::default();
    let mut tasks = vec![
        shard.spawn_urgent(deliver(Rc::clone(&shard)))?,
        shard.spawn_urgent(retry_lanes(Rc::clone(&shard)))?,
        shard.spawn_urgent(inbox::publish(Rc::clone(&shard), inbox.publishes, Rc::clone(&queued)))?,
        shard.spawn_urgent(inbox::close(Rc::clone(&shard), inbox.closes, queued))?,
        shard.spawn_urgent(inbox::obey(Rc::clone(&shard), inbox.commands))?,
        glommio::spawn_local(guarded(Rc::clone(&shard), turns::run(Rc::clone(&shard), signal))),
        glommio::spawn_local(guarded(Rc::clone(&shard), tick(Rc::clone(&shard)))),
        glommio::spawn_local(guarded(Rc::clone(&shard), attend_refused(Rc::clone(&shard)))),
    ];
    for (_, lane) in lanes {
        tasks.push(shard.spawn_urgent(receive_lane(Rc::clone(&shard), Lane(lane)))?);
    }
    let mut listeners = Vec::new();
    for listener in sockets {
        listeners.push(accept::listen(&shard, listener)?);
    }
    ready();

    // When all handles are gone, nobody can ask for anything any more: the shard drains at once.
    let drained = async {
        let over = drain.recv().await.unwrap_or_default();
        drain_out(&shard, &listeners, over).await;
        Ok(())
    };
    let failed = async { Err(failed.recv().await.unwrap_or_default()) };
    let ended = futures_lite::future::or(drained, failed).await;
    for task in tasks {
        task.cancel().await;
    }
    if ended.is_err() {
        listeners.iter().for_each(Listening::stop);
        let engine = &mut *shard.engine.borrow_mut();
        engine.abandon();
        engine.base.driver.submit_polls();
        engine.base.driver.close_mesh();
    }
    shard.engine.borrow_mut().base.end();
    ended
}

/// Runs one of the shard's tasks. A panic in it ends the shard in order: unwinding through the executor would leave
/// its thread, and everybody who waits for it, hanging.
async fn guarded(shard: Rc<Shard>, task: impl Future<Output = ()>) {
    let mut task = std::pin::pin!(task);
    poll_fn(|cx| shard.catch(|| task.as_mut().poll(cx)).unwrap_or(Poll::Ready(()))).await;
}

impl Shard {
    /// Runs a step of a task; `None`: it panicked, and the shard ends.
    pub(crate) fn catch<T>(&self, step: impl FnOnce() -> T) -> Option<T> {
        // What the step may have left half done is not looked at again: nothing of the shard runs after it.
        match std::panic::catch_unwind(AssertUnwindSafe(step)) {
            Ok(value) => Some(value),
            Err(panic) => {
                // Only the first panic counts.
                let _ = self.failure.try_send(format!("a task panicked: {}", panic_text(&*panic)));
                None
            }
        }
    }
}

impl Shard {
    fn spawn_urgent(self: &Rc<Self>, future: impl Future<Output = ()> + 'static) -> Result<Task<()>, String> {
        glommio::spawn_local_into(guarded(Rc::clone(self), future), self.urgent).map_err(|error| error.to_string())
    }
}

type Lanes = Vec<(usize, ConnectedReceiver<Message>)>;

/// Runs something and looks at it again every so often. An executor that connects to a channel does not wake the one at its
/// other end, which may sleep for ever then (glommio 0.9). Once both are connected, what one sends wakes the other.
async fn kept_awake<T>(work: impl Future<Output = T>) -> T {
    async fn look<T>() -> T {
        loop {
            glommio::timer::sleep(Duration::from_millis(START_LOOK_MS)).await;
        }
    }
    futures_lite::future::or(work, look()).await
}

/// Joins the mesh and finds out which of its numbers stands for which shard: each shard's first message says.
async fn join_mesh(mesh: FullMesh<Message>, index: usize) -> Result<(Mesh, Lanes), String> {
    let peers = mesh.nr_peers();
    if peers == 1 {
        return Ok((Mesh::default(), Vec::new()));
    }
    let (senders, mut receivers): (_, Receivers<Message>) = mesh.join().await.map_err(|error| error.to_string())?;
    let own = senders.peer_id();
    for peer in (0..peers).filter(|peer| *peer != own) {
        // The lanes are empty yet, so this does not wait.
        senders.try_send_to(peer, ShardMsg::Hello { shard: index }).map_err(|error| error.to_string())?;
    }
    let mut lanes = vec![None; peers];
    let receivers = receivers.streams();
    for (peer, receiver) in &receivers {
        match receiver.recv().await {
            Some(ShardMsg::Hello { shard }) => lanes[shard] = Some(*peer),
            other => return Err(format!("shard {index} was greeted by peer {peer} with {other:?}")),
        }
    }
    Ok((Mesh::new(senders, lanes), receivers))
}

/// What one other shard sends. The sender would keep what is left in it when this shard ends: clients, above all.
struct Lane(ConnectedReceiver<Message>);

impl Drop for Lane {
    fn drop(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(_)) = self.0.poll_next(&mut cx) {}
    }
}

/// Takes what one other shard sends. While this shard's queue is full it takes nothing, and the lane fills up.
async fn receive_lane(shard: Rc<Shard>, mut lane: Lane) {
    let mut slice = Slice::begin();
    while let Some(message) = slice.wait(lane.0.next()).await {
        shard.until(message.bell(), |base| base.has_room_for(&message)).await;
        shard.engine.borrow_mut().receive(&mut shard.handlers.borrow_mut(), message);
        slice.pause_if_over().await;
    }
}

impl Shard {
    /// Waits until something holds of what connections share, which is looked at whenever the bell has rung.
    async fn until(&self, bell: Bell, holds: impl Fn(&Base<World>) -> bool) {
        poll_fn(|cx| {
            let base = &mut self.engine.borrow_mut().base;
            if holds(base) { Poll::Ready(()) } else { base.driver.wait_for(bell, cx) }
        })
        .await;
    }

    /// Delivers some of what is published; whether there is more.
    fn step(&self, fanout: &mut Fanout) -> bool {
        fanout.step(&mut self.engine.borrow_mut())
    }

    /// Waits until the queue of publishes has room.
    async fn room(&self) {
        self.until(Bell::Room, |base| base.publishes.has_room()).await;
    }
}

/// Delivers what is published for as long as the shard runs.
async fn deliver(shard: Rc<Shard>) {
    let mut fanout = Fanout::default();
    let mut slice = Slice::begin();
    loop {
        slice.wait(shard.until(Bell::Publishes, |base| !base.publishes.is_empty())).await;
        while shard.step(&mut fanout) {
            slice.pause_if_over().await;
        }
    }
}

/// Passes on what full lanes did not take.
async fn retry_lanes(shard: Rc<Shard>) {
    loop {
        shard.until(Bell::Backlog, |base| base.lanes.waiting() > 0).await;
        glommio::timer::sleep(Duration::from_millis(MESH_RETRY_MS)).await;
        shard.engine.borrow_mut().retry_lanes();
    }
}

/// Attends to refused clients for as long as the shard runs.
async fn attend_refused(shard: Rc<Shard>) {
    loop {
        shard.until(Bell::Refusals, |base| !base.refusals.is_empty()).await;
        glommio::timer::sleep(Duration::from_millis(REFUSAL_LOOK_MS)).await;
        shard.engine.borrow_mut().base.attend_refused();
    }
}

/// Stops accepting, closes all connections evenly over a time, and returns when the last one is gone.
async fn drain_out(shard: &Rc<Shard>, listeners: &[Listening], over: Duration) {
    listeners.iter().for_each(|listening| listening.take_in_waiting(shard));
    let mut drain = Drain::begin(&mut shard.engine.borrow_mut(), over);
    listeners.iter().for_each(Listening::stop);
    loop {
        let pause = drain.step(&mut shard.engine.borrow_mut());
        let Some(pause) = pause else { break };
        glommio::timer::sleep(pause).await;
    }
    shard.engine.borrow_mut().base.driver.close_mesh();
}

/// Moves the shard's clock on.
async fn tick(shard: Rc<Shard>) {
    let started = Instant::now();
    loop {
        let asleep = Instant::now();
        glommio::timer::sleep(Duration::from_millis(TICK_MS)).await;
        let late_ms = (asleep.elapsed().as_millis() as u64).saturating_sub(TICK_MS);
        let passed = started.elapsed().as_millis() / u128::from(TICK_MS);
        let mut slice = Slice::begin();
        note_tick(&shard.engine.borrow(), late_ms);
        shard.see_to_polls();
        shard.engine.borrow_mut().trim_heap();
        shard.engine.borrow_mut().see_to_memory();
        let turns = shard.engine.borrow_mut().base.wheel.catch_up(Tick::try_from(passed).unwrap_or(NEVER));
        for _ in 0..turns {
            let due = shard.engine.borrow_mut().base.wheel.turn();
            // Clients that came together are due together, so there may be many.
            for some in due.chunks(FANOUT_SLICE) {
                shard.engine.borrow_mut().look_at(some);
                slice.pause_if_over().await;
            }
        }
        while shard.engine.borrow_mut().run_timers(&mut shard.handlers.borrow_mut()) {
            slice.pause_if_over().await;
        }
        shard.engine.borrow_mut().base.proofs.turn(turns);
        loop {
            let due = shard.engine.borrow_mut().take_due_proofs();
            let Some(written) = due else { break };
            shard.engine.borrow_mut().prove(&written);
            slice.pause_if_over().await;
        }
    }
}

/// Counts what is looked at once a tick. `late_ms`: how much later than it should the tick came.
fn note_tick(engine: &Engine<World>, late_ms: u64) {
    let base = &engine.base;
    if late_ms >= STALL_MS {
        base.metrics.stalls.add(1);
        base.metrics.stall_ms_max.set(base.metrics.stall_ms_max.get().max(late_ms));
    }
    if late_ms >= ABSENCE_MS {
        tracing::warn!(
            shard = base.index,
            "away for {late_ms} ms: the process or the machine was paused, or something kept the core busy; \
             that time counts against no client"
        );
    }
    if base.index == 0
        && base.registry.limits_memory()
        && let Some(bytes) = host::resident_bytes()
    {
        base.registry.note_resident(bytes);
    }
    base.metrics.topics.set(base.topics.len() as u64);
    base.metrics.pool_misses.set(base.driver.pool.misses());
}
