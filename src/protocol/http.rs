//! The head of an HTTP/1 request: bytes in, what they say out. It knows no address of the server and no setting.

mod extensions;
mod fields;
mod refusal;
mod upgrade;

use std::mem::MaybeUninit;

use httparse::{Header, Status};

pub(crate) use self::refusal::{Refusal, quoted};
pub(crate) use self::upgrade::Upgrade;
use crate::config::{HEAD_EMPTY_BYTES_MAX, HEAD_FIELDS_MAX, bytes_to_text, is_authority, is_same_authority};

/// Room for the fields of a head, which stay where they came in and are only pointed at.
pub(crate) struct Fields<'a>([MaybeUninit<Header<'a>>; HEAD_FIELDS_MAX]);

impl Default for Fields<'_> {
    fn default() -> Self {
        Fields([const { MaybeUninit::uninit() }; HEAD_FIELDS_MAX])
    }
}

/// A request's head, sound in itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a str,
    /// The scheme of a target in absolute form, as the web calls it.
    pub(crate) scheme: Option<&'static str>,
    /// The target's authority, or else the Host header.
    pub(crate) host: Option<&'a str>,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    /// The version is 1 and this.
    pub(crate) minor: u8,
    fields: &'a [Header<'a>],
    /// Bytes of the head, and of empty lines before it.
    pub(crate) consumed: usize,
}

/// Reads the head that begins `bytes`, of which `scanned` are known to hold no end of one. `Ok(None)`: it has not come in
/// whole.
///
/// # Errors
/// It is not HTTP, it has more than `bytes_max` bytes or too many fields, or what it says of its host contradicts itself.
pub(crate) fn read<'a>(
    bytes: &'a [u8],
    scanned: usize,
    bytes_max: usize,
    fields: &'a mut Fields<'a>,
) -> Result<Option<Head<'a>>, Refusal> {
    let empty = bytes.iter().take(HEAD_EMPTY_BYTES_MAX + 1).take_while(|byte| is_line_end(**byte)).count();
    if empty > HEAD_EMPTY_BYTES_MAX {
        return Err(Refusal::new(400, "the request begins with too many empty lines"));
    }
    // A head that trickles in is not read anew with each byte, but what is no HTTP at all is found out at once.
    let is_first_look = scanned == 0;
    let is_too_large = bytes.len() > bytes_max;
    if !is_first_look && !is_too_large && !has_end(bytes, scanned.max(empty)) {
        return Ok(None);
    }
    let too_large = || {
        let most = bytes_to_text(bytes_max);
        Refusal::new(431, format!("a request's head has at most {most} (head_bytes_max)"))
    };
    let mut request = httparse::Request::new(&mut []);
    let consumed = match request.parse_with_uninit_headers(bytes, &mut fields.0) {
        Ok(Status::Complete(consumed)) if consumed > bytes_max => return Err(too_large()),
        Ok(Status::Complete(consumed)) => consumed,
        Ok(Status::Partial) if is_too_large => return Err(too_large()),
        Ok(Status::Partial) => return Ok(None),
        Err(error) => return Err(malformed(bytes, error)),
    };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(Refusal::new(400, "the request line is not complete"));
    };
    let (absolute, target) = split_target(target);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    // A fragment is not sent by a client that knows the rules; it names nothing here.
    let query = query.split('#').next().unwrap_or_default();
    let scheme = absolute.map(|(scheme, _)| scheme);
    let mut head = Head { method, scheme, host: None, path, query, minor, fields: request.headers, consumed };
    let authority = absolute.map(|(_, authority)| authority);
    head.host = head.find_host(authority).map_err(|refusal| refusal.in_answer_to(method))?;
    Ok(Some(head))
}

impl<'a> Head<'a> {
    /// The host that the request is for, by its target's authority and its Host header.
    fn find_host(&self, authority: Option<&'a str>) -> Result<Option<&'a str>, Refusal> {
        let host = self.single("Host")?;
        if self.minor > 0 && host.is_none() {
            return Err(Refusal::new(400, "an HTTP/1.1 request needs a Host header"));
        }
        // A Host header may be empty: then the client does not know the name (RFC 9112, section 3.2).
        if host.is_some_and(|host| !host.is_empty() && !is_authority(host)) {
            return Err(Refusal::new(400, "the Host header is not a name or an address, with or without a port"));
        }
        // A target in absolute form repeats the host (RFC 9112, section 3.2.2). One that names another is a trick.
        if let (Some(scheme), Some(authority), Some(host)) = (self.scheme, authority, host)
            && !is_same_authority(authority, host, scheme)
        {
            return Err(Refusal::new(400, "the request's target and its Host header name different hosts"));
        }
        Ok(authority.or(host))
    }

    /// The header fields, in their order.
    pub(crate) fn fields(&self) -> &'a [Header<'a>] {
        self.fields
    }

    /// Whether the answer's body is left out (RFC 9110, section 9.3.2).
    pub(crate) fn is_bodiless(&self) -> bool {
        self.method == "HEAD"
    }

    /// Refuses a request with a body: what came of it would be taken for what follows the head.
    pub(crate) fn check_body(&self) -> Result<(), Refusal> {
        let length = self.single("Content-Length")?.unwrap_or("0");
        if length != "0" || self.single("Transfer-Encoding")?.is_some() {
            return Err(Refusal::new(413, "a request with a body is not understood here"));
        }
        Ok(())
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Whether an empty line ends a head behind the first `scanned` bytes, or the three before them. Lines may end with LF
/// alone (RFC 9112, section 2.2).
fn has_end(bytes: &[u8], scanned: usize) -> bool {
    let from = scanned.saturating_sub(3);
    let rest = bytes.get(from..).unwrap_or_default();
    memchr::memchr_iter(b'\n', rest).any(|at| {
        let line = &rest[at + 1..];
        line.starts_with(b"\n") || line.starts_with(b"\r\n")
    })
}

fn malformed(bytes: &[u8], error: httparse::Error) -> Refusal {
    // The version is what a request for a later HTTP fails at first, and the least that a reader must be told.
    match error {
        httparse::Error::Version => Refusal::new(505, "this server speaks HTTP/1.1; so must the proxy before it"),
        httparse::Error::TooManyHeaders => {
            Refusal::new(431, format!("a request has at most {HEAD_FIELDS_MAX} header fields"))
        }
        // A TLS record of the handshake type.
        _ if bytes.starts_with(&[0x16, 0x03]) => Refusal::new(400, "this port speaks plain HTTP, without TLS"),
        error => {
            let text = "this port speaks HTTP; clients of the framings line and length have ports of their own";
            Refusal::new(400, format!("this is not an HTTP request: {error}; {text}"))
        }
    }
}

/// The scheme and the authority of a target in absolute form (RFC 9112, section 3.2.2), which others don't have, and the
/// rest. A WebSocket's scheme is that of the web it belongs to.
fn split_target(target: &str) -> (Option<(&'static str, &str)>, &str) {
    const SCHEMES: [(&str, &str); 4] =
        [("http://", "http"), ("https://", "https"), ("ws://", "http"), ("wss://", "https")];
    let absolute = SCHEMES.into_iter().find_map(|(start, scheme)| {
        let found = target.get(..start.len())?;
        found.eq_ignore_ascii_case(start).then(|| (scheme, &target[start.len()..]))
    });
    let Some((scheme, rest)) = absolute else { return (None, target) };
    match rest.find(['/', '?']) {
        Some(at) if rest[at..].starts_with('/') => (Some((scheme, &rest[..at])), &rest[at..]),
        Some(at) => (Some((scheme, &rest[..at])), "/"),
        None => (Some((scheme, rest)), "/"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
