//! Who may call: those who show the token, and no pages of other sites.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, Method, Uri};

use crate::config::{Config, Origins, Standing, is_same_authority};
use crate::control::assets;
use crate::control::places::Visit;
use crate::control::probes;
use crate::control::problem::{Problem, ProblemCode};
use crate::control::token::Token;

/// What is compared with a request.
pub(super) struct Access {
    token: Option<Token>,
    /// The server's names, and the origins that are listed one by one: a pattern, as for the pages of clients, would open
    /// the control plane to pages that nobody named.
    origins: Origins,
}

impl Access {
    /// As the settings say.
    pub(super) fn new(config: &Config, token: Option<Token>) -> Self {
        let exact: Vec<_> = config.allow_origin.iter().filter(|origin| origin.is_exact()).cloned().collect();
        Access { token, origins: Origins::new(&exact, &config.host) }
    }
}

/// Who calls.
pub(super) enum Caller {
    /// Somebody who may call.
    Known,
    /// Somebody who asks for what everybody may see.
    Anybody,
}

impl Caller {
    /// Takes a place for a caller that may call. Metrics are told without one, too: a server in need must be seen.
    pub(super) fn settle(self, visit: Option<&Arc<Visit>>, path: &str) -> Result<(), Problem> {
        let has_room = match (&self, visit) {
            (Caller::Known, Some(visit)) => visit.claim(),
            _ => true,
        };
        if has_room || path == "/metrics" {
            return Ok(());
        }
        let detail = "the control plane has no room for more connections; try again later";
        Err(Problem::new(ProblemCode::Busy, detail))
    }
}

pub(super) fn check(access: &Access, request: &Request) -> Result<Caller, Problem> {
    let (headers, path) = (request.headers(), request.uri().path());
    let host = host(headers, request.uri())?;
    let origin = single(headers, &ORIGIN)?;
    if probes::is_health(path) {
        return Ok(Caller::Anybody);
    }
    match &origin {
        Some(origin) => access.check_page(origin, host.as_deref(), headers)?,
        None => check_fetch(request)?,
    }
    match &access.token {
        Some(token) if token.is_shown(headers) => Ok(Caller::Known),
        Some(_) if assets::is_public(path) => Ok(Caller::Anybody),
        Some(_) => {
            let detail = "this call needs the header `Authorization: Bearer TOKEN` with the server's token";
            Err(Problem::new(ProblemCode::Unauthorized, detail))
        }
        None => access.check_host(host.as_deref()).map(|()| Caller::Known),
    }
}

impl Access {
    /// Refuses pages of other sites. Browsers let any page post to any address, also to those that only this machine
    /// reaches; but they name the page.
    fn check_page(&self, origin: &str, host: Option<&str>, headers: &HeaderMap) -> Result<(), Problem> {
        let scheme = single(headers, &HeaderName::from_static("x-forwarded-proto"))?;
        // Where several proxies have added theirs, the first is that of the page.
        let scheme = scheme.as_deref().map(|schemes| schemes.split(',').next().unwrap_or_default().trim());
        let detail = match self.origins.standing(origin, host, scheme) {
            standing if standing.is_allowed() => return Ok(()),
            // Whoever shows the token is believed the name as well.
            Standing::UnknownName if self.token.is_some() => return Ok(()),
            Standing::UnknownName => format!(
                "the request comes from a page of {origin}, and that name is not known to be this server's; if it is, \
                 name it with --host"
            ),
            Standing::OtherScheme => format!(
                "the request comes from a page of {origin}, which is this server except for the scheme; if a proxy ends \
                 TLS, let it send X-Forwarded-Proto, or start the server with --allow-origin {origin}"
            ),
            _ => format!(
                "the request comes from a page of {origin}, which this server does not serve; if its dashboard is \
                 reached there, start the server with --allow-origin {origin}"
            ),
        };
        Err(Problem::new(ProblemCode::ForeignOrigin, detail))
    }

    /// Without a token, the server answers to addresses, to `localhost` and to names that are listed: a page of another
    /// site could otherwise have its own name lead here, and then it would count as a page of this server.
    fn check_host(&self, host: Option<&str>) -> Result<(), Problem> {
        let Some(host) = host.filter(|host| !self.origins.is_own_host(host)) else { return Ok(()) };
        let detail = format!(
            "without a token this server answers to an IP address or localhost, not to the name `{host}`; name it with \
             --host, or start the server with --control-token-file"
        );
        Err(Problem::new(ProblemCode::ForeignOrigin, detail))
    }
}

/// The only value of a header; `None`: it is not there.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<Cow<'a, str>>, Problem> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        let detail = format!("the header {name} appears more than once");
        return Err(Problem::new(ProblemCode::BadHeader, detail));
    }
    Ok(value.map(|value| String::from_utf8_lossy(value.as_bytes())))
}

/// The server that the request is meant for. A target that names one, as for a proxy, must name that of the Host header.
fn host<'a>(headers: &'a HeaderMap, target: &'a Uri) -> Result<Option<Cow<'a, str>>, Problem> {
    let host = single(headers, &HOST)?;
    let Some(authority) = target.authority() else { return Ok(host) };
    let scheme = target.scheme_str().unwrap_or("http");
    match host {
        Some(host) if !is_same_authority(&host, authority.as_str(), scheme) => {
            let detail = format!("the target names {authority}, and the Host header names {host}");
            Err(Problem::new(ProblemCode::BadHeader, detail))
        }
        _ => Ok(Some(authority.as_str().into())),
    }
}

/// Refuses what a page of another site makes a browser load without an `Origin`, as an image or a script. The page of
/// the dashboard itself may be opened from anywhere.
fn check_fetch(request: &Request) -> Result<(), Problem> {
    let header = |name: &str| request.headers().get(name).map(|value| value.as_bytes());
    let is_ours = match header("sec-fetch-site") {
        None => true,
        Some(site) => matches!(site, b"same-origin" | b"none"),
    };
    let opens_the_page = request.uri().path() == "/"
        && matches!(*request.method(), Method::GET | Method::HEAD)
        && header("sec-fetch-mode") == Some(b"navigate")
        && matches!(header("sec-fetch-dest"), None | Some(b"document"));
    if is_ours || opens_the_page {
        return Ok(());
    }
    let detail = "a page of another site made the browser send this; only this server's own pages may call it";
    Err(Problem::new(ProblemCode::ForeignOrigin, detail))
}
