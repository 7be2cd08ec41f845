//! A shard: everything on one core. It shares nothing with the others but messages, counters and the registry.

pub(crate) mod buffers;
pub(crate) mod listener;
pub(crate) mod poller;
pub(crate) mod turns;
pub(crate) mod yielding;

use std::cell::RefCell;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use futures_lite::StreamExt;
use glommio::channels::channel_mesh::{FullMesh, Receivers};
use glommio::channels::shared_channel::ConnectedReceiver;
use glommio::{Latency, Shares, Task, TaskQueueHandle};

use crate::config::{ABSENCE_MS, Config, FANOUT_SLICE, MESH_RETRY_MS, STALL_MS, START_LOOK_MS, TICK_MS};
use crate::engine::Engine;
use crate::engine::mailbox::{Command, Mesh, ShardMsg};
use crate::engine::registry::Registry;
use crate::engine::wheel::{NEVER, Tick};
use crate::handler::Handler;
use crate::host;
use crate::metrics::ShardMetrics;
use crate::shard::yielding::Slice;

/// What a shard is started with.
pub(crate) struct Start {
    pub(crate) index: usize,
    pub(crate) config: Arc<Config>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<ShardMetrics>,
    pub(crate) sockets: listener::Sockets,
    pub(crate) mesh: FullMesh<ShardMsg>,
    pub(crate) commands: Receiver<Command>,
    /// The first request to drain, with the time to do it over.
    pub(crate) drain: Receiver<Duration>,
}

/// A running shard: its state and its handler.
pub(crate) struct Shard<H> {
    pub(crate) core: RefCell<Engine>,
    pub(crate) handler: RefCell<H>,
    /// Where tasks run that carry messages to many: between two batches of the connections' turns.
    urgent: TaskQueueHandle,
    /// Takes the words of the first task that panicked.
    failure: Sender<String>,
}

/// Runs a shard on the executor of the calling thread, until it has drained. `ready` is called once it accepts.
pub(crate) async fn run<H: Handler>(start: Start, handler: H, ready: impl FnOnce()) -> Result<(), String> {
    let Start { index, config, registry, metrics, sockets, mesh, commands, drain } = start;
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
    let joined = async { join_mesh(mesh, index, &config).await.map(Some) };
    let joined = kept_awake(futures_lite::future::or(joined, given_up));
    let Some((mesh, lanes)) = joined.await? else { return Ok(()) };
    let core = Engine::new(index, &config, H::render, registry, metrics, mesh);
    let core = core.map_err(|error| format!("shard {index} got no ring to watch its sockets with: {error}"))?;
    let signal = core.readiness.signal().map_err(|error| format!("holding on to a ring's signal failed: {error}"))?;
    let (failure, failed) = async_channel::bounded(1);
    let shard = Rc::new(Shard { core: RefCell::new(core), handler: RefCell::new(handler), urgent, failure });

    let mut tasks = vec![
        shard.spawn_urgent(crate::engine::fanout::run(Rc::clone(&shard)))?,
        shard.spawn_urgent(retry_mesh(Rc::clone(&shard)))?,
        shard.spawn_urgent(obey(Rc::clone(&shard), commands))?,
        glommio::spawn_local(guarded(Rc::clone(&shard), turns::run(Rc::clone(&shard), signal))),
        glommio::spawn_local(guarded(Rc::clone(&shard), tick(Rc::clone(&shard)))),
        glommio::spawn_local(guarded(Rc::clone(&shard), crate::engine::refusals::run(Rc::clone(&shard)))),
    ];
    for (_, lane) in lanes {
        tasks.push(shard.spawn_urgent(receive_lane(Rc::clone(&shard), lane))?);
    }
    let mut listeners = Vec::new();
    for (framing, socket) in sockets {
        listeners.push(listener::listen(&shard, framing, socket)?);
    }
    ready();

    // When all handles are gone, nobody can ask for anything any more: the shard drains at once.
    let drained = async {
        let over = drain.recv().await.unwrap_or_default();
        crate::engine::drain::run(&shard, &listeners, over).await;
        Ok(())
    };
    let failed = async { Err(failed.recv().await.unwrap_or_default()) };
    let ended = futures_lite::future::or(drained, failed).await;
    for task in tasks {
        task.cancel().await;
    }
    if ended.is_err() {
        crate::engine::drain::abandon(&shard, &listeners);
    }
    ended
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Runs one of the shard's tasks. A panic in it ends the shard in order: unwinding through the executor would leave
/// its thread, and everybody who waits for it, hanging.
async fn guarded<H>(shard: Rc<Shard<H>>, task: impl Future<Output = ()>) {
    let mut task = std::pin::pin!(task);
    poll_fn(|cx| shard.catch(|| task.as_mut().poll(cx)).unwrap_or(Poll::Ready(()))).await;
}

impl<H> Shard<H> {
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

impl<H: Handler> Shard<H> {
    fn spawn_urgent(self: &Rc<Self>, future: impl Future<Output = ()> + 'static) -> Result<Task<()>, String> {
        glommio::spawn_local_into(guarded(Rc::clone(self), future), self.urgent).map_err(|error| error.to_string())
    }
}

type Lanes = Vec<(usize, ConnectedReceiver<ShardMsg>)>;

/// Runs something and looks at it again every so often. An executor that goes to sleep just when another one writes to
/// its channel may miss that (glommio 0.9). Later the shard's own tick wakes it; before there is one, two shards that
/// wait for each other's first message would sleep for ever.
async fn kept_awake<T>(work: impl Future<Output = T>) -> T {
    async fn look<T>() -> T {
        loop {
            glommio::timer::sleep(Duration::from_millis(START_LOOK_MS)).await;
        }
    }
    futures_lite::future::or(work, look()).await
}

/// Joins the mesh and finds out which of its numbers stands for which shard: each shard's first message says.
async fn join_mesh(mesh: FullMesh<ShardMsg>, index: usize, config: &Config) -> Result<(Mesh, Lanes), String> {
    let peers = mesh.nr_peers();
    if peers == 1 {
        return Ok((Mesh::alone(), Vec::new()));
    }
    let (senders, mut receivers): (_, Receivers<ShardMsg>) = mesh.join().await.map_err(|error| error.to_string())?;
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
    Ok((Mesh::new(senders, lanes, config), receivers))
}

/// Takes what one other shard sends. While this shard's queue is full it takes nothing, and the lane fills up.
async fn receive_lane<H: Handler>(shard: Rc<Shard<H>>, mut lane: ConnectedReceiver<ShardMsg>) {
    let mut slice = Slice::begin();
    while let Some(message) = slice.wait(lane.next()).await {
        match message {
            ShardMsg::Publish(publish) => {
                poll_fn(|cx| shard.core.borrow_mut().publishes.poll_room(cx)).await;
                shard.core.borrow_mut().enqueue(publish);
            }
            ShardMsg::Client(client) => {
                if let Err(refusal) = listener::take_in(&shard, client) {
                    tracing::debug!("a connection that another shard handed over was refused: {refusal}");
                }
            }
            ShardMsg::Reclaim => shard.core.borrow_mut().reclaim_if_needed(),
            ShardMsg::Draining => shard.core.borrow_mut().draining_peers += 1,
            ShardMsg::Hello { .. } => {}
        }
        slice.pause_if_over().await;
    }
}

/// Passes on what full mesh queues did not take.
async fn retry_mesh<H: Handler>(shard: Rc<Shard<H>>) {
    loop {
        poll_fn(|cx| shard.core.borrow_mut().mesh.poll_waiting(cx)).await;
        glommio::timer::sleep(Duration::from_millis(MESH_RETRY_MS)).await;
        let core = &mut *shard.core.borrow_mut();
        core.mesh.retry();
        core.metrics.mesh_backlog.set(core.mesh.waiting() as u64);
    }
}

/// Moves the shard's clock on.
async fn tick<H: Handler>(shard: Rc<Shard<H>>) {
    let started = Instant::now();
    loop {
        let asleep = Instant::now();
        glommio::timer::sleep(Duration::from_millis(TICK_MS)).await;
        let late_ms = (asleep.elapsed().as_millis() as u64).saturating_sub(TICK_MS);
        let passed = started.elapsed().as_millis() / u128::from(TICK_MS);
        let mut slice = Slice::begin();
        note_tick(&shard.core.borrow(), late_ms);
        shard.core.borrow_mut().see_to_polls();
        shard.core.borrow_mut().trim_heap();
        shard.core.borrow_mut().see_to_memory();
        let turns = shard.core.borrow_mut().wheel.catch_up(Tick::try_from(passed).unwrap_or(NEVER));
        for _ in 0..turns {
            let due = shard.core.borrow_mut().wheel.turn();
            // Clients that came together are due together, so there may be many.
            for some in due.chunks(FANOUT_SLICE) {
                shard.core.borrow_mut().look_at(some);
                slice.pause_if_over().await;
            }
        }
        shard.core.borrow_mut().proofs.turn(turns);
        loop {
            let due = shard.core.borrow_mut().take_due_proofs();
            let Some(written) = due else { break };
            shard.core.borrow_mut().prove(&written);
            slice.pause_if_over().await;
        }
    }
}

/// Counts what is looked at once a tick. `late_ms`: how much later than it should the tick came.
fn note_tick(core: &Engine, late_ms: u64) {
    if late_ms >= STALL_MS {
        core.metrics.stalls.add(1);
        core.metrics.stall_ms_max.set(core.metrics.stall_ms_max.get().max(late_ms));
    }
    if late_ms >= ABSENCE_MS {
        tracing::warn!(
            shard = core.index,
            "away for {late_ms} ms: the process or the machine was paused, or something kept the core busy; \
             that time counts against no client"
        );
    }
    if core.index == 0
        && core.registry.limits_memory()
        && let Some(bytes) = host::resident_bytes()
    {
        core.registry.note_resident(bytes);
    }
    core.metrics.topics.set(core.topics.len() as u64);
    core.metrics.pool_misses.set(core.pool.misses());
}

/// Does what the rest of the process asks for, also while the shard drains.
async fn obey<H: Handler>(shard: Rc<Shard<H>>, commands: Receiver<Command>) {
    let mut slice = Slice::begin();
    while let Ok(command) = slice.wait(commands.recv()).await {
        match command {
            Command::Publish(publish) => {
                poll_fn(|cx| shard.core.borrow_mut().publishes.poll_room(cx)).await;
                shard.core.borrow_mut().enqueue(publish);
            }
            Command::Close { id, reason } => {
                let core = &mut *shard.core.borrow_mut();
                if let Some(row) = core.registry.get(id).filter(|row| row.shard() == core.index) {
                    core.close_in_order(row.key(), reason);
                }
            }
            Command::Query(query) => crate::engine::query::answer(&shard.core.borrow(), query),
            Command::SetPolicy { topic, policy } => shard.core.borrow_mut().topics.set_policy(topic, policy),
        }
        slice.pause_if_over().await;
    }
}
