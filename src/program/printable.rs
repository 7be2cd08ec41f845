//! Text from elsewhere, made fit for a terminal or a log: a peer, a file or a server may have put escape sequences into
//! it, line feeds that begin a line of their own, or characters that nobody sees or that turn the direction of writing.
//!
//! All that is escaped as in JSON (`\u001b`, `\u202e`), so what is JSON stays JSON and means the same.

use std::borrow::Cow;
use std::fmt::Write as _;

use corecast::{Topic, TopicError};

/// A text in one line and of bounded length.
pub(crate) fn line(text: &str, chars_max: usize) -> String {
    let mut out = String::new();
    for (index, (character, is_plain)) in judged(text).enumerate() {
        if index == chars_max {
            out.push('…');
            break;
        }
        put(character, is_plain, &mut out);
    }
    out
}

/// The same of bytes; those that are not UTF-8 are written as `\xff`.
#[cfg(any(feature = "load", test))]
pub(crate) fn line_of_bytes(bytes: &[u8], chars_max: usize) -> String {
    let mut text = String::new();
    // No character has more than four bytes, so what lies further behind can't show.
    for chunk in bytes[..bytes.len().min(4 * chars_max + 4)].utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    line(&text, chars_max)
}

/// A text whose line feeds are meant.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    if judged(text).all(|(character, is_plain)| is_plain || character == '\n') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for (character, is_plain) in judged(text) {
        put(character, is_plain || character == '\n', &mut out);
    }
    Cow::Owned(out)
}

/// A log line with its line feed: further lines in it are set in, so that none of them looks like a line of the log.
/// Colours are left where the log has some of its own.
pub(crate) fn log_line(text: &str, has_colours: bool) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let body = text.strip_suffix('\n').unwrap_or(text);
    let mut rest = body;
    while let Some(at) = rest.find('\u{1b}').filter(|_| has_colours) {
        out += &lines(&rest[..at]);
        let length = colour(&rest[at..]);
        match length {
            Some(length) => out += &rest[at..at + length],
            None => escape('\u{1b}', &mut out),
        }
        rest = &rest[at + length.unwrap_or(1)..];
    }
    out += &lines(rest);
    let mut out = out.replace('\n', "\n    ");
    out.push('\n');
    out
}

/// Bytes of the sequence at the start of a text that sets a colour or a style, if it is one.
fn colour(text: &str) -> Option<usize> {
    let arguments = text.strip_prefix("\u{1b}[")?;
    let end = arguments.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    arguments[end..].starts_with('m').then_some("\u{1b}[".len() + end + 1)
}

/// The characters of a text, each with whether it may be shown as it is.
fn judged(text: &str) -> impl Iterator<Item = (char, bool)> {
    let mut before = '\0';
    text.chars().map(move |character| {
        let is_plain = matches!(character, ' '..='~') || is_blank(character) || is_seen(character, before);
        before = character;
        (character, is_plain)
    })
}

/// Whether people see a character behind this other one, by the rule for topics.
fn is_seen(character: char, before: char) -> bool {
    // Some characters join what stands before them, unless that is ASCII.
    let name = String::from_iter([if before.is_ascii() { 'a' } else { '\u{e9}' }, character]);
    matches!(Topic::check(name.as_bytes(), usize::MAX), Ok(_) | Err(TopicError::Comma))
}

/// A space of whatever width.
fn is_blank(character: char) -> bool {
    character.is_whitespace() && !character.is_control() && !matches!(character, '\u{2028}' | '\u{2029}')
}

fn put(character: char, is_plain: bool, out: &mut String) {
    if is_plain { out.push(character) } else { escape(character, out) }
}

fn escape(character: char, out: &mut String) {
    match character {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        _ => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NASTY: &str = "a\u{1b}[2J\u{9b}m\r\nERR \u{202e}b\u{200b}\u{e0041}\u{7f}c";

    #[test]
    fn a_line_shows_nothing_but_itself_and_ends() {
        assert_eq!(line(NASTY, 99), r"a\u001b[2J\u009bm\r\nERR \u202eb\u200b\udb40\udc41\u007fc");
        let plain =
            "gr\u{fc}\u{df}e, \u{2764}\u{fe0f}\u{200d}\u{1f525} \u{645}\u{6cc}\u{200c}\u{62e} 1\u{a0}000\u{3000}\\";
        assert_eq!(line(plain, 99), plain);
        assert_eq!(line("abcdef", 3), "abc…");
        assert_eq!(line("abc", 3), "abc");
        assert_eq!(line_of_bytes(b"a\xff\x1b\xc3", 99), r"a\xff\u001b\xc3");
        assert_eq!(line_of_bytes(&[b'x'; 1000], 2), "xx…");
    }

    #[test]
    fn what_is_json_means_the_same() {
        let json = serde_json::json!({ "text": NASTY }).to_string();
        let shown = lines(&json);
        assert!(shown.is_ascii() && !shown.contains(char::is_control), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap()["text"], NASTY);
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(lines("a\nb\u{1b}\n"), "a\nb\\u001b\n");
        assert!(matches!(lines("a\nb"), Cow::Borrowed("a\nb")));
    }

    #[test]
    fn no_line_of_the_log_is_another_one_and_only_its_own_colours_are_left() {
        let nasty = "\u{1b}[2mtime\u{1b}[0m x\u{1b}[2J\u{1b}]0;t\u{7}\u{1b}[1;31mred\n2026 INFO ready\n";
        assert_eq!(
            log_line(nasty, true),
            "\u{1b}[2mtime\u{1b}[0m x\\u001b[2J\\u001b]0;t\\u0007\u{1b}[1;31mred\n    2026 INFO ready\n"
        );
        assert!(!log_line(nasty, false).contains('\u{1b}'));
        assert_eq!(log_line("\u{1b}", true), "\\u001b\n");
        assert_eq!(log_line("\u{1b}[1", true), "\\u001b[1\n");
    }

    proptest::proptest! {
        #[test]
        fn nothing_gets_through(text in ".{0,60}", bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            for shown in [line(&text, 40), line_of_bytes(&bytes, 40), lines(&text).into_owned()] {
                proptest::prop_assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
            }
        }
    }
}
