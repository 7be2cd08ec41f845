//! One screen about a server: the same for `corecast stats` and for the live view. Pure: values in, lines out.

use std::time::Duration;

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::sample::{Rates, Reasons, Stats, Topics};
use crate::commands::problem::WORD_CHARS_MAX;
use crate::commands::text::{grouped, micros, size, uptime};
use crate::printable;

/// Columns of the names at the left.
const NAME: usize = 13;

/// Columns below which nothing is laid out any more; lines are cut instead.
const WIDTH_MIN: usize = 72;

/// Rows of topics that shards may not take.
const TOPIC_ROWS: usize = 4;

/// Reasons that are shown at the most; a server has fewer.
const REASONS_SHOWN: usize = 32;

const EIGHTHS: [char; 9] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What is shown.
pub(super) struct View<'a> {
    /// The server's address.
    pub(super) url: &'a str,
    pub(super) stats: &'a Stats,
    /// None before the second sample.
    pub(super) rates: Option<&'a Rates>,
    /// Deliveries a second, oldest first; empty outside of the live view.
    pub(super) history: &'a [u64],
    pub(super) topics: Option<&'a Topics>,
    /// Why the figures are old, if they are.
    pub(super) trouble: Option<&'a str>,
}

/// Lays the screen out. With a height, shards and topics are cut to what fits.
pub(super) fn lines(view: &View<'_>, width: usize, height: Option<usize>) -> Vec<Line<'static>> {
    let width = width.max(WIDTH_MIN);
    let mut lines = head(view, width);
    lines.push(Line::default());
    let shards = view.stats.shards.len();
    let topics = view.topics.map_or(0, |topics| topics.top.len());
    // Both tables have a title, and a blank line stands between them.
    let room = height.map_or(usize::MAX, |height| height.saturating_sub(lines.len() + 3));
    let shard_rows = shards.min(room.saturating_sub(topics.min(TOPIC_ROWS)).max(1));
    lines.extend(shard_table(view, width, shard_rows));
    lines.push(Line::default());
    lines.extend(topic_table(view.topics, width, topics.min(room.saturating_sub(shard_rows))));
    lines.truncate(height.unwrap_or(usize::MAX));
    lines
}

fn head(view: &View<'_>, width: usize) -> Vec<Line<'static>> {
    let stats = view.stats;
    let totals = &stats.totals;
    let state = Style::new().fg(if stats.state == "running" { Color::Green } else { Color::Yellow });
    let mut title = Line::from(vec![
        Span::styled(format!("corecast {}", word(&stats.version)), Modifier::BOLD),
        Span::raw("  "),
        Span::styled(word(&stats.state), state),
        Span::raw(format!("  up {}", uptime(Duration::try_from_secs_f64(stats.uptime_s).unwrap_or_default()))),
    ]);
    let gap = width.saturating_sub(title.width() + view.url.chars().count());
    if gap > 0 {
        title.push_span(Span::styled(format!("{:gap$}{}", "", view.url), Modifier::DIM));
    }
    let mut lines = vec![title];
    if let Some(trouble) = view.trouble {
        lines.push(Line::styled(trouble.to_owned(), Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)));
    }

    let share = stats.connections as f64 / stats.max_connections.max(1) as f64;
    let text = format!("{} of {}  ", grouped(stats.connections), grouped(stats.max_connections));
    let percent = format!(" {:.0}%", share * 100.0);
    let bar_width = width.saturating_sub(NAME + text.chars().count() + percent.len());
    let color = if share >= 0.9 { Color::Red } else { Color::Cyan };
    lines.push(Line::from(vec![
        name("connections"),
        Span::raw(text),
        bar(share, bar_width, color),
        Span::raw(percent),
    ]));

    let each = stats.bytes_per_connection.map(|bytes| format!(", {} a connection", size(bytes))).unwrap_or_default();
    let buffers = format!("; {} of {} in buffers", size(totals.held_bytes), size(stats.buffers_max));
    lines.push(entry("memory", format!("{}{each}{buffers}", size(stats.resident_bytes))));
    lines.extend(rate_lines(view.rates, width));
    if !view.history.is_empty() {
        lines.push(history_line(view.history, width));
    }
    lines.push(entry(
        "time to last",
        match (&stats.time_to_last_us.p50, &stats.time_to_last_us.p99) {
            (_, _) if stats.time_to_last_us.count == 0 => "nothing published yet".into(),
            (p50, p99) => format!(
                "p50 {}, p99 {}, of {} since the start",
                at_most(*p50),
                at_most(*p99),
                grouped(stats.time_to_last_us.count)
            ),
        },
    ));
    lines.push(entry(
        "waiting",
        format!(
            "{} messages ({}) for clients, {} publishes, {} between shards",
            grouped(totals.queued_messages),
            size(totals.queued_bytes),
            grouped(totals.publish_queue),
            grouped(totals.mesh_backlog),
        ),
    ));
    lines.push(reasons("dropped", &totals.dropped));
    lines.push(reasons("closed", &totals.closed));
    let mut trouble = Vec::new();
    trouble.extend(
        nonzero(&totals.refused).map(|(reason, count)| format!("refused for {} {}", word(reason), grouped(count))),
    );
    if totals.accept_errors > 0 {
        trouble.push(format!("accept errors {}", grouped(totals.accept_errors)));
    }
    if totals.stalls > 0 {
        trouble.push(format!("stalls {} (longest {} ms)", grouped(totals.stalls), grouped(totals.stall_ms_max)));
    }
    if !trouble.is_empty() {
        lines.push(entry("trouble", trouble.join(" · ")));
    }
    lines
}

/// A word of the server's, as a terminal may have it.
fn word(text: &str) -> String {
    printable::line(text, WORD_CHARS_MAX)
}

/// The upper end of the bucket that a quantile is in; the last bucket has none.
fn at_most(us: Option<u64>) -> String {
    us.map_or_else(|| "over 4 s".into(), |us| format!("≤ {}", micros(us)))
}

fn name(text: &str) -> Span<'static> {
    Span::styled(format!("{text:NAME$}"), Modifier::DIM)
}

fn entry(title: &str, text: String) -> Line<'static> {
    Line::from(vec![name(title), Span::raw(text)])
}

fn nonzero(reasons: &Reasons) -> impl Iterator<Item = (&str, u64)> {
    let mut found: Vec<_> = reasons.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    found.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    found.into_iter().filter(|(_, count)| *count > 0).take(REASONS_SHOWN)
}

fn reasons(title: &str, reasons: &Reasons) -> Line<'static> {
    let texts: Vec<_> =
        nonzero(reasons).map(|(reason, count)| format!("{} {}", word(reason), grouped(count))).collect();
    entry(title, if texts.is_empty() { "none".into() } else { texts.join(" · ") })
}

fn rate_lines(rates: Option<&Rates>, width: usize) -> [Line<'static>; 2] {
    let titles = ["in", "out", "delivered", "dropped", "accepted", "closed"];
    let column = (width.saturating_sub(NAME) / titles.len()).min(13);
    let titles: String = titles.map(|title| format!("{title:>column$}")).concat();
    let values = rates.map(|rates| {
        let Rates { messages_in, messages_out, delivered, dropped, accepted, closed, .. } = rates;
        [messages_in, messages_out, delivered, dropped, accepted, closed]
    });
    let mut line = Line::from(name("a second"));
    for index in 0..6 {
        let text = values.map_or_else(|| "-".into(), |values| grouped(*values[index]));
        let is_drop = index == 3 && values.is_some_and(|values| *values[3] > 0);
        let style = if is_drop { Style::new().fg(Color::Red) } else { Style::new() };
        line.push_span(Span::styled(format!("{text:>column$}"), style));
    }
    [Line::from(vec![name(""), Span::styled(titles, Modifier::DIM)]), line]
}

fn history_line(history: &[u64], width: usize) -> Line<'static> {
    let peak = history.iter().copied().max().unwrap_or(0);
    let text = format!("  peak {}/s", grouped(peak));
    let columns = width.saturating_sub(NAME + text.len());
    let shown = &history[history.len().saturating_sub(columns)..];
    let chart: String = shown.iter().map(|value| HEIGHTS[scaled(*value, peak, HEIGHTS.len() - 1)]).collect();
    Line::from(vec![name("delivered"), Span::styled(chart, Color::Cyan), Span::styled(text, Modifier::DIM)])
}

/// `value` of `most`, in steps; what is not nothing is one step at least.
fn scaled(value: u64, most: u64, steps: usize) -> usize {
    if value == 0 || most == 0 {
        return 0;
    }
    ((value as f64 / most as f64 * steps as f64).round() as usize).clamp(1, steps)
}

/// A bar of this many columns, filled to an eighth of a column.
fn bar(share: f64, width: usize, color: Color) -> Span<'static> {
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    let mut text = String::new();
    for column in 0..width {
        text.push(EIGHTHS[eighths.saturating_sub(column * 8).min(8)]);
    }
    Span::styled(text, Style::new().fg(color))
}

fn shard_table(view: &View<'_>, width: usize, rows: usize) -> Vec<Line<'static>> {
    let shards = &view.stats.shards;
    let connections = |shard: &super::sample::Shard| shard.counts.connections;
    let most = shards.iter().map(connections).max().unwrap_or(0);
    let bar_width = width - 53;
    let mut lines = vec![Line::styled(
        format!(
            "{:>5} {:>12} {:bar_width$} {:>9} {:>13} {:>8}",
            "shard", "connections", "", "queued", "delivered/s", "stalls"
        ),
        Modifier::DIM,
    )];
    // A row is given up for the line that says how many are missing.
    let shown = if rows < shards.len() { rows.saturating_sub(1) } else { rows };
    for (index, shard) in shards.iter().take(shown).enumerate() {
        let share = connections(shard) as f64 / most.max(1) as f64;
        let rate = view.rates.and_then(|rates| rates.delivered_by_shard.get(index)).map(|rate| grouped(*rate));
        lines.push(Line::from(vec![
            Span::raw(format!("{:>5} {:>12} ", shard.shard, grouped(connections(shard)))),
            bar(share, bar_width, Color::Cyan),
            Span::raw(format!(
                " {:>9} {:>13} {:>8}",
                grouped(shard.counts.queued_messages),
                rate.unwrap_or_else(|| "-".into()),
                grouped(shard.counts.stalls)
            )),
        ]));
    }
    if shown < shards.len() {
        let least = shards.iter().map(connections).min().unwrap_or(0);
        let text = format!(
            "      … and {} more; from {} to {} connections a shard",
            shards.len() - shown,
            grouped(least),
            grouped(most)
        );
        lines.push(Line::styled(text, Modifier::DIM));
    }
    lines
}

fn topic_table(topics: Option<&Topics>, width: usize, rows: usize) -> Vec<Line<'static>> {
    let Some(topics) = topics else { return Vec::new() };
    if topics.top.is_empty() {
        return vec![Line::styled("no topic has a subscriber", Modifier::DIM)];
    }
    let title = if topics.is_part { "topic (of the first 1,000)" } else { "topic" };
    let name_width = width - 49;
    let row = |topic: &str, texts: [String; 4]| {
        let [subscribers, published, delivered, dropped] = texts;
        format!("{} {subscribers:>11} {published:>11} {delivered:>13} {dropped:>10}", cut(topic, name_width))
    };
    let titles = ["subscribers", "published", "delivered", "dropped"].map(str::to_owned);
    let mut lines = vec![Line::styled(row(title, titles), Modifier::DIM)];
    for topic in topics.top.iter().take(rows) {
        let numbers = [topic.subscribers, topic.published, topic.delivered, topic.dropped].map(grouped);
        lines.push(Line::raw(row(&printable::line(&topic.topic, name_width), numbers)));
    }
    lines
}

/// Text in exactly this many columns: padded, or cut with a mark.
fn cut(text: &str, width: usize) -> String {
    let columns = |text: &str| Span::raw(text.to_owned()).width();
    let mut kept = text.to_owned();
    if columns(text) > width {
        while columns(&kept) + 1 > width && kept.pop().is_some() {}
        kept.push('…');
    }
    let fill = width.saturating_sub(columns(&kept));
    format!("{kept}{:fill$}", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fill_by_eighths_and_never_overflow() {
        let text = |share, width| bar(share, width, Color::Cyan).content.into_owned();
        assert_eq!(text(0.5, 4), "██  ");
        assert_eq!(text(0.53125, 4), "██▏ ");
        assert_eq!(text(7.0, 4), "████");
        assert_eq!(text(f64::NAN, 3).chars().count(), 3);
    }

    #[test]
    fn names_are_cut_by_columns_not_by_bytes() {
        assert_eq!(cut("news", 6), "news  ");
        assert_eq!(cut("newspaper", 6), "newsp…");
        assert_eq!(cut("日本語新聞", 6), "日本… ");
    }

    #[test]
    fn little_is_more_than_nothing() {
        assert_eq!([scaled(0, 100, 7), scaled(1, 100, 7), scaled(100, 100, 7), scaled(5, 0, 7)], [0, 1, 7, 0]);
    }
}
