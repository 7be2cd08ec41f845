//! A server's life: start all shards or none, and wait for their end.

pub(crate) mod bind;
mod builder;
pub(crate) mod handle;
pub(crate) mod handover;
pub(crate) mod placement;
pub(crate) mod report;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_channel::{Receiver, Sender};
use glommio::channels::channel_mesh::MeshBuilder;
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder};
use thiserror::Error;

use crate::config::{Config, ConfigError, Framing, Listen, POOL_ARENA_BYTES, RING_DEPTH};
use crate::engine::Behaviour;
use crate::engine::panics::panic_text;
use crate::engine::registry::Registry;
use crate::handler::{Handler, Handlers, OnPanic};
use crate::host::{self, HostError};
use crate::metrics::ShardMetrics;
use crate::server::handle::{ServerHandle, ShardEnd};
use crate::server::placement::Placement;
use crate::shard::{self, Start};
use bind::BindError;
use builder::App;
pub use builder::{ServerBuilder, ShardContext};

/// Why a server did not start. Nothing of it runs.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The host does not allow it.
    #[error(transparent)]
    Host(#[from] HostError),
    /// An address can't be listened on.
    #[error("can't listen on {0}")]
    Bind(#[from] BindError),
    /// An executor did not start.
    #[error("shard {shard} did not start: {reason}")]
    Shard {
        /// The shard.
        shard: usize,
        /// What its executor said.
        reason: String,
    },
}

/// Why a server ended other than by draining.
#[derive(Debug, Error)]
#[non_exhaustive]
#[error("shard {shard} failed: {reason}; the other shards were stopped")]
pub struct RunError {
    /// The shard that failed first.
    pub shard: usize,
    /// What it said.
    pub reason: String,
}

/// A running server.
///
/// Dropping it, and all of its handles, shuts it down in the background; [`Server::wait`] waits for the end.
pub struct Server {
    handle: ServerHandle,
    threads: Vec<Thread>,
    events: Receiver<Event>,
    listen: Vec<Listen>,
    outlook: Outlook,
}

/// What a host grants to a server with certain settings.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outlook {
    /// The CPU of each shard.
    pub placement: Placement,
    /// Connections that may be open at a time.
    pub max_connections: usize,
    /// What the host grants less of than the settings ask for, in sentences for the operator.
    pub warnings: Vec<String>,
}

type Thread = ExecutorJoinHandle<()>;

/// What a shard says of itself.
enum Event {
    /// It accepts connections.
    Ready,
    Ended(Ended),
}

/// A shard's last word.
struct Ended {
    shard: usize,
    result: Result<(), String>,
}

/// Sends a shard's last word, also if its thread unwinds.
struct LastWord {
    ended: Option<Ended>,
    events: Sender<Event>,
}

impl Drop for LastWord {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            // Nobody listens any more when the server was dropped without being waited for.
            let _ = self.events.try_send(Event::Ended(ended));
        }
    }
}

impl Server {
    /// A server that is to listen on these addresses (one at least) and be served there by the handlers that `make` gives, one
    /// for each shard.
    pub fn builder<H: Handler>(
        listen: impl IntoIterator<Item = Listen>,
        make: impl Fn(&ShardContext) -> H + Send + Sync + 'static,
    ) -> ServerBuilder {
        ServerBuilder::new().listen(listen, make)
    }

    /// Starts a server as its builder describes it.
    fn start(builder: ServerBuilder) -> Result<Server, StartError> {
        let ServerBuilder { config, apps, handlers, on_panic, .. } = builder;
        let outlook = look(&config)?;
        let config = Config { buffers_max: Server::buffers_max(&config), ..config };
        let cpus = outlook.placement.cpus();
        let shards = cpus.len();
        let (sockets, listen) = bind::bind(&config, &handlers, shards)?;

        let addrs: Vec<SocketAddr> = listen.iter().map(|listen| listen.addr).collect();
        let config = Arc::new(config);
        let registry = Arc::new(Registry::new(shards, outlook.max_connections, &config));
        let mesh = MeshBuilder::full(shards, config.mesh_queue);
        let (mut ends, mut starts) = (Vec::new(), Vec::new());
        for (index, sockets) in sockets.into_iter().enumerate() {
            let (entrances, inbox) = shard::inbox::lanes(config.control_queue);
            let (drain_to, drain) = async_channel::bounded(1);
            let metrics = Arc::new(ShardMetrics::default());
            ends.push(ShardEnd { entrances, drain: drain_to, metrics: Arc::clone(&metrics) });
            starts.push(Start {
                index,
                config: Arc::clone(&config),
                registry: Arc::clone(&registry),
                metrics,
                sockets,
                mesh: mesh.clone(),
                inbox,
                drain,
            });
        }
        let handle = ServerHandle::new(ends, registry, config, addrs.clone());
        let (events_to, events) = async_channel::unbounded();
        let mut threads = Vec::new();
        for (start, cpu) in starts.into_iter().zip(cpus.iter().copied()) {
            let index = start.index;
            let context = ShardContext { index, shards, server: handle.downgrade() };
            let word = LastWord {
                ended: Some(Ended { shard: index, result: Err("its thread panicked".into()) }),
                events: events_to.clone(),
            };
            threads.push(spawn(start, cpu, context, apps.clone(), on_panic, word)?);
        }
        drop(events_to);
        for _ in 0..shards {
            if let Ok(Event::Ended(ended)) = events.recv_blocking() {
                handle.shutdown();
                let reason = ended.result.err().unwrap_or_else(|| "it ended at once".into());
                return Err(StartError::Shard { shard: ended.shard, reason });
            }
        }
        handover::take(&addrs);
        Ok(Server { handle, threads, events, listen, outlook })
    }

    /// Bytes that all connections together may hold on this host: `buffers_max`, or what stands for it where it is not set.
    pub fn buffers_max(config: &Config) -> usize {
        config.buffers_max_in(host::memory_limit())
    }

    /// A handle to steer the server with, from any thread.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// The addresses the server listens on, with the ports that the kernel chose for port 0.
    pub fn listen(&self) -> &[Listen] {
        &self.listen
    }

    /// The first address with this framing.
    pub fn addr(&self, framing: Framing) -> Option<SocketAddr> {
        self.listen.iter().find(|listen| listen.framing == framing).map(|listen| listen.addr)
    }

    /// What the host grants less of than the settings ask for, in sentences for the operator.
    pub fn warnings(&self) -> &[String] {
        &self.outlook.warnings
    }

    /// The CPU of each shard.
    pub fn placement(&self) -> &Placement {
        &self.outlook.placement
    }

    /// Looks whether a server with these settings could start on this host, and starts and takes nothing: no port, no
    /// executor. A running server is not in its way. The limit on open files of this process is raised, as for a start.
    ///
    /// Whether the ports are free is not looked at.
    ///
    /// # Errors
    /// A setting or the host is at fault, or an address is not this machine's.
    pub fn check(config: &Config) -> Result<Outlook, StartError> {
        let mut outlook = look(config)?;
        for (_, listen) in bind::wanted(config) {
            host::check_address(listen.addr).map_err(|source| BindError::new(listen, "binding", source))?;
            outlook.warnings.extend(host::check_port(listen.addr));
        }
        Ok(outlook)
    }

    /// Waits until the server has drained, which somebody must ask of a handle. It blocks the thread; [`Server::ended`] does
    /// not.
    ///
    /// # Errors
    /// A shard failed. The others were stopped then.
    pub fn wait(self) -> Result<(), RunError> {
        futures_lite::future::block_on(self.ended())
    }

    /// Resolves once the server has drained, which somebody must ask of a handle. It needs no runtime of a certain kind. A
    /// server whose future is dropped goes on until all of its handles are gone.
    ///
    /// # Errors
    /// A shard failed. The others were stopped then.
    pub async fn ended(self) -> Result<(), RunError> {
        let mut failed = None;
        for _ in 0..self.threads.len() {
            let Ok(Event::Ended(ended)) = self.events.recv().await else { break };
            let expected = self.handle.is_draining();
            let reason = match ended.result {
                Ok(()) if expected => continue,
                Ok(()) => "it ended without being asked to".into(),
                Err(reason) => reason,
            };
            tracing::error!(shard = ended.shard, %reason, "a shard failed");
            failed.get_or_insert(RunError { shard: ended.shard, reason });
            self.handle.shutdown();
        }
        for thread in self.threads {
            // They have said their last word, so this is a matter of moments. One that panicked has said so above.
            let _ = thread.join();
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Checks settings and host.
fn look(config: &Config) -> Result<Outlook, StartError> {
    config.validate()?;
    let mut warnings = Vec::new();
    let mut placement = placement::place(config, &mut warnings)?;
    placement.try_out(try_pin, &mut warnings);
    let (fds, refusal) = host::check(placement.cpus().len(), !config.control.is_off())?;
    warnings.extend(refusal);
    let max_connections = effective_max(config, &fds, &mut warnings);
    Ok(Outlook { placement, max_connections, warnings })
}

fn effective_max(config: &Config, fds: &host::Fds, warnings: &mut Vec<String>) -> usize {
    if fds.connections < config.max_connections {
        warnings.push(format!(
            "max_connections is {} but the limit on open files ({}) leaves room for {}, which is the limit now; \
             raise it: `ulimit -n`, LimitNOFILE= in a systemd unit, or deploy/tune.sh persist for logins",
            config.max_connections, fds.limit, fds.connections
        ));
    }
    config.max_connections.min(fds.connections)
}

/// Starts the executor of one shard, on its CPU if it has one.
fn spawn(
    start: Start,
    cpu: Option<usize>,
    context: ShardContext,
    apps: Vec<App>,
    on_panic: OnPanic,
    mut word: LastWord,
) -> Result<Thread, StartError> {
    let index = start.index;
    let failed = |error: glommio::GlommioError<()>| StartError::Shard { shard: index, reason: error.to_string() };
    let placement = cpu.map_or(glommio::Placement::Unbound, glommio::Placement::Fixed);
    LocalExecutorBuilder::new(placement)
        .name(&format!("shard-{index}"))
        .io_memory(POOL_ARENA_BYTES)
        .ring_depth(RING_DEPTH)
        .preempt_timer(shard::yielding::NEVER)
        .spawn(move || async move {
            // A panic that unwinds through the executor would leave its thread hanging.
            let make = || {
                let handlers = Handlers::new(apps.iter().map(|app| (app.make)(&context)).collect());
                let renders = apps.iter().map(|app| app.render).collect();
                let behaviour = Behaviour::new(&handlers, renders, on_panic);
                (handlers, behaviour)
            };
            let result = match std::panic::catch_unwind(AssertUnwindSafe(make)) {
                Ok((handlers, behaviour)) => {
                    let ready = || {
                        // The starter waits for it, unless another shard has failed meanwhile.
                        let _ = word.events.try_send(Event::Ready);
                    };
                    shard::run(start, handlers, behaviour, ready).await
                }
                Err(panic) => Err(format!("making its handler panicked: {}", panic_text(&*panic))),
            };
            if let Some(ended) = &mut word.ended {
                ended.result = result;
            }
        })
        .map_err(failed)
}

/// Whether a thread of this process may be pinned to a CPU, tried on a thread of its own.
fn try_pin(cpu: usize) -> Result<(), String> {
    glommio::Placement::Fixed(cpu).generate_cpu_set().map_err(|error| error.to_string())?;
    let pin = move || {
        let mut set = rustix::thread::CpuSet::new();
        set.set(cpu);
        rustix::thread::sched_setaffinity(None, &set).map_err(|errno| errno.to_string())
    };
    std::thread::spawn(pin).join().unwrap_or_else(|_| Err("the attempt panicked".into()))
}
