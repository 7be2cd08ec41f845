//! The metrics: complete, clean, documented, and there while much is going on.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use corecast::control::METRICS;
use corecast::{DropReason, Framing};

use super::http::Http;
use super::{Plane, config, tool};
use crate::guide::assert_table;
use crate::support::{Client, Fixture, everywhere};

/// The samples of a scrape: name with labels, and value.
fn scrape(addr: SocketAddr) -> (String, BTreeMap<String, f64>) {
    let response = Http::connect(addr).get("/metrics");
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4"));
    let text = response.text().to_owned();
    let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    });
    let samples = samples.collect();
    (text, samples)
}

/// The sum of a metric over its labels.
fn sum(samples: &BTreeMap<String, f64>, name: &str) -> f64 {
    let labelled = format!("{name}{{");
    samples.iter().filter(|(key, _)| *key == name || key.starts_with(&labelled)).map(|(_, value)| value).sum()
}

fn busy_plane() -> (Plane, Vec<Client>) {
    let plane = Plane::hub();
    let mut clients = everywhere(&plane, 2);
    clients.iter_mut().for_each(|client| assert_eq!(client.ask("SUB a"), "OK SUB a"));
    plane.wait_for_connections(clients.len());
    let mut http = plane.http();
    http.post("/v1/topics/a/messages?receipt=true", "hello");
    // The line framing can't carry it.
    http.post("/v1/topics/a/messages?receipt=true", "hel\nlo");
    (plane, clients)
}

#[test]
fn the_metrics_agree_with_what_happened() {
    let (plane, clients) = busy_plane();
    // Every other client speaks it.
    let lines = clients.len().div_ceil(2) as f64;
    let all = clients.len() as f64;
    let (_, samples) = scrape(plane.addr());
    assert_eq!(sum(&samples, "corecast_connections"), all);
    assert_eq!(sum(&samples, "corecast_recipients_total"), 2.0 * all);
    assert_eq!(sum(&samples, "corecast_deliveries_total") + sum(&samples, "corecast_drops_total"), 2.0 * all);
    let unfit = |shard| samples[&format!("corecast_drops_total{{shard=\"{shard}\",reason=\"line-feed\"}}")];
    assert_eq!(unfit(0) + unfit(1), lines);
    assert_eq!(sum(&samples, "corecast_publishes_total"), 4.0);
    assert_eq!(samples["corecast_connections_max"], 2000.0);
    assert_eq!(samples["corecast_draining"], 0.0);
    let build = format!("corecast_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(samples[&build], 1.0);
    assert!(samples["process_open_fds"] >= all && samples["process_open_fds"] < samples["process_max_fds"]);
    // A histogram is cumulative, and its last bucket is its count.
    for name in ["corecast_time_to_last_seconds", "corecast_fanout_seconds"] {
        let count = samples[&format!("{name}_count{{shard=\"0\"}}")];
        assert_eq!(samples[&format!("{name}_bucket{{shard=\"0\",le=\"+Inf\"}}")], count);
        assert!(count >= 1.0 && samples[&format!("{name}_sum{{shard=\"0\"}}")] > 0.0, "{name}");
    }
    let closed = sum(&samples, "corecast_closes_total");
    drop(clients);
    plane.wait_for_connections(0);
    let (_, later) = scrape(plane.addr());
    assert_eq!(sum(&later, "corecast_closes_total"), closed + all);
    for (name, value) in samples.iter().filter(|(name, _)| name.contains("_total")) {
        assert!(later[name] >= *value, "{name} fell");
    }
}

#[test]
fn every_metric_is_written_with_help_and_type_and_every_reason_from_the_start() {
    let (plane, _clients) = busy_plane();
    let (text, samples) = scrape(plane.addr());
    for metric in METRICS {
        assert!(text.contains(&format!("# HELP {} {}\n", metric.name, metric.help)), "{}", metric.name);
        assert!(text.contains(&format!("# TYPE {} {}\n", metric.name, metric.kind())), "{}", metric.name);
        let names: Vec<_> = samples.keys().filter(|key| key.starts_with(metric.name)).collect();
        assert!(!names.is_empty(), "{} has no sample", metric.name);
        for label in metric.labels() {
            assert!(names.iter().any(|name| name.contains(&format!("{label}=\""))), "{} by {label}", metric.name);
        }
    }
    let families = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
    assert_eq!(families, METRICS.len());
    let drops = samples.keys().filter(|key| key.starts_with("corecast_drops_total")).count();
    assert_eq!(drops, 2 * DropReason::ALL.len());
}

#[test]
fn promtool_finds_nothing_to_say() {
    let Some(promtool) = tool("promtool", ["promtool".into()]) else { return };
    let (plane, _clients) = busy_plane();
    let (text, _) = scrape(plane.addr());
    let check = Command::new(promtool).args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut check = check.unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let ended = check.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.is_empty(), "{said}");
}

#[test]
fn every_metric_is_in_the_guide() {
    let mut rows = vec!["| metric | type | labels | meaning |".to_owned(), "| --- | --- | --- | --- |".to_owned()];
    rows.extend(METRICS.iter().map(|metric| {
        let labels: Vec<_> = metric.labels().iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {} | {} | {} |", metric.name, metric.kind(), labels.join(", "), metric.help)
    }));
    assert_table("metrics", &rows);
}

#[test]
fn scrapes_go_on_while_thousands_of_clients_come() {
    // Both ends of each connection are in this process.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let count = 5_000.min(limit.saturating_sub(4_000) / 2) as usize;
    let plane = Plane::over(Fixture::hub(settings! { max_connections: count, ..config() }));
    let (done, scrapes) = (AtomicBool::new(false), AtomicUsize::new(0));
    let addr = plane.addr();
    let clients = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = 0.0;
            while !done.load(Ordering::SeqCst) {
                let (_, samples) = scrape(addr);
                let accepted = sum(&samples, "corecast_accepts_total");
                assert!(accepted >= last, "{accepted} after {last}");
                last = accepted;
                scrapes.fetch_add(1, Ordering::SeqCst);
            }
        });
        let clients: Vec<_> = (0..count).map(|n| plane.client(Framing::ALL[n % 2])).collect();
        plane.wait_for_connections(count);
        done.store(true, Ordering::SeqCst);
        clients
    });
    assert!(scrapes.load(Ordering::SeqCst) > 0);
    let (_, samples) = scrape(plane.addr());
    assert_eq!(sum(&samples, "corecast_connections"), count as f64);
    assert!(samples["process_open_fds"] >= 2.0 * count as f64);
    assert_eq!(plane.http().post("/v1/broadcast?receipt=true", "x").json()["matched"], count);
    drop(clients);
}
