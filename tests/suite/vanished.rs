//! Clients that vanish without a word: their machine, or the network between, is gone, and nothing says so. They live in a
//! network namespace of their own, whose link is cut.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use corecast::{CloseReason, Framing};

use crate::support::http::HttpClient;
use crate::support::{Client, DEADLINE, Fixture, is_here, wait_until};

/// A namespace that is joined to this one by a pair of interfaces. It is gone when it is dropped.
struct Away {
    name: String,
    link: String,
    here: String,
}

fn ip(words: &str) -> bool {
    let ran = Command::new("ip").args(words.split_whitespace()).stderr(Stdio::null()).stdout(Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}

impl Away {
    /// `None`: this user may make none.
    fn new() -> Option<Away> {
        let number = std::process::id();
        let away = Away {
            name: format!("corecast-{number}"),
            link: format!("cc{number}"),
            here: format!("10.{}.{}.1", 200 + number / 256 % 50, number % 256),
        };
        let Away { name, link, here } = &away;
        let there = there(here);
        let steps = [
            format!("netns add {name}"),
            format!("link add {link} type veth peer name {link}p netns {name}"),
            format!("addr add {here}/24 dev {link}"),
            format!("link set {link} up"),
            format!("-n {name} addr add {there}/24 dev {link}p"),
            format!("-n {name} link set {link}p up"),
            format!("-n {name} link set lo up"),
        ];
        steps.iter().all(|step| ip(step)).then_some(away)
    }

    /// Does something, such as making a connection, in the namespace.
    fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let there = std::fs::File::open(format!("/run/netns/{}", self.name)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                rustix::thread::move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&there),
                    Some(rustix::thread::LinkNameSpaceType::Network),
                )
                .unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    /// From now on no packet goes either way.
    fn cut(&self) {
        assert!(ip(&format!("-n {} link set {}p down", self.name, self.link)));
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        ip(&format!("link del {}", self.link));
        ip(&format!("netns del {}", self.name));
    }
}

fn there(here: &str) -> String {
    format!("{}.2", here.rsplit_once('.').unwrap().0)
}

#[test]
fn clients_that_vanish_are_closed_by_the_write_timeout_and_slow_ones_that_live_are_not() {
    let away = Away::new();
    if !is_here("a network namespace (ip, as root)", away.is_some()) {
        return;
    }
    let away = away.unwrap();
    let second = std::time::Duration::from_secs(1);
    let server = Fixture::hub(settings! {
        listen: Framing::ALL.map(|framing| format!("{framing}={}:0", away.here).parse().unwrap()).to_vec(),
        shards: Some(1),
        write_timeout: 2 * second,
        read_timeout: std::time::Duration::ZERO,
        ping_every: second,
        ..crate::support::config()
    });
    let addr = |framing| -> SocketAddr { server.addr(framing) };
    let (line, http) = (addr(Framing::Line), addr(Framing::Http));
    // One only gets heartbeats, as does the WebSocket; the other two get messages.
    let (events, websocket, mut subscribers) = away.within(|| {
        let events = HttpClient::events(http, "/sse?topic=quiet");
        let websocket = HttpClient::websocket(http, "/ws", "");
        let subscribers = [(); 2].map(|()| Client::connect(line, Framing::Line));
        (events, websocket, subscribers)
    });
    subscribers.iter_mut().for_each(|client| assert_eq!(client.ask("SUB news"), "OK SUB news"));
    // This one has no room for what waits for it, and reads nothing, but its machine answers.
    let mut slow = server.narrow_client(Framing::Line);
    assert_eq!(slow.ask("SUB news"), "OK SUB news");
    server.wait_for_connections(5);
    server.publish("news", "x".repeat(8_000)).unwrap();
    subscribers.iter_mut().for_each(|client| assert!(client.recv().starts_with("MSG news x")));

    away.cut();
    let started = std::time::Instant::now();
    let mut published = 1;
    wait_until("those that have vanished are closed", || {
        if published < 10 {
            server.publish("news", "hello").unwrap();
            published += 1;
        }
        server.closed(CloseReason::WriteTimeout) == 4
    });
    assert!(started.elapsed() < DEADLINE);
    assert_eq!(server.conn_count(), 1);
    // What waited for the slow one comes when it reads.
    assert!(slow.recv().starts_with("MSG news x"));
    (1..published).for_each(|_| slow.expect("MSG news hello"));
    drop((events, websocket, subscribers));
}
