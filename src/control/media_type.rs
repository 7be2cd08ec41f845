//! What a request says of its body.

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;

use crate::message::Kind;

/// Media types beside `text/*` whose bytes are text, and endings of those that are written in one of them
/// (RFC 6839, RFC 9512).
const TEXT_TYPES: [&str; 14] = [
    "application/json",
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/json-seq",
    "application/xml",
    "application/javascript",
    "application/ecmascript",
    "application/yaml",
    "application/x-yaml",
    "application/toml",
    "application/sql",
    "application/graphql",
    "application/jwt",
];
const TEXT_SUFFIXES: [&str; 3] = ["+json", "+xml", "+yaml"];

/// What clients send that were told nothing of the body: `curl -d` among them.
const UNSAID: &str = "application/x-www-form-urlencoded";

/// The kind that `Content-Type` says; `None`: there is none, or one that says nothing.
pub(super) fn kind(headers: &HeaderMap) -> Option<Kind> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let (essence, parameters) = value.split_once(';').unwrap_or((value, ""));
    let essence = essence.trim().to_ascii_lowercase();
    let (main, sub) = essence.split_once('/')?;
    if essence == UNSAID || sub.is_empty() {
        return None;
    }
    let has_charset = parameters.to_ascii_lowercase().split(';').any(|one| one.trim().starts_with("charset="));
    let is_text = main == "text"
        || has_charset
        || TEXT_TYPES.contains(&&*essence)
        || TEXT_SUFFIXES.iter().any(|suffix| sub.ends_with(suffix));
    Some(if is_text { Kind::Text } else { Kind::Binary })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(value: &str) -> Option<Kind> {
        kind(&HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]))
    }

    #[test]
    fn text_and_binary_are_told_apart() {
        for text in [
            "text/plain",
            "text/html; charset=utf-8",
            "TEXT/CSV",
            "application/json",
            "application/json;charset=UTF-8",
            "application/vnd.api+json",
            "application/problem+json; x=y",
            "image/svg+xml",
            "application/x-ndjson",
            "application/x-mine; Charset=utf-8",
        ] {
            assert_eq!(said(text), Some(Kind::Text), "{text}");
        }
        for binary in ["application/octet-stream", "image/png", "application/protobuf", "application/cbor", "audio/ogg"]
        {
            assert_eq!(said(binary), Some(Kind::Binary), "{binary}");
        }
        for nothing in ["application/x-www-form-urlencoded", "application/x-www-form-urlencoded; a=b", "", "json", "a/"]
        {
            assert_eq!(said(nothing), None, "{nothing:?}");
        }
        assert_eq!(kind(&HeaderMap::new()), None);
    }
}
