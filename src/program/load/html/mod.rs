//! The result as a page with plots: one file that needs nothing else.

use std::env;
use std::time::SystemTime;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::machine::Machine;
use super::ramp::plot::{Curve, panels};
use super::report::{Column, Report, Row, Section, Value, cell, columns};
use axis::{Axis, Unit};
use plot::{Hue, Line, Plot};

mod axis;
mod plot;

const STYLE: &str = include_str!("page.css");

/// Width and height of a plot on a wide and on a narrow screen, in pixels.
const WIDE: (u32, u32) = (860, 260);
const NARROW: (u32, u32) = (360, 240);

/// Ticks of an axis at the most.
const Y_TICKS: usize = 5;
const X_TICKS: usize = 8;
const X_TICKS_NARROW: usize = 4;

/// A course over time needs this many slots to be one.
const SLOTS_MIN: usize = 2;

/// Connects that take fewer slots are over before there is a course to be seen.
const CONNECT_SLOTS_MIN: usize = 3;

/// Decades of the percentile curve at the most: 99.9999 %.
const NINES_MAX: f64 = 6.0;

/// The figures that stand first, by their keys, for each kind of load.
const HEADLINES: &[(&str, &[&str])] = &[
    ("idle", &["ready", "held_s", "closed", "ping_us_p50", "ping_us_p99", "connects_per_s"]),
    ("echo", &["round_trips", "round_trips_per_s", "rtt_us_p50", "rtt_us_p99", "rtt_us_p999", "rtt_us_max"]),
    ("fanout", &["delivered", "delivered_per_s", "lost", "latency_us_p50", "latency_us_p99", "latency_us_max"]),
    ("ramp", &["ready", "private_grown_bytes", "kept_percent", "fds_left", "cost_spread_percent", "close_s"]),
    ("churn", &["begun_per_s", "ready_us_p50", "ready_us_p99", "delivered", "lost", "latency_us_p99"]),
];

/// Figures that stand first where a kind of load names none.
const HEADLINE_FIGURES: usize = 6;

/// Where, when and how a report came about.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) command: String,
    pub(super) machine: Machine,
    pub(super) at: SystemTime,
}

impl Origin {
    /// This process's, now.
    pub(super) fn here() -> Origin {
        let words = env::args_os().skip(1).map(|word| quoted(&word.to_string_lossy()));
        let command = std::iter::once("corecast".to_owned()).chain(words).collect::<Vec<_>>().join(" ");
        Origin { command, machine: Machine::here(), at: SystemTime::now() }
    }
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The whole page.
pub(super) fn page(report: &Report, origin: &Origin) -> String {
    let title = format!("corecast load {}", report.scenario);
    let when = humantime::format_rfc3339_seconds(origin.at);
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    p.when { (when) " · " (setting(report, "target")) " · " (setting(report, "framing")) }
                }
                (verdict(report))
                (tiles(report))
                (steps(report))
                (plots(report))
                h2 { "All figures" }
                div.tables { @for section in &report.sections { (table(section)) } }
                (provenance(origin))
            }
        }
    };
    markup.into_string()
}

/// A figure by its key, wherever it stands.
fn figure<'a>(report: &'a Report, key: &str) -> Option<(&'a str, &'a Value)> {
    let mut figures = report.sections.iter().flat_map(|section| &section.figures);
    figures.find(|figure| figure.key == key).map(|figure| (figure.label.as_str(), &figure.value))
}

fn setting(report: &Report, key: &str) -> String {
    figure(report, key).map(|(_, value)| value.to_string()).unwrap_or_default()
}

fn verdict(report: &Report) -> Markup {
    html! {
        @if report.problems.is_empty() {
            p.verdict.well { strong { "✓ All well" } }
        } @else {
            div.verdict.failed {
                strong { "✗ Failed" }
                ul { @for problem in &report.problems { li { (problem) } } }
            }
        }
        @for warning in &report.warnings {
            p { "Warning: " (warning) }
        }
    }
}

fn tiles(report: &Report) -> Markup {
    let named = HEADLINES.iter().find(|(scenario, _)| *scenario == report.scenario).map(|(_, keys)| *keys);
    let own = report.sections.iter().find(|section| section.name == report.scenario);
    let figures: Vec<_> = match (named, own) {
        (Some(keys), _) => keys.iter().filter_map(|key| figure(report, key)).collect(),
        (None, Some(own)) => {
            own.figures.iter().take(HEADLINE_FIGURES).map(|figure| (figure.label.as_str(), &figure.value)).collect()
        }
        (None, None) => Vec::new(),
    };
    html! {
        div.tiles {
            @for (label, value) in figures {
                div.tile { span.label { (label) } span.value { (value.to_string()) } }
            }
        }
    }
}

fn table(section: &Section) -> Markup {
    html! {
        table {
            caption { (section.name) }
            @for figure in &section.figures {
                @if !matches!(figure.value, Value::Rows(_)) {
                    tr { th scope="row" { (figure.label) } td { (figure.value.to_string()) } }
                }
            }
        }
        @for figure in &section.figures {
            @if let Value::Rows(rows) = &figure.value { (table_of_rows(rows)) }
        }
    }
}

/// A table as the one for people has it.
fn table_of_rows(rows: &[Row]) -> Markup {
    let columns = columns(rows);
    html! {
        div.rows {
            table {
                tr { @for (_, heading) in &columns { th scope="col" { (heading) } } }
                @for row in rows {
                    tr { @for (key, _) in &columns { td { (cell(row, key)) } } }
                }
            }
        }
    }
}

/// What each step of a ramp found, against its connections.
fn steps(report: &Report) -> Markup {
    let panels = report.picture.iter().flat_map(panels).filter_map(|panel| {
        let line = |(curve, hue): (&Curve, Hue)| {
            // The rest of a name is for those who have no table beside it.
            let label = curve.name.split_once(':').map_or(curve.name, |(label, _)| label);
            Line { label, hue, points: curve.points.iter().map(|&(x, y)| (x, Some(y))).collect() }
        };
        let curves = panel.curves.iter().rev().zip([Hue::Blue, Hue::Red]);
        let lines: Vec<_> = curves.filter(|(curve, _)| !curve.points.is_empty()).map(line).collect();
        let end = lines.iter().flat_map(|line| line.points.last()).map(|(x, _)| *x).fold(0.0, f64::max);
        (end > 0.0).then(|| {
            in_both_sizes(panel.title, |ticks| Plot {
                x: Axis::along(Unit::Count, end, ticks),
                y: Axis::upwards(Unit::Count, values(&lines), Y_TICKS),
                x_label: "connections",
                y_label: panel.unit,
                lines: lines.clone(),
                is_filled: false,
            })
        })
    });
    html! { @for panel in panels { (panel) } }
}

fn provenance(origin: &Origin) -> Markup {
    let Machine { cpu, cpus, kernel, memory } = &origin.machine;
    html! {
        h2 { "To repeat it" }
        pre { code { (origin.command) } }
        footer {
            p { "corecast " (env!("CARGO_PKG_VERSION")) ", the load generator, ran on " (cpu) ", " (cpus) " CPUs, "
                (memory) " of memory, " (kernel) "." }
        }
    }
}

/// A plot in both sizes, of which the style sheet shows one.
fn in_both_sizes(title: &str, plot: impl Fn(usize) -> Plot) -> Markup {
    let draw = |(width, height), ticks| PreEscaped(plot(ticks).svg(width, height));
    html! {
        figure {
            figcaption { (title) }
            div.wide role="img" aria-label=(title) { (draw(WIDE, X_TICKS)) }
            div.narrow role="img" aria-label=(title) { (draw(NARROW, X_TICKS_NARROW)) }
        }
    }
}

fn plots(report: &Report) -> Markup {
    let times = report.series.times();
    let columns = report.series.columns();
    let end = times.last().copied().unwrap_or_default().max(1.0);
    let course = |title: &str, unit, y_label, filled, lines: &[(&str, &'static str, Hue)]| {
        let lines: Vec<_> =
            lines.iter().filter_map(|(key, label, hue)| line(&times, find(&columns, key)?, label, *hue)).collect();
        let is_long = lines.iter().any(|line| line.points.iter().filter(|(_, y)| y.is_some()).count() >= SLOTS_MIN);
        if !is_long {
            return None;
        }
        Some(in_both_sizes(title, |ticks| Plot {
            x: Axis::along(Unit::Seconds, end, ticks),
            y: Axis::upwards(unit, values(&lines), Y_TICKS),
            x_label: "seconds since the start",
            y_label,
            lines: lines.clone(),
            is_filled: filled,
        }))
    };
    let timed = |title: &str, keys: [&str; 3]| {
        let [p50, p99, max] = keys;
        let lines = [(p50, "p50", Hue::Blue), (p99, "p99", Hue::Purple), (max, "max", Hue::Red)];
        course(title, Unit::Time, "time", false, &lines)
    };
    let connect_slots = find(&columns, "connect_us_p50").map_or(0, |column| column.values.iter().flatten().count());
    let connects_go_on = connect_slots >= CONNECT_SLOTS_MIN;
    let has_dropped = find(&columns, "dropped_per_s").map(|column| column.values.iter().flatten().any(|&n| n > 0.0));
    let what = report.distributions.first().map_or("latency", |(label, _)| label);
    let plots = [
        timed(&format!("{} over time", capital(what)), ["latency_us_p50", "latency_us_p99", "latency_us_max"]),
        course("Messages received", Unit::Count, "messages/s", true, &[("delivered_per_s", "received", Hue::Green)]),
        course("Messages published", Unit::Count, "messages/s", true, &[("published_per_s", "published", Hue::Green)]),
        has_dropped.filter(|dropped| *dropped).and_then(|_| {
            let lines = [("dropped_per_s", "dropped", Hue::Red)];
            course("Messages dropped, told by GAP", Unit::Count, "messages/s", true, &lines)
        }),
        course("Connections open", Unit::Count, "connections", true, &[("connections", "open", Hue::Blue)]),
        connects_go_on
            .then(|| {
                course("New connections", Unit::Count, "connects/s", true, &[("connects_per_s", "new", Hue::Blue)])
            })
            .flatten(),
        connects_go_on
            .then(|| timed("First answer to a new connection", ["connect_us_p50", "connect_us_p99", "connect_us_max"]))
            .flatten(),
    ];
    html! {
        @if plots.iter().all(Option::is_none) {
            p.note { "The run was too short for plots over time." }
        }
        @for plot in plots.into_iter().flatten() { (plot) }
        @if has_dropped == Some(false) { p.note { "No message was dropped." } }
        (distribution(report))
    }
}

fn find<'a>(columns: &'a [Column], key: &str) -> Option<&'a Column> {
    columns.iter().find(|column| column.key == key)
}

fn line(times: &[f64], column: &Column, label: &'static str, hue: Hue) -> Option<Line> {
    let points: Vec<_> = times.iter().copied().zip(column.values.iter().copied()).collect();
    points.iter().any(|(_, y)| y.is_some()).then_some(Line { label, hue, points })
}

fn values(lines: &[Line]) -> impl Iterator<Item = f64> {
    lines.iter().flat_map(|line| &line.points).filter_map(|(_, y)| *y)
}

/// The curve of percentiles: the further to the right, the rarer.
fn distribution(report: &Report) -> Markup {
    let hues = [Hue::Blue, Hue::Purple];
    let lines: Vec<_> = report
        .distributions
        .iter()
        .zip(hues)
        .map(|((label, latency), hue)| {
            let decades = |quantile: f64| -(1.0 - quantile).max(f64::MIN_POSITIVE).log10();
            // What is rarer than one in all has not been seen. The maximum would be infinitely far to the right.
            let end = (latency.count() as f64).log10().clamp(1.0, NINES_MAX);
            let points =
                latency.curve().into_iter().map(|(quantile, ns)| (decades(quantile).min(end), Some(ns as f64)));
            Line { label, hue, points: points.collect() }
        })
        .collect();
    let end = lines.iter().flat_map(|line| line.points.last()).map(|(x, _)| *x).fold(1.0, f64::max);
    html! {
        @if !lines.is_empty() {
            (in_both_sizes("Distribution: what share takes at most how long", |ticks| Plot {
                x: Axis::along(Unit::Nines, end, ticks),
                y: Axis::upwards(Unit::Time, values(&lines), Y_TICKS),
                x_label: "share of all",
                y_label: "time",
                lines: lines.clone(),
                is_filled: false,
            }))
        }
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_a_shell_needs_it() {
        for (word, text) in
            [("--rate=5", "--rate=5"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''"), ("$x", "'$x'")]
        {
            assert_eq!(quoted(word), text);
        }
    }
}
