//! Which web pages may connect: origins that are listed, and the server's own.

use std::fmt;
use std::str::FromStr;

use url::Host;

use crate::config::ParseError;

/// A web origin whose pages may connect, written `https://example.com`; `https://*.example.com` for the names below it;
/// `https://example.com:*` for all its ports; `null` for pages without an origin, such as files; or `*` for any page.
///
/// It is kept as browsers send it: in lower case, names in their ASCII form (RFC 5891), without the scheme's own port.
/// Browsers' extensions have schemes of their own, as in `chrome-extension://id`; there `*` stands for any of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(Pattern);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    /// What browsers send for pages of no site: files, and frames that are sandboxed.
    Null,
    /// What some embedded browsers send for files, beside `null`.
    File,
    Pages {
        scheme: String,
        host: HostPattern,
        port: PortPattern,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPattern {
    Any,
    Exactly(String),
    /// Any name below this one, at any depth.
    Below(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortPattern {
    Any,
    /// `None`: the scheme's own.
    Exactly(Option<u16>),
}

impl HostPattern {
    /// Reads a host, in which one `*` may stand for the first labels.
    fn read(text: &str, kind: Kind) -> Option<Self> {
        if text == "*" {
            return Some(HostPattern::Any);
        }
        let (below, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
        if name.contains('*') {
            return None;
        }
        let host = read_host(name, kind)?;
        match below {
            // No name stands below an address.
            true if host.starts_with('[') || is_address(&host) => None,
            true => Some(HostPattern::Below(host)),
            false => Some(HostPattern::Exactly(host)),
        }
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Any => true,
            HostPattern::Exactly(own) => own == host,
            HostPattern::Below(top) => {
                host.strip_suffix(top.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Any => f.write_str("*"),
            HostPattern::Exactly(host) => f.write_str(host),
            HostPattern::Below(top) => write!(f, "*.{top}"),
        }
    }
}

impl Origin {
    /// Whether it stands for any page.
    pub(crate) fn is_any(&self) -> bool {
        self.0 == Pattern::Any
    }

    /// Whether it stands for one site alone: neither for all below a name, or all ports, nor for pages of no site.
    #[cfg_attr(not(feature = "control"), allow(dead_code, reason = "the control plane asks"))]
    pub(crate) fn is_exact(&self) -> bool {
        matches!(&self.0, Pattern::Pages { host: HostPattern::Exactly(_), port: PortPattern::Exactly(_), .. })
    }

    /// Whether it stands for an origin as a browser sends it.
    pub fn matches(&self, origin: &str) -> bool {
        self.matches_page(Page::read(origin).as_ref(), origin)
    }

    /// As [`Origin::matches`], with the origin read already.
    fn matches_page(&self, page: Option<&Page>, origin: &str) -> bool {
        let is_null = origin.eq_ignore_ascii_case("null");
        match &self.0 {
            Pattern::Any => true,
            Pattern::Null => is_null,
            Pattern::File => is_null || origin.eq_ignore_ascii_case("file://"),
            Pattern::Pages { scheme, host, port } => page.is_some_and(|page| {
                let port_fits = match port {
                    PortPattern::Any => true,
                    PortPattern::Exactly(port) => *port == page.port,
                };
                page.scheme == *scheme && port_fits && host.matches(&page.host)
            }),
        }
    }

    /// What whoever lists it should know, where it lets in more than it seems to.
    pub fn caution(&self) -> Option<&'static str> {
        matches!(self.0, Pattern::Null | Pattern::File).then_some(
            "browsers send the origin `null` for files, and for a sandboxed frame of any site, too: \
             any site can connect that way",
        )
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Pattern::Any => f.write_str("*"),
            Pattern::Null => f.write_str("null"),
            Pattern::File => f.write_str("file://"),
            Pattern::Pages { scheme, host, port } => {
                write!(f, "{scheme}://{host}")?;
                match port {
                    PortPattern::Any => f.write_str(":*"),
                    PortPattern::Exactly(Some(port)) => write!(f, ":{port}"),
                    PortPattern::Exactly(None) => Ok(()),
                }
            }
        }
    }
}

impl FromStr for Origin {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Origin::read(text).map_err(ParseError::new)
    }
}

impl Origin {
    fn read(text: &str) -> Result<Self, String> {
        let no = |why: &str| Err(format!("`{text}` is not an origin: {why}"));
        if text == "*" {
            return Ok(Origin(Pattern::Any));
        }
        if text.eq_ignore_ascii_case("null") {
            return Ok(Origin(Pattern::Null));
        }
        if text.contains(|c: char| c == ',' || c.is_whitespace() || c.is_control()) {
            return no("it holds a comma or white space; give each origin by itself, as in \
                       --allow-origin https://a.example --allow-origin https://b.example");
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            let host = text.trim_end_matches('/');
            return no(&match HostPattern::read(split_port(host).map_or(host, |(host, _)| host), Kind::Web) {
                Some(_) => format!("the scheme is missing; write https://{host} or http://{host}"),
                None => "write a scheme and a host, as in https://example.com, or null, or * for any".into(),
            });
        };
        let scheme = scheme.to_ascii_lowercase();
        if !is_scheme(&scheme) {
            return no("a scheme is letters, as in https://example.com; `*` does not stand for schemes");
        }
        if scheme == "file" {
            return match rest {
                "" | "/" | "*" => Ok(Origin(Pattern::File)),
                _ => no("pages of files have no path in their origin; write file:// or null"),
            };
        }
        if let Some(page) = [("ws", "http"), ("wss", "https")].iter().find(|(from, _)| *from == scheme) {
            let (page, rest) = (page.1, rest.trim_end_matches('/'));
            return no(&format!("it is the page's address that counts, not the WebSocket's; write {page}://{rest}"));
        }
        if scheme == "ftp" {
            return no("browsers show no pages from ftp");
        }
        // Whoever copies an address out of a browser gets the slash of its path.
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if let Some(at) = authority.find(['/', '?', '#', '\\']) {
            return no(&format!("it has a path, which browsers don't send; write {scheme}://{}", &authority[..at]));
        }
        if authority.contains('@') {
            return no("it holds a user name, which browsers don't send");
        }
        let kind = Kind::of(&scheme);
        let (host, port) = match authority.strip_suffix(":*") {
            Some(host) => (host, PortPattern::Any),
            None => match split_port(authority) {
                Some((host, port)) => {
                    (host, PortPattern::Exactly(port.filter(|port| default_port(&scheme) != Some(*port))))
                }
                None => return no("its port is not a number from 0 to 65535, or `*` for any"),
            },
        };
        match HostPattern::read(host, kind) {
            Some(HostPattern::Any) if kind == Kind::Web => {
                no("it would be any site; write * for that, or a name, as in https://*.example.com")
            }
            Some(HostPattern::Any) => {
                Ok(Origin(Pattern::Pages { scheme, host: HostPattern::Any, port: PortPattern::Any }))
            }
            Some(host) => Ok(Origin(Pattern::Pages { scheme, host, port })),
            None if host.contains('*') => {
                no("`*` stands for the first labels of a name, as in https://*.example.com, for a port, as in \
                    http://localhost:*, or by itself for any page")
            }
            None => no("its host is not a name or an address, as in https://example.com or http://[::1]:8080"),
        }
    }
}

/// A name under which clients reach the server, written `push.example.com`; `*.example.com` for the names below it; or
/// `*` for any.
///
/// Pages under it are the server's own. Addresses and `localhost` need no mention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(HostPattern);

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for HostName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        HostName::read(text).map_err(ParseError::new)
    }
}

impl HostName {
    fn read(text: &str) -> Result<Self, String> {
        if let Some((_, rest)) = text.split_once("://") {
            let name = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let name = split_port(name).map_or(name, |(name, _)| name);
            return Err(format!(
                "`{text}` is not a host name: leave out the scheme, the port and the path; write {name}"
            ));
        }
        if text.contains(|c: char| c == ',' || c.is_whitespace()) {
            return Err(format!(
                "`{text}` is not a host name: give each name by itself, as in --host a.example --host b.example"
            ));
        }
        if let Some((name, Some(_))) = split_port(text) {
            return Err(format!("`{text}` is not a host name: names count with any port; write {name}"));
        }
        match HostPattern::read(text, Kind::Web) {
            Some(host) => Ok(HostName(host)),
            None => Err(format!(
                "`{text}` is not a host name; write push.example.com, or *.example.com for all names below it"
            )),
        }
    }
}

/// Who a page is that asks to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its origin is listed by name.
    Listed,
    /// It is a page of this server.
    Own,
    /// It is a page of another site, and any may connect.
    Any,
    /// It is a page of another site, which may not connect.
    Foreign,
    /// Its origin is the name that the request was sent to; but that name is not known to be the server's.
    UnknownName,
    /// It is this server's, but for the scheme.
    OtherScheme,
}

impl Standing {
    /// Whether the page may connect.
    pub(crate) fn is_allowed(self) -> bool {
        matches!(self, Standing::Listed | Standing::Own | Standing::Any)
    }
}

/// The origins that are listed, and the names that are the server's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins {
    listed: Vec<Origin>,
    any: bool,
    names: Vec<HostName>,
}

impl Origins {
    /// What the settings `allow_origin` and `host` say.
    pub(crate) fn new(allow_origin: &[Origin], host: &[HostName]) -> Self {
        Origins {
            listed: allow_origin.iter().filter(|origin| !origin.is_any()).cloned().collect(),
            any: allow_origin.iter().any(Origin::is_any),
            names: host.to_vec(),
        }
    }

    /// Who a page of `origin` is to a request whose Host header is `host`. `scheme` is that of the request, where a
    /// proxy that ended TLS says so: `http` or `https`, in any case.
    pub(crate) fn standing(&self, origin: &str, host: Option<&str>, scheme: Option<&str>) -> Standing {
        let page = Page::read(origin);
        if self.listed.iter().any(|listed| listed.matches_page(page.as_ref(), origin)) {
            return Standing::Listed;
        }
        match page.zip(host).map_or(Standing::Foreign, |(page, host)| self.compare(&page, host, scheme)) {
            Standing::Own => Standing::Own,
            _ if self.any => Standing::Any,
            refused => refused,
        }
    }

    fn compare(&self, page: &Page, host: &str, scheme: Option<&str>) -> Standing {
        let Some(own) = Authority::read(host) else { return Standing::Foreign };
        let Some(own_port) = default_port(&page.scheme) else { return Standing::Foreign };
        if page.host != own.host || page.port.unwrap_or(own_port) != own.port.unwrap_or(own_port) {
            return Standing::Foreign;
        }
        let is_listed = self.names.iter().any(|name| name.0.matches(&own.host));
        if !is_listed && !is_always_own(&own.host) {
            return Standing::UnknownName;
        }
        // The server itself speaks plain HTTP. What a proxy before it speaks is not known where the proxy does not say
        // so; a name that is listed is one under which such a proxy is reached.
        let is_same_scheme = match scheme {
            Some(scheme) => page.scheme.eq_ignore_ascii_case(scheme),
            None => is_listed || page.scheme == "http",
        };
        if is_same_scheme { Standing::Own } else { Standing::OtherScheme }
    }

    /// Whether a Host header names this server for certain: an address, `localhost`, or a name that is listed. Any
    /// other may be a name that a stranger had lead here.
    pub(crate) fn is_own_host(&self, host: &str) -> bool {
        Authority::read(host)
            .is_some_and(|own| is_always_own(&own.host) || self.names.iter().any(|name| name.0.matches(&own.host)))
    }

    /// Whether any page may connect.
    pub(crate) fn is_any(&self) -> bool {
        self.any
    }

    /// Whether all pages get the same answer, so that caches need not tell them apart.
    pub(crate) fn is_any_alone(&self) -> bool {
        self.any && self.listed.is_empty()
    }
}

/// Whether two Host headers, or a Host header and a target's authority, name the same host and port.
pub(crate) fn is_same_authority(one: &str, other: &str, scheme: &str) -> bool {
    let port = default_port(scheme);
    let read = |text: &str| Authority::read(text).map(|own| (own.host, own.port.or(port)));
    read(one).is_some_and(|one| read(other).is_some_and(|other| one == other))
}

/// Whether a Host header can be one: a name or an address, and perhaps a port.
pub(crate) fn is_authority(host: &str) -> bool {
    Authority::read(host).is_some()
}

/// The origin of a page, as a browser sends it.
struct Page {
    scheme: String,
    host: String,
    /// `None`: the scheme's own.
    port: Option<u16>,
}

impl Page {
    /// `None` for what is not of the web, or not an origin.
    fn read(origin: &str) -> Option<Self> {
        let (scheme, authority) = origin.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = split_port(authority).filter(|_| is_scheme(&scheme))?;
        let host = read_host(host, Kind::of(&scheme))?;
        let port = port.filter(|port| default_port(&scheme) != Some(*port));
        Some(Page { scheme, host, port })
    }
}

/// What a Host header says.
struct Authority {
    host: String,
    port: Option<u16>,
}

impl Authority {
    fn read(text: &str) -> Option<Self> {
        let (host, port) = split_port(text)?;
        Some(Authority { host: read_host(host, Kind::Web)?, port })
    }
}

/// Whether hosts are those of the web, or a scheme's own names, as those of extensions are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Web,
    Other,
}

impl Kind {
    fn of(scheme: &str) -> Self {
        if default_port(scheme).is_some() { Kind::Web } else { Kind::Other }
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

fn is_scheme(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// The host and the port of an authority; `None` if what follows the colon is not a port.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    // The colons of an IPv6 address stand in brackets.
    let from = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[from..].rfind(':') {
        None => Some((authority, None)),
        Some(at) => {
            let (host, port) = (&authority[..from + at], &authority[from + at + 1..]);
            // An empty port is the scheme's own (RFC 3986, section 3.2.3).
            if port.is_empty() {
                return Some((host, None));
            }
            let port = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok())??;
            Some((host, Some(port)))
        }
    }
}

/// A host as browsers write it: lower case, punycode, addresses in their shortest form, IPv6 in brackets. A dot at the
/// end of a name only says that it is whole.
fn read_host(text: &str, kind: Kind) -> Option<String> {
    let is_plain =
        |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | '?' | '#' | '@' | '\\' | ',' | '%');
    if text.is_empty() || !text.chars().all(is_plain) {
        return None;
    }
    if kind == Kind::Other {
        return Some(text.to_ascii_lowercase());
    }
    let mut host = Host::parse(text).ok()?.to_string();
    if host.ends_with('.') {
        host.pop();
    }
    (!host.is_empty() && !host.contains("..") && !host.starts_with('.')).then_some(host)
}

fn is_address(host: &str) -> bool {
    host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok()
}

/// Whether a host is the server's own whatever its settings: nobody can have it lead elsewhere. Browsers take all names
/// below `localhost` for this machine (RFC 6761, section 6.3).
fn is_always_own(host: &str) -> bool {
    is_address(host) || host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests;
