//! Answers in HTTP/1 that end a request. Clients that came to the wrong port are answered so, too.

use std::fmt::Write as _;

use crate::config::RETRY_AFTER_S;
use crate::message::CloseReason;

pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// The answer to a client that did not complete its request in time.
pub(crate) fn timed_out() -> Vec<u8> {
    plain(408, "the request did not arrive whole in time")
}

/// The answer to a client that came to the wrong port.
pub(crate) fn bad_request(text: &str) -> Vec<u8> {
    plain(400, text)
}

/// The answer to a client that the server has no room for, whose request begins with `head`. `seed` spreads the moments at
/// which clients come back.
pub(crate) fn unavailable(reason: CloseReason, head: &[u8], seed: u64) -> Vec<u8> {
    let (least, spread) = RETRY_AFTER_S;
    let seconds = least + seed % spread;
    let text = match reason {
        CloseReason::Drain => "the server is shutting down",
        _ => "the server is full",
    };
    let body = format!("{reason}: {text}; try again in {seconds} seconds\n");
    let field = format!("Retry-After: {seconds}\r\n");
    answer(503, TEXT, [], &field, body.as_bytes(), head.starts_with(b"HEAD "))
}

fn plain(status: u16, text: &str) -> Vec<u8> {
    answer(status, TEXT, [], "", format!("{text}\n").as_bytes(), false)
}

/// An answer with this body, which `bodiless` leaves out. `fields` come first in its head, `lines` are header lines that are
/// written already.
pub(crate) fn answer<'f>(
    status: u16,
    kind: &str,
    fields: impl IntoIterator<Item = (&'f str, &'f str)>,
    lines: &str,
    body: &[u8],
    bodiless: bool,
) -> Vec<u8> {
    let phrase = match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    };
    let mut head = format!("HTTP/1.1 {status} {phrase}\r\n");
    for (name, value) in fields {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    // An upgrade that is asked for is named in Connection too (RFC 9110, section 7.8).
    let connection = if status == 426 { "close, Upgrade" } else { "close" };
    let _ = write!(
        head,
        "Content-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         {lines}Connection: {connection}\r\n\r\n",
        body.len()
    );
    let mut answer = head.into_bytes();
    if !bodiless {
        answer.extend_from_slice(body);
    }
    answer
}
