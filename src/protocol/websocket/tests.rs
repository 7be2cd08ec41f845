//! The rules of RFC 6455 as cases: what a client sends, and what is made of it. The numbers name the cases of the
//! Autobahn test suite that ask for the same.

use super::*;
use proptest::prelude::*;

const MAX: usize = 70_000;
const MASK: Mask = [0x37, 0xfa, 0x21, 0x3d];

/// What a stream led to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Message(Vec<u8>),
    /// As it was sent.
    Compressed(Kind, Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
    /// The end: the close code that the violation leads to.
    Failed(u16),
}
use Seen::{Close, Compressed, Failed, Ping, Pong};

fn message(bytes: impl AsRef<[u8]>) -> Seen {
    Seen::Message(bytes.as_ref().to_vec())
}

/// Reads a stream that arrives in the given pieces, as a connection does.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, message_max: usize) -> Vec<Seen> {
    read_as::<false>(pieces, message_max)
}

/// Does so, of a connection for which compression is agreed upon if `DEFLATE`.
fn read_as<'a, const DEFLATE: bool>(pieces: impl IntoIterator<Item = &'a [u8]>, message_max: usize) -> Vec<Seen> {
    let (mut held, mut assembly, mut seen) = (Vec::new(), None, Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        while !held.is_empty() {
            let Step { item, consumed, .. } = match decode::<DEFLATE>(&mut held, &mut assembly, message_max) {
                Ok(step) => step,
                Err(violation) => {
                    let close = close(violation.close_reason(), None);
                    seen.push(Failed(u16::from_be_bytes([close[2], close[3]])));
                    return seen;
                }
            };
            let what = match item {
                Some(Item::Message { range, .. }) => Some(message(&held[range])),
                Some(Item::Assembled) => {
                    let whole = assembly.take().expect("a message is complete");
                    let is_compressed = whole.is_compressed();
                    Some(if is_compressed {
                        Compressed(whole.kind(), whole.message().to_vec())
                    } else {
                        message(whole.message())
                    })
                }
                Some(Item::Compressed { kind, range }) => Some(Compressed(kind, held[range].to_vec())),
                Some(Item::Ping { range }) => Some(Ping(held[range].to_vec())),
                Some(Item::Pong) => Some(Pong),
                Some(Item::Close { code }) => {
                    seen.push(Close(code));
                    return seen;
                }
                Some(Item::Stray) => unreachable!("a WebSocket goes both ways"),
                None if consumed == 0 => break,
                None => None,
            };
            held.drain(..consumed);
            seen.extend(what);
        }
    }
    seen
}

/// A client's frame with this first byte.
fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(MASKED | len as u8),
        len @ 126..=0xffff => {
            out.push(MASKED | LENGTH_16);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(MASKED | LENGTH_64);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    let start = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[start..], MASK);
    out
}

fn text(payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | TEXT, payload)
}

fn binary(payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | BINARY, payload)
}

fn closing(code: u16, reason: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | CLOSE, [&code.to_be_bytes(), reason.as_ref()].concat())
}

/// A text message in frames of these payloads.
fn fragments(payloads: &[&[u8]]) -> Vec<u8> {
    let last = payloads.len() - 1;
    let one = |(at, payload): (usize, &&[u8])| {
        let opcode = if at == 0 { TEXT } else { CONTINUATION };
        frame(opcode | if at == last { FIN } else { 0 }, payload)
    };
    payloads.iter().enumerate().flat_map(one).collect()
}

/// Reads a stream whole, byte by byte and in halves, and holds each against what is expected.
#[track_caller]
fn check(name: &str, stream: &[u8], expected: &[Seen]) {
    assert_eq!(read([stream], MAX), expected, "{name}, whole");
    if stream.len() < 2_000 {
        assert_eq!(read(stream.chunks(1), MAX), expected, "{name}, byte by byte");
        for cut in 1..stream.len() {
            assert_eq!(read([&stream[..cut], &stream[cut..]], MAX), expected, "{name}, cut at {cut}");
        }
    } else {
        assert_eq!(read(stream.chunks(997), MAX), expected, "{name}, in pieces of 997");
    }
}

#[test]
fn messages_of_every_length_class_come_whole() {
    // 1.1.* and 1.2.*
    for len in [0, 1, 124, 125, 126, 127, 128, 1000, 65_535, 65_536, MAX] {
        let payload = vec![b'*'; len];
        check(&format!("1.1, {len} bytes of text"), &text(&payload), &[message(&payload)]);
        let payload = vec![0xfe; len];
        check(&format!("1.2, {len} bytes"), &binary(&payload), &[message(&payload)]);
    }
}

#[test]
fn pings_and_pongs() {
    let ping = |payload: &[u8]| frame(FIN | PING, payload);
    let pong = |payload: &[u8]| frame(FIN | PONG, payload);
    check("2.1 empty", &ping(b""), &[Ping(vec![])]);
    check("2.2 with text", &ping(b"Hello"), &[Ping(b"Hello".to_vec())]);
    check("2.3 not UTF-8", &ping(b"\x00\xff\xfe"), &[Ping(b"\x00\xff\xfe".to_vec())]);
    check("2.4 the longest", &ping(&[0xfe; 125]), &[Ping(vec![0xfe; 125])]);
    check("2.5 too long", &ping(&[0xfe; 126]), &[Failed(1002)]);
    check("2.7 a pong nobody asked for", &pong(b""), &[Pong]);
    check("2.8 with text", &[pong(b"x"), ping(b"y")].concat(), &[Pong, Ping(b"y".to_vec())]);
    check("2.10 ten pings", &ping(b"p").repeat(10), &vec![Ping(b"p".to_vec()); 10]);
}

#[test]
fn reserved_bits_and_opcodes_are_refused() {
    for bits in 1..8_u8 {
        check(
            "3.* reserved bits",
            &[text("ok"), frame(FIN | TEXT | bits << 4, "x")].concat(),
            &[message("ok"), Failed(1002)],
        );
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        check("4.* reserved opcodes", &frame(FIN | opcode, ""), &[Failed(1002)]);
    }
}

#[test]
fn masks_are_required() {
    check("unmasked", b"\x81\x02hi", &[Failed(1002)]);
    check("unmasked control", b"\x89\x00", &[Failed(1002)]);
}

#[test]
fn lengths_are_in_their_shortest_form_and_within_63_bits() {
    let header = |length: &[u8]| [&[0x82], length, &MASK[..], &[0; 8]].concat();
    check("125 in 16 bits", &header(b"\xfe\x00\x7d"), &[Failed(1002)]);
    check("65535 in 64 bits", &header(b"\xff\x00\x00\x00\x00\x00\x00\xff\xff"), &[Failed(1002)]);
    check("the highest bit", &header(b"\xff\x80\x00\x00\x00\x00\x01\x00\x00"), &[Failed(1002)]);
}

#[test]
fn fragments_are_put_together() {
    let ping = frame(FIN | PING, "p");
    let (first, last) = (frame(TEXT, "frag1"), frame(FIN | CONTINUATION, "frag2"));
    let seen_ping = Ping(b"p".to_vec());
    check("5.1 a ping in two", &[frame(PING, "a"), frame(FIN | CONTINUATION, "b")].concat(), &[Failed(1002)]);
    check("5.3 two fragments", &[&first[..], &last].concat(), &[message("frag1frag2")]);
    check("5.6 a ping between", &[&first[..], &ping, &last].concat(), &[seen_ping.clone(), message("frag1frag2")]);
    check("5.9 a continuation of nothing", &frame(FIN | CONTINUATION, "x"), &[Failed(1002)]);
    check("5.10 the same, not the last", &[frame(CONTINUATION, "x"), text("y")].concat(), &[Failed(1002)]);
    check(
        "5.15 after an end",
        &[&first[..], &last, &frame(CONTINUATION, "x")].concat(),
        &[message("frag1frag2"), Failed(1002)],
    );
    check("5.18 a message inside one", &[first.clone(), text("new")].concat(), &[Failed(1002)]);
    let many = [
        frame(TEXT, "f1"),
        frame(CONTINUATION, "f2"),
        ping.clone(),
        frame(CONTINUATION, "f3"),
        frame(CONTINUATION, "f4"),
        ping,
        frame(FIN | CONTINUATION, "f5"),
    ];
    check("5.19", &many.concat(), &[seen_ping.clone(), seen_ping, message("f1f2f3f4f5")]);
    let empty = [frame(TEXT, ""), frame(CONTINUATION, ""), frame(FIN | CONTINUATION, "")].concat();
    check("6.1 empty fragments", &empty, &[message("")]);
    let filled = [frame(TEXT, ""), frame(CONTINUATION, "mid"), frame(FIN | CONTINUATION, "")].concat();
    check("6.1 one filled", &filled, &[message("mid")]);
    check(
        "two messages",
        &[frame(BINARY, "a"), frame(FIN | CONTINUATION, "b"), text("c")].concat(),
        &[message("ab"), message("c")],
    );
}

#[test]
fn text_is_utf8() {
    // 6.2 to 6.23: the valid ones, among them the ends of each length and characters that are not assigned.
    for valid in [
        "Hello-µ@ßöäüàá-UTF-8!!",
        "κόσμε",
        "\u{0}",
        "\u{7f}",
        "\u{80}",
        "\u{7ff}",
        "\u{800}",
        "\u{d7ff}",
        "\u{e000}",
        "\u{ffff}",
        "\u{fffe}",
        "\u{fffd}",
        "\u{10000}",
        "\u{1fffe}",
        "\u{10ffff}",
    ] {
        check("valid", &text(valid), &[message(valid)]);
        let bytes: Vec<_> = valid.as_bytes().chunks(1).collect();
        check("valid, a fragment each byte", &fragments(&bytes), &[message(valid)]);
    }
    let invalid: [&[u8]; 27] = [
        // Surrogates.
        b"\xed\xa0\x80",
        b"\xed\xad\xbf",
        b"\xed\xae\x80",
        b"\xed\xaf\xbf",
        b"\xed\xb0\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
        // Above the last character.
        b"\xf4\x90\x80\x80",
        b"\xf7\xbf\xbf\xbf",
        b"\xf8\x88\x80\x80\x80",
        b"\xfb\xbf\xbf\xbf\xbf",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xfd\xbf\xbf\xbf\xbf\xbf",
        b"\xfe",
        b"\xff",
        // Longer than need be.
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        // Continuations of nothing, and characters without theirs.
        b"\x80",
        b"\xbf\xbf",
        b"\xc0 ",
        b"\xe0 \xe1",
        b"\xf0 ",
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    ];
    for bytes in invalid {
        check("invalid", &text(bytes), &[Failed(1007)]);
        check("invalid, in two", &fragments(&[bytes, b"more"]), &[Failed(1007)]);
        check("any bytes are a binary message", &binary(bytes), &[message(bytes)]);
    }
    for cut in [&b"\xce"[..], b"\xe1\xbd", b"\xf0\x90\x80", b"ab\xf4"] {
        check("the message's end cuts a character", &text(cut), &[Failed(1007)]);
        check("so does the last fragment's", &fragments(&[b"x", cut]), &[Failed(1007)]);
    }
}

#[test]
fn text_that_can_not_become_utf8_fails_before_its_message_ends() {
    // 6.4: the fault stands in the first fragment, or in the first part of a frame; what follows is never sent.
    check("6.4.1", &frame(TEXT, b"\xce\xba\xf4\x90\x80"), &[Failed(1007)]);
    check("6.4.2", &[frame(TEXT, b"\xce\xba\xf4"), frame(CONTINUATION, b"\x90")].concat(), &[Failed(1007)]);
    let long = text([b"\xce\xba\xf4\x90".as_slice(), &[b'x'; 100]].concat());
    assert_eq!(read([&long[..6 + 4]], MAX), [Failed(1007)], "6.4.3: the frame has not come in whole");
    assert_eq!(read([&long[..6 + 3]], MAX), [], "a character may still come");
}

#[test]
fn closes() {
    let reason = "x".repeat(123);
    check("7.1", &[text("a"), closing(1000, ""), text("b")].concat(), &[message("a"), Close(Some(1000))]);
    check("7.1.6 inside a message", &[frame(TEXT, "a"), closing(1000, "")].concat(), &[Close(Some(1000))]);
    check("7.3.1 no code", &frame(FIN | CLOSE, ""), &[Close(None)]);
    check("7.3.2 half a code", &frame(FIN | CLOSE, "x"), &[Failed(1002)]);
    check("7.3.4 with a reason", &closing(1000, "Hello"), &[Close(Some(1000))]);
    check("7.3.5 the longest", &closing(1000, &reason), &[Close(Some(1000))]);
    check("7.3.6 too long", &closing(1000, reason + "x"), &[Failed(1002)]);
    check("7.5.1 not UTF-8", &closing(1000, b"\xce\xba\xed\xa0\x80"), &[Failed(1007)]);
    check("fragmented", &frame(CLOSE, ""), &[Failed(1002)]);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        check("7.7", &closing(code, ""), &[Close(Some(code))]);
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        check("7.9, 7.13", &closing(code, ""), &[Failed(1002)]);
    }
}

#[test]
fn messages_above_the_limit_are_refused_before_they_come() {
    let of = |len: usize| binary(vec![7; len]);
    assert_eq!(read([&of(8)[..]], 8), [message([7; 8])]);
    // The length alone is enough, whether or not the mask has come in.
    assert_eq!(read([&of(9)[..2]], 8), [Failed(1009)]);
    assert_eq!(read([&of(70_000)[..10]], 8), [Failed(1009)]);
    let huge = [&[0x82, 0xff, 0x7f], &[0xff; 7][..]].concat();
    assert_eq!(read([&huge[..]], MAX), [Failed(1009)]);
    let whole = [frame(BINARY, [7; 5]), frame(FIN | CONTINUATION, [7; 3])].concat();
    assert_eq!(read([&whole[..]], 8), [message([7; 8])]);
    let more = [frame(BINARY, [7; 5]), frame(FIN | CONTINUATION, [7; 4])].concat();
    assert_eq!(read([&more[..]], 8), [Failed(1009)]);
    // A control frame between does not count.
    let between = [frame(BINARY, [7; 8]), frame(FIN | PING, [1; 125]), frame(FIN | CONTINUATION, "")].concat();
    assert_eq!(read([&between[..]], 8), [Ping(vec![1; 125]), message([7; 8])]);
}

#[test]
fn each_close_reason_has_a_code_that_may_be_sent_and_its_name() {
    for reason in CloseReason::ALL {
        let bytes = close(reason, None);
        assert_eq!(bytes[0], FIN | CLOSE);
        assert_eq!(usize::from(bytes[1]), bytes.len() - 2);
        assert!(bytes.len() - 2 <= CONTROL_BYTES_MAX);
        assert!(close_code(&bytes[2..]).unwrap().is_some());
        assert_eq!(&bytes[4..], reason.name().as_bytes());
    }
    assert_eq!(close(CloseReason::Drain, None)[2..4], 1001_u16.to_be_bytes());
    assert_eq!(close(CloseReason::MessageTooLarge, None)[2..4], 1009_u16.to_be_bytes());
}

#[test]
fn last_words_are_cut_between_two_characters_where_they_are_too_long() {
    let close = |text: &str| close(CloseReason::Handler, Some(Words { code: 4_001, text }));
    assert_eq!(close("log in")[2..], [&4_001_u16.to_be_bytes()[..], b"log in"].concat());
    let long = "é".repeat(100);
    assert_eq!(close(&long).len(), 2 + 2 + 122);
    assert!(std::str::from_utf8(&close(&long)[4..]).is_ok());
}

#[test]
fn what_is_sent_has_its_kind_and_the_shortest_header() {
    for (kind, message, header) in [
        (Kind::Text, &b""[..], &[0x81, 0][..]),
        (Kind::Text, "é".as_bytes(), &[0x81, 2]),
        (Kind::Text, b"\xff", &[0x82, 1]),
        (Kind::Binary, b"", &[0x82, 0]),
        (Kind::Binary, "é".as_bytes(), &[0x82, 2]),
        (Kind::Binary, b"\xff", &[0x82, 1]),
        (Kind::Text, &[b'x'; 125], &[0x81, 125]),
        (Kind::Text, &[b'x'; 126], &[0x81, 126, 0, 126]),
        (Kind::Text, &[b'x'; 65_535], &[0x81, 126, 0xff, 0xff]),
        (Kind::Binary, &[b'x'; 65_536], &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let mut out = Vec::new();
        WebSocket::<false>::encode(Label { kind, ..Label::default() }, message, &mut out).unwrap();
        assert_eq!(out, [header, message].concat());
    }
    assert_eq!(WebSocket::<false>::pong(b"ab"), [0x8a, 2, b'a', b'b']);
    assert_eq!(WebSocket::<false>::close_answer(Some(1000)), [0x88, 2, 0x03, 0xe8]);
    assert_eq!(WebSocket::<false>::close_answer(None), [0x88, 0]);
}

#[test]
fn messages_may_come_compressed_where_that_is_agreed_upon() {
    let check = |name: &str, stream: &[u8], expected: &[Seen]| {
        assert_eq!(read_as::<true>([stream], MAX), expected, "{name}, whole");
        assert_eq!(read_as::<true>(stream.chunks(1), MAX), expected, "{name}, byte by byte");
        for cut in 1..stream.len() {
            assert_eq!(read_as::<true>([&stream[..cut], &stream[cut..]], MAX), expected, "{name}, cut at {cut}");
        }
    };
    let ping = frame(FIN | PING, "p");
    let seen = |kind, payload: &[u8]| Compressed(kind, payload.to_vec());
    check("whole", &frame(FIN | COMPRESSED | TEXT, b"\xff\xfe"), &[seen(Kind::Text, b"\xff\xfe")]);
    check("empty", &frame(FIN | COMPRESSED | BINARY, ""), &[seen(Kind::Binary, b"")]);
    check("one that is not", &text("as it is"), &[message("as it is")]);
    check("a text that is not UTF-8", &text(b"\xff"), &[Failed(1007)]);
    let pieces =
        [frame(COMPRESSED | BINARY, b"ab"), ping.clone(), frame(CONTINUATION, b""), frame(FIN | CONTINUATION, b"c")];
    check("in pieces, with a ping between", &pieces.concat(), &[Ping(b"p".to_vec()), seen(Kind::Binary, b"abc")]);
    let both =
        [frame(COMPRESSED | TEXT, b"\xff"), frame(FIN | CONTINUATION, b"\xff"), fragments(&[b"x", b"y"])].concat();
    check("then one that is not", &both, &[seen(Kind::Text, b"\xff\xff"), message("xy")]);
    // The bit stands at the beginning of a message alone.
    let again = [frame(COMPRESSED | TEXT, "a"), frame(FIN | COMPRESSED | CONTINUATION, "b")].concat();
    check("the bit on a continuation", &again, &[Failed(1002)]);
    let late = [frame(TEXT, "a"), frame(FIN | COMPRESSED | CONTINUATION, "b")].concat();
    check("the bit on a continuation alone", &late, &[Failed(1002)]);
    for control in [PING, PONG, CLOSE] {
        check("the bit on a control frame", &frame(FIN | COMPRESSED | control, ""), &[Failed(1002)]);
    }
    for bits in (1..8_u8).filter(|bits| *bits != COMPRESSED >> 4) {
        check("other bits", &frame(FIN | TEXT | bits << 4, "x"), &[Failed(1002)]);
    }
}

#[test]
fn a_compressed_message_may_be_sent_with_little_more_than_it_may_have() {
    let most = sent_max(1_000, true);
    assert!(most < 1_200);
    let of = |len: usize| frame(FIN | COMPRESSED | BINARY, vec![7; len]);
    assert_eq!(read_as::<true>([&of(most)[..]], 1_000), [Compressed(Kind::Binary, vec![7; most])]);
    assert_eq!(read_as::<true>([&of(most + 1)[..4]], 1_000), [Failed(1009)]);
    let pieces =
        |last: usize| [frame(COMPRESSED | BINARY, [7; 1_000]), frame(FIN | CONTINUATION, vec![7; last])].concat();
    assert_eq!(read_as::<true>([&pieces(most - 1_000)[..]], 1_000), [Compressed(Kind::Binary, vec![7; most])]);
    assert_eq!(read_as::<true>([&pieces(most - 999)[..]], 1_000), [Failed(1009)]);
    assert_eq!(read_as::<true>([&binary(vec![7; 1_001])[..4]], 1_000), [Failed(1009)], "what is not compressed");
}

/// Frames of which most are sound: bytes alone would end at the first header.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        "[a-zé☃𝄞]{0,40}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..20),
        prop::collection::vec(Just(b'x'), 120..300),
    ];
    let first = prop_oneof![
        4 => Just(FIN | TEXT),
        2 => Just(FIN | BINARY),
        2 => Just(TEXT),
        1 => Just(BINARY),
        3 => Just(CONTINUATION),
        3 => Just(FIN | CONTINUATION),
        2 => Just(FIN | PING),
        2 => Just(FIN | PONG),
        1 => Just(FIN | CLOSE),
        1 => Just(FIN | COMPRESSED | TEXT),
        1 => Just(COMPRESSED | BINARY),
        1 => any::<u8>(),
    ];
    let frames = prop::collection::vec((first, payload), 0..8);
    (frames, prop::collection::vec(any::<u8>(), 0..8)).prop_map(|(frames, noise)| {
        let mut stream: Vec<u8> = frames.into_iter().flat_map(|(first, payload)| frame(first, payload)).collect();
        stream.extend(noise);
        stream
    })
}

proptest! {
    #[test]
    fn any_split_of_any_stream_gives_the_same_events(
        stream in stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let whole = read([&stream[..]], 400);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let (mut pieces, mut from) = (Vec::new(), 0);
        for at in cuts.into_iter().chain([stream.len()]) {
            pieces.push(&stream[from..at]);
            from = at;
        }
        prop_assert_eq!(&read(pieces, 400), &whole);
        prop_assert_eq!(&read(stream.chunks(1), 400), &whole);
        let compressed = read_as::<true>([&stream[..]], 400);
        prop_assert_eq!(read_as::<true>(stream.chunks(1), 400), compressed);
    }

    #[test]
    fn noise_never_panics(stream in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(read([&stream[..]], 50), read(stream.chunks(1), 50));
    }

    #[test]
    fn a_mask_taken_off_twice_is_as_it_was(
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        mask in any::<[u8; 4]>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut masked = bytes.clone();
        unmask(&mut masked, mask);
        for (at, byte) in masked.iter().enumerate() {
            prop_assert_eq!(*byte, bytes[at] ^ mask[at % 4]);
        }
        // In two parts, as when a frame comes in two pieces.
        let cut = cut.index(bytes.len() + 1);
        let mut turned = mask;
        turned.rotate_left(cut % 4);
        unmask(&mut masked[..cut], mask);
        unmask(&mut masked[cut..], turned);
        prop_assert_eq!(masked, bytes);
    }
}
