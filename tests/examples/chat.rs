//! A chat room. Whoever comes says a name first; everybody gets what is said; `/who` names all that are there.
//!
//! `cargo run --example chat`, and then `nc localhost 8888` in two terminals.
//!
//! It shows what a handler keeps of a connection (its session), what it shares between shards (the list of names, behind an
//! `Arc`: each shard has a handler of its own, and sees its own connections alone), and how a client is closed that has not said
//! its name in time (a timer).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use corecast::{
    CloseReason, Context, Dialect, Event, Handler, Kind, Listen, Reject, Request, Server, Session, StartError,
};

const ROOM: &str = "room";

/// The timer of a client that has not said its name.
const NAMELESS: u64 = 1;
const NAMELESS_FOR: Duration = Duration::from_secs(30);

/// Names that are taken, on all shards.
type Names = Arc<Mutex<BTreeSet<String>>>;

struct Chat {
    names: Names,
}

impl Chat {
    fn name(&mut self, cx: &mut Context<'_>, name: &str) {
        if name.is_empty() || name.len() > 20 || !name.chars().all(char::is_alphanumeric) {
            return tell(cx, "a name has up to 20 letters and digits");
        }
        if !self.names.lock().unwrap().insert(name.to_owned()) {
            return tell(cx, "that name is taken");
        }
        cx.cancel(NAMELESS);
        cx.set_session(Session::of(name));
        if let Err(error) = cx.subscribe(ROOM) {
            return tell(cx, &error.to_string());
        }
        say(cx, format!("* {name} has come"));
    }
}

impl Handler for Chat {
    fn on_open(&mut self, cx: &mut Context<'_>, _: &Request<'_>) -> Result<Session, Reject> {
        cx.after(NAMELESS_FOR, NAMELESS).map_err(|error| Reject::unavailable(error.to_string(), 1))?;
        Ok(Session::anonymous())
    }

    fn on_connect(&mut self, cx: &mut Context<'_>) {
        tell(cx, "who are you?");
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        let text = String::from_utf8_lossy(message);
        let text = text.trim();
        match cx.user().map(str::to_owned) {
            None => self.name(cx, text),
            Some(_) if text == "/who" => {
                let names: Vec<_> = self.names.lock().unwrap().iter().cloned().collect();
                tell(cx, &names.join(" "));
            }
            Some(_) if text == "/leave" => cx.close_with(1000, "see you"),
            Some(name) => say(cx, format!("{name}: {text}")),
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, _token: u64) {
        cx.close_with(4000, "you did not say who you are");
    }

    fn on_close(&mut self, cx: &mut Context<'_>, reason: CloseReason) {
        if let Some(name) = cx.user().map(str::to_owned) {
            self.names.lock().unwrap().remove(&name);
            say(cx, format!("* {name} has left ({reason})"));
        }
    }

    /// In this room all is plain text, so what the server has to say is put so, too.
    fn render(event: Event<'_>, _: Dialect, out: &mut Vec<u8>) -> Option<Kind> {
        match event {
            Event::Gap { count, .. } => out.extend_from_slice(format!("* you missed {count} messages").as_bytes()),
            Event::Bye { text: Some(text), .. } => out.extend_from_slice(format!("* {text}").as_bytes()),
            Event::Bye { reason, .. } => out.extend_from_slice(format!("* goodbye: {reason}").as_bytes()),
            Event::Error { text, .. } => out.extend_from_slice(format!("* {text}").as_bytes()),
            event => out.extend_from_slice(event.payload()?.0),
        }
        Some(Kind::Text)
    }
}

/// To this client alone.
fn tell(cx: &mut Context<'_>, text: &str) {
    // One whose queue is full is told of the gap.
    let _ = cx.send(text.as_bytes());
}

/// To everybody in the room, on all shards.
fn say(cx: &mut Context<'_>, text: String) {
    if let Err(error) = cx.publish(ROOM, text) {
        tell(cx, &format!("* nobody heard that: {error}"));
    }
}

/// Starts the server.
pub(crate) fn start(listen: impl IntoIterator<Item = Listen>) -> Result<Server, StartError> {
    let names = Names::default();
    Server::builder(listen, move |_shard| Chat { names: Arc::clone(&names) }).start()
}

#[allow(dead_code, reason = "the tests call `start`")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = start(["line=[::]:8888".parse()?])?;
    println!("listening on {}", server.listen()[0]);
    Ok(server.wait()?)
}
