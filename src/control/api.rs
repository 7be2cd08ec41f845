//! What the handlers of requests share.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use crate::config::control::BODY_PERMITS;
use crate::control::ControlLimits;
use crate::control::auth::Access;
use crate::control::figures::{Start, Stats};
use crate::control::listeners::Listeners;
use crate::control::problem::Problem;
use crate::control::samples::Samples;
use crate::control::token::Token;
use crate::message::Topic;
use crate::server::handle::{QueryError, ServerHandle};

/// What the handlers of requests share. Clones are cheap and all the same.
#[derive(Clone)]
pub(super) struct Api(Arc<Shared>);

struct Shared {
    handle: ServerHandle,
    limits: ControlLimits,
    start: Start,
    /// A permit for each KiB of request bodies.
    bodies: Arc<Semaphore>,
    listeners: Listeners,
    samples: Samples,
    /// Who may call, and from which pages.
    access: Access,
}

impl Api {
    /// What the control plane of `handle`'s server needs, until `stop` changes.
    pub(super) fn new(
        handle: ServerHandle,
        token: Option<Token>,
        limits: ControlLimits,
        start: Start,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let bodies = Arc::new(Semaphore::new(BODY_PERMITS));
        let access = Access::new(handle.config(), token);
        let (listeners, samples) = (Listeners::new(stop), Samples::default());
        Api(Arc::new(Shared { handle, limits, start, bodies, listeners, samples, access }))
    }

    pub(super) fn handle(&self) -> &ServerHandle {
        &self.0.handle
    }

    pub(super) fn access(&self) -> &Access {
        &self.0.access
    }

    pub(super) fn samples(&self) -> &Samples {
        &self.0.samples
    }

    pub(super) fn body_budget(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.bodies)
    }

    pub(super) fn listeners(&self) -> &Listeners {
        &self.0.listeners
    }

    pub(super) fn start(&self) -> Start {
        self.0.start
    }

    pub(super) fn stats(&self) -> Stats {
        Stats::take(self.handle(), self.0.start)
    }

    pub(super) fn limits(&self) -> &ControlLimits {
        &self.0.limits
    }

    /// Waits for the shards' answer to a question, but not for ever.
    pub(super) async fn answer<T>(&self, question: impl Future<Output = Result<T, QueryError>>) -> Result<T, Problem> {
        match tokio::time::timeout(self.limits().answer_time, question).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Problem::late()),
        }
    }

    /// Takes a topic that clients of this server can subscribe to.
    pub(super) fn topic(&self, name: &str) -> Result<Topic, Problem> {
        Topic::check(name.as_bytes(), self.handle().config().topic_bytes_max)?;
        Ok(Topic::new(name.as_bytes())?)
    }
}
