//! The types of settings that are more than a number or a text.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::SHARDS_MAX;

/// How the bytes of a stream are cut into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Framing {
    /// Bytes up to LF; one CR before the LF is dropped.
    Line,
    /// A u32 in big-endian order, then that many bytes.
    Length,
    /// HTTP, which opens a WebSocket at `/ws` and server-sent events at `/sse`.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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

macro_rules! from_name {
    ($type:ty, $what:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.into_iter().find(|value| value.name() == text).ok_or_else(|| {
                    let names: Vec<_> = Self::ALL.iter().map(|value| value.name()).collect();
                    format!("`{text}` is no {}; use one of: {}", $what, names.join(", "))
                })
            }
        }
    };
}

from_name!(Framing, "framing");
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
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (framing, addr) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` has no `=`; write framing=address:port, as in line=0.0.0.0:8888"))?;
        Ok(Listen {
            framing: framing.parse()?,
            addr: addr.parse().map_err(|_| {
                format!("`{addr}` is no address; write an IP address and a port, as in 0.0.0.0:8888 or [::]:8888")
            })?,
        })
    }
}

/// Where the control plane listens, written as an address and a port, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlAddr(pub Option<SocketAddr>);

impl fmt::Display for ControlAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(addr) => addr.fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl FromStr for ControlAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(ControlAddr(None));
        }
        text.parse().map(|addr| ControlAddr(Some(addr))).map_err(|_| {
            format!("`{text}` is no address; write an IP address and a port, as in 127.0.0.1:8081, or off")
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
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no list of CPUs; write numbers and ranges, as in 0,2-3");
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
    fn cpus_read_numbers_and_ranges() {
        assert_eq!("0,2-3".parse::<Cpus>().unwrap().0, [0, 2, 3]);
        for bad in ["", "a", "3-1", "0,0", "1-", "0-99999999"] {
            assert!(bad.parse::<Cpus>().is_err(), "{bad}");
        }
    }
}
