//! Requests that are refused, in words for whoever sent them.

use crate::protocol::answer::{TEXT, answer};

/// Why a request is not carried out: a status, and words for whoever sent it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: u16,
    text: String,
    /// A header that says what would be right.
    field: Option<(&'static str, &'static str)>,
    /// Whether the words are left out, as the method asks.
    bodiless: bool,
}

impl Refusal {
    pub(crate) fn new(status: u16, text: impl Into<String>) -> Self {
        Refusal { status, text: text.into(), field: None, bodiless: false }
    }

    /// Adds a header that says what would be right.
    pub(crate) fn with_field(self, name: &'static str, value: &'static str) -> Self {
        Refusal { field: Some((name, value)), ..self }
    }

    /// Makes it the answer to a request of this method.
    pub(crate) fn in_answer_to(self, method: &str) -> Self {
        Refusal { bodiless: method == "HEAD", ..self }
    }

    /// The answer as it goes over the wire, with these header lines besides.
    pub(crate) fn answer(&self, lines: &str) -> Vec<u8> {
        answer(self.status, TEXT, self.field, lines, format!("{}\n", self.text).as_bytes(), self.bodiless)
    }
}

/// A client's text as an answer repeats it: cut to a length, and in ASCII.
pub(crate) fn quoted(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).flat_map(char::escape_default).collect()
}
