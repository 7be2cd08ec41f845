//! `corecast push`: publishes from the command line, one message or every line of stdin.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use self::answer::Said;
use self::lines::{Line, Lines};
use super::client::{Client, ControlArgs, Pauses};
use super::error::CommandError;
use super::problem::{Problem, WORD_CHARS_MAX};
use super::text::grouped;
use crate::output;
use crate::printable;
use corecast::{ConnId, SlowConsumer, Target, Topic};

mod answer;
mod lines;

/// The header that carries the policy.
const POLICY_HEADER: &str = "Corecast-Slow-Consumer";

/// Lines whose refusal is told one by one; of further ones only the number is.
const REFUSALS_TOLD: u64 = 10;

const USAGE: &str = "corecast push [OPTIONS] <TOPIC> [PAYLOAD]
       corecast push [OPTIONS] --all [PAYLOAD]
       corecast push [OPTIONS] --connection <ID> [PAYLOAD]";

const EXAMPLES: &str = "Examples:
  corecast push news 'hello' --receipt
  corecast push --all -- '-1 is a payload that begins with a dash'
  tail -f events.log | corecast push events

Exit code: 0, all messages were accepted; 1, one was not, or there is no server; 2, wrong usage.";

/// Flags of `corecast push`.
#[derive(Debug, Args)]
#[command(override_usage = USAGE, after_help = EXAMPLES)]
pub(crate) struct PushArgs {
    /// The topic; with --all and --connection, the payload
    #[arg(value_name = "TOPIC")]
    first: Option<OsString>,
    /// The message; `-` or nothing: every line of stdin is one
    #[arg(value_name = "PAYLOAD")]
    second: Option<OsString>,
    /// Publish to every connection
    #[arg(long, conflicts_with = "connection")]
    all: bool,
    /// Send to the connection with this id
    #[arg(long, value_name = "ID")]
    connection: Option<ConnId>,
    /// The message is binary, even where it happens to be UTF-8
    #[arg(long)]
    binary: bool,
    /// Wait until every shard has gone through the recipients, and tell what became of the message
    #[arg(long)]
    receipt: bool,
    /// Print the server's answers as they are, one JSON object per line
    #[arg(long)]
    json: bool,
    /// What happens to the message where a client's queue is full: skip, drop-oldest, keep-latest or disconnect
    #[arg(long, value_name = "POLICY")]
    slow_consumer: Option<SlowConsumer>,
    /// The server.
    #[command(flatten)]
    control: ControlArgs,
}

/// Publishes. Whether every message was accepted; of those that were not, stderr tells.
///
/// # Errors
/// Why nothing more can be published.
pub(crate) fn run(args: &PushArgs) -> Result<bool, CommandError> {
    let (target, payload) = args.resolve()?;
    let client = Client::new(&args.control)?;
    let push = Push { args, client, target };
    match payload {
        Some(payload) => push.one(payload).map(|()| true),
        None => {
            if io::stdin().is_terminal() {
                output::complain("corecast: each line is a message; end with Ctrl-D");
            }
            push.lines(Lines::new(io::stdin().lock()))
        }
    }
}

impl PushArgs {
    /// To whom, and what; no payload: stdin.
    fn resolve(&self) -> Result<(Target, Option<&[u8]>), CommandError> {
        let flags = |text: &str| CommandError::Flags(text.to_owned());
        let to_topic = !self.all && self.connection.is_none();
        let (target, payload) = if to_topic {
            let name = self.first.as_ref().ok_or_else(|| {
                flags("push needs a recipient: a topic, --all or --connection ID; see `corecast push --help`")
            })?;
            let topic = Topic::new(name.as_bytes())
                .map_err(|error| CommandError::Flags(format!("`{}` is not a topic: {error}", name.display())))?;
            (Target::Topic(topic), &self.second)
        } else {
            if self.second.is_some() {
                return Err(flags(
                    "with --all or --connection there is no topic, only a payload; quote it if it has blanks",
                ));
            }
            (self.connection.map_or(Target::All, Target::Conn), &self.first)
        };
        let payload = payload.as_deref().filter(|payload| *payload != OsStr::new("-")).map(OsStr::as_bytes);
        Ok((target, payload))
    }
}

/// One message of a batch.
#[derive(Serialize)]
struct BatchLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broadcast: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    /// Where the payload is binary.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slow_consumer: Option<SlowConsumer>,
}

struct Push<'a> {
    args: &'a PushArgs,
    client: Client,
    target: Target,
}

/// What became of a stream of messages.
#[derive(Default)]
struct Sum {
    published: u64,
    refused: u64,
}

impl Push<'_> {
    fn query(&self) -> &'static str {
        if self.args.receipt { "?receipt=true" } else { "" }
    }

    fn one(&self, payload: &[u8]) -> Result<(), CommandError> {
        let receipt = self.query();
        let path = match &self.target {
            Target::All => format!("/v1/broadcast{receipt}"),
            Target::Topic(topic) => {
                // Not in the path, where proxies may decode slashes and fold dots.
                let name = utf8_percent_encode(topic.as_str(), NON_ALPHANUMERIC);
                format!("/v1/topic/messages?name={name}{}", receipt.replacen('?', "&", 1))
            }
            Target::Conn(id) => format!("/v1/connections/{id}/messages{receipt}"),
            _ => unreachable!("there are flags for these alone"),
        };
        let is_text = !self.args.binary && std::str::from_utf8(payload).is_ok();
        let media_type = if is_text { "text/plain; charset=utf-8" } else { "application/octet-stream" };
        let mut headers = vec![("Content-Type", media_type)];
        headers.extend(self.args.slow_consumer.map(|policy| (POLICY_HEADER, policy.name())));
        let answer = self.client.post(&path, &headers, payload)?;
        match answer.json()? {
            Said::Problem(_) => return Err(answer.foreign()),
            said => self.show(&said, answer.text.trim_end()),
        }
        Ok(())
    }

    /// Publishes every line, in order.
    fn lines<R: io::Read>(&self, mut lines: Lines<R>) -> Result<bool, CommandError> {
        let mut sum = Sum::default();
        let ended = loop {
            match lines.next_batch() {
                Ok(batch) if batch.is_empty() => break Ok(()),
                Ok(batch) => {
                    if let Err(error) = self.batch(batch, &mut sum) {
                        break Err(error);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        let is_news = sum.published + sum.refused > 0 || ended.is_ok();
        if !self.args.json && is_news {
            let refused = if sum.refused > 0 { format!(", {} refused", grouped(sum.refused)) } else { String::new() };
            let plural = if sum.published == 1 { "" } else { "s" };
            super::print(&format!("published {} message{plural}{refused}\n", grouped(sum.published)));
        } else if self.args.json && sum.refused > 0 {
            output::complain(&format!("corecast: {} messages were refused", grouped(sum.refused)));
        }
        ended.map(|()| sum.refused == 0)
    }

    /// Publishes one batch. What the server was too busy for is sent again, before anything else.
    fn batch(&self, mut lines: Vec<Line>, sum: &mut Sum) -> Result<(), CommandError> {
        let path = format!("/v1/batch{}", self.query());
        let mut pauses = Pauses::default();
        loop {
            let body = self.body(&lines);
            let answer = self.client.post(&path, &[("Content-Type", "application/x-ndjson")], &body)?;
            let mut answers = answer.text.lines().filter(|line| !line.is_empty());
            let mut busy: Option<Problem> = None;
            let sent = lines.len();
            let mut left = Vec::new();
            for line in lines {
                let text = answers.next().ok_or_else(|| answer.foreign())?;
                match serde_json::from_str(text).map_err(|_| answer.foreign())? {
                    Said::Problem(problem) if problem.is_busy() => {
                        busy = Some(problem);
                        left.push(line);
                    }
                    Said::Problem(problem) => self.refuse(&line, &problem, sum),
                    said => {
                        sum.published += 1;
                        // The ids of a thousand lines tell a person nothing.
                        if self.args.json || self.args.receipt {
                            self.show(&said, text);
                        }
                    }
                }
            }
            let Some(problem) = busy else { return Ok(()) };
            if left.len() < sent {
                pauses = Pauses::default();
            }
            if !pauses.pause(None) {
                let rest = format!("line {} and those after it are not published", left[0].number);
                return Err(CommandError::Busy { url: self.client.url(&path), tries: pauses.tries, problem, rest });
            }
            lines = left;
        }
    }

    fn body(&self, lines: &[Line]) -> Vec<u8> {
        let mut body = Vec::new();
        for line in lines {
            let text = std::str::from_utf8(&line.bytes).ok().filter(|_| !self.args.binary);
            let json = BatchLine {
                topic: if let Target::Topic(topic) = &self.target { Some(topic.as_str()) } else { None },
                broadcast: (self.target == Target::All).then_some(true),
                connection: if let Target::Conn(id) = self.target { Some(id.to_string()) } else { None },
                payload: text,
                payload_base64: text.is_none().then(|| STANDARD.encode(&line.bytes)),
                slow_consumer: self.args.slow_consumer,
            };
            serde_json::to_writer(&mut body, &json).expect("texts, which JSON can hold, into memory");
            body.push(b'\n');
        }
        body
    }

    fn refuse(&self, line: &Line, problem: &Problem, sum: &mut Sum) {
        sum.refused += 1;
        if sum.refused <= REFUSALS_TOLD {
            output::complain(&format!("corecast: line {}: {problem}", line.number));
        }
    }

    /// Shows the answer to one message. `text` is the answer as it came.
    fn show(&self, said: &Said, text: &str) {
        let line = match said {
            // White space between its parts means nothing, and one answer is one line.
            _ if self.args.json => text.replace(['\n', '\r', '\t'], " "),
            Said::Receipt(receipt) => receipt.line(),
            Said::Accepted { id } => format!("published {}", printable::line(id, WORD_CHARS_MAX)),
            Said::Problem(problem) => problem.to_string(),
        };
        super::print(&format!("{line}\n"));
    }
}
