//! The figures of `load churn`.

use super::{Report, SHORT, Section, Value, settings_section};
use crate::load::churn::{ChurnPlan, ChurnResult};
use crate::load::coordinator::Run;
use crate::load::plan::Plan;
use crate::load::tally::Verdict;

/// Sums the threads' results up and judges every visit.
pub(in crate::load) fn report(plan: &Plan, churn: &ChurnPlan, mut run: Run<ChurnResult>) -> Report {
    let publisher = run.publisher.take().unwrap_or_default();
    let mut verdict = Verdict::default();
    let mut sum = ChurnResult::default();
    for result in &run.scenarios {
        verdict += result.judged.verdict(&publisher.refused);
        sum.begun += result.begun;
        sum.not_begun += result.not_begun;
        sum.begun_late.merge(&result.begun_late);
        sum.left_clean += result.left_clean;
        sum.left_abrupt += result.left_abrupt;
        sum.not_closed += result.not_closed;
        sum.close.merge(&result.close);
        sum.deliveries.add(&result.deliveries);
        sum.judged.unjudged += result.judged.unjudged;
    }

    let mut own = Section::new("churn");
    own.count("begun", "connects begun", sum.begun);
    if run.held_ns > 0 {
        own.add("begun_per_s", "connects per second", Value::PerSecond(sum.begun as f64 * 1e9 / run.held_ns as f64));
    }
    own.latency("begun_late_us", "begun late by", &sum.begun_late, SHORT);
    own.count("not_begun", "due but not begun", sum.not_begun);
    own.count("left_clean", "left cleanly", sum.left_clean);
    own.count("left_abrupt", "left by a reset", sum.left_abrupt);
    own.count("not_closed", "shutdown not answered", sum.not_closed);
    own.latency("close_us", "shutdown answered", &sum.close, SHORT);
    own.count("closed", "closed", run.links.closed);
    own.reasons("closed_reasons", "closed by reason", &run.closed);
    if churn.publish.is_some() {
        own.published(&publisher);
        own.delivered(&sum.deliveries, run.begin_ns);
        own.verdict(&verdict, &sum.deliveries);
    }

    let mut report = Report::new(plan, &run, settings(plan, churn), own, sum.deliveries.received);
    report.over_time(run.scenarios.iter().map(|result| &result.deliveries.over_time));
    report.distribution("latency", &sum.deliveries.latency);
    report.problem(
        sum.not_begun,
        "connects were due but not begun, because --connections were open; give more, or a lower --rate",
    );
    report.problem(sum.not_closed, "connections were shut down without an answer from the server");
    report.deliveries(&verdict, &sum.deliveries);
    report.problem(sum.judged.unjudged, "visits missed messages and were too many to be judged");
    report.publisher(&publisher);
    report
}

fn settings(plan: &Plan, churn: &ChurnPlan) -> Section {
    let mut settings = settings_section(plan);
    settings.add("topic", "topic", Value::Text(churn.topic.clone()));
    settings.add("connect_per_s", "connects", Value::PerSecond(churn.rate));
    settings.add("stay", "stay", Value::Text(churn.stay.to_string()));
    settings.add("abrupt_percent", "abrupt share", Value::Text(format!("{} %", churn.abrupt_percent)));
    if let Some(publish) = &churn.publish {
        settings.add("message_bytes", "message size", Value::Bytes(publish.message_bytes));
        settings.add("publish_per_s", "publishes", Value::PerSecond(publish.rate));
    }
    settings
}
