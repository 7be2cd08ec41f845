//! A diagnosis as text for people, and as JSON for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::super::text::{grouped, size};
use super::diagnosis::{Bound, Diagnosis, Finding, KERNEL_BYTES, PROCESS_BYTES, Remedy};
use super::reading::Snapshot;

/// Characters of a line at the most; commands are never broken.
const WIDTH: usize = 100;

/// Characters of the table's first column.
const NAME: usize = 18;

/// The report for people.
pub(super) fn text(diagnosis: &Diagnosis, host: &Snapshot) -> String {
    let mut out = format!("{}\n", verdict(diagnosis));
    for fault in &diagnosis.faults {
        // Not broken: it holds the command.
        let _ = writeln!(out, "\n{}: {}", fault.resource, fault.says);
    }
    if !diagnosis.bounds.is_empty() {
        let _ = writeln!(out, "\n{:NAME$} {:>13}  what was read", "resource", "connections");
        for bound in &diagnosis.bounds {
            let head = format!("{:NAME$} {:>13}  ", bound.resource, allows_text(bound.allows));
            paragraph(&mut out, "", &head, &bound.reading);
        }
    }
    let target = grouped(diagnosis.target());
    let obstacles: Vec<&Bound> = diagnosis.bounds.iter().filter(|bound| !bound.remedies.is_empty()).collect();
    if !obstacles.is_empty() {
        let whence = if diagnosis.wanted.is_none() { " (the default of max_connections)" } else { "" };
        let _ = writeln!(out, "\nTo reach {target} connections{whence}:");
        for bound in obstacles {
            remedies(&mut out, bound.resource, &bound.remedies);
        }
    }
    if !diagnosis.advice.is_empty() {
        let _ = writeln!(out, "\nBesides:");
        for Finding { resource, says, remedies: commands } in &diagnosis.advice {
            paragraph(&mut out, "", &format!("  {resource}: "), says);
            for Remedy { place, command } in commands {
                let _ = writeln!(out, "    {place}: {command}");
            }
        }
    }
    if !diagnosis.unknown.is_empty() {
        let missing = format!("{}; what they allow is not known", diagnosis.unknown.join(", "));
        paragraph(&mut out, "\n", "Could not be read: ", &missing);
    }
    let _ = writeln!(out);
    paragraph(&mut out, "", "", &assumptions(diagnosis, host));
    out
}

fn verdict(diagnosis: &Diagnosis) -> String {
    if !diagnosis.faults.is_empty() {
        return "The server can't start on this host.".into();
    }
    let Some(reaches) = diagnosis.reaches else {
        return "Nothing could be read that tells how many connections this host can reach.".into();
    };
    let first = diagnosis.bounds.first().map_or("", |bound| bound.resource);
    let reaches_text = allows_text(reaches);
    match diagnosis.wanted {
        Some(wanted) if wanted > reaches => {
            format!("{} connections are out of reach: {first} stops this host at {reaches_text}.", grouped(wanted))
        }
        Some(wanted) => {
            format!("{} connections are within reach: {first} stops this host at {reaches_text}.", grouped(wanted))
        }
        None => format!("This host can reach {reaches_text} connections; {first} stops it first."),
    }
}

fn allows_text(connections: u64) -> String {
    // Beyond what memory addresses can hold, the number says nothing.
    if connections >= 1 << 48 { "no limit".into() } else { grouped(connections) }
}

fn assumptions(diagnosis: &Diagnosis, host: &Snapshot) -> String {
    let kernel = host.kernel.as_deref().map(|release| format!("Linux {release}, ")).unwrap_or_default();
    let shards = diagnosis.shards;
    format!(
        "{kernel}{shards} shard{}. Memory is estimated for idle connections: {} each in the process and {} in the \
         kernel; messages that wait for slow clients come on top. Limits on files and locked memory are those of this \
         shell: a service has those of its unit, a container those of its runtime. `deploy/tune.sh check` compares more \
         kernel settings.",
        if shards == 1 { "" } else { "s" },
        size(PROCESS_BYTES),
        size(KERNEL_BYTES),
    )
}

fn remedies(out: &mut String, resource: &str, remedies: &[Remedy]) {
    let _ = writeln!(out, "  {resource}");
    let width = remedies.iter().map(|remedy| remedy.place.chars().count()).max().unwrap_or(0);
    for Remedy { place, command } in remedies {
        let _ = writeln!(out, "    {place:width$}  {command}");
    }
}

/// Appends text, broken at blanks; all lines but the first are indented to where the text began.
fn paragraph(out: &mut String, before: &str, head: &str, text: &str) {
    out.push_str(before);
    out.push_str(head);
    let indent = head.chars().count();
    let mut column = indent;
    for (index, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if index > 0 {
            if column + 1 + length > WIDTH {
                let _ = write!(out, "\n{:indent$}", "");
                column = indent;
            } else {
                out.push(' ');
                column += 1;
            }
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
}

/// The report for programs. Its keys stay as they are.
#[derive(Serialize)]
struct Json<'a> {
    /// Connections asked for.
    wanted: Option<u64>,
    /// Connections that this host can reach.
    reaches: Option<u64>,
    /// The resource that stops it first.
    stopped_by: Option<&'static str>,
    /// Whether the server can start at all.
    can_start: bool,
    /// Whether the exit code is 0.
    ok: bool,
    shards: usize,
    process_bytes_per_connection: u64,
    kernel_bytes_per_connection: u64,
    /// Connections that remedies are for.
    remedies_for: u64,
    faults: &'a [Finding],
    bounds: &'a [Bound],
    advice: &'a [Finding],
    unknown: &'a [&'static str],
    readings: &'a Snapshot,
}

/// The report for programs, as one line.
pub(super) fn json(diagnosis: &Diagnosis, host: &Snapshot) -> String {
    let json = Json {
        wanted: diagnosis.wanted,
        reaches: diagnosis.reaches,
        stopped_by: diagnosis.bounds.first().map(|bound| bound.resource),
        can_start: diagnosis.faults.is_empty(),
        ok: diagnosis.is_well(),
        shards: diagnosis.shards,
        process_bytes_per_connection: PROCESS_BYTES,
        kernel_bytes_per_connection: KERNEL_BYTES,
        remedies_for: diagnosis.target(),
        faults: &diagnosis.faults,
        bounds: &diagnosis.bounds,
        advice: &diagnosis.advice,
        unknown: &diagnosis.unknown,
        readings: host,
    };
    serde_json::to_string(&json).expect("numbers and texts, which JSON can hold")
}
