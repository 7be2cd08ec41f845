//! The figures of `load echo`.

use super::{FULL, Report, Section, Value, settings_section};
use crate::load::coordinator::Run;
use crate::load::echo::EchoResult;
use crate::load::plan::Plan;

/// Sums the threads' results up.
pub(in crate::load) fn report(plan: &Plan, message_bytes: usize, run: Run<EchoResult>) -> Report {
    let mut sum = EchoResult::default();
    for result in &run.scenarios {
        sum.rtt.merge(&result.rtt);
        sum.round_trips += result.round_trips;
        sum.in_time += result.in_time;
        sum.corrupted += result.corrupted;
        sum.duplicated += result.duplicated;
        sum.unanswered += result.unanswered;
    }
    let mut settings = settings_section(plan);
    settings.add("message_bytes", "message size", Value::Bytes(message_bytes));
    let mut own = Section::new("echo");
    own.count("round_trips", "round trips", sum.round_trips);
    if run.held_ns > 0 {
        let rate = sum.in_time as f64 * 1e9 / run.held_ns as f64;
        own.add("round_trips_per_s", "round trips per second", Value::PerSecond(rate));
    }
    own.latency("rtt_us", "round trip", &sum.rtt, FULL);
    own.count("unanswered", "unanswered", sum.unanswered);
    own.count("corrupted", "corrupted", sum.corrupted);
    own.count("duplicated", "duplicated", sum.duplicated);
    own.count("closed", "closed", run.links.closed);
    own.reasons("closed_reasons", "closed by reason", &run.closed);
    let mut report = Report::new(plan, &run, settings, own, sum.round_trips);
    report.over_time(run.scenarios.iter().map(|result| &result.over_time));
    report.distribution("round trip", &sum.rtt);
    report.problem(sum.unanswered, "messages did not come back");
    report.problem(sum.corrupted, "messages came back changed");
    report.problem(sum.duplicated, "messages came back twice");
    report
}
