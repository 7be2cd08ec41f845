//! The table of results, a line as soon as its measure is done.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde_json::json;

/// What a line is held against.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// Server by floor should be at most this.
    RatioAtMost(f64),
    /// Server by floor should be at least this.
    RatioAtLeast(f64),
    /// The server's figure should be at most this.
    AtMost(f64),
    /// The server's figure should be at least this.
    AtLeast(f64),
    /// The server's figure should be at least the first, and at most the second.
    Between(f64, f64),
    /// The line is there to be read.
    None,
}

/// The figures of one measure.
pub(crate) struct Row<'a> {
    pub(crate) what: &'a str,
    /// How many of what the bench counts.
    pub(crate) size: usize,
    pub(crate) server: f64,
    pub(crate) floor: Option<f64>,
    /// Of both figures.
    pub(crate) unit: &'static str,
    pub(crate) goal: Goal,
    /// Other programs got in the way.
    pub(crate) noisy: bool,
}

impl Row<'_> {
    fn ratio(&self) -> Option<f64> {
        self.floor.map(|floor| self.server / floor)
    }

    /// The goal in words, and whether it is met; `None`: there is no goal.
    fn judge(&self) -> Option<(String, bool)> {
        let ratio = self.ratio().unwrap_or(f64::NAN);
        Some(match self.goal {
            Goal::RatioAtMost(most) => (format!("ratio ≤ {most}"), ratio <= most),
            Goal::RatioAtLeast(least) => (format!("ratio ≥ {least}"), ratio >= least),
            Goal::AtMost(most) => (format!("≤ {most} {}", self.unit).trim_end().to_owned(), self.server <= most),
            Goal::AtLeast(least) => (format!("≥ {least} {}", self.unit).trim_end().to_owned(), self.server >= least),
            Goal::Between(least, most) => (format!("{least} to {most}"), (least..=most).contains(&self.server)),
            Goal::None => return None,
        })
    }
}

pub(crate) struct Table {
    bench: &'static str,
    /// What the column of sizes counts.
    of: &'static str,
    /// Whether its head is there.
    begun: bool,
    /// Whether the figures are worth holding against the goals.
    judge: bool,
    printed: bool,
    json: Option<File>,
}

impl Table {
    /// Each line is also appended to the file `json`, if there is one.
    pub(crate) fn new(bench: &'static str, of: &'static str, judge: bool, json: Option<&Path>) -> Result<Self, String> {
        let open = |path: &Path| {
            let opened = OpenOptions::new().create(true).append(true).open(path);
            opened.map_err(|error| format!("can't write to {}: {error}", path.display()))
        };
        Ok(Table { bench, of, begun: false, judge, printed: true, json: json.map(open).transpose()? })
    }

    /// A table that nobody sees.
    pub(crate) fn silent(bench: &'static str) -> Self {
        Table { bench, of: "", begun: false, judge: false, printed: false, json: None }
    }

    pub(crate) fn add(&mut self, row: &Row<'_>) -> Result<(), String> {
        let figure = |figure: f64| format!("{} {}", short(figure), row.unit).trim_end().to_owned();
        let verdict = row.judge();
        let goal = verdict.as_ref().map_or("-", |(goal, _)| goal);
        let met = verdict.as_ref().filter(|_| self.judge).map(|(_, met)| *met);
        let remark = match (met, row.noisy) {
            (Some(true), false) => "met",
            (Some(true), true) => "met, noisy",
            (Some(false), false) => "not met",
            (Some(false), true) => "not met, noisy",
            (None, false) => "",
            (None, true) => "noisy",
        };
        let floor = row.floor.map_or_else(|| "-".into(), figure);
        let ratio = row.ratio().map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"));
        if !std::mem::replace(&mut self.begun, true) {
            self.line([self.bench, self.of, "server", "floor", "ratio", "goal", ""]);
        }
        self.line([row.what, &row.size.to_string(), &figure(row.server), &floor, &ratio, goal, remark]);
        let Some(file) = &mut self.json else { return Ok(()) };
        let object = json!({
            "bench": self.bench, "what": row.what, "size": row.size, "server": row.server, "floor": row.floor,
            "unit": row.unit, "ratio": row.ratio(), "goal": verdict.map(|(goal, _)| goal), "met": met,
            "noisy": row.noisy,
        });
        writeln!(file, "{object}").map_err(|error| format!("can't write to the file of --json: {error}"))
    }

    pub(crate) fn end(self) {
        if self.printed {
            println!("Medians. The ratio is server by floor. Noisy: other programs kept the CPUs busy.");
        }
    }

    fn line(&self, [what, size, server, floor, ratio, goal, remark]: [&str; 7]) {
        if self.printed {
            let line = format!("{what:<36} {size:>11} {server:>15} {floor:>15} {ratio:>6}  {goal:<14} {remark}");
            println!("{}", line.trim_end());
        }
    }
}

/// Three digits, or all that stand before the point.
fn short(figure: f64) -> String {
    let decimals = match figure.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{figure:.decimals$}")
}
