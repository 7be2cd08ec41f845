//! What is said where a path leads nowhere: what was probably meant.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::control::problem::{Problem, ProblemCode};

/// Where the calls for a topic by its path begin.
const TOPICS: &str = "/v1/topics/";

/// What a path's segment may hold as it is (RFC 3986, section 3.3), apart from what may mean something else somewhere.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What stays readable in a query's value.
const VALUE: &AsciiSet = &SEGMENT.remove(b'/');

/// Characters of a path that is repeated to whoever asked for it.
const SHOWN_MAX: usize = 100;

/// Other servers' names for what is here.
const ALIASES: [(&str, &str); 16] = [
    ("/health", "/healthz"),
    ("/livez", "/healthz"),
    ("/live", "/healthz"),
    ("/ping", "/healthz"),
    ("/status", "/readyz"),
    ("/ready", "/readyz"),
    ("/v1/healthz", "/healthz"),
    ("/v1/readyz", "/readyz"),
    ("/v1/metrics", "/metrics"),
    ("/stats", "/v1/stats"),
    ("/v1/publish", "/v1/topic/messages?name=TOPIC"),
    ("/publish", "/v1/topic/messages?name=TOPIC"),
    ("/v1/messages", "/v1/topic/messages?name=TOPIC"),
    ("/v1/openapi.json", "/openapi.json"),
    ("/swagger.json", "/openapi.json"),
    ("/dashboard", "/"),
];

/// The problem with a path that is not one of `routes`, which are templates as in `/v1/topics/{topic}`.
pub(super) fn not_found(routes: &[String], path: &str) -> Problem {
    let detail = meant(routes, path).unwrap_or_else(|| "there is nothing here".to_owned());
    Problem::new(ProblemCode::NotFound, format!("{detail}; /openapi.json lists what there is"))
}

fn meant(routes: &[String], path: &str) -> Option<String> {
    if path.len() <= SHOWN_MAX && matches!(path.trim_end_matches('/'), "/ws" | "/sse" | "/demo") {
        return Some(format!("this is the control address; {path} is served where `--listen http=…` says"));
    }
    let plain = tidy(path);
    if let Some((_, real)) = ALIASES.iter().find(|(alias, _)| *alias == plain) {
        return Some(format!("did you mean {real}?"));
    }
    // A topic's name may have been meant to hold each of the slashes.
    if let Some(rest) = path.strip_prefix(TOPICS).filter(|_| path.len() <= SHOWN_MAX) {
        return Some(topic_meant(rest));
    }
    if plain.starts_with("/v1/topic/") {
        return Some("a topic in the singular is named in the query, as in /v1/topic/messages?name=a/b".to_owned());
    }
    let is_route = routes.iter().any(|route| fits(route, &plain));
    (is_route && plain != path && path.len() <= SHOWN_MAX).then(|| format!("did you mean {plain}?"))
}

/// What a path below `/v1/topics/` was meant to be.
fn topic_meant(rest: &str) -> String {
    let whole = rest.trim_end_matches('/');
    let (name, call) = match whole.strip_suffix("/messages") {
        Some(name) => (name, "/messages"),
        None => (whole, ""),
    };
    let name = percent_decode_str(name).decode_utf8_lossy();
    if name.is_empty() {
        return format!("the topic's name is missing: write {TOPICS}TOPIC{call}; /v1/topics lists topics");
    }
    if !name.contains('/') {
        let name = utf8_percent_encode(&name, SEGMENT);
        return format!("did you mean {TOPICS}{name}{call}?");
    }
    let (segment, value) = (utf8_percent_encode(&name, SEGMENT), utf8_percent_encode(&name, VALUE));
    format!(
        "in a path a topic is one segment, its slashes written %2F: {TOPICS}{segment}{call}; or name it in the query, \
         which no proxy changes: /v1/topic{call}?name={value}"
    )
}

/// A path without repeated slashes, and without one at its end.
fn tidy(path: &str) -> String {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.fold(String::new(), |path, part| path + "/" + part)
}

/// Whether a path is one of a template's.
fn fits(template: &str, path: &str) -> bool {
    let (mut parts, mut wanted) = (path.split('/'), template.split('/'));
    loop {
        match (parts.next(), wanted.next()) {
            (None, None) => return true,
            (Some(part), Some(wanted)) if part == wanted || wanted.starts_with('{') => {}
            _ => return false,
        }
    }
}
