//! What holds for each command, and for what may be said of it.

use super::is_one_line;
use super::objects::{check_json_reply, read_object};
use crate::event::Event;
use crate::hub::cause::Cause;
use crate::hub::language::{self, Command, Mistake, Reply};
use crate::message::{ConnId, Dialect, Kind, PublishId, Topic};
use crate::protocol::{Encoding, Label, encode};

/// Bytes that a topic may have.
const TOPIC_BYTES_MAX: [usize; 4] = [255, 1, 8, 64];

/// The bytes that topics may have, as the first byte of an input chooses.
pub(super) fn topic_bytes_max(settings: u8) -> usize {
    TOPIC_BYTES_MAX[usize::from(settings) % TOPIC_BYTES_MAX.len()]
}

/// Each command that is understood names sound topics, and at least one where it needs one.
pub(super) fn check_command(command: &Command<'_>, topic_bytes_max: usize) {
    let topics = match command {
        Command::Subscribe(topics) | Command::Unsubscribe(topics) => &topics[..],
        Command::Publish { topic, .. } => std::slice::from_ref(topic),
        Command::Cast { .. } | Command::Ping { .. } | Command::Id => return,
    };
    assert!(!topics.is_empty());
    for topic in topics {
        assert_eq!(Topic::check(topic.as_bytes(), topic_bytes_max), Ok(&**topic));
        assert!(is_one_line(topic) && !topic.contains([' ', ',']), "{topic:?}");
    }
}

/// What is wrong is told in one line, whatever was wrong, and as JSON.
pub(super) fn check_mistake(mistake: &Mistake, cause: &Cause<'_>) {
    assert!(!mistake.text.is_empty() && is_one_line(&mistake.text), "{:?}", mistake.text);
    let reply = Reply::Error(mistake);
    assert_eq!(in_words(&reply), format!("ERR {} {}", mistake.code.name(), mistake.text).as_bytes());
    encode(Encoding::Line, Label::default(), &in_words(&reply), &mut Vec::new()).expect("every framing carries errors");
    let object = check_json_reply(&reply, cause);
    assert_eq!((&object["type"], &object["text"]), (&"err".into(), &mistake.text[..].into()));
}

fn in_words(reply: &Reply<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    language::reply(reply, &mut out);
    out
}

/// What a command may be answered, in both dialects.
pub(super) fn check_replies(command: &Command<'_>, cause: &Cause<'_>) {
    let id = PublishId::new(1, 5);
    let (reply, expected) = match command {
        Command::Subscribe(topics) => {
            (Reply::Topics { verb: "SUB", topics }, format!("OK SUB {}", topics.join(" ")).into_bytes())
        }
        Command::Unsubscribe(topics) => {
            (Reply::Topics { verb: "UNSUB", topics }, format!("OK UNSUB {}", topics.join(" ")).into_bytes())
        }
        Command::Publish { .. } => (Reply::Published { verb: "PUB", id }, format!("OK PUB {id}").into_bytes()),
        Command::Cast { .. } => (Reply::Published { verb: "CAST", id }, format!("OK CAST {id}").into_bytes()),
        Command::Ping { text: None } => (Reply::Pong { text: None }, b"PONG".to_vec()),
        Command::Ping { text: Some(text) } => (Reply::Pong { text: Some(text) }, [b"PONG ", &text[..]].concat()),
        Command::Id => (Reply::Id { id: ConnId::from_u64(7) }, b"ID 7".to_vec()),
    };
    assert_eq!(in_words(&reply), expected);
    // A text may hold what a line can't carry, if its own framing could.
    let carried = encode(Encoding::Line, Label::default(), &expected, &mut Vec::new());
    assert!(carried.is_ok() || matches!(command, Command::Ping { text: Some(_) }), "{carried:?}");
    let object = check_json_reply(&reply, cause);
    match command {
        Command::Subscribe(topics) | Command::Unsubscribe(topics) => {
            assert_eq!(object["topics"], serde_json::json!(topics))
        }
        Command::Publish { .. } | Command::Cast { .. } => assert_eq!(object["publish_id"], id.to_string()),
        Command::Ping { text: Some(text) } => assert_eq!(object["text"], *String::from_utf8_lossy(text)),
        Command::Ping { text: None } => assert!(object.get("text").is_none()),
        Command::Id => assert_eq!(object["connection_id"], "7"),
    }
}

/// What reaches others of a publish, in both dialects.
pub(super) fn check_events(command: &Command<'_>) {
    let (topic, payload, kind) = match command {
        Command::Publish { topic, payload, kind } => (Some(topic), payload, kind),
        Command::Cast { payload, kind } => (None, payload, kind),
        _ => return,
    };
    let kind = kind.unwrap_or_default();
    let topic = topic.map(|topic| Topic::new(topic.as_bytes()).expect("it has been checked"));
    let event = || match &topic {
        Some(topic) => Event::Publish { topic, payload, kind },
        None => Event::Broadcast { payload, kind },
    };
    let mut said = Vec::new();
    assert_eq!(event().write(Dialect::Text, &mut said), kind);
    let start = topic.as_ref().map_or("ALL ".into(), |topic| format!("MSG {topic} "));
    assert_eq!(said.strip_prefix(start.as_bytes()), Some(&payload[..]));
    let mut said = Vec::new();
    event().write(Dialect::Json, &mut said);
    let (object, told) = read_object(&said);
    assert_eq!(object.get("topic").and_then(|topic| topic.as_str()), topic.as_ref().map(Topic::as_str));
    assert_eq!(told.as_deref(), Some(&payload[..]));
    assert!(kind == Kind::Text || object.get("payload").is_none(), "binary is told from text");
}
