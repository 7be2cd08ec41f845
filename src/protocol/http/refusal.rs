//! Requests that are refused, in words for whoever sent them.

use std::borrow::Cow;

use crate::protocol::answer::{TEXT, answer};

/// Why a request is not carried out: a status, and words for whoever sent it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: u16,
    text: String,
    /// Headers that say what would be right.
    fields: Vec<(&'static str, Cow<'static, str>)>,
    /// Whether the words are left out, as the method asks.
    bodiless: bool,
}

impl Refusal {
    pub(crate) fn new(status: u16, text: impl Into<String>) -> Self {
        Refusal { status, text: text.into(), fields: Vec::new(), bodiless: false }
    }

    /// Adds a header that says what would be right.
    pub(crate) fn with_field(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// Makes it the answer to a request of this method.
    pub(crate) fn in_answer_to(self, method: &str) -> Self {
        Refusal { bodiless: method == "HEAD", ..self }
    }

    /// The answer as it goes over the wire, with these header lines besides.
    pub(crate) fn answer(&self, lines: &str) -> Vec<u8> {
        let fields = self.fields.iter().map(|(name, value)| (*name, &**value));
        answer(self.status, TEXT, fields, lines, format!("{}\n", self.text).as_bytes(), self.bodiless)
    }
}

/// A client's text as an answer repeats it: cut to a length, and in ASCII.
pub(crate) fn quoted(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).flat_map(char::escape_default).collect()
}
