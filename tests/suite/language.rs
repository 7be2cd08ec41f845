//! The hub's language, over both framings: what is answered, and what it changes.

use corecast::{Config, Framing};

use crate::support::{Client, Fixture, PLAIN, Random, config};

fn publishing() -> Config {
    settings! { client_publish: true, ..config() }
}

/// Runs a test with a client of each framing, each on a server of its own.
fn on_each_framing(config: Config, test: impl Fn(&Fixture, Client)) {
    for framing in PLAIN {
        println!("framing: {framing}");
        let server = Fixture::hub(config.clone());
        test(&server, server.client(framing));
    }
}

#[test]
fn ping_is_answered_with_its_own_text_in_any_case_of_the_verb() {
    on_each_framing(config(), |_, mut client| {
        assert_eq!(client.ask("PING"), "PONG");
        assert_eq!(client.ask("PING "), "PONG ");
        assert_eq!(client.ask("ping  two spaces, and one at the end "), "PONG  two spaces, and one at the end ");
    });
}

#[test]
fn id_names_the_connection_to_the_rest_of_the_process() {
    on_each_framing(config(), |server, mut client| {
        let id = client.id();
        assert_eq!(client.id(), id);
        assert_eq!(server.peer(id), Some(client.addr()));
        assert_ne!(server.client(Framing::Line).id(), id);
    });
}

#[test]
fn a_subscriber_gets_each_message_of_its_topics_once_until_it_unsubscribes() {
    on_each_framing(publishing(), |server, mut client| {
        let mut publisher = server.client(Framing::Length);
        assert_eq!(client.ask("SUB news sport"), "OK SUB news sport");
        assert_eq!(client.ask("sub news"), "OK SUB news");
        for (topic, payload) in [("news", "one"), ("other", "lost"), ("sport", " two  words "), ("news", "")] {
            assert!(publisher.ask(format!("PUB {topic} {payload}")).starts_with("OK PUB "));
        }
        client.expect("MSG news one");
        client.expect("MSG sport  two  words ");
        client.expect("MSG news ");

        assert_eq!(client.ask("UNSUB news never-had"), "OK UNSUB news never-had");
        publisher.ask("PUB news again");
        publisher.ask("PUB sport still");
        client.expect("MSG sport still");
        client.expect_nothing();
    });
}

/// What was published before waits in the shard's queue when the subscription ends.
#[test]
fn no_message_of_a_topic_follows_the_answer_that_its_subscription_has_ended() {
    on_each_framing(publishing(), |server, mut client| {
        assert_eq!(client.ask("SUB a b c"), "OK SUB a b c");
        for n in 0..100 {
            // In one piece, so that the server takes all of it in one go.
            let commands = [&format!("PUB a {n}"), &format!("PUB b {n}"), "UNSUB a", "UNSUB b", "SUB b"];
            let bytes: Vec<u8> = commands.iter().flat_map(|command| client.frame(command)).collect();
            client.send_raw(bytes);
            let mut ended = Vec::new();
            loop {
                let message = client.recv();
                if let Some(topic) = message.strip_prefix("OK UNSUB ") {
                    ended.push(topic.to_owned());
                    if ended.len() == 2 {
                        // This one comes behind those that were published before.
                        server.publish("c", "the end").unwrap();
                    }
                } else if let Some(topic) = message.strip_prefix("MSG ").and_then(|rest| rest.split(' ').next()) {
                    assert!(!ended.contains(&topic.to_owned()), "{message} came after {ended:?} had ended");
                    if topic == "c" {
                        break;
                    }
                }
            }
            assert_eq!(client.ask("SUB a"), "OK SUB a");
        }
    });
}

#[test]
fn cast_reaches_everyone_its_publisher_included() {
    on_each_framing(publishing(), |server, mut client| {
        let mut others = PLAIN.map(|framing| server.client(framing));
        others.iter_mut().for_each(Client::expect_nothing);
        client.send("CAST to  all");
        let mut got = [client.recv(), client.recv()];
        got.sort();
        assert_eq!(got[0], "ALL to  all");
        assert!(got[1].starts_with("OK CAST "), "{got:?}");
        others.iter_mut().for_each(|other| other.expect("ALL to  all"));
    });
}

#[test]
fn publish_ids_differ() {
    let server = Fixture::hub(publishing());
    let mut client = server.client(Framing::Line);
    let first = client.ask("PUB nobody x");
    let second = client.ask("PUB nobody x");
    assert!(first.starts_with("OK PUB ") && second.starts_with("OK PUB "), "{first}, {second}");
    assert_ne!(first, second);
}

#[test]
fn each_mistake_gets_its_code_and_the_connection_goes_on() {
    let config = settings! { topic_bytes_max: 8, ..publishing() };
    on_each_framing(config, |_, mut client| {
        for (message, code) in [
            (&b""[..], "empty-message"),
            (b"HELO world", "unknown-verb"),
            (b" PING", "unknown-verb"),
            (b"SUB", "missing-topic"),
            (b"UNSUB", "missing-topic"),
            (b"PUB", "missing-topic"),
            (b"SUB ", "missing-topic"),
            (b"SUB a, b", "bad-topic"),
            (b"SUB news,sport", "bad-topic"),
            (b"PUB a, b", "bad-topic"),
            ("SUB a\u{202e}b".as_bytes(), "bad-topic"),
            ("UNSUB \u{feff}a".as_bytes(), "bad-topic"),
            (b"SUB a  b", "bad-topic"),
            (b"SUB tab\there", "bad-topic"),
            (b"SUB nul\0", "bad-topic"),
            (b"SUB \xff\xfe", "bad-topic"),
            (b"SUB good 9-letters", "bad-topic"),
            (b"UNSUB \x7f", "bad-topic"),
            (b"PUB  payload", "bad-topic"),
            (b"PUB 9-letters payload", "bad-topic"),
            (b"PUB news", "missing-payload"),
            (b"CAST", "missing-payload"),
            (b"ID 5", "unexpected-argument"),
        ] {
            let answer = client.ask(message);
            assert!(answer.starts_with(&format!("ERR {code} ")), "{}: {answer}", message.escape_ascii());
        }
        assert_eq!(client.ask("SUB 8letters"), "OK SUB 8letters");
        client.expect_nothing();
    });
}

#[test]
fn an_error_says_what_was_probably_meant() {
    on_each_framing(publishing(), |_, mut client| {
        for (message, hint) in [
            ("SUB a, b", "SUB a b"),
            ("SUB a\u{202e}b", "U+202E"),
            ("SUBSCRIBE news", "SUB topic"),
            ("publish news hello", "PUB topic payload"),
            ("QUIT", "close the connection"),
            (r#"{"type":"sub","topics":["news"]}"#, "subprotocol corecast.v1.json"),
            ("SUB\tnews", "a space separates words"),
            ("PUB news", "PUB topic payload"),
        ] {
            let answer = client.ask(message);
            assert!(answer.starts_with("ERR ") && answer.contains(hint), "{message}: {answer}");
        }
        client.expect_nothing();
    });
}

#[test]
fn a_command_may_end_in_white_space_and_begin_with_a_byte_order_mark() {
    on_each_framing(publishing(), |server, mut client| {
        assert_eq!(client.ask("\u{feff}SUB news"), "OK SUB news");
        for end in ["\r", " ", " \t \r"].into_iter().chain((client.framing() != Framing::Line).then_some("\r\n")) {
            println!("{end:?}");
            assert_eq!(client.ask(format!("SUB news sport{end}")), "OK SUB news sport");
            assert_eq!(client.ask(format!("UNSUB sport{end}")), "OK UNSUB sport");
            assert!(client.ask(format!("ID{end}")).starts_with("ID "));
        }
        server.publish("news", "x").unwrap();
        client.expect("MSG news x");
        client.expect_nothing();
    });
}

#[test]
fn a_subscription_over_the_limit_subscribes_to_nothing() {
    let config = settings! { topics_per_connection_max: 3, ..publishing() };
    on_each_framing(config, |server, mut client| {
        let mut publisher = server.client(Framing::Line);
        assert_eq!(client.ask("SUB a b"), "OK SUB a b");
        assert_eq!(client.ask("SUB c d"), "ERR too-many-topics a connection may subscribe to at most 3 topics");
        for topic in ["c", "d", "a"] {
            publisher.ask(format!("PUB {topic} text"));
        }
        client.expect("MSG a text");
        client.expect_nothing();

        assert_eq!(client.ask("SUB a b c"), "OK SUB a b c");
        assert!(client.ask("SUB d").starts_with("ERR too-many-topics "));
        assert_eq!(client.ask("UNSUB b"), "OK UNSUB b");
        assert_eq!(client.ask("SUB d"), "OK SUB d");
    });
}

#[test]
fn clients_may_not_publish_unless_the_server_allows_it() {
    on_each_framing(config(), |server, mut client| {
        let mut subscriber = server.client(Framing::Line);
        assert_eq!(subscriber.ask("SUB news"), "OK SUB news");
        for message in ["PUB news text", "CAST text"] {
            let answer = client.ask(message);
            assert!(answer.starts_with("ERR publish-forbidden "), "{answer}");
            assert!(answer.contains("--client-publish"), "the remedy is named: {answer}");
        }
        server.publish("news", "from inside").unwrap();
        subscriber.expect("MSG news from inside");
        client.expect_nothing();
    });
}

#[test]
fn nul_bytes_and_bytes_that_are_no_text_pass_through_payloads_unchanged() {
    on_each_framing(publishing(), |_, mut client| {
        let payload: Vec<u8> = (0..=255).filter(|byte| !b"\r\n".contains(byte)).collect();
        client.send([b"PING ", &payload[..]].concat());
        assert_eq!(client.recv_bytes(), [b"PONG ", &payload[..]].concat());

        assert_eq!(client.ask("SUB news"), "OK SUB news");
        client.send([b"PUB news ", &payload[..]].concat());
        let got = [client.recv_bytes(), client.recv_bytes()];
        assert!(got.contains(&[b"MSG news ", &payload[..]].concat()));
    });
}

#[test]
fn noise_gets_one_clear_answer_a_message_and_never_raw_bytes_back() {
    on_each_framing(config(), |server, mut client| {
        let mut random = Random::new();
        for _ in 0..500 {
            // Shorter noise may happen to be the command `ID`.
            let len = 3 + random.below(60);
            let mut noise = random.bytes(len);
            noise.retain(|byte| *byte != b'\n');
            client.send(&noise);
            let answer = client.recv();
            assert!(answer.starts_with("ERR "), "{}: {answer}", noise.escape_ascii());
            assert!(!answer.contains(|c: char| c.is_control()), "{}: {answer}", noise.escape_ascii());
        }
        client.expect_nothing();
        assert_eq!(server.conn_count(), 1);
    });
}

#[test]
fn streams_of_noise_end_and_leave_other_clients_alone() {
    let mut random = Random::new();
    let server = Fixture::hub(config());
    let mut witness = server.client(Framing::Line);
    for round in 0..60 {
        let mut client = server.client(PLAIN[round % PLAIN.len()]);
        let len = random.below(2_000);
        let noise = random.bytes(len);
        // A length over the limit may have closed the connection before all is sent.
        let _ = client.try_send_raw(&noise);
        let _ = client.try_finish_sending();
        client.recv_to_end();
        witness.expect_nothing();
    }
    server.wait_for_connections(1);
    server.end().unwrap();
}
