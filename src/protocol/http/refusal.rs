//! Requests that are refused, in words for whoever sent them.

use super::Outcome;
use crate::protocol::answer::{TEXT, answer};

/// Why a request is not carried out, in words for whoever sent it.
#[derive(Debug)]
pub(super) struct Refusal {
    status: u16,
    text: String,
    /// A header that says what would be right.
    field: Option<(&'static str, &'static str)>,
    /// Whether a page may not connect. Browsers don't show why, so the operator is told.
    is_foreign: bool,
}

impl Refusal {
    pub(super) fn new(status: u16, text: impl Into<String>) -> Self {
        Refusal { status, text: text.into(), field: None, is_foreign: false }
    }

    /// A page may not connect.
    pub(super) fn foreign(text: String) -> Self {
        Refusal { is_foreign: true, ..Refusal::new(403, text) }
    }

    /// Adds a header that says what would be right.
    pub(super) fn with_field(self, name: &'static str, value: &'static str) -> Self {
        Refusal { field: Some((name, value)), ..self }
    }

    pub(super) fn answer(self, cors: &str, bodiless: bool) -> Outcome {
        let answer = self.bytes(cors, bodiless);
        if self.is_foreign { Outcome::Foreign { answer, text: self.text } } else { Outcome::Answer(answer) }
    }

    /// The answer as it goes over the wire.
    fn bytes(&self, cors: &str, bodiless: bool) -> Vec<u8> {
        answer(self.status, TEXT, self.field.as_slice(), cors, &format!("{}\n", self.text), bodiless)
    }
}

/// A client's text as an answer repeats it: cut to a length, and in ASCII.
pub(super) fn quoted(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).flat_map(char::escape_default).collect()
}
