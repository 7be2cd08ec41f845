//! Answers that end a request, refusals among them.

use std::fmt::Write as _;

use super::Outcome;

pub(super) const TEXT: &str = "text/plain; charset=utf-8";

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
    pub(super) fn bytes(&self, cors: &str, bodiless: bool) -> Vec<u8> {
        answer(self.status, TEXT, self.field.as_slice(), cors, &format!("{}\n", self.text), bodiless)
    }
}

pub(super) fn answer(
    status: u16,
    kind: &str,
    fields: &[(&str, &str)],
    cors: &str,
    body: &str,
    bodiless: bool,
) -> Vec<u8> {
    let phrase = match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    };
    let mut head = format!("HTTP/1.1 {status} {phrase}\r\n");
    for (name, value) in fields {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    // An upgrade that is asked for is named in Connection too (RFC 9110, section 7.8).
    let connection = if status == 426 { "close, Upgrade" } else { "close" };
    let _ = write!(
        head,
        "Content-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         {cors}Connection: {connection}\r\n\r\n",
        body.len()
    );
    if !bodiless {
        head.push_str(body);
    }
    head.into_bytes()
}

/// A client's text as an answer repeats it: cut to a length, and in ASCII.
pub(super) fn quoted(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).flat_map(char::escape_default).collect()
}
