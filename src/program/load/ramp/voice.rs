//! One blocking connection beside the crowd: it publishes, and shows that the server takes a fresh connection.

use std::io::{self, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::load::dialect::{Dialect, Reply, readable, split_word};
use crate::load::plan::Plan;
use crate::load::publisher::refusal;
use crate::load::{LoadError, link};

/// Pause before a publish that the server was too busy for is tried again.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// A connection that waits for its answers.
pub(super) struct Voice<'a> {
    plan: &'a Plan,
    dialect: Dialect,
    stream: TcpStream,
    held: Vec<u8>,
}

impl<'a> Voice<'a> {
    pub(super) fn connect(plan: &'a Plan) -> Result<Voice<'a>, LoadError> {
        let unreachable =
            |source| LoadError::Unreachable { target: plan.target, source, server: plan.server_command() };
        let patience = Some(plan.connect_timeout);
        let stream = TcpStream::connect_timeout(&plan.target, plan.connect_timeout).map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        stream.set_read_timeout(patience).map_err(unreachable)?;
        stream.set_write_timeout(patience).map_err(unreachable)?;
        let mut voice = Voice { plan, dialect: plan.dialect.publishing(), stream, held: Vec::new() };
        if let Some(opening) = voice.dialect.opening(None) {
            voice.ask(&opening, "GET", |reply| matches!(reply, Reply::Upgraded).then_some(Ok(())))?;
        }
        Ok(voice)
    }

    /// Publishes a frame that says `what`, and waits until the server has taken it.
    pub(super) fn publish(&mut self, frame: &[u8], what: &str) -> Result<(), LoadError> {
        let target = self.plan.target;
        let deadline = Instant::now() + self.plan.connect_timeout;
        loop {
            let is_taken = self.ask(frame, what, |reply| match reply {
                Reply::Published => Some(Ok(true)),
                Reply::Error(error) if split_word(error).0 == b"busy" && Instant::now() < deadline => Some(Ok(false)),
                Reply::Error(error) => Some(Err(refusal(target, error))),
                _ => None,
            })?;
            if is_taken {
                return Ok(());
            }
            thread::sleep(BUSY_PAUSE);
        }
    }

    /// Asks for a sign of life.
    pub(super) fn ping(&mut self) -> Result<(), LoadError> {
        let ping = self.dialect.ping();
        self.ask(&ping, "PING", |reply| matches!(reply, Reply::Pong).then_some(Ok(())))
    }

    /// Sends a frame and reads until `judge` knows what to make of a reply; it knows nothing of a foreign one.
    fn ask<T>(
        &mut self,
        frame: &[u8],
        sent: &str,
        judge: impl Fn(Reply<'_>) -> Option<Result<T, LoadError>>,
    ) -> Result<T, LoadError> {
        let plan = self.plan;
        let failed = |source: io::Error| match source.kind() {
            // What a blocking socket says when its time is up.
            io::ErrorKind::WouldBlock => LoadError::NoAnswer {
                target: plan.target,
                sent: sent.to_owned(),
                seconds: plan.connect_timeout.as_secs(),
                framing: plan.dialect.framing.name(),
            },
            _ => LoadError::Unreachable { target: plan.target, source, server: plan.server_command() },
        };
        self.stream.write_all(frame).map_err(failed)?;
        let mut buffer = [0; 4096];
        loop {
            let wrong = |said: &[u8]| LoadError::WrongServer {
                target: plan.target,
                sent: sent.to_owned(),
                said: readable(said),
                server: plan.server_command(),
            };
            match self.dialect.decode(&self.held) {
                Ok(Some((range, used))) => {
                    let message = self.dialect.message(&self.held, range).map_err(|_| wrong(&self.held))?;
                    let reply = self.dialect.reply(&message);
                    if matches!(reply, Reply::Ping | Reply::Greeting) {
                        let pong = if reply == Reply::Ping { self.dialect.pong(&message) } else { Vec::new() };
                        drop(message);
                        self.stream.write_all(&pong).map_err(failed)?;
                        self.held.drain(..used);
                        continue;
                    }
                    let judged = judge(reply).unwrap_or_else(|| Err(wrong(&message)));
                    drop(message);
                    self.held.drain(..used);
                    return judged;
                }
                Ok(None) => {}
                Err(_) => return Err(wrong(&self.held)),
            }
            match link::read(&mut self.stream, &mut buffer).map_err(failed)? {
                0 => return Err(failed(io::Error::other("it closed the connection without an answer"))),
                count => self.held.extend_from_slice(&buffer[..count]),
            }
        }
    }
}
