//! What the files in `deploy/` say of metrics is held against a running server.

use std::collections::{BTreeMap, BTreeSet};

use corecast::Framing;

use crate::support::Program;

const FILES: [(&str, &str); 3] = [
    ("prometheus/alerts.yml", include_str!("../../deploy/prometheus/alerts.yml")),
    ("prometheus/alerts_test.yml", include_str!("../../deploy/prometheus/alerts_test.yml")),
    ("grafana/dashboard.json", include_str!("../../deploy/grafana/dashboard.json")),
];

/// The metrics of a server with a client: name to the values of its `reason`.
fn exposed() -> BTreeMap<String, BTreeSet<String>> {
    let mut program = Program::serve(["--control", "127.0.0.1:0"]);
    let ready = program.wait_for_line(0, |line| line.contains("ready: "));
    let control = ready.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap();
    let _client = program.client(Framing::Line).ask("PING");
    let _held = program.client(Framing::Line);
    crate::support::wait_until("a client is counted", || scrape(control).contains("corecast_bytes_per_connection "));
    let mut metrics: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in scrape(control).lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let reasons = metrics.entry(name.to_owned()).or_default();
        reasons.extend(line.split_once("reason=\"").and_then(|(_, rest)| rest.split('"').next()).map(str::to_owned));
    }
    metrics
}

pub(crate) fn scrape(control: &str) -> String {
    crate::support::get(control, "/metrics")
}

/// Words that begin as metrics do, each with what stands between the braces after it.
fn named(text: &str) -> Vec<(&str, &str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for prefix in ["corecast_", "process_"] {
        for (at, _) in text.match_indices(prefix) {
            if text[..at].ends_with(is_part) {
                continue;
            }
            let end = text[at..].find(|c| !is_part(c)).map_or(text.len(), |length| at + length);
            let labels = text[end..].strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or_default();
            found.push((&text[at..end], labels));
        }
    }
    found
}

/// The values that a selector has for `reason`.
fn reasons(labels: &str) -> impl Iterator<Item = &str> {
    let values = labels.split("reason").nth(1).map(|rest| rest.trim_start_matches(['=', '!', '~', '\\', '"']));
    values.and_then(|rest| rest.split(['"', '\\']).next()).into_iter().flat_map(|values| values.split('|'))
}

#[test]
fn alerts_and_dashboard_name_only_what_the_server_exposes() {
    let exposed = exposed();
    for (file, text) in FILES {
        let named = named(text);
        assert!(named.len() > 20, "{file} names no metrics");
        for (name, labels) in named {
            let values = exposed.get(name).unwrap_or_else(|| panic!("{file} names {name}, which the server lacks"));
            for reason in reasons(labels) {
                assert!(values.contains(reason), "{file}: {name} has no reason {reason:?}, only {values:?}");
            }
        }
    }
}

#[test]
fn the_dashboard_shows_every_metric() {
    let board = FILES[2].1;
    let missing: Vec<_> = exposed()
        .into_keys()
        .filter(|name| !board.contains(name.as_str()))
        // A histogram is shown by its buckets.
        .filter(|name| !name.ends_with("_seconds_sum") && !name.ends_with("_seconds_count"))
        .collect();
    assert!(missing.is_empty(), "the dashboard lacks {missing:?}");
}

#[test]
fn names_and_reasons_are_found() {
    let text = r#"rate(corecast_drops_total{a="b", reason=~\"queue-full|drop-oldest\"}[5m]) / xcorecast_no + process_open_fds"#;
    let found = named(text);
    assert_eq!(found.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["corecast_drops_total", "process_open_fds"]);
    assert_eq!(reasons(found[0].1).collect::<Vec<_>>(), ["queue-full", "drop-oldest"]);
    assert_eq!(reasons("a=\"b\"").count(), 0);
}
