//! What a server says when it does not do what was asked.

use std::fmt;

use serde::Deserialize;

use crate::printable;

/// Characters of a server's text that are shown at the most, and of one of its words.
pub(super) const DETAIL_CHARS_MAX: usize = 400;
pub(super) const WORD_CHARS_MAX: usize = 64;

/// What the server says when it does not do what was asked (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Problem {
    /// A stable word.
    pub(super) code: String,
    /// What happened.
    #[serde(default)]
    pub(super) detail: String,
}

impl Problem {
    /// A queue is full, and a later try may fare better. Nothing was done.
    pub(super) fn is_busy(&self) -> bool {
        self.code == "busy"
    }

    /// The token is missing or wrong.
    pub(super) fn is_unauthorized(&self) -> bool {
        self.code == "unauthorized"
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (detail, code) = (&self.detail, &self.code);
        write!(f, "{} ({})", printable::line(detail, DETAIL_CHARS_MAX), printable::line(code, WORD_CHARS_MAX))
    }
}
