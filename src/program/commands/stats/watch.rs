//! The live view: figures once a second, until `q`.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::style::Modifier;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;
use ratatui::{DefaultTerminal, Frame};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::sample::{Rates, Sample, Topics};
use super::screen::{self, View};
use super::{PERIOD, TOPICS_EVERY};
use crate::commands::client::Client;
use crate::commands::error::CommandError;

/// How long the loop waits for a key before it looks for figures and signals.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// Seconds of history that are kept: as many as the widest terminal has columns.
const HISTORY: usize = 512;

/// What the view knows.
pub(super) struct Watch {
    url: String,
    last: Sample,
    rates: Option<Rates>,
    topics: Option<Topics>,
    history: VecDeque<u64>,
    /// Since when there are no new figures, and why.
    trouble: Option<(Instant, String)>,
}

/// What the thread that asks the server found.
pub(super) enum News {
    Sample(Box<Sample>),
    Topics(Topics),
    Trouble(String),
}

impl Watch {
    pub(super) fn new(url: String, first: Sample, topics: Option<Topics>) -> Self {
        Watch { url, last: first, rates: None, topics, history: VecDeque::new(), trouble: None }
    }

    /// Takes news in. `now` is when they came.
    pub(super) fn take(&mut self, news: News, now: Instant) {
        match news {
            News::Sample(sample) => {
                self.rates = Rates::between(&self.last.stats, &sample.stats);
                self.history.extend(self.rates.as_ref().map(|rates| rates.delivered));
                while self.history.len() > HISTORY {
                    self.history.pop_front();
                }
                self.last = *sample;
                self.trouble = None;
            }
            News::Topics(topics) => self.topics = Some(topics),
            News::Trouble(reason) => {
                let since = self.trouble.as_ref().map_or(now, |(since, _)| *since);
                self.trouble = Some((since, reason));
                self.rates = None;
            }
        }
    }

    /// Draws everything. The last row says how to leave.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, now: Instant) {
        let area = frame.area();
        let trouble = self
            .trouble
            .as_ref()
            .map(|(since, reason)| format!("no figures for {} s: {reason}", now.duration_since(*since).as_secs()));
        let view = View {
            url: &self.url,
            stats: &self.last.stats,
            rates: self.rates.as_ref(),
            history: self.history.make_contiguous(),
            topics: self.topics.as_ref(),
            trouble: trouble.as_deref(),
        };
        let height = usize::from(area.height);
        let mut lines = screen::lines(&view, area.width.into(), Some(height.saturating_sub(1)));
        lines.resize(height.saturating_sub(1), Line::default());
        lines.push(Line::styled("q quits", Modifier::DIM));
        frame.render_widget(Paragraph::new(lines), area);
    }
}

/// Shows the view until the user leaves, or a signal ends it. The terminal is as it was afterwards, also after a panic.
///
/// # Errors
/// The terminal can't be used.
pub(super) fn run(client: Client, watch: Watch) -> Result<(), CommandError> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&ended)).map_err(CommandError::Terminal)?;
    }
    // The terminal is gone, so there is nothing to restore, and the wait for a key would never return: it reads the end
    // of the closed terminal for ever.
    signal_hook::flag::register_conditional_shutdown(SIGHUP, 1, Arc::new(AtomicBool::new(true)))
        .map_err(CommandError::Terminal)?;
    let news = ask(client);
    let mut terminal = ratatui::try_init().map_err(CommandError::Terminal)?;
    let result = show(&mut terminal, watch, &news, &ended);
    ratatui::restore();
    result.map_err(CommandError::Terminal)
}

fn show(terminal: &mut DefaultTerminal, mut watch: Watch, news: &Receiver<News>, ended: &AtomicBool) -> io::Result<()> {
    while !ended.load(Ordering::Relaxed) {
        let now = Instant::now();
        for news in news.try_iter() {
            watch.take(news, now);
        }
        terminal.draw(|frame| watch.draw(frame, now))?;
        if event::poll(KEY_WAIT)? && is_farewell(&event::read()?) {
            break;
        }
    }
    Ok(())
}

fn is_farewell(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let by_control = key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && match key.code {
            KeyCode::Char('c' | 'd') => by_control,
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => !by_control,
            _ => false,
        }
}

/// Asks the server on a thread of its own, so that a slow answer does not hold up the keys. It ends when nobody listens.
fn ask(client: Client) -> Receiver<News> {
    let (to, news) = sync_channel(8);
    std::thread::spawn(move || {
        for round in 1_u32.. {
            std::thread::sleep(PERIOD);
            let sample = match Sample::take(&client) {
                Ok(sample) => News::Sample(Box::new(sample)),
                Err(error) => News::Trouble(error.reason()),
            };
            if !tell(&to, sample) {
                return;
            }
            if round.is_multiple_of(TOPICS_EVERY)
                && let Ok(topics) = Topics::take(&client)
                && !tell(&to, News::Topics(topics))
            {
                return;
            }
        }
    });
    news
}

/// Whether somebody still listens. News that find no room are dropped: fresher ones follow.
fn tell(to: &SyncSender<News>, news: News) -> bool {
    !matches!(to.try_send(news), Err(TrySendError::Disconnected(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyEvent;
    use serde_json::json;

    fn sample(seconds: f64, delivered: u64, shards: usize) -> Sample {
        let counts = |connections: u64| {
            json!({"connections": connections, "accepted": 12_000, "delivered": delivered, "stalls": 1,
                "stall_ms_max": 73, "queued_messages": 12, "queued_bytes": 123_456, "held_bytes": 3 << 20, "closed": {"drain": 0, "reset": 3},
                "dropped": {"queue-full": 40, "closed": 4, "line-feed": 0}})
        };
        let shards: Vec<_> = (0..shards)
            .map(|shard| {
                let mut counts = counts(5_000 + shard as u64);
                counts["shard"] = shard.into();
                counts
            })
            .collect();
        let said = json!({"state": "running", "version": "0.1.0", "uptime_s": seconds, "connections": 9_999,
            "max_connections": 19_904, "buffers_max": 64 << 20, "resident_bytes": 30 << 20, "bytes_per_connection": 936, "totals": counts(9_999),
            "shards": shards, "time_to_last_us": {"count": 1_234, "p50": 256, "p99": null}});
        Sample { stats: serde_json::from_value(said.clone()).unwrap(), said }
    }

    fn topics(count: usize) -> Topics {
        let topic = |n: usize| json!({"topic": format!("news/{n}"), "subscribers": 10_000 - n, "published": 5});
        let top = (0..count).map(|n| serde_json::from_value(topic(n)).unwrap()).collect();
        Topics { top, is_part: false }
    }

    fn watch(shards: usize, count: usize) -> Watch {
        let mut watch = Watch::new("http://127.0.0.1:8081".into(), sample(1.0, 0, shards), Some(topics(count)));
        watch.take(News::Sample(Box::new(sample(2.0, 249_000, shards))), Instant::now());
        watch
    }

    fn drawn(watch: &mut Watch, width: u16, height: u16, now: Instant) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| watch.draw(frame, now)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(row).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn everything_stands_on_a_screen_of_80_by_24() {
        let screen = drawn(&mut watch(2, 9), 80, 24, Instant::now());
        for text in [
            "corecast 0.1.0  running  up 2s",
            "http://127.0.0.1:8081\n",
            "9,999 of 19,904",
            " 50%\n",
            "30.0 MiB, 936 B a connection; 3.0 MiB of 64.0 MiB in buffers\n",
            "249,000",
            "peak 249,000/s",
            "p50 ≤ 256 µs, p99 over 4 s, of 1,234 since the start",
            "12 messages (120.6 KiB) for clients",
            "dropped      queue-full 40 · closed 4\n",
            "closed       reset 3\n",
            "stalls 1 (longest 73 ms)",
            "    0        5,000 █",
            "    1        5,001 █",
            "news/0 ",
            "news/4 ",
            "\nq quits",
        ] {
            assert!(screen.contains(text), "`{text}` is missing in\n{screen}");
        }
        assert!(!screen.contains("line-feed"), "a reason that never came up is shown:\n{screen}");
    }

    #[test]
    fn many_shards_leave_room_for_topics_and_say_what_is_missing() {
        let screen = drawn(&mut watch(64, 9), 80, 24, Instant::now());
        assert!(screen.contains("more; from 5,000 to 5,063 connections a shard"), "{screen}");
        assert!(screen.contains("news/3 "), "{screen}");
        let tall = drawn(&mut watch(64, 9), 80, 100, Instant::now());
        assert!(tall.contains("   63        5,063") && tall.contains("news/8 ") && !tall.contains("more;"), "{tall}");
    }

    #[test]
    fn a_terminal_of_any_size_is_drawn() {
        for (width, height) in [(1, 1), (0, 0), (20, 5), (59, 12), (60, 3), (300, 90)] {
            drawn(&mut watch(3, 3), width, height, Instant::now());
        }
    }

    #[test]
    fn an_absent_server_is_named_until_it_is_back() {
        let mut watch = watch(1, 1);
        let start = Instant::now();
        watch.take(News::Trouble("refused".into()), start);
        watch.take(News::Trouble("refused".into()), start + Duration::from_secs(4));
        let screen = drawn(&mut watch, 80, 24, start + Duration::from_secs(7));
        assert!(screen.contains("no figures for 7 s: refused"), "{screen}");
        watch.take(News::Sample(Box::new(sample(1.0, 5, 1))), start);
        let screen = drawn(&mut watch, 80, 24, start);
        assert!(!screen.contains("no figures"), "{screen}");
        assert!(watch.rates.is_none(), "the server was started anew");
    }

    #[test]
    fn history_is_bounded() {
        let mut watch = watch(1, 0);
        for second in 0..2 * HISTORY as u64 {
            let sample = sample(3.0 + second as f64, 250_000 + second, 1);
            watch.take(News::Sample(Box::new(sample)), Instant::now());
        }
        assert_eq!(watch.history.len(), HISTORY);
    }

    #[test]
    fn q_escape_and_control_c_leave_and_nothing_else_does() {
        let key = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
        assert!(is_farewell(&key(KeyCode::Char('q'), KeyModifiers::NONE)));
        assert!(is_farewell(&key(KeyCode::Esc, KeyModifiers::NONE)));
        assert!(is_farewell(&key(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(!is_farewell(&key(KeyCode::Char('c'), KeyModifiers::NONE)));
        assert!(!is_farewell(&Event::Resize(1, 1)));
    }
}
