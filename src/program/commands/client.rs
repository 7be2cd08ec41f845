//! The control API from its client's side: where it is, how one is let in, and what its answers mean.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use corecast::control;
#[cfg(feature = "load")]
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::Uri;
use ureq::http::header::{CONTENT_TYPE, RETRY_AFTER};

use super::error::CommandError;
use super::problem::{DETAIL_CHARS_MAX, Problem};
use crate::{output, printable};

/// The port of the control address where none is given.
const PORT: u16 = 8081;

/// How long a connect, and a whole call, may take. A receipt waits for every shard, so a call may take some seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of an answer at the most: a page of a thousand topics on a thousand shards fits.
const ANSWER_BYTES_MAX: u64 = 32 << 20;

/// Idle connections are given up soon, before the server does and a call meets a closed one.
const IDLE: Duration = Duration::from_secs(2);

/// Remedies where something else answers.
pub(super) const CONTROL_ADDRESS: &str =
    "give the server's control address with --control, 127.0.0.1:8081 unless it was started with another";
const CLIENT_PORT: &str = "this is the port of its clients; give the control address with --control, 127.0.0.1:8081 \
                           unless it was started with another";

/// Tries of one call that the server is too busy for.
pub(super) const TRIES: u32 = 10;

/// The first pause between two tries; each is twice as long as the one before, up to the last.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long a server may ask to wait.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

/// Where the server is, and how one is let in.
#[derive(Clone, Debug, Args)]
pub(crate) struct ControlArgs {
    /// The server's control address, as a URL or as address:port
    #[arg(
        long,
        value_name = "URL",
        env = "CORECAST_CONTROL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8081"
    )]
    control: ControlUrl,
    /// A file that holds the control API's token
    #[arg(long, value_name = "FILE", env = "CORECAST_TOKEN_FILE", hide_env_values = true)]
    token_file: Option<PathBuf>,
}

/// The base of the control API's addresses, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControlUrl(String);

impl fmt::Display for ControlUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ControlUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            || format!("`{text}` is not a control address; write it as in http://127.0.0.1:8081 or 127.0.0.1:8081");
        if text.starts_with("https://") {
            return Err(format!(
                "`{text}`: corecast doesn't speak TLS; reach the server over a tunnel, as in `ssh -L`"
            ));
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let uri: Uri = format!("{scheme}://{rest}").parse().map_err(|_| bad())?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(bad()) };
        if authority.host().is_empty() || authority.as_str().contains('@') || uri.query().is_some() {
            return Err(bad());
        }
        // A bare address has the port that the server takes; a URL has that of its scheme.
        let port = if authority.port().is_none() && !text.contains("://") { format!(":{PORT}") } else { String::new() };
        Ok(ControlUrl(format!("http://{authority}{port}{}", uri.path().trim_end_matches('/'))))
    }
}

/// Asks a server how many connections it has.
///
/// # Errors
/// As [`Client::get`].
#[cfg(feature = "load")]
pub(crate) fn count_connections(control: &ControlUrl) -> Result<u64, CommandError> {
    #[derive(Deserialize)]
    struct Stats {
        connections: u64,
    }
    let client = Client::new(&ControlArgs { control: control.clone(), token_file: None })?;
    client.get("/v1/stats").map(|stats: Stats| stats.connections)
}

/// An answer that means success.
pub(super) struct Answer {
    url: String,
    status: u16,
    /// Its bytes, which are text.
    pub(super) text: String,
}

impl Answer {
    /// Reads the answer.
    ///
    /// # Errors
    /// It is not what corecast would say.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, CommandError> {
        serde_json::from_str(&self.text).map_err(|_| self.foreign())
    }

    /// The error for an answer that corecast would not give.
    pub(super) fn foreign(&self) -> CommandError {
        // What the ports for clients say to a call like this.
        let is_client_port =
            ["/ lists what there is", "this port speaks corecast's"].iter().any(|text| self.text.contains(text));
        let meant = if is_client_port { CLIENT_PORT } else { CONTROL_ADDRESS };
        CommandError::Foreign { url: self.url.clone(), status: self.status, meant }
    }
}

/// Speaks to one server.
pub(super) struct Client {
    agent: ureq::Agent,
    base: ControlUrl,
    authorization: Option<String>,
}

impl Client {
    /// Reads the token, if there is one. Connects only when something is asked.
    ///
    /// # Errors
    /// The token can't be used.
    pub(super) fn new(args: &ControlArgs) -> Result<Self, CommandError> {
        let authorization = match &args.token_file {
            Some(path) => {
                let (token, exposure) =
                    control::read_token(path).map_err(|source| CommandError::Token { path: path.clone(), source })?;
                if let Some(exposure) = exposure {
                    output::complain(&format!("corecast: {exposure}"));
                }
                Some(format!("Bearer {token}"))
            }
            None => None,
        };
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // The control address is inside: a proxy for the outside, set in the environment, has no business here.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(CALL_TIMEOUT))
            .max_idle_age(IDLE)
            .user_agent(concat!("corecast/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Client { agent, base: args.control.clone(), authorization })
    }

    /// Where the server is.
    pub(super) fn base(&self) -> &ControlUrl {
        &self.base
    }

    /// The address of a path, for messages to people.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Asks for something.
    ///
    /// # Errors
    /// The server is away, refuses, or is not corecast.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CommandError> {
        let url = self.url(path);
        let mut request = self.agent.get(&url);
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        self.settle(url, request.call())?.json()
    }

    /// Sends something, and again while the server is too busy.
    ///
    /// # Errors
    /// As [`Client::get`], and the server stays busy.
    pub(super) fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer, CommandError> {
        let mut pauses = Pauses::default();
        loop {
            let url = self.url(path);
            let mut request = self.agent.post(&url);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if let Some(authorization) = &self.authorization {
                request = request.header("Authorization", authorization);
            }
            match self.settle(url, request.send(body)) {
                Ok(answer) => return Ok(answer),
                Err(Failure { error: CommandError::Refused { url, problem }, retry_after }) if problem.is_busy() => {
                    if !pauses.pause(retry_after) {
                        let rest = "nothing of it was published".into();
                        return Err(CommandError::Busy { url, tries: pauses.tries, problem, rest });
                    }
                }
                Err(failure) => return Err(failure.error),
            }
        }
    }

    fn settle(
        &self,
        url: String,
        result: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Answer, Failure> {
        let mut response = result.map_err(|error| self.failed(&url, &error))?;
        let status = response.status();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.map_err(|error| CommandError::Lost { url: url.clone(), reason: error.to_string() })?;
        let answer = Answer {
            url,
            status: status.as_u16(),
            text: String::from_utf8(body).map_err(|error| error.utf8_error()).unwrap_or_default(),
        };
        // A batch tells of each of its lines, also where none was published.
        let has_lines = response.headers().get(CONTENT_TYPE).is_some_and(|value| value == "application/x-ndjson");
        if status.is_success() || has_lines {
            return Ok(answer);
        }
        let Ok(problem) = serde_json::from_str::<Problem>(&answer.text) else { return Err(answer.foreign().into()) };
        Err(Failure { error: CommandError::Refused { url: answer.url, problem }, retry_after })
    }

    fn failed(&self, url: &str, error: &ureq::Error) -> CommandError {
        use ureq::Error;
        let before_it_was_sent = match error {
            Error::HostNotFound | Error::ConnectionFailed | Error::BadUri(_) => true,
            Error::Timeout(timeout) => matches!(timeout, ureq::Timeout::Connect | ureq::Timeout::Resolve),
            Error::Io(error) => {
                use std::io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable};
                matches!(error.kind(), ConnectionRefused | AddrNotAvailable | HostUnreachable | NetworkUnreachable)
            }
            _ => false,
        };
        // The outer text of an I/O error is `io: …`, which says nothing.
        let reason = if let Error::Io(error) = error { error.to_string() } else { error.to_string() };
        let reason = printable::line(&reason, DETAIL_CHARS_MAX);
        if matches!(error, Error::Protocol(_) | Error::Http(_)) {
            return CommandError::NotHttp { url: url.to_owned(), meant: CONTROL_ADDRESS };
        }
        if before_it_was_sent {
            CommandError::Unreachable { url: self.base.to_string(), reason }
        } else {
            CommandError::Lost { url: url.to_owned(), reason }
        }
    }
}

/// A call that failed, and when the server wants to be asked again.
struct Failure {
    error: CommandError,
    retry_after: Option<Duration>,
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        Failure { error, retry_after: None }
    }
}

impl From<Failure> for CommandError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// The pauses between tries.
#[derive(Default)]
pub(super) struct Pauses {
    /// Tries so far.
    pub(super) tries: u32,
}

impl Pauses {
    /// Waits until the next try is due; false: there were tries enough.
    pub(super) fn pause(&mut self, asked: Option<Duration>) -> bool {
        self.tries += 1;
        if self.tries >= TRIES {
            return false;
        }
        std::thread::sleep(pause(self.tries).max(asked.unwrap_or_default().min(RETRY_AFTER_MAX)));
        true
    }
}

/// The pause after this many tries.
fn pause(tries: u32) -> Duration {
    PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_address_is_a_url_or_an_address() {
        for (text, url) in [
            ("http://127.0.0.1:8081", "http://127.0.0.1:8081"),
            ("http://127.0.0.1:8081/", "http://127.0.0.1:8081"),
            ("127.0.0.1:9", "http://127.0.0.1:9"),
            ("[::1]:9", "http://[::1]:9"),
            ("localhost", "http://localhost:8081"),
            ("http://localhost", "http://localhost"),
            ("http://gate:80/push/", "http://gate:80/push"),
        ] {
            assert_eq!(text.parse::<ControlUrl>().unwrap().to_string(), url);
        }
        for text in ["", "ftp://a", "http://", "a b", "http://user:secret@host", "http://a/?b", "/v1/stats"] {
            assert!(text.parse::<ControlUrl>().is_err(), "{text:?}");
        }
        assert!("https://a".parse::<ControlUrl>().unwrap_err().contains("tunnel"));
    }

    #[test]
    fn pauses_grow_and_end() {
        let pauses: Vec<_> = (1..TRIES).map(|tries| pause(tries).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_000, 1_000, 1_000, 1_000]);
        assert_eq!(pause(u32::MAX), PAUSE_MAX);
        assert!(!Pauses { tries: TRIES - 1 }.pause(None));
    }
}
