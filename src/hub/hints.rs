//! What people write who know other protocols, or have slipped, and what they probably meant.

use std::fmt::Write as _;

use crate::message::Named;

/// The verbs of the language, for those who wrote another word.
const VERBS: &str = "SUB, UNSUB, PUB, CAST, PING, ID";

/// What is to be said of a message whose first word is not a verb.
pub(super) fn unknown_verb(message: &[u8], verb: &[u8]) -> String {
    let mut text = format!("{} is not one of {VERBS}", quoted(verb));
    if let Some(hint) = hint(message, verb) {
        let _ = write!(text, "; {hint}");
    }
    text
}

/// What is to be said of a message that is no JSON, on a connection that speaks JSON; `None`: it looks like JSON.
#[cfg(feature = "web")]
pub(super) fn not_json(message: &[u8]) -> Option<&'static str> {
    if looks_like_utf16(message) {
        return Some("this looks like UTF-16; send UTF-8");
    }
    (!matches!(message.trim_ascii_start().first(), Some(b'{' | b'[' | b'"'))).then_some(
        "this WebSocket was opened with the subprotocol corecast.v1.json; words, as in SUB news, are understood \
         without it",
    )
}

fn hint(message: &[u8], verb: &[u8]) -> Option<String> {
    if looks_like_utf16(message) {
        return Some("this looks like UTF-16; send UTF-8".into());
    }
    if matches!(message.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return Some(
            "JSON is understood on a WebSocket with the subprotocol corecast.v1.json; here write words, as in SUB news"
                .into(),
        );
    }
    if message.starts_with(b"\"") || message.starts_with(b"'") {
        return Some("write it without quotation marks, as in SUB news".into());
    }
    let text = str::from_utf8(verb).ok()?;
    if text.is_empty() {
        return Some("a message begins with its verb, not with a space".into());
    }
    if let Some(space) = text.chars().find(|c| c.is_whitespace()) {
        return Some(format!("a space separates words, not {}", Named(space)));
    }
    known_elsewhere(&text.to_ascii_uppercase()).map(str::to_owned)
}

/// What a verb of other protocols, or of everyday life, is here.
fn known_elsewhere(verb: &str) -> Option<&'static str> {
    Some(match verb.trim_end_matches([':', ';', ',', '.', '!', '?']) {
        "SUB" | "SUBS" | "SUBSCRIBE" | "PSUBSCRIBE" | "JOIN" | "LISTEN" => "to subscribe, write SUB topic…",
        "UNSUB" | "UNSUBS" | "UNSUBSCRIBE" | "PUNSUBSCRIBE" | "LEAVE" => "to end a subscription, write UNSUB topic…",
        "PUB" | "PUBLISH" | "SEND" | "MSG" | "MESSAGE" | "POST" => "to publish, write PUB topic payload",
        "CAST" | "BROADCAST" | "ALL" => "to publish to everyone, write CAST payload",
        "PING" | "PONG" | "HEARTBEAT" | "KEEPALIVE" => "to show that you are alive, write PING",
        "ID" | "WHOAMI" => "to learn this connection's id, write ID",
        "AUTH" | "LOGIN" | "USER" | "PASS" => "clients don't log in here",
        "HELLO" | "HELO" | "EHLO" | "HI" | "CONNECT" | "STOMP" => "no greeting is needed, begin with SUB topic…",
        "QUIT" | "EXIT" | "BYE" | "CLOSE" | "LOGOUT" | "DISCONNECT" => "to leave, close the connection",
        "" | "HELP" | "MAN" | "COMMANDS" => {
            "write SUB topic…, UNSUB topic…, PUB topic payload, CAST payload, PING [text] or ID"
        }
        _ => return None,
    })
}

/// Text that Windows programs call Unicode: two bytes a character, of which one is mostly zero.
fn looks_like_utf16(message: &[u8]) -> bool {
    matches!(message, [0xff, 0xfe, ..] | [0xfe, 0xff, ..])
        || matches!(message, [first, 0, third, 0, ..] | [0, first, 0, third, ..] if *first != 0 && *third != 0)
}

/// Peer bytes in a form that is safe to print: escaped, and cut where they go on for long.
fn quoted(bytes: &[u8]) -> String {
    const SHOWN: usize = 24;
    let mut text = String::from("`");
    let _ = write!(text, "{}", bytes[..bytes.len().min(SHOWN)].escape_ascii());
    text.push_str(if bytes.len() > SHOWN { "…`" } else { "`" });
    text
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "web")]
    use super::*;

    fn said(message: &[u8]) -> String {
        super::super::language::parse(message, 255).unwrap_err().text
    }

    #[test]
    fn what_was_probably_meant_is_said() {
        for (message, hint) in [
            (&b"subscribe news"[..], "SUB topic"),
            (b"PUBLISH a b", "PUB topic payload"),
            (b"MSG a b", "PUB topic payload"),
            (b"sub: news", "SUB topic"),
            (b"QUIT", "close the connection"),
            (b"AUTH x", "don't log in"),
            (b"help", "UNSUB topic"),
            (b"?", "UNSUB topic"),
            (b"SUB\tnews", "not a tab"),
            ("SUB\u{a0}news".as_bytes(), "not U+00A0"),
            (b"\nSUB news", "not a line end"),
            (b" SUB news", "not with a space"),
            (br#"{"type":"sub","topics":["a"]}"#, "subprotocol corecast.v1.json"),
            (br#" { "type": "sub" }"#, "subprotocol corecast.v1.json"),
            (br#""SUB news""#, "without quotation marks"),
            (b"\xff\xfeS\0U\0B\0", "UTF-16"),
            (b"S\0U\0B\0 \0a\0", "UTF-16"),
            (b"\0S\0U\0B", "UTF-16"),
        ] {
            let said = said(message);
            assert!(said.contains(hint), "{}: {said}", message.escape_ascii());
        }
    }

    #[cfg(feature = "web")]
    #[test]
    fn what_is_no_json_is_told_so() {
        assert_eq!(not_json(b"SUB news").map(|hint| hint.contains("corecast.v1.json")), Some(true));
        assert_eq!(not_json(br#" {"type":"subscribe"}"#), None);
    }

    #[test]
    fn what_a_client_wrote_is_never_echoed_raw() {
        assert_eq!(
            said(b"\x1b[31m\x00\xff and so on for ever and ever"),
            r"`\x1b[31m\x00\xff` is not one of SUB, UNSUB, PUB, CAST, PING, ID"
        );
        let said = said(&[b'x'; 100]);
        assert!(said.starts_with("`xxxxxxxxxxxxxxxxxxxxxxxx…`"), "{said}");
    }
}
