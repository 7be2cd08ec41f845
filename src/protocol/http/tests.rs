use std::fmt::Write as _;

use super::*;
use crate::protocol::http::Upgrade;
use proptest::prelude::*;

const BYTES_MAX: usize = 32 * 1024;

/// The head of a WebSocket's request, with `changes` for what it says by default; an empty value leaves a field out.
pub(crate) fn upgrade(target: &str, changes: &[(&str, &str)]) -> String {
    let mut fields = vec![
        ("Host", "push.example:8080"),
        ("Upgrade", "websocket"),
        ("Connection", "keep-alive, Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for change in changes {
        match fields.iter_mut().find(|field| field.0 == change.0) {
            Some(field) => field.1 = change.1,
            None => fields.push(*change),
        }
    }
    let mut head = format!("GET {target} HTTP/1.1\r\n");
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head + "\r\n"
}

/// What a head is taken for: a line about it, or the answer to it as text; `None`: there is more to come.
fn look(bytes: &[u8], scanned: usize, bytes_max: usize) -> Option<Result<String, String>> {
    match read(bytes, scanned, bytes_max, &mut Fields::default()) {
        Ok(None) => None,
        Ok(Some(head)) => {
            let Head { method, scheme, host, path, query, minor, consumed, .. } = head;
            Some(Ok(format!("{method} {path} {query} 1.{minor} {scheme:?} {host:?} {consumed}")))
        }
        Err(refusal) => Some(Err(String::from_utf8(refusal.answer("")).unwrap())),
    }
}

/// What a sound head is taken for.
#[track_caller]
fn sound(request: &str) -> String {
    look(request.as_bytes(), 0, BYTES_MAX).expect("it is whole").unwrap()
}

/// The answer to a head that is refused.
#[track_caller]
fn refused(request: impl AsRef<[u8]>) -> String {
    look(request.as_ref(), 0, BYTES_MAX).expect("it needs no more").expect_err("it is refused")
}

/// What opens a WebSocket, with the subprotocols offered, or what is answered instead.
fn opened(request: &str) -> Result<(String, Vec<String>), String> {
    let (text, mut fields) = (|bytes| String::from_utf8(bytes).unwrap(), Fields::default());
    let head = read(request.as_bytes(), 0, BYTES_MAX, &mut fields).unwrap().expect("it is whole");
    let upgrade = Upgrade::read(&head).map_err(|refusal| text(refusal.answer("")))?;
    let offered: Vec<_> = upgrade.offered().map(str::to_owned).collect();
    Ok((text(upgrade.response(offered.first().map(String::as_str), None)), offered))
}

#[test]
fn a_head_is_taken_apart() {
    let head = "PATCH /a/b?c=d&e#f HTTP/1.1\r\nHost: x:80\r\n\r\n";
    assert_eq!(sound(head), format!("PATCH /a/b c=d&e 1.1 None Some(\"x:80\") {}", head.len()));
    assert_eq!(sound("OPTIONS * HTTP/1.0\n\n"), "OPTIONS *  1.0 None None 20");
    assert_eq!(sound("GET http://x?a=/ws HTTP/1.0\r\n\r\n"), "GET /  1.0 Some(\"http\") Some(\"x\") 31");
    assert_eq!(sound("GET WSS://X/ws?a HTTP/1.1\r\nHost: x\r\n\r\n"), "GET /ws a 1.1 Some(\"https\") Some(\"X\") 38");
}

#[test]
fn fields_are_read_in_any_case_and_single_ones_not_twice() {
    let mut fields = Fields::default();
    let request = "GET / HTTP/1.0\r\naccept: a , b\r\nACCEPT:,c\r\nOne: 1 \r\nraw: \u{e9}\r\n\r\n";
    let head = read(request.as_bytes(), 0, BYTES_MAX, &mut fields).unwrap().unwrap();
    assert_eq!(head.tokens("Accept").collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(head.has_token("aCCept", "B") && !head.has_token("Accept", "d"));
    assert_eq!(head.values("accept").count(), 2);
    assert_eq!((head.single("one"), head.single("none")), (Ok(Some("1")), Ok(None)));
    let refused = head.single("Accept").unwrap_err().answer("");
    assert!(String::from_utf8(refused).unwrap().contains("the Accept header appears twice"));
}

#[test]
fn a_host_is_a_name_or_an_address() {
    let of = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for good in ["", "x", "my_host:80", "[::1]:8080", "127.0.0.1", "b\u{fc}cher.example", "x:"] {
        sound(&of(good));
    }
    for bad in ["a b", "a,b", "a/b", "me@a", "a:b", "[::1", "a..b", "a#b", ":80"] {
        assert!(refused(of(bad)).starts_with("HTTP/1.1 400 "), "{bad}");
    }
    assert!(refused("GET / HTTP/1.1\r\n\r\n").contains("needs a Host header"));
    assert!(refused("GET / HTTP/1.1\r\nHost: x\r\nhost: x\r\n\r\n").contains("appears twice"));
}

#[test]
fn a_target_in_absolute_form_names_the_same_host() {
    let of = |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    sound(&of("http://push.example:8080/ws?topic=a", "push.example:8080"));
    sound(&of("http://push.example/", "PUSH.example:80"));
    for (target, host) in [
        ("http://push.example:8080/ws", "proxy"),
        ("http://proxy/ws", "push.example:8080"),
        ("http://push.example/ws", "push.example:8080"),
        ("http://push.example:8080/ws", " "),
    ] {
        let answer = refused(of(target, host));
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("different hosts"), "{target} {host}: {answer}");
    }
}

#[test]
fn what_is_no_http_is_refused_at_the_first_look() {
    assert!(refused(b"\x16\x03\x01\x02\x00\x01\x00").contains("plain HTTP, without TLS"));
    assert!(refused(b"SUB news\n").starts_with("HTTP/1.1 "));
    assert!(refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").starts_with("HTTP/1.1 505 "));
    assert!(refused(b"GET / HTTP/3.7\r\n").starts_with("HTTP/1.1 505 "));
    assert!(refused(b"\0\0\0\x04PING").starts_with("HTTP/1.1 400 "));
    assert!(refused(b"GET / HTTP/1.1\r\nbad header\r\n\r\n").starts_with("HTTP/1.1 400 "));
}

#[test]
fn heads_are_bounded_in_bytes_and_fields() {
    let of = |len: usize| {
        let head = "GET / HTTP/1.1\r\nHost: x\r\nCookie: ";
        format!("{head}{}\r\n\r\n", "x".repeat(len - head.len() - 4))
    };
    for most in [1024, 9_000, BYTES_MAX] {
        assert!(look(of(most).as_bytes(), 0, most).unwrap().is_ok());
        let answer = look(of(most + 1).as_bytes(), 0, most).unwrap().unwrap_err();
        assert!(answer.starts_with("HTTP/1.1 431 ") && answer.contains("(head_bytes_max)"), "{answer}");
        let part = |len: usize, scanned: usize| look(&of(2 * most).as_bytes()[..len], scanned, most);
        assert_eq!((part(most, 0), part(most, most - 1)), (None, None));
        assert!(part(most + 1, most).unwrap().unwrap_err().starts_with("HTTP/1.1 431 "));
    }
    let with_fields = |n: usize| format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(n - 1));
    sound(&with_fields(HEAD_FIELDS_MAX));
    assert!(refused(with_fields(HEAD_FIELDS_MAX + 1)).starts_with("HTTP/1.1 431 "));
    let with_empty = |n: usize| format!("{}GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\n".repeat(n));
    sound(&with_empty(HEAD_EMPTY_BYTES_MAX));
    assert!(refused(with_empty(HEAD_EMPTY_BYTES_MAX + 1)).starts_with("HTTP/1.1 400 "));
}

#[test]
fn what_follows_a_head_is_left() {
    let (request, plain) = (upgrade("/ws", &[]), "GET / HTTP/1.0\r\n\r\n");
    assert!(sound(&format!("{request}\u{81}junk")).ends_with(&format!(" {}", request.len())));
    // Empty lines before a request are passed over (RFC 9112, section 2.2).
    assert!(sound(&format!("\r\n\r\n{plain}{plain}")).ends_with(&format!(" {}", plain.len() + 4)));
}

#[test]
fn a_request_with_a_body_is_told_apart() {
    let check = |field: &str| {
        let request = format!("GET / HTTP/1.0\r\n{field}\r\n\r\n");
        read(request.as_bytes(), 0, BYTES_MAX, &mut Fields::default()).unwrap().unwrap().check_body().is_ok()
    };
    assert!(check("A: b") && check("Content-Length: 0"));
    for body in ["Content-Length: 5", "Transfer-Encoding: chunked", "Content-Length: 0\r\nContent-Length: 0"] {
        assert!(!check(body), "{body}");
    }
}

#[test]
fn a_websocket_opens_with_the_accept_of_the_rfc() {
    assert_eq!(
        opened(&upgrade("/ws", &[])).unwrap().0,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    );
    let (response, offered) = opened(&upgrade("/ws", &[("Sec-WebSocket-Protocol", "b , a")])).unwrap();
    assert_eq!(offered, ["b", "a"]);
    assert!(response.ends_with("\r\nSec-WebSocket-Protocol: b\r\n\r\n"), "{response}");
}

#[test]
fn handshakes_open_as_they_come() {
    for changes in [
        &[("Connection", "Upgrade")][..],
        &[("Connection", "upgrade,keep-alive")],
        &[("Upgrade", "WebSocket")],
        &[("Upgrade", "h2c, websocket")],
        &[("Sec-WebSocket-Version", "13, 8")],
        &[("Sec-WebSocket-Version", " 13 ")],
        &[("Sec-WebSocket-Version", "13\r\nSec-WebSocket-Version: 13")],
        &[("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")],
        &[("Connection", "keep-alive\r\nConnection: Upgrade")],
    ] {
        let (response, _) = opened(&upgrade("/ws", changes)).unwrap();
        assert!(response.starts_with("HTTP/1.1 101 ") && !response.contains("Extensions"), "{changes:?}: {response}");
    }
    opened(&upgrade("/ws", &[]).replace("Sec-WebSocket", "SEC-WEBSOCKET").replace("Host", "hOST")).unwrap();
    let lower = upgrade("/ws", &[])
        .replace("Sec-WebSocket", "sec-websocket")
        .replace("Upgrade: websocket", "upgrade: WebSocket");
    opened(&lower).unwrap();
    let answer = opened(&upgrade("/ws", &[]).replace("HTTP/1.1", "HTTP/1.0")).unwrap_err();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("proxy_http_version 1.1"), "{answer}");
}

#[test]
fn what_is_no_upgrade_is_told_what_would_be() {
    for (changes, status, text) in [
        (&[("Upgrade", "")][..], 426, "\r\nUpgrade: websocket\r\n"),
        (&[("Upgrade", "h2c")], 426, "\r\nUpgrade: websocket\r\n"),
        (&[("Connection", "keep-alive")], 426, "\r\nConnection: close, Upgrade\r\n"),
        (&[("Sec-WebSocket-Version", "8")], 426, "\r\nSec-WebSocket-Version: 13\r\n"),
        (&[("Sec-WebSocket-Version", "")], 426, "\r\nSec-WebSocket-Version: 13\r\n"),
        (&[("Sec-WebSocket-Version", "8, 7")], 426, "\r\nSec-WebSocket-Version: 13\r\n"),
        (&[("Sec-WebSocket-Key", "")], 400, "16 bytes in base64"),
        (&[("Sec-WebSocket-Key", "c2hvcnQ=")], 400, "16 bytes in base64"),
        (&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ==")], 400, "16 bytes in base64"),
        (&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j")], 400, "16 bytes in base64"),
        (&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j!!==")], 400, "16 bytes in base64"),
        (&[("Sec-WebSocket-Key", "a\r\nSec-WebSocket-Key: b")], 400, "appears twice"),
    ] {
        let answer = opened(&upgrade("/ws", changes)).unwrap_err();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(text), "{changes:?}: {answer}");
    }
}

#[test]
fn keys_are_taken_as_other_servers_take_them() {
    // The accepts were computed by another implementation.
    for (key, accept) in [
        ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        // The example of RFC 6455, section 4.1.
        ("AQIDBAUGBwgJCgsMDQ4PEC==", "OfS0wDaT5NoxF2gqm7Zj2YtetzM="),
        ("dGhlIHNhbXBsZSBub25jZR==", "Zgw8jYXtqX5qJr7MJ1Q/MqzeSRI="),
        ("dGhlIHNhbXBsZSBub25jZQ", "RZWuh2JK/hL0RMgTNJFfZIAppXg="),
        ("dGhlIHNhbXBsZSBub25jZQ=", "pKh//x18h+UqQMnMiqvoRJiH5T4="),
        ("_-hlIHNhbXBsZSBub25jZQ==", "B0Hf7sVAcrVIcZDfoBXIKYMc/Lc="),
        ("  dGhlIHNhbXBsZSBub25jZQ==\t ", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ] {
        let (response, _) = opened(&upgrade("/ws", &[("Sec-WebSocket-Key", key)])).unwrap();
        assert!(response.contains(&format!("Sec-WebSocket-Accept: {accept}\r\n")), "{key}: {response}");
    }
}

/// Reads a head that arrives in pieces, as a connection does.
fn read_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<Result<String, String>> {
    let (mut held, mut scanned) = (Vec::new(), 0);
    for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
        held.extend_from_slice(piece);
        match look(&held, scanned, BYTES_MAX) {
            None => scanned = held.len(),
            found => return found,
        }
    }
    None
}

proptest! {
    #[test]
    fn any_split_of_a_head_leads_to_the_same(
        noise in "[ -~\r\n]{0,40}",
        at in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        // A sound request, with noise somewhere in it half of the time.
        let mut request = upgrade("/ws", &[]);
        if noise.len().is_multiple_of(2) {
            request.insert_str(at.index(request.len()), &noise);
        }
        // The first look goes for faults, the later ones wait for the end; so there must be one.
        request.push_str("\r\n\r\n");
        let bytes = request.as_bytes();
        let whole = read_pieces([bytes]);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.sort_unstable();
        let (mut pieces, mut from) = (Vec::new(), 0);
        for at in cuts.into_iter().chain([bytes.len()]) {
            pieces.push(&bytes[from..at]);
            from = at;
        }
        prop_assert_eq!(&read_pieces(pieces), &whole);
        prop_assert_eq!(&read_pieces(bytes.chunks(1)), &whole);
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = look(&bytes, 0, BYTES_MAX);
        let _ = look(&bytes, bytes.len() / 2, 100);
    }
}
