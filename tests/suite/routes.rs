//! What handlers of the tests' own serve over HTTP.

use corecast::routes::{Events, Page, Topics, WebSocket};
use corecast::{Context, Dialect, Framing, Handler, Routes, Server, StartError};

use crate::support::http::{HttpClient, upgrade};
use crate::support::{Fixture, config};

/// Sends messages back, and serves nothing but what is there by default.
struct Plain;

impl Handler for Plain {
    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        cx.send(message).unwrap();
    }
}

/// Rooms with a subprotocol of their own, a feed, and a page.
struct Rooms;

impl Handler for Rooms {
    fn routes(&self) -> Routes {
        let rooms = WebSocket::new().subprotocol("chat.v1", Dialect::Text).subprotocol("chat.v1.json", Dialect::Json);
        Routes::new()
            .websocket("/rooms/*", rooms.subprotocol_required().topics(Topics::Ignored))
            .events("/feed", Events::new())
            .page("/app.js", Page::new("text/javascript; charset=utf-8", "let a;\n").header("X-Version", "7"))
    }

    fn on_connect(&mut self, cx: &mut Context<'_>) {
        cx.send(format!("{:?}", cx.dialect()).as_bytes()).unwrap();
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        cx.send(message).unwrap();
    }
}

/// The answer to a request by this method, which the server closes the connection after.
fn ask(server: &Fixture, method: &str, target: &str) -> String {
    let mut client = HttpClient::connect(server.addr(Framing::Http));
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: corecast\r\n\r\n"));
    client.recv_answer()
}

#[test]
fn a_handler_has_paths_and_subprotocols_of_its_own() {
    let server = Fixture::start(config(), |_| Rooms);
    let addr = server.addr(Framing::Http);
    for (target, protocol, dialect) in [
        ("/rooms/42", "chat.v1", "Text"),
        ("/rooms/a/b?room=7&topic=mine,yours", "chat.v1", "Text"),
        ("/rooms/42", "chat.v1.json", "Json"),
    ] {
        let mut client = HttpClient::websocket(addr, target, protocol);
        assert_eq!(client.recv(), dialect);
        assert_eq!(client.ask("hello"), "hello");
    }
    let mut feed = HttpClient::events(addr, "/feed");
    assert_eq!(feed.recv_event().data, "Sse");
    for offer in ["", "Sec-WebSocket-Protocol: corecast.v1\r\n"] {
        let mut other = HttpClient::connect(addr);
        other.send(upgrade("/rooms/42", offer));
        let answer = other.recv_answer();
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("chat.v1 and chat.v1.json"), "{answer}");
    }
}

#[test]
fn nothing_of_the_hub_is_in_the_server_of_another_handler() {
    for server in [Fixture::start(config(), |_| Plain), Fixture::start(config(), |_| Rooms), Fixture::echo(config())] {
        let mut answers = vec![ask(&server, "GET", "/")];
        assert!(answers[0].starts_with("HTTP/1.1 200 "), "{answers:?}");
        for path in ["/sse", "/sse?topic=a", "/demo", "/corecast.js", "/nothing"] {
            let answer = ask(&server, "GET", path);
            assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
            answers.push(answer);
        }
        let mut offering = HttpClient::connect(server.addr(Framing::Http));
        offering.send(upgrade("/rooms/1", "Sec-WebSocket-Protocol: corecast.v1\r\n"));
        answers.push(offering.recv_answer());
        for answer in answers {
            let words = ["SUB ", "/sse", "topic", "demo"];
            assert!(!words.iter().any(|word| answer.contains(word)), "{answer}");
        }
    }
}

#[test]
fn by_default_websockets_open_at_ws() {
    let server = Fixture::start(config(), |_| Plain);
    let mut client = HttpClient::websocket(server.addr(Framing::Http), "/ws?room=7", "");
    assert_eq!(client.ask("hello"), "hello");
    assert!(ask(&server, "GET", "/").contains("\n  /ws "));
    // Balancers find what they look for in any server.
    for path in ["/healthz", "/readyz", "/"] {
        assert!(ask(&server, "HEAD", path).starts_with("HTTP/1.1 200 "), "{path}");
    }
}

#[test]
fn a_page_answers_get_head_and_options() {
    let server = Fixture::start(config(), |_| Rooms);
    let get = ask(&server, "GET", "/app.js");
    let (head, body) = get.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\nX-Version: 7\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: text/javascript; charset=utf-8\r\nContent-Length: 7\r\n"), "{head}");
    assert_eq!(body, "let a;\n");
    assert_eq!(ask(&server, "HEAD", "/app.js"), format!("{head}\r\n\r\n"));
    let options = ask(&server, "OPTIONS", "/app.js");
    assert!(options.starts_with("HTTP/1.1 204 ") && options.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"), "{options}");
    let post = ask(&server, "POST", "/app.js");
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"), "{post}");
}

#[test]
fn each_listener_has_the_routes_of_its_handler() {
    let listen = || ["http=127.0.0.1:0".parse().unwrap()];
    let builder = Server::builder(listen(), |_| Plain).listen(listen(), |_| Rooms);
    let server = builder.config(config()).start().unwrap();
    let [plain, rooms] = [0, 1].map(|number| server.listen()[number].addr);
    assert_eq!(HttpClient::websocket(plain, "/ws", "").ask("hello"), "hello");
    assert_eq!(HttpClient::websocket(rooms, "/rooms/1", "chat.v1").recv(), "Text");
    for (addr, path) in [(plain, "/rooms/1"), (rooms, "/ws")] {
        let mut client = HttpClient::connect(addr);
        client.send(upgrade(path, ""));
        assert!(client.recv_answer().starts_with("HTTP/1.1 404 "), "{path}");
    }
    server.handle().shutdown();
    server.wait().unwrap();
}

/// Declares what can't be.
struct Mistaken(&'static str);

impl Handler for Mistaken {
    fn routes(&self) -> Routes {
        Routes::new().websocket("/ws", WebSocket::new()).page(self.0, Page::text("here"))
    }

    fn on_message(&mut self, _: &mut Context<'_>, _: &[u8]) {}
}

#[test]
fn a_route_that_cannot_be_is_an_error_of_the_start() {
    for (path, why) in [
        ("rooms", "the path `rooms` can't be declared: it does not begin with a slash"),
        ("/ws", "declared already"),
        ("/healthz", "the server answers it itself"),
    ] {
        let started = Server::builder(config().listen, move |_| Mistaken(path)).config(config()).start();
        match started.map(|_| ()) {
            Err(StartError::Shard { reason, .. }) => assert!(reason.contains(why), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}
