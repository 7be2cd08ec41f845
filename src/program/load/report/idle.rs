//! The figures of `load idle`.

use super::{Report, SHORT, Section, Value, settings_section};
use crate::load::coordinator::Run;
use crate::load::idle::IdleResult;
use crate::load::latency::Latency;
use crate::load::plan::Plan;

/// Sums the threads' results up.
pub(in crate::load) fn report(plan: &Plan, run: Run<IdleResult>) -> Report {
    let mut rtt = Latency::default();
    let (mut pings, mut unanswered) = (0, 0);
    for result in &run.scenarios {
        rtt.merge(&result.rtt);
        pings += result.pings;
        unanswered += result.unanswered;
    }
    let mut own = Section::new("idle");
    own.add("held_s", "held for", Value::Seconds(run.held_ns as f64 / 1e9));
    own.count("closed", "closed", run.links.closed);
    own.reasons("closed_reasons", "closed by reason", &run.closed);
    own.count("pings", "pings", pings);
    own.count("pings_unanswered", "pings unanswered", unanswered);
    own.latency("ping_us", "ping", &rtt, SHORT);
    let mut report = Report::new(plan, &run, settings_section(plan), own, 0);
    report.over_time(run.scenarios.iter().map(|result| &result.over_time));
    report.distribution("ping", &rtt);
    report.problem(unanswered, "pings had no answer");
    report
}
