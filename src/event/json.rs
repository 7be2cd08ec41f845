//! Events as JSON objects.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

use super::{Event, topic_word};
use crate::message::Kind;

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Object<'a> {
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
    Err {
        code: &'a str,
        text: &'a str,
    },
    Gap {
        topic: &'a str,
        count: u64,
        reason: &'a str,
    },
    Bye {
        reason: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<&'a str>,
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
    /// Text that is not UTF-8 is written as binary is.
    fn of(bytes: &'a [u8], kind: Kind) -> Self {
        match simdutf8::basic::from_utf8(bytes) {
            Ok(text) if kind == Kind::Text => Payload::Text(text),
            _ => Payload::Base64(BASE64_STANDARD.encode(bytes)),
        }
    }
}

/// Appends an event as an object.
pub(super) fn write(event: &Event<'_>, out: &mut Vec<u8>) {
    let object = match *event {
        Event::Publish { topic, payload, kind } => {
            Object::Msg { topic: topic.as_str(), payload: Payload::of(payload, kind) }
        }
        Event::Broadcast { payload, kind } => Object::All { payload: Payload::of(payload, kind) },
        Event::Direct { payload, kind } => Object::Direct { payload: Payload::of(payload, kind) },
        Event::Gap { topic, count, reason } => Object::Gap { topic: topic_word(topic), count, reason: reason.name() },
        Event::Error { code, text } => Object::Err { code, text },
        Event::Bye { reason, text } => Object::Bye { reason: reason.name(), text },
    };
    serde_json::to_writer(out, &object).expect("texts and numbers have a form in JSON, and a Vec takes all of it");
}
