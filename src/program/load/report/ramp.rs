//! The figures of `load ramp`.

use super::{Report, Section, Value, settings_section};
use crate::load::coordinator::Run;
use crate::load::plan::Plan;
use crate::load::ramp::plan::RampPlan;
use crate::load::ramp::{Climb, Stage, percent};
use crate::load::usage::MemoryOfAll;

/// Brings the steps into a table, and judges.
pub(in crate::load) fn report(plan: &Plan, ramp: &RampPlan, run: Run<()>, climb: Climb) -> Report {
    let mut own = Section::new("ramp");
    if let Some(before) = climb.before.server {
        own.add("private_before_bytes", "server's memory before", Value::Bytes(before.private as usize));
    }
    if let (Some(grown), Some(kept)) = (climb.grown(), climb.kept) {
        own.add("private_grown_bytes", "its largest growth", Value::Bytes(grown as usize));
        own.add("private_kept_bytes", "kept of it after the close", Value::Bytes(kept as usize));
        own.add("kept_percent", "kept share", Value::Percent(percent(kept, grown)));
        if let Some(lost) = climb.lost() {
            own.add("private_lost_bytes", "more for all once again", Value::Bytes(lost as usize));
            own.add("lost_percent", "more, as a share", Value::Percent(percent(lost, grown)));
        }
    }
    if let Some(closed) = &climb.closed {
        own.add("close_s", "until the server had closed all", Value::Seconds(closed.took_ns as f64 / 1e9));
        for (key, label, left) in [
            ("fds_left", "file descriptors left", closed.fds_left),
            ("connections_left", "connections left", closed.connections_left),
        ] {
            if let Some(left) = left {
                own.count(key, label, left);
            }
        }
    }
    if let Some(spread) = climb.cost_spread_percent() {
        own.add("cost_spread_percent", "cost of a message, up and down", Value::Percent(spread));
    }
    let received = climb.stages.iter().flat_map(|stage| stage.to_all.iter().chain([&stage.to_few]));
    let received = received.map(|sent| sent.received).sum();
    own.add("steps", "", Value::Rows(climb.stages.iter().map(|stage| row(stage, &climb.before)).collect()));
    let mut report = Report::new(plan, &run, settings(plan, ramp), own, received);
    report.problems.extend(climb.problems(&ramp.limits));
    report.warnings.extend(climb.warnings(&ramp.limits));
    report.picture = Some(climb);
    report
}

fn settings(plan: &Plan, ramp: &RampPlan) -> Section {
    let mut settings = settings_section(plan);
    settings.count("messages", "messages to all a step", ramp.messages.into());
    settings.add("message_bytes", "message size", Value::Bytes(ramp.message_bytes));
    if let Some(bytes) = ramp.limits.bytes_max {
        settings.add("bytes_max", "memory of a connection, at most", Value::Bytes(bytes));
    }
    if let Some(percent) = ramp.limits.spread_max {
        settings.add("spread_max_percent", "cost up and down, warn above", Value::Percent(percent));
    }
    if let Some(percent) = ramp.limits.kept_max {
        settings.add("kept_max_percent", "kept share, at most", Value::Percent(percent));
    }
    settings
}

/// The columns of a step; what was not measured is missing.
fn row(stage: &Stage, before: &MemoryOfAll) -> Vec<(&'static str, &'static str, Value)> {
    let bytes = |value: f64| Value::Bytes(value.round() as usize);
    let mut row = vec![("connections", "connections", Value::Count(stage.connections))];
    let mut add = |key, label, value: Option<Value>| row.extend(value.map(|value| (key, label, value)));
    let connects_per_s = stage.added as f64 * 1e9 / stage.connect_ns.max(1) as f64;
    add("connects_per_s", "connects", Some(Value::PerSecond(connects_per_s)));
    add("private_bytes_per_connection", "private", stage.private_each(before).map(bytes));
    add("resident_bytes_per_connection", "resident", stage.resident_each(before).map(bytes));
    add("machine_bytes_per_connection", "machine", stage.machine_each(before).map(bytes));
    add("client_bytes_per_connection", "client", Some(bytes(stage.client_each(before))));
    add("all_received", "got one to all", stage.to_all.iter().map(|sent| sent.received).min().map(Value::Count));
    add("all_us", "in", stage.took_ns().map(Value::Nanos));
    add("all_cpu_us_per_message", "CPU each", stage.cost_ns().map(Value::Nanos));
    add("few_received", "got one to 1 %", Some(Value::Count(stage.to_few.received)));
    add("few_us", "in", Some(Value::Nanos(stage.to_few.took_ns as f64)));
    add("few_cpu_us_per_message", "CPU each", stage.to_few.cost_ns().map(Value::Nanos));
    row
}
