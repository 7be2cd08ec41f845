//! The hub's language: what clients write, what the server answers, the same over every framing.
//!
//! One space separates words; a payload is all the rest, spaces included. Verbs are read in any case.

use std::borrow::Cow;
use std::io::Write as _;

use crate::handler::SendError;
use crate::message::{ConnId, Kind, PublishId, Topic, TopicError};

use super::hints;

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    /// `SUB topic…`; the topics have been checked, and stand in the order they were written.
    Subscribe(Vec<Cow<'a, str>>),
    /// `UNSUB topic…`
    Unsubscribe(Vec<Cow<'a, str>>),
    /// `PUB topic payload`; the kind is that of the message, unless it is said.
    Publish { topic: Cow<'a, str>, payload: Cow<'a, [u8]>, kind: Option<Kind> },
    /// `CAST payload`
    Cast { payload: Cow<'a, [u8]>, kind: Option<Kind> },
    /// `PING [text]`
    Ping { text: Option<Cow<'a, [u8]>> },
    /// `ID`
    Id,
}

/// What a client is answered.
#[derive(Clone, Debug)]
pub(crate) enum Reply<'a> {
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
        #[non_exhaustive]
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
    /// The first word is not a verb of the language.
    UnknownVerb = "unknown-verb",
    /// The verb needs a topic and none is there.
    MissingTopic = "missing-topic",
    /// A topic is empty, too long, not UTF-8, or holds a character that topics may not have.
    BadTopic = "bad-topic",
    /// The verb needs a payload and none is there.
    MissingPayload = "missing-payload",
    /// The verb takes no arguments.
    UnexpectedArgument = "unexpected-argument",
    /// The connection would have more topics than it may have; nothing was subscribed.
    TooManyTopics = "too-many-topics",
    /// Clients may not publish on this server.
    PublishForbidden = "publish-forbidden",
    /// The answer can't be sent in the connection's framing: `line` has no form for a text that ends in a carriage return.
    Unsendable = "unsendable",
    /// A queue of publishes is full; the message was not published, try again later.
    Busy = "busy",
    /// The server has no memory for more subscriptions; nothing was subscribed, try again later.
    Full = "full",
    /// The message is larger than `max_message`; where it came as one frame, the connection is closed.
    MessageTooLarge = "message-too-large",
    /// The message is not one of the JSON objects that a `corecast.v1.json` client may send.
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
pub(crate) struct Mistake {
    pub(crate) code: ErrorCode,
    pub(crate) text: String,
}

impl Mistake {
    fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Mistake { code, text: text.into() }
    }

    pub(crate) fn unsendable(error: &SendError) -> Self {
        Mistake::new(ErrorCode::Unsendable, format!("the answer can't be sent: {error}"))
    }

    pub(crate) fn publish_forbidden() -> Self {
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
/// White space at the end, such as a line end that a client sends along in a framing that needs none, is dropped where
/// no text follows the verb's words: a payload, and the text of a `PING`, is taken as it was sent. So is a byte order
/// mark at the beginning, which some editors write.
///
/// # Errors
/// What is wrong with it, in words for the client.
pub(crate) fn parse(message: &[u8], topic_bytes_max: usize) -> Result<Command<'_>, Mistake> {
    let message = message.strip_prefix(BYTE_ORDER_MARK).unwrap_or(message);
    if message.trim_ascii_end().is_empty() {
        return Err(Mistake::new(ErrorCode::EmptyMessage, "write a verb, as in SUB news or PING"));
    }
    let (verb, rest) = match split_word(message) {
        (verb, None) => (verb.trim_ascii_end(), None),
        words => words,
    };
    let is = |name: &str| verb.eq_ignore_ascii_case(name.as_bytes());
    if is("SUB") {
        parse_topics(rest, topic_bytes_max, "SUB").map(Command::Subscribe)
    } else if is("UNSUB") {
        parse_topics(rest, topic_bytes_max, "UNSUB").map(Command::Unsubscribe)
    } else if is("PUB") {
        let (topic, payload) = match split_word(rest.unwrap_or_default()) {
            (topic, None) => (topic.trim_ascii_end(), None),
            words => words,
        };
        if topic.is_empty() && payload.is_none() {
            return Err(Mistake::new(ErrorCode::MissingTopic, "write PUB topic payload"));
        }
        let topic = Topic::check(topic, topic_bytes_max)?;
        let payload = payload.ok_or_else(|| Mistake::new(ErrorCode::MissingPayload, "write PUB topic payload"))?;
        Ok(Command::Publish { topic: topic.into(), payload: payload.into(), kind: None })
    } else if is("CAST") {
        let payload = rest.ok_or_else(|| Mistake::new(ErrorCode::MissingPayload, "write CAST payload"))?;
        Ok(Command::Cast { payload: payload.into(), kind: None })
    } else if is("PING") {
        Ok(Command::Ping { text: rest.map(Cow::Borrowed) })
    } else if is("ID") {
        match rest.unwrap_or_default().trim_ascii_end() {
            b"" => Ok(Command::Id),
            _ => Err(Mistake::new(ErrorCode::UnexpectedArgument, "ID stands alone")),
        }
    } else {
        Err(Mistake::new(ErrorCode::UnknownVerb, hints::unknown_verb(message, verb)))
    }
}

fn parse_topics<'a>(rest: Option<&'a [u8]>, topic_bytes_max: usize, verb: &str) -> Result<Vec<Cow<'a, str>>, Mistake> {
    let rest = rest.unwrap_or_default().trim_ascii_end();
    if rest.is_empty() {
        return Err(Mistake::new(ErrorCode::MissingTopic, format!("write {verb} topic…")));
    }
    let topics = rest.split(|byte| *byte == b' ').map(|topic| match Topic::check(topic, topic_bytes_max) {
        Ok(topic) => Ok(Cow::Borrowed(topic)),
        Err(TopicError::Empty) => Err(Mistake::new(ErrorCode::BadTopic, "one space separates words; here are two")),
        Err(error) => Err(error.into()),
    });
    topics.collect()
}

/// The bytes before the first space, and those after it if there is one.
fn split_word(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b' ', bytes) {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    }
}

/// Puts a reply into words.
pub(crate) fn reply(reply: &Reply<'_>, out: &mut Vec<u8>) {
    match reply {
        Reply::Topics { verb, topics } => {
            put(out, format_args!("OK {verb}"));
            for topic in *topics {
                put(out, format_args!(" {topic}"));
            }
        }
        Reply::Published { verb, id } => {
            out.extend_from_slice(b"OK ");
            out.extend_from_slice(verb.as_bytes());
            out.push(b' ');
            id.write(out);
        }
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
        let Ok(Command::Publish { topic, payload, .. }) = parse(b"PUB news  two  spaces ", 255) else { panic!() };
        assert_eq!((&*topic, &*payload), ("news", &b" two  spaces "[..]));
        let Ok(Command::Publish { payload: Cow::Borrowed(b""), .. }) = parse(b"PUB news ", 255) else { panic!() };
        let Ok(Command::Cast { payload: Cow::Borrowed(b"x y"), kind: None }) = parse(b"CAST x y", 255) else {
            panic!()
        };
        let Ok(Command::Ping { text: None }) = parse(b"PING", 255) else { panic!() };
        let Ok(Command::Ping { text: Some(Cow::Borrowed(b"")) }) = parse(b"PING ", 255) else { panic!() };
        let Ok(Command::Id) = parse(b"Id", 255) else { panic!() };
    }

    #[test]
    fn each_mistake_has_its_code() {
        assert_eq!(code(b""), "empty-message");
        assert_eq!(code(b"HELO"), "unknown-verb");
        assert_eq!(code(b"\0\0\0"), "unknown-verb");
        assert_eq!(code(b" \r\n"), "empty-message");
        assert_eq!(code(b"SUB"), "missing-topic");
        assert_eq!(code(b"SUB "), "missing-topic");
        assert_eq!(code(b"SUB a  b"), "bad-topic");
        assert_eq!(code(b"SUB a, b"), "bad-topic");
        assert_eq!(code(b"SUB a\tb"), "bad-topic");
        assert_eq!(code(b"SUB \xff"), "bad-topic");
        assert_eq!(code(b"PUB"), "missing-topic");
        assert_eq!(code(b"PUB "), "missing-topic");
        assert_eq!(code(b"PUB  payload"), "bad-topic");
        assert_eq!(code(b"PUB news"), "missing-payload");
        assert_eq!(code(b"CAST"), "missing-payload");
        assert_eq!(code(b"ID 5"), "unexpected-argument");
        assert_eq!(parse(b"SUB abcd", 3).unwrap_err().text, "a topic has at most 3 bytes, this one has 4");
    }

    #[test]
    fn white_space_at_the_end_is_dropped_where_no_text_stands() {
        for end in ["\n", "\r\n", " ", " \t\r\n", "\n\n"] {
            let with_end = |text: &str| format!("{text}{end}").into_bytes();
            let message = with_end("SUB a b");
            let Ok(Command::Subscribe(topics)) = parse(&message, 255) else { panic!("{end:?}") };
            assert_eq!(topics, ["a", "b"]);
            assert!(matches!(parse(&with_end("UNSUB a"), 255), Ok(Command::Unsubscribe(_))));
            assert!(matches!(parse(&with_end("ID"), 255), Ok(Command::Id)));
            assert_eq!(code(&with_end("SUB")), "missing-topic");
            assert_eq!(code(&with_end("PUB")), "missing-topic");
            assert_eq!(code(&with_end("")), "empty-message");
            let message = with_end("PUB a x");
            let Ok(Command::Publish { payload, .. }) = parse(&message, 255) else { panic!("{end:?}") };
            assert_eq!(*payload, *with_end("x"), "a payload stays as it was sent");
            let message = with_end("CAST x");
            let Ok(Command::Cast { payload, .. }) = parse(&message, 255) else { panic!("{end:?}") };
            assert_eq!(*payload, *with_end("x"));
            let message = with_end("PING x");
            let Ok(Command::Ping { text: Some(text) }) = parse(&message, 255) else { panic!("{end:?}") };
            assert_eq!(*text, *with_end("x"));
        }
        for end in ["\n", "\r\n"] {
            assert!(matches!(parse(format!("PING{end}").as_bytes(), 255), Ok(Command::Ping { text: None })));
            assert_eq!(code(format!("PUB a{end}").as_bytes()), "missing-payload");
            assert_eq!(code(format!("CAST{end}").as_bytes()), "missing-payload");
        }
    }

    #[test]
    fn a_byte_order_mark_before_a_command_is_passed_over() {
        assert!(matches!(parse("\u{feff}SUB a".as_bytes(), 255), Ok(Command::Subscribe(_))));
        let Ok(Command::Publish { payload, .. }) = parse("\u{feff}PUB a \u{feff}x".as_bytes(), 255) else { panic!() };
        assert_eq!(*payload, *"\u{feff}x".as_bytes());
        assert_eq!(code("\u{feff}".as_bytes()), "empty-message");
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
