//! The figures of `load fanout`.

use super::{FULL, Report, SHORT, Section, Value, settings_section};
use crate::load::fanout::FanoutResult;
use crate::load::latency::Latency;
use crate::load::plan::{FanoutPlan, Plan};
use crate::load::run::Run;
use crate::load::tally::Verdict;

/// Sums the threads' results up and judges every subscriber.
pub(in crate::load) fn report(plan: &Plan, fanout: &FanoutPlan, mut run: Run<FanoutResult>) -> Report {
    let publisher = run.publisher.take().unwrap_or_default();
    let mut verdict = Verdict::default();
    let mut sum = FanoutResult::default();
    let mut subscribers = 0;
    for result in &run.scenarios {
        for tally in &result.tallies {
            verdict += tally.verdict(publisher.published, &publisher.refused);
        }
        subscribers += result.tallies.len() as u64;
        sum.latency.merge(&result.latency);
        sum.received += result.received;
        sum.gap_notices += result.gap_notices;
        sum.corrupted += result.corrupted;
        sum.foreign += result.foreign;
        sum.stalled += result.stalled;
        sum.last_delivery_ns = sum.last_delivery_ns.max(result.last_delivery_ns);
    }
    let expected = subscribers * (u64::from(publisher.published) - publisher.refused_count);
    let unanswered = u64::from(publisher.published - publisher.answered);

    let mut own = Section::new("fanout");
    own.count("published", "published", publisher.published.into());
    own.count("refused", "refused (ERR busy)", publisher.refused_count);
    own.latency("publish_late_us", "published late by", &publisher.lateness, SHORT);
    own.count("subscribers", "subscribers at the end", subscribers);
    own.count("expected", "expected deliveries", expected);
    own.count("delivered", "delivered", sum.received);
    if let Some(span_ns) = run.begin_ns.and_then(|begin| sum.last_delivery_ns.checked_sub(begin)).filter(|&ns| ns > 0) {
        let rate = sum.received as f64 * 1e9 / span_ns as f64;
        own.add("delivered_per_s", "delivered per second", Value::PerSecond(rate));
    }
    own.latency("latency_us", "latency", &sum.latency, FULL);
    own.latency("last_recipient_us", "time to last recipient", &last_recipient(&run.scenarios), SHORT);
    own.count("lost", "lost", verdict.lost);
    own.count("gaps_reported", "missing, told by GAP", verdict.reported);
    own.count("gap_notices", "GAP notices", sum.gap_notices);
    own.count("gaps_over_reported", "told by GAP, not missing", verdict.over_reported);
    own.count("duplicated", "duplicated", verdict.duplicated);
    own.count("reordered", "reordered", verdict.reordered);
    own.count("corrupted", "corrupted", sum.corrupted);
    own.count("unexpected", "delivered though refused", verdict.unexpected);
    own.count("foreign", "of other publishers", sum.foreign);
    own.count("closed", "closed", run.links.closed);
    own.reasons("closed_reasons", "closed by reason", &run.closed);
    own.count("stalled", "stalled subscribers", sum.stalled);
    own.count("stalled_closed", "stalled and closed", run.stalled_closed);

    let mut report = Report::new(plan, &run, settings(plan, fanout), own, sum.received);
    report.over_time(run.scenarios.iter().map(|result| &result.over_time));
    report.distribution("latency", &sum.latency);
    report.problem(verdict.lost, "deliveries were lost without a GAP");
    report.problem(verdict.duplicated, "deliveries came twice");
    report.problem(verdict.reordered, "deliveries came out of order");
    report.problem(sum.corrupted, "deliveries were not what was published");
    report.problem(verdict.unexpected, "deliveries came although their publish was refused");
    report.problem(unanswered, "publishes had no answer");
    if let Some(reason) = publisher.closed {
        report.problems.push(format!("the publisher's connection was lost ({reason})"));
    }
    report
}

fn settings(plan: &Plan, fanout: &FanoutPlan) -> Section {
    let publish = &fanout.publish;
    let mut settings = settings_section(plan);
    settings.add("topic", "topic", Value::Text(publish.topic.clone()));
    settings.add("message_bytes", "message size", Value::Bytes(publish.message_bytes));
    settings.add("publish_per_s", "publishes", Value::PerSecond(publish.rate));
    settings.count("burst", "messages of a publish", publish.burst.into());
    settings.add("stalled_percent", "stalled share", Value::Text(format!("{} %", fanout.stalled_percent)));
    settings
}

/// For each noted message the longest latency over all threads.
fn last_recipient(results: &[FanoutResult]) -> Latency {
    let mut latency = Latency::default();
    let noted = results.first().map_or(0, |result| result.last_ns.len());
    for message in 0..noted {
        let longest = results.iter().map(|result| result.last_ns[message]).max().unwrap_or(0);
        if longest > 0 {
            latency.record(longest);
        }
    }
    latency
}
