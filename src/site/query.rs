//! What a request's query asks for.

use std::borrow::Cow;
use std::collections::HashSet;

use percent_encoding::percent_decode_str;

use super::Site;
use crate::message::Topic;
use crate::protocol::http::{self, Refusal};
use crate::routes::Topics;

/// Characters of a client's text that an answer repeats at the most.
const QUOTED_CHARS_MAX: usize = 100;

/// Names that stand for topics elsewhere. Under them a stream would be silent for ever.
const TOPICS_ELSEWHERE: [&str; 12] = [
    "channel",
    "channels",
    "room",
    "rooms",
    "streams",
    "sub",
    "subs",
    "subject",
    "subjects",
    "subscribe",
    "subscription",
    "subscriptions",
];

/// What a query asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// The topics, checked, each once.
    pub(super) topics: Vec<String>,
    /// Whether what is sent to everyone is wanted even without a topic (`all`).
    pub(super) all: bool,
}

impl Query {
    /// Reads `topic`, in the ways in which frameworks write a list, and `all`. What looks like topics in another way is
    /// refused, unless the rule leaves it to the handler; what doesn't is somebody else's, as a token or a time that keeps
    /// caches away.
    pub(super) fn read(query: &str, rule: Topics, site: &Site) -> Result<Self, Refusal> {
        let (mut topics, mut known, mut all) = (Vec::new(), HashSet::new(), false);
        if rule == Topics::Ignored {
            return Ok(Query { topics, all });
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (raw_name, raw) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(raw_name);
            let name = String::from_utf8_lossy(&name);
            match Name::of(&name) {
                Name::Topic => {}
                Name::All | Name::Mistaken if rule == Topics::Read => continue,
                Name::All => match raw {
                    "" | "1" | "true" => {
                        all = true;
                        continue;
                    }
                    _ => return Err(bad("`all` takes no value; topics are written topic=news".into())),
                },
                Name::Mistaken => {
                    return Err(bad(format!(
                        "the parameter `{}` is not known here; write {}",
                        quoted(&name),
                        suggestion(raw)
                    )));
                }
                Name::Other => continue,
            }
            let value = decode(raw);
            // Whoever joins topics means several. A comma is in no topic's name; a semicolon may be, and is %3B then.
            if value.contains(&b',') || raw.contains(';') {
                let hint = if raw.contains(';') { "; a semicolon in a topic's name is %3B" } else { "" };
                let (raw, written) = (quoted(raw), suggestion(raw));
                return Err(bad(format!("`{raw}` means several topics, which are written ?{written}{hint}")));
            }
            if value.starts_with(b"[\"") {
                return Err(bad("topics are not written as JSON here; write topic=news&topic=sport".into()));
            }
            let topic = Topic::check(&value, site.topic_bytes_max).map_err(|error| {
                bad(format!("a topic in the URL can't be used: {error}; several are written topic=news&topic=sport"))
            })?;
            if known.insert(topic.to_owned()) {
                topics.push(topic.to_owned());
            }
            if topics.len() > site.topics_max {
                return Err(bad(format!("a connection may subscribe to at most {} topics", site.topics_max)));
            }
        }
        Ok(Query { topics, all })
    }
}

/// What a parameter's name stands for.
enum Name {
    Topic,
    All,
    /// It was probably meant to be a topic.
    Mistaken,
    Other,
}

impl Name {
    fn of(name: &str) -> Self {
        match name {
            "topic" => return Name::Topic,
            "all" => return Name::All,
            _ => {}
        }
        // Frameworks write a list as `topic[]=a&topic[]=b`, or with numbers in the brackets.
        let (base, index) = name.split_once('[').unwrap_or((name, ""));
        if base == "topic"
            && let Some(index) = index.strip_suffix(']')
            && index.bytes().all(|byte| byte.is_ascii_digit())
        {
            return Name::Topic;
        }
        let base = base.trim().to_ascii_lowercase();
        let is_near = |word| base.len() <= 8 && strsim::osa_distance(&base, word) <= 1;
        if base.starts_with("topic") || is_near("topic") || is_near("topics") || TOPICS_ELSEWHERE.contains(&&*base) {
            return Name::Mistaken;
        }
        Name::Other
    }
}

fn bad(text: String) -> Refusal {
    Refusal::new(400, text)
}

/// A text as a query holds it. A plus stands for a space, which no topic has; a plus itself is written %2B.
fn decode(text: &str) -> Vec<u8> {
    let text = if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    percent_decode_str(&text).collect()
}

/// How the topics in a value would be written.
fn suggestion(raw: &str) -> String {
    let raw = quoted(raw).replace("%2C", ",").replace("%2c", ",");
    let topics: Vec<_> = raw.split([',', ';']).filter(|topic| !topic.is_empty()).collect();
    match topics[..] {
        [] => "topic=news&topic=sport".into(),
        _ => {
            let topics: Vec<_> =
                topics.iter().map(|topic| format!("topic={}", topic.strip_prefix("topic=").unwrap_or(topic))).collect();
            topics.join("&")
        }
    }
}

fn quoted(text: &str) -> String {
    http::quoted(text, QUOTED_CHARS_MAX)
}
