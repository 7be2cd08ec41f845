//! What an answer answers: the `id` that a client gave its command, or the address that it connected to.

use std::borrow::Cow;
#[cfg(feature = "web")]
use std::fmt;

#[cfg(feature = "web")]
use serde::Serialize;
#[cfg(feature = "web")]
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// Bytes of a command's `id` at the most, since each answer repeats it.
#[cfg(feature = "web")]
const COMMAND_ID_BYTES_MAX: usize = 64;

/// The `id` that a client gave a command; the answer repeats it as it was written: a string, or a whole number.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "web", derive(Serialize), serde(untagged))]
#[cfg_attr(not(feature = "web"), allow(dead_code, reason = "only JSON has ids"))]
pub(crate) enum CommandId<'a> {
    Text(Cow<'a, str>),
    Signed(i64),
    Unsigned(u64),
}

#[cfg(feature = "web")]
impl<'de: 'a, 'a> Deserialize<'de> for CommandId<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CommandIdVisitor)
    }
}

#[cfg(feature = "web")]
struct CommandIdVisitor;

#[cfg(feature = "web")]
impl<'de> Visitor<'de> for CommandIdVisitor {
    type Value = CommandId<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an id that is a string of at most {COMMAND_ID_BYTES_MAX} bytes, or a whole number")
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(CommandId::Signed(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(CommandId::Unsigned(number))
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        if text.len() > COMMAND_ID_BYTES_MAX {
            return Err(E::invalid_length(text.len(), &self));
        }
        Ok(CommandId::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        if text.len() > COMMAND_ID_BYTES_MAX {
            return Err(E::invalid_length(text.len(), &self));
        }
        Ok(CommandId::Text(Cow::Owned(text.into())))
    }
}

/// What an answer answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause<'a> {
    /// A command, with the `id` that the client gave it, if any.
    Command(Option<CommandId<'a>>),
    /// The topics in the address that the client connected to. No command asked for this answer.
    Url,
}

#[cfg(all(test, feature = "web"))]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_bounded_and_a_string_or_a_whole_number() {
        let read = |id: &str| serde_json::from_str::<CommandId<'_>>(id).map(|_| ());
        assert!(read(&format!("{:?}", "x".repeat(COMMAND_ID_BYTES_MAX))).is_ok());
        assert!(read(&format!("\"{}\"", r"\u0061".repeat(COMMAND_ID_BYTES_MAX))).is_ok());
        let huge = format!("{:?}", "x".repeat(COMMAND_ID_BYTES_MAX + 1));
        let escaped = format!("\"{}\"", r"\u0061".repeat(COMMAND_ID_BYTES_MAX + 1));
        for wrong in [&huge, &escaped, "1.5", "1e3", "123456789012345678901", "true", "[1]", r#"{"a":1}"#] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("a string of at most 64 bytes, or a whole number"), "{error}");
        }
    }
}
