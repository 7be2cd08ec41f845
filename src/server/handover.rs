//! How a new server takes over the addresses of one that drains, so that at no time nobody listens.
//!
//! A server that drains says so at an abstract Unix socket for each address that it still listens on, named
//! `corecast/draining/ADDRESS/NUMBER`. Such names are of a network namespace, as ports are, and leave no file behind. A new
//! server that finds a port in use looks for such a name; if there is one it shares the port, which the kernel allows to
//! programs of one user, and once it serves it says so there. Then the old one lets go.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as Name, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::net::sockopt::socket_peercred;

use crate::config::covers;

const PREFIX: &str = "corecast/draining/";

/// What a new server says that has taken over, and the old one to itself that its offer ends.
const TAKEN: u8 = b't';
const ENDED: u8 = b'e';

/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a server waits for a port that is about to be let go.
const FREE_WITHIN: Duration = Duration::from_secs(1);
const LOOK_STEP: Duration = Duration::from_millis(10);

/// An address that a new server may take over. The offer ends when it is dropped.
pub(crate) struct Offer(Name);

impl Offer {
    /// Offers an address; `taken` is called once a new server listens there, and with the end of it the new one goes on.
    ///
    /// # Errors
    /// The system grants no socket or no thread.
    pub(crate) fn publish(addr: SocketAddr, taken: impl FnOnce() + Send + 'static) -> io::Result<Offer> {
        let number = RandomState::new().hash_one(addr);
        let name = Name::from_abstract_name(format!("{PREFIX}{addr}/{number:016x}"))?;
        let listener = UnixListener::bind_addr(&name)?;
        let answer = move || {
            while let Ok((stream, _)) = listener.accept() {
                match heard(&stream) {
                    Some(TAKEN) => {
                        // The name goes first: the new server may be one that drains by then.
                        drop(listener);
                        taken();
                        return;
                    }
                    Some(ENDED) => return,
                    _ => {}
                }
            }
        };
        std::thread::Builder::new().name("handover".into()).spawn(answer)?;
        Ok(Offer(name))
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        // Where nobody answers it has been taken.
        if let Ok(mut stream) = connect(&self.0) {
            let _ = stream.write_all(&[ENDED]);
        }
    }
}

/// Connects to an offer, also if a signal comes meanwhile.
fn connect(name: &Name) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect_addr(name) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            connected => return connected,
        }
    }
}

/// What a process of the same user says.
fn heard(mut stream: &UnixStream) -> Option<u8> {
    let peer = socket_peercred(stream).ok()?;
    if peer.uid != rustix::process::geteuid() {
        return None;
    }
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut word = [0];
    stream.read_exact(&mut word).ok()?;
    Some(word[0])
}

/// The addresses that are offered in this network namespace. Without /proc there are none.
fn offers() -> Vec<(SocketAddr, String)> {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    // Of the sockets that have such a name only the listening one (SO_ACCEPTCON) is the offer.
    let listening = table.lines().filter(|line| line.split_whitespace().nth(3) == Some("00010000"));
    let names = listening.filter_map(|line| line.rsplit(' ').next()?.strip_prefix('@'));
    let offers = names.filter_map(|name| {
        let (addr, _) = name.strip_prefix(PREFIX)?.rsplit_once('/')?;
        Some((addr.parse().ok()?, name.to_owned()))
    });
    offers.collect()
}

/// Whether a new server may bind an address: because `is_free` says so, or because who has it offers it.
///
/// # Errors
/// What `is_free` says.
pub(crate) fn may_bind<E>(addr: SocketAddr, is_free: impl Fn() -> Result<bool, E>) -> Result<bool, E> {
    let began = Instant::now();
    loop {
        if is_free()? {
            return Ok(true);
        }
        let offers = offers();
        if offers.iter().any(|(other, _)| covers(*other, addr) || covers(addr, *other)) {
            return Ok(true);
        }
        // A server that drains may be about to close its listeners.
        if offers.is_empty() || began.elapsed() > FREE_WITHIN {
            return is_free();
        }
        std::thread::sleep(LOOK_STEP);
    }
}

/// Tells those who offer addresses that now are listened on here, and waits until they have let go.
pub(crate) fn take(addrs: &[SocketAddr]) {
    for (other, name) in offers() {
        if !addrs.iter().any(|addr| covers(*addr, other)) {
            continue;
        }
        let told = Name::from_abstract_name(&name).and_then(|name| connect(&name)).and_then(|mut old| {
            old.set_read_timeout(Some(PATIENCE))?;
            old.write_all(&[TAKEN])?;
            // It says nothing more than that it is over. Unlike a single read this one goes on when a signal comes.
            old.take(1).read_to_end(&mut Vec::new())
        });
        match told {
            Ok(_) => tracing::info!("took over {other} from a draining server"),
            Err(error) => tracing::debug!(%error, "a draining server did not answer for {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn an_offer_is_found_taken_once_and_gone() {
        // Nobody listens there: only the name counts.
        let addr: SocketAddr = format!("127.9.9.9:{}", 1 + std::process::id() % 60_000).parse().unwrap();
        let is_offered = || offers().iter().any(|(other, _)| *other == addr);
        let (tell, told) = mpsc::channel();
        let offer = Offer::publish(addr, move || tell.send(()).unwrap()).unwrap();
        assert!(is_offered());
        assert_eq!(may_bind(addr, || Ok::<_, ()>(false)), Ok(true));
        take(&[SocketAddr::from(([0, 0, 0, 0], addr.port()))]);
        told.recv_timeout(PATIENCE).unwrap();
        assert!(!is_offered());
        drop(offer);
        let offer = Offer::publish(addr, || panic!("it is not taken")).unwrap();
        take(&["127.0.0.1:1".parse().unwrap()]);
        drop(offer);
        let began = Instant::now();
        while is_offered() {
            assert!(began.elapsed() < Duration::from_secs(10));
        }
        assert_eq!(may_bind(addr, || Ok::<_, ()>(false)), Ok(false));
    }
}
