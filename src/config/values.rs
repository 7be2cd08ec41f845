//! The types of settings that are more than a number or a text.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};

use crate::config::{ParseError, SHARDS_MAX};

/// How the bytes of a stream are cut into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(rename_all = "kebab-case"))]
#[repr(u8)]
#[non_exhaustive]
pub enum Framing {
    /// Bytes up to LF; one CR before the LF is dropped.
    Line,
    /// A u32 in big-endian order, then that many bytes.
    Length,
    /// HTTP, which opens WebSockets and streams of server-sent events at the paths that the handler declares.
    Http,
}

impl Framing {
    /// Every framing, in the order of their numbers.
    pub const ALL: [Framing; 3] = [Framing::Line, Framing::Length, Framing::Http];

    /// The name used in settings, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Framing::Line => "line",
            Framing::Length => "length",
            Framing::Http => "http",
        }
    }
}

/// What happens to a pushed message when a client's queue is full and its socket takes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum SlowConsumer {
    /// This message is dropped for this client; later ones are tried.
    #[default]
    Skip,
    /// The oldest waiting message makes room.
    DropOldest,
    /// At most the newest message per topic waits.
    KeepLatest,
    /// The client is disconnected.
    Disconnect,
}

impl SlowConsumer {
    /// Every policy.
    pub const ALL: [SlowConsumer; 4] =
        [SlowConsumer::Skip, SlowConsumer::DropOldest, SlowConsumer::KeepLatest, SlowConsumer::Disconnect];

    /// The name used in settings, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            SlowConsumer::Skip => "skip",
            SlowConsumer::DropOldest => "drop-oldest",
            SlowConsumer::KeepLatest => "keep-latest",
            SlowConsumer::Disconnect => "disconnect",
        }
    }
}

/// Whether shards are pinned to CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Pin {
    /// Each to a CPU of its own, where there are enough and no quota: all that there are, or those that are used least.
    #[default]
    Auto,
    /// The kernel moves them as it likes.
    Off,
}

impl Pin {
    /// Every way.
    pub const ALL: [Pin; 2] = [Pin::Auto, Pin::Off];

    /// The name used in settings.
    pub fn name(self) -> &'static str {
        match self {
            Pin::Auto => "auto",
            Pin::Off => "off",
        }
    }
}

macro_rules! from_name {
    ($type:ty, $what:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $type {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                <$type>::read(text).map_err(ParseError::new)
            }
        }

        impl $type {
            fn read(text: &str) -> Result<Self, String> {
                Self::ALL.into_iter().find(|value| value.name() == text).ok_or_else(|| {
                    let names: Vec<_> = Self::ALL.iter().map(|value| value.name()).collect();
                    format!("`{text}` is not a {}; use one of: {}", $what, names.join(", "))
                })
            }
        }
    };
}

from_name!(Framing, "framing");
from_name!(Pin, "way to pin shards");
from_name!(SlowConsumer, "slow-consumer policy");

/// One address to listen on and the framing spoken there, written `framing=address:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// How messages are cut from the streams accepted here.
    pub framing: Framing,
    /// Where to listen. Port 0 lets the kernel choose one port for all shards.
    pub addr: SocketAddr,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.framing, self.addr)
    }
}

impl FromStr for Listen {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Listen::read(text).map_err(ParseError::new)
    }
}

impl Listen {
    fn read(text: &str) -> Result<Self, String> {
        let (framing, addr) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` has no `=`; write framing=address:port, as in line=0.0.0.0:8888"))?;
        let framing = framing.parse()?;
        if let Some(port) = addr.strip_prefix("localhost:") {
            return Err(format!(
                "`{addr}` is two addresses; give both, as in {framing}=127.0.0.1:{port} and {framing}=[::1]:{port}"
            ));
        }
        let addr: SocketAddr = addr.parse().map_err(|_| {
            format!("`{addr}` is not an address; write an IP address and a port, as in 0.0.0.0:8888 or [::]:8888")
        })?;
        Ok(Listen { framing, addr: canonical(addr) })
    }
}

/// An address as everybody writes it: an IPv4 address that is wrapped in one of IPv6 (`::ffff:192.0.2.1`) without that.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

/// Whether a listener on one of these addresses gets all that comes to the other.
pub(crate) fn covers(wide: SocketAddr, narrow: SocketAddr) -> bool {
    let covers_ip = match wide.ip() {
        // One on all addresses of IPv6 takes IPv4, too.
        IpAddr::V6(ip) => ip.is_unspecified(),
        IpAddr::V4(ip) => ip.is_unspecified() && narrow.is_ipv4(),
    };
    wide.port() == narrow.port() && (covers_ip || wide.ip() == narrow.ip())
}

/// Where the control plane listens, written as an address and a port, as `localhost:PORT` for both loopback addresses, or as
/// `off`, for which the list is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlAddr(pub Vec<SocketAddr>);

impl ControlAddr {
    /// Both loopback addresses, IPv4 first. A machine without IPv6 has the first one only.
    pub fn localhost(port: u16) -> Self {
        ControlAddr(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()])
    }

    /// No control plane.
    pub fn off() -> Self {
        ControlAddr(Vec::new())
    }

    /// Whether there is to be no control plane.
    pub fn is_off(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for ControlAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0[..] {
            [] => f.write_str("off"),
            [addr] => addr.fmt(f),
            [addr, ..] if *self == ControlAddr::localhost(addr.port()) => write!(f, "localhost:{}", addr.port()),
            several => f.write_str(&several.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")),
        }
    }
}

impl FromStr for ControlAddr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        ControlAddr::read(text).map_err(ParseError::new)
    }
}

impl ControlAddr {
    fn read(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(ControlAddr(Vec::new()));
        }
        if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
            return Ok(ControlAddr::localhost(port));
        }
        text.parse().map(|addr| ControlAddr(vec![canonical(addr)])).map_err(|_| {
            format!(
                "`{text}` is not an address; write an IP address and a port, as in 127.0.0.1:8081, localhost:8081 for both \
                 loopback addresses, or off"
            )
        })
    }
}

/// The cores to pin shards to, written as numbers and ranges: `0,2-3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus(pub Vec<usize>);

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<_> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&numbers.join(","))
    }
}

impl FromStr for Cpus {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Cpus::read(text).map_err(ParseError::new)
    }
}

impl Cpus {
    fn read(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a list of CPUs; write numbers and ranges, as in 0,2-3");
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: usize = first.trim().parse().map_err(|_| bad())?;
            let last: usize = last.trim().parse().map_err(|_| bad())?;
            if first > last || last >= SHARDS_MAX {
                return Err(bad());
            }
            cpus.extend(first..=last);
        }
        let listed = cpus.len();
        cpus.sort_unstable();
        cpus.dedup();
        if cpus.len() != listed {
            return Err(format!("`{text}` names a CPU twice; each shard needs a CPU of its own"));
        }
        Ok(Cpus(cpus))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_meant() {
        let listen = |text: &str| text.parse::<Listen>().map(|listen| listen.to_string());
        assert_eq!(listen("line=[::ffff:192.0.2.1]:80").unwrap(), "line=192.0.2.1:80");
        assert!(listen("line=localhost:80").unwrap_err().to_string().contains("line=127.0.0.1:80 and line=[::1]:80"));
        for text in ["off", "localhost:0", "localhost:8081", "127.0.0.1:8081", "[::1]:8081", "[::]:8081"] {
            assert_eq!(text.parse::<ControlAddr>().unwrap().to_string(), text);
        }
        assert!("localhost".parse::<ControlAddr>().unwrap_err().to_string().contains("localhost:8081"));
    }

    #[test]
    fn an_address_for_all_covers_those_that_its_listener_gets() {
        let covers = |wide: &str, narrow: &str| covers(wide.parse().unwrap(), narrow.parse().unwrap());
        for (wide, narrow) in [
            ("[::]:1", "0.0.0.0:1"),
            ("[::]:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::1]:1", "[::1]:1"),
        ] {
            assert!(covers(wide, narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in [("0.0.0.0:1", "[::1]:1"), ("127.0.0.1:1", "0.0.0.0:1"), ("[::]:1", "[::]:2")] {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
    }

    #[test]
    fn cpus_read_numbers_and_ranges() {
        assert_eq!("0,2-3".parse::<Cpus>().unwrap().0, [0, 2, 3]);
        for bad in ["", "a", "3-1", "0,0", "1-", "0-99999999"] {
            assert!(bad.parse::<Cpus>().is_err(), "{bad}");
        }
    }
}
