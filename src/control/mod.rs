//! The control plane: an HTTP API, metrics and a dashboard, on a thread of its own.
//!
//! It is an ordinary tokio runtime. It reaches the shards through a [`ServerHandle`] alone, so that a slow scrape or a
//! stuck HTTP client costs the shards nothing.

mod api;
mod assets;
mod auth;
mod batch;
mod bind;
mod body;
mod connections;
mod counts;
mod direct;
mod events;
mod exposition;
mod extract;
mod figures;
mod gathered;
mod guide;
mod health;
mod history;
mod lines;
mod listen;
mod listeners;
mod media_type;
mod metrics;
mod openapi;
mod places;
mod probes;
mod problem;
mod publish;
mod query;
mod router;
mod samples;
mod stats;
mod token;
mod token_file;
mod topics;
mod visit;
mod waking;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::watch;

use crate::config::Config;
use crate::config::control::{
    CONTROL_ANSWER_MS, CONTROL_BODY_MS, CONTROL_CONNECTIONS_MAX, CONTROL_HEAD_MS, CONTROL_LOBBY_MAX, CONTROL_WRITE_MS,
    EVENT_MS,
};
use crate::host;
use crate::server::handle::ServerHandle;
use crate::server::handover;

pub use metrics::{METRICS, MetricInfo};
pub use problem::ProblemCode;
use token::Token;
pub use token_file::{TokenError, read_token};

/// Where the control plane listens, and what calls must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlOptions {
    /// The addresses, one at least. Port 0 lets the kernel choose, one port for all. Those after the first are left out
    /// where the machine doesn't have them: `::1` on one without IPv6.
    pub addrs: Vec<SocketAddr>,
    /// A file with the token that calls must show; `None`: none, which is allowed on the loopback only.
    pub token_file: Option<PathBuf>,
    /// How much its clients may take.
    pub limits: ControlLimits,
}

/// How much time and how many places the clients of a control plane may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControlLimits {
    /// Connections whose callers may call: they show the token, where one is needed. While all of them are being served,
    /// further callers are told so and closed; an idle one makes room.
    pub connections: usize,
    /// Connections besides: those that have asked nothing yet, or for health alone, or were refused. The one that has been
    /// silent for the longest time makes room for the next.
    pub lobby: usize,
    /// Time in which the head of a request must be complete, from the end of the request before.
    pub head_time: Duration,
    /// Time in which a body must be complete.
    pub body_time: Duration,
    /// Time in which a client must take something of its response.
    pub write_time: Duration,
    /// Time that a request waits for the shards to answer.
    pub answer_time: Duration,
    /// Time between two events of the event stream.
    pub event_time: Duration,
}

impl Default for ControlLimits {
    fn default() -> Self {
        ControlLimits {
            connections: CONTROL_CONNECTIONS_MAX,
            lobby: CONTROL_LOBBY_MAX,
            head_time: Duration::from_millis(CONTROL_HEAD_MS),
            body_time: Duration::from_millis(CONTROL_BODY_MS),
            write_time: Duration::from_millis(CONTROL_WRITE_MS),
            answer_time: Duration::from_millis(CONTROL_ANSWER_MS),
            event_time: Duration::from_millis(EVENT_MS),
        }
    }
}

impl ControlOptions {
    /// What a server's settings say; `None`: no control plane.
    pub fn of(config: &Config) -> Option<Self> {
        let token_file = config.control_token_file.clone();
        let addrs = config.control.0.clone();
        (!addrs.is_empty()).then(|| ControlOptions { addrs, token_file, limits: ControlLimits::default() })
    }

    /// Looks whether a control plane could be started, and takes nothing: whether the addresses are this machine's, and
    /// whether the token can be had. Whether the port is free is not looked at. Returns what is not as safe as it could
    /// be, in sentences for the operator.
    ///
    /// # Errors
    /// The token can't be had, or an address is not this machine's.
    pub fn check(&self) -> Result<Vec<String>, ControlError> {
        let (_, mut warnings) = self.token()?;
        for (index, &addr) in self.addrs.iter().enumerate() {
            match host::check_address(addr) {
                Ok(()) => warnings.extend(host::check_port(addr)),
                Err(source) if index > 0 && bind::is_absent(&source) => {}
                Err(source) => return Err(ControlError::Bind { addr, source }),
            }
        }
        Ok(warnings)
    }

    /// The token, if there is one, and what is not as safe with it as it could be.
    fn token(&self) -> Result<(Option<Token>, Vec<String>), ControlError> {
        let open = self.addrs.iter().find(|addr| !addr.ip().is_loopback());
        match (&self.token_file, open) {
            (Some(path), _) => {
                let failed = |source| ControlError::Token { path: path.clone(), source };
                let (token, exposure) = Token::load(path).map_err(failed)?;
                Ok((Some(token), exposure.into_iter().collect()))
            }
            (None, None) => Ok((None, Vec::new())),
            (None, Some(&addr)) => Err(ControlError::Open { addr }),
        }
    }
}

/// Why the control plane did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Others could reach it.
    #[error("the control plane on {addr} needs a token, since others can reach it; name its file (control_token_file)")]
    Open {
        /// The address.
        addr: SocketAddr,
    },
    /// The token can't be had.
    #[error("the token file {path}: {source}", path = path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TokenError,
    },
    /// The address can't be listened on.
    #[error(
        "the control plane can't listen on {addr}: {source}; stop what listens there, or choose another address, or \
         none, with --control off"
    )]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
    /// Its thread did not start.
    #[error("the control plane's thread did not start: {0}")]
    Thread(io::Error),
}

/// A control plane that has its address and its token, but answers nobody yet.
pub struct Bound {
    listeners: Vec<TcpListener>,
    addrs: Vec<SocketAddr>,
    token: Option<Token>,
    warnings: Vec<String>,
    limits: ControlLimits,
    log_lines_dropped: fn() -> u64,
}

/// A running control plane. Dropping it stops it in the background; [`Control::stop`] waits for the end.
pub struct Control {
    addrs: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Control {
    /// Starts the control plane of a server.
    ///
    /// # Errors
    /// The token or the address can't be had.
    pub fn start(handle: ServerHandle, options: &ControlOptions) -> Result<Control, ControlError> {
        Control::bind(options)?.start(handle)
    }

    /// Takes address and token before there is a server, so that a server need not start in vain.
    ///
    /// # Errors
    /// The token or the address can't be had.
    pub fn bind(options: &ControlOptions) -> Result<Bound, ControlError> {
        let (token, warnings) = options.token()?;
        let listeners = bind::all(&options.addrs)?;
        let addrs = listeners.iter().map(|(_, addr)| *addr).collect();
        let listeners = listeners.into_iter().map(|(listener, _)| listener).collect();
        Ok(Bound { listeners, addrs, token, warnings, limits: options.limits, log_lines_dropped: || 0 })
    }

    /// The first address it listens on, with the port that the kernel chose for port 0.
    pub fn addr(&self) -> SocketAddr {
        self.addrs[0]
    }

    /// All addresses it listens on.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Stops it: requests in progress have two seconds to end.
    pub fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the control plane's thread panicked");
        }
    }
}

impl Bound {
    /// Has the metric `corecast_log_lines_dropped_total` show what the program counts that writes the log. Without it the
    /// metric is 0.
    #[must_use]
    pub fn with_log_lines_dropped(mut self, count: fn() -> u64) -> Self {
        self.log_lines_dropped = count;
        self
    }

    /// Begins to answer for a server.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn start(self, handle: ServerHandle) -> Result<Control, ControlError> {
        let Bound { listeners, addrs, token, limits, log_lines_dropped, .. } = self;
        let resident_bytes = host::resident_bytes().unwrap_or(0);
        let start = figures::Start { at: Instant::now(), resident_bytes, log_lines_dropped };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ControlError::Thread)?;
        let listeners = {
            let _runtime = runtime.enter();
            let listeners = listeners.into_iter().map(tokio::net::TcpListener::from_std);
            listeners.collect::<io::Result<Vec<_>>>().map_err(ControlError::Thread)?
        };
        let (stop, stopped) = watch::channel(false);
        let (listeners, let_go): (Vec<_>, Vec<_>) = listeners
            .into_iter()
            .map(|listener| {
                let (let_go, gone) = watch::channel(false);
                ((listener, gone), let_go)
            })
            .unzip();
        for (addr, let_go) in addrs.iter().zip(let_go) {
            handle.offer(*addr, move || {
                let_go.send_replace(true);
            });
        }
        let serve = move || {
            let api = api::Api::new(handle, token, limits, start, stopped.clone());
            let serve = listen::serve(listeners, router::router(api.clone()), api.clone(), stopped);
            let waking = api.clone();
            runtime.spawn(async move { waking.keep_waking().await });
            runtime.block_on(futures_lite::future::or(serve, history::record(api)));
        };
        let thread = std::thread::Builder::new().name("control".into()).spawn(serve).map_err(ControlError::Thread)?;
        handover::take(&addrs);
        Ok(Control { addrs, stop, thread })
    }

    /// The first address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addrs[0]
    }

    /// What is not as safe as it could be, in sentences for the operator.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}
