//! The opening handshake of a WebSocket (RFC 6455, section 4.2).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;
use sha1::{Digest, Sha1};

use super::extensions::{Compression, Malformed, compression};
use super::{Head, Refusal};

/// Appended to a client's key before it is hashed (RFC 6455, section 1.3).
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Keys are read as leniently as other servers read them: the RFC's own example (section 4.1) has bits behind its last
/// byte, some clients leave out the padding, and some use the other alphabet.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const KEYS: [GeneralPurpose; 2] = [GeneralPurpose::new(&STANDARD, LENIENT), GeneralPurpose::new(&URL_SAFE, LENIENT)];

/// A WebSocket that a client asks for, in a way that can be granted.
pub(crate) struct Upgrade<'a> {
    head: &'a Head<'a>,
    key: &'a str,
    compression: Option<Compression>,
}

impl<'a> Upgrade<'a> {
    /// Reads what a request's head asks for.
    ///
    /// # Errors
    /// It does not ask for a WebSocket, or not as the standard says.
    pub(crate) fn read(head: &'a Head<'a>) -> Result<Self, Refusal> {
        let upgrade = |text: &str, (name, value)| Err(Refusal::new(426, text).with_field(name, value));
        if head.minor == 0 {
            let text = "a WebSocket needs HTTP/1.1; a proxy on the way speaks 1.0 (nginx: proxy_http_version 1.1)";
            return Err(Refusal::new(400, text));
        }
        if !head.has_token("Upgrade", "websocket") || !head.has_token("Connection", "upgrade") {
            let text = "this is the address of a WebSocket: send `Upgrade: websocket` and `Connection: Upgrade`; \
                        a proxy on the way must pass both on";
            return upgrade(text, ("Upgrade", "websocket"));
        }
        if !head.has_token("Sec-WebSocket-Version", "13") {
            return upgrade("this server speaks version 13 of WebSocket", ("Sec-WebSocket-Version", "13"));
        }
        let key = head.single("Sec-WebSocket-Key")?.unwrap_or_default();
        if !is_key(key) {
            return Err(Refusal::new(400, "Sec-WebSocket-Key must be 16 bytes in base64"));
        }
        let compression = compression(head.values("Sec-WebSocket-Extensions")).map_err(|Malformed| {
            Refusal::new(400, "the Sec-WebSocket-Extensions header is not a list of extensions with their parameters")
        })?;
        Ok(Upgrade { head, key, compression })
    }

    /// The subprotocols that the client offers, the one it likes best first.
    pub(crate) fn offered(&self) -> impl Iterator<Item = &'a str> {
        self.head.tokens("Sec-WebSocket-Protocol")
    }

    /// The first of the client's offers to compress messages that can be met.
    pub(crate) fn compression(&self) -> Option<Compression> {
        self.compression
    }

    /// The answer that opens the WebSocket, with a subprotocol and compression or without.
    pub(crate) fn response(&self, subprotocol: Option<&str>, compression: Option<Compression>) -> Vec<u8> {
        let mut response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n",
            accept_of(self.key)
        );
        if let Some(name) = subprotocol {
            let _ = write!(response, "Sec-WebSocket-Protocol: {name}\r\n");
        }
        if let Some(compression) = compression {
            let _ = write!(response, "Sec-WebSocket-Extensions: {}\r\n", compression.answer());
        }
        response.push_str("\r\n");
        response.into_bytes()
    }
}

/// Whether a client's key is 16 bytes in base64, strictly or not. It is hashed as it came; nothing is made of its bytes.
fn is_key(key: &str) -> bool {
    let mut nonce = [0; 18];
    KEYS.iter().any(|engine| matches!(engine.decode_slice(key, &mut nonce), Ok(16)))
}

/// What is hashed out of a client's key (RFC 6455, section 4.2.2).
fn accept_of(key: &str) -> String {
    let hash = Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize();
    BASE64_STANDARD.encode(hash)
}
