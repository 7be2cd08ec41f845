//! What a handler serves over HTTP: the paths of its WebSockets, event streams and pages.
//!
//! A handler declares them in [`Handler::routes`](crate::Handler::routes). The server adds `/healthz` and `/readyz`, answers
//! OPTIONS, and looks at the origins of pages, whatever is declared.
//!
//! ```
//! use corecast::Dialect;
//! use corecast::routes::{Events, Page, Routes, WebSocket};
//!
//! let chat = WebSocket::new().subprotocol("chat.v1", Dialect::Text).subprotocol("chat.v1.json", Dialect::Json);
//! let routes = Routes::new()
//!     .websocket("/rooms/*", chat)
//!     .events("/feed", Events::new())
//!     .page("/", Page::html("<!doctype html><title>Chat</title>"));
//! ```

use std::fmt::Write as _;

use bytes::Bytes;

use crate::config::{PAGE_BYTES_MAX, bytes_to_text};
use crate::message::Dialect;

/// Paths that the server answers itself.
const OWN_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// Header fields of a page that the server writes itself.
const OWN_FIELDS: [&str; 7] = [
    "Cache-Control",
    "Connection",
    "Content-Length",
    "Content-Type",
    "Transfer-Encoding",
    "Vary",
    "X-Content-Type-Options",
];

/// The routes of a handler, each with its path.
///
/// A path begins with a slash and is compared byte by byte with what clients send. One that ends in `/*` stands for all
/// paths that go on there: `/rooms/*` for `/rooms/42`, but not for `/rooms/`. Of several that fit, the longest counts.
///
/// Where nothing is declared for `/`, it answers a page that lists what there is.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    routes: Vec<Route>,
    /// Whether `/` is declared, and lists what there is.
    has_help: bool,
}

#[derive(Clone, Debug)]
struct Route {
    path: String,
    target: Target,
}

/// What there is at a path.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    WebSocket(WebSocket),
    Events(Events),
    Page(Page),
    /// Nothing, and why.
    Missing(String),
}

impl Routes {
    /// No routes.
    pub fn new() -> Self {
        Routes::default()
    }

    /// Opens WebSockets at a path.
    ///
    /// # Panics
    /// The path can't be declared (it has no slash at its beginning, or characters that paths don't have, it is there
    /// already, or it is the server's own), or a subprotocol is required and none is declared.
    #[must_use]
    #[track_caller]
    pub fn websocket(self, path: &str, websocket: WebSocket) -> Self {
        assert!(
            !websocket.required || !websocket.subprotocols.is_empty(),
            "the WebSocket at `{path}` requires a subprotocol and declares none; add one by WebSocket::subprotocol"
        );
        self.with(path, Target::WebSocket(websocket))
    }

    /// Opens streams of server-sent events at a path.
    ///
    /// # Panics
    /// The path can't be declared.
    #[must_use]
    #[track_caller]
    pub fn events(self, path: &str, events: Events) -> Self {
        self.with(path, Target::Events(events))
    }

    /// Serves a page, or a file, at a path.
    ///
    /// # Panics
    /// The path can't be declared.
    #[must_use]
    #[track_caller]
    pub fn page(self, path: &str, page: Page) -> Self {
        self.with(path, Target::Page(page))
    }

    /// Serves a text of one's own at `/` that lists what there is. Clients that ask for what is not there are sent to it.
    ///
    /// # Panics
    /// `/` is declared already.
    #[must_use]
    #[track_caller]
    pub fn help(self, text: impl Into<String>) -> Self {
        let declared = self.with("/", Target::Page(Page::text(text.into())));
        Routes { has_help: true, ..declared }
    }

    /// Answers 404 at a path, and says why there is nothing.
    ///
    /// # Panics
    /// The path can't be declared.
    #[must_use]
    #[track_caller]
    pub fn missing(self, path: &str, why: impl Into<String>) -> Self {
        self.with(path, Target::Missing(why.into()))
    }

    #[track_caller]
    fn with(mut self, path: &str, target: Target) -> Self {
        if let Err(why) = self.check(path) {
            panic!("the path `{}` can't be declared: {why}", path.escape_debug());
        }
        self.routes.push(Route { path: path.to_owned(), target });
        self
    }

    /// Why a path can't be declared.
    fn check(&self, path: &str) -> Result<(), &'static str> {
        let exact = path.strip_suffix("/*").unwrap_or(path);
        let is_sound = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
        match () {
            () if !path.starts_with('/') => Err("it does not begin with a slash"),
            () if exact.contains('*') => Err("`*` stands at the end alone, as in /rooms/*"),
            () if !exact.bytes().all(is_sound) => {
                Err("it has characters that no client sends in a path; write them as clients do, as in %20 for a space")
            }
            () if OWN_PATHS.contains(&path) => Err("the server answers it itself"),
            () if self.routes.iter().any(|route| route.path == path) => Err("it is declared already"),
            () => Ok(()),
        }
    }

    /// What there is at a path that a client asks for.
    pub(crate) fn find(&self, path: &str) -> Option<&Target> {
        let fitting = self.routes.iter().filter(|route| route.fits(path));
        // An exact path is longer than a beginning of it.
        fitting.max_by_key(|route| route.path.trim_end_matches('*').len()).map(|route| &route.target)
    }

    /// Whether `/` lists what there is; if nothing is declared for it, it is made to.
    pub(crate) fn settle(mut self) -> (Self, bool) {
        let is_listed = self.has_help || self.find("/").is_none();
        if self.find("/").is_none() {
            let list = Target::Page(Page::text(self.list()));
            self.routes.push(Route { path: "/".into(), target: list });
        }
        (self, is_listed)
    }

    /// The paths under which a client finds something.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        let there = self.routes.iter().filter(|route| !matches!(route.target, Target::Missing(_)));
        there.map(|route| route.path.as_str())
    }

    /// What there is, for people to read.
    fn list(&self) -> String {
        const HEALTH: (&str, &str) = ("/readyz, /healthz", "whether the server takes clients, and whether it is alive");
        let mut lines = Vec::new();
        for Route { path, target } in &self.routes {
            let what = match target {
                Target::WebSocket(websocket) => match &websocket.names()[..] {
                    "" => "a WebSocket".to_owned(),
                    names if websocket.subprotocols.len() == 1 => format!("a WebSocket; subprotocol {names}"),
                    names => format!("a WebSocket; subprotocols {names}"),
                },
                Target::Events(_) => "server-sent events, as for EventSource".to_owned(),
                Target::Page(page) => page.content_type.clone(),
                Target::Missing(_) => continue,
            };
            lines.push((path.as_str(), what));
        }
        lines.push((HEALTH.0, HEALTH.1.to_owned()));
        let width = lines.iter().map(|(path, _)| path.len()).max().unwrap_or_default();
        let mut text = String::from("What there is here:\n\n");
        for (path, what) in lines {
            let _ = writeln!(text, "  {path:width$}   {what}");
        }
        text
    }
}

impl Route {
    fn fits(&self, path: &str) -> bool {
        match self.path.strip_suffix('*') {
            Some(start) => path.len() > start.len() && path.starts_with(start),
            None => path == self.path,
        }
    }
}

/// What a route makes of its URL's query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Topics {
    /// Nothing: the query is the handler's own.
    Ignored,
    /// Each `topic`, as in `?topic=news&topic=sport`, goes to [`Handler::on_topics`](crate::Handler::on_topics). The rest is
    /// the handler's own.
    #[default]
    Read,
    /// As [`Read`](Topics::Read), and what was probably meant to be a topic (`?topics=news`, `?channel=news`) is refused with
    /// words that say how it is written.
    Checked,
    /// As [`Checked`](Topics::Checked), and a client that names no topic is refused, unless it asks for `?all`: what is sent
    /// to everyone.
    Required,
}

/// A route that opens WebSockets.
#[derive(Clone, Debug, Default)]
pub struct WebSocket {
    pub(crate) subprotocols: Vec<(String, Dialect)>,
    pub(crate) required: bool,
    pub(crate) topics: Topics,
}

impl WebSocket {
    /// One for clients that offer no subprotocol, in [`Dialect::Text`], with [`Topics::Read`].
    pub fn new() -> Self {
        WebSocket::default()
    }

    /// Adds a subprotocol, and the dialect that is spoken in it. The first that a client offers and that is declared is
    /// agreed upon; a client that offers only others is refused, and told which there are.
    ///
    /// # Panics
    /// The name is not one that goes over the wire (RFC 6455, section 4.1: letters, digits and ``!#$%&'*+-.^_`|~``) or is
    /// there already, or the dialect is that of event streams.
    #[must_use]
    #[track_caller]
    pub fn subprotocol(mut self, name: impl Into<String>, dialect: Dialect) -> Self {
        let name = name.into();
        assert!(is_token(&name), "`{}` is not a name that a subprotocol may have", name.escape_debug());
        let is_new = self.subprotocols.iter().all(|(known, _)| *known != name);
        assert!(is_new, "the subprotocol `{name}` is declared already");
        assert!(dialect != Dialect::Sse, "the subprotocol `{name}` can't be of the dialect of event streams");
        self.subprotocols.push((name, dialect));
        self
    }

    /// Refuses clients that offer no subprotocol.
    #[must_use]
    pub fn subprotocol_required(self) -> Self {
        WebSocket { required: true, ..self }
    }

    /// Says what is made of the URL's query.
    #[must_use]
    pub fn topics(self, topics: Topics) -> Self {
        WebSocket { topics, ..self }
    }

    /// The names of the subprotocols, as a sentence lists them.
    pub(crate) fn names(&self) -> String {
        let names: Vec<&str> = self.subprotocols.iter().map(|(name, _)| name.as_str()).collect();
        match &names[..] {
            [] => String::new(),
            [one] => (*one).to_owned(),
            [first @ .., last] => format!("{} and {last}", first.join(", ")),
        }
    }
}

/// A route that opens streams of server-sent events.
#[derive(Clone, Debug, Default)]
pub struct Events {
    pub(crate) topics: Topics,
}

impl Events {
    /// One with [`Topics::Read`].
    pub fn new() -> Self {
        Events::default()
    }

    /// Says what is made of the URL's query.
    #[must_use]
    pub fn topics(self, topics: Topics) -> Self {
        Events { topics }
    }
}

/// A page, or a file, that is the same for everyone.
#[derive(Clone, Debug)]
pub struct Page {
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
    pub(crate) fields: Vec<(String, String)>,
}

impl Page {
    /// A body of a content type. It is kept in memory, and copied for each client that asks for it.
    ///
    /// # Panics
    /// The content type is not one that a header can hold, or the body has more than 1 MiB.
    #[track_caller]
    pub fn new(content_type: impl Into<String>, body: impl Into<Bytes>) -> Self {
        let (content_type, body) = (content_type.into(), body.into());
        assert!(is_field_value(&content_type), "`{}` is not a content type", content_type.escape_debug());
        assert!(
            body.len() <= PAGE_BYTES_MAX,
            "a page has at most {}, and this one has {} bytes; leave large files to a web server",
            bytes_to_text(PAGE_BYTES_MAX),
            body.len()
        );
        Page { content_type, body, fields: Vec::new() }
    }

    /// A text.
    ///
    /// # Panics
    /// It has more than 1 MiB.
    #[track_caller]
    pub fn text(text: impl Into<Bytes>) -> Self {
        Page::new("text/plain; charset=utf-8", text)
    }

    /// A page of HTML.
    ///
    /// # Panics
    /// It has more than 1 MiB.
    #[track_caller]
    pub fn html(html: impl Into<Bytes>) -> Self {
        Page::new("text/html; charset=utf-8", html)
    }

    /// Adds a header field to its answers.
    ///
    /// # Panics
    /// It is not one that a header can hold, or the server writes it itself (`Content-Length`, `Cache-Control`,
    /// `Access-Control-Allow-Origin` and the like).
    #[must_use]
    #[track_caller]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), value.into());
        assert!(is_token(&name), "`{}` is not the name of a header field", name.escape_debug());
        assert!(is_field_value(&value), "`{}` is not a value of {name}", value.escape_debug());
        let is_own = OWN_FIELDS.iter().any(|own| own.eq_ignore_ascii_case(&name))
            || name.to_ascii_lowercase().starts_with("access-control-");
        assert!(!is_own, "the server writes the header field {name} itself");
        self.fields.push((name, value));
        self
    }
}

/// Whether a text is a token (RFC 9110, section 5.6.2).
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Whether a text can be a field's value as it is (RFC 9110, section 5.5), without what is outside ASCII.
fn is_field_value(text: &str) -> bool {
    text.trim() == text && !text.is_empty() && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(paths: &[&str]) -> Routes {
        paths.iter().fold(Routes::new(), |routes, path| routes.missing(path, *path))
    }

    fn found<'a>(routes: &'a Routes, path: &str) -> &'a str {
        match routes.find(path) {
            Some(Target::Missing(declared)) => declared,
            Some(other) => panic!("{other:?}"),
            None => "",
        }
    }

    #[test]
    fn the_longest_path_that_fits_counts() {
        let routes = routes(&["/rooms/*", "/rooms/42", "/rooms/a/*", "/*", "/a"]);
        for (path, declared) in [
            ("/rooms/42", "/rooms/42"),
            ("/rooms/4", "/rooms/*"),
            ("/rooms/42/", "/rooms/*"),
            ("/rooms/a/b", "/rooms/a/*"),
            ("/rooms/a/", "/rooms/*"),
            ("/rooms/", "/*"),
            ("/rooms", "/*"),
            ("/a", "/a"),
            ("/", ""),
            ("*", ""),
            ("", ""),
        ] {
            assert_eq!(found(&routes, path), declared, "{path}");
        }
    }

    /// The words of the panic that a declaration ends in.
    fn panic_of<T>(declare: impl FnOnce() -> T + std::panic::UnwindSafe) -> String {
        match std::panic::catch_unwind(declare) {
            Ok(_) => "nothing is wrong with it".into(),
            Err(panic) => match panic.downcast::<String>() {
                Ok(text) => *text,
                Err(panic) => panic.downcast::<&str>().map_or_else(|_| String::new(), |text| (*text).to_owned()),
            },
        }
    }

    #[test]
    fn a_path_that_no_client_could_ask_for_is_refused() {
        for (path, why) in [
            ("", "begin with a slash"),
            ("rooms", "begin with a slash"),
            ("*", "begin with a slash"),
            ("/rooms*", "as in /rooms/*"),
            ("/*/rooms", "as in /rooms/*"),
            ("/a b", "%20"),
            ("/a?b", "characters"),
            ("/caf\u{e9}", "characters"),
            ("/healthz", "the server answers it itself"),
            ("/readyz", "the server answers it itself"),
            ("/rooms/*", "declared already"),
        ] {
            let text = panic_of(|| routes(&["/rooms/*"]).page(path, Page::text("")));
            assert!(text.contains(why) && text.contains(&format!("`{path}`")), "{path}: {text}");
        }
        let text = panic_of(|| Routes::new().help("a").page("/", Page::text("b")));
        assert!(text.contains("declared already"), "{text}");
    }

    #[test]
    fn what_could_not_go_over_the_wire_is_refused() {
        let chat = || WebSocket::new().subprotocol("chat.v1", Dialect::Text);
        for (text, why) in [
            (panic_of(|| chat().subprotocol("chat.v1", Dialect::Json)), "`chat.v1` is declared already"),
            (panic_of(|| chat().subprotocol("chat v1", Dialect::Text)), "not a name"),
            (panic_of(|| chat().subprotocol("", Dialect::Text)), "not a name"),
            (panic_of(|| chat().subprotocol("sse", Dialect::Sse)), "event streams"),
            (
                panic_of(|| Routes::new().websocket("/ws", WebSocket::new().subprotocol_required())),
                "`/ws` requires a subprotocol and declares none",
            ),
            (panic_of(|| Page::new("text/plain\r\nA: b", "")), "not a content type"),
            (panic_of(|| Page::text(vec![0; PAGE_BYTES_MAX + 1])), "at most 1MiB"),
            (panic_of(|| Page::text("").header("A b", "c")), "not the name"),
            (panic_of(|| Page::text("").header("A", "b\r\nC: d")), "not a value"),
            (panic_of(|| Page::text("").header("content-length", "1")), "itself"),
            (panic_of(|| Page::text("").header("Access-Control-Allow-Origin", "*")), "itself"),
        ] {
            assert!(text.contains(why), "{why}: {text}");
        }
    }

    #[test]
    fn where_nothing_else_is_declared_the_front_page_lists_what_there_is() {
        let declared = Routes::new()
            .websocket("/rooms/*", WebSocket::new().subprotocol("a", Dialect::Text).subprotocol("b", Dialect::Json))
            .events("/feed", Events::new())
            .missing("/old", "it is gone")
            .page("/app.js", Page::new("text/javascript", "1"));
        let (settled, is_listed) = declared.clone().settle();
        let Some(Target::Page(page)) = settled.find("/") else { panic!() };
        assert_eq!(
            std::str::from_utf8(&page.body).unwrap(),
            "What there is here:\n\n  \
               /rooms/*            a WebSocket; subprotocols a and b\n  \
               /feed               server-sent events, as for EventSource\n  \
               /app.js             text/javascript\n  \
               /readyz, /healthz   whether the server takes clients, and whether it is alive\n"
        );
        assert!(is_listed && declared.clone().help("").settle().1);
        assert!(!declared.page("/", Page::text("")).settle().1);
    }
}
