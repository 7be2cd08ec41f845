//! The command line: typed flags, laid over the config file, resolved to a [`Config`].

pub(crate) mod hints;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use thiserror::Error;

use crate::commands::doctor::DoctorArgs;
use crate::commands::push::PushArgs;
use crate::commands::stats::StatsArgs;
#[cfg(feature = "load")]
use crate::load::LoadCommand;
use corecast::{
    Config, ConfigError, ControlAddr, Cpus, HostName, Listen, Origin, Pin, SlowConsumer, bytes_from_text,
    duration_from_text,
};

/// A push server for Linux: millions of long-lived connections on one machine.
#[derive(Debug, Parser)]
#[command(name = "corecast", version, propagate_version = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server.
    Serve(Box<ServeArgs>),
    /// Put load on a server, and measure what it does.
    #[cfg(feature = "load")]
    #[command(subcommand)]
    Load(Box<LoadCommand>),
    /// Publish a message, or every line of stdin, through a running server.
    Push(PushArgs),
    /// Show what a running server is doing: connections, rates, drops, queues, topics.
    Stats(StatsArgs),
    /// Look at this host: how many connections it can reach, what stops it first, and how to raise that limit.
    Doctor(DoctorArgs),
}

/// What the server does with its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum App {
    /// The push server: topics, publishing, broadcast.
    Hub,
    /// Sends each message back.
    Echo,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line, for programs.
    Json,
}

/// Flags of `corecast serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// A TOML file with settings; flags override it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Check settings and host, print the settings in force, and exit
    #[arg(long)]
    pub(crate) check: bool,
    /// What the server does with its clients
    #[arg(long, value_enum, default_value = "hub")]
    pub(crate) app: App,
    /// Time between two status lines in the log; 0: none
    #[arg(long, value_name = "TIME", value_parser = duration_from_text, default_value = "10s")]
    pub(crate) report_every: Duration,
    /// What to log: a level (error, warn, info, debug, trace), or levels by module, as in corecast=debug,warn
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub(crate) log: String,
    /// How log lines look
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// The settings.
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// The settings as flags: those of [`Config`], each of which may be left out.
#[derive(Debug, Default, Args, Serialize)]
#[command(next_help_heading = "Settings (also keys of the config file, with _ for -)")]
pub(crate) struct Settings {
    /// An address to listen on and its framing (line, length or http); may be given several times
    #[arg(long, value_name = "FRAMING=ADDR")]
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "texts")]
    listen: Vec<Listen>,
    /// Number of shards, each on a core of its own [default: one for each CPU]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    shards: Option<usize>,
    /// CPUs to pin the shards to, as in 0,2-3 [default: those the process may use]
    #[arg(long, value_name = "LIST")]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text")]
    cpus: Option<Cpus>,
    /// Whether shards are pinned: auto (each to a CPU of its own, the least used ones, unless a quota forbids) or off
    #[arg(long, value_name = "HOW")]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text")]
    pin: Option<Pin>,
    /// Most connections at a time, over all shards
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_connections: Option<usize>,
    /// Bytes of resident memory above which new connections are refused; 0: no limit
    #[arg(long, value_name = "BYTES", value_parser = bytes_from_text)]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_memory: Option<usize>,
    /// Bytes that all connections together may hold; above that, those that hold the most are closed. 0: half of max-memory, or a quarter of the machine's memory
    #[arg(long, value_name = "BYTES", value_parser = bytes_from_text)]
    #[serde(skip_serializing_if = "Option::is_none")]
    buffers_max: Option<usize>,
    /// New connections a second, over all shards; more wait in the backlog. 0: no limit
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    accept_rate: Option<u32>,
    /// Messages, and WebSocket frames of any kind, a second from one connection; one that sends more is read more slowly. 0: no limit
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    message_rate: Option<u32>,
    /// Largest message, in bytes
    #[arg(long, value_name = "BYTES", value_parser = bytes_from_text)]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_message: Option<usize>,
    /// Pushed messages that may wait for one client
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_messages_max: Option<usize>,
    /// Bytes of pushed messages that may wait for one client
    #[arg(long, value_name = "BYTES", value_parser = bytes_from_text)]
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_bytes_max: Option<usize>,
    /// What happens to a message when a client's queue is full: skip, drop-oldest, keep-latest or disconnect
    #[arg(long, value_name = "POLICY")]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text")]
    slow_consumer: Option<SlowConsumer>,
    /// A connection that completes no message for this long is closed; 0: never
    #[arg(long, value_name = "TIME", value_parser = duration_from_text)]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    read_timeout: Option<Duration>,
    /// A connection that takes no byte of what waits for it for this long is closed; 0: never
    #[arg(long, value_name = "TIME", value_parser = duration_from_text)]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    write_timeout: Option<Duration>,
    /// An HTTP connection whose request is not complete after this long is closed
    #[arg(long, value_name = "TIME", value_parser = duration_from_text)]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    head_timeout: Option<Duration>,
    /// Largest head of an HTTP request (request line, cookies and all), in bytes
    #[arg(long, value_name = "BYTES", value_parser = bytes_from_text)]
    #[serde(skip_serializing_if = "Option::is_none")]
    head_bytes_max: Option<usize>,
    /// A silent WebSocket is pinged, and an idle event stream gets a comment, after this long; 0: never
    #[arg(long, value_name = "TIME", value_parser = duration_from_text)]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    ping_every: Option<Duration>,
    /// An origin whose pages may connect, as in `https://example.com` or `https://*.example.com`, or `*` for any; may be given several times [default: the server's own]
    #[arg(long, value_name = "ORIGIN")]
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "texts")]
    allow_origin: Vec<Origin>,
    /// A name under which browsers reach the server, as in `push.example.com`, or `*.example.com`; may be given several times [default: addresses and localhost]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "texts")]
    host: Vec<HostName>,
    /// Compress WebSocket messages for clients that offer it (permessage-deflate); =false: don't
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    deflate: Option<bool>,
    /// Serve a demo page at /demo
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    demo: Option<bool>,
    /// TCP keepalive, idle time and interval; 0: off
    #[arg(long, value_name = "TIME", value_parser = duration_from_text)]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    keepalive: Option<Duration>,
    /// SO_RCVBUF of each connection [default: the kernel sizes it]
    #[arg(long, value_name = "BYTES", value_parser = bytes_from_text)]
    #[serde(skip_serializing_if = "Option::is_none")]
    so_rcvbuf: Option<usize>,
    /// SO_SNDBUF of each connection [default: the kernel sizes it]
    #[arg(long, value_name = "BYTES", value_parser = bytes_from_text)]
    #[serde(skip_serializing_if = "Option::is_none")]
    so_sndbuf: Option<usize>,
    /// Connections that may wait to be accepted, per address and shard; net.core.somaxconn caps it
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    backlog: Option<u32>,
    /// Let clients publish (PUB, CAST)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    client_publish: Option<bool>,
    /// Topics one client may subscribe to
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    topics_per_connection_max: Option<usize>,
    /// Longest topic name, in bytes
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    topic_bytes_max: Option<usize>,
    /// Time before a drain for which the server serves as before, but reports that it is not ready
    #[arg(long, value_name = "TIME", value_parser = duration_from_text)]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    drain_grace: Option<Duration>,
    /// Time over which connections are closed when the server drains
    #[arg(long, value_name = "TIME", value_parser = duration_from_text)]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    drain_time: Option<Duration>,
    /// Publishes that may wait in one shard to be delivered
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    publish_queue: Option<usize>,
    /// Messages that may wait between each pair of shards
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    mesh_queue: Option<usize>,
    /// Messages that a shard keeps for another whose mesh queue is full
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    mesh_backlog: Option<usize>,
    /// Publishes from outside the shards that may wait, per shard, and as many questions and closes each
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    control_queue: Option<usize>,
    /// Address of the control plane (localhost: both loopback addresses): HTTP API, metrics and dashboard; or off
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text")]
    control: Option<ControlAddr>,
    /// File with the token that calls to the control plane must show; required outside loopback [default: none]
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    control_token_file: Option<PathBuf>,
}

fn texts<T: fmt::Display, S: serde::Serializer>(values: &[T], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(T::to_string))
}

fn text<T: fmt::Display, S: serde::Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_some(&value.as_ref().map(T::to_string))
}

fn time<S: serde::Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_some(&value.map(corecast::duration_to_text))
}

/// Why the settings can't be put together.
#[derive(Debug, Error)]
pub(crate) enum SettingsError {
    /// The file can't be read.
    #[error("can't read the config file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The file can't be understood.
    #[error("in the config file {path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A setting can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Settings {
    /// The settings in force: defaults, the file over them, these flags over both; and checked.
    ///
    /// # Errors
    /// The file, or a setting, is at fault.
    pub(crate) fn resolve(&self, file: Option<&Path>) -> Result<Config, SettingsError> {
        // Merged as JSON, which holds every number that a flag may have; TOML ends at i64.
        let mut merged = match file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
                let parse = |source| SettingsError::Parse { path: path.to_owned(), source: Box::new(source) };
                // Read into the whole first, so that an error points to its line in the file.
                toml::from_str::<Config>(&text).map_err(parse)?;
                json_object(&toml::from_str::<toml::Table>(&text).map_err(parse)?)
            }
            None => serde_json::Map::new(),
        };
        merged.extend(json_object(self));
        let config: Config = serde_json::from_value(serde_json::Value::Object(merged))
            .expect("the file was read before, and flags are typed");
        config.validate()?;
        Ok(config)
    }
}

/// A struct or table of plain values as a JSON object.
fn json_object(from: &impl Serialize) -> serde_json::Map<String, serde_json::Value> {
    match serde_json::to_value(from) {
        Ok(serde_json::Value::Object(object)) => object,
        other => unreachable!("settings are plain values under text keys, not {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn serve(flags: &[&str]) -> Box<ServeArgs> {
        match Cli::try_parse_from(["corecast", "serve"].iter().chain(flags)).unwrap().command {
            Command::Serve(serve) => serve,
            _ => unreachable!("the words above are of serve"),
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_is_a_flag_with_the_same_name() {
        let mut full = Config::default();
        full.shards = Some(2);
        full.cpus = Some(Cpus(vec![0]));
        full.so_rcvbuf = Some(4096);
        full.so_sndbuf = Some(4096);
        full.control_token_file = Some("token".into());
        let keys: Vec<_> = toml::Table::try_from(full).unwrap().keys().cloned().collect();
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        for key in keys {
            let flag = key.replace('_', "-");
            assert!(serve.get_arguments().any(|arg| arg.get_long() == Some(&flag)), "--{flag} is missing");
        }
    }

    #[test]
    fn every_setting_is_in_the_guide_with_its_default_and_its_help() {
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
        let table = rows.join("\n");
        let guide = include_str!("../guide/settings.md");
        assert!(guide.contains(&table), "src/guide/settings.md lacks this table, or a row of it:\n\n{table}\n");
    }

    #[test]
    fn flags_override_the_file_and_the_file_the_defaults() {
        let dir = std::env::temp_dir().join(format!("corecast-cli-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("corecast.toml");
        std::fs::write(&file, "max_connections = 7\nread_timeout = '30s'\nlisten = ['length=127.0.0.1:1']\n").unwrap();
        let flags = serve(&["--max-connections", "9", "--client-publish", "--max-message", "1KiB"]);
        let config = flags.settings.resolve(Some(&file)).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(config.max_connections, 9);
        assert_eq!(config.read_timeout, Duration::from_secs(30));
        assert_eq!(config.listen[0].to_string(), "length=127.0.0.1:1");
        assert!(config.client_publish);
        assert_eq!(config.max_message, 1024);
        assert_eq!(config.write_timeout, Config::default().write_timeout);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Settings::default().resolve(Some(Path::new("/no/such/file.toml"))).unwrap_err();
        assert!(error.to_string().starts_with("can't read the config file /no/such/file.toml: "), "{error}");
    }
}
