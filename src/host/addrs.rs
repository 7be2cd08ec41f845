//! Whether an address could be listened on, found out without taking anything.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, Socket, Type};

use crate::sys;

/// The capability to listen on low ports, by its bit; see capabilities(7).
const CAP_NET_BIND_SERVICE: u32 = 10;

/// Whether the address is this machine's. No port is taken or looked at.
///
/// # Errors
/// The error of `bind(2)`.
pub(crate) fn check_address(addr: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    // A bind to no port gets none until it is used, which it is not.
    sys::bind_address_no_port(socket.as_fd())?;
    socket.bind(&SocketAddr::new(addr.ip(), 0).into())
}

/// Why this user could not take the port, although another could.
pub(crate) fn check_port(addr: SocketAddr) -> Option<String> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").ok();
    let first_free: u16 = text.and_then(|text| text.trim().parse().ok()).unwrap_or(1024);
    let may = || may_bind_low(&fs::read_to_string("/proc/self/status").unwrap_or_default());
    if addr.port() == 0 || addr.port() >= first_free || may() != Some(false) {
        return None;
    }
    Some(format!(
        "{addr}: ports below {first_free} need CAP_NET_BIND_SERVICE, which the user that runs this does not have"
    ))
}

/// Whether the capability is in force; `None`: that can't be known.
fn may_bind_low(status: &str) -> Option<bool> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(line.trim(), 16).ok()?;
    Some(effective >> CAP_NET_BIND_SERVICE & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_pass_while_their_port_is_taken_and_others_fail() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        check_address(taken.local_addr().unwrap()).unwrap();
        check_address("0.0.0.0:1".parse().unwrap()).unwrap();
        check_address("127.1.2.3:1".parse().unwrap()).unwrap();
        let error = check_address("192.0.2.1:8888".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn the_capability_is_read_from_the_mask() {
        assert_eq!(may_bind_low("CapPrm:\t0\nCapEff:\t0000000000000400\n"), Some(true));
        assert_eq!(may_bind_low("CapEff:\t000001fffffffbff\n"), Some(false));
        assert_eq!(may_bind_low("Name: x\n"), None);
        assert_eq!(check_port("127.0.0.1:0".parse().unwrap()), None);
        assert_eq!(check_port("127.0.0.1:65535".parse().unwrap()), None);
    }
}
