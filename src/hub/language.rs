//! The hub's language: what clients write, what the server answers, the same over every framing.
//!
//! One space separates words; a payload is all the rest, spaces included. Verbs are read in any case.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;

use crate::handler::Event;
use crate::message::{ConnId, PublishId, Topic, TopicError};

use super::topic_word;

/// What a client asks for.
#[derive(Clone, Debug)]
pub(super) enum Command<'a> {
    /// `SUB topic…`; the topics have been checked, and stand in the order they were written.
    Subscribe(Vec<Cow<'a, str>>),
    /// `UNSUB topic…`
    Unsubscribe(Vec<Cow<'a, str>>),
    /// `PUB topic payload`
    Publish { topic: Cow<'a, str>, payload: Cow<'a, [u8]> },
    /// `CAST payload`
    Cast { payload: Cow<'a, [u8]> },
    /// `PING [text]`
    Ping { text: Option<Cow<'a, [u8]>> },
    /// `ID`
    Id,
}

/// What a client is answered.
#[derive(Clone, Debug)]
pub(super) enum Reply<'a> {
    /// `OK verb topic…`
    Topics { verb: &'static str, topics: &'a [Cow<'a, str>] },
    /// `OK verb publish-id`
    Published { verb: &'static str, id: PublishId },
    /// `PONG [text]`
    Pong { text: Option<&'a [u8]> },
    /// `ID n`
    Id { id: ConnId },
    /// `ERR code text`
    Error(&'a Mistake),
}

macro_rules! error_codes {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// The code of an `ERR`: a stable word for programs; the text after it is for people.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ErrorCode {
            $($(#[doc = $doc])* $variant,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: [ErrorCode; [$($name),*].len()] = [$(ErrorCode::$variant),*];

            /// The word on the wire.
            pub fn name(self) -> &'static str {
                match self { $(ErrorCode::$variant => $name,)* }
            }

            /// What it means, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(ErrorCode::$variant => concat!($($doc),*).trim_ascii(),)* }
            }
        }
    };
}

error_codes! {
    /// The message has no bytes.
    EmptyMessage = "empty-message",
    /// The first word is no verb of the language.
    UnknownVerb = "unknown-verb",
    /// The verb needs a topic and none is there.
    MissingTopic = "missing-topic",
    /// A topic is empty, too long, not UTF-8, or holds white space or control characters.
    BadTopic = "bad-topic",
    /// The verb needs a payload and none is there.
    MissingPayload = "missing-payload",
    /// The verb takes no arguments.
    UnexpectedArgument = "unexpected-argument",
    /// The connection would have more topics than it may have; nothing was subscribed.
    TooManyTopics = "too-many-topics",
    /// Clients may not publish on this server.
    PublishForbidden = "publish-forbidden",
    /// A queue of publishes is full; the message was not published, try again later.
    Busy = "busy",
    /// The message is larger than `max_message`; where it came as one frame, the connection is closed.
    MessageTooLarge = "message-too-large",
    /// The message is none of the JSON objects that a `corecast.v1.json` client may send.
    BadJson = "bad-json",
    /// The client broke the rules of WebSocket; the connection is closed.
    ProtocolError = "protocol-error",
    /// The client speaks another protocol than its port, as in HTTP to the line framing; the connection is closed.
    WrongProtocol = "wrong-protocol",
    /// A WebSocket text message is not UTF-8; the connection is closed.
    NotUtf8 = "not-utf8",
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) code: ErrorCode,
    pub(super) text: String,
}

impl Mistake {
    fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Mistake { code, text: text.into() }
    }

    pub(super) fn publish_forbidden() -> Self {
        let text = "clients may not publish here; the server allows it with --client-publish";
        Mistake::new(ErrorCode::PublishForbidden, text)
    }
}

impl From<TopicError> for Mistake {
    fn from(error: TopicError) -> Self {
        Mistake::new(ErrorCode::BadTopic, error.to_string())
    }
}

/// Reads one message. Every topic in it has been checked when it returns.
///
/// # Errors
/// What is wrong with it, in words for the client.
pub(super) fn parse(message: &[u8], topic_bytes_max: usize) -> Result<Command<'_>, Mistake> {
    if message.is_empty() {
        return Err(Mistake::new(ErrorCode::EmptyMessage, "write a verb, as in SUB news or PING"));
    }
    let (verb, rest) = split_word(message);
    let is = |name: &str| verb.eq_ignore_ascii_case(name.as_bytes());
    if is("SUB") {
        parse_topics(rest, topic_bytes_max, "SUB").map(Command::Subscribe)
    } else if is("UNSUB") {
        parse_topics(rest, topic_bytes_max, "UNSUB").map(Command::Unsubscribe)
    } else if is("PUB") {
        let rest = rest.ok_or_else(|| Mistake::new(ErrorCode::MissingTopic, "write PUB topic payload"))?;
        let (topic, payload) = split_word(rest);
        let topic = Topic::check(topic, topic_bytes_max)?;
        let payload = payload.ok_or_else(|| Mistake::new(ErrorCode::MissingPayload, "write PUB topic payload"))?;
        Ok(Command::Publish { topic: topic.into(), payload: payload.into() })
    } else if is("CAST") {
        let payload = rest.ok_or_else(|| Mistake::new(ErrorCode::MissingPayload, "write CAST payload"))?;
        Ok(Command::Cast { payload: payload.into() })
    } else if is("PING") {
        Ok(Command::Ping { text: rest.map(Cow::Borrowed) })
    } else if is("ID") {
        match rest {
            None => Ok(Command::Id),
            Some(_) => Err(Mistake::new(ErrorCode::UnexpectedArgument, "ID stands alone")),
        }
    } else {
        let verb = quoted(verb);
        Err(Mistake::new(ErrorCode::UnknownVerb, format!("{verb} is none of SUB, UNSUB, PUB, CAST, PING, ID")))
    }
}

fn parse_topics<'a>(rest: Option<&'a [u8]>, topic_bytes_max: usize, verb: &str) -> Result<Vec<Cow<'a, str>>, Mistake> {
    let rest = rest.ok_or_else(|| Mistake::new(ErrorCode::MissingTopic, format!("write {verb} topic…")))?;
    let topics = rest.split(|byte| *byte == b' ');
    topics.map(|topic| Ok(Cow::Borrowed(Topic::check(topic, topic_bytes_max)?))).collect()
}

/// The bytes before the first space, and those after it if there is one.
fn split_word(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b' ', bytes) {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    }
}

/// Peer bytes in a form that is safe to print: escaped, and cut where they go on for long.
fn quoted(bytes: &[u8]) -> String {
    const SHOWN: usize = 24;
    let mut text = String::from("`");
    let _ = write!(text, "{}", bytes[..bytes.len().min(SHOWN)].escape_ascii());
    text.push_str(if bytes.len() > SHOWN { "…`" } else { "`" });
    text
}

/// Puts a reply into words.
pub(super) fn reply(reply: &Reply<'_>, out: &mut Vec<u8>) {
    match reply {
        Reply::Topics { verb, topics } => {
            put(out, format_args!("OK {verb}"));
            for topic in *topics {
                put(out, format_args!(" {topic}"));
            }
        }
        Reply::Published { verb, id } => put(out, format_args!("OK {verb} {id}")),
        Reply::Pong { text } => {
            out.extend_from_slice(b"PONG");
            if let Some(text) = text {
                out.push(b' ');
                out.extend_from_slice(text);
            }
        }
        Reply::Id { id } => put(out, format_args!("ID {id}")),
        Reply::Error(mistake) => error(out, mistake.code.name(), &mistake.text),
    }
}

/// `ERR code text`
fn error(out: &mut Vec<u8>, code: &str, text: &str) {
    put(out, format_args!("ERR {code} {text}"));
}

/// Puts an event into words: `MSG`, `ALL`, `SELF`, `GAP`, `ERR` or `BYE`.
pub(super) fn render(event: Event<'_>, out: &mut Vec<u8>) {
    match event {
        Event::Publish { topic, payload } => {
            out.extend_from_slice(b"MSG ");
            out.extend_from_slice(topic.as_str().as_bytes());
            out.push(b' ');
            out.extend_from_slice(payload);
        }
        Event::Broadcast { payload } => {
            out.extend_from_slice(b"ALL ");
            out.extend_from_slice(payload);
        }
        Event::Direct { payload } => {
            out.extend_from_slice(b"SELF ");
            out.extend_from_slice(payload);
        }
        Event::Gap { topic, count, reason } => put(out, format_args!("GAP {} {count} {reason}", topic_word(topic))),
        Event::Error { code, text } => error(out, code, text),
        Event::Bye { reason } => put(out, format_args!("BYE {reason}")),
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a Vec does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code(message: &[u8]) -> &'static str {
        parse(message, 255).unwrap_err().code.name()
    }

    #[test]
    fn commands_are_read_in_any_case() {
        let Ok(Command::Subscribe(topics)) = parse(b"sub news sport/f1", 255) else { panic!() };
        assert_eq!(topics, ["news", "sport/f1"]);
        let Ok(Command::Publish { topic, payload }) = parse(b"PUB news  two  spaces ", 255) else { panic!() };
        assert_eq!((&*topic, &*payload), ("news", &b" two  spaces "[..]));
        let Ok(Command::Publish { payload: Cow::Borrowed(b""), .. }) = parse(b"PUB news ", 255) else { panic!() };
        let Ok(Command::Cast { payload: Cow::Borrowed(b"x y") }) = parse(b"CAST x y", 255) else { panic!() };
        let Ok(Command::Ping { text: None }) = parse(b"PING", 255) else { panic!() };
        let Ok(Command::Ping { text: Some(Cow::Borrowed(b"")) }) = parse(b"PING ", 255) else { panic!() };
        let Ok(Command::Id) = parse(b"Id", 255) else { panic!() };
    }

    #[test]
    fn each_mistake_has_its_code() {
        assert_eq!(code(b""), "empty-message");
        assert_eq!(code(b"HELO"), "unknown-verb");
        assert_eq!(code(b"\0\0\0"), "unknown-verb");
        assert_eq!(code(b"SUB"), "missing-topic");
        assert_eq!(code(b"SUB "), "bad-topic");
        assert_eq!(code(b"SUB a  b"), "bad-topic");
        assert_eq!(code(b"SUB a\tb"), "bad-topic");
        assert_eq!(code(b"SUB \xff"), "bad-topic");
        assert_eq!(code(b"PUB"), "missing-topic");
        assert_eq!(code(b"PUB news"), "missing-payload");
        assert_eq!(code(b"CAST"), "missing-payload");
        assert_eq!(code(b"ID 5"), "unexpected-argument");
        assert_eq!(parse(b"SUB abcd", 3).unwrap_err().text, "a topic has at most 3 bytes, this one has 4");
    }

    #[test]
    fn what_a_client_wrote_is_never_echoed_raw() {
        let mistake = parse(b"\x1b[31m\x00\xff and so on for ever and ever", 255).unwrap_err();
        assert_eq!(mistake.text, r"`\x1b[31m\x00\xff` is none of SUB, UNSUB, PUB, CAST, PING, ID");
        let mistake = parse(&[b'x'; 100], 255).unwrap_err();
        assert!(mistake.text.starts_with("`xxxxxxxxxxxxxxxxxxxxxxxx…`"), "{}", mistake.text);
    }

    proptest! {
        #[test]
        fn noise_never_panics_and_its_error_is_one_line(message in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Err(mistake) = parse(&message, 255) {
                prop_assert!(!mistake.text.contains(|c: char| c.is_control()));
            }
        }
    }
}
