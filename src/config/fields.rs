//! How serde reads and writes the fields of the settings: as texts, and where a text is a number also as that.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

use super::text::{ParseError, bytes_from_text, bytes_to_text, duration_from_text, duration_to_text};

/// A value that a config file may give as a number or as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

fn text_of<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(match NumberOrText::deserialize(from)? {
        NumberOrText::Number(number) => number.to_string(),
        NumberOrText::Text(text) => text,
    })
}

pub(crate) mod duration_text {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&duration_to_text(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        duration_from_text(&text_of(from)?).map_err(serde::de::Error::custom)
    }
}

pub(crate) mod bytes_text {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &usize, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&bytes_to_text(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
        bytes_from_text(&text_of(from)?).map_err(serde::de::Error::custom)
    }
}

pub(crate) mod bytes_option {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &Option<usize>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => bytes_text::serialize(value, to),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
        bytes_text::deserialize(from).map(Some)
    }
}

pub(crate) mod text_option {
    use super::*;

    pub(crate) fn serialize<T: fmt::Display, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.serialize_str(&value.to_string()),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, T: FromStr<Err = ParseError>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        text_of(from)?.parse().map(Some).map_err(serde::de::Error::custom)
    }
}

pub(crate) mod text_value {
    use super::*;

    pub(crate) fn serialize<T: fmt::Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(crate) fn deserialize<'de, T: FromStr<Err = ParseError>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        text_of(from)?.parse().map_err(serde::de::Error::custom)
    }
}

pub(crate) mod text_list {
    use super::*;

    pub(crate) fn serialize<T: fmt::Display, S: Serializer>(value: &[T], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(value.iter().map(T::to_string))
    }

    pub(crate) fn deserialize<'de, T: FromStr<Err = ParseError>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<T>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
    }
}
