//! Commands and answers as JSON objects.

use std::str;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::is_one_line;
use crate::hub::cause::{Cause, CommandId};
use crate::hub::json;
use crate::hub::language::{Command, Reply};
use crate::message::Kind;

/// A command as its client writes it.
pub(super) fn object(command: &Command<'_>, id: Option<&CommandId<'_>>) -> String {
    let text = |bytes: &[u8]| str::from_utf8(bytes).expect("a text is UTF-8").to_owned();
    let mut object = match command {
        Command::Subscribe(topics) => json!({"type": "sub", "topics": topics}),
        Command::Unsubscribe(topics) => json!({"type": "unsub", "topics": topics}),
        Command::Publish { topic, .. } => json!({"type": "pub", "topic": topic}),
        Command::Cast { .. } => json!({"type": "cast"}),
        Command::Ping { text: told } => json!({"type": "ping", "text": told.as_deref().map(text)}),
        Command::Id => json!({"type": "id"}),
    };
    if let Command::Publish { payload, kind, .. } | Command::Cast { payload, kind } = command {
        match kind.expect("JSON says the kind") {
            Kind::Text => object["payload"] = text(payload).into(),
            Kind::Binary => object["payload_base64"] = BASE64_STANDARD.encode(payload).into(),
        }
    }
    if let Some(id) = id {
        object["id"] = serde_json::to_value(id).expect("an id is a text or a number");
    }
    object.to_string()
}

/// Reads an object that the server wrote, and the payload in it.
pub(super) fn read_object(said: &[u8]) -> (Map<String, Value>, Option<Vec<u8>>) {
    let text = str::from_utf8(said).expect("JSON is UTF-8");
    assert!(!text.contains(['\n', '\r']), "{text:?}");
    let Ok(Value::Object(object)) = serde_json::from_str(text) else { panic!("it is no object: {text}") };
    assert!(object["type"].as_str().is_some_and(is_one_line), "{text}");
    let payload = match (object.get("payload"), object.get("payload_base64")) {
        (Some(text), None) => text.as_str().map(|text| text.as_bytes().to_vec()),
        (None, Some(text)) => text.as_str().map(|text| BASE64_STANDARD.decode(text).expect("it is base64")),
        (None, None) => None,
        (Some(_), Some(_)) => panic!("a payload is said in one way: {text}"),
    };
    (object, payload)
}

/// A reply is one line of JSON, and says what it answers.
pub(super) fn check_json_reply(reply: &Reply<'_>, cause: &Cause<'_>) -> Map<String, Value> {
    let mut said = Vec::new();
    json::reply(reply, cause, &mut said);
    let (object, _) = read_object(&said);
    if let Cause::Command(Some(id)) = cause {
        assert_eq!(object["id"], serde_json::to_value(id).expect("an id is a text or a number"));
    }
    object
}
