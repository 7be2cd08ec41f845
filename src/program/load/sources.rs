//! The addresses that connections come from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Connections per source address where the spread is chosen here: many connections from one address get
/// slow past some 14,000, because the kernel searches longer and longer for a free port.
const CONNECTIONS_PER_SOURCE: usize = 2_000;

/// Addresses of one range at the most.
const SOURCES_MAX: u128 = 1 << 16;

/// A range of addresses, written `A-B`, or `A` for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceIps {
    first: IpAddr,
    count: usize,
}

impl SourceIps {
    /// The range used when none is given: on a loopback target 127.0.0.2, 127.0.0.3 and so on; else none.
    pub(super) fn spread(target: IpAddr, connections: usize) -> Option<SourceIps> {
        let first = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        let count = connections.div_ceil(CONNECTIONS_PER_SOURCE);
        (target.is_ipv4() && target.is_loopback()).then_some(SourceIps { first, count })
    }

    /// Number of addresses.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    /// The source address of connection `index`; the addresses take turns.
    pub(super) fn of(&self, index: usize) -> IpAddr {
        let step = index % self.count;
        // The range was checked not to run over the end of the addresses.
        match self.first {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() + step as u32).into(),
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() + step as u128).into(),
        }
    }
}

impl fmt::Display for SourceIps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.count > 1 {
            write!(f, "-{}", self.of(self.count - 1))?;
        }
        Ok(())
    }
}

impl FromStr for SourceIps {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{text}` is not a range of addresses; write the first and the last one, as in 127.0.0.2-127.0.0.20"
            )
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let first: IpAddr = first.trim().parse().map_err(|_| bad())?;
        let last: IpAddr = last.trim().parse().map_err(|_| bad())?;
        let steps = match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => last.to_bits().checked_sub(first.to_bits()).map(u128::from),
            (IpAddr::V6(first), IpAddr::V6(last)) => last.to_bits().checked_sub(first.to_bits()),
            _ => None,
        };
        match steps.ok_or_else(bad)? {
            steps if steps < SOURCES_MAX => Ok(SourceIps { first, count: steps as usize + 1 }),
            _ => Err(format!("`{text}` has more than {SOURCES_MAX} addresses; give a smaller range")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<String> {
        let range: SourceIps = text.parse().unwrap();
        (0..range.count()).map(|index| range.of(index).to_string()).collect()
    }

    #[test]
    fn a_range_counts_from_its_first_to_its_last_address() {
        assert_eq!(addresses("127.0.0.254-127.0.1.1"), ["127.0.0.254", "127.0.0.255", "127.0.1.0", "127.0.1.1"]);
        assert_eq!(addresses("127.0.0.9"), ["127.0.0.9"]);
        assert_eq!(addresses("fd00::1-fd00::2"), ["fd00::1", "fd00::2"]);
        assert_eq!(addresses("255.255.255.254-255.255.255.255").len(), 2);
    }

    #[test]
    fn connections_take_turns() {
        let range: SourceIps = "127.0.0.2-127.0.0.3".parse().unwrap();
        let used: Vec<_> = (0..3).map(|index| range.of(index).to_string()).collect();
        assert_eq!(used, ["127.0.0.2", "127.0.0.3", "127.0.0.2"]);
        assert_eq!(range.to_string(), "127.0.0.2-127.0.0.3");
    }

    #[test]
    fn what_is_no_range_is_refused_by_name() {
        for bad in ["", "a-b", "127.0.0.3-127.0.0.2", "127.0.0.2-fd00::1", "127.0.0.2-", "10.0.0.0-11.0.0.0"] {
            let text = bad.parse::<SourceIps>().unwrap_err();
            assert!(text.contains(bad), "{text}");
        }
    }

    #[test]
    fn a_loopback_target_is_met_from_2000_connections_an_address() {
        let spread = |target: &str, connections| {
            SourceIps::spread(target.parse().unwrap(), connections).map(|range| range.to_string())
        };
        assert_eq!(spread("127.0.0.1", 2_000).as_deref(), Some("127.0.0.2"));
        assert_eq!(spread("127.0.0.1", 2_001).as_deref(), Some("127.0.0.2-127.0.0.3"));
        assert_eq!(spread("10.0.0.1", 2_001), None);
        assert_eq!(spread("::1", 2_001), None);
    }
}
