//! Private topics: whoever opens a WebSocket shows a token, and gets what is sent to the user whose token it is.
//!
//! `cargo run --example token`, and then, with any WebSocket client:
//!
//! ```text
//! websocat 'ws://localhost:8080/ws?token=sesame'
//! websocat -H 'Authorization: Bearer sesame' ws://localhost:8080/ws
//! ```
//!
//! A token that is not right is answered with the status 401, before there is a connection. Pages can't set a header, so
//! they put the token into the query, which proxies may log: make such tokens short-lived.

use std::collections::HashMap;
use std::sync::Arc;

use corecast::{Context, Handler, Listen, Reject, Request, Server, Session, StartError};

/// Users by their tokens. A real server verifies a signature here, or asks its cache: a callback must not wait.
pub(crate) type Users = HashMap<String, String>;

struct Private {
    users: Arc<Users>,
}

impl Handler for Private {
    fn on_open(&mut self, cx: &mut Context<'_>, request: &Request<'_>) -> Result<Session, Reject> {
        let in_query = request.parameter("token");
        let token = request.bearer().or(in_query.as_deref());
        let token =
            token.ok_or_else(|| Reject::unauthorized("show a token: Authorization: Bearer TOKEN, or ?token=TOKEN"))?;
        let user = self.users.get(token).ok_or_else(|| Reject::unauthorized("this token is not valid"))?;
        if !request.topics().is_empty() {
            return Err(Reject::forbidden("topics can't be chosen here: you get what is sent to you"));
        }
        cx.subscribe(&topic_of(user)).map_err(|error| Reject::unavailable(error.to_string(), 5))?;
        Ok(Session::of(&user[..]))
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        // `TO TEXT`: a message from one user to another.
        let text = String::from_utf8_lossy(message);
        let Some((to, text)) = text.split_once(' ') else { return cx.close_with(1008, "write: USER TEXT") };
        let from = cx.user().unwrap_or_default().to_owned();
        if let Err(error) = cx.publish(&topic_of(to), format!("{from}: {text}")) {
            let _ = cx.send(format!("not sent: {error}").as_bytes());
        }
    }
}

fn topic_of(user: &str) -> String {
    format!("user:{user}")
}

/// Starts the server.
pub(crate) fn start(listen: impl IntoIterator<Item = Listen>, users: Users) -> Result<Server, StartError> {
    let users = Arc::new(users);
    Server::builder(listen, move |_shard| Private { users: Arc::clone(&users) }).start()
}

#[allow(dead_code, reason = "the tests call `start`")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let users = [("sesame", "ali"), ("rose", "zoe")].map(|(token, user)| (token.into(), user.into())).into();
    let server = start(["http=[::]:8080".parse()?], users)?;
    println!("listening on {}", server.listen()[0]);
    Ok(server.wait()?)
}
