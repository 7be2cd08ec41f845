//! What the handlers of requests share.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use crate::config::SlowConsumer;
use crate::config::control::BODY_PERMITS;
use crate::control::ControlLimits;
use crate::control::auth::Access;
use crate::control::figures::{Start, Stats};
use crate::control::listeners::Listeners;
use crate::control::problem::Problem;
use crate::control::samples::Samples;
use crate::control::token::Token;
use crate::control::waking::Waking;
use crate::handler::PublishError;
use crate::message::{Payload, PublishId, Target, Topic};
use crate::receipt::Published;
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
    waking: Waking,
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
        let (listeners, samples, waking) = (Listeners::new(stop), Samples::default(), Waking::default());
        Api(Arc::new(Shared { handle, limits, start, bodies, listeners, samples, access, waking }))
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

    /// Publishes; the shards are woken for it a little later, with what else there is. Its id, and with it what the receipt
    /// comes from, if one is wanted.
    pub(super) fn publish(
        &self,
        target: Target,
        payload: Payload,
        policy: Option<SlowConsumer>,
        receipt: bool,
    ) -> Result<(PublishId, Option<Published>), PublishError> {
        let (handle, waking) = (&self.0.handle, &self.0.waking);
        let published = handle.publish_quietly(target, payload, policy, receipt);
        match &published {
            Ok(_) => waking.note(handle),
            // What it has to do should not wait.
            Err(PublishError::Busy) => waking.wake(handle),
            Err(_) => {}
        }
        published
    }

    /// Wakes the shards for what is published; a task of its own.
    pub(super) async fn keep_waking(&self) {
        self.0.waking.run(&self.0.handle).await;
    }

    /// Takes a topic that clients of this server can subscribe to.
    pub(super) fn topic(&self, name: &str) -> Result<Topic, Problem> {
        Topic::check(name.as_bytes(), self.handle().config().topic_bytes_max)?;
        Ok(Topic::new(name.as_bytes())?)
    }
}
