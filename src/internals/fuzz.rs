//! What the fuzz targets of `tests/fuzz` do with the bytes that a fuzzer makes up. Each panics where a promise is broken.

mod commands;
mod http;
mod json;
mod language;
mod objects;
mod plain;
mod stream;
mod websocket;

pub use http::http;
pub use json::json;
pub use language::language;
pub use plain::plain;
pub use websocket::websocket;

/// Takes the bytes that a fuzzer made up.
pub type Target = fn(&[u8]);

/// Every target, with the name of its seeds.
pub const TARGETS: [(&str, Target); 5] =
    [("http", http), ("json", json), ("language", language), ("plain", plain), ("websocket", websocket)];

/// A client's bytes, and how they come: the first bytes of what a fuzzer made up choose the settings and the pieces.
#[derive(Clone, Copy)]
struct Arrival<'a> {
    settings: u8,
    piece_bytes: [u8; 3],
    bytes: &'a [u8],
}

impl<'a> Arrival<'a> {
    /// `None`: there are too few bytes to choose from.
    fn of(data: &'a [u8]) -> Option<Self> {
        let ([settings, piece_bytes @ ..], bytes) = data.split_first_chunk::<4>()?;
        Some(Arrival { settings: *settings, piece_bytes: *piece_bytes, bytes })
    }

    /// The bytes in the ways in which they may come: at once, one by one, and in the pieces that were chosen.
    fn splits(&self) -> [Vec<&'a [u8]>; 3] {
        let mut pieces = Vec::new();
        let mut rest = self.bytes;
        for bytes in self.piece_bytes.iter().cycle() {
            let (piece, behind) = rest.split_at(usize::from(*bytes).clamp(1, rest.len().max(1)).min(rest.len()));
            pieces.push(piece);
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        [vec![self.bytes], self.bytes.chunks(1).collect(), pieces]
    }
}

/// Whether a text can stand in a log or on a terminal as it is.
fn is_one_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}
