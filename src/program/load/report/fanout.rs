//! The figures of `load fanout`.

use super::{Report, SHORT, Section, Value, settings_section};
use crate::load::coordinator::Run;
use crate::load::fanout::FanoutResult;
use crate::load::latency::Latency;
use crate::load::plan::{FanoutPlan, Plan};
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
        sum.deliveries.add(&result.deliveries);
        sum.stalled += result.stalled;
    }
    let expected = subscribers * (u64::from(publisher.published) - publisher.refused_count);

    let mut own = Section::new("fanout");
    own.published(&publisher);
    own.count("subscribers", "subscribers at the end", subscribers);
    own.count("expected", "expected deliveries", expected);
    own.delivered(&sum.deliveries, run.begin_ns);
    own.latency("last_recipient_us", "time to last recipient", &last_recipient(&run.scenarios), SHORT);
    own.verdict(&verdict, &sum.deliveries);
    own.count("closed", "closed", run.links.closed);
    own.reasons("closed_reasons", "closed by reason", &run.closed);
    own.count("stalled", "stalled subscribers", sum.stalled);
    own.count("stalled_closed", "stalled and closed", run.stalled_closed);

    let mut report = Report::new(plan, &run, settings(plan, fanout), own, sum.deliveries.received);
    report.over_time(run.scenarios.iter().map(|result| &result.deliveries.over_time));
    report.distribution("latency", &sum.deliveries.latency);
    report.deliveries(&verdict, &sum.deliveries);
    report.publisher(&publisher);
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
