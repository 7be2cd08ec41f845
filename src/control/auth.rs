//! Who may call: the token, and the guard against pages of other sites.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::config::control::TOKEN_BYTES_MAX;
use crate::control::api::Api;
use crate::control::places::Visit;
use crate::control::problem::{Problem, ProblemCode};
use crate::control::{assets, health};

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
    fn is_shown(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii())
        });
        shown.is_some_and(|shown| self.0.ct_eq(shown).into())
    }
}

/// Lets a request through, or says why not.
pub(super) async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    match check(&api, &request).and_then(|caller| caller.settle(&request)) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Who calls.
enum Caller {
    /// Somebody who may call.
    Known,
    /// Somebody who asks for what everybody may see.
    Anybody,
}

impl Caller {
    /// Takes a place for a caller that may call. Metrics are told without one, too: a server in need must be seen.
    fn settle(self, request: &Request) -> Result<(), Problem> {
        let has_room = match (&self, request.extensions().get::<Arc<Visit>>()) {
            (Caller::Known, Some(visit)) => visit.claim(),
            _ => true,
        };
        if has_room || request.uri().path() == "/metrics" {
            return Ok(());
        }
        let detail = "the control plane serves as many connections as it may; try again later";
        Err(Problem::new(ProblemCode::Busy, detail))
    }
}

fn check(api: &Api, request: &Request) -> Result<Caller, Problem> {
    let path = request.uri().path();
    if health::is_health(path) {
        return Ok(Caller::Anybody);
    }
    let headers = request.headers();
    if let Some(foreign) = foreign_origin(headers) {
        let detail = format!("the request comes from a page of {foreign}, which this server does not serve");
        return Err(Problem::new(ProblemCode::ForeignOrigin, detail));
    }
    match api.token() {
        Some(token) if token.is_shown(headers) => Ok(Caller::Known),
        Some(_) if assets::is_public(path) => Ok(Caller::Anybody),
        Some(_) => {
            let detail = "this call needs the header `Authorization: Bearer TOKEN` with the server's token";
            Err(Problem::new(ProblemCode::Unauthorized, detail))
        }
        None => check_host(headers).map(|()| Caller::Known),
    }
}

/// The site whose page sent the request, if it is not this one. Browsers let any page post to any address, also to
/// those that only this machine reaches; but they name the page.
fn foreign_origin(headers: &HeaderMap) -> Option<String> {
    let origin = headers.get(ORIGIN)?;
    let own = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let text = String::from_utf8_lossy(origin.as_bytes());
    let host = text.split_once("://").map_or("", |(_, host)| host);
    (own.is_empty() || !host.eq_ignore_ascii_case(own)).then(|| text.into_owned())
}

/// Without a token, the server answers to addresses and to `localhost` only: a page of another site could otherwise
/// have its own name lead here, and then it would count as a page of this server.
fn check_host(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(host) = headers.get(HOST) else { return Ok(()) };
    let authority = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    let name = authority.as_ref().map_or("", |authority| authority.host());
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let detail = format!(
        "without a token this server answers to an IP address or localhost, not to the name `{name}`; \
         start it with --control-token-file"
    );
    Err(Problem::new(ProblemCode::ForeignOrigin, detail))
}
