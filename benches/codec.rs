//! Messages into bytes and out of them again, in each framing, beside a copy of the same bytes, or a search through them.

#[path = "support/micro.rs"]
mod micro;
mod support;

use std::process::ExitCode;
use std::time::Duration;

use corecast::internals::{Codec, Requests};

use micro::{Micro, repeat};
use support::table::Table;
use support::{Bench, Plan};

/// It leaves letters in ASCII, masked or not: as a frame is unmasked where it lies, every second time it is read masked.
const MASK: [u8; 4] = [1, 2, 3, 4];

/// Frames of the message that comes in fragments.
const FRAGMENTS: usize = 4;

/// What a browser sends to open a WebSocket, but for the length of its cookies.
const REQUEST: &str = "\
GET /ws?topic=news HTTP/1.1\r\n\
Host: push.example.com\r\n\
Connection: Upgrade\r\n\
Pragma: no-cache\r\n\
Cache-Control: no-cache\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36\r\n\
Upgrade: websocket\r\n\
Origin: https://push.example.com\r\n\
Sec-WebSocket-Version: 13\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Accept-Language: en-GB,en;q=0.9\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
Sec-WebSocket-Protocol: corecast.v1.json\r\n\
\r\n";

fn main() -> ExitCode {
    support::main(Bench {
        name: "codec",
        of: "bytes",
        full: Plan { sizes: &[128, 1024, 16 * 1024], rounds: 30, span: Duration::from_millis(500) },
        smoke: Plan { sizes: &[128, 1024], rounds: 1, span: Duration::ZERO },
        measure,
    })
}

fn measure(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let mut micro = Micro::new("codec", plan, table);
    for size in plan.sizes.iter().copied() {
        let message = vec![b'x'; size];
        encode(&mut micro, &message)?;
        decode(&mut micro, &message)?;
        for (what, fragments) in [("ws, decode", 1), ("ws in 4 frames, decode", FRAGMENTS)] {
            let mut frames = client_frames(&message, fragments);
            let (plain, mut copy) = (frames.clone(), Vec::new());
            check(what, Codec::WEBSOCKET.decode(&mut frames), size)?;
            let work = |times| repeat(times, || Codec::WEBSOCKET.decode(&mut frames));
            micro.compare(what, size, work, |times| repeat(times, || copy_of(&plain, &mut copy)));
        }
    }
    let (requests, request) = (Requests::default(), REQUEST.as_bytes());
    check("http", requests.open(request), request.len())?;
    let work = |times| repeat(times, || requests.open(request));
    let floor = |times| repeat(times, || memchr::memchr_iter(b'\n', request).count());
    micro.compare("http head by memchr", request.len(), work, floor);
    micro.finish()
}

fn encode(micro: &mut Micro<'_>, message: &[u8]) -> Result<(), String> {
    for (what, codec) in [
        ("line, encode", Codec::LINE),
        ("length, encode", Codec::LENGTH),
        ("ws, encode", Codec::WEBSOCKET),
        ("sse, encode", Codec::SSE),
    ] {
        let (mut out, mut copy) = (Vec::new(), Vec::new());
        if !codec.encode(message, &mut out) || !out.windows(message.len()).any(|part| part == message) {
            return Err(format!("{what}: the message is not in its frame"));
        }
        let work = |times| {
            repeat(times, || {
                out.clear();
                codec.encode(message, &mut out)
            })
        };
        micro.compare(what, message.len(), work, |times| repeat(times, || copy_of(message, &mut copy)));
    }
    Ok(())
}

fn decode(micro: &mut Micro<'_>, message: &[u8]) -> Result<(), String> {
    let size = message.len();
    let frame_of = |codec: Codec| {
        let mut frame = Vec::new();
        codec.encode(message, &mut frame);
        frame
    };
    let (mut line, mut length, mut copy) = (frame_of(Codec::LINE), frame_of(Codec::LENGTH), Vec::new());
    check("line", Codec::LINE.decode(&mut line), size)?;
    check("length", Codec::LENGTH.decode(&mut length), size)?;
    let (plain_line, plain_length) = (line.clone(), length.clone());
    let work = |times| repeat(times, || Codec::LINE.decode(&mut line));
    micro.compare("line, decode by memchr", size, work, |times| repeat(times, || memchr::memchr(b'\n', &plain_line)));
    let work = |times| repeat(times, || Codec::LENGTH.decode(&mut length));
    micro.compare("length, decode", size, work, |times| repeat(times, || copy_of(&plain_length, &mut copy)));
    Ok(())
}

fn check(what: &str, got: usize, expected: usize) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("{what}: {got} bytes came out instead of {expected}")) }
}

fn copy_of(bytes: &[u8], copy: &mut Vec<u8>) -> usize {
    copy.clear();
    copy.extend_from_slice(std::hint::black_box(bytes));
    copy.len()
}

/// A text message in masked frames of about the same length (RFC 6455, section 5.2).
fn client_frames(message: &[u8], fragments: usize) -> Vec<u8> {
    let mut frames = Vec::new();
    let parts: Vec<&[u8]> = message.chunks(message.len().div_ceil(fragments)).collect();
    for (number, part) in parts.iter().enumerate() {
        let (opcode, last) = (u8::from(number == 0), if number + 1 == parts.len() { 0x80 } else { 0 });
        frames.push(last | opcode);
        match part.len() {
            len @ 0..=125 => frames.push(0x80 | len as u8),
            len => {
                let len = u16::try_from(len).expect("the messages here are short");
                frames.push(0x80 | 126);
                frames.extend_from_slice(&len.to_be_bytes());
            }
        }
        frames.extend_from_slice(&MASK);
        frames.extend(part.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
    frames
}
