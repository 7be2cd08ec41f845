//! Who is there: each user once, however many connections they have, on whichever shards.
//!
//! `cargo run --example presence`, and then `nc localhost 8888` in a few terminals: a line is a user's name, and everybody is
//! told of the first connection of a user and of the end of the last one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use corecast::{CloseReason, Context, Handler, Listen, Server, ServerHandle, Session, StartError};

const PRESENCE: &str = "presence";

/// How many connections each user has, over all shards.
#[derive(Clone, Default)]
pub(crate) struct Present(Arc<Mutex<BTreeMap<String, usize>>>);

impl Present {
    /// Counts one more; whether it is the user's first.
    fn come(&self, user: &str) -> bool {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = users.entry(user.to_owned()).or_default();
        *count += 1;
        *count == 1
    }

    /// Counts one less; whether it was the user's last.
    fn go(&self, user: &str) -> bool {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = users.get_mut(user) else { return false };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            users.remove(user);
        }
        is_last
    }

    /// Those who are there.
    pub(crate) fn users(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

struct Roll {
    present: Present,
}

impl Handler for Roll {
    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        let Ok(user) = std::str::from_utf8(message) else { return cx.close_with(1007, "a name is UTF-8") };
        if cx.user().is_some() {
            return cx.close_with(1008, "a connection is one user's");
        }
        cx.set_session(Session::of(user));
        let _ = cx.subscribe(PRESENCE);
        if self.present.come(user) {
            // A publish that is refused for a full queue is a notice that is lost; `users` is right all the same.
            let _ = cx.publish(PRESENCE, format!("+{user}"));
        }
        let _ = cx.send(self.present.users().join(" ").as_bytes());
    }

    /// Comes for each connection once, whatever ended it: the client, a timeout, a drain.
    fn on_close(&mut self, cx: &mut Context<'_>, _: CloseReason) {
        let user = cx.user().map(str::to_owned);
        if let Some(user) = user.filter(|user| self.present.go(user)) {
            let _ = cx.publish(PRESENCE, format!("-{user}"));
        }
    }
}

/// Starts the server. What comes with it can be asked from any thread.
pub(crate) fn start(listen: impl IntoIterator<Item = Listen>) -> Result<(Server, Present), StartError> {
    let present = Present::default();
    let shared = present.clone();
    let server = Server::builder(listen, move |_shard| Roll { present: shared.clone() }).start()?;
    Ok((server, present))
}

/// Prints who is there, now and then, for as long as the server runs.
fn watch(server: &ServerHandle, present: &Present) {
    while !server.is_draining() {
        println!("{} connections, users: {}", server.conn_count(), present.users().join(" "));
        std::thread::sleep(std::time::Duration::from_secs(5));
    }
}

#[allow(dead_code, reason = "the tests call `start`")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (server, present) = start(["line=[::]:8888".parse()?])?;
    println!("listening on {}", server.listen()[0]);
    let handle = server.handle();
    std::thread::spawn(move || watch(&handle, &present));
    Ok(server.wait()?)
}
