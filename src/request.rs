//! What a client asks for as it connects, and what a handler refuses it with.

use std::borrow::Cow;
use std::net::{Ipv4Addr, SocketAddr};

use crate::config::Framing;
use crate::message::Dialect;

/// What a client asks for as it connects. Over `line` and `length` it asks for nothing but a connection: then there is no path,
/// and there are no headers.
///
/// For tests of a handler, [`Request::new`] and what follows it make one.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    peer: SocketAddr,
    framing: Framing,
    dialect: Dialect,
    path: Cow<'a, str>,
    query: Cow<'a, str>,
    subprotocol: Option<Cow<'a, str>>,
    topics: Cow<'a, [String]>,
    headers: Headers<'a>,
}

/// The header fields: as they were parsed, or as a test gives them.
#[derive(Clone, Debug)]
enum Headers<'a> {
    #[cfg(feature = "web")]
    Parsed(&'a [httparse::Header<'a>]),
    Own(Vec<(Cow<'a, str>, Cow<'a, str>)>),
}

impl Headers<'_> {
    fn len(&self) -> usize {
        match self {
            #[cfg(feature = "web")]
            Headers::Parsed(fields) => fields.len(),
            Headers::Own(fields) => fields.len(),
        }
    }

    /// One of them, if its value is text.
    fn get(&self, index: usize) -> Option<(&str, &str)> {
        match self {
            #[cfg(feature = "web")]
            Headers::Parsed(fields) => Some((fields[index].name, std::str::from_utf8(fields[index].value).ok()?)),
            Headers::Own(fields) => Some((&fields[index].0, &fields[index].1)),
        }
    }
}

impl<'a> Request<'a> {
    /// A request of a client that connects in a framing.
    pub fn new(framing: Framing) -> Self {
        Request {
            peer: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            framing,
            dialect: Dialect::Text,
            path: Cow::Borrowed(""),
            query: Cow::Borrowed(""),
            subprotocol: None,
            topics: Cow::Borrowed(&[]),
            headers: Headers::Own(Vec::new()),
        }
    }

    /// The same, from this address.
    #[must_use]
    pub fn with_peer(self, peer: SocketAddr) -> Self {
        Request { peer, ..self }
    }

    /// The same, for a path and whatever query it has.
    #[must_use]
    pub fn with_target(self, target: &'a str) -> Self {
        let target = target.split('#').next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Request { path: path.into(), query: query.into(), ..self }
    }

    /// The same, with one more header field.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) -> Self {
        let field = (name.into(), value.into());
        match &mut self.headers {
            Headers::Own(fields) => fields.push(field),
            #[cfg(feature = "web")]
            Headers::Parsed(parsed) => {
                let text = |field: &httparse::Header<'a>| (field.name.into(), String::from_utf8_lossy(field.value));
                self.headers = Headers::Own(parsed.iter().map(text).chain([field]).collect());
            }
        }
        self
    }

    /// The same, of a client that names these topics in its query.
    #[must_use]
    pub fn with_topics(self, topics: impl Into<Cow<'a, [String]>>) -> Self {
        Request { topics: topics.into(), ..self }
    }

    /// The same, of a client that wants messages in this form, by the name of a subprotocol if it is one's.
    #[must_use]
    pub fn with_dialect(self, dialect: Dialect, subprotocol: Option<Cow<'a, str>>) -> Self {
        Request { dialect, subprotocol, ..self }
    }

    /// The same, with what a parsed head has.
    #[cfg(feature = "web")]
    pub(crate) fn with_head(self, path: &'a str, query: &'a str, fields: &'a [httparse::Header<'a>]) -> Self {
        Request { path: path.into(), query: query.into(), headers: Headers::Parsed(fields), ..self }
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The framing of the address that it came to.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// The form in which it wants messages.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The subprotocol that was chosen of those a WebSocket's client offered; `None`: it offered none.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// The path, as it came: escapes in it are not undone. Empty where the framing has none.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query, without its question mark and as it came. Empty if there is none.
    pub fn query(&self) -> &str {
        &self.query
    }

    /// The first parameter of the query that has this name, with its escapes undone.
    #[cfg(feature = "web")]
    pub fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        url::form_urlencoded::parse(self.query().as_bytes()).find(|(own, _)| own == name).map(|(_, value)| value)
    }

    /// The value of the first header field that has this name, in whichever case; `None`: there is none, or its value is
    /// not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The header fields whose values are text, in their order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        (0..self.headers.len()).filter_map(|index| self.headers.get(index))
    }

    /// The token of the field `Authorization: Bearer TOKEN`.
    pub fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("Authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// The topics that it names in its query, which [`Handler::on_topics`](crate::Handler::on_topics) will be called with.
    pub fn topics(&self) -> &[String] {
        &self.topics
    }
}

/// Why a handler refuses a client as it opens. Over HTTP it is the answer's status, its body and its fields; over the other
/// framings the client gets [`Event::Error`](crate::Event::Error) with the code and the text. Either way the connection is
/// closed, as [`CloseReason::Rejected`](crate::CloseReason::Rejected).
///
/// Pages that open a WebSocket can't see a status: to them each refusal looks like a failure to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    status: u16,
    code: &'static str,
    text: String,
    fields: Vec<(&'static str, String)>,
}

impl Reject {
    /// A refusal with an HTTP status between 400 and 599, a code (a stable word in kebab-case, for programs), and a text that
    /// tells people what is wrong and what would be right. Another status counts as 500.
    pub fn new(status: u16, code: &'static str, text: impl Into<String>) -> Self {
        let status = if (400..600).contains(&status) { status } else { 500 };
        Reject { status, code, text: one_line(text.into()), fields: Vec::new() }
    }

    /// Who it is must be shown first, or was not shown rightly: 401, with the scheme `Bearer`.
    pub fn unauthorized(text: impl Into<String>) -> Self {
        Reject::new(401, "unauthorized", text).with_field("WWW-Authenticate", "Bearer")
    }

    /// It may not: 403.
    pub fn forbidden(text: impl Into<String>) -> Self {
        Reject::new(403, "forbidden", text)
    }

    /// There is no such thing: 404.
    pub fn not_found(text: impl Into<String>) -> Self {
        Reject::new(404, "not-found", text)
    }

    /// It has asked for too much, and may come back after so many seconds: 429.
    pub fn too_many(text: impl Into<String>, retry_after_s: u32) -> Self {
        Reject::new(429, "too-many", text).with_field("Retry-After", &retry_after_s.to_string())
    }

    /// Not now: 503. It may come back after so many seconds.
    pub fn unavailable(text: impl Into<String>, retry_after_s: u32) -> Self {
        Reject::new(503, "unavailable", text).with_field("Retry-After", &retry_after_s.to_string())
    }

    /// The same, with one more field in the answer over HTTP. Line ends in it become spaces.
    #[must_use]
    pub fn with_field(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, one_line(value.to_owned())));
        self
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What is wrong, and what would be right.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The fields of the answer over HTTP.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.fields.iter().map(|(name, value)| (*name, &value[..]))
    }
}

/// A text in one line: it goes into a header or a line of text.
fn one_line(text: String) -> String {
    if text.contains(char::is_control) { text.replace(char::is_control, " ") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_taken_apart() {
        let request = |target: &'static str| Request::new(Framing::Line).with_target(target);
        for (target, path, query) in
            [("", "", ""), ("/rooms/4", "/rooms/4", ""), ("/a?b=c?d#e", "/a", "b=c?d"), ("/a#b?c", "/a", "")]
        {
            let request = request(target);
            assert_eq!((request.path(), request.query()), (path, query), "{target}");
        }
    }

    #[cfg(feature = "web")]
    #[test]
    fn parameters_come_with_their_escapes_undone() {
        let request = Request::new(Framing::Http).with_target("/a?x=1&name=J%C3%BCrgen+B&x=2");
        assert_eq!(request.parameter("name").as_deref(), Some("Jürgen B"));
        assert_eq!(request.parameter("x").as_deref(), Some("1"));
        assert_eq!(request.parameter("y"), None);
    }

    #[test]
    fn headers_are_found_in_any_case_and_a_bearer_in_any_scheme_case() {
        let request =
            Request::new(Framing::Line).with_header("X-Own", "1").with_header("authorization", "bearer  abc ");
        assert_eq!((request.header("x-own"), request.header("other")), (Some("1"), None));
        assert_eq!(request.bearer(), Some("abc"));
        assert_eq!(request.headers().count(), 2);
        assert_eq!(request.with_header("Authorization", "Basic x").bearer(), Some("abc"), "the first one counts");
    }

    #[test]
    fn a_refusal_stays_on_one_line_and_has_the_status_of_one() {
        let reject = Reject::new(200, "no", "a\r\nSet-Cookie: b").with_field("X", "y\nz");
        assert_eq!((reject.status(), reject.text()), (500, "a  Set-Cookie: b"));
        assert_eq!(reject.fields().collect::<Vec<_>>(), [("X", "y z")]);
    }
}
