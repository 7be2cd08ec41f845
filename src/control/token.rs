//! The token that calls must show, where one is needed.

use std::path::Path;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use subtle::ConstantTimeEq;

use super::token_file::{TokenError, read_token};

/// What calls must show.
pub(super) struct Token(Vec<u8>);

impl Token {
    /// Reads the token from a file. Also returns who else can read or write that, if these are too many.
    pub(super) fn load(path: &Path) -> Result<(Self, Option<String>), TokenError> {
        read_token(path).map(|(token, exposure)| (Token(token.into_bytes()), exposure))
    }

    /// Whether a request shows it. The time it takes tells nothing of the token but its length.
    pub(super) fn is_shown(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii())
        });
        shown.is_some_and(|shown| self.0.ct_eq(shown).into())
    }
}
