//! What answers at the target of a run that came to nothing: a wrong port or a wrong framing is the usual reason, and
//! what fails then seldom says so.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::dialect::Framing;
use super::{LoadError, link};

/// How long one question may take, the connect included.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of an answer that are looked at.
const ANSWER_BYTES: usize = 4_096;

/// What any HTTP server answers, and most others remark on. A WebSocket is not asked for, so none is opened.
const HTTP: &[u8] = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// A TLS 1.2 hello with two ciphers (RFC 5246 7.4.1.2). Any answer of TLS shows what it is, a refusal too.
const TLS: &[u8] = b"\x16\x03\x01\x00\x31\x01\x00\x00\x2d\x03\x03corecast load asks what this is.\x00\x00\x04\xc0\x2f\xc0\x30\x01\x00\x00\x00";

/// Messages in the framings `length` and `line`.
const LENGTH: &[u8] = b"\x00\x00\x00\x04PING";
const LINE: &[u8] = b"PING\n";

/// A CONNECT of MQTT 3.1.1 with a clean session and no client id (3.1 there).
const MQTT: &[u8] = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00";

/// What answers somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    /// A line port of corecast.
    Line,
    /// A length port of corecast.
    Length,
    /// The port of corecast for browsers.
    Http,
    /// Its control plane.
    Control,
    /// Some other web server.
    Web,
    Tls,
    Nats,
    Redis,
    Mqtt,
    Ssh,
}

impl Met {
    fn words(self) -> &'static str {
        match self {
            Met::Line => "speaks corecast's language in lines",
            Met::Length => "speaks corecast's language in messages preceded by their length",
            Met::Http => "is corecast's port for browsers, WebSocket and server-sent events over HTTP",
            Met::Control => "is corecast's control plane",
            Met::Web => "speaks HTTP, but has nothing at /ws",
            Met::Tls => "speaks TLS",
            Met::Nats => "speaks NATS",
            Met::Redis => "speaks Redis' protocol",
            Met::Mqtt => "speaks MQTT",
            Met::Ssh => "speaks SSH",
        }
    }

    /// Whether a run of this framing was right to come here, whatever else went wrong.
    fn suits(self, framing: Framing) -> bool {
        match framing {
            Framing::Line => self == Met::Line,
            Framing::Length => self == Met::Length,
            Framing::Ws | Framing::WsDeflate | Framing::Sse => self == Met::Http,
            Framing::Nats => self == Met::Nats,
            Framing::Redis => self == Met::Redis,
            Framing::Mqtt => self == Met::Mqtt,
            Framing::Nchan | Framing::NchanPost => self == Met::Web,
        }
    }

    fn remedy(self, framing: Framing) -> String {
        let with = |flags: &str| format!("use --framing {flags}, or give another --target");
        match self {
            Met::Line => with("line"),
            Met::Length => with("length"),
            Met::Http => with("ws or sse"),
            Met::Nats => with("nats"),
            Met::Redis => with("redis"),
            Met::Mqtt => with("mqtt"),
            Met::Web if framing == Framing::Line => {
                "give the address of a line port as --target, 127.0.0.1:8888 by default".into()
            }
            Met::Tls => "corecast load has no TLS; give a --target without it, behind the proxy".into(),
            Met::Control => {
                "clients connect to the addresses of --listen: give as --target 127.0.0.1:8888 with --framing \
                             line, or 127.0.0.1:8080 with --framing ws or sse, by default"
                    .into()
            }
            Met::Web | Met::Ssh => "give the address of a server of this framing as --target".into(),
        }
    }
}

/// The error in better words, if what answers at the target speaks something else than the run.
pub(super) fn explain(error: LoadError, target: SocketAddr, framing: Framing) -> LoadError {
    if !error.may_be_misdirected() {
        return error;
    }
    match identify(target) {
        Some(met) if !met.suits(framing) => {
            LoadError::Misdirected { target, met: met.words(), framing: framing.name(), remedy: met.remedy(framing) }
        }
        _ => error,
    }
}

/// Asks in one protocol after the other, until an answer shows what is spoken.
fn identify(target: SocketAddr) -> Option<Met> {
    [HTTP, LENGTH, LINE, TLS, MQTT]
        .into_iter()
        .find_map(|question| recognize(&ask(target, question).unwrap_or_default()))
}

/// What comes back to a question until the other side closes or is silent.
fn ask(target: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let end = Instant::now() + PATIENCE;
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(question)?;
    let mut answer = Vec::new();
    let mut buffer = [0; ANSWER_BYTES];
    while answer.len() < ANSWER_BYTES && recognize(&answer).is_none_or(|met| met == Met::Web) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        stream.set_read_timeout(Some(left))?;
        match link::read(&mut stream, &mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(answer)
}

/// What says such a thing.
fn recognize(answer: &[u8]) -> Option<Met> {
    let has = |text: &str| memchr::memmem::find(answer, text.as_bytes()).is_some();
    let is_ours = |message: &[u8]| {
        [&b"ERR "[..], b"PONG", b"BYE "].iter().any(|word| message.starts_with(word) && message.len() >= word.len())
    };
    match answer {
        // A line or length port has a word in HTTP for those who come with it.
        _ if answer.starts_with(b"HTTP/") => Some(if has("corecast's line framing") {
            Met::Line
        } else if has("corecast's length framing") {
            Met::Length
        } else if has("HTTPS server") || has("HTTPS port") {
            Met::Tls
        } else if has("application/problem+json") {
            Met::Control
        } else if has("corecast.v1") || has("WebSocket") || has("websocket") {
            Met::Http
        } else {
            Met::Web
        }),
        _ if answer.starts_with(b"INFO {") => Some(Met::Nats),
        _ if answer.starts_with(b"SSH-") => Some(Met::Ssh),
        _ if answer.starts_with(b"-ERR ") || answer.starts_with(b"-DENIED") || answer.starts_with(b"+PONG") => {
            Some(Met::Redis)
        }
        [0x15 | 0x16, 0x03, 0..=4, ..] => Some(Met::Tls),
        [0x20, 0x02, _, _, ..] => Some(Met::Mqtt),
        [0, 0, _, _, message @ ..] if is_ours(message) => Some(Met::Length),
        _ if is_ours(answer) => Some(Met::Line),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spoken_is_told_by_the_first_words() {
        for (answer, met) in [
            (&b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\n\r\n"[..], Some(Met::Http)),
            (b"HTTP/1.1 404 Not Found\r\ncontent-type: application/problem+json\r\n\r\n", Some(Met::Control)),
            (b"HTTP/1.0 404 File not found\r\n\r\n", Some(Met::Web)),
            (b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n", Some(Met::Tls)),
            (
                b"HTTP/1.1 400 Bad Request\r\n\r\nthis port speaks corecast's line framing, not HTTP; WebSockets",
                Some(Met::Line),
            ),
            (b"\x15\x03\x01\x00\x02\x02\x28", Some(Met::Tls)),
            (b"\x16\x03\x03\x00\x7a\x02", Some(Met::Tls)),
            (b"INFO {\"server_id\":1}\r\n", Some(Met::Nats)),
            (b"-ERR unknown command\r\n", Some(Met::Redis)),
            (b"\x20\x02\x00\x00", Some(Met::Mqtt)),
            (b"SSH-2.0-OpenSSH_9\r\n", Some(Met::Ssh)),
            (b"ERR unknown-verb x\n", Some(Met::Line)),
            (b"\0\0\0\x14ERR unknown-verb x", Some(Met::Length)),
            (b"", None),
            (b"220 mail ESMTP\r\n", None),
            (b"\0\0\0", None),
        ] {
            assert_eq!(recognize(answer), met, "{}", answer.escape_ascii());
        }
    }
}
