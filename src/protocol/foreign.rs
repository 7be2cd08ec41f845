//! Other protocols, told by the first bytes that their clients send.
//!
//! A client that came to the wrong port is told so in words of its own, and nothing of what it sends is carried out. That
//! matters most for browsers: any page can have one send a request whose body is a line of a language that is read line
//! by line. Only the beginning of a connection is looked at. A pattern must be long and distinctive enough that no
//! message of a language begins with it by chance.

use std::ops::RangeInclusive;

use super::answer;
use crate::config::Framing;

/// What the client of a port speaks that is meant for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// A request of HTTP/1, a WebSocket's included.
    Http,
    /// The preface of HTTP/2 without TLS (RFC 9113, section 3.4).
    Http2,
    /// A request of RTSP (RFC 2326).
    Rtsp,
    /// A request of SIP (RFC 3261).
    Sip,
    /// A handshake record of TLS (RFC 8446, section 5.1).
    Tls,
    /// The version line of SSH (RFC 4253, section 4.2).
    Ssh,
    /// The header that a proxy puts before a connection, of either version (haproxy's doc/proxy-protocol.txt).
    Proxy,
    /// CONNECT of MQTT, with the protocol's level (MQTT 5.0, section 3.1).
    Mqtt { level: u8 },
    /// A command of Redis' protocol, RESP.
    Redis,
    /// The first message of SMB over TCP ([MS-SMB2], section 2.1).
    Smb,
    /// The connection request of RDP ([MS-RDPBCGR], section 2.2.1.1).
    Rdp,
    /// The protocol header of AMQP (AMQP 1.0, section 2.2).
    Amqp,
    /// The startup message of PostgreSQL, or its request for TLS.
    Postgres,
    /// A message of STUN, or TURN, over TCP (RFC 8489, section 5).
    Stun,
    /// corecast's own framing `line`, on a port of another one.
    Line,
    /// corecast's own framing `length`, on a port of another one.
    Length,
}

/// Methods of HTTP (those registered with IANA, and those of UPnP and of caches), RTSP and SIP.
const METHODS: &str = "GET POST HEAD PUT OPTIONS DELETE PATCH CONNECT TRACE PRI ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT \
    COPY LABEL LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE ORDERPATCH PROPFIND PROPPATCH \
    PURGE QUERY REBIND REPORT SEARCH M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE \
    UPDATEREDIRECTREF VERSION-CONTROL DESCRIBE ANNOUNCE SETUP PLAY RECORD INVITE REGISTER PUBLISH MESSAGE";

const PRINTABLE: RangeInclusive<u8> = b' '..=b'~';

/// Bytes of a `length` frame's length.
const LENGTH_BYTES: usize = 4;

/// What the first bytes of a connection to a port of this framing are, if they are none of its own; `None` also while
/// too few have come in to tell. A request line is told where it is whole: on a line port by [`first_message`].
pub(crate) fn greeting(framing: Framing, bytes: &[u8]) -> Option<Foreign> {
    binary(bytes).or_else(|| match framing {
        // The bytes of a text are a length far beyond any message.
        Framing::Length => text_as_length(bytes),
        _ => is_length_frame(bytes).then_some(Foreign::Length),
    })
}

/// What the first message of a connection to a port of this framing is, if it is none of its own.
pub(crate) fn first_message(framing: Framing, message: &[u8]) -> Option<Foreign> {
    if framing == Framing::Line { first_line(message) } else { None }
}

/// What the first line of a connection is, without its end, if it is not of corecast's `line` framing.
pub(crate) fn first_line(line: &[u8]) -> Option<Foreign> {
    // Each further part of a command comes as lines of its own, which would be read as commands here.
    let is_array = matches!(line.split_first(), Some((b'*', count)) if is_number(count));
    if is_array {
        return Some(Foreign::Redis);
    }
    request_line(line)
}

/// Protocols whose first bytes are telling in themselves.
fn binary(bytes: &[u8]) -> Option<Foreign> {
    Some(match bytes {
        [0x16, 0x03, 0..=4, ..] => Foreign::Tls,
        [b'S', b'S', b'H', b'-', b'1' | b'2', b'.', ..] => Foreign::Ssh,
        [b'\r', b'\n', b'\r', b'\n', 0, b'\r', b'\n', b'Q', b'U', b'I', b'T', b'\n', ..] => Foreign::Proxy,
        [b'A', b'M', b'Q', b'P', 0..=3, ..] => Foreign::Amqp,
        [0, _, _, _, 0xfe | 0xff, b'S', b'M', b'B', ..] => Foreign::Smb,
        [3, 0, _, _, _, 0xe0, ..] => Foreign::Rdp,
        [0, 0, _, _, 0x04, 0xd2, 0x16, 0x2e..=0x30, ..] => Foreign::Postgres,
        [0, 0, _, _, 0, 3, 0, 0..=2, b'u', b's', b'e', b'r', 0, ..] => Foreign::Postgres,
        [0..=3, _, _, _, 0x21, 0x12, 0xa4, 0x42, ..] => Foreign::Stun,
        [0x10, rest @ ..] => return mqtt(rest),
        [b'*', rest @ ..] => return redis(rest),
        [b'P', b'R', b'O', b'X', b'Y', b' ', rest @ ..]
            if [&b"TCP4 "[..], b"TCP6 ", b"UNKNOWN"].iter().any(|family| rest.starts_with(family)) =>
        {
            Foreign::Proxy
        }
        _ => return None,
    })
}

/// What follows the first byte of CONNECT: the remaining length in one to four bytes, the protocol's name, its level.
fn mqtt(rest: &[u8]) -> Option<Foreign> {
    let length_bytes = rest.iter().take(4).position(|byte| byte & 0x80 == 0)? + 1;
    let named = &rest[length_bytes..];
    let after = named.strip_prefix(b"\0\x04MQTT").or_else(|| named.strip_prefix(b"\0\x06MQIsdp"))?;
    after.first().map(|level| Foreign::Mqtt { level: *level })
}

/// What follows the asterisk of an array: a number of parts, and the first part.
fn redis(rest: &[u8]) -> Option<Foreign> {
    let end = rest.iter().take(8).position(|byte| *byte == b'\r')?;
    (is_number(&rest[..end]) && rest[end..].starts_with(b"\r\n$")).then_some(Foreign::Redis)
}

fn is_number(digits: &[u8]) -> bool {
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// A request line: a method, a target, and a version (RFC 9112, section 3). Each of the three must be right: a first
/// line like `PUB log GET / HTTP/1.1` is none.
fn request_line(line: &[u8]) -> Option<Foreign> {
    let line = line.trim_ascii_end();
    let method = line.split(|byte| *byte == b' ').next()?;
    let version = line.rsplit(|byte| *byte == b' ').next()?;
    // What lies between them is a target, of which there are many forms.
    if method.len() + version.len() + 2 > line.len() || !METHODS.split(' ').any(|known| known.as_bytes() == method) {
        return None;
    }
    let is_version = |name: &str| {
        let digits = version.strip_prefix(name.as_bytes());
        digits.is_some_and(|digits| matches!(digits, [b'0'..=b'9', b'.', b'0'..=b'9'] | [b'0'..=b'9']))
    };
    if method == b"PRI" && is_version("HTTP/") {
        return Some(Foreign::Http2);
    }
    let protocols = [("HTTP/", Foreign::Http), ("RTSP/", Foreign::Rtsp), ("SIP/", Foreign::Sip)];
    protocols.into_iter().find(|(name, _)| is_version(name)).map(|(_, protocol)| protocol)
}

/// A text where a length is expected: a request by its method, else lines.
fn text_as_length(bytes: &[u8]) -> Option<Foreign> {
    let is_text = |byte: &u8| PRINTABLE.contains(byte) || matches!(byte, b'\r' | b'\n' | b'\t');
    if bytes.len() < LENGTH_BYTES || !bytes[..LENGTH_BYTES].iter().all(is_text) {
        return None;
    }
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or(bytes);
    let is_request = METHODS.split(' ').any(|method| {
        let begins_with = |method: &[u8]| line.get(..method.len()) == Some(method);
        begins_with(method.as_bytes()) && line.get(method.len()).is_none_or(|byte| *byte == b' ')
            || line.len() < method.len() && method.as_bytes().starts_with(line)
    });
    Some(first_line(line).unwrap_or(if is_request { Foreign::Http } else { Foreign::Line }))
}

/// Whether the bytes begin with a length that a frame may have, and no text does.
fn is_length_frame(bytes: &[u8]) -> bool {
    // The second zero leaves out what begins with one by chance, and with it messages of 64 KiB and more.
    matches!(bytes, [0, 0, high, low, _, ..] if [*high, *low] != [0, 0])
}

impl Foreign {
    /// What people call it.
    fn name(self) -> &'static str {
        match self {
            Foreign::Http => "HTTP",
            Foreign::Http2 => "HTTP/2",
            Foreign::Rtsp => "RTSP",
            Foreign::Sip => "SIP",
            Foreign::Tls => "TLS",
            Foreign::Ssh => "SSH",
            Foreign::Proxy => "the PROXY protocol",
            Foreign::Mqtt { .. } => "MQTT",
            Foreign::Redis => "the protocol of Redis",
            Foreign::Smb => "SMB",
            Foreign::Rdp => "RDP",
            Foreign::Amqp => "AMQP",
            Foreign::Postgres => "the protocol of PostgreSQL",
            Foreign::Stun => "STUN",
            Foreign::Line => "corecast's line framing",
            Foreign::Length => "corecast's length framing",
        }
    }

    /// What is wrong, for the one who came to a port of this framing, and what would be right.
    pub(crate) fn explain(self, framing: Framing) -> String {
        let spoken = match framing {
            Framing::Http => "HTTP".to_owned(),
            own => format!("corecast's {own} framing"),
        };
        let remedy = match self {
            Foreign::Http | Foreign::Http2 => "; WebSockets and event streams open on a port of the framing http",
            Foreign::Tls => "; TLS ends at a proxy in front of it",
            Foreign::Proxy => "; switch it off where the proxy sends it",
            Foreign::Line | Foreign::Length => "; each framing has a port of its own",
            _ => "",
        };
        format!("this port speaks {spoken}, not {}{remedy}", self.name())
    }

    /// The framing in which this client reads what a handler has to say, if it reads one; `own`: the port's.
    pub(crate) fn reads(self, own: Framing) -> Framing {
        match self {
            Foreign::Line => Framing::Line,
            Foreign::Length => Framing::Length,
            _ => own,
        }
    }

    /// An answer that this protocol's clients can show, where it has one. `None`: the port's own words must do.
    pub(crate) fn answer(self, text: &str) -> Option<Vec<u8>> {
        Some(match self {
            Foreign::Http => answer::bad_request(text),
            Foreign::Http2 => http2_goaway(text),
            Foreign::Rtsp => format!("RTSP/1.0 400 Bad Request\r\nCSeq: 0\r\nReason: {text}\r\n\r\n").into_bytes(),
            Foreign::Sip => {
                format!("SIP/2.0 400 Bad Request\r\nReason-Phrase: {text}\r\nContent-Length: 0\r\n\r\n").into_bytes()
            }
            // A fatal alert, unexpected_message (RFC 8446, section 6.2).
            Foreign::Tls => vec![0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x0a],
            // Lines before the version are shown by a client that is asked to be verbose.
            Foreign::Ssh => format!("{text}\r\n").into_bytes(),
            // CONNACK: unsupported protocol version.
            Foreign::Mqtt { level: 5.. } => vec![0x20, 0x03, 0x00, 0x84, 0x00],
            Foreign::Mqtt { .. } => vec![0x20, 0x02, 0x00, 0x01],
            Foreign::Redis => format!("-ERR {text}\r\n").into_bytes(),
            Foreign::Postgres => postgres_error(text),
            Foreign::Proxy
            | Foreign::Smb
            | Foreign::Rdp
            | Foreign::Amqp
            | Foreign::Stun
            | Foreign::Line
            | Foreign::Length => return None,
        })
    }
}

/// The settings that a server of HTTP/2 begins with, none of them set, and GOAWAY with HTTP_1_1_REQUIRED and a text (RFC
/// 9113, sections 6.5, 6.8 and 7).
fn http2_goaway(text: &str) -> Vec<u8> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const LAST_STREAM_AND_ERROR: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 0x0d];
    let length = ((LAST_STREAM_AND_ERROR.len() + text.len()) as u32).to_be_bytes();
    let goaway = [&length[1..], &[7, 0, 0, 0, 0, 0][..], &LAST_STREAM_AND_ERROR[..], text.as_bytes()].concat();
    [&SETTINGS[..], &goaway].concat()
}

/// An ErrorResponse (PostgreSQL's manual, "Message Formats"): severity, SQLSTATE 08P01 (protocol violation), message.
fn postgres_error(text: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0C08P01\0M{text}\0\0");
    let length = (LENGTH_BYTES + fields.len()) as u32;
    [b"E", &length.to_be_bytes()[..], fields.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Encoding, Label, encode};
    use proptest::prelude::*;

    const TLS_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    const PROXY_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";

    /// What the first messages of clients are, as they are sent on the wire.
    const GREETINGS: [(&[u8], Foreign); 22] = [
        (TLS_HELLO, Foreign::Tls),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", Foreign::Ssh),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 8888\r\n", Foreign::Proxy),
        (b"PROXY TCP6 ::1 ::1 5000 8888\r\n", Foreign::Proxy),
        (b"PROXY UNKNOWN\r\n", Foreign::Proxy),
        (PROXY_2, Foreign::Proxy),
        (b"\x10\x10\0\x04MQTT\x04\x02\0\x3c\0\x04abcd", Foreign::Mqtt { level: 4 }),
        (b"\x10\x80\x01\0\x04MQTT\x05\x02\0\x3c", Foreign::Mqtt { level: 5 }),
        (b"\x10\x10\0\x06MQIsdp\x03\x02\0\x3c", Foreign::Mqtt { level: 3 }),
        (b"*1\r\n$4\r\nPING\r\n", Foreign::Redis),
        (b"*12\r\n$3\r\nDEL\r\n", Foreign::Redis),
        (b"\0\0\0\x85\xffSMBr\0\0", Foreign::Smb),
        (b"\0\0\0\xe0\xfeSMB@\0", Foreign::Smb),
        (b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x03\0\0\0", Foreign::Rdp),
        (b"AMQP\0\0\x09\x01", Foreign::Amqp),
        (b"AMQP\x03\x01\0\0", Foreign::Amqp),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", Foreign::Postgres),
        (b"\0\0\0\x08\x04\xd2\x16\x30", Foreign::Postgres),
        (b"\0\0\0\x29\0\x03\0\0user\0postgres\0", Foreign::Postgres),
        (b"\0\x01\0\x08\x21\x12\xa4\x42abcdefghijkl", Foreign::Stun),
        (b"\0\x03\0\x08\x21\x12\xa4\x42abcdefghijkl", Foreign::Stun),
        (b"\x16\x03\x03\x00\x9b\x01", Foreign::Tls),
    ];

    const REQUESTS: [(&str, Foreign); 12] = [
        ("GET / HTTP/1.1", Foreign::Http),
        ("GET /a?b=c HTTP/1.0", Foreign::Http),
        ("POST /a%20b HTTP/1.1", Foreign::Http),
        ("OPTIONS * HTTP/1.1", Foreign::Http),
        ("CONNECT example.com:443 HTTP/1.1", Foreign::Http),
        ("GET http://example.com/ HTTP/1.1", Foreign::Http),
        ("PROPFIND /dav HTTP/1.1", Foreign::Http),
        ("PRI * HTTP/2.0", Foreign::Http2),
        ("GET  / with spaces HTTP/1.1 ", Foreign::Http),
        ("OPTIONS / RTSP/1.0", Foreign::Rtsp),
        ("DESCRIBE rtsp://x/y RTSP/1.0", Foreign::Rtsp),
        ("OPTIONS sip:nm SIP/2.0", Foreign::Sip),
    ];

    #[test]
    fn the_greetings_of_other_protocols_are_told_on_every_port() {
        for framing in Framing::ALL {
            for (bytes, foreign) in GREETINGS {
                assert_eq!(greeting(framing, bytes), Some(foreign), "{framing}: {}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn requests_are_told_by_their_first_line() {
        for (line, foreign) in REQUESTS {
            assert_eq!(first_line(line.as_bytes()), Some(foreign), "{line}");
            let stream = format!("{line}\r\nHost: x\r\n");
            assert_eq!(greeting(Framing::Length, stream.as_bytes()), Some(foreign), "{line}");
        }
        assert_eq!(first_line(b"*1"), Some(Foreign::Redis));
    }

    #[test]
    fn a_text_on_a_length_port_is_told_by_its_first_four_bytes() {
        for (bytes, foreign) in [
            ("GET ", Foreign::Http),
            ("POST", Foreign::Http),
            ("OPTI", Foreign::Http),
            ("PUT /", Foreign::Http),
            ("SUB ", Foreign::Line),
            ("SUB news\n", Foreign::Line),
            ("GETS x\n", Foreign::Line),
            ("ID\r\n", Foreign::Line),
            (r#"{"type":"sub"}"#, Foreign::Line),
        ] {
            assert_eq!(greeting(Framing::Length, bytes.as_bytes()), Some(foreign), "{bytes}");
        }
        assert_eq!(greeting(Framing::Length, b"SUB"), None, "too few to tell");
        assert_eq!(greeting(Framing::Length, b"\xff\xff\xff\xff"), None, "a length, if a bad one");
    }

    #[test]
    fn a_length_frame_is_told_on_the_other_ports() {
        for framing in [Framing::Line, Framing::Http] {
            assert_eq!(greeting(framing, b"\0\0\0\x04PING"), Some(Foreign::Length));
            assert_eq!(greeting(framing, b"\0\0\x01\0S"), Some(Foreign::Length));
            assert_eq!(greeting(framing, b"\0\0\0\x04"), None, "too few to tell");
            assert_eq!(greeting(framing, b"\0\0\0\0\0"), None, "an empty frame says nothing");
        }
    }

    #[test]
    fn what_a_client_may_say_first_is_its_own() {
        for line in [
            "",
            "SUB news",
            "sub news",
            "PING",
            "ID",
            "CAST hello",
            "PUB log GET / HTTP/1.1",
            "PUB news HTTP/1.1",
            "GET",
            "GET /",
            "GET HTTP/1.1",
            "get / HTTP/1.1",
            "GET / HTTP/1.1 x",
            "GET / HTTPS/1.1",
            "*",
            "*a",
            "* 1",
            "PING \x16\x03\x01",
            r#"{"type":"sub","topics":["a"]}"#,
            "PROXY",
            "PROXY TCP",
        ] {
            assert_eq!(first_line(line.as_bytes()), None, "{line}");
            let stream = format!("{line}\n");
            assert_eq!(greeting(Framing::Line, stream.as_bytes()), None, "{line}");
            let mut frame = Vec::new();
            encode(Encoding::Length, Label::default(), line.as_bytes(), &mut frame).unwrap();
            assert_eq!(greeting(Framing::Length, &frame), None, "{line}");
        }
    }

    #[test]
    fn each_answer_is_in_the_form_of_its_protocol_and_names_it() {
        let answer = |foreign: Foreign| {
            let text = foreign.explain(Framing::Line);
            assert!(text.contains("corecast's line framing, not ") && text.contains(foreign.name()), "{text}");
            foreign.answer(&text).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        let http = answer(Foreign::Http).unwrap();
        assert!(
            http.starts_with("HTTP/1.1 400 Bad Request\r\n") && http.contains("\r\nConnection: close\r\n"),
            "{http}"
        );
        assert!(http.ends_with("http\n") && !http.contains("Access-Control"), "{http}");
        let http2 = answer(Foreign::Http2).unwrap();
        assert!(http2.contains("this port speaks corecast's line framing, not HTTP/2"), "{http2}");
        assert!(answer(Foreign::Rtsp).unwrap().starts_with("RTSP/1.0 400 "));
        assert!(answer(Foreign::Sip).unwrap().starts_with("SIP/2.0 400 "));
        assert!(answer(Foreign::Ssh).unwrap().starts_with("this port speaks corecast's line framing, not SSH"));
        assert!(answer(Foreign::Redis).unwrap().starts_with("-ERR this port"));
        assert_eq!(Foreign::Tls.answer("").unwrap(), [0x15, 3, 1, 0, 2, 2, 10]);
        assert_eq!(Foreign::Mqtt { level: 4 }.answer("").unwrap(), [0x20, 2, 0, 1]);
        assert_eq!(Foreign::Mqtt { level: 5 }.answer("").unwrap(), [0x20, 3, 0, 0x84, 0]);
        let error = Foreign::Postgres.answer("x").unwrap();
        assert_eq!(error, b"E\0\0\0\x16SFATAL\0C08P01\0Mx\0\0");
        assert_eq!(answer(Foreign::Proxy), None);
    }

    proptest! {
        #[test]
        fn more_bytes_never_take_a_verdict_back(
            framing in prop::sample::select(Framing::ALL.to_vec()),
            index in 0..GREETINGS.len(),
            more in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let (bytes, foreign) = GREETINGS[index];
            prop_assert_eq!(greeting(framing, &[bytes, &more].concat()), Some(foreign));
            // Before its end there is none, or the same, or the length that it might have been.
            for end in 0..bytes.len() {
                let early = greeting(framing, &bytes[..end]);
                prop_assert!([None, Some(foreign), Some(Foreign::Length), Some(Foreign::Line)].contains(&early), "{:?}", early);
            }
        }

        #[test]
        fn noise_never_panics_and_words_are_never_foreign(
            noise in prop::collection::vec(any::<u8>(), 0..80),
            word in "(SUB|UNSUB|PUB|CAST|PING|ID)( [!-~]{0,20}){0,4}",
        ) {
            for framing in Framing::ALL {
                let _ = greeting(framing, &noise);
            }
            let _ = first_line(&noise);
            prop_assert_eq!(first_line(word.as_bytes()), None);
            prop_assert_eq!(greeting(Framing::Line, format!("{word}\n").as_bytes()), None);
        }
    }
}
