//! The hub's language as JSON.

use serde_json::{Map, Value};

use super::commands::{check_command, check_events, check_mistake, check_replies, topic_bytes_max};
use super::objects::object;
use crate::hub::cause::{Cause, CommandId};
use crate::hub::json;

/// A command as JSON: what is understood is all that the object says, and written anew it is understood the same; what is
/// answered is one line of JSON that names the command.
pub fn json(data: &[u8]) {
    let Some((settings, message)) = data.split_first() else { return };
    let topic_bytes_max = topic_bytes_max(*settings);
    let parsed = json::parse(message, topic_bytes_max);
    if let Some(CommandId::Text(id)) = &parsed.id {
        assert!(id.len() <= 64, "each answer repeats an id, so it is bounded");
    }
    let cause = Cause::Command(parsed.id.clone());
    let command = match parsed.command {
        Ok(command) => command,
        Err(mistake) => return check_mistake(&mistake, &cause),
    };
    check_command(&command, topic_bytes_max);
    let again = object(&command, parsed.id.as_ref());
    assert_eq!(members(crate::json::without_mark(message)), members(again.as_bytes()), "{again}");
    let reread = json::parse(again.as_bytes(), topic_bytes_max);
    assert_eq!((&reread.id, reread.command.as_ref()), (&parsed.id, Ok(&command)), "{again}");
    check_replies(&command, &cause);
    check_events(&command);
}

/// The members of an object that say something.
fn members(text: &[u8]) -> Map<String, Value> {
    let Ok(Value::Object(mut members)) = serde_json::from_slice(text) else {
        panic!("it is no object: {}", text.escape_ascii())
    };
    members.retain(|_, value| !value.is_null());
    members
}
