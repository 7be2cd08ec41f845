//! Messages through the compressor and back, and what comes from compressors of others.

use super::*;
use crate::protocol::{Encoding, Item, next};
use proptest::prelude::*;

const MAX: usize = 70_000;

const EFFORTS: [Effort; 2] = [Effort::Few, Effort::Many];
const WINDOWS: [Window; 2] = [Window::Wide, Window::Narrow];

fn deflated(window: Window, message: &[u8]) -> Option<Vec<u8>> {
    Deflater::default().deflate(window, Effort::Many, message).map(<[u8]>::to_vec)
}

fn inflated(payload: &[u8], message_max: usize) -> Result<Vec<u8>, Violation> {
    Inflater::default().inflate(Kind::Binary, payload, message_max).map(<[u8]>::to_vec)
}

/// A message as another compressor sends it: with its own level, memory and window, flushed after each of `pieces`.
fn foreign(level: i32, mem_level: i32, window_bits: u8, pieces: &[&[u8]]) -> Vec<u8> {
    let window_bits = -i32::from(window_bits);
    let mut deflate =
        Deflate::new_with_config(DeflateConfig { level, mem_level, window_bits, ..DeflateConfig::default() });
    let mut sent = Vec::new();
    for piece in pieces {
        let mut out = vec![0; 2 * piece.len() + 64];
        let before = deflate.total_out();
        deflate.compress(piece, &mut out, DeflateFlush::SyncFlush).unwrap();
        sent.extend_from_slice(&out[..(deflate.total_out() - before) as usize]);
    }
    sent.strip_suffix(&TAIL).expect("a flush ends so").to_vec()
}

/// Bytes that look like nothing (the finishing steps of splitmix64).
fn noise(len: usize) -> Vec<u8> {
    let byte = |n: u64| {
        let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 31)) as u8
    };
    (1..=len as u64).map(byte).collect()
}

/// What JSON looks like: words that come again and numbers that don't.
fn json(len: usize) -> Vec<u8> {
    let mut text = String::new();
    for (n, byte) in noise(len).iter().enumerate() {
        text += &format!(r#"{{"symbol":"S{byte}","price":{}.{byte},"change":-0.{n}}},"#, n * 7919 % 10_007);
        if text.len() > len {
            break;
        }
    }
    text.into_bytes()[..len].to_vec()
}

#[test]
fn the_examples_of_the_standard_are_read() {
    // RFC 7692, sections 7.2.3.1 to 7.2.3.5: one block, no compression, a last block, two blocks.
    for payload in [
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
    ] {
        assert_eq!(inflated(payload, MAX), Ok(b"Hello".to_vec()), "{payload:02x?}");
    }
    // Section 7.2.3.6, and a client that sends nothing for nothing.
    assert_eq!(inflated(&[0x00], MAX), Ok(vec![]));
    assert_eq!(inflated(&[], MAX), Ok(vec![]));
    // A last block without the byte that should stand behind it.
    assert_eq!(inflated(&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], MAX), Ok(b"Hello".to_vec()));
}

#[test]
fn what_is_no_compressed_message_is_told() {
    let broken = |payload: &[u8]| matches!(inflated(payload, MAX), Err(Violation::Protocol(_)));
    // A block type that there is none of, a length that contradicts itself, a distance before the beginning.
    assert!(broken(&[0x06]));
    assert!(broken(&[0x00, 0x05, 0x00, 0x00, 0x00]));
    assert!(broken(&[0x02, 0x02, 0x00]));
    assert!(broken(b"not compressed"));
    // A message that is cut off anywhere does not pass for a shorter one.
    let whole = deflated(Window::Wide, &json(1_000)).unwrap();
    for end in 1..whole.len() {
        assert!(inflated(&whole[..end], MAX).is_err(), "{end} of {}", whole.len());
    }
    // The end of a flush is not left out.
    assert!(broken(&[&whole[..], &TAIL].concat()));
}

#[test]
fn an_inflater_goes_on_after_what_it_could_not_read() {
    let mut inflater = Inflater::default();
    let whole = deflated(Window::Wide, &json(1_000)).unwrap();
    for bad in [&[0x06][..], &whole[..40], &[0xff; 9]] {
        assert!(inflater.inflate(Kind::Text, bad, MAX).is_err());
        assert_eq!(inflater.inflate(Kind::Text, &whole, MAX), Ok(&json(1_000)[..]));
    }
}

#[test]
fn a_bomb_costs_no_more_than_a_message_may_have() {
    let mut inflater = Inflater::default();
    for (message_max, len) in [(1_000, 1_001), (1_000, 1 << 24), (65_536, 65_537), (65_536, 1 << 24)] {
        let bomb = foreign(9, 9, 15, &[&vec![b'x'; len]]);
        assert!(bomb.len() * 100 < len.max(30_000));
        assert_eq!(inflater.inflate(Kind::Text, &bomb, message_max), Err(Violation::TooLarge { max: message_max }));
        assert!(inflater.out.capacity() <= message_max + 1, "{} bytes for {message_max}", inflater.out.capacity());
    }
    // The largest that may be passes.
    let largest = foreign(9, 9, 15, &[&vec![b'x'; 65_536]]);
    assert_eq!(inflater.inflate(Kind::Text, &largest, 65_536).map(<[u8]>::len), Ok(65_536));
    // Many empty blocks make nothing out of much.
    let empty = [0x00, 0x00, 0x00, 0xff, 0xff].repeat(100_000);
    assert_eq!(inflater.inflate(Kind::Text, &[&empty[..], &[0x00]].concat(), 10), Ok(&b""[..]));
}

#[test]
fn memory_of_a_large_message_goes_back() {
    let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
    let large = json(1 << 20);
    let small = deflated(Window::Wide, &json(500)).unwrap();
    let sent = deflater.deflate(Window::Wide, Effort::Few, &large).unwrap().to_vec();
    assert_eq!(inflater.inflate(Kind::Text, &sent, 1 << 20), Ok(&large[..]));
    assert!(deflater.out.capacity() > 1 << 20 && inflater.out.capacity() >= 1 << 20);
    deflater.deflate(Window::Wide, Effort::Few, &json(500)).unwrap();
    inflater.inflate(Kind::Text, &small, 1 << 20).unwrap();
    assert!(deflater.out.capacity() <= DEFLATE_KEPT_BYTES_MAX && inflater.out.capacity() <= DEFLATE_KEPT_BYTES_MAX);
}

#[test]
fn text_is_utf8_once_it_is_inflated() {
    for (text, kind, is_sound) in [
        (&b"\xce\xba\xce\xba\xce\xba\xce\xba\xce\xba\xce\xba\xce\xba"[..], Kind::Text, true),
        (b"\xce\xba\xce\xba\xce\xba\xce\xba\xce\xba\xce\xba\xce", Kind::Text, false),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Kind::Text, false),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Kind::Binary, true),
    ] {
        let sent = deflated(Window::Wide, text).unwrap();
        let expected = if is_sound { Ok(text) } else { Err(Violation::NotUtf8) };
        assert_eq!(Inflater::default().inflate(kind, &sent, MAX), expected);
    }
}

#[test]
fn what_does_not_get_smaller_is_left_as_it_is() {
    // Again and again by the same one, which must not keep anything of what it did not send.
    let mut deflater = Deflater::default();
    for len in (0..20).chain((0..100).map(|n| n * 211)).chain([65_535, 65_536, MAX]) {
        for (window, effort) in WINDOWS.iter().flat_map(|window| EFFORTS.map(|effort| (*window, effort))) {
            assert_eq!(deflater.deflate(window, effort, &noise(len)), None, "{len} bytes, {window:?}, {effort:?}");
        }
    }
    for (window, effort) in WINDOWS.iter().flat_map(|window| EFFORTS.map(|effort| (*window, effort))) {
        let sent = deflater.deflate(window, effort, &json(MAX)).unwrap().to_vec();
        assert_eq!(inflated(&sent, MAX), Ok(json(MAX)));
    }
}

/// Inflates with a window of the smallest size that can be asked for, and room for one byte at a time, so that what lies
/// further back is not there.
fn inflated_in_256_bytes(payload: &[u8]) -> Vec<u8> {
    let mut inflate = Inflate::new(false, 8);
    let (mut rest, mut message) = ([payload, &TAIL].concat(), Vec::new());
    loop {
        let (bytes_in, mut byte) = (inflate.total_in(), [0]);
        let before = inflate.total_out();
        inflate.decompress(&rest, &mut byte, InflateFlush::SyncFlush).expect("it points no further back");
        rest.drain(..(inflate.total_in() - bytes_in) as usize);
        if inflate.total_out() == before {
            return message;
        }
        message.push(byte[0]);
    }
}

#[test]
fn the_narrow_window_is_within_the_smallest_that_a_client_may_ask_for() {
    for len in [200, 300, 1_000, 20_000] {
        let mut messages = vec![json(len), b"0123456789abcdef".repeat(len / 16), vec![b'x'; len]];
        // What comes again after each distance around the window's end.
        messages.extend((240..=270).map(|distance| noise(distance).repeat(len / distance + 2)));
        for (message, effort) in messages.iter().flat_map(|message| EFFORTS.map(|effort| (message, effort))) {
            if let Some(sent) = Deflater::default().deflate(Window::Narrow, effort, message) {
                assert_eq!(&inflated_in_256_bytes(sent), message);
            }
        }
    }
}

/// Messages from which a compressor has something to gain, mixed with others.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        3 => (0usize..2_000).prop_map(json),
        1 => (0usize..600).prop_map(noise),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 0usize..3_000).prop_map(|(byte, len)| vec![byte; len]),
    ];
    prop::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
}

/// Bytes in parts, of which some may be empty.
fn cut<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.sort_unstable();
    let (mut parts, mut from) = (Vec::new(), 0);
    for at in cuts.into_iter().chain([bytes.len()]) {
        parts.push(&bytes[from..at]);
        from = at;
    }
    parts
}

proptest! {
    #[test]
    fn what_is_compressed_comes_back(messages in prop::collection::vec(message(), 1..4)) {
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        for message in &messages {
            for (window, effort) in WINDOWS.iter().flat_map(|window| EFFORTS.map(|effort| (*window, effort))) {
                if let Some(sent) = deflater.deflate(window, effort, message) {
                    prop_assert!(sent.len() < message.len());
                    prop_assert_eq!(inflater.inflate(Kind::Binary, sent, MAX), Ok(&message[..]));
                    // Each by itself: nothing of the messages before is needed.
                    prop_assert_eq!(&inflated(sent, MAX), &Ok(message.clone()));
                    if window == Window::Narrow {
                        prop_assert_eq!(&inflated_in_256_bytes(sent), message);
                    }
                }
            }
        }
    }

    #[test]
    fn messages_come_through_frames_of_any_size_in_pieces_of_any_size(
        message in message(),
        fragments in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        piece_bytes in 1usize..3_000,
        mask in any::<[u8; 4]>(),
    ) {
        let Some(sent) = deflated(Window::Wide, &message) else { return Ok(()) };
        let mut stream = Vec::new();
        let cuts = cut(&sent, &fragments);
        for (number, payload) in cuts.iter().enumerate() {
            // Compressed, and binary; a continuation; with the bit that says it is the last one.
            let first = if number == 0 { 0x42 } else { 0 } | if number + 1 == cuts.len() { 0x80 } else { 0 };
            stream.push(first);
            match payload.len() {
                len @ 0..126 => stream.push(0x80 | len as u8),
                len @ 126..0x1_0000 => stream.extend([&[0x80 | 126][..], &(len as u16).to_be_bytes()].concat()),
                len => stream.extend([&[0x80 | 127][..], &(len as u64).to_be_bytes()].concat()),
            }
            stream.extend(mask);
            stream.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        }
        let (mut held, mut assembly, mut came) = (Vec::new(), None, None);
        for piece in stream.chunks(piece_bytes) {
            held.extend_from_slice(piece);
            loop {
                let step = next(Encoding::WebSocketWide, &mut held, 0, &mut assembly, MAX).unwrap();
                match step.item {
                    Some(Item::Compressed { kind: Kind::Binary, range }) => came = Some(held[range].to_vec()),
                    Some(Item::Assembled) => {
                        let whole = assembly.take().unwrap();
                        prop_assert!(whole.is_compressed() && whole.kind() == Kind::Binary);
                        came = Some(whole.message().to_vec());
                    }
                    None => {}
                    other => panic!("{other:?}"),
                }
                held.drain(..step.consumed);
                if step.consumed == 0 || held.is_empty() {
                    break;
                }
            }
        }
        prop_assert_eq!(came.as_deref(), Some(&sent[..]));
        prop_assert_eq!(inflated(&sent, MAX), Ok(message));
    }

    #[test]
    fn messages_of_any_compressor_come_back(
        message in message(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        level in 0i32..=9,
        mem_level in 1i32..=9,
        window_bits in 9u8..=15,
    ) {
        // Two flushes with nothing between them make nothing.
        let pieces: Vec<_> = cut(&message, &cuts).into_iter().filter(|piece| !piece.is_empty()).collect();
        if !pieces.is_empty() {
            let sent = foreign(level, mem_level, window_bits, &pieces);
            prop_assert_eq!(inflated(&sent, MAX), Ok(message));
        }
    }

    #[test]
    fn noise_never_panics_and_never_makes_more_than_may_be(
        payload in prop::collection::vec(any::<u8>(), 0..300),
        message_max in 0usize..400,
    ) {
        if let Ok(message) = inflated(&payload, message_max) {
            prop_assert!(message.len() <= message_max);
        }
    }
}
