//! How values are written in files and flags: time spans and sizes with their units, all else as it reads itself.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, Serializer};

use crate::config::KIB;

/// Reads a time span: a number with a unit (`10s`, `250ms`, `2m`), or `0` or `off` for none.
///
/// # Errors
/// A text that names the value and shows how to write one.
pub fn duration_from_text(text: &str) -> Result<Duration, String> {
    if text == "0" || text == "off" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text)
        .map_err(|_| format!("`{text}` is not a time span; write a number and a unit, as in 10s, 250ms or 2m"))
}

/// Writes a time span so that [`duration_from_text`] reads it.
pub fn duration_to_text(value: Duration) -> String {
    if value.is_zero() { "0".into() } else { humantime::format_duration(value).to_string() }
}

/// Reads a number of bytes: plain, or with a unit (`64KiB`, `1MB`).
///
/// # Errors
/// A text that names the value and shows how to write one.
pub fn bytes_from_text(text: &str) -> Result<usize, String> {
    text.parse::<ByteSize>()
        .ok()
        .and_then(|size| usize::try_from(size.as_u64()).ok())
        .ok_or_else(|| format!("`{text}` is not a size; write a number of bytes, or a unit with it, as in 64KiB"))
}

/// Writes a number of bytes so that [`bytes_from_text`] reads the same number.
pub fn bytes_to_text(value: usize) -> String {
    for (unit, name) in [(1024 * 1024 * KIB, "GiB"), (1024 * KIB, "MiB"), (KIB, "KiB")] {
        if value >= unit && value.is_multiple_of(unit) {
            return format!("{}{name}", value / unit);
        }
    }
    value.to_string()
}

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

    pub(crate) fn deserialize<'de, T: FromStr<Err = String>, D: Deserializer<'de>>(
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

    pub(crate) fn deserialize<'de, T: FromStr<Err = String>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        text_of(from)?.parse().map_err(serde::de::Error::custom)
    }
}

pub(crate) mod text_list {
    use super::*;

    pub(crate) fn serialize<T: fmt::Display, S: Serializer>(value: &[T], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(value.iter().map(T::to_string))
    }

    pub(crate) fn deserialize<'de, T: FromStr<Err = String>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<T>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
    }
}
