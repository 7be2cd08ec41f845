//! What a server is to be, before it starts.

use std::sync::Arc;

use super::handle::WeakHandle;
use super::{Server, StartError};
use crate::config::{Config, ControlAddr, Listen};
use crate::engine::Render;
use crate::handler::{Handler, OnPanic};

/// A server that has not started: where it listens and who serves there, its settings, and what a panic leads to.
///
/// [`Server::builder`] makes one. It opens no port but those that it is told to.
#[must_use = "it starts with `start`"]
pub struct ServerBuilder {
    pub(super) config: Config,
    pub(super) apps: Vec<App>,
    /// By address: the number of the handler that serves it.
    pub(super) handlers: Vec<u8>,
    pub(super) on_panic: OnPanic,
    listen: Vec<Listen>,
    has_control_plane: bool,
}

/// Makes the handler of a shard.
type Make = dyn Fn(&ShardContext) -> Box<dyn Handler> + Send + Sync;

/// The handlers of one kind.
#[derive(Clone)]
pub(super) struct App {
    pub(super) make: Arc<Make>,
    pub(super) render: Render,
}

/// Handlers of different kinds that a server may have.
const APPS_MAX: usize = 64;

/// The shard that a handler is made for.
#[derive(Clone)]
pub struct ShardContext {
    pub(super) index: usize,
    pub(super) shards: usize,
    pub(super) server: WeakHandle,
}

impl ShardContext {
    /// The shard's number: 0 to [`shards`](ShardContext::shards) - 1.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many shards the server has.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// The server, for a handler that asks about other shards, publishes from another thread, or shuts it down. It is weak:
    /// what a handler holds does not keep the server running.
    pub fn server(&self) -> &WeakHandle {
        &self.server
    }
}

impl ServerBuilder {
    pub(super) fn new() -> Self {
        ServerBuilder {
            config: Config::default(),
            apps: Vec::new(),
            handlers: Vec::new(),
            on_panic: OnPanic::default(),
            listen: Vec::new(),
            has_control_plane: false,
        }
    }

    /// Listens on further addresses, too, with handlers of their own. They share topics with the others, and a broadcast
    /// reaches the clients of all; each puts what its clients read into its own words.
    ///
    /// # Panics
    /// There are 64 kinds of handlers already.
    pub fn listen<H: Handler>(
        mut self,
        listen: impl IntoIterator<Item = Listen>,
        make: impl Fn(&ShardContext) -> H + Send + Sync + 'static,
    ) -> Self {
        assert!(self.apps.len() < APPS_MAX, "a server has at most {APPS_MAX} kinds of handlers");
        let number = self.apps.len() as u8;
        self.apps.push(App { make: Arc::new(move |shard| Box::new(make(shard))), render: H::render });
        self.listen.extend(listen);
        self.handlers.resize(self.listen.len(), number);
        self
    }

    /// The settings. Their `listen` is not used, since the builder has addresses of its own; nor is their `control`,
    /// unless [`ServerBuilder::with_control_plane`] says that there will be one.
    pub fn config(self, config: Config) -> Self {
        ServerBuilder { config, ..self }
    }

    /// Leaves room for a control plane at the settings' `control`, which the caller starts: it takes some descriptors.
    pub fn with_control_plane(self) -> Self {
        ServerBuilder { has_control_plane: true, ..self }
    }

    /// What a panic in a callback leads to; [`OnPanic::CloseConnection`] if nothing is said.
    pub fn on_panic(self, on_panic: OnPanic) -> Self {
        ServerBuilder { on_panic, ..self }
    }

    /// Starts the server: each shard on an executor of its own.
    ///
    /// Returns once every shard accepts connections. The limit on open files is raised as far as it goes;
    /// [`Server::warnings`] tells what the host grants less of than the settings ask for.
    ///
    /// # Errors
    /// A setting, the host, an address or an executor is at fault. Nothing is left running then.
    pub fn start(self) -> Result<Server, StartError> {
        let control = if self.has_control_plane { self.config.control.clone() } else { ControlAddr::off() };
        let config = Config { listen: self.listen.clone(), control, ..self.config };
        Server::start(ServerBuilder { config, ..self })
    }
}
