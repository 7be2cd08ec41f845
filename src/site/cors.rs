//! Which pages may connect, and what their browsers are told.

use std::fmt::Write as _;

use super::{Denial, Done, Exchange};
use crate::config::{PREFLIGHT_FIELDS_BYTES_MAX, Standing};
use crate::protocol::http;
use crate::routes::is_token;

/// Characters of a page's origin, or of a name, that an answer and the log repeat at the most.
const QUOTED_CHARS_MAX: usize = 200;

/// Fields that libraries for event streams send, whatever a preflight asks for.
const FIELDS_ALLOWED: &str = "Authorization, Cache-Control, Content-Type, Last-Event-ID, X-Requested-With";

impl Exchange<'_> {
    /// Who the page is that sent the request, if one did and says so.
    fn standing(&self) -> Option<Standing> {
        self.origin.map(|origin| self.site.origins.standing(origin, self.head.host, self.scheme()))
    }

    /// The scheme that the client used, where a proxy that ended TLS says so, or the target. No page can make a browser
    /// say it: other sites' pages would need a preflight's leave.
    fn scheme(&self) -> Option<&str> {
        let told = self.head.tokens("X-Forwarded-Proto").next();
        let told = told.or_else(|| {
            let nearest = self.head.tokens("Forwarded").next()?;
            let pairs = nearest.split(';').filter_map(|pair| pair.split_once('='));
            let proto = pairs.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("proto"));
            proto.map(|(_, value)| value.trim().trim_matches('"'))
        });
        let told = told.or(self.head.scheme)?;
        // A WebSocket's own schemes are those of the web with another name.
        Some(match () {
            () if told.eq_ignore_ascii_case("ws") => "http",
            () if told.eq_ignore_ascii_case("wss") => "https",
            () => told,
        })
    }

    /// Refuses pages that may not connect.
    pub(super) fn check_origin(&self) -> Result<(), Denial> {
        let Some(origin) = self.origin else { return Ok(()) };
        let page = quoted(origin);
        let why = match self.site.origins.standing(origin, self.head.host, self.scheme()) {
            standing if standing.is_allowed() => return Ok(()),
            Standing::UnknownName => {
                let name = self.host_name();
                format!(
                    "the page is of {page}, and so is the address, but the server does not know that the name is its \
                     own: anybody can have a name lead here. Start it with --host {name}, or with --allow-origin {page}"
                )
            }
            Standing::OtherScheme => format!(
                "the page is of {page}, and the request came by another scheme; have the proxy that ends TLS send \
                 X-Forwarded-Proto, or start the server with --allow-origin {page}"
            ),
            _ => {
                format!("pages of {page} may not connect; if they should, start the server with --allow-origin {page}")
            }
        };
        Err(Denial::Foreign(why))
    }

    /// Refuses a browser that says no origin: it leaves it out when it loads what a page of another site shows or
    /// embeds, and when a page asks the site that it came from. That site's name may be a stranger's that leads here.
    pub(super) fn check_silent_browser(&self) -> Result<(), Denial> {
        if self.origin.is_some() || self.site.origins.is_any() {
            return Ok(());
        }
        let site_told = self.head.values("Sec-Fetch-Site").next();
        if self.head.values("Sec-Fetch-Site").any(|value| value.trim_ascii().eq_ignore_ascii_case(b"cross-site")) {
            let text = "a page of another site sent this without its origin; an EventSource of that page sends it";
            return Err(Denial::Foreign(text.into()));
        }
        // Every browser names a language. So do a few other clients, and of them some, and no browser, say the mode
        // without the site; pages can't set either.
        let is_browser = site_told.is_some()
            || self.head.values("Accept-Language").next().is_some()
                && self.head.values("Sec-Fetch-Mode").next().is_none();
        match self.head.host {
            Some(host) if is_browser && !host.is_empty() && !self.site.origins.is_own_host(host) => {
                let name = self.host_name();
                let text = format!(
                    "the server does not know that {name} is a name of its own, and anybody can have a name lead here; \
                     start it with --host {name}"
                );
                Err(Denial::Foreign(text))
            }
            _ => Ok(()),
        }
    }

    /// The name in the Host header, without the port.
    fn host_name(&self) -> String {
        let host = self.head.host.unwrap_or_default();
        quoted(host.rsplit_once(':').map_or(host, |(name, _)| name))
    }

    /// The headers that let a page of another origin read the answer, if it may.
    pub(super) fn cors(&self) -> String {
        // The answer is the same for all only where nobody is listed beside `*`.
        if self.site.origins.is_any_alone() {
            return self.origin.map_or("", |_| "Access-Control-Allow-Origin: *\r\n").into();
        }
        match (self.standing(), self.origin) {
            // Browsers write origins in ASCII. Whoever writes another one reads no answer by it, and a field holds ASCII.
            (Some(Standing::Listed | Standing::Own), Some(origin)) if origin.is_ascii() => format!(
                "Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Allow-Credentials: true\r\nVary: Origin\r\n"
            ),
            (Some(Standing::Any), _) => "Access-Control-Allow-Origin: *\r\nVary: Origin\r\n".into(),
            _ => "Vary: Origin\r\n".into(),
        }
    }

    /// The answer to OPTIONS: what is understood under a path, and, for a browser that asks on behalf of a page, what
    /// the page may send.
    pub(super) fn options(&self, allowed: &'static str) -> Result<Done<'static>, Denial> {
        let mut head = format!("HTTP/1.1 204 No Content\r\nAllow: {allowed}\r\nX-Content-Type-Options: nosniff\r\n");
        self.check_origin()?;
        head.push_str(&self.cors());
        if self.origin.is_some() {
            let _ = write!(
                head,
                "Access-Control-Allow-Methods: GET, HEAD\r\nAccess-Control-Allow-Headers: {}\r\nAccess-Control-Max-Age: 86400\r\n",
                self.fields_allowed()
            );
            if self.head.values("Access-Control-Request-Private-Network").next().is_some() {
                head.push_str("Access-Control-Allow-Private-Network: true\r\n");
            }
        }
        head.push_str("Connection: close\r\n\r\n");
        Ok(Done::Answer(head.into_bytes()))
    }

    /// The fields that a page may send: the usual ones, and what it asks for, since none of them does anything here.
    fn fields_allowed(&self) -> String {
        let mut allowed = FIELDS_ALLOWED.to_owned();
        for name in self.head.tokens("Access-Control-Request-Headers") {
            let is_known = allowed.split(", ").any(|known| known.eq_ignore_ascii_case(name));
            if !is_known && is_token(name) && allowed.len() + name.len() <= PREFLIGHT_FIELDS_BYTES_MAX {
                allowed.push_str(", ");
                allowed.push_str(name);
            }
        }
        allowed
    }
}

pub(super) fn quoted(text: &str) -> String {
    http::quoted(text, QUOTED_CHARS_MAX)
}
