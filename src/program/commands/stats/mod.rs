//! `corecast stats`: one screen about a running server, once or live.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use ratatui::crossterm::terminal;

use self::sample::{Rates, Sample, Topics};
use self::screen::View;
use self::watch::Watch;
use super::client::{Client, ControlArgs};
use super::error::CommandError;
use super::problem::WORD_CHARS_MAX;
use super::text::{micros, size};
use crate::printable;

mod sample;
mod screen;
mod watch;

/// Time between two looks at the server.
const PERIOD: Duration = Duration::from_secs(1);

/// Looks between two looks at the topics, which cost the server more.
const TOPICS_EVERY: u32 = 5;

/// Columns of a screen that is written to a file or a pipe.
const PIPE_WIDTH: usize = 100;

/// Flags of `corecast stats`.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Show it live until `q`; if stdout is not a terminal, print a line each second
    #[arg(long, short)]
    watch: bool,
    /// Print JSON: what the server says, with the rates per second and the top topics
    #[arg(long)]
    json: bool,
    /// The server.
    #[command(flatten)]
    control: ControlArgs,
}

/// Shows what the server does.
///
/// # Errors
/// The server can't be asked, or the terminal can't be used.
pub(crate) fn run(args: &StatsArgs) -> Result<bool, CommandError> {
    let client = Client::new(&args.control)?;
    let first = Sample::take(&client)?;
    // An overloaded server may have no time for topics; the rest is worth showing all the more.
    let topics = Topics::take(&client).ok();
    if !args.watch {
        once(args, &client, &first, topics)?;
    } else if args.json || !io::stdout().is_terminal() {
        follow(args, &client, first, topics)?;
    } else {
        let watch = Watch::new(client.base().to_string(), first, topics);
        watch::run(client, watch)?;
    }
    Ok(true)
}

/// Prints the screen for the second from now.
fn once(args: &StatsArgs, client: &Client, first: &Sample, topics: Option<Topics>) -> Result<(), CommandError> {
    std::thread::sleep(PERIOD);
    let sample = Sample::take(client)?;
    let rates = Rates::between(&first.stats, &sample.stats);
    if args.json {
        super::print(&format!("{}\n", sample.json(rates, &topics.unwrap_or_default())));
        return Ok(());
    }
    let width =
        if io::stdout().is_terminal() { terminal::size().map_or(80, |(width, _)| width.into()) } else { PIPE_WIDTH };
    let url = client.base().to_string();
    let view = View {
        url: &url,
        stats: &sample.stats,
        rates: rates.as_ref(),
        history: &[],
        topics: topics.as_ref(),
        trouble: None,
    };
    let lines = screen::lines(&view, width, None);
    super::print(&lines.iter().map(|line| format!("{}\n", line.to_string().trim_end())).collect::<String>());
    Ok(())
}

/// Prints a line each second, until nobody reads.
fn follow(args: &StatsArgs, client: &Client, mut last: Sample, topics: Option<Topics>) -> Result<(), CommandError> {
    let mut topics = topics.unwrap_or_default();
    for round in 1_u32.. {
        std::thread::sleep(PERIOD);
        let sample = Sample::take(client)?;
        let rates = Rates::between(&last.stats, &sample.stats);
        let line = if args.json {
            if round.is_multiple_of(TOPICS_EVERY) {
                topics = Topics::take(client).unwrap_or(topics);
            }
            sample.json(rates, &topics).to_string()
        } else {
            plain(&sample, rates.as_ref())
        };
        if !super::print(&format!("{line}\n")) {
            break;
        }
        last = sample;
    }
    Ok(())
}

/// The line of one second.
fn plain(sample: &Sample, rates: Option<&Rates>) -> String {
    let stats = &sample.stats;
    let shards: Vec<_> = stats.shards.iter().map(|shard| shard.counts.connections.to_string()).collect();
    let rate = |of: fn(&Rates) -> u64| rates.map_or_else(|| "-".into(), |rates| of(rates).to_string());
    format!(
        "{} connections={} ({}) in={}/s out={}/s delivered={}/s dropped={}/s queued={} p99={} resident={}",
        printable::line(&stats.state, WORD_CHARS_MAX),
        stats.connections,
        shards.join("+"),
        rate(|rates| rates.messages_in),
        rate(|rates| rates.messages_out),
        rate(|rates| rates.delivered),
        rate(|rates| rates.dropped),
        stats.totals.queued_messages,
        stats.time_to_last_us.p99.map_or_else(|| "-".into(), |us| micros(us).replace(' ', "")),
        size(stats.resident_bytes).replace(' ', ""),
    )
}
