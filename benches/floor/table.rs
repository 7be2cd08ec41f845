//! The table of results, a line as soon as its measure is done.

use std::time::Duration;

/// What a figure is held against.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// The value should be at most this.
    AtMost(f64, &'static str),
    /// The value should be at least this.
    AtLeast(f64, &'static str),
    None,
}

/// The figures of one measure.
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) connections: usize,
    pub(crate) server: String,
    pub(crate) floor: Option<String>,
    /// Server by floor.
    pub(crate) ratio: Option<f64>,
    /// What is held against the goal.
    pub(crate) judged: f64,
    pub(crate) goal: Goal,
    /// Other programs got in the way.
    pub(crate) noisy: bool,
}

pub(crate) struct Table {
    /// Whether the figures are worth holding against the goals.
    judge: bool,
}

impl Table {
    pub(crate) fn start(judge: bool) -> Self {
        let table = Table { judge };
        table.line(["what", "connections", "server", "floor", "ratio", "goal", ""]);
        table
    }

    pub(crate) fn add(&mut self, row: &Row) {
        let ratio = row.ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"));
        let (goal, met) = match row.goal {
            Goal::AtMost(most, unit) => (format!("≤ {most}{unit}"), row.judged <= most),
            Goal::AtLeast(least, unit) => (format!("≥ {least}{unit}"), row.judged >= least),
            Goal::None => ("-".into(), true),
        };
        let floor = row.floor.as_deref().unwrap_or("-");
        let remark = match (met || !self.judge, row.noisy) {
            (true, false) => "",
            (false, false) => "missed",
            (true, true) => "noisy",
            (false, true) => "missed, noisy",
        };
        self.line([row.what, &row.connections.to_string(), &row.server, floor, &ratio, &goal, remark]);
    }

    pub(crate) fn end(self) {
        println!(
            "Medians; CPU with the kernel's part; the ratio is server by floor. Noisy: other programs kept the CPUs busy."
        );
    }

    fn line(&self, [what, connections, server, floor, ratio, goal, remark]: [&str; 7]) {
        let line = format!("{what:<34} {connections:>11} {server:>14} {floor:>14} {ratio:>6}  {goal:<9} {remark}");
        println!("{}", line.trim_end());
    }
}

/// The middle one of some figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => figures[len / 2],
        len => (figures[len / 2 - 1] + figures[len / 2]) / 2.0,
    }
}

pub(crate) fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}
