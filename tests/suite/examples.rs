//! The examples do what they say.

use std::time::Duration;

use corecast::{Framing, Listen, Server};
use futures_lite::future::block_on;

use crate::support::{Client, PLAIN, wait_until};

#[path = "../examples/chat.rs"]
mod chat;
#[path = "../examples/echo.rs"]
mod echo;
#[path = "../examples/in_tokio.rs"]
mod in_tokio;
#[path = "../examples/presence.rs"]
mod presence;
#[cfg(feature = "web")]
#[path = "../examples/token.rs"]
mod token;

fn plain() -> [Listen; 2] {
    PLAIN.map(|framing| format!("{framing}=127.0.0.1:0").parse().unwrap())
}

fn client(server: &Server, framing: Framing) -> Client {
    Client::connect(server.addr(framing).unwrap(), framing)
}

/// Shuts a server down, and sees that it ends without a fault.
fn end(server: Server) {
    server.handle().shutdown();
    block_on(server.ended()).unwrap();
}

#[test]
fn echo_sends_back() {
    let server = echo::start(plain()).unwrap();
    for framing in PLAIN {
        let mut client = client(&server, framing);
        client.send("hello");
        client.expect("hello");
    }
    end(server);
}

#[test]
fn chat_tells_everybody_and_knows_who_is_there_on_all_shards() {
    let server = chat::start(plain()).unwrap();
    let mut people: Vec<_> = (0..8).map(|n| (client(&server, PLAIN[n % 2]), format!("guest{n}"))).collect();
    for n in 0..people.len() {
        let (client, name) = &mut people[n];
        client.expect("who are you?");
        client.send("no name");
        client.expect("a name has up to 20 letters and digits");
        client.send(name.as_str());
        let name = name.clone();
        for (client, _) in &mut people[..=n] {
            client.expect(&format!("* {name} has come"));
        }
    }
    let names: Vec<_> = people.iter().map(|(_, name)| name.clone()).collect();
    people[0].0.send("/who");
    people[0].0.expect(&names.join(" "));
    let mut impostor = client(&server, Framing::Line);
    impostor.expect("who are you?");
    impostor.send("guest3");
    impostor.expect("that name is taken");

    people[1].0.send("hello all");
    people.iter_mut().for_each(|(client, _)| client.expect("guest1: hello all"));
    let (mut left, _) = people.remove(1);
    left.send("/leave");
    left.expect("* see you");
    left.expect_end();
    drop(left);
    people.iter_mut().for_each(|(client, _)| client.expect("* guest1 has left (handler)"));
    end(server);
}

#[test]
fn presence_counts_a_user_once_and_comes_back_to_nobody() {
    let (server, present) = presence::start(plain()).unwrap();
    let mut watcher = client(&server, Framing::Line);
    watcher.send("ann");
    watcher.expect("ann");
    watcher.expect("+ann");
    let bobs: Vec<_> = (0..6)
        .map(|n| {
            let mut bob = client(&server, PLAIN[n % 2]);
            bob.send("bob");
            bob.expect("ann bob");
            bob
        })
        .collect();
    watcher.expect("+bob");
    assert_eq!(present.users(), ["ann", "bob"]);
    drop(bobs);
    watcher.expect("-bob");
    drop(watcher);
    wait_until("nobody is there", || present.users().is_empty());
    end(server);
}

#[cfg(feature = "web")]
#[test]
fn token_lets_users_in_by_their_tokens_and_nobody_else() {
    use crate::support::http::{HttpClient, upgrade};

    let users = [("sesame", "ali"), ("rose", "zoe")].map(|(token, user)| (token.into(), user.into())).into();
    let server = token::start(["http=127.0.0.1:0".parse().unwrap()], users).unwrap();
    let addr = server.addr(Framing::Http).unwrap();
    for (target, status) in [("/ws", 401), ("/ws?token=wrong", 401), ("/ws?token=rose&topic=user:ali", 403)] {
        let mut client = HttpClient::connect(addr);
        client.send(upgrade(target, ""));
        let answer = client.recv_answer();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    let mut zoe = HttpClient::websocket(addr, "/ws?token=rose", "");
    let mut ali = HttpClient::connect(addr);
    ali.send(upgrade("/ws", "Authorization: Bearer sesame\r\n"));
    assert!(ali.recv_head().starts_with("HTTP/1.1 101 "));
    ali.say("zoe good morning");
    assert_eq!(zoe.recv(), "ali: good morning");
    zoe.say("ali good night");
    assert_eq!(ali.recv(), "zoe: good night");
    end(server);
}

#[test]
fn in_tokio_tells_the_time_until_it_is_stopped() {
    let server = in_tokio::start(plain()).unwrap();
    let mut client = client(&server, Framing::Line);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = std::thread::spawn(move || {
        let times: Vec<_> = std::iter::from_fn(|| Some(client.recv()).filter(|said| said != "BYE drain")).collect();
        client.expect_end();
        times
    });
    let serve = async { in_tokio::serve(server, tokio::time::sleep(Duration::from_millis(2_500))).await };
    runtime.block_on(serve).unwrap();
    let times = listener.join().unwrap();
    assert!(times.len() >= 2 && times.iter().all(|time| time.ends_with(" ms")), "{times:?}");
}
