//! The token that calls must show, where one is needed.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::config::control::TOKEN_BYTES_MAX;

/// Why a token file can't be used.
#[derive(Debug, Error)]
pub enum TokenError {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Read(#[from] io::Error),
    /// Anybody on this machine can read it.
    #[error("everybody on this machine can read or write it (mode {mode:03o}); take that away: chmod o= FILE")]
    Open {
        /// Its permissions.
        mode: u32,
    },
    /// There is no token in it.
    #[error("it is empty; write a token into it, as in `openssl rand -hex 32 > FILE`")]
    Empty,
    /// It is too large for a token.
    #[error("it has more than {TOKEN_BYTES_MAX} bytes; a token is one line")]
    TooLarge,
    /// It holds what an HTTP header can't.
    #[error("a token is one line of visible ASCII characters without spaces")]
    BadCharacter,
}

/// What calls must show.
pub(super) struct Token(Vec<u8>);

impl Token {
    /// Reads the token from a file, without the white space around it.
    pub(super) fn load(path: &Path) -> Result<Self, TokenError> {
        let file = File::open(path)?;
        let mode = file.metadata()?.permissions().mode() & 0o777;
        if mode & 0o007 != 0 {
            return Err(TokenError::Open { mode });
        }
        let mut bytes = Vec::new();
        file.take(TOKEN_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLarge);
        }
        let token = bytes.trim_ascii();
        if token.is_empty() {
            return Err(TokenError::Empty);
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(TokenError::BadCharacter);
        }
        Ok(Token(token.to_vec()))
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
