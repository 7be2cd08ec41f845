//! The names of what is spoken, and which servers speak it.

use std::net::SocketAddr;

use clap::ValueEnum;

/// What the load generator speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Framing {
    /// Lines
    Line,
    /// Messages preceded by their length
    Length,
    /// A WebSocket at /ws
    Ws,
    /// The same, with an offer to have messages compressed (permessage-deflate)
    WsDeflate,
    /// Server-sent events at /sse; what is published goes through a WebSocket
    Sse,
    /// NATS, to compare with nats-server
    Nats,
    /// RESP2, to compare with Redis' pub/sub
    Redis,
    /// MQTT 3.1.1 with QoS 0, to compare with brokers such as mosquitto
    Mqtt,
    /// A WebSocket at /sub, what is published goes to /pub: to compare with nginx and nchan
    Nchan,
    /// The publisher's side of it.
    #[value(skip)]
    NchanPost,
}

impl Framing {
    /// Those in which a connection begins with messages at once.
    #[cfg(test)]
    pub(in crate::load) const PLAIN: [Framing; 2] = [Framing::Line, Framing::Length];

    /// The name used in options and reports.
    pub(in crate::load) fn name(self) -> &'static str {
        match self {
            Framing::Line => "line",
            Framing::Length => "length",
            Framing::Ws => "ws",
            Framing::WsDeflate => "ws-deflate",
            Framing::Sse => "sse",
            Framing::Nats => "nats",
            Framing::Redis => "redis",
            Framing::Mqtt => "mqtt",
            Framing::Nchan | Framing::NchanPost => "nchan",
        }
    }

    /// Whether a server can send back what it gets.
    pub(in crate::load) fn can_echo(self) -> bool {
        match self {
            Framing::Line | Framing::Length | Framing::Ws | Framing::WsDeflate | Framing::Redis => true,
            Framing::Sse | Framing::Nats | Framing::Mqtt | Framing::Nchan | Framing::NchanPost => false,
        }
    }

    /// A command that starts a server for it, with the options that a run needs of a server of this project.
    pub(in crate::load) fn server_command(self, target: SocketAddr, options: &str) -> String {
        let (ip, port) = (target.ip(), target.port());
        match self {
            Framing::Line | Framing::Length => format!("corecast serve --listen {}={target}{options}", self.name()),
            Framing::Ws | Framing::WsDeflate | Framing::Sse => {
                format!("corecast serve --listen http={target}{options}")
            }
            Framing::Nats => format!("nats-server -a {ip} -p {port}"),
            Framing::Redis => format!("redis-server --bind {ip} --port {port} --protected-mode no"),
            Framing::Mqtt => format!("mosquitto -p {port}"),
            Framing::Nchan | Framing::NchanPost => {
                format!("nginx with `listen {target}`, a nchan_subscriber at /sub and a nchan_publisher at /pub")
            }
        }
    }
}
