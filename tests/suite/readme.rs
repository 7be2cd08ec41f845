//! The README's tables are held against the code: each row must be there, word for word.

use clap::CommandFactory;
use corecast::cli::Cli;
use corecast::{CloseReason, Config, DropReason, ErrorCode};

const README: &str = include_str!("../../README.md");

/// Fails with the whole table as it should be, ready to be pasted.
pub(crate) fn assert_table(rows: &[String]) {
    let table = rows.join("\n");
    assert!(README.contains(&table), "the README lacks this table, or a row of it:\n\n{table}\n");
}

#[test]
fn every_setting_is_in_the_readme_with_its_default_and_its_help() {
    let defaults = toml::Table::try_from(Config::default()).unwrap();
    let command = Cli::command();
    let serve = command.find_subcommand("serve").unwrap();
    let mut rows = vec!["| flag | default | meaning |".to_owned(), "| --- | --- | --- |".to_owned()];
    for arg in serve.get_arguments().filter(|arg| arg.get_help_heading().is_some()) {
        let flag = arg.get_long().unwrap();
        let help = arg.get_help().unwrap().to_string();
        let (help, own) = help.split_once(" [default: ").unwrap_or((&help, ""));
        let default = match defaults.get(&flag.replace('-', "_")) {
            Some(toml::Value::String(text)) => format!("`{text}`"),
            Some(toml::Value::Array(items)) if items.is_empty() => own.trim_end_matches(']').to_owned(),
            Some(toml::Value::Array(items)) => {
                let items: Vec<_> = items.iter().map(|item| item.as_str().unwrap()).collect();
                format!("`{}`", items.join(" "))
            }
            Some(value) => format!("`{value}`"),
            None => own.trim_end_matches(']').to_owned(),
        };
        rows.push(format!("| `--{flag}` | {default} | {help} |"));
    }
    assert!(rows.len() > 20);
    assert_table(&rows);
}

#[test]
fn every_error_code_is_in_the_readme() {
    let mut rows = vec!["| error code | meaning |".to_owned(), "| --- | --- |".to_owned()];
    rows.extend(ErrorCode::ALL.map(|code| format!("| `{}` | {} |", code.name(), code.meaning())));
    assert_table(&rows);
}

#[test]
fn every_reason_is_in_the_readme() {
    let mut rows = vec!["| `GAP` reason | meaning |".to_owned(), "| --- | --- |".to_owned()];
    rows.extend(DropReason::ALL.map(|reason| format!("| `{reason}` | {} |", reason.meaning())));
    assert_table(&rows);
    let mut rows = vec!["| close reason | meaning |".to_owned(), "| --- | --- |".to_owned()];
    rows.extend(CloseReason::ALL.map(|reason| format!("| `{reason}` | {} |", reason.meaning())));
    assert_table(&rows);
}

/// The sample file, with every setting that has a default taken out of its comment.
#[test]
fn the_sample_config_lists_every_setting_at_its_default() {
    let sample = include_str!("../../deploy/corecast.toml");
    let mut settings = String::new();
    let mut optional = Vec::new();
    let mut lines = sample.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# (default: none)" {
            optional.push(lines.next().unwrap().trim_start_matches("# ").split(' ').next().unwrap());
        } else if let Some(setting) = line.strip_prefix("# ")
            && setting
                .split_once(" = ")
                .is_some_and(|(key, _)| key.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()))
        {
            settings.push_str(setting);
            settings.push('\n');
        }
    }
    assert_eq!(toml::from_str::<Config>(&settings).unwrap(), Config::default());
    let written: Vec<_> = toml::from_str::<toml::Table>(&settings).unwrap().keys().cloned().collect();
    let defaults: Vec<_> = toml::Table::try_from(Config::default()).unwrap().keys().cloned().collect();
    assert_eq!(written, defaults);
    assert_eq!(optional, ["shards", "cpus", "so_rcvbuf", "so_sndbuf", "control_token_file"]);
}
