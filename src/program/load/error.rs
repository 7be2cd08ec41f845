//! What keeps a load run from starting, or makes it pointless to go on.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

/// Why a load run ended without a report. Each text says what was tried, on what, and the remedy.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum LoadError {
    /// An option's value can't be used.
    #[error("{option} is {value}; {allowed}")]
    Argument {
        /// The option as it is typed.
        option: &'static str,
        /// Its value.
        value: String,
        /// What would be allowed.
        allowed: String,
    },
    /// The process may not open a descriptor for each connection.
    #[error(
        "{connections} connections need {needed} file descriptors, but this process may open {limit}{}; \
         raise the limit (`ulimit -n {needed}`, or run deploy/tune.sh and log in again), or give more --processes or fewer --connections",
        .refusal.as_deref().map(|refusal| format!(": {refusal}")).unwrap_or_default()
    )]
    TooFewFds {
        /// Connections of one process.
        connections: usize,
        /// Descriptors they need, with what the process needs itself.
        needed: u64,
        /// What they may be raised to.
        limit: u64,
        /// Why that is not the hard limit.
        refusal: Option<String>,
    },
    /// The source addresses have too few ports for the connections.
    #[error(
        "{connections} connections don't fit into {sources} source address(es) with {ports} ports each; \
         give more addresses with --source-ips A-B, or widen net.ipv4.ip_local_port_range (deploy/tune.sh)"
    )]
    TooFewPorts {
        /// Connections asked for.
        connections: usize,
        /// Source addresses at hand.
        sources: usize,
        /// Ports of each.
        ports: usize,
    },
    /// The target's name has no address.
    #[error("cannot resolve --target {target}: {source}; write address:port, as in 127.0.0.1:8888")]
    Resolve {
        /// The target as it was typed.
        target: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Not one connection could be made.
    #[error("cannot connect to {target}: {source}; start a server there first: `{server}`")]
    Unreachable {
        /// Where to.
        target: SocketAddr,
        /// What the kernel said.
        source: io::Error,
        /// The command that starts a server for this run.
        server: String,
    },
    /// Every connection failed before the server answered.
    #[error(
        "none of {connections} connections to {target} was answered ({kinds}); \
         look at the server's log, its limits and its framing (this run speaks {framing})"
    )]
    NothingConnected {
        /// Connections asked for.
        connections: usize,
        /// Where to.
        target: SocketAddr,
        /// The failures, by kind.
        kinds: String,
        /// The framing that this run speaks.
        framing: &'static str,
    },
    /// Something answers at the target, but not as this scenario needs it.
    #[error("{target} answered `{said}` to `{sent}`, so this run cannot use it; it needs `{server}`")]
    WrongServer {
        /// Where to.
        target: SocketAddr,
        /// What was sent, cut to a readable length.
        sent: String,
        /// What came back, cut to a readable length.
        said: String,
        /// The command that starts a server for this run.
        server: String,
    },
    /// What answers at the target speaks something else than this run.
    #[error("{target} {met}, and this run speaks {framing}; {remedy}")]
    Misdirected {
        /// Where to.
        target: SocketAddr,
        /// What was found there.
        met: &'static str,
        /// What this run speaks.
        framing: &'static str,
        /// What was probably meant.
        remedy: String,
    },
    /// The target takes connections and says nothing.
    #[error(
        "{target} took the connection but did not answer `{sent}` within {seconds} s; \
         look at the server's log and its framing (this run speaks {framing})"
    )]
    NoAnswer {
        /// Where to.
        target: SocketAddr,
        /// What was sent, cut to a readable length.
        sent: String,
        /// How long the answer was waited for.
        seconds: u64,
        /// The framing that this run speaks.
        framing: &'static str,
    },
    /// The server takes no publishes from clients.
    #[error("{target} refuses publishes from clients; start the server with --client-publish")]
    PublishForbidden {
        /// Where to.
        target: SocketAddr,
    },
    /// The server refused a publish for a reason that would hit every one of them.
    #[error("{target} refused a publish with `ERR {error}`; change --topic or --message-size, or the server's limits")]
    PublishRefused {
        /// Where to.
        target: SocketAddr,
        /// The error's code and text.
        error: String,
    },
    /// The kernel does not tell what a process or the machine uses.
    #[error("cannot read {what}: {source}", what = what.display())]
    Unreadable {
        /// What was read.
        what: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The server's control plane does not answer as it should.
    #[error(transparent)]
    Control(crate::commands::CommandError),
    /// The result can't be drawn.
    #[error("cannot draw the result into --svg: {reason}")]
    Plot {
        /// Why not.
        reason: String,
    },
    /// The result can't be written to the file.
    #[error("cannot write the result to {option} {path}: {source}", path = path.display())]
    Output {
        /// The option as it is typed.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// One of the run's processes did not carry its part through.
    #[error("process {number} of {count} (pid {pid}) {what}")]
    Process {
        /// Which one, from 1 on.
        number: usize,
        /// Processes of the run.
        count: usize,
        /// Its process id.
        pid: u32,
        /// What became of it.
        what: String,
    },
    /// The system refused something that a load run can't do without.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl LoadError {
    /// Whether the command line is at fault, rather than the server or the machine.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, LoadError::Argument { .. } | LoadError::TooFewFds { .. } | LoadError::TooFewPorts { .. })
    }

    /// Whether it may be that something else than was thought answers at the target.
    pub(super) fn may_be_misdirected(&self) -> bool {
        match self {
            LoadError::Unreachable { source, .. } => source.kind() != io::ErrorKind::ConnectionRefused,
            LoadError::NothingConnected { .. }
            | LoadError::WrongServer { .. }
            | LoadError::NoAnswer { .. }
            | LoadError::PublishRefused { .. }
            | LoadError::Process { .. } => true,
            _ => false,
        }
    }

    /// For `map_err`: names what was tried.
    pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> LoadError {
        move |source| LoadError::System { what, source }
    }
}
