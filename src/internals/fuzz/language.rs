//! The hub's language in words.

use std::borrow::Cow;

use super::commands::{check_command, check_events, check_mistake, check_replies, topic_bytes_max};
use super::objects::object;
use crate::hub::cause::Cause;
use crate::hub::json;
use crate::hub::language::{self, Command};
use crate::message::Kind;

/// A command in words: what is understood is written anew, in words and as JSON, and understood the same; what is answered,
/// and what is published, goes over the wire as one message that reads back.
pub fn language(data: &[u8]) {
    let Some((settings, message)) = data.split_first() else { return };
    let topic_bytes_max = topic_bytes_max(*settings);
    let command = match language::parse(message, topic_bytes_max) {
        Ok(command) => command,
        Err(mistake) => return check_mistake(&mistake, &Cause::Command(None)),
    };
    check_command(&command, topic_bytes_max);
    let words = words(&command);
    let as_json = as_json(command.clone());
    check_words(crate::json::without_mark(message), &words, &command);
    let mut lower = words.clone();
    let verb_bytes = words.iter().position(|byte| *byte == b' ').unwrap_or(words.len());
    lower[..verb_bytes].make_ascii_lowercase();
    for again in [&words, &lower] {
        assert_eq!(language::parse(again, topic_bytes_max).as_ref(), Ok(&command), "{}", again.escape_ascii());
    }
    let marked = ["\u{feff}".as_bytes(), &words].concat();
    assert_eq!(language::parse(&marked, topic_bytes_max).as_ref(), Ok(&command), "a byte order mark is passed over");
    if matches!(command, Command::Subscribe(_) | Command::Unsubscribe(_) | Command::Id) {
        let ended = [&words, &b"\r\n"[..]].concat();
        assert_eq!(language::parse(&ended, topic_bytes_max).as_ref(), Ok(&command), "a line end is passed over");
    }
    if let Some(as_json) = as_json {
        let object = object(&as_json, None);
        let parsed = json::parse(object.as_bytes(), topic_bytes_max);
        assert_eq!((parsed.id, parsed.command.as_ref()), (None, Ok(&as_json)), "{object}");
    }
    check_replies(&command, &Cause::Command(None));
    check_events(&command);
}

/// What was understood is all that was sent, but for the case of the verb, and white space at the end where no text stands.
fn check_words(message: &[u8], words: &[u8], command: &Command<'_>) {
    let verb_bytes = words.iter().position(|byte| *byte == b' ').unwrap_or(words.len());
    let (verb, rest) = message.split_at(verb_bytes);
    assert!(verb.eq_ignore_ascii_case(&words[..verb_bytes]), "{}", message.escape_ascii());
    let has_text = !matches!(command, Command::Subscribe(_) | Command::Unsubscribe(_) | Command::Id)
        && !matches!(command, Command::Ping { text: None });
    let rest = if has_text { rest } else { rest.trim_ascii_end() };
    assert_eq!(rest, &words[verb_bytes..], "{}", message.escape_ascii());
}

/// A command as its client writes it.
fn words(command: &Command<'_>) -> Vec<u8> {
    let of = |verb: &str, topics: &[Cow<'_, str>]| format!("{verb} {}", topics.join(" ")).into_bytes();
    match command {
        Command::Subscribe(topics) => of("SUB", topics),
        Command::Unsubscribe(topics) => of("UNSUB", topics),
        Command::Publish { topic, payload, .. } => [format!("PUB {topic} ").as_bytes(), payload].concat(),
        Command::Cast { payload, .. } => [b"CAST ", &payload[..]].concat(),
        Command::Ping { text: Some(text) } => [b"PING ", &text[..]].concat(),
        Command::Ping { text: None } => b"PING".to_vec(),
        Command::Id => b"ID".to_vec(),
    }
}

/// The command as JSON has it, where the kind of a payload is always said; `None`: a text of it is not UTF-8.
fn as_json(mut command: Command<'_>) -> Option<Command<'_>> {
    match &mut command {
        Command::Publish { payload, kind, .. } | Command::Cast { payload, kind } => {
            *kind = Some(if std::str::from_utf8(payload).is_ok() { Kind::Text } else { Kind::Binary });
        }
        Command::Ping { text: Some(text) } => {
            std::str::from_utf8(text).ok()?;
        }
        _ => {}
    }
    Some(command)
}
