//! The hub's language as JSON objects, for WebSockets of the subprotocol `corecast.v1.json` and for event streams.
//!
//! Each object has a `type`, the verb in lower case. Ids are texts, because a number above 2^53 does not survive
//! JavaScript. A payload that is not UTF-8 is written in base64, as `payload_base64`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use crate::handler::Event;
use crate::message::Topic;

use super::language::{Command, ErrorCode, Mistake, Reply};
use super::topic_word;

/// What a client may write.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Incoming<'a> {
    Sub {
        #[serde(borrow)]
        topics: Vec<Cow<'a, str>>,
    },
    Unsub {
        #[serde(borrow)]
        topics: Vec<Cow<'a, str>>,
    },
    Pub {
        #[serde(borrow)]
        topic: Cow<'a, str>,
        payload: Option<Cow<'a, str>>,
        payload_base64: Option<Cow<'a, str>>,
    },
    Cast {
        #[serde(borrow)]
        payload: Option<Cow<'a, str>>,
        payload_base64: Option<Cow<'a, str>>,
    },
    Ping {
        #[serde(borrow)]
        text: Option<Cow<'a, str>>,
    },
    Id {},
}

/// What the server writes.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Outgoing<'a> {
    Ok {
        verb: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        topics: Option<&'a [Cow<'a, str>]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<Cow<'a, str>>,
    },
    Id {
        id: String,
    },
    Err {
        code: &'a str,
        text: &'a str,
    },
    Msg {
        topic: &'a str,
        #[serde(flatten)]
        payload: Payload<'a>,
    },
    All {
        #[serde(flatten)]
        payload: Payload<'a>,
    },
    #[serde(rename = "self")]
    Direct {
        #[serde(flatten)]
        payload: Payload<'a>,
    },
    Gap {
        topic: &'a str,
        count: u64,
        reason: &'a str,
    },
    Bye {
        reason: &'a str,
    },
}

#[derive(Serialize)]
enum Payload<'a> {
    #[serde(rename = "payload")]
    Text(&'a str),
    #[serde(rename = "payload_base64")]
    Base64(String),
}

impl<'a> Payload<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        match simdutf8::basic::from_utf8(bytes) {
            Ok(text) => Payload::Text(text),
            Err(_) => Payload::Base64(BASE64_STANDARD.encode(bytes)),
        }
    }
}

/// Reads one message. Every topic in it has been checked when it returns.
///
/// # Errors
/// What is wrong with it, in words for the client.
pub(super) fn parse(message: &[u8], topic_bytes_max: usize) -> Result<Command<'_>, Mistake> {
    let incoming: Incoming<'_> = serde_json::from_slice(message).map_err(|error| {
        // The error may quote what the client wrote, which is not repeated to its terminal as it is.
        let text: String = error.to_string().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        Mistake { code: ErrorCode::BadJson, text: format!("write an object such as {EXAMPLE}: {text}") }
    })?;
    let check = |topics: Vec<Cow<'_, str>>| {
        if topics.is_empty() {
            let text = r#"name a topic, as in "topics":["news"]"#;
            return Err(Mistake { code: ErrorCode::MissingTopic, text: text.into() });
        }
        topics.iter().try_for_each(|topic| Topic::check(topic.as_bytes(), topic_bytes_max).map(|_| ()))?;
        Ok(())
    };
    Ok(match incoming {
        Incoming::Sub { topics } => {
            check(topics.clone())?;
            Command::Subscribe(topics)
        }
        Incoming::Unsub { topics } => {
            check(topics.clone())?;
            Command::Unsubscribe(topics)
        }
        Incoming::Pub { topic, payload, payload_base64 } => {
            Topic::check(topic.as_bytes(), topic_bytes_max)?;
            Command::Publish { topic, payload: bytes(payload, payload_base64)? }
        }
        Incoming::Cast { payload, payload_base64 } => Command::Cast { payload: bytes(payload, payload_base64)? },
        Incoming::Ping { text } => Command::Ping { text: text.map(into_bytes) },
        Incoming::Id {} => Command::Id,
    })
}

const EXAMPLE: &str = r#"{"type":"sub","topics":["news"]}"#;

fn into_bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// The payload, written in one of its two forms.
fn bytes<'a>(text: Option<Cow<'a, str>>, base64: Option<Cow<'a, str>>) -> Result<Cow<'a, [u8]>, Mistake> {
    match (text, base64) {
        (Some(text), None) => Ok(into_bytes(text)),
        (None, Some(base64)) => BASE64_STANDARD.decode(base64.as_bytes()).map(Cow::Owned).map_err(|error| Mistake {
            code: ErrorCode::BadJson,
            text: format!("payload_base64 is no base64: {error}"),
        }),
        (None, None) => {
            let text = "write a payload: a text as payload, or bytes as payload_base64";
            Err(Mistake { code: ErrorCode::MissingPayload, text: text.into() })
        }
        (Some(_), Some(_)) => {
            let text = "write either payload or payload_base64, not both";
            Err(Mistake { code: ErrorCode::BadJson, text: text.into() })
        }
    }
}

/// Puts a reply into an object.
pub(super) fn reply(reply: &Reply<'_>, out: &mut Vec<u8>) {
    let outgoing = match reply {
        Reply::Topics { verb, topics } => Outgoing::Ok { verb, topics: Some(topics), id: None },
        Reply::Published { verb, id } => Outgoing::Ok { verb, topics: None, id: Some(id.to_string()) },
        // In this dialect a text is UTF-8, since it came as JSON.
        Reply::Pong { text } => Outgoing::Pong { text: text.as_ref().map(|text| String::from_utf8_lossy(text)) },
        Reply::Id { id } => Outgoing::Id { id: id.to_string() },
        Reply::Error(mistake) => Outgoing::Err { code: mistake.code.name(), text: &mistake.text },
    };
    write(&outgoing, out);
}

/// Puts an event into an object.
pub(super) fn render(event: Event<'_>, out: &mut Vec<u8>) {
    let outgoing = match event {
        Event::Publish { topic, payload } => Outgoing::Msg { topic: topic.as_str(), payload: Payload::of(payload) },
        Event::Broadcast { payload } => Outgoing::All { payload: Payload::of(payload) },
        Event::Direct { payload } => Outgoing::Direct { payload: Payload::of(payload) },
        Event::Gap { topic, count, reason } => Outgoing::Gap { topic: topic_word(topic), count, reason: reason.name() },
        Event::Error { code, text } => Outgoing::Err { code, text },
        Event::Bye { reason } => Outgoing::Bye { reason: reason.name() },
    };
    write(&outgoing, out);
}

fn write(outgoing: &Outgoing<'_>, out: &mut Vec<u8>) {
    serde_json::to_writer(out, outgoing).expect("texts and numbers have a form in JSON, and a Vec takes all of it");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{CloseReason, ConnId, DropReason, PublishId};
    use proptest::prelude::*;

    fn code(message: &str) -> &'static str {
        parse(message.as_bytes(), 255).unwrap_err().code.name()
    }

    fn replied(what: &Reply<'_>) -> String {
        let mut out = Vec::new();
        reply(what, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn rendered(event: Event<'_>) -> String {
        let mut out = Vec::new();
        render(event, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn commands_are_read() {
        let Ok(Command::Subscribe(topics)) = parse(br#"{"type":"sub","topics":["a","b\u0062"]}"#, 255) else {
            panic!()
        };
        assert_eq!(topics, ["a", "bb"]);
        let Ok(Command::Publish { topic, payload }) = parse(br#"{"type":"pub","topic":"a","payload":"x\ny"}"#, 255)
        else {
            panic!()
        };
        assert_eq!((&*topic, &*payload), ("a", &b"x\ny"[..]));
        let Ok(Command::Cast { payload }) = parse(br#"{"payload_base64":"/w==","type":"cast"}"#, 255) else { panic!() };
        assert_eq!(*payload, [0xff]);
        let Ok(Command::Ping { text: Some(_) }) = parse(br#"{"type":"ping","text":"x"}"#, 255) else { panic!() };
        let Ok(Command::Ping { text: None }) = parse(br#"{"type":"ping"}"#, 255) else { panic!() };
        let Ok(Command::Id) = parse(br#"{"type":"id"}"#, 255) else { panic!() };
    }

    #[test]
    fn each_mistake_has_its_code() {
        assert_eq!(code(""), "bad-json");
        assert_eq!(code("SUB a"), "bad-json");
        assert_eq!(code("[]"), "bad-json");
        assert_eq!(code(r#"{"type":"helo"}"#), "bad-json");
        assert_eq!(code(r#"{"type":"sub","topic":"a"}"#), "bad-json");
        assert_eq!(code(r#"{"type":"sub","topics":[]}"#), "missing-topic");
        assert_eq!(code(r#"{"type":"sub","topics":["a b"]}"#), "bad-topic");
        assert_eq!(code(r#"{"type":"pub","topic":"a"}"#), "missing-payload");
        assert_eq!(code(r#"{"type":"pub","topic":"a","payload":"x","payload_base64":"eA=="}"#), "bad-json");
        assert_eq!(code(r#"{"type":"cast","payload_base64":"%"}"#), "bad-json");
    }

    #[test]
    fn replies_and_events_are_objects_with_a_type() {
        let topics = [Cow::Borrowed("a")];
        assert_eq!(
            replied(&Reply::Topics { verb: "SUB", topics: &topics }),
            r#"{"type":"ok","verb":"SUB","topics":["a"]}"#
        );
        let id = PublishId::new(1, 5);
        assert_eq!(
            replied(&Reply::Published { verb: "PUB", id }),
            r#"{"type":"ok","verb":"PUB","id":"281474976710661"}"#
        );
        assert_eq!(replied(&Reply::Pong { text: None }), r#"{"type":"pong"}"#);
        assert_eq!(
            replied(&Reply::Id { id: ConnId::from_u64(u64::MAX) }),
            r#"{"type":"id","id":"18446744073709551615"}"#
        );

        let topic: Topic = "a".parse().unwrap();
        assert_eq!(
            rendered(Event::Publish { topic: &topic, payload: b"say \"hi\"\n" }),
            r#"{"type":"msg","topic":"a","payload":"say \"hi\"\n"}"#
        );
        assert_eq!(rendered(Event::Broadcast { payload: b"\xff\0" }), r#"{"type":"all","payload_base64":"/wA="}"#);
        assert_eq!(rendered(Event::Direct { payload: b"" }), r#"{"type":"self","payload":""}"#);
        assert_eq!(
            rendered(Event::Gap { topic: None, count: 3, reason: DropReason::QueueFull }),
            r#"{"type":"gap","topic":"*","count":3,"reason":"queue-full"}"#
        );
        assert_eq!(rendered(Event::Bye { reason: CloseReason::Drain }), r#"{"type":"bye","reason":"drain"}"#);
    }

    proptest! {
        #[test]
        fn noise_never_panics_and_its_error_is_one_line(message in "[\\{\\}\\[\\]\":,a-z\\x00-\\x1f]{0,60}") {
            if let Err(mistake) = parse(message.as_bytes(), 255) {
                prop_assert!(!mistake.text.contains(|c: char| c.is_control()), "{}", mistake.text);
            }
        }

        #[test]
        fn any_payload_survives(payload in prop::collection::vec(any::<u8>(), 0..40)) {
            let text = rendered(Event::Broadcast { payload: &payload });
            let back = text.replacen("\"all\"", "\"cast\"", 1);
            let Ok(Command::Cast { payload: read }) = parse(back.as_bytes(), 255) else { panic!("{back}") };
            prop_assert_eq!(&*read, &*payload);
        }
    }
}
