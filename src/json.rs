//! JSON that came from elsewhere, and what is wrong with it in words that help.

use serde::Deserialize;

/// U+FEFF in UTF-8, which some editors write before a text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads a JSON text. A byte order mark before it is passed over (RFC 8259, section 8.1).
///
/// # Errors
/// What is wrong with it: one line, without control characters.
pub(crate) fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, String> {
    let text = without_mark(text);
    serde_json::from_slice(text).map_err(|error| {
        // The error may quote what the peer wrote, which is not repeated to a terminal as it is.
        let said: String = error.to_string().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        match hint(text, &said) {
            Some(hint) => format!("{said}: {hint}"),
            None => said,
        }
    })
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

    fn error(text: &[u8]) -> String {
        read::<String>(text).unwrap_err()
    }

    #[test]
    fn half_a_character_is_named() {
        for half in
            [r#""\ud83d""#, r#""\ud83d x""#, r#""\ude00""#, r#""\ude00\ud83d""#, r#""\ud83d\u0041""#, r#""\ud83d\n""#]
        {
            assert!(error(half.as_bytes()).contains("half of a surrogate pair"), "{half}: {}", error(half.as_bytes()));
        }
        assert_eq!(read::<String>(br#""\ud83d\ude00""#).unwrap(), "\u{1f600}");
        let cut = [b"\"", &"\u{1f600}".as_bytes()[..3], b"\""].concat();
        assert!(error(&cut).contains("a text is not UTF-8"), "{}", error(&cut));
        assert!(!error(b"{").contains("surrogate"), "{}", error(b"{"));
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_and_utf16_is_named() {
        assert_eq!(read::<String>("\u{feff}\"x\"".as_bytes()).unwrap(), "x");
        assert_eq!(read::<String>("\"\u{feff}x\"".as_bytes()).unwrap(), "\u{feff}x");
        for utf16 in [&b"\xff\xfe\"\0x\0\"\0"[..], b"\xfe\xff\0\"\0x", b"\"\0x\0\"\0", b"\0\"\0x\0\""] {
            assert!(error(utf16).contains("UTF-16"), "{}", error(utf16));
        }
    }

    #[test]
    fn an_error_is_one_line() {
        assert!(!read::<bool>(b"\"\\u001b[31m\\n\"").unwrap_err().contains(char::is_control));
    }
}
