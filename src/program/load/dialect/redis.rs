//! Redis pub/sub, for comparing: RESP2 (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).

use memchr::memchr;

use super::{BadFrame, Decoded, Framed, MESSAGE_BYTES_MAX, Reply};

/// Bytes of a line at the most: a length, a number, or an error's text.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Elements of an array. What a subscriber or a publisher gets has three at the most.
const ELEMENTS_MAX: usize = 8;

/// The first reply; of a bulk string, its bytes alone.
pub(super) fn decode(buf: &[u8]) -> Result<Option<Decoded>, BadFrame> {
    let Some((line, mut end)) = line(buf)? else { return Ok(None) };
    match line.first() {
        Some(b'+' | b'-' | b':') => Ok(Some((0..line.len(), end))),
        Some(b'$') => bulk(buf),
        Some(b'*') => {
            let elements = number(&line[1..]).filter(|elements| *elements <= ELEMENTS_MAX).ok_or(BadFrame)?;
            for _ in 0..elements {
                let Some(used) = element(&buf[end..])? else { return Ok(None) };
                end += used;
            }
            Ok(Some((0..end, end)))
        }
        _ => Err(BadFrame),
    }
}

/// The bytes of an array's element; arrays in arrays are not for clients like this one.
fn element(buf: &[u8]) -> Result<Option<usize>, BadFrame> {
    let Some((line, end)) = line(buf)? else { return Ok(None) };
    match line.first() {
        Some(b'+' | b'-' | b':') => Ok(Some(end)),
        Some(b'$') => Ok(bulk(buf)?.map(|(_, used)| used)),
        _ => Err(BadFrame),
    }
}

/// A bulk string: `$length`, that many bytes, CR LF. A length of -1 stands for none.
fn bulk(buf: &[u8]) -> Result<Option<Decoded>, BadFrame> {
    let Some((line, start)) = line(buf)? else { return Ok(None) };
    if line == b"$-1" {
        return Ok(Some((start..start, start)));
    }
    let length = number(&line[1..]).filter(|length| *length <= MESSAGE_BYTES_MAX).ok_or(BadFrame)?;
    let end = start + length;
    match buf.get(end..end + 2) {
        Some(b"\r\n") => Ok(Some((start..end, end + 2))),
        Some(_) => Err(BadFrame),
        None => Ok(None),
    }
}

/// The first line without its CR LF, and where the next one begins.
fn line(buf: &[u8]) -> Result<Option<(&[u8], usize)>, BadFrame> {
    match memchr(b'\n', buf) {
        Some(end) => Ok(Some((buf[..end].strip_suffix(b"\r").ok_or(BadFrame)?, end + 1))),
        None if buf.len() > LINE_BYTES_MAX => Err(BadFrame),
        None => Ok(None),
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Takes a reply apart.
pub(super) fn reply(message: &[u8]) -> Reply<'_> {
    match message {
        [b'+', rest @ ..] if rest == b"PONG" => Reply::Pong,
        [b'-', rest @ ..] => Reply::Error(rest),
        // The number of clients that got a publish.
        [b':', ..] => Reply::Published,
        [b'*', ..] => array(message).unwrap_or(Reply::Other),
        _ => Reply::Other,
    }
}

fn array(message: &[u8]) -> Option<Reply<'_>> {
    let mut at = line(message).ok()??.1;
    let mut next = || {
        let (range, used) = bulk(&message[at..]).ok()??;
        let found = &message[at..][range];
        at += used;
        Some(found)
    };
    Some(match next()? {
        b"message" => Reply::Message { topic: Some(next()?), payload: next()? },
        b"subscribe" => Reply::Subscribed,
        b"pong" => Reply::Pong,
        _ => Reply::Other,
    })
}

/// A command of two words, the second of which may be a payload.
fn command(words: &[&[u8]], payload: Option<&[u8]>) -> Framed {
    let mut before = format!("*{}\r\n", words.len() + usize::from(payload.is_some())).into_bytes();
    for word in words {
        before.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        before.extend_from_slice(word);
        before.extend_from_slice(b"\r\n");
    }
    let Some(payload) = payload else { return Framed::new(&before, b"", b"") };
    before.extend_from_slice(format!("${}\r\n", payload.len()).as_bytes());
    Framed::new(&before, payload, b"\r\n")
}

pub(super) fn subscribe(topic: &str) -> Vec<u8> {
    command(&[b"SUBSCRIBE", topic.as_bytes()], None).bytes
}

pub(super) fn ping() -> Vec<u8> {
    command(&[b"PING"], None).bytes
}

pub(super) fn publish(topic: &str, payload: &[u8]) -> Framed {
    command(&[b"PUBLISH", topic.as_bytes()], Some(payload))
}

pub(super) fn echo(payload: &[u8]) -> Framed {
    command(&[b"ECHO"], Some(payload))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_says, take_all};
    use super::super::{Dialect, Framing};
    use super::*;

    const REDIS: Dialect = Dialect { framing: Framing::Redis };

    #[test]
    fn a_session_is_read_wherever_it_is_cut() {
        let stream =
            b"*3\r\n$9\r\nsubscribe\r\n$1\r\nt\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$1\r\nt\r\n$4\r\na\r\nb\r\n+PONG\r\n\
            *2\r\n$4\r\npong\r\n$0\r\n\r\n:9000\r\n-ERR unknown command\r\n$-1\r\n";
        let replies = [
            Reply::Subscribed,
            Reply::Message { topic: Some(b"t"), payload: b"a\r\nb" },
            Reply::Pong,
            Reply::Pong,
            Reply::Published,
            Reply::Error(b"ERR unknown command"),
            Reply::Other,
        ];
        assert_says(REDIS, stream, &replies);
    }

    #[test]
    fn an_echo_is_what_was_sent() {
        let framed = echo(b"a b");
        assert_eq!(framed.bytes, b"*2\r\n$4\r\nECHO\r\n$3\r\na b\r\n");
        assert_eq!(&framed.bytes[framed.payload], b"a b");
        assert_eq!(take_all(REDIS, b"$3\r\na b\r\n"), [b"a b"]);
    }

    #[test]
    fn what_is_no_redis_is_refused() {
        for bad in [
            &b"OK PUB 1\r\n"[..],
            b"+OK\n",
            b"\r\n",
            b"*9\r\n",
            b"*-1\r\n",
            b"*1\r\n*1\r\n",
            b"$x\r\n",
            b"$99999999999\r\n",
            b"$1\r\nabc",
        ] {
            assert_eq!(decode(bad), Err(BadFrame), "{}", bad.escape_ascii());
        }
        assert_eq!(decode(&[b'+'; LINE_BYTES_MAX + 1]), Err(BadFrame));
    }
}
