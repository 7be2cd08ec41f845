//! IPv4 and IPv6: on one port, from one listener or from two, and under the name of the machine itself.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use corecast::{Config, Framing, Listen, Server};

use crate::support::http::HttpClient;
use crate::support::{Client, Fixture, config, free_port};

/// Whether this machine has IPv6; without it there is nothing to try.
fn has_v6() -> bool {
    let found = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !found {
        println!("left out: this machine has no IPv6");
    }
    found
}

fn v4(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn v6(port: u16) -> SocketAddr {
    (Ipv6Addr::LOCALHOST, port).into()
}

/// Settings with these addresses, on a port that nobody has.
fn on_a_free_port(listen: [&str; 2]) -> (Config, u16) {
    let port = free_port();
    let listen = listen.map(|text| format!("{text}:{port}").parse::<Listen>().unwrap()).to_vec();
    (settings! { listen, ..config() }, port)
}

#[test]
fn one_listener_on_all_addresses_serves_both_families_and_shows_clients_as_what_they_are() {
    if !has_v6() {
        return;
    }
    let server = Fixture::hub(settings! { listen: vec!["line=[::]:0".parse().unwrap()], ..config() });
    let port = server.addr(Framing::Line).port();
    for addr in [v4(port), v6(port)] {
        let mut client = Client::connect(addr, Framing::Line);
        let id = client.id();
        assert_eq!(server.peer(id), Some(client.addr()));
    }
}

#[test]
fn listeners_for_each_family_share_a_port_in_either_order() {
    if !has_v6() {
        return;
    }
    for listen in [["line=0.0.0.0", "http=[::]"], ["http=[::]", "line=0.0.0.0"]] {
        let (config, port) = on_a_free_port(listen);
        let _server = Fixture::hub(config);
        Client::connect(v4(port), Framing::Line).expect_nothing();
        HttpClient::websocket(v6(port), "/ws", "");
    }
    // One address of IPv4 beside a listener for all: that gets the rest.
    for listen in [["line=127.0.0.1", "http=[::]"], ["http=[::]", "line=127.0.0.1"]] {
        let (config, port) = on_a_free_port(listen);
        let _server = Fixture::hub(config);
        Client::connect(v4(port), Framing::Line).expect_nothing();
        HttpClient::websocket(v6(port), "/ws", "");
        HttpClient::websocket((Ipv4Addr::new(127, 0, 0, 2), port).into(), "/ws", "");
    }
}

#[test]
fn a_port_that_another_program_has_on_either_family_is_refused() {
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = settings! { listen: vec![format!("line=[::]:{port}").parse().unwrap()], ..config() };
    let builder = Server::builder(config.listen.clone(), |_| corecast::Echo).config(config);
    let error = builder.start().err().expect("it does not start").to_string();
    assert!(error.contains(&format!("line=[::]:{port}: the port is in use")), "{error}");
}

#[cfg(feature = "program")]
#[test]
fn the_control_plane_is_found_under_localhost_whichever_address_is_tried_first() {
    let program = crate::support::Program::serve(["--shards=1", "--control=localhost:0"]);
    let log = program.log();
    let place = log.split("control plane on http://").nth(1).and_then(|rest| rest.split_whitespace().next());
    let (host, port) = place.expect("the ready line").rsplit_once(':').unwrap();
    let port = port.parse().unwrap();
    let addrs = if has_v6() { vec![v4(port), v6(port)] } else { vec![v4(port)] };
    assert_eq!(host, if addrs.len() == 2 { "localhost" } else { "127.0.0.1" });
    for addr in addrs {
        let mut http = HttpClient::connect(addr);
        http.send(format!("GET /healthz HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"));
        let answer = http.recv_answer();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}
