//! The layering of the design page: imports point down, and each outside power is held by the files that may use it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The module that looks at the host, and those that may use it.
const HOST: &str = "host";
const HOST_USERS: [&str; 3] = ["server", "shard", "control"];

/// The folder of the program, a crate of its own: `crate::` in it means the program, `corecast::` the library's public API.
const PROGRAM: &str = "program";

/// The level of a module, by its path below `src/` without `.rs` and `/mod`.
fn level(module: &str) -> Option<u8> {
    Some(match module {
        _ if within(module, "config") => 0,
        _ if within(module, "message") => 0,
        "guide" | "json" | "metrics" | "rate" | "receipt" | "sys" => 0,
        "server/handover" => 0,
        _ if within(module, HOST) => 0,
        "handler" => 1,
        _ if within(module, "protocol") || within(module, "transport") => 1,
        "echo" => 2,
        _ if within(module, "hub") => 2,
        "engine/audience"
        | "engine/table"
        | "engine/outbox"
        | "engine/memory"
        | "engine/wheel"
        | "engine/interest"
        | "engine/subscriptions"
        | "engine/trim" => 2,
        _ if within(module, "engine") => 3,
        _ if within(module, "shard") => 3,
        _ if within(module, "server") => 4,
        _ if within(module, "control") => 4,
        "internals" | "lib" => 5,
        _ if within(module, "simulation") => 5,
        "program/log" | "program/output" | "program/printable" => 6,
        _ if within(module, "program/commands") => 7,
        _ if within(module, "program/load") => 8,
        "program/main" | "program/plane" | "program/serve" | "program/signals" => 9,
        _ if within(module, "program/cli") => 9,
        _ => return None,
    })
}

fn within(module: &str, top: &str) -> bool {
    module.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What is wrong in one file, a line for each breach: file, line and rule.
fn breaches(module: &str, file: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Some(own) = level(module) else {
        return vec![format!("{file}:1: this file has no level; give it one in the layering test and in the design")];
    };
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let mut breach = |rule: String| found.push(format!("{file}:{}: {rule}\n    {}", index + 1, line.trim()));
        for used in crate_paths(code) {
            let Some(target) = target(module, &used) else {
                breach(format!("`crate::{used}` does not name a module that the layering knows"));
                continue;
            };
            let theirs = level(&target).expect("target() gives modules that have a level");
            if theirs > own {
                breach(format!("level {own} ({module}) may not use level {theirs} ({target})"));
            }
            if (within(module, "shard") || within(module, "engine")) && (within(&target, "hub") || target == "echo") {
                breach("the shard knows only `H: Handler`, never the hub or another handler".into());
            }
            if target == HOST && !HOST_USERS.iter().any(|user| within(module, user)) {
                breach(format!("only {} look at the host", HOST_USERS.join(", ")));
            }
        }
        if has_word(code, "glommio") && own != 3 && !within(module, "server") {
            breach("glommio appears only in level 3 and server/".into());
        }
        let http = ["tokio", "axum", "hyper"].iter().any(|runtime| has_word(code, runtime));
        if http && !within(module, "control") {
            breach("tokio, axum and hyper appear only in control/".into());
        }
        if (1..=2).contains(&own) && (code.contains("Instant::now") || has_word(code, "SystemTime")) {
            breach("levels 1 and 2 are pure: time is an argument".into());
        }
        // In text, as in a header's value, the word is harmless.
        let forms = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern"];
        if forms.iter().any(|form| code.contains(form)) && module != "sys" {
            breach("unsafe code stands in sys.rs alone".into());
        }
    }
    found
}

/// What follows each `crate::` in a line, with braces taken apart.
fn crate_paths(code: &str) -> Vec<String> {
    let path = |text: &str| {
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
        text[..end].trim_end_matches(':').to_owned()
    };
    let mut paths = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
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
    (1..=parts.len()).rev().map(|len| parts[..len].join("/")).find(|module| level(module).is_some())
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

#[test]
fn each_kind_of_breach_is_found_with_file_line_and_rule() {
    let breach = |module: &str, line: &str| breaches(module, "src/x.rs", &format!("\n{line}\n")).join("\n");
    for (module, line, rule) in [
        ("handler", "use crate::engine::Engine;", "level 1 (handler) may not use level 3 (engine)"),
        ("protocol/line", "use crate::hub::Hub;", "level 1 (protocol/line) may not use level 2 (hub)"),
        ("config", "fn f() -> crate::handler::Event {}", "level 0 (config) may not use level 1 (handler)"),
        ("engine/outbox", "use crate::shard::{self, Start};", "level 2 (engine/outbox) may not use level 3 (shard)"),
        ("server", "    use crate::program::cli::Settings;", "level 4 (server) may not use level 9 (program/cli)"),
        ("program/log", "use crate::cli::Cli;", "level 6 (program/log) may not use level 9 (program/cli)"),
        ("program/commands/push", "use crate::load::Plan;", "level 7 (program/commands/push) may not use level 8"),
        ("program/serve", "use crate::host;", "does not name a module"),
        ("engine", "use crate::hub::topic_word;", "never the hub"),
        ("engine", "use crate::echo::Echo;", "never the hub"),
        ("engine/registry", "use crate::host;", "only server, shard, control look at the host"),
        ("hub/language", "use glommio::Task;", "glommio appears only in"),
        ("control/api", "use glommio::Task;", "glommio appears only in"),
        ("server", "let runtime = tokio::runtime::Runtime::new();", "tokio, axum and hyper appear only in control/"),
        ("shard", "use crate::control::Control;", "level 3 (shard) may not use level 4 (control)"),
        ("engine/table", "let now = std::time::Instant::now();", "time is an argument"),
        ("protocol", "use std::time::SystemTime;", "time is an argument"),
        ("engine/registry", "unsafe { f() }", "sys.rs alone"),
        ("handler", "use crate::{config, server};", "level 1 (handler) may not use level 4 (server)"),
        ("handler", "use crate::Server;", "level 1 (handler) may not use level 5 (lib)"),
        ("server", "use crate::{", "does not name a module"),
        ("backplane", "", "has no level"),
    ] {
        let found = breach(module, line);
        assert!(found.starts_with("src/x.rs:") && found.contains(rule), "{module}, `{line}`: {found:?}");
    }
    for (module, line) in [
        ("engine", "use crate::engine::outbox::{Frame, Outbox};"),
        ("engine/drain", "use crate::shard::Shard;"),
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
