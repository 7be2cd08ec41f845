//! What a person sees on stderr while a run goes on.

use std::fmt;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::plan::{Load, Plan};
use super::shared::Totals;
use super::text::time_text;
use crate::log;

/// How often a line tells how many are connected, where there is no bar.
const TELL_STEP: Duration = Duration::from_secs(10);

/// A bar on a terminal, a line for each phase elsewhere, nothing with `--quiet`.
pub(super) struct Progress {
    bar: ProgressBar,
    is_bar: bool,
    is_lines: bool,
    /// When a line was last written while connecting.
    told: Instant,
}

impl Progress {
    pub(super) fn new(quiet: bool) -> Progress {
        let is_terminal = stderr().is_terminal();
        Progress {
            bar: ProgressBar::hidden(),
            is_bar: is_terminal && !quiet,
            is_lines: !is_terminal && !quiet,
            told: Instant::now(),
        }
    }

    /// Whether live figures are shown.
    pub(super) fn is_live(&self) -> bool {
        self.is_bar
    }

    pub(super) fn connecting(&mut self, plan: &Plan, connections: usize) {
        self.phase(connections as u64, "{msg} [{bar:32}] {pos}/{len}  {rate}  ready in {eta}");
        self.line(&format!("connecting {connections} to {}", plan.target));
        self.told = Instant::now();
        self.bar.set_message("connecting");
    }

    pub(super) fn connected(&mut self, totals: &Totals) {
        self.bar.set_position(totals.links.ready);
        if self.told.elapsed() > TELL_STEP {
            self.told = Instant::now();
            self.line(&format!("{} connected so far", totals.links.ready));
        }
        if totals.links.given_up > 0 {
            self.bar.set_message(format!("connecting ({} failed)", totals.links.given_up));
        }
    }

    pub(super) fn running(&mut self, plan: &Plan, totals: &Totals) {
        self.phase(plan.duration.as_millis() as u64, "{prefix} [{bar:32}] {msg}");
        let what = match &plan.load {
            Load::Idle { .. } => "holding",
            Load::Echo { .. } => "echoing",
            Load::Fanout(_) | Load::Ramp(_) => "publishing",
            Load::Churn(_) => "churning",
        };
        self.bar.set_prefix(what);
        self.line(&match &plan.load {
            Load::Churn(churn) => format!("{what} for {:?} at {} connects/s", plan.duration, churn.rate),
            _ => format!("{what} for {:?} on {} connections", plan.duration, totals.links.ready),
        });
    }

    /// `rate` is what came per second since the last tick.
    pub(super) fn tick(&self, elapsed: Duration, rate: f64, totals: &Totals) {
        if !self.is_bar {
            return;
        }
        self.bar.set_position(elapsed.as_millis() as u64);
        let closed = match totals.links.closed {
            0 => String::new(),
            closed => format!("  {closed} closed"),
        };
        self.bar.set_message(format!(
            "{:.0} of {:.0} s  {rate:.0}/s  p99 {}{closed}",
            elapsed.as_secs_f64(),
            self.bar.length().unwrap_or(0) as f64 / 1e3,
            time_text(totals.p99_ns as f64)
        ));
    }

    pub(super) fn settling(&self) {
        self.bar.set_prefix("waiting for the rest");
        self.line("waiting for the rest");
    }

    pub(super) fn measuring(&self) {
        self.bar.set_message("measuring");
    }

    pub(super) fn closing(&self) {
        self.bar.set_message("closing");
        self.line("closing all connections");
    }

    pub(super) fn done(&self) {
        self.bar.finish_and_clear();
    }

    fn phase(&mut self, length: u64, template: &str) {
        self.bar.finish_and_clear();
        if self.is_bar {
            let style = ProgressStyle::with_template(template)
                .expect("the templates are constants that parse")
                .with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
                    // A bar that can't be drawn is no reason to stop.
                    let _ = write!(out, "{:.0}/s", state.per_sec());
                });
            self.bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr()).with_style(style);
        }
    }

    /// A line that stays, on a terminal too.
    pub(super) fn note(&self, text: &str) {
        self.line(text);
        self.bar.println(format!("load: {text}"));
    }

    fn line(&self, text: &str) {
        if self.is_lines {
            log::say(&format!("load: {text}"));
        }
    }
}
