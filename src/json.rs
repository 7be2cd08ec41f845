//! JSON that came from elsewhere, and what is wrong with it in words that help.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

/// U+FEFF in UTF-8, which some editors write before a text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads a JSON object. A byte order mark before it is passed over (RFC 8259, section 8.1).
///
/// # Errors
/// What is wrong with it: one line, without control characters.
pub(crate) fn read_object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, String> {
    let text = without_mark(text);
    serde_json::from_slice(text).map(|Object(value)| value).map_err(|error| {
        // The error may quote what the peer wrote, which is not repeated to a terminal as it is.
        let said: String = error.to_string().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        match hint(text, &said) {
            Some(hint) => format!("{said}: {hint}"),
            None => said,
        }
    })
}

/// What an object holds. Serde would take an array for it too, and its elements for the members in their order.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Object)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// A text without the byte order mark before it.
pub(crate) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// What lies behind errors that name only the place where the parser stopped.
fn hint(text: &[u8], said: &str) -> Option<&'static str> {
    if matches!(text, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [_, 0, ..] | [0, _, ..]) {
        return Some("this looks like UTF-16; send UTF-8");
    }
    // As serde_json words them; a test holds them.
    if said.contains("surrogate") || said.contains("unexpected end of hex escape") {
        return Some(
            "an escape such as \\ud83d is half of a surrogate pair, so a text was cut inside a character; cut it between \
             characters, or send bytes as payload_base64",
        );
    }
    said.contains("invalid unicode code point").then_some(
        "a text is not UTF-8: it was cut inside a character, or is in another encoding; send bytes as payload_base64",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Text {
        text: String,
    }

    fn error(text: &[u8]) -> String {
        read_object::<Text>(text).unwrap_err()
    }

    fn text(json: &[u8]) -> Result<String, String> {
        read_object(&[b"{\"text\":", json, b"}"].concat()).map(|Text { text }| text)
    }

    #[test]
    fn an_object_is_read_and_nothing_else() {
        assert_eq!(read_object::<Text>(br#" {"text":"x"} "#).unwrap().text, "x");
        // An array that has the members in their order is none.
        for (other, kind) in [(r#"["x"]"#, "sequence"), (r#""x""#, "string"), ("1", "integer"), ("null", "null")] {
            let error = error(other.as_bytes());
            assert!(error.contains(kind) && error.contains("expected an object"), "{other}: {error}");
        }
        assert!(error(br#"{"text":"x"},"#).contains("trailing characters"));
    }

    #[test]
    fn half_a_character_is_named() {
        for half in
            [r#""\ud83d""#, r#""\ud83d x""#, r#""\ude00""#, r#""\ude00\ud83d""#, r#""\ud83d\u0041""#, r#""\ud83d\n""#]
        {
            let error = text(half.as_bytes()).unwrap_err();
            assert!(error.contains("half of a surrogate pair"), "{half}: {error}");
        }
        assert_eq!(text(br#""\ud83d\ude00""#).unwrap(), "\u{1f600}");
        let cut = text(&[b"\"", &"\u{1f600}".as_bytes()[..3], b"\""].concat()).unwrap_err();
        assert!(cut.contains("a text is not UTF-8"), "{cut}");
        assert!(!error(b"{").contains("surrogate"), "{}", error(b"{"));
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_and_utf16_is_named() {
        assert_eq!(read_object::<Text>("\u{feff}{\"text\":\"x\"}".as_bytes()).unwrap().text, "x");
        assert_eq!(text("\"\u{feff}x\"".as_bytes()).unwrap(), "\u{feff}x");
        for utf16 in [&b"\xff\xfe\"\0x\0\"\0"[..], b"\xfe\xff\0\"\0x", b"\"\0x\0\"\0", b"\0\"\0x\0\""] {
            assert!(error(utf16).contains("UTF-16"), "{}", error(utf16));
        }
    }

    #[test]
    fn an_error_is_one_line() {
        assert!(!error(b"\"\\u001b[31m\\n\"").contains(char::is_control));
    }
}
