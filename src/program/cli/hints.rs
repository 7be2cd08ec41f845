//! What is said of flags that other servers have: which one does that here.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Flags that `serve` does not have, and what to write.
const SERVE: &[(&[&str], &str)] = &[
    (
        &["--port", "--bind", "--addr", "--address", "--ip", "-p", "--http-port", "--ws-port", "--tcp-port"],
        "addresses and ports of clients are set by '--listen', as in --listen http=0.0.0.0:8080; that of the API by '--control'",
    ),
    (
        &["--admin", "--admin-port", "--api", "--api-port", "--metrics", "--metrics-port", "--dashboard"],
        "API, metrics and dashboard are on one address, set by '--control', as in --control 127.0.0.1:8081",
    ),
    (&["--workers", "--threads", "--cores", "-w"], "there is a shard for each CPU; '--shards' sets another number"),
    (
        &["--tls", "--ssl", "--cert", "--key", "--tls-cert", "--tls-key", "--https"],
        "there is no TLS yet; put a proxy that ends TLS in front",
    ),
    (&["--max-clients", "--max-conns", "--maxclients"], "'--max-connections' sets how many clients may be connected"),
    (
        &["--token", "--auth", "--password", "--api-key"],
        "'--control-token-file' names a file with the token of the API",
    ),
    (
        &["--cors", "--origin", "--origins", "--allowed-origins"],
        "'--allow-origin' lists the origins of pages that may connect",
    ),
    (&["--verbose", "-v", "--debug", "--log-level", "--quiet", "-q"], "'--log' sets what is logged, as in --log debug"),
    (&["--timeout", "--idle-timeout"], "'--read-timeout' sets when a silent client is closed"),
    (
        &["--daemon", "--background", "-d", "--pid-file"],
        "the server stays in the foreground; let systemd or a container run it",
    ),
    (&["--config-file", "-c", "--conf"], "'--config' names the file with settings"),
];

/// Flags that `push` and `stats` do not have.
const CLIENTS: &[(&[&str], &str)] = &[
    (
        &["--url", "--server", "--host", "--port", "--addr", "--target"],
        "'--control' says where the server is, as in --control 127.0.0.1:8081",
    ),
    (&["--token"], "'--token-file' names a file with the token"),
    (
        &["--topic", "-t", "--message", "--payload", "-m"],
        "topic and message are given without flags, as in: corecast push news 'hello'",
    ),
];

/// Flags that `load` does not have.
const LOAD: &[(&[&str], &str)] = &[
    (
        &["--url", "--host", "--port", "--addr", "--server"],
        "'--target' says where the server is, as in --target 127.0.0.1:8888",
    ),
    (&["--clients", "--concurrency", "-c", "--conns"], "'--connections' sets how many clients connect"),
    (&["--time", "-t", "-d"], "'--duration' sets how long the run takes"),
];

/// Adds to an error what the unknown flag is called here. `arguments` are those of the program, its own name first.
pub(crate) fn add(mut error: clap::Error, arguments: impl Iterator<Item = String>) -> clap::Error {
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    let table = match arguments.skip(1).find(|argument| !argument.starts_with('-')).as_deref() {
        Some("serve") => SERVE,
        Some("push" | "stats") => CLIENTS,
        Some("load") => LOAD,
        _ => return error,
    };
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return error };
    let flag = flag.split(['=', ' ']).next().unwrap_or_default();
    if let Some((_, hint)) = table.iter().find(|(flags, _)| flags.contains(&flag)) {
        // In place of what clap finds by the likeness of letters.
        error.remove(ContextKind::SuggestedArg);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![(*hint).into()]));
    }
    error
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::Cli;

    fn error(arguments: &[&str]) -> String {
        let arguments: Vec<_> = ["corecast"].iter().chain(arguments).map(ToString::to_string).collect();
        add(Cli::try_parse_from(&arguments).unwrap_err(), arguments.into_iter()).to_string()
    }

    #[test]
    fn a_flag_of_other_servers_leads_to_the_one_that_is_here() {
        for (flag, hint) in [
            ("--port", "--listen"),
            ("--port=80", "--listen"),
            ("-p", "--listen"),
            ("--workers", "--shards"),
            ("--tls", "no TLS"),
        ] {
            let said = error(&["serve", flag]);
            assert!(said.contains("unexpected argument") && said.contains("tip: ") && said.contains(hint), "{said}");
        }
        assert!(error(&["load", "idle", "--port", "1"]).contains("--target"));
        // Where none is known, clap looks for one that is written alike.
        assert!(error(&["serve", "--max-connection", "1"]).contains("--max-connections"));
    }

    #[test]
    fn no_hint_stands_for_a_flag_that_exists_and_each_names_one_that_does() {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        for (flags, hint) in SERVE {
            for flag in flags.iter().filter_map(|flag| flag.strip_prefix("--")) {
                assert!(serve.get_arguments().all(|argument| argument.get_long() != Some(flag)), "--{flag} exists");
            }
            for named in hint.split('\'').filter_map(|part| part.strip_prefix("--")) {
                assert!(
                    serve.get_arguments().any(|argument| argument.get_long() == Some(named)),
                    "--{named} in: {hint}"
                );
            }
        }
    }
}
