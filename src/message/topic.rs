//! Topics, and what their names may be.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::config::TOPIC_BYTES_MAX;

/// A topic's name: 1 to 255 bytes of UTF-8 without white space, control characters, characters that nobody sees,
/// and commas. Names are compared byte by byte.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// Why a name is not one of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The name has no bytes.
    #[error("a topic needs at least one character")]
    Empty,
    /// The name has more bytes than topics may have.
    #[error("a topic has at most {max} bytes, this one has {len}")]
    TooLong {
        /// Bytes of the name.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The name is not UTF-8.
    #[error("a topic is UTF-8 text")]
    NotUtf8,
    /// The name holds white space, a control character, or one that shows nothing or turns the direction of writing.
    #[error("a topic holds no white space, control characters or invisible characters; this one has {}", Named(*.0))]
    BadCharacter(char),
    /// The name holds a comma, as people write it between several names.
    #[error(
        "a topic holds no comma; several topics are written SUB a b, ?topic=a&topic=b, or \"topics\":[\"a\",\"b\"] \
         in JSON"
    )]
    Comma,
}

impl Topic {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn new(name: &[u8]) -> Result<Self, TopicError> {
        Topic::check(name, TOPIC_BYTES_MAX).map(|name| Topic(name.into()))
    }

    /// Checks a name of at most `max` bytes without taking it.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn check(name: &[u8], max: usize) -> Result<&str, TopicError> {
        if name.is_empty() {
            return Err(TopicError::Empty);
        }
        if name.len() > max {
            return Err(TopicError::TooLong { len: name.len(), max });
        }
        let name = std::str::from_utf8(name).map_err(|_| TopicError::NotUtf8)?;
        // Most names are of this kind.
        if name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
            return Ok(name);
        }
        let mut before = '\0';
        for character in name.chars() {
            if character == ',' {
                return Err(TopicError::Comma);
            }
            let joins = JOINERS.contains(&character) && !before.is_ascii();
            if is_unseen(character) && !joins {
                return Err(TopicError::BadCharacter(character));
            }
            before = character;
        }
        Ok(name)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({})", self.0)
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        Topic::new(text.as_bytes())
    }
}

/// Characters above U+009F that nobody sees, or that turn the direction of what stands around them: with them two
/// names may look the same, or one like another. These are Unicode's white space (PropList.txt) and default-ignorable
/// code points (DerivedCoreProperties.txt), the marks around interlinear annotations, and the blank Braille pattern.
const UNSEEN: [RangeInclusive<char>; 21] = [
    '\u{a0}'..='\u{a0}',
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{61c}'..='\u{61c}',
    '\u{115f}'..='\u{1160}',
    '\u{1680}'..='\u{1680}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{2000}'..='\u{200f}',
    '\u{2028}'..='\u{202f}',
    '\u{205f}'..='\u{206f}',
    '\u{2800}'..='\u{2800}',
    '\u{3000}'..='\u{3000}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{fff0}'..='\u{fffb}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}',
];

/// The ones among them that scripts and emoji can't do without: the zero-width non-joiner and joiner, and the choice
/// between text and emoji. They may stand behind a character outside of ASCII, where they have something to join.
const JOINERS: [char; 4] = ['\u{200c}', '\u{200d}', '\u{fe0e}', '\u{fe0f}'];

/// Whether nobody sees the character, or it turns the direction of writing. A space is among them.
fn is_unseen(character: char) -> bool {
    if character < '\u{a0}' {
        return character <= ' ' || character >= '\u{7f}';
    }
    UNSEEN.iter().any(|range| range.contains(&character))
}

/// What names may be, as a regular expression that JavaScript, Python and Rust read alike.
#[cfg(feature = "control")]
pub(crate) fn pattern() -> String {
    let mut pattern = String::from(r"^(?:[!-+\--~]|[^\x00-\x9f");
    for range in &UNSEEN {
        push_character(&mut pattern, *range.start());
        if range.start() < range.end() {
            pattern.push('-');
            push_character(&mut pattern, *range.end());
        }
    }
    pattern.push_str("][");
    JOINERS.iter().for_each(|joiner| push_character(&mut pattern, *joiner));
    pattern.push_str("]*)+$");
    pattern
}

/// A character of a class. Beyond four digits each language has an escape of its own, so there it stands for itself.
#[cfg(feature = "control")]
fn push_character(pattern: &mut String, character: char) {
    match u32::from(character) {
        code @ ..=0xffff => pattern.push_str(&format!("\\u{code:04x}")),
        _ => pattern.push(character),
    }
}

/// A character in words for a person.
pub(crate) struct Named(pub(crate) char);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ' ' => f.write_str("a space"),
            '\t' => f.write_str("a tab"),
            '\r' | '\n' => f.write_str("a line end"),
            '\u{feff}' => f.write_str("a byte order mark (U+FEFF)"),
            other => write!(f, "U+{:04X}", u32::from(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_scripts_are_taken() {
        for good in [
            "news",
            "news/\u{e9}t\u{e9}",
            "*",
            "+/#",
            "a;b",
            "price/EUR|USD",
            "\u{661f}",
            "\u{1f680}",
            "$x",
            // Persian with a non-joiner, a family and a heart of joined emoji, Arabic, a character of private use.
            "\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}",
            "\u{1f468}\u{200d}\u{1f469}",
            "\u{2764}\u{fe0f}\u{200d}\u{1f525}",
            "\u{0645}",
            "\u{e000}",
            "\u{10ffff}",
        ] {
            assert_eq!(Topic::new(good.as_bytes()).unwrap().as_str(), good);
        }
        assert!(Topic::new(&[b'x'; 255]).is_ok());
        assert_eq!(Topic::new(&[b'x'; 256]), Err(TopicError::TooLong { len: 256, max: 255 }));
        assert_eq!(Topic::new(b""), Err(TopicError::Empty));
        assert_eq!(Topic::new(b"\xff"), Err(TopicError::NotUtf8));
    }

    #[test]
    fn what_nobody_sees_and_what_turns_the_direction_is_refused() {
        let all = '\0'..=char::MAX;
        for bad in all.filter(|c| c.is_whitespace() || c.is_control()).chain(
            "\0\t\u{ad}\u{34f}\u{61c}\u{115f}\u{180e}\u{200b}\u{200e}\u{200f}\u{202a}\u{202e}\u{2060}\u{2066}\u{2069}\
             \u{206f}\u{2800}\u{3164}\u{fe00}\u{feff}\u{ffa0}\u{fff9}\u{1bca0}\u{1d173}\u{e0001}\u{e0020}\u{e0fff}"
                .chars()
                .chain(JOINERS),
        ) {
            for name in [format!("a{bad}b"), format!("{bad}"), format!("a{bad}")] {
                assert_eq!(Topic::new(name.as_bytes()), Err(TopicError::BadCharacter(bad)), "{name:?}");
            }
        }
        for unseen in ["\u{e9}\u{200b}", "\u{200d}\u{e9}", "\u{e9}a\u{fe0f}"] {
            assert!(matches!(Topic::new(unseen.as_bytes()), Err(TopicError::BadCharacter(_))), "{unseen:?}");
        }
        for bad in ["a,b", ",a", "a,", ","] {
            assert_eq!(Topic::new(bad.as_bytes()), Err(TopicError::Comma), "{bad}");
        }
    }

    #[test]
    fn the_character_is_named() {
        let said = |name: &str| Topic::new(name.as_bytes()).unwrap_err().to_string();
        assert!(said("a b").ends_with("this one has a space"), "{}", said("a b"));
        assert!(said("\u{feff}a").ends_with("this one has a byte order mark (U+FEFF)"));
        assert!(said("a\u{202e}b").ends_with("this one has U+202E"));
    }

    #[cfg(feature = "control")]
    proptest::proptest! {
        #[test]
        fn what_the_pattern_of_the_api_allows_is_taken(
            name in proptest::string::string_regex(&pattern()[1..pattern().len() - 1]).unwrap()
        ) {
            proptest::prop_assert_eq!(Topic::check(name.as_bytes(), usize::MAX), Ok(&*name));
        }
    }
}
