//! What clients are told of, and how it reads.

#[cfg(feature = "web")]
mod json;

use std::fmt;
use std::io::Write as _;

use crate::message::{CloseReason, Dialect, DropReason, Kind, Topic};

/// Something that clients are told of, for [`Handler::render`](crate::Handler::render) to put into bytes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A message published to a topic.
    Publish {
        /// The topic.
        topic: &'a Topic,
        /// The message.
        payload: &'a [u8],
        /// Its kind.
        kind: Kind,
    },
    /// A message to everyone.
    Broadcast {
        /// The message.
        payload: &'a [u8],
        /// Its kind.
        kind: Kind,
    },
    /// A message to this one connection, from elsewhere.
    Direct {
        /// The message.
        payload: &'a [u8],
        /// Its kind.
        kind: Kind,
    },
    /// Messages did not reach this client.
    Gap {
        /// Their topic; `None`: broadcasts, messages to this connection, or several topics.
        topic: Option<&'a Topic>,
        /// How many.
        count: u64,
        /// Why.
        reason: DropReason,
    },
    /// The client's bytes can't be cut into messages.
    Error {
        /// A stable word in kebab-case.
        code: &'static str,
        /// What is wrong and what would be right.
        text: &'a str,
    },
    /// The server is about to close the connection.
    Bye {
        /// Why.
        reason: CloseReason,
        /// The words of [`Context::close_with`](crate::Context::close_with), if it was called.
        text: Option<&'a str>,
    },
}

impl<'a> Event<'a> {
    /// The message in it and its kind, if there is one.
    pub fn payload(&self) -> Option<(&'a [u8], Kind)> {
        match *self {
            Event::Publish { payload, kind, .. }
            | Event::Broadcast { payload, kind }
            | Event::Direct { payload, kind } => Some((payload, kind)),
            Event::Gap { .. } | Event::Error { .. } | Event::Bye { .. } => None,
        }
    }

    /// Appends the event as the hub words it, and says of what kind that is: `MSG`, `ALL`, `SELF`, `GAP`, `ERR` or `BYE`, which
    /// are of their payload's kind where they have one; for the dialects JSON and SSE an object that says the same.
    pub fn write(&self, dialect: Dialect, out: &mut Vec<u8>) -> Kind {
        match dialect {
            #[cfg(feature = "web")]
            Dialect::Json | Dialect::Sse => {
                json::write(self, out);
                Kind::Text
            }
            _ => self.write_text(out),
        }
    }

    fn write_text(&self, out: &mut Vec<u8>) -> Kind {
        // What goes out often does without formatting.
        if let Some((payload, kind)) = self.payload() {
            let (verb, topic) = match self {
                Event::Publish { topic, .. } => (&b"MSG "[..], topic.as_str()),
                Event::Broadcast { .. } => (&b"ALL "[..], ""),
                _ => (&b"SELF "[..], ""),
            };
            out.reserve(verb.len() + topic.len() + 1 + payload.len());
            out.extend_from_slice(verb);
            if !topic.is_empty() {
                out.extend_from_slice(topic.as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(payload);
            return kind;
        }
        let mut put = |text: fmt::Arguments<'_>| out.write_fmt(text).expect("writing to a Vec does not fail");
        match *self {
            Event::Publish { .. } | Event::Broadcast { .. } | Event::Direct { .. } => {}
            Event::Gap { topic, count, reason } => put(format_args!("GAP {} {count} {reason}", topic_word(topic))),
            Event::Error { code, text } => put(format_args!("ERR {code} {text}")),
            Event::Bye { reason, text: None } => put(format_args!("BYE {reason}")),
            Event::Bye { reason, text: Some(text) } => put(format_args!("BYE {reason} {text}")),
        }
        Kind::Text
    }

    /// What server-sent events call it; `None`: by no name of its own, as browsers call what has none `message`.
    pub(crate) fn name(&self) -> Option<&'static str> {
        match self {
            Event::Publish { .. } | Event::Broadcast { .. } | Event::Direct { .. } => None,
            Event::Gap { .. } => Some("gap"),
            Event::Error { .. } => Some("err"),
            Event::Bye { .. } => Some("bye"),
        }
    }
}

/// What a topic is called where no single topic can be named.
fn topic_word(topic: Option<&Topic>) -> &str {
    topic.map_or("*", Topic::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(event: Event<'_>) -> String {
        let mut out = Vec::new();
        event.write(Dialect::Text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_farewell_has_its_reason_and_the_words_that_were_given() {
        let reason = CloseReason::Handler;
        assert_eq!(text(Event::Bye { reason, text: None }), "BYE handler");
        assert_eq!(text(Event::Bye { reason, text: Some("log in first") }), "BYE handler log in first");
    }
}
