//! The hub's language as JSON objects, for WebSockets of the subprotocol `corecast.v1.json` and for event streams.
//!
//! Each object has a `type`, the verb in lower case. Ids are texts, because a number above 2^53 does not survive
//! JavaScript. A payload that is not UTF-8 is written in base64, as `payload_base64`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use crate::json;
use crate::message::{Kind, Topic};

use super::cause::{Cause, CommandId};
use super::hints;
use super::language::{Command, ErrorCode, Mistake, Reply};

/// What a client may write.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Incoming<'a> {
    Sub {
        #[serde(borrow)]
        id: Option<CommandId<'a>>,
        #[serde(borrow)]
        topics: Vec<Cow<'a, str>>,
    },
    Unsub {
        #[serde(borrow)]
        id: Option<CommandId<'a>>,
        #[serde(borrow)]
        topics: Vec<Cow<'a, str>>,
    },
    Pub {
        #[serde(borrow)]
        id: Option<CommandId<'a>>,
        #[serde(borrow)]
        topic: Cow<'a, str>,
        payload: Option<Cow<'a, str>>,
        payload_base64: Option<Cow<'a, str>>,
    },
    Cast {
        #[serde(borrow)]
        id: Option<CommandId<'a>>,
        payload: Option<Cow<'a, str>>,
        payload_base64: Option<Cow<'a, str>>,
    },
    Ping {
        #[serde(borrow)]
        id: Option<CommandId<'a>>,
        #[serde(borrow)]
        text: Option<Cow<'a, str>>,
    },
    Id {
        #[serde(borrow)]
        id: Option<CommandId<'a>>,
    },
}

impl<'a> Incoming<'a> {
    fn take_id(&mut self) -> Option<CommandId<'a>> {
        match self {
            Incoming::Sub { id, .. }
            | Incoming::Unsub { id, .. }
            | Incoming::Pub { id, .. }
            | Incoming::Cast { id, .. }
            | Incoming::Ping { id, .. }
            | Incoming::Id { id } => id.take(),
        }
    }
}

/// The `id` of an object that is not a command otherwise, so that its error can say what it answers.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<CommandId<'a>>,
}

/// One message of a client.
#[derive(Debug)]
pub(crate) struct Parsed<'a> {
    /// The `id` in it; `None`: it has none, or is not JSON at all.
    pub(crate) id: Option<CommandId<'a>>,
    /// What it asks for, with every topic checked; or what is wrong with it, in words for the client.
    pub(crate) command: Result<Command<'a>, Mistake>,
}

/// What the server writes. An answer ends with what it answers.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Outgoing<'a> {
    Ok {
        verb: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        topics: Option<&'a [Cow<'a, str>]>,
        #[serde(flatten)]
        cause: Answer<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        publish_id: Option<String>,
    },
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<Cow<'a, str>>,
        #[serde(flatten)]
        cause: Answer<'a>,
    },
    Id {
        #[serde(flatten)]
        cause: Answer<'a>,
        connection_id: String,
    },
    Err {
        code: &'a str,
        text: &'a str,
        #[serde(flatten)]
        cause: Answer<'a>,
    },
}

/// The members of an answer that tell what it answers.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<CommandId<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'static str>,
}

impl<'a> Answer<'a> {
    fn of(cause: &Cause<'a>) -> Self {
        match cause {
            Cause::Command(id) => Answer { id: id.clone(), from: None },
            Cause::Url => Answer { id: None, from: Some("url") },
        }
    }

    /// Answers that name a publish or a connection call that `id` where the command has none of its own.
    fn or(mut self, id: &str) -> Self {
        self.id.get_or_insert_with(|| CommandId::Text(Cow::Owned(id.to_owned())));
        self
    }
}

/// Reads one message. Every topic in it has been checked when it returns.
pub(crate) fn parse(message: &[u8], topic_bytes_max: usize) -> Parsed<'_> {
    let mut incoming: Incoming<'_> = match json::read_object(message) {
        Ok(incoming) => incoming,
        Err(error) => {
            let error = hints::not_json(message).map_or(error, str::to_owned);
            let text = format!("write an object such as {EXAMPLE}: {error}");
            let id = json::read_object(message).ok().and_then(|Envelope { id }| id);
            return Parsed { id, command: Err(Mistake { code: ErrorCode::BadJson, text }) };
        }
    };
    Parsed { id: incoming.take_id(), command: command(incoming, topic_bytes_max) }
}

fn command(incoming: Incoming<'_>, topic_bytes_max: usize) -> Result<Command<'_>, Mistake> {
    let check = |topics: Vec<Cow<'_, str>>| {
        if topics.is_empty() {
            let text = r#"name a topic, as in "topics":["news"]"#;
            return Err(Mistake { code: ErrorCode::MissingTopic, text: text.into() });
        }
        topics.iter().try_for_each(|topic| Topic::check(topic.as_bytes(), topic_bytes_max).map(|_| ()))?;
        Ok(())
    };
    Ok(match incoming {
        Incoming::Sub { topics, .. } => {
            check(topics.clone())?;
            Command::Subscribe(topics)
        }
        Incoming::Unsub { topics, .. } => {
            check(topics.clone())?;
            Command::Unsubscribe(topics)
        }
        Incoming::Pub { topic, payload, payload_base64, .. } => {
            Topic::check(topic.as_bytes(), topic_bytes_max)?;
            let (payload, kind) = bytes(payload, payload_base64)?;
            Command::Publish { topic, payload, kind: Some(kind) }
        }
        Incoming::Cast { payload, payload_base64, .. } => {
            let (payload, kind) = bytes(payload, payload_base64)?;
            Command::Cast { payload, kind: Some(kind) }
        }
        Incoming::Ping { text, .. } => Command::Ping { text: text.map(into_bytes) },
        Incoming::Id { .. } => Command::Id,
    })
}

const EXAMPLE: &str = r#"{"type":"sub","topics":["news"]}"#;

fn into_bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// The payload, written in one of its two forms, which say what kind it is of.
fn bytes<'a>(text: Option<Cow<'a, str>>, base64: Option<Cow<'a, str>>) -> Result<(Cow<'a, [u8]>, Kind), Mistake> {
    match (text, base64) {
        (Some(text), None) => Ok((into_bytes(text), Kind::Text)),
        (None, Some(base64)) => match BASE64_STANDARD.decode(base64.as_bytes()) {
            Ok(bytes) => Ok((bytes.into(), Kind::Binary)),
            Err(error) => {
                Err(Mistake { code: ErrorCode::BadJson, text: format!("payload_base64 is not base64: {error}") })
            }
        },
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

/// Puts a reply into an object that says what it answers.
pub(crate) fn reply(reply: &Reply<'_>, cause: &Cause<'_>, out: &mut Vec<u8>) {
    let cause = Answer::of(cause);
    let outgoing = match reply {
        Reply::Topics { verb, topics } => Outgoing::Ok { verb, topics: Some(topics), cause, publish_id: None },
        Reply::Published { verb, id } => {
            let id = id.to_string();
            Outgoing::Ok { verb, topics: None, cause: cause.or(&id), publish_id: Some(id) }
        }
        // In this dialect a text is UTF-8, since it came as JSON.
        Reply::Pong { text } => Outgoing::Pong { text: text.as_ref().map(|text| String::from_utf8_lossy(text)), cause },
        Reply::Id { id } => {
            let id = id.to_string();
            Outgoing::Id { cause: cause.or(&id), connection_id: id }
        }
        Reply::Error(mistake) => Outgoing::Err { code: mistake.code.name(), text: &mistake.text, cause },
    };
    write(&outgoing, out);
}

fn write(outgoing: &Outgoing<'_>, out: &mut Vec<u8>) {
    serde_json::to_writer(out, outgoing).expect("texts and numbers have a form in JSON, and a Vec takes all of it");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::message::{CloseReason, ConnId, Dialect, DropReason, PublishId};
    use proptest::prelude::*;

    fn code(message: &str) -> &'static str {
        parse(message.as_bytes(), 255).command.unwrap_err().code.name()
    }

    fn replied(what: &Reply<'_>) -> String {
        answered(what, &Cause::Command(None))
    }

    fn answered(what: &Reply<'_>, cause: &Cause<'_>) -> String {
        let mut out = Vec::new();
        reply(what, cause, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn rendered(event: Event<'_>) -> String {
        let mut out = Vec::new();
        event.write(Dialect::Json, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn commands_are_read() {
        let Ok(Command::Subscribe(topics)) = parse(br#"{"type":"sub","topics":["a","b\u0062"]}"#, 255).command else {
            panic!()
        };
        assert_eq!(topics, ["a", "bb"]);
        let Ok(Command::Publish { topic, payload, kind: Some(Kind::Text) }) =
            parse(br#"{"type":"pub","topic":"a","payload":"x\ny"}"#, 255).command
        else {
            panic!()
        };
        assert_eq!((&*topic, &*payload), ("a", &b"x\ny"[..]));
        let binary = parse(br#"{"payload_base64":"eA==","type":"cast"}"#, 255).command;
        let Ok(Command::Cast { payload, kind: Some(Kind::Binary) }) = binary else { panic!() };
        assert_eq!(*payload, *b"x");
        let Ok(Command::Ping { text: Some(_) }) = parse(br#"{"type":"ping","text":"x"}"#, 255).command else {
            panic!()
        };
        let Ok(Command::Ping { text: None }) = parse(br#"{"type":"ping"}"#, 255).command else { panic!() };
        let Ok(Command::Id) = parse(br#"{"type":"id"}"#, 255).command else { panic!() };
    }

    #[test]
    fn each_mistake_has_its_code() {
        assert_eq!(code(""), "bad-json");
        assert_eq!(code("SUB a"), "bad-json");
        assert_eq!(code(r#"{"type":"sub","topics":["a,b"]}"#), "bad-topic");
        assert_eq!(code(r#"{"type":"cast","payload":"cut \ud83d"}"#), "bad-json");
        assert_eq!(code("[]"), "bad-json");
        // Serde would take it for the members of an object in their order.
        assert_eq!(code(r#"["sub",7,["a"]]"#), "bad-json");
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
            r#"{"type":"ok","verb":"PUB","id":"281474976710661","publish_id":"281474976710661"}"#
        );
        assert_eq!(replied(&Reply::Pong { text: None }), r#"{"type":"pong"}"#);
        assert_eq!(
            replied(&Reply::Id { id: ConnId::from_u64(u64::MAX) }),
            r#"{"type":"id","id":"18446744073709551615","connection_id":"18446744073709551615"}"#
        );

        let topic: Topic = "a".parse().unwrap();
        assert_eq!(
            rendered(Event::Publish { topic: &topic, payload: b"say \"hi\"\n", kind: Kind::Text }),
            r#"{"type":"msg","topic":"a","payload":"say \"hi\"\n"}"#
        );
        let all = |payload, kind| rendered(Event::Broadcast { payload, kind });
        assert_eq!(all(b"\xff\0", Kind::Text), r#"{"type":"all","payload_base64":"/wA="}"#);
        assert_eq!(all(b"x", Kind::Binary), r#"{"type":"all","payload_base64":"eA=="}"#);
        assert_eq!(all(b"", Kind::Binary), r#"{"type":"all","payload_base64":""}"#);
        assert_eq!(rendered(Event::Direct { payload: b"", kind: Kind::Text }), r#"{"type":"self","payload":""}"#);
        assert_eq!(
            rendered(Event::Gap { topic: None, count: 3, reason: DropReason::QueueFull }),
            r#"{"type":"gap","topic":"*","count":3,"reason":"queue-full"}"#
        );
        let bye = |text| rendered(Event::Bye { reason: CloseReason::Drain, text });
        assert_eq!(bye(None), r#"{"type":"bye","reason":"drain"}"#);
        assert_eq!(bye(Some("\"so\"")), r#"{"type":"bye","reason":"drain","text":"\"so\""}"#);
    }

    #[test]
    fn the_id_of_a_command_is_read_from_whatever_is_json() {
        fn id(message: &str) -> Option<CommandId<'_>> {
            parse(message.as_bytes(), 255).id
        }
        let text = |text: &'static str| Some(CommandId::Text(text.into()));
        assert_eq!(id(r#"{"type":"ping"}"#), None);
        assert_eq!(id(r#"{"type":"ping","id":null}"#), None);
        assert_eq!(id(r#"{"type":"ping","id":""}"#), text(""));
        assert_eq!(id(r#"{"id":"a\u0062","type":"id"}"#), text("ab"));
        assert_eq!(id(r#"{"type":"ping","id":-7}"#), Some(CommandId::Signed(-7)));
        assert_eq!(id(r#"{"type":"ping","id":18446744073709551615}"#), Some(CommandId::Unsigned(u64::MAX)));
        // What can't be carried out is answered under its id, too.
        for command in [
            r#"{"type":"helo","id":"x"}"#,
            r#"{"id":"x"}"#,
            r#"{"type":"sub","topics":"news","id":"x"}"#,
            r#"{"type":"sub","topics":["a b"],"id":"x"}"#,
            r#"{"type":"sub","id":"x","more":{"id":"y"}}"#,
        ] {
            assert!(parse(command.as_bytes(), 255).command.is_err());
            assert_eq!(id(command), text("x"), "{command}");
        }
        assert_eq!(id(r#"{"type":"ping","id":"x""#), None);
        assert_eq!(code(r#"{"type":"ping","id":1,"id":2}"#), "bad-json");
        assert_eq!(code(r#"{"type":"ping","id":1.5}"#), "bad-json");
    }

    #[test]
    fn each_answer_says_what_it_answers() {
        let topics = [Cow::Borrowed("a")];
        let topics = Reply::Topics { verb: "SUB", topics: &topics };
        let seven = Cause::Command(Some(CommandId::Unsigned(7)));
        assert_eq!(answered(&topics, &seven), r#"{"type":"ok","verb":"SUB","topics":["a"],"id":7}"#);
        assert_eq!(answered(&topics, &Cause::Url), r#"{"type":"ok","verb":"SUB","topics":["a"],"from":"url"}"#);
        let published = Reply::Published { verb: "PUB", id: PublishId::new(0, 5) };
        assert_eq!(answered(&published, &seven), r#"{"type":"ok","verb":"PUB","id":7,"publish_id":"5"}"#);
        let named = Cause::Command(Some(CommandId::Text("a \"b\"".into())));
        assert_eq!(answered(&Reply::Pong { text: None }, &named), r#"{"type":"pong","id":"a \"b\""}"#);
        let id = Reply::Id { id: ConnId::from_u64(42) };
        assert_eq!(answered(&id, &seven), r#"{"type":"id","id":7,"connection_id":"42"}"#);
        let mistake = Mistake { code: ErrorCode::BadTopic, text: "no".into() };
        let err = answered(&Reply::Error(&mistake), &seven);
        assert_eq!(err, r#"{"type":"err","code":"bad-topic","text":"no","id":7}"#);
    }

    proptest! {
        #[test]
        fn noise_never_panics_and_its_error_is_one_line(message in "[\\{\\}\\[\\]\":,a-z\\x00-\\x1f]{0,60}") {
            if let Err(mistake) = parse(message.as_bytes(), 255).command {
                prop_assert!(!mistake.text.contains(|c: char| c.is_control()), "{}", mistake.text);
            }
        }

        #[test]
        fn any_payload_survives(
            payload in prop::collection::vec(any::<u8>(), 0..40),
            kind in prop::sample::select(vec![Kind::Text, Kind::Binary]),
        ) {
            let text = rendered(Event::Broadcast { payload: &payload, kind });
            let back = text.replacen("\"all\"", "\"cast\"", 1);
            let Ok(Command::Cast { payload: read, kind: read_kind }) = parse(back.as_bytes(), 255).command else {
                panic!("{back}")
            };
            prop_assert_eq!(&*read, &*payload);
            let is_text = kind == Kind::Text && std::str::from_utf8(&payload).is_ok();
            prop_assert_eq!(read_kind, Some(if is_text { Kind::Text } else { Kind::Binary }));
        }
    }
}
