//! `corecast serve`: runs the server until a signal ends it.

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use corecast::{Config, Echo, Hub, Reporter, Server, ServerHandle, StartError};
use tracing_subscriber::EnvFilter;

use crate::cli::{App, LogFormat, ServeArgs};
use crate::plane::{Plane, Running};
use crate::signals::Taken;
use crate::{FAULT, USAGE, log, output};

/// Runs the server. The exit code: 0, it drained; 1, a fault; 2, bad flags or settings.
pub(crate) fn run(args: &ServeArgs) -> ExitCode {
    let code = start(args).unwrap_or_else(|(code, message)| {
        log::say(&format!("corecast: {message}"));
        ExitCode::from(code)
    });
    log::finish();
    code
}

fn start(args: &ServeArgs) -> Result<ExitCode, (u8, String)> {
    // Handled before anything runs, so that no signal kills the server, and one during the start ends it once it is up.
    let signals = Taken::take().map_err(|error| (FAULT, format!("can't take signals: {error}")))?;
    start_log(args)?;
    let config = args.settings.resolve(args.config.as_deref()).map_err(|error| (USAGE, error.to_string()))?;
    for (origin, caution) in config.allow_origin.iter().filter_map(|origin| Some((origin, origin.caution()?))) {
        tracing::warn!("allow_origin {origin}: {caution}");
    }
    if args.check {
        return check(&config);
    }
    let plane = Plane::bind(&config)?;
    let server = start_server(args.app, &config).map_err(failure)?;
    for warning in server.warnings() {
        tracing::warn!("{warning}");
    }
    let control = plane.start(&server.handle())?;
    announce(&server, &control, args.app);
    let reporter = report(server.handle(), args.report_every);
    signals.apply_to(server.handle(), config.drain_time);
    let ended = server.wait();
    drop(reporter);
    // Last, so that it can tell of the drain to its end.
    control.stop();
    ended.map_err(|error| (FAULT, error.to_string()))?;
    tracing::info!("drained");
    Ok(ExitCode::SUCCESS)
}

/// Prints the settings in force, and tells what this host grants to a server with them. Takes and starts nothing, so that
/// a running server is not in its way.
fn check(config: &Config) -> Result<ExitCode, (u8, String)> {
    let settings = toml::to_string(config).map_err(|error| (FAULT, error.to_string()))?;
    let buffers = whole_mib(Server::buffers_max(config));
    output::print(&format!("{settings}# in force on this host: buffers_max = \"{buffers}\"\n"));
    Plane::check(config)?;
    let outlook = Server::check(config).map_err(failure)?;
    for warning in &outlook.warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!(
        "settings and host are fine: {} shards, {}, up to {} connections; whether the ports are free was not checked",
        outlook.placement.cpus().len(),
        outlook.placement,
        outlook.max_connections,
    );
    Ok(ExitCode::SUCCESS)
}

fn failure(error: StartError) -> (u8, String) {
    (if matches!(error, StartError::Config(_)) { USAGE } else { FAULT }, error.to_string())
}

fn start_log(args: &ServeArgs) -> Result<(), (u8, String)> {
    let filter = EnvFilter::try_new(&args.log)
        .map_err(|error| (USAGE, format!("--log {}: {error}; write a level, or levels by module", args.log)))?;
    log::start().map_err(|error| (FAULT, format!("can't start the log's thread: {error}")))?;
    log::subscribe(filter, args.log_format == LogFormat::Json);
    Ok(())
}

fn start_server(app: App, config: &Config) -> Result<Server, StartError> {
    let listen = config.listen.clone();
    let builder = match app {
        App::Hub => {
            let hub = Hub::new(config);
            Server::builder(listen, move |_| hub.clone())
        }
        App::Echo => Server::builder(listen, |_| Echo),
    };
    builder.config(config.clone()).with_control_plane().start()
}

/// The ready line: what a script waits for, and what an operator looks at first.
fn announce(server: &Server, control: &Running, app: App) {
    let listen: Vec<_> = server.listen().iter().map(ToString::to_string).collect();
    let handle = server.handle();
    tracing::info!(
        "ready: {} on {}, {} shards, up to {} connections, up to {} in buffers, {}, control plane {}",
        if app == App::Hub { "hub" } else { "echo" },
        listen.join(" "),
        handle.stats().len(),
        handle.max_connections(),
        whole_mib(handle.buffers_max()),
        server.placement(),
        control.place().map_or("off".into(), |place| format!("on http://{place}")),
    );
}

/// A size for people.
fn whole_mib(bytes: usize) -> String {
    corecast::bytes_to_text(if bytes < 1 << 20 { bytes } else { bytes >> 20 << 20 })
}

/// Time between two log lines that tell how far a drain is.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// Logs a status line at each interval, and while the server drains how far that is, until the result is dropped.
fn report(handle: ServerHandle, every: Duration) -> mpsc::Sender<()> {
    let (stop, stopped) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reporter = Reporter::new(handle.clone());
        let mut report_at = (!every.is_zero()).then(|| Instant::now() + every);
        let mut progress_at = Instant::now() + PROGRESS_EVERY;
        loop {
            let next = report_at.map_or(progress_at, |report_at| report_at.min(progress_at));
            match stopped.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            let now = Instant::now();
            if progress_at <= now {
                if handle.is_draining() {
                    tracing::info!("draining: {} connections left", handle.conn_count());
                }
                progress_at += PROGRESS_EVERY;
            }
            if let Some(at) = report_at.filter(|at| *at <= now) {
                tracing::info!("{}", reporter.line());
                report_at = Some(at + every);
            }
        }
    });
    stop
}
