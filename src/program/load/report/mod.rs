//! The result: one list of figures, printed as a table for people and as JSON for programs.
//!
//! The JSON object has `scenario`, `ok`, `problems` and `warnings` (sentences), and one object for each section of the table.
//! A key's name says its unit: `_us` microseconds, `_s` seconds, `_per_s` per second, `_bytes` bytes; all others
//! are counts. Percentiles end in `_p50`, `_p90`, `_p99`, `_p999` and `_max`. What was not measured is missing.
//!
//! | section | keys |
//! | --- | --- |
//! | `settings` | `target`, `framing`, `source_ips`, `topic` (texts), `connections`, `threads`, `processes` (if several), `duration_s`, and those of the scenario |
//! | `connect` | `ready`, `failed`, `failed_tries`, `failures` (counts by reason), `connects_per_s`, `connect_us_*`, `ready_us_*` |
//! | `idle` | `held_s`, `closed`, `closed_reasons` (counts by reason), `pings`, `pings_unanswered`, `ping_us_*` |
//! | `echo` | `round_trips`, `round_trips_per_s`, `rtt_us_*`, `unanswered`, `corrupted`, `duplicated`, `closed`, `closed_reasons` |
//! | `fanout` | `published`, `refused`, `publish_late_us_*`, `subscribers`, `expected`, `delivered`, `delivered_per_s`, `latency_us_*`, `last_recipient_us_*`, `lost`, `gaps_reported`, `gap_notices`, `gaps_over_reported`, `duplicated`, `reordered`, `corrupted`, `unexpected`, `foreign`, `closed`, `closed_reasons`, `stalled`, `stalled_closed` |
//! | `churn` | `begun`, `begun_per_s`, `begun_late_us_*`, `not_begun`, `left_clean`, `left_abrupt`, `not_closed`, `close_us_*`, and those of `fanout` that tell of messages |
//! | `series` | `slot_s`, and a list each, a value for each slot or null: `time_s`, `latency_us_*`, `delivered_per_s`, `dropped_per_s`, `published_per_s`, `connections`, `connects_per_s`, `connect_us_*` |
//! | `ramp` | `private_before_bytes`, `private_grown_bytes`, `private_kept_bytes`, `kept_percent`, `private_lost_bytes`, `lost_percent`, `close_s`, `fds_left`, `connections_left`, `cost_spread_percent`, and `steps`, a list of objects: `connections`, `connects_per_s`, `private_bytes_per_connection`, `resident_bytes_per_connection`, `machine_bytes_per_connection` (both ends, without the client's process), `client_bytes_per_connection`, `all_received`, `all_us`, `all_cpu_us_per_message`, `few_received`, `few_us`, `few_cpu_us_per_message` |
//! | `client` | `cpu_s`, `cpu_us_per_message` |
//! | `server`, with `--server-pid`, of all but a ramp | `cpu_s`, `cpu_us_per_message`, `memory_before_bytes`, `memory_after_bytes`, `memory_bytes_per_connection` |

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use super::LoadError;
use super::connect::Reasons;
use super::coordinator::Run;
use super::latency::Latency;
use super::plan::{Load, Plan};
use super::ramp::Climb;
use super::text::time_text;
use super::timeline::{Arrivals, Timeline};
use super::usage::ServerUse;
use crate::commands::text::grouped;

pub(super) mod churn;
mod deliveries;
pub(super) mod echo;
pub(super) mod fanout;
pub(super) mod idle;
pub(super) mod ramp;
mod series;

pub(super) use series::{Column, Series};

/// A figure, in the unit that its table row and its JSON key are made from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Count(u64),
    PerSecond(f64),
    Seconds(f64),
    Bytes(usize),
    Nanos(f64),
    Percent(f64),
    Text(String),
    Reasons(Reasons),
    Rows(Vec<Row>),
}

/// A row of a table: the key, the heading and the value of each column.
pub(super) type Row = Vec<(&'static str, &'static str, Value)>;

#[derive(Clone, Debug)]
pub(super) struct Figure {
    pub(super) key: String,
    pub(super) label: String,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) figures: Vec<Figure>,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) scenario: &'static str,
    pub(super) sections: Vec<Section>,
    /// What was measured by time.
    pub(super) series: Series,
    /// Whole distributions, with what they are of.
    pub(super) distributions: Vec<(&'static str, Latency)>,
    /// What went wrong, a sentence each; empty if all went well.
    pub(super) problems: Vec<String>,
    /// What is worth a look and may be no fault of the server, a sentence each.
    pub(super) warnings: Vec<String>,
    /// What a picture can be drawn of.
    pub(super) picture: Option<Climb>,
}

impl Section {
    pub(super) fn new(name: &'static str) -> Section {
        Section { name, figures: Vec::new() }
    }

    pub(super) fn add(&mut self, key: impl Into<String>, label: impl Into<String>, value: Value) {
        self.figures.push(Figure { key: key.into(), label: label.into(), value });
    }

    pub(super) fn count(&mut self, key: &str, label: &str, count: u64) {
        self.add(key, label, Value::Count(count));
    }

    /// The percentiles of a latency under `key`, which ends in `_us`; nothing if nothing was measured.
    pub(super) fn latency(&mut self, key: &str, label: &str, latency: &Latency, quantiles: &[(&str, f64)]) {
        if latency.is_empty() {
            return;
        }
        for (name, quantile) in quantiles {
            let suffix = name.replace('.', "");
            let value = Value::Nanos(latency.at(*quantile) as f64);
            self.add(format!("{key}_{suffix}"), format!("{label} {name}"), value);
        }
        self.add(format!("{key}_max"), format!("{label} max"), Value::Nanos(latency.max() as f64));
    }

    /// Counts by reason, if there are any.
    pub(super) fn reasons(&mut self, key: &str, label: &str, reasons: &Reasons) {
        if reasons.total() > 0 {
            self.add(key, label, Value::Reasons(reasons.clone()));
        }
    }
}

/// The percentiles of what a run is about.
pub(super) const FULL: &[(&str, f64)] = &[("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// The percentiles of the rest.
pub(super) const SHORT: &[(&str, f64)] = &[("p50", 0.5), ("p99", 0.99)];

impl Report {
    /// A report with what all scenarios share; `settings` and `own` are the scenario's parts.
    pub(super) fn new<R>(plan: &Plan, run: &Run<R>, settings: Section, own: Section, messages: u64) -> Report {
        let scenario = own.name;
        let mut problems = Vec::new();
        if run.begin_ns.is_none() {
            problems.push("interrupted before all connections were ready".to_owned());
        }
        if run.links.given_up > 0 {
            let failures = &run.connects.failures;
            problems.push(format!("{} of {} connections failed ({failures})", run.links.given_up, run.attempts(plan)));
        }
        if run.links.closed > 0 {
            problems.push(format!("{} connections were lost ({})", run.links.closed, run.closed));
        }
        let mut sections = vec![settings, connect_section(plan, run), own, client_section(run, messages)];
        match (plan.server, run.server) {
            (_, Some(server)) => sections.push(server_section(&server, run.links.open(), messages)),
            // A ramp reads more of the process, and more often, and fails if it can't.
            (Some(process), None) if run.begin_ns.is_some() && !matches!(plan.load, Load::Ramp(_)) => {
                problems.push(format!("the server's process {} has ended", process.0));
            }
            _ => {}
        }
        let series = Series::new(run);
        let mut report = Report {
            scenario,
            sections,
            series,
            distributions: Vec::new(),
            problems,
            warnings: Vec::new(),
            picture: None,
        };
        report.distribution("first answer", &run.connects.ready);
        report
    }

    /// Adds what the threads received, by time.
    pub(super) fn over_time<'a>(&mut self, timelines: impl Iterator<Item = &'a Timeline<Arrivals>>) {
        timelines.for_each(|timeline| self.series.add(timeline));
    }

    /// Adds a whole distribution, if there is one; the first one is what the run is about.
    pub(super) fn distribution(&mut self, label: &'static str, latency: &Latency) {
        if !latency.is_empty() {
            self.distributions.insert(0, (label, latency.clone()));
        }
    }

    /// Adds a problem if `count` is not 0; the text comes behind the number.
    pub(super) fn problem(&mut self, count: u64, text: &str) {
        if count > 0 {
            self.problems.push(format!("{count} {text}"));
        }
    }

    pub(super) fn to_json(&self) -> Json {
        let mut object = Map::new();
        object.insert("scenario".into(), json!(self.scenario));
        object.insert("ok".into(), json!(self.problems.is_empty()));
        object.insert("problems".into(), json!(self.problems));
        object.insert("warnings".into(), json!(self.warnings));
        for section in &self.sections {
            let figures = section.figures.iter().map(|figure| (figure.key.clone(), figure.value.to_json()));
            object.insert(section.name.into(), Json::Object(figures.collect()));
        }
        object.insert("series".into(), self.series.to_json());
        Json::Object(object)
    }
}

/// What was asked for, as far as all scenarios share it.
pub(super) fn settings_section(plan: &Plan) -> Section {
    let mut section = Section::new("settings");
    section.add("target", "target", Value::Text(plan.target.to_string()));
    section.add("framing", "framing", Value::Text(plan.dialect.framing.name().to_owned()));
    if let Some(sources) = plan.sources {
        section.add("source_ips", "source addresses", Value::Text(sources.to_string()));
    }
    section.count("connections", "connections", plan.connections as u64);
    section.count("threads", "threads", plan.workers() as u64);
    if plan.processes > 1 {
        section.count("processes", "processes", plan.processes as u64);
    }
    if !matches!(plan.load, Load::Ramp(_)) {
        section.add("duration_s", "duration", Value::Seconds(plan.duration.as_secs_f64()));
    }
    section
}

fn connect_section<R>(plan: &Plan, run: &Run<R>) -> Section {
    let mut section = Section::new("connect");
    section.count("ready", "ready", run.links.ready);
    section.count("failed", "failed", run.links.given_up);
    section.count("failed_tries", "failed tries", run.connects.failures.total());
    section.reasons("failures", "failed tries by reason", &run.connects.failures);
    let first = run.connects.first_begin_ns;
    if let Some(span_ns) = first.and_then(|first| run.connects.last_ready_ns.checked_sub(first)).filter(|&ns| ns > 0) {
        let rate = run.links.ready as f64 * 1e9 / span_ns as f64;
        section.add("connects_per_s", "connects", Value::PerSecond(rate));
    }
    let quantiles = if plan.connects_under_load() { FULL } else { SHORT };
    section.latency("connect_us", "connect", &run.connects.connect, quantiles);
    section.latency("ready_us", "first answer", &run.connects.ready, quantiles);
    section
}

fn client_section<R>(run: &Run<R>, messages: u64) -> Section {
    let mut section = Section::new("client");
    section.add("cpu_s", "CPU time", Value::Seconds(run.cpu_ns as f64 / 1e9));
    if messages > 0 {
        let each = run.cpu_ns as f64 / messages as f64;
        section.add("cpu_us_per_message", "CPU time per message", Value::Nanos(each));
    }
    section
}

fn server_section(server: &ServerUse, connections: u64, messages: u64) -> Section {
    let mut section = Section::new("server");
    let cpu_ns = server.end.cpu_ns.saturating_sub(server.begin.cpu_ns) as f64;
    section.add("cpu_s", "CPU time", Value::Seconds(cpu_ns / 1e9));
    if messages > 0 {
        section.add("cpu_us_per_message", "CPU time per message", Value::Nanos(cpu_ns / messages as f64));
    }
    let (before, end) = (server.before.memory.private, server.end.memory.private);
    section.add("memory_before_bytes", "memory before", Value::Bytes(before as usize));
    section.add("memory_after_bytes", "memory in the end", Value::Bytes(end as usize));
    // Memory that was given back meanwhile makes it less than nothing; then nothing can be said.
    if let Some(grown) = end.checked_sub(before).filter(|_| connections > 0) {
        let each = (grown / connections) as usize;
        section.add("memory_bytes_per_connection", "memory per connection", Value::Bytes(each));
    }
    section
}

impl Value {
    fn to_json(&self) -> Json {
        // Microseconds and rates with three decimals: more would be noise.
        let rounded = |value: f64| json!((value * 1e3).round() / 1e3);
        match self {
            Value::Count(count) => json!(count),
            Value::Bytes(bytes) => json!(bytes),
            Value::PerSecond(value) | Value::Seconds(value) | Value::Percent(value) => rounded(*value),
            Value::Nanos(ns) => rounded(ns / 1e3),
            Value::Text(text) => json!(text),
            Value::Reasons(reasons) => json!(reasons.0),
            Value::Rows(rows) => {
                let column = |(key, _, value): &(&str, &str, Value)| ((*key).to_owned(), value.to_json());
                rows.iter().map(|row| Json::Object(row.iter().map(column).collect())).collect()
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Count(count) => f.write_str(&grouped(*count)),
            Value::PerSecond(rate) if *rate < 100.0 => write!(f, "{rate:.1} /s"),
            Value::PerSecond(rate) => write!(f, "{} /s", grouped(rate.round() as u64)),
            Value::Seconds(seconds) => write!(f, "{seconds:.2} s"),
            Value::Bytes(bytes) => write!(f, "{} B", grouped(*bytes as u64)),
            Value::Nanos(ns) => f.write_str(&time_text(*ns)),
            Value::Text(text) => f.write_str(text),
            Value::Percent(percent) => write!(f, "{percent:.1} %"),
            Value::Reasons(reasons) => reasons.fmt(f),
            Value::Rows(rows) => table(rows, f),
        }
    }
}

/// The columns of a table, by key and heading: those of the row that has most of them.
pub(super) fn columns(rows: &[Row]) -> Vec<(&'static str, &'static str)> {
    let longest = rows.iter().max_by_key(|row| row.len());
    longest.into_iter().flatten().map(|(key, heading, _)| (*key, *heading)).collect()
}

/// The value of a row under `key`; empty if it has none.
pub(super) fn cell(row: &Row, key: &str) -> String {
    row.iter().find(|(own, ..)| *own == key).map_or(String::new(), |(.., value)| value.to_string())
}

/// Rows under their headings, each column as wide as it must be. A value that a row lacks leaves its place empty.
fn table(rows: &[Row], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let columns = columns(rows);
    if columns.is_empty() {
        return f.write_str("none");
    }
    let mut lines = vec![columns.iter().map(|(_, heading)| (*heading).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|(key, _)| cell(row, key)).collect()));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    for (number, line) in lines.iter().enumerate() {
        f.write_str(if number > 0 { "\n  " } else { "  " })?;
        for (column, cell) in line.iter().enumerate() {
            write!(f, "{cell:>width$}{}", if column + 1 < line.len() { "  " } else { "" }, width = width(column))?;
        }
    }
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.sections.iter().flat_map(|section| &section.figures).map(|figure| figure.label.len());
        let width = labels.max().unwrap_or(0);
        for section in &self.sections {
            writeln!(f, "{}", section.name)?;
            for Figure { label, value, .. } in &section.figures {
                match value {
                    Value::Rows(_) => writeln!(f, "{value}")?,
                    _ => writeln!(f, "  {label:width$}  {value}")?,
                }
            }
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        if self.problems.is_empty() {
            return write!(f, "result: all well");
        }
        write!(f, "result: FAILED")?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

/// A file for the result, opened before the run so that a bad path does not cost one.
pub(super) struct OutputFile {
    option: &'static str,
    path: PathBuf,
    file: File,
}

impl OutputFile {
    /// For the path that `option` gave.
    pub(super) fn create(option: &'static str, path: &Path) -> Result<OutputFile, LoadError> {
        let failed = |source| LoadError::Output { option, path: path.to_owned(), source };
        Ok(OutputFile { option, path: path.to_owned(), file: File::create(path).map_err(failed)? })
    }

    pub(super) fn write(mut self, text: &str) -> Result<(), LoadError> {
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|source| LoadError::Output { option: self.option, path: self.path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well_and_keep_their_units() {
        for (value, text, json) in [
            (Value::Count(1_234_567), "1,234,567", json!(1_234_567)),
            (Value::PerSecond(1_500.4), "1,500 /s", json!(1500.4)),
            (Value::PerSecond(0.5), "0.5 /s", json!(0.5)),
            (Value::Percent(4.26), "4.3 %", json!(4.26)),
            (
                Value::Rows(vec![
                    vec![("a", "first", Value::Count(1_000))],
                    vec![("a", "first", Value::Count(7)), ("b_us", "second", Value::Nanos(2.5e3))],
                ]),
                "  first   second\n  1,000         \n      7  2.50 µs",
                json!([{"a": 1_000}, {"a": 7, "b_us": 2.5}]),
            ),
            (Value::Nanos(7_530.0), "7.53 µs", json!(7.53)),
            (Value::Nanos(75_300.0), "75 µs", json!(75.3)),
            (Value::Nanos(1_234_567.0), "1.23 ms", json!(1234.567)),
            (Value::Nanos(2.5e9), "2.50 s", json!(2_500_000.0)),
            (Value::Bytes(1_024), "1,024 B", json!(1_024)),
        ] {
            assert_eq!((value.to_string().as_str(), value.to_json()), (text, json));
        }
    }

    #[test]
    fn a_latency_has_a_key_for_each_percentile_and_none_if_nothing_was_measured() {
        let mut section = Section::new("echo");
        section.latency("rtt_us", "round trip", &Latency::default(), FULL);
        assert!(section.figures.is_empty());
        let mut latency = Latency::default();
        latency.record(5_000);
        section.latency("rtt_us", "round trip", &latency, FULL);
        let keys: Vec<_> = section.figures.iter().map(|figure| figure.key.as_str()).collect();
        assert_eq!(keys, ["rtt_us_p50", "rtt_us_p90", "rtt_us_p99", "rtt_us_p999", "rtt_us_max"]);
        assert_eq!(section.figures[3].label, "round trip p99.9");
    }
}
