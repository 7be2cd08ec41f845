//! The rooms of the design: imports point down, so there is no circle of rooms, and each outside power is held by the rooms
//! that may use it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The module that looks at the host, and those that may use it.
const HOST: &str = "host";
const HOST_USERS: [&str; 3] = ["server", "shard", "control"];

/// The folder of the program, a crate of its own: `crate::` in it means the program, `corecast::` the library's public API.
const PROGRAM: &str = "program";

/// A room of the house, and its floor: what is in a room may use what is in it and on the floors below, and nothing beside
/// or above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    name: &'static str,
    floor: u8,
}

/// The room of a module, by its path below `src/` without `.rs` and `/mod`.
fn room(module: &str) -> Option<Room> {
    const GROUND: [&str; 12] =
        ["config", "message", "guide", "heap", "json", "metrics", "publish", "rate", "receipt", "routes", "sys", HOST];
    const FOLDERS: [(&str, u8); 13] = [
        ("event", 1),
        ("protocol", 1),
        ("transport", 1),
        ("handler", 2),
        ("site", 3),
        ("engine", 4),
        ("hub", 4),
        ("echo", 4),
        ("shard", 5),
        ("server", 6),
        ("control", 7),
        ("testing", 5),
        // Its tests alone.
        ("simulation", 8),
    ];
    /// What a handler is made of beside its trait.
    const OF_HANDLERS: [&str; 2] = ["request", "session"];
    if GROUND.iter().any(|name| within(module, name)) {
        return Some(Room { name: "ground", floor: 0 });
    }
    if OF_HANDLERS.iter().any(|name| within(module, name)) {
        return room("handler");
    }
    if let Some((name, floor)) = FOLDERS.into_iter().find(|(name, _)| within(module, name)) {
        return Some(Room { name, floor });
    }
    let (name, floor) = match module {
        "lib" => ("lib", 8),
        _ if within(module, "internals") => ("lib", 8),
        "program/log" | "program/output" | "program/printable" => ("program/output", 9),
        _ if within(module, "program/commands") => ("program/commands", 10),
        _ if within(module, "program/load") => ("program/load", 11),
        "program/main" | "program/plane" | "program/serve" | "program/signals" => (PROGRAM, 12),
        _ if within(module, "program/cli") => (PROGRAM, 12),
        _ => return None,
    };
    Some(Room { name, floor })
}

/// Rooms that know no system, no runtime and no clock.
const PURE: [&str; 7] = ["event", "handler", "protocol", "site", "engine", "hub", "echo"];
const IMPURE_WORDS: [&str; 7] = ["glommio", "rustix", "socket2", "io_uring", "libc", "SystemTime", "OwnedFd"];

fn within(module: &str, top: &str) -> bool {
    module.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What is wrong in one file, a line for each breach: file, line and rule.
fn breaches(module: &str, file: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Some(own) = room(module) else {
        return vec![format!("{file}:1: this file is in no room; give it one in the layering test and in the design")];
    };
    let mut in_tests = false;
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        in_tests |= code.trim_start().starts_with("mod tests {");
        let mut breach = |rule: String| found.push(format!("{file}:{}: {rule}\n    {}", index + 1, line.trim()));
        let mut targets = Vec::new();
        for used in paths(code, "crate::") {
            match target(module, &used) {
                Some(target) => targets.push(target),
                None => breach(format!("`crate::{used}` does not name a module that the layering knows")),
            }
        }
        // In a module of tests it means the file itself.
        if !in_tests {
            targets.extend(paths(code, "super::").into_iter().filter_map(|used| above(module, &used)));
        }
        for target in targets {
            let theirs = room(&target).expect("what is found has a room");
            if theirs != own && theirs.floor >= own.floor {
                let (own, theirs) = (own.name, theirs.name);
                breach(format!("{own} ({module}) may not use {theirs}, which is not below it"));
            }
            if target == HOST && !within(module, HOST) && !HOST_USERS.iter().any(|user| within(module, user)) {
                breach(format!("only {} look at the host", HOST_USERS.join(", ")));
            }
        }
        if has_word(code, "glommio") && !matches!(own.name, "shard" | "server") {
            breach("glommio appears only in shard/ and server/".into());
        }
        if !in_tests && PURE.contains(&own.name) {
            let word = IMPURE_WORDS.into_iter().find(|word| has_word(code, word));
            if word.is_some() || code.contains("Instant::now") {
                breach(format!("{} are pure: no system, no runtime, and time is an argument", PURE.join(", ")));
            }
        }
        let http = ["tokio", "axum", "hyper"].iter().any(|runtime| has_word(code, runtime));
        if http && !within(module, "control") {
            breach("tokio, axum and hyper appear only in control/".into());
        }
        // In text, as in a header's value, the word is harmless.
        let forms = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern"];
        if forms.iter().any(|form| code.contains(form)) && module != "sys" {
            breach("unsafe code stands in sys.rs alone".into());
        }
    }
    found
}

/// What follows each `start` in a line, with braces taken apart. A `super::` behind another belongs to the first.
fn paths(code: &str, start: &str) -> Vec<String> {
    let path = |text: &str| {
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
        text[..end].trim_end_matches(':').to_owned()
    };
    let mut paths = Vec::new();
    for (at, prefix) in code.match_indices(start) {
        if code[..at].ends_with("super::") {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(list) => paths.extend(list.split([',', '}']).map(str::trim).filter(|item| *item != ";").map(path)),
            None => paths.push(path(rest)),
        }
    }
    paths
}

/// The module that a path names: the longest beginning of it that is one. Types and constants are no modules, and
/// those that stand alone are the crate root's.
fn target(from: &str, path: &str) -> Option<String> {
    let (folder, root) = if within(from, PROGRAM) { (Some(PROGRAM), "program/main") } else { (None, "lib") };
    let is_module = |part: &&str| part.starts_with(|c: char| c.is_lowercase());
    let named: Vec<&str> = path.split("::").take_while(is_module).collect();
    if named.is_empty() && !path.is_empty() {
        return Some(root.to_owned());
    }
    let parts: Vec<&str> = folder.into_iter().chain(named).collect();
    (1..=parts.len()).rev().map(|len| parts[..len].join("/")).find(|module| room(module).is_some())
}

/// The module that a path behind `super::` names, seen from a module; `None`: the crate's root, which every module is in.
fn above(from: &str, path: &str) -> Option<String> {
    let mut folder = from.rsplit_once('/')?.0;
    let mut path = path;
    while let Some(rest) = path.strip_prefix("super::") {
        folder = folder.rsplit_once('/').map_or("", |(folder, _)| folder);
        path = rest;
    }
    let is_module = |part: &&str| part.starts_with(|c: char| c.is_lowercase());
    let parts: Vec<&str> = folder.split('/').chain(path.split("::").take_while(is_module)).collect();
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    (1..=parts.len()).rev().map(|len| parts[..len].join("/")).find(|module| room(module).is_some())
}

fn has_word(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.split(|c| !part(c)).any(|found| found == word)
}

/// Every source file with its module.
fn sources() -> Vec<(String, PathBuf)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut dirs, mut files) = (vec![src.clone()], Vec::new());
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let module = path.strip_prefix(&src).unwrap().with_extension("");
                let module = module.to_str().unwrap();
                files.push((module.strip_suffix("/mod").unwrap_or(module).to_owned(), path));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn imports_point_down_and_each_power_has_its_place() {
    let sources = sources();
    assert!(sources.len() > 20, "the sources were found");
    let mut report = String::new();
    for (module, path) in sources {
        let file = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
        for breach in breaches(&module, &file, &fs::read_to_string(&path).unwrap()) {
            writeln!(report, "{breach}").unwrap();
        }
    }
    assert!(report.is_empty(), "the layering of the design is broken:\n{report}");
}

/// The modules that each module uses, but for those that it is in, and that are in it: those are one thing.
fn uses(sources: &BTreeMap<String, String>) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut uses = BTreeMap::new();
    for (module, text) in sources {
        let used: &mut BTreeSet<&str> = uses.entry(&module[..]).or_default();
        for line in text.lines().take_while(|line| !line.trim_start().starts_with("mod tests {")) {
            let code = line.split("//").next().unwrap_or_default();
            let top = if within(module, PROGRAM) { PROGRAM } else { "" };
            let absolute = paths(code, "crate::").into_iter().map(|path| joined(top, &path));
            let relative = paths(code, "super::").into_iter().filter_map(|path| {
                let above = path.matches("super::").count() + 1;
                let parts: Vec<&str> = module.split('/').collect();
                Some(joined(&parts[..parts.len().checked_sub(above)?].join("/"), &path.replace("super::", "")))
            });
            for path in absolute.chain(relative) {
                let parts: Vec<&str> = path.split('/').collect();
                let named = (1..=parts.len()).rev().find_map(|len| sources.get_key_value(&parts[..len].join("/")));
                if let Some((named, _)) = named
                    && !within(module, named)
                    && !within(named, module)
                {
                    used.insert(named);
                }
            }
        }
    }
    uses
}

/// A path of Rust below a folder, as one of files.
fn joined(folder: &str, path: &str) -> String {
    let path = path.replace("::", "/");
    if folder.is_empty() { path } else { format!("{folder}/{path}") }
}

/// Modules that can't be put in an order in which each uses only what comes before it.
fn circles<'a>(mut uses: BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    loop {
        let before = uses.len();
        // Those that use nothing that is left, and those that nothing that is left uses.
        let left: BTreeSet<&str> = uses.keys().copied().collect();
        uses.values_mut().for_each(|used| used.retain(|module| left.contains(module)));
        let used: BTreeSet<&str> = uses.values().flatten().copied().collect();
        uses.retain(|module, uses| !uses.is_empty() && used.contains(module));
        if uses.len() == before {
            return uses;
        }
    }
}

#[test]
fn no_file_needs_one_that_needs_it() {
    let sources: BTreeMap<String, String> =
        sources().into_iter().map(|(module, path)| (module, fs::read_to_string(path).unwrap())).collect();
    let uses = uses(&sources);
    assert!(uses.values().map(BTreeSet::len).sum::<usize>() > 500, "the uses were found");
    let circles = circles(uses);
    assert!(circles.is_empty(), "these files are in circles, or between two of them: {circles:#?}");
}

#[test]
fn a_circle_of_files_is_found() {
    let sources: BTreeMap<String, String> = [
        ("a", "use crate::b::B;"),
        ("b", "use crate::c::{C, d};"),
        ("c", "fn f() -> super::a::A {}"),
        ("c/d", "use super::C;\nuse super::super::e::E;"),
        ("e", "mod tests {\n    use crate::a::A;"),
        ("f", "use crate::a::A; // crate::b"),
    ]
    .map(|(module, text)| (module.to_owned(), text.to_owned()))
    .into();
    let found = circles(uses(&sources));
    assert_eq!(found.into_keys().collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn each_kind_of_breach_is_found_with_file_line_and_rule() {
    let breach = |module: &str, line: &str| breaches(module, "src/x.rs", &format!("\n{line}\n")).join("\n");
    for (module, line, rule) in [
        ("handler", "use crate::engine::Engine;", "handler (handler) may not use engine, which is not below it"),
        ("protocol/line", "use crate::hub::Hub;", "protocol (protocol/line) may not use hub"),
        ("protocol/line", "use crate::handler::Event;", "protocol (protocol/line) may not use handler"),
        ("protocol/line", "use super::super::shard::Shard;", "protocol (protocol/line) may not use shard"),
        ("engine/turn", "    let shard = super::super::shard::run;", "engine (engine/turn) may not use shard"),
        ("protocol/http", "use crate::site::Site;", "protocol (protocol/http) may not use site, which is not below it"),
        ("site", "use crate::engine::Engine;", "site (site) may not use engine"),
        ("config", "fn f() -> crate::handler::Event {}", "ground (config) may not use handler"),
        ("engine/outbox", "use crate::shard::{self, Start};", "engine (engine/outbox) may not use shard"),
        ("server", "    use crate::program::cli::Settings;", "server (server) may not use program"),
        ("program/log", "use crate::cli::Cli;", "program/output (program/log) may not use program"),
        ("program/commands/push", "use crate::load::Plan;", "(program/commands/push) may not use program/load"),
        ("program/serve", "use crate::host;", "does not name a module"),
        ("engine", "use crate::hub::topic_word;", "engine (engine) may not use hub"),
        ("engine", "use crate::echo::Echo;", "engine (engine) may not use echo"),
        ("hub", "use crate::engine::Engine;", "hub (hub) may not use engine"),
        ("engine/registry", "use crate::host;", "only server, shard, control look at the host"),
        ("hub/language", "use glommio::Task;", "glommio appears only in"),
        ("engine/turns", "use glommio::Task;", "glommio appears only in"),
        ("control/api", "use glommio::Task;", "glommio appears only in"),
        ("server", "let runtime = tokio::runtime::Runtime::new();", "tokio, axum and hyper appear only in control/"),
        ("shard", "use crate::control::Control;", "shard (shard) may not use control"),
        ("engine/table", "let now = std::time::Instant::now();", "time is an argument"),
        ("engine/turn", "rustix::net::recv(socket);", "no system"),
        ("protocol", "use std::time::SystemTime;", "time is an argument"),
        ("engine/registry", "unsafe { f() }", "sys.rs alone"),
        ("handler", "use crate::{config, server};", "handler (handler) may not use server"),
        ("handler", "use crate::Server;", "handler (handler) may not use lib"),
        ("server", "use crate::{", "does not name a module"),
        ("backplane", "", "is in no room"),
    ] {
        let found = breach(module, line);
        assert!(found.starts_with("src/x.rs:") && found.contains(rule), "{module}, `{line}`: {found:?}");
    }
    for (module, line) in [
        ("engine", "use crate::engine::outbox::{Frame, Outbox};"),
        ("engine/drain", "use super::outbox::Outbox;"),
        ("shard/turns", "use crate::engine::Engine;"),
        ("program/serve", "use crate::{FAULT, USAGE};"),
        ("protocol/line", "use crate::{config, message};"),
        ("engine", "use crate::handler::Handler; // not crate::hub"),
        ("server", "use crate::host::{self, HostError};"),
        ("handler", "/// Nothing unsafe, no glommio, no Instant::now; see [`crate::server`]."),
        ("program/cli", "#![deny(unsafe_code)]"),
        ("control/assets", "const POLICY: &str = \"style-src 'unsafe-inline'\";"),
    ] {
        assert_eq!(breach(module, line), "", "{module}, `{line}`");
    }
}
