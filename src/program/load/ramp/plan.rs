//! What a ramp is to do.

use std::path::PathBuf;
use std::time::Duration;

use super::args::RampArgs;
use crate::load::LoadError;
use crate::load::checks::{check_message_size, in_range, positive};
use crate::load::dialect::Dialect;

/// Messages to all at each step at the most.
const MESSAGES_MAX: u32 = 100;

/// The plan of a ramp.
#[derive(Clone, Debug)]
pub(in crate::load) struct RampPlan {
    /// Numbers of connections, rising.
    pub(in crate::load) steps: Vec<usize>,
    pub(in crate::load) topic: String,
    /// The topic of one connection in a hundred.
    pub(in crate::load) few_topic: String,
    /// What they say to be subscribed to it too.
    pub(in crate::load) few_hello: Vec<u8>,
    pub(in crate::load) message_bytes: usize,
    /// Messages to all at each step.
    pub(in crate::load) messages: u32,
    pub(in crate::load) control: Option<crate::commands::ControlUrl>,
    pub(in crate::load) settle: Duration,
    pub(in crate::load) patience: Duration,
    pub(in crate::load) ping_every: Option<Duration>,
    pub(in crate::load) limits: Limits,
    pub(in crate::load) svg: Option<PathBuf>,
}

impl RampPlan {
    /// Checks what only a ramp has.
    pub(in crate::load) fn new(args: &RampArgs, topic: String) -> Result<RampPlan, LoadError> {
        let few_topic = format!("{topic}-few");
        let Some(few_hello) = (Dialect { framing: args.framing }).subscribe_also(&few_topic) else {
            return Err(LoadError::Argument {
                option: "--framing",
                value: args.framing.name().into(),
                allowed: "a ramp adds a second topic to open connections; use line, length or ws".into(),
            });
        };
        if args.patience.is_zero() {
            return Err(LoadError::Argument {
                option: "--patience",
                value: "0".into(),
                allowed: "it must be above 0".into(),
            });
        }
        let kept_max = args.kept_max.map(|percent| positive("--kept-max", percent, "0", 0.0, 100.0)).transpose()?;
        let spread_max =
            args.spread_max.map(|percent| positive("--spread-max", percent, "0", 0.0, 100.0)).transpose()?;
        Ok(RampPlan {
            steps: args.steps.all().to_vec(),
            topic,
            few_topic,
            few_hello,
            message_bytes: check_message_size(args.message_size)?,
            messages: in_range("--messages", args.messages, 1, MESSAGES_MAX)?,
            control: args.control.clone(),
            settle: args.settle,
            patience: args.patience,
            ping_every: Some(args.ping_every).filter(|period| !period.is_zero()),
            limits: Limits { bytes_max: args.bytes_max, spread_max, kept_max },
            svg: args.svg.clone(),
        })
    }

    /// Connections that the server itself counts, if its control address was given.
    pub(super) fn counted(&self) -> Result<Option<u64>, LoadError> {
        if let Some(control) = &self.control {
            return crate::commands::count_connections(control).map(Some).map_err(LoadError::Control);
        }
        Ok(None)
    }
}

/// What a ramp must keep to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::load) struct Limits {
    pub(in crate::load) bytes_max: Option<usize>,
    pub(in crate::load) spread_max: Option<f64>,
    pub(in crate::load) kept_max: Option<f64>,
}
