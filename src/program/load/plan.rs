//! The command line made into a plan: every value checked, every name resolved, room for all connections.

use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use super::checks::{check_message_size, in_range, positive};
use super::churn::ChurnPlan;
use super::dialect::Dialect;
use super::part::Part;
use super::payload::{STAMP_IDS, STAMP_NS_MAX};
use super::ramp::plan::RampPlan;
use super::turns::PERIOD;
use super::usage::ServerProcess;
use super::{LoadArgs, LoadCommand, LoadError, SourceIps};
use corecast::{Topic, host};

/// File descriptors that the process needs besides connections.
const FDS_RESERVED: u64 = 64;

/// File descriptors that a thread needs for its poll loop.
const FDS_PER_THREAD: u64 = 4;

/// Time for a connect and the server's first answer, if nothing else is asked for.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

const THREADS_MAX: usize = 256;

const PROCESSES_MAX: usize = 256;

const BURST_MAX: u32 = 100_000;

/// Connects per second of a churn that names no rate.
const CHURN_RATE: f64 = 100.0;

/// How long the kernel keeps a port to itself after the connection on it was closed (TIME_WAIT).
const PORT_REST: Duration = Duration::from_secs(60);

/// Part of the stamp's clock that connecting and settling may use up.
const CLOCK_RESERVE: Duration = Duration::from_secs(6 * 60 * 60);

const DURATION_MAX: Duration = Duration::from_nanos(STAMP_NS_MAX).saturating_sub(CLOCK_RESERVE);

/// Everything that a run needs to know.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) target: SocketAddr,
    /// Connections to make; of a churn, those that may be open at a time.
    pub(super) connections: usize,
    /// Connects per second over all threads.
    pub(super) connect_rate: Option<f64>,
    pub(super) duration: Duration,
    pub(super) sources: Option<SourceIps>,
    /// Threads of each process.
    pub(super) threads: usize,
    pub(super) processes: usize,
    /// Which of the processes this is; `None` if it leads them, or is alone.
    pub(super) part: Option<Part>,
    pub(super) dialect: Dialect,
    /// The process to look at, if there is one.
    pub(super) server: Option<ServerProcess>,
    pub(super) json: Option<PathBuf>,
    pub(super) html: Option<PathBuf>,
    pub(super) quiet: bool,
    /// Tells this run's messages from those of others.
    pub(super) run: u32,
    /// At the end, how long to wait for what is missing while nothing comes.
    pub(super) settle_timeout: Duration,
    /// Time for a connect and the server's first answer.
    pub(super) connect_timeout: Duration,
    /// How often each connection shows that it lives; `None`: never.
    pub(super) ping_every: Option<Duration>,
    pub(super) load: Load,
}

/// What is measured, with what only that needs.
#[derive(Clone, Debug)]
pub(super) enum Load {
    Idle { topic: String },
    Echo { message_bytes: usize },
    Fanout(FanoutPlan),
    Churn(ChurnPlan),
    Ramp(RampPlan),
}

/// What a publisher sends.
#[derive(Clone, Debug)]
pub(super) struct PublishPlan {
    pub(super) topic: String,
    pub(super) message_bytes: usize,
    /// Bursts per second.
    pub(super) rate: f64,
    /// Messages of a burst.
    pub(super) burst: u32,
    /// Messages of the whole run if nothing ends it early.
    pub(super) messages: u32,
}

/// The plan of a fan-out.
#[derive(Clone, Debug)]
pub(super) struct FanoutPlan {
    pub(super) publish: PublishPlan,
    pub(super) stalled_percent: f64,
}

impl PublishPlan {
    fn new(topic: String, message_bytes: usize, rate: f64, burst: u32, duration: Duration) -> Result<Self, LoadError> {
        let message_bytes = check_message_size(message_bytes)?;
        let rate = positive("--publish-rate", rate, "0.001", 0.001, 1e6)?;
        let burst = in_range("--burst", burst, 1, BURST_MAX)?;
        let messages = count_messages(rate, burst, duration)?;
        Ok(PublishPlan { topic, message_bytes, rate, burst, messages })
    }

    /// When burst `turn` is due, of a load that began at `begin_ns`.
    pub(super) fn due_ns(&self, begin_ns: u64, turn: u32) -> u64 {
        begin_ns + (f64::from(turn) * (1e9 / self.rate)) as u64
    }

    /// The first message that was due after `now`. None of those from it on was sent before.
    pub(super) fn first_after(&self, begin_ns: u64, now: u64) -> u32 {
        let mut turn = (now.saturating_sub(begin_ns) as f64 * self.rate / 1e9) as u32;
        while self.due_ns(begin_ns, turn) <= now {
            turn += 1;
        }
        turn.saturating_mul(self.burst).min(self.messages)
    }
}

impl FanoutPlan {
    /// Whether subscriber `index` stops reading; the share is spread evenly over all of them.
    pub(super) fn is_stalled(&self, index: usize) -> bool {
        is_in_share(index as u64, self.stalled_percent)
    }
}

/// Whether `number` is among the `percent` of all numbers, spread evenly.
pub(super) fn is_in_share(number: u64, percent: f64) -> bool {
    let until = |number: u64| (number as f64 * percent / 100.0).floor();
    until(number + 1) > until(number)
}

impl Plan {
    /// Checks the command, resolves the target, and raises the limit of open files as far as needed.
    pub(super) fn new(command: LoadCommand) -> Result<Plan, LoadError> {
        // The hasher's keys are random; nothing more is needed to tell runs apart.
        let random = std::hash::RandomState::new().build_hasher().finish();
        let run = (random % u64::from(STAMP_IDS)) as u32;
        let run = command.part().map_or(run, |part| part.run);
        let topic = |given: Option<String>| match given {
            Some(topic) => check_topic(topic),
            None => Ok(format!("load-{run:06x}")),
        };
        let (args, load) = match command {
            LoadCommand::Idle(args) => (args.load, Load::Idle { topic: topic(args.topic)? }),
            LoadCommand::Echo(args) => {
                (args.load, Load::Echo { message_bytes: check_message_size(args.message_size)? })
            }
            LoadCommand::Fanout(args) => {
                let (topic, duration) = (topic(args.topic)?, args.load.duration);
                let plan = FanoutPlan {
                    publish: PublishPlan::new(topic, args.message_size, args.publish_rate, args.burst, duration)?,
                    stalled_percent: positive("--stalled-percent", args.stalled_percent, "0", 0.0, 100.0)?,
                };
                (args.load, Load::Fanout(plan))
            }
            LoadCommand::Churn(args) => {
                let (topic, duration) = (topic(args.topic)?, args.load.duration);
                let publish = (args.publish_rate != 0.0)
                    .then(|| PublishPlan::new(topic.clone(), args.message_size, args.publish_rate, 1, duration));
                let plan = ChurnPlan {
                    topic,
                    rate: positive("--rate", args.load.rate.unwrap_or(CHURN_RATE), "0.1", 0.1, 1e7)?,
                    stay: args.stay,
                    abrupt_percent: positive("--abrupt-percent", args.abrupt_percent, "0", 0.0, 100.0)?,
                    publish: publish.transpose()?,
                };
                plan.check(&args.load)?;
                (args.load, Load::Churn(plan))
            }
            LoadCommand::Ramp(args) => {
                let plan = RampPlan::new(&args, topic(None)?)?;
                (args.load(), Load::Ramp(plan))
            }
        };
        let plan = Plan::common(args, run, load)?;
        plan.check_sources()?;
        plan.check_ports()?;
        plan.raise_fd_limit()?;
        Ok(plan)
    }

    fn common(args: LoadArgs, run: u32, load: Load) -> Result<Plan, LoadError> {
        let target = resolve(&args.target)?;
        in_range("--connections", args.connections, 1, STAMP_IDS as usize - 1)?;
        in_range("--threads", args.threads, 1, THREADS_MAX)?;
        in_range("--processes", args.processes, 1, PROCESSES_MAX.min(args.connections))?;
        if args.duration.is_zero() || args.duration > DURATION_MAX {
            return Err(LoadError::Argument {
                option: "--duration",
                value: corecast::duration_to_text(args.duration),
                allowed: format!("it must be above 0 and at most {} hours", DURATION_MAX.as_secs() / 3600),
            });
        }
        if matches!(load, Load::Echo { .. }) && !args.framing.can_echo() {
            return Err(LoadError::Argument {
                option: "--framing",
                value: args.framing.name().into(),
                allowed: "its servers send nothing back as it came; use line, length or ws".into(),
            });
        }
        if let Some(pid) = args.server_pid
            && let Err(error) = ServerProcess(pid).usage()
        {
            return Err(LoadError::Argument {
                option: "--server-pid",
                value: pid.to_string(),
                allowed: format!("it must be a process of this machine whose memory you may look at ({error})"),
            });
        }
        let connect_rate = match (args.rate, args.ramp) {
            (Some(rate), _) => Some(positive("--rate", rate, "0.1", 0.1, 1e7)?),
            (None, Some(ramp)) if !ramp.is_zero() => Some(args.connections as f64 / ramp.as_secs_f64()),
            (None, _) => None,
        };
        let addresses_used = match &load {
            Load::Churn(churn) => args.connections + (churn.rate * PORT_REST.as_secs_f64()) as usize,
            _ => args.connections,
        };
        if let Some(sources) = args.source_ips.filter(|sources| sources.is_ipv4() != target.is_ipv4()) {
            return Err(LoadError::Argument {
                option: "--source-ips",
                value: sources.to_string(),
                allowed: format!("the target {target} can only be reached from addresses of its own family"),
            });
        }
        let (settle_timeout, connect_timeout, ping_every) = match &load {
            Load::Ramp(ramp) => (ramp.patience, ramp.patience, ramp.ping_every),
            _ => (SETTLE_TIMEOUT, CONNECT_TIMEOUT, Some(PERIOD)),
        };
        Ok(Plan {
            target,
            connections: args.connections,
            connect_rate,
            duration: args.duration,
            sources: args.source_ips.or_else(|| SourceIps::spread(target.ip(), addresses_used)),
            threads: args.threads.min(args.connections / args.processes),
            processes: args.processes,
            part: args.part,
            dialect: Dialect { framing: args.framing },
            server: args.server_pid.map(ServerProcess),
            json: args.json,
            html: args.html,
            quiet: args.quiet,
            run,
            settle_timeout,
            connect_timeout,
            ping_every,
            load,
        })
    }

    /// A command that starts a server for this run.
    pub(super) fn server_command(&self) -> String {
        let what = match self.load {
            Load::Idle { .. } => "",
            Load::Echo { .. } => " --app echo",
            Load::Churn(ChurnPlan { publish: None, .. }) => "",
            Load::Fanout(_) | Load::Churn(_) | Load::Ramp(_) => " --client-publish",
        };
        self.dialect.framing.server_command(self.target, what)
    }

    /// Whether connections are made while the load is on, rather than before.
    pub(super) fn connects_under_load(&self) -> bool {
        matches!(self.load, Load::Churn(_))
    }

    /// Threads over all processes.
    pub(super) fn workers(&self) -> usize {
        self.threads * self.processes
    }

    /// The number of this process's thread `index` among all threads.
    pub(super) fn worker(&self, index: usize) -> usize {
        self.part.map_or(0, |part| part.index) * self.threads + index
    }

    /// Connection numbers of this process's thread `index`: shares that differ by one at the most.
    pub(super) fn share(&self, index: usize) -> std::ops::Range<usize> {
        let own = self.own();
        let (each, rest) = (own.len() / self.threads, own.len() % self.threads);
        let start = |index: usize| own.start + index * each + (index + rest).saturating_sub(self.threads);
        start(index)..start(index + 1)
    }

    /// Connection numbers of this process; one that leads others has all of them.
    fn own(&self) -> std::ops::Range<usize> {
        let start = |process: usize| process * self.connections / self.processes;
        self.part.map_or(0..self.connections, |part| start(part.index)..start(part.index + 1))
    }

    /// How many of `wanted` connections of this process thread `index` makes: all of its share once all are wanted,
    /// and never fewer for more.
    pub(super) fn part(&self, index: usize, wanted: usize) -> usize {
        wanted / self.threads + usize::from(index + wanted % self.threads >= self.threads)
    }

    /// Connections that this process makes first. Only a ramp goes on to more.
    pub(super) fn first_step(&self) -> usize {
        match &self.load {
            Load::Ramp(ramp) => ramp.steps[0],
            _ => self.own().len(),
        }
    }

    /// Whether the source addresses are this machine's own; else every connect would fail for no clear reason.
    fn check_sources(&self) -> Result<(), LoadError> {
        let Some(sources) = &self.sources else { return Ok(()) };
        for address in [sources.of(0), sources.of(sources.count() - 1)] {
            // Binding a socket that sends nothing is the simplest way to ask.
            if let Err(error) = UdpSocket::bind((address, 0)) {
                return Err(LoadError::Argument {
                    option: "--source-ips",
                    value: sources.to_string(),
                    allowed: format!(
                        "{address} can't be used on this machine ({error}); `ip address` lists those that can"
                    ),
                });
            }
        }
        Ok(())
    }

    fn check_ports(&self) -> Result<(), LoadError> {
        let sources = self.sources.map_or(1, |sources| sources.count());
        // Without /proc there is nothing to check against; the connects will tell.
        let Some(ports) = local_ports() else { return Ok(()) };
        if self.connections > sources * ports {
            return Err(LoadError::TooFewPorts { connections: self.connections, sources, ports });
        }
        Ok(())
    }

    fn raise_fd_limit(&self) -> Result<(), LoadError> {
        let connections = self.connections.div_ceil(self.processes);
        let needed = connections as u64 + FDS_RESERVED + self.threads as u64 * FDS_PER_THREAD;
        let raised =
            host::raise_open_files().map_err(std::io::Error::other).map_err(LoadError::system("read limits"))?;
        if raised.limit < needed {
            return Err(LoadError::TooFewFds { connections, needed, limit: raised.limit, refusal: raised.refusal });
        }
        Ok(())
    }
}

/// Ports that the kernel may choose for outgoing connections.
fn local_ports() -> Option<usize> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut words = text.split_whitespace().map(|word| word.parse::<usize>().ok());
    let (low, high) = (words.next()??, words.next()??);
    Some((high + 1).saturating_sub(low))
}

fn resolve(target: &str) -> Result<SocketAddr, LoadError> {
    if target.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        return Err(LoadError::Argument {
            option: "--target",
            value: target.to_owned(),
            allowed: "write address:port or name:port, as in 127.0.0.1:8888".into(),
        });
    }
    let failed = |source| LoadError::Resolve { target: target.to_owned(), source };
    let mut addresses = target.to_socket_addrs().map_err(failed)?;
    addresses.next().ok_or_else(|| failed(std::io::Error::other("the name has no address")))
}

fn count_messages(rate: f64, burst: u32, duration: Duration) -> Result<u32, LoadError> {
    let messages = (duration.as_secs_f64() * rate).ceil().max(1.0) * f64::from(burst);
    if messages >= f64::from(u32::MAX) {
        return Err(LoadError::Argument {
            option: "--duration",
            value: corecast::duration_to_text(duration),
            allowed: format!("at this --publish-rate and --burst it is {messages:.0} messages; at most {}", u32::MAX),
        });
    }
    Ok(messages as u32)
}

/// The server's own rule for topics, so that a bad one is refused before anything is sent.
fn check_topic(topic: String) -> Result<String, LoadError> {
    match Topic::new(topic.as_bytes()) {
        Ok(_) => Ok(topic),
        Err(error) => {
            Err(LoadError::Argument { option: "--topic", value: format!("{topic:?}"), allowed: error.to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::tests::plan;

    #[test]
    fn the_defaults_make_a_plan() {
        for kind in ["idle", "echo", "fanout", "churn"] {
            let plan = plan(kind).unwrap();
            assert_eq!((plan.connections, plan.duration), (1_000, Duration::from_secs(10)));
            assert_eq!(plan.target.to_string(), "127.0.0.1:8888");
        }
    }

    #[test]
    fn unusable_values_are_refused_by_name_as_usage_errors() {
        for (line, start) in [
            ("idle --connections 0", "--connections is 0; it must be from 1 to"),
            ("idle --threads 0", "--threads is 0; it must be from 1 to 256"),
            ("idle --target nowhere", "--target is nowhere; write address:port"),
            ("idle --target nowhere:http", "--target is nowhere:http; write address:port"),
            ("idle --duration 0", "--duration is 0; it must be above 0"),
            ("idle --duration 100h", "--duration is 4days 4h; it must be above 0 and at most 72 hours"),
            ("idle --rate 0", "--rate is 0; it must be from 0.1"),
            ("idle --rate NaN", "--rate is NaN; it must be from 0.1"),
            ("idle --topic a\tb", "--topic is \"a\\tb\"; a topic holds no white space"),
            ("idle --topic a,b", "--topic is \"a,b\"; a topic holds no comma"),
            ("idle --source-ips fd00::1", "--source-ips is fd00::1; the target 127.0.0.1:8888 can only"),
            ("idle --source-ips 192.0.2.1", "--source-ips is 192.0.2.1; 192.0.2.1 can't be used on this machine"),
            ("idle --server-pid 4294967295", "--server-pid is 4294967295; it must be a process of this machine"),
            ("echo --message-size 31", "--message-size is 31; it must be from 32"),
            ("echo --framing sse", "--framing is sse; its servers send nothing back"),
            ("echo --framing nats", "--framing is nats; its servers send nothing back"),
            ("fanout --message-size 17MiB", "--message-size is 17825792; it must be from 32"),
            ("fanout --publish-rate 0", "--publish-rate is 0; it must be from 0.001"),
            ("fanout --burst 0", "--burst is 0; it must be from 1"),
            ("fanout --stalled-percent 101", "--stalled-percent is 101; it must be from 0 to 100"),
            ("churn --abrupt-percent 101", "--abrupt-percent is 101; it must be from 0 to 100"),
            ("churn --publish-rate 1e7", "--publish-rate is 10000000; it must be from 0.001"),
            ("churn --ramp 10s", "--ramp is 10s; a churn connects at its --rate"),
            ("churn --rate 5000", "--connections is 1000; 5000 connects/s that stay for 500ms-1s 500ms make 5000 conn"),
            ("fanout --duration 10h --publish-rate 1000000", "--duration is 10h; at this --publish-rate"),
        ] {
            let error = plan(line).unwrap_err();
            assert!(error.is_usage(), "{line}");
            assert!(error.to_string().starts_with(start), "{line}: {error}");
        }
    }

    #[test]
    fn more_connections_than_descriptors_or_ports_are_refused_with_the_remedy() {
        let limit = host::raise_open_files().unwrap().limit;
        if limit < u64::from(STAMP_IDS) - 1 {
            let error = plan(&format!("idle --connections {limit}")).unwrap_err();
            assert!(error.is_usage());
            let text = error.to_string();
            assert!(text.contains(&format!("ulimit -n {}", limit + 68)) && text.contains("deploy/tune.sh"), "{text}");
        }
        let error = plan("idle --connections 70000 --source-ips 127.0.0.2").unwrap_err();
        assert!(error.is_usage());
        assert!(error.to_string().contains("--source-ips A-B"), "{error}");
    }

    #[test]
    fn threads_share_all_connections() {
        let plan = plan("idle --connections 10 --threads 3").unwrap();
        let shares: Vec<_> = (0..3).map(|index| plan.share(index)).collect();
        assert_eq!(shares, [0..3, 3..6, 6..10]);
        for wanted in 0..=10 {
            assert_eq!((0..3).map(|index| plan.part(index, wanted)).sum::<usize>(), wanted);
            assert!((0..3).all(|index| plan.part(index, wanted) <= shares[index].len()));
        }
        assert_eq!(self::plan("idle --connections 2 --threads 3").unwrap().threads, 2);
    }

    #[test]
    fn processes_share_all_connections_between_their_threads() {
        let share = |index, thread| {
            let plan = plan(&format!("idle --connections 10 --processes 2 --threads 2 --part {index}/5/7"));
            plan.unwrap().share(thread)
        };
        assert_eq!([share(0, 0), share(0, 1), share(1, 0), share(1, 1)], [0..2, 2..5, 5..7, 7..10]);
        let error = plan("idle --connections 2 --processes 3").unwrap_err().to_string();
        assert!(error.starts_with("--processes is 3; it must be from 1 to 2"), "{error}");
    }

    #[test]
    fn stalled_subscribers_are_spread_evenly() {
        let Load::Fanout(plan) = plan("fanout --stalled-percent 10").unwrap().load else { unreachable!() };
        let stalled: Vec<_> = (0..30).filter(|&index| plan.is_stalled(index)).collect();
        assert_eq!(stalled, [9, 19, 29]);
        assert_eq!((plan.publish.messages, plan.publish.burst), (10, 1));
    }
}
