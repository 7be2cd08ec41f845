//! A step in one line, for progress.

use super::stage::Stage;
use crate::commands::text::grouped;
use crate::load::text::time_text;
use crate::load::usage::MemoryOfAll;

/// Says what a step has shown so far.
pub(super) fn line(stage: &Stage, before: &MemoryOfAll) -> String {
    let mut line = format!("{} connections:", grouped(stage.connections));
    if let Some(each) = stage.private_each(before) {
        line += &format!(" {} B of the server each,", grouped(each.round() as u64));
    }
    if let Some(each) = stage.machine_each(before) {
        line += &format!(" {} B of the machine each,", grouped(each.round() as u64));
    }
    let fewest = stage.to_all.iter().map(|sent| sent.received).min().unwrap_or(0);
    line += &format!(" {} got one to all", grouped(fewest));
    if let Some(took_ns) = stage.took_ns() {
        line += &format!(" in {}", time_text(took_ns));
    }
    if let Some(cost_ns) = stage.cost_ns() {
        line += &format!(", {} of CPU each", time_text(cost_ns));
    }
    let few = &stage.to_few;
    line + &format!("; {} of {} got one to the few", grouped(few.received), grouped(few.expected))
}
