//! The extensions that a WebSocket's client offers (RFC 6455, section 9.1), of which one is known: permessage-deflate (RFC
//! 7692).

use std::borrow::Cow;

use crate::protocol::Window;

/// The largest window, by its bits, that either side may have, and the smallest.
const WINDOW_BITS: [u8; 2] = [8, 15];

/// How messages are compressed, as it is agreed upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compression {
    pub(crate) window: Window,
    /// The bits of the server's window that the client is told, if it asked.
    server_bits: Option<u8>,
}

impl Compression {
    /// The value of the header field that tells the client. Neither side keeps anything from one message to the next.
    pub(super) fn answer(self) -> String {
        let mut answer = String::from("permessage-deflate; server_no_context_takeover; client_no_context_takeover");
        if let Some(bits) = self.server_bits {
            answer += &format!("; server_max_window_bits={bits}");
        }
        answer
    }
}

/// What is offered does not follow the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The first offer of compression that can be met, in the values of the header field; `None`: there is none.
pub(super) fn compression<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Option<Compression>, Malformed> {
    let mut agreed = None;
    for value in values {
        let mut rest = Rest(value);
        while rest.goes_on() {
            // Elements of a list may be empty (RFC 9110, section 5.6.1.2).
            if rest.has(b',') {
                continue;
            }
            let offer = rest.offer()?;
            agreed = agreed.or_else(|| offer.and_then(Offer::meet));
            if !rest.has(b',') && rest.goes_on() {
                return Err(Malformed);
            }
        }
    }
    Ok(agreed)
}

/// The parameters of one offer, each with its value. Those that are left out are `None`.
#[derive(Clone, Copy, Debug, Default)]
struct Offer {
    server_no_context_takeover: Option<()>,
    client_no_context_takeover: Option<()>,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: Option<Option<u8>>,
}

impl Offer {
    /// Takes a parameter; whether it is known, sound, and there for the first time (RFC 7692, section 7.1).
    fn take(&mut self, name: &[u8], value: Option<&[u8]>) -> bool {
        match (name, value) {
            (b"server_no_context_takeover", None) => self.server_no_context_takeover.replace(()).is_none(),
            (b"client_no_context_takeover", None) => self.client_no_context_takeover.replace(()).is_none(),
            (b"server_max_window_bits", Some(value)) => {
                window_bits(value).is_some_and(|bits| self.server_max_window_bits.replace(bits).is_none())
            }
            (b"client_max_window_bits", None) => self.client_max_window_bits.replace(None).is_none(),
            (b"client_max_window_bits", Some(value)) => {
                window_bits(value).is_some_and(|bits| self.client_max_window_bits.replace(Some(bits)).is_none())
            }
            _ => false,
        }
    }

    /// How it is met. What the client says of its own window and context needs no answer: every message of it can be read.
    fn meet(self) -> Option<Compression> {
        let [_, most] = WINDOW_BITS;
        let window = match self.server_max_window_bits {
            Some(bits) if bits < most => Window::Narrow,
            _ => Window::Wide,
        };
        let server_bits = self.server_max_window_bits.map(|bits| bits.min(window.bits()));
        Some(Compression { window, server_bits })
    }
}

/// The bits of a window: a decimal number without a sign or zeros before it (RFC 7692, section 7.1.2.1).
fn window_bits(value: &[u8]) -> Option<u8> {
    let [least, most] = WINDOW_BITS;
    (least..=most).find(|bits| bits.to_string().as_bytes() == value)
}

/// What is left of a header field's value.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// Whether there is anything but space.
    fn goes_on(&mut self) -> bool {
        self.0 = self.0.trim_ascii_start();
        !self.0.is_empty()
    }

    /// Takes a separator, if it comes next, and the space before it.
    fn has(&mut self, separator: u8) -> bool {
        self.0 = self.0.trim_ascii_start();
        let rest = self.0.strip_prefix(&[separator]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// An extension with its parameters; `None`: it is another one, or it must be declined.
    fn offer(&mut self) -> Result<Option<Offer>, Malformed> {
        let is_known = self.token()? == b"permessage-deflate";
        let mut offer = Some(Offer::default()).filter(|_| is_known);
        while self.has(b';') {
            let name = self.token()?;
            let value = if self.has(b'=') { Some(self.value()?) } else { None };
            offer = offer.and_then(|mut offer| offer.take(name, value.as_deref()).then_some(offer));
        }
        Ok(offer)
    }

    fn token(&mut self) -> Result<&'a [u8], Malformed> {
        self.0 = self.0.trim_ascii_start();
        let end = self.0.iter().position(|byte| !is_token(*byte)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        if token.is_empty() { Err(Malformed) } else { Ok(token) }
    }

    /// A token, or one between quotes, where each of its characters may have a backslash before it.
    fn value(&mut self) -> Result<Cow<'a, [u8]>, Malformed> {
        if !self.has(b'"') {
            return self.token().map(Cow::Borrowed);
        }
        let mut value = Vec::new();
        loop {
            let byte = self.next().ok_or(Malformed)?;
            match byte {
                b'"' if value.is_empty() => return Err(Malformed),
                b'"' => return Ok(Cow::Owned(value)),
                b'\\' => value.push(self.next().ok_or(Malformed)?),
                byte => value.push(byte),
            }
            if !value.last().is_some_and(|byte| is_token(*byte)) {
                return Err(Malformed);
            }
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
}

/// Whether a byte may stand in a token (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn agreed(values: &[&str]) -> Result<Option<String>, Malformed> {
        let agreed = compression(values.iter().map(|value| value.as_bytes()))?;
        Ok(agreed.map(|agreed| agreed.answer()))
    }

    fn with(parameters: &str) -> Result<Option<String>, Malformed> {
        let base = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        Ok(Some(base.to_owned() + parameters))
    }

    #[test]
    fn what_clients_offer_is_met() {
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate;client_max_window_bits=9",
            "permessage-deflate; client_max_window_bits=\"15\"",
            "permessage-deflate ; client_max_window_bits = \"1\\5\"",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits",
            "x-webkit-deflate-frame, permessage-deflate; client_max_window_bits",
            " , bbf-usp-protocol; a=b; a=\"c\" ,, permessage-deflate,",
        ] {
            assert_eq!(agreed(&[offer]), with(""), "{offer}");
        }
        for none in
            ["", " ", ",", "permessage-bzip2", "x-permessage-deflate", "PERMESSAGE-DEFLATE", "foo; permessage-deflate"]
        {
            assert_eq!(agreed(&[none]), Ok(None), "{none}");
        }
        assert_eq!(agreed(&[]), Ok(None));
        assert_eq!(agreed(&["foo", "permessage-deflate"]), with(""));
    }

    #[test]
    fn the_servers_window_is_no_larger_than_a_client_asks() {
        for (asked, told, window) in [
            (8, 8, Window::Narrow),
            (9, 9, Window::Narrow),
            (10, 9, Window::Narrow),
            (14, 9, Window::Narrow),
            (15, 15, Window::Wide),
        ] {
            let offer = format!("permessage-deflate; server_max_window_bits={asked}");
            assert_eq!(agreed(&[&offer]), with(&format!("; server_max_window_bits={told}")));
            assert_eq!(compression([offer.as_bytes()].into_iter()).unwrap().unwrap().window, window);
        }
    }

    #[test]
    fn an_offer_that_must_be_declined_leaves_the_next_one_its_turn() {
        for parameter in [
            "server_max_window_bits",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=08",
            "server_max_window_bits=9x",
            "server_max_window_bits=+9",
            "client_max_window_bits=7",
            "client_max_window_bits=16",
            "client_max_window_bits=010",
            "server_no_context_takeover=1",
            "client_no_context_takeover=true",
            "server_no_context_takeover; server_no_context_takeover",
            "client_max_window_bits; client_max_window_bits=9",
            "server_max_window_bits=9; server_max_window_bits=9",
            "Server_No_Context_Takeover",
            "unknown",
            "unknown=1",
        ] {
            let offer = format!("permessage-deflate; {parameter}");
            assert_eq!(agreed(&[&offer]), Ok(None), "{offer}");
            let two = format!("{offer}, permessage-deflate; server_max_window_bits=9, permessage-deflate");
            assert_eq!(agreed(&[&two]), with("; server_max_window_bits=9"), "{two}");
            assert_eq!(agreed(&[&offer, "permessage-deflate"]), with(""), "{offer}");
        }
    }

    #[test]
    fn what_does_not_follow_the_grammar_is_refused_wherever_it_stands() {
        for bad in [
            ";",
            "permessage-deflate;",
            "permessage-deflate; ;",
            "permessage-deflate; =9",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=\"",
            "permessage-deflate; server_max_window_bits=\"\"",
            "permessage-deflate; server_max_window_bits=\"1 5\"",
            "permessage-deflate; server_max_window_bits=\"15\\",
            "permessage-deflate; server_max_window_bits=\"15\" 9",
            "permessage-deflate server_max_window_bits",
            "permessage-deflate, (foo)",
            "permessage-deflate\u{e9}",
            "foo/bar",
        ] {
            assert_eq!(agreed(&[bad]), Err(Malformed), "{bad}");
            assert_eq!(agreed(&["permessage-deflate", bad]), Err(Malformed), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(value in "(permessage-deflate|server_max_window_bits|[;,=\"\\\\ 0-9a-z]){0,12}") {
            let _ = agreed(&[&value]);
        }
    }
}
