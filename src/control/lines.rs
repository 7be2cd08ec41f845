//! The lines of a batch: cut, read, and explained where they can't be.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::de::{IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::config::SlowConsumer;
use crate::control::problem::{Problem, ProblemCode};
use crate::json;

/// A line that is as it should be.
const EXAMPLE: &str = r#"{"topic":"news","payload":"hello"}"#;

/// A key of a line: its name, whether a value is one for it, and what a value may be.
type Key = (&'static str, fn(&Value) -> bool, &'static str);

/// The keys of a line.
const KEYS: [Key; 6] = [
    ("topic", Value::is_string, "text"),
    ("broadcast", Value::is_boolean, "true or false"),
    ("connection", |value| value.is_string() || value.is_u64(), "a connection's id, as text"),
    ("payload", Value::is_string, "text; JSON inside has to be written as text, and bytes as payload_base64"),
    ("payload_base64", Value::is_string, "text"),
    ("slow_consumer", |value| value.is_null() || is_policy(value), "skip, drop-oldest, keep-latest or disconnect"),
];

fn is_policy(value: &Value) -> bool {
    value.as_str().is_some_and(|name| name.parse::<SlowConsumer>().is_ok())
}

/// The lines of a body, or one more than `max` of them. Objects that follow each other without a line's end count as
/// lines: `curl -d @file` takes the line feeds out of a file.
pub(super) fn split(body: &[u8], max: usize) -> Vec<&[u8]> {
    let body = json::without_mark(body);
    let text = body.strip_suffix(b"\n").unwrap_or(body);
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|byte| *byte == b'\n').flat_map(objects).take(max + 1).collect()
}

/// The objects of a line. What can't be read is one piece with what follows.
fn objects(line: &[u8]) -> Vec<&[u8]> {
    if !may_hold_several(line) {
        return vec![line];
    }
    let mut values = serde_json::Deserializer::from_slice(line).into_iter::<IgnoredAny>();
    let (mut found, mut from) = (Vec::new(), 0);
    while let Some(Ok(_)) = values.next() {
        found.push(&line[from..values.byte_offset()]);
        from = values.byte_offset();
    }
    let rest = &line[from..];
    if !rest.trim_ascii().is_empty() || found.is_empty() {
        found.push(rest);
    }
    found
}

/// Whether an object seems to begin where another ends. It may also be within a text.
fn may_hold_several(line: &[u8]) -> bool {
    memchr::memchr_iter(b'}', line).any(|at| line[at + 1..].trim_ascii_start().starts_with(b"{"))
}

/// Reads an id, which JavaScript writes as text and others as a number.
pub(super) fn id<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Id {
        Text(String),
        Number(u64),
    }
    Ok(Option::<Id>::deserialize(from)?.map(|id| match id {
        Id::Text(text) => text,
        Id::Number(number) => number.to_string(),
    }))
}

/// A text, which is copied only where something in it is escaped.
pub(super) struct Text<'a>(Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

/// Reads a line.
pub(super) fn parse<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, Problem> {
    json::read_object(line).map_err(|said| Problem::new(ProblemCode::BadBody, explain(line, &said)))
}

/// What is wrong with a line, for the one who wrote it. `said` is what the parser says.
fn explain(line: &[u8], said: &str) -> String {
    if line.trim_ascii().is_empty() {
        return format!("the line is empty; write an object, as in {EXAMPLE}");
    }
    match serde_json::from_slice(line) {
        Ok(Value::Object(object)) => explain_object(&object).unwrap_or_else(|| said.to_owned()),
        Ok(Value::Array(_)) => format!("the line is an array; write each object on a line of its own, as in {EXAMPLE}"),
        Ok(_) => format!("the line is not an object; write one, as in {EXAMPLE}"),
        Err(error) if error.is_eof() => {
            format!("the line ends within an object, which must stand on one line, as in {EXAMPLE}")
        }
        // A line of its own has no lines.
        Err(_) => {
            let said = said.replacen(" at line 1 column ", " at byte ", 1);
            format!("the line is not JSON ({said}); write an object, as in {EXAMPLE}")
        }
    }
}

fn explain_object(object: &Map<String, Value>) -> Option<String> {
    object.iter().find_map(|(key, value)| match KEYS.iter().find(|(known, ..)| known == key) {
        None => {
            let keys: Vec<_> = KEYS.iter().map(|(key, ..)| *key).collect();
            Some(format!("there is no key \"{key}\" in a line, only {}", keys.join(", ")))
        }
        Some((_, fits, _)) if fits(value) => None,
        Some((_, _, what)) => Some(format!("\"{key}\" must be {what}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(body: &str) -> Vec<&str> {
        split(body.as_bytes(), 9).into_iter().map(|line| std::str::from_utf8(line).unwrap()).collect()
    }

    #[test]
    fn lines_and_objects_without_lines_between_them_are_cut_alike() {
        assert!(cut("").is_empty());
        assert_eq!(cut("{\"a\":1}\n{\"b\":2}\n"), ["{\"a\":1}", "{\"b\":2}"]);
        assert_eq!(cut("{\"a\":1}{\"b\":2} {\"c\":3}"), ["{\"a\":1}", "{\"b\":2}", " {\"c\":3}"]);
        assert_eq!(cut("\u{feff}{\"a\":\"}{\"}"), ["{\"a\":\"}{\"}"]);
        assert_eq!(cut("{\"a\":1}{nonsense\n\n{}"), ["{\"a\":1}", "{nonsense", "", "{}"]);
        assert_eq!(split("{}".repeat(1000).as_bytes(), 9).len(), 10);
    }
}
