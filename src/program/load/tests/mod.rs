//! Whole runs against a small server inside the test process.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use socket2::{Domain, Socket, Type};

use super::plan::Plan;
use super::report::Report;
use super::{LoadCommand, LoadError, html, run};
use crate::load::dialect::Framing;
use mock::{App, Fault, Mock};

mod mock;
mod peers;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: LoadCommand,
}

/// The plan of a command line behind `corecast load`.
pub(super) fn plan(line: &str) -> Result<Plan, LoadError> {
    let words = std::iter::once("load").chain(line.split(' '));
    Plan::new(Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).command)
}

fn execute(line: &str, target: SocketAddr) -> Result<Report, LoadError> {
    let plan = plan(&format!("{line} --quiet --target {target}")).unwrap();
    // What a broken server owes is waited for, and here nothing is under way for long.
    let plan = Plan { settle_timeout: Duration::from_millis(300), ..plan };
    run::execute(plan, &AtomicBool::new(false))
}

/// The figures of a run, and whether it was all well.
struct Figures(serde_json::Value);

impl Figures {
    fn of(line: &str, mock: &Mock) -> Figures {
        Figures(execute(line, mock.addr).unwrap_or_else(|error| panic!("{error}")).to_json())
    }

    fn count(&self, section: &str, key: &str) -> u64 {
        self.0[section][key].as_u64().unwrap_or_else(|| panic!("no {section}.{key} in {:#}", self.0))
    }

    fn is_ok(&self) -> bool {
        self.0["ok"].as_bool().unwrap()
    }

    fn problems(&self) -> String {
        self.0["problems"].to_string()
    }
}

const FANOUT: &str = "fanout --connections 20 --duration 50ms --publish-rate 200 --message-size 64";

#[test]
fn idle_holds_all_connections() {
    for framing in Framing::PLAIN {
        let mock = Mock::start(framing, App::Hub, Fault::None);
        let figures = Figures::of(
            &format!("idle --connections 50 --threads 2 --duration 50ms --framing {}", framing.name()),
            &mock,
        );
        assert!(figures.is_ok(), "{}", figures.problems());
        assert_eq!((figures.count("connect", "ready"), figures.count("idle", "closed")), (50, 0));
        assert!(figures.0["connect"]["connect_us_p99"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn idle_fails_if_a_connection_is_lost() {
    let mock = Mock::start(Framing::Line, App::Hub, Fault::CloseAfterSubscribe);
    let figures = Figures::of("idle --connections 5 --duration 10s", &mock);
    assert!(!figures.is_ok());
    assert_eq!(figures.count("idle", "closed"), 5);
    assert!(figures.problems().contains("5 connections were lost"), "{}", figures.problems());
}

#[test]
fn a_rate_paces_the_connects() {
    let mock = Mock::start(Framing::Line, App::Hub, Fault::None);
    let figures = Figures::of("idle --connections 21 --threads 2 --rate 100 --duration 1ms", &mock);
    assert!(figures.is_ok());
    let rate = figures.0["connect"]["connects_per_s"].as_f64().unwrap();
    // 20 pauses of 10 ms make at most 105/s. The first connect may come late, on a busy machine by most of that time.
    assert!(rate <= 500.0, "{rate}/s");
}

#[test]
fn failed_connects_are_tried_again_and_counted() {
    let mock = Mock::start(Framing::Line, App::Hub, Fault::RefuseFirst(3));
    let figures = Figures::of("idle --connections 10 --duration 1ms", &mock);
    assert!(figures.is_ok(), "{}", figures.problems());
    assert_eq!((figures.count("connect", "ready"), figures.count("connect", "failed_tries")), (10, 3));

    let mock = Mock::start(Framing::Line, App::Hub, Fault::RefuseFirst(u32::MAX));
    let error = execute("idle --connections 2 --duration 1ms", mock.addr).unwrap_err();
    let text = error.to_string();
    assert!(
        !error.is_usage() && text.contains("none of 2 connections") && text.contains("closed by the server"),
        "{text}"
    );
}

#[test]
fn echo_measures_round_trips_in_both_framings() {
    for framing in Framing::PLAIN {
        let mock = Mock::start(framing, App::Echo, Fault::None);
        let line = format!(
            "echo --connections 4 --threads 2 --duration 50ms --message-size 2000 --framing {}",
            framing.name()
        );
        let figures = Figures::of(&line, &mock);
        assert!(figures.is_ok(), "{}", figures.problems());
        assert!(figures.count("echo", "round_trips") >= 4);
        assert!(figures.0["echo"]["rtt_us_p50"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn echo_tells_lost_changed_and_duplicated_messages() {
    for (fault, key) in [(Fault::Lose, "unanswered"), (Fault::Corrupt, "corrupted"), (Fault::Duplicate, "duplicated")] {
        let mock = Mock::start(Framing::Line, App::Echo, fault);
        let figures = Figures::of("echo --connections 1 --duration 50ms", &mock);
        assert!(!figures.is_ok(), "{fault:?}");
        assert!(figures.count("echo", key) >= 1, "{fault:?}");
    }
}

#[test]
fn fanout_counts_every_delivery_in_both_framings() {
    for framing in Framing::PLAIN {
        let mock = Mock::start(framing, App::Hub, Fault::None);
        let figures = Figures::of(&format!("{FANOUT} --threads 2 --burst 3 --framing {}", framing.name()), &mock);
        assert!(figures.is_ok(), "{}", figures.problems());
        assert_eq!(figures.count("fanout", "published"), 30);
        assert_eq!(figures.count("fanout", "delivered"), 600);
        for key in ["latency_us_p50", "latency_us_p999", "last_recipient_us_max", "delivered_per_s"] {
            assert!(figures.0["fanout"][key].as_f64().unwrap() > 0.0, "{key}");
        }
    }
}

#[test]
fn fanout_fails_on_loss_duplicates_disorder_and_changes() {
    for (fault, key) in [
        (Fault::Lose, "lost"),
        (Fault::LoseLast, "lost"),
        (Fault::Duplicate, "duplicated"),
        (Fault::Reorder, "reordered"),
        (Fault::Corrupt, "corrupted"),
    ] {
        let mock = Mock::start(Framing::Line, App::Hub, fault);
        let figures = Figures::of(FANOUT, &mock);
        assert!(!figures.is_ok(), "{fault:?}");
        for other in ["lost", "duplicated", "reordered", "corrupted"] {
            assert_eq!(figures.count("fanout", other), u64::from(other == key), "{fault:?}: {other}");
        }
    }
}

#[test]
fn fanout_takes_a_gap_for_an_answer() {
    for fault in [Fault::LoseWithGap, Fault::LoseWithGapOfAll] {
        let mock = Mock::start(Framing::Line, App::Hub, fault);
        let figures = Figures::of(FANOUT, &mock);
        assert!(figures.is_ok(), "{}", figures.problems());
        assert_eq!((figures.count("fanout", "lost"), figures.count("fanout", "gaps_reported")), (0, 1));
        assert_eq!((figures.count("fanout", "delivered"), figures.count("fanout", "gap_notices")), (199, 1));
    }
}

#[test]
fn fanout_does_not_expect_refused_messages() {
    let mock = Mock::start(Framing::Line, App::Hub, Fault::Busy);
    let figures = Figures::of(FANOUT, &mock);
    assert!(figures.is_ok(), "{}", figures.problems());
    assert_eq!((figures.count("fanout", "refused"), figures.count("fanout", "expected")), (1, 180));
}

#[test]
fn fanout_survives_messages_in_pieces() {
    let mock = Mock::start(Framing::Length, App::Hub, Fault::Pieces);
    let figures = Figures::of(&format!("{FANOUT} --framing length"), &mock);
    assert!(figures.is_ok(), "{}", figures.problems());
    assert_eq!(figures.count("fanout", "delivered"), 200);
}

#[test]
fn fanout_fails_if_a_subscriber_is_closed() {
    let mock = Mock::start(Framing::Line, App::Hub, Fault::CloseOne);
    let figures = Figures::of(FANOUT, &mock);
    assert!(!figures.is_ok());
    assert_eq!((figures.count("fanout", "closed"), figures.count("fanout", "lost")), (1, 0));
    assert_eq!(figures.0["fanout"]["closed_reasons"]["BYE slow-consumer"], 1);
}

#[test]
fn stalled_subscribers_are_reported_apart() {
    let mock = Mock::start(Framing::Line, App::Hub, Fault::None);
    let figures = Figures::of(&format!("{FANOUT} --stalled-percent 10"), &mock);
    assert!(figures.is_ok(), "{}", figures.problems());
    assert_eq!((figures.count("fanout", "stalled"), figures.count("fanout", "delivered")), (2, 180));
    assert_eq!(figures.count("fanout", "stalled_closed"), 0);

    let mock = Mock::start(Framing::Line, App::Hub, Fault::CloseOne);
    let figures = Figures::of(&format!("{FANOUT} --stalled-percent 100"), &mock);
    assert!(figures.is_ok(), "{}", figures.problems());
    assert_eq!((figures.count("fanout", "stalled_closed"), figures.count("fanout", "closed")), (1, 0));
}

const CHURN: &str = "churn --connections 100 --duration 400ms --message-size 64";

#[test]
fn churn_connects_at_its_rate_and_leaves_in_both_ways() {
    for framing in Framing::PLAIN {
        let mock = Mock::start(framing, App::Hub, Fault::None);
        let line = format!(
            "{CHURN} --rate 200 --stay 100ms-300ms --threads 2 --abrupt-percent 25 --framing {}",
            framing.name()
        );
        let figures = Figures::of(&line, &mock);
        assert!(figures.is_ok(), "{}", figures.problems());
        assert_eq!((figures.count("churn", "begun"), figures.count("connect", "ready")), (80, 80));
        assert_eq!((figures.count("churn", "left_clean"), figures.count("churn", "left_abrupt")), (60, 20));
        assert!(figures.0["churn"]["close_us_p50"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn churn_counts_every_message_of_each_stay() {
    let mock = Mock::start(Framing::Line, App::Hub, Fault::None);
    let figures =
        Figures::of(&format!("{CHURN} --rate 200 --stay 100ms-300ms --publish-rate 100 --abrupt-percent 10"), &mock);
    assert!(figures.is_ok(), "{}", figures.problems());
    assert_eq!((figures.count("churn", "published"), figures.count("churn", "lost")), (40, 0));
    // 80 stays of 200 ms on average, cut at the end of the run.
    assert!(figures.count("churn", "delivered") > 300, "{}", figures.0);
}

#[test]
fn churn_fails_on_loss_duplicates_disorder_and_changes() {
    for (fault, key) in [
        (Fault::Lose, "lost"),
        (Fault::Duplicate, "duplicated"),
        (Fault::Reorder, "reordered"),
        (Fault::Corrupt, "corrupted"),
    ] {
        let mock = Mock::start(Framing::Line, App::Hub, fault);
        // The first subscriber is there when the fourth message is published, 120 ms after the begin.
        let figures = Figures::of(&format!("{CHURN} --rate 200 --publish-rate 25 --stay 350ms"), &mock);
        assert!(!figures.is_ok(), "{fault:?}");
        for other in ["lost", "duplicated", "reordered", "corrupted"] {
            assert_eq!(figures.count("churn", other), u64::from(other == key), "{fault:?}: {other}");
        }
    }
}

#[test]
fn churn_expects_neither_refused_messages_nor_those_of_a_gap() {
    let mock = Mock::start(Framing::Line, App::Hub, Fault::Busy);
    let figures = Figures::of(&format!("{CHURN} --rate 200 --publish-rate 25 --stay 350ms"), &mock);
    assert!(figures.is_ok(), "{}", figures.problems());
    assert_eq!(figures.count("churn", "refused"), 1);
    let mock = Mock::start(Framing::Line, App::Hub, Fault::LoseWithGap);
    let figures = Figures::of(&format!("{CHURN} --rate 200 --publish-rate 25 --stay 350ms"), &mock);
    assert!(figures.is_ok(), "{}", figures.problems());
    assert_eq!((figures.count("churn", "lost"), figures.count("churn", "gaps_reported")), (0, 1));
}

#[test]
fn churn_fails_if_a_connection_fails_is_lost_or_is_not_closed() {
    let mock = Mock::start(Framing::Line, App::Hub, Fault::RefuseFirst(3));
    let figures = Figures::of(&format!("{CHURN} --rate 50 --stay 100ms"), &mock);
    assert!(!figures.is_ok());
    assert_eq!((figures.count("connect", "failed"), figures.count("connect", "ready")), (3, 17));

    let mock = Mock::start(Framing::Line, App::Hub, Fault::CloseAfterSubscribe);
    let figures = Figures::of(&format!("{CHURN} --rate 50 --stay 100ms"), &mock);
    assert!(!figures.is_ok());
    assert_eq!((figures.count("churn", "closed"), figures.count("churn", "left_clean")), (20, 0));

    let mock = Mock::start(Framing::Line, App::Hub, Fault::KeepOpen);
    let figures = Figures::of(&format!("{CHURN} --rate 50 --stay 100ms"), &mock);
    assert!(!figures.is_ok());
    assert_eq!(figures.count("churn", "not_closed"), 20);
}

#[test]
fn churn_tells_of_connects_that_found_no_place() {
    let mock = Mock::start(Framing::Line, App::Hub, Fault::None);
    // 20 a second that stay for half a second need 10 places, and the ends need some more.
    let figures = Figures::of("churn --rate 20 --connections 10 --stay 500ms --duration 1s --publish-rate 2", &mock);
    let (begun, not_begun) = (figures.count("churn", "begun"), figures.count("churn", "not_begun"));
    assert_eq!((begun + not_begun, not_begun > 0), (20, !figures.is_ok()), "{}", figures.0);
}

#[test]
fn the_page_shows_verdict_plots_figures_and_command_and_needs_nothing_else() {
    let origin = html::Origin { command: "corecast load 'a <b>'".into(), ..html::Origin::here() };
    let mock = Mock::start(Framing::Line, App::Hub, Fault::None);
    let line = format!("{} --rate 100 --stay 100ms --publish-rate 50", CHURN.replace("400ms", "2600ms"));
    let page = html::page(&execute(&line, mock.addr).unwrap(), &origin);
    for text in [
        "✓ All well",
        "Latency over time",
        "Messages received",
        "Messages published",
        "Connections open",
        "First answer to a new connection",
        "Distribution: what share",
        "No message was dropped.",
        "corecast load 'a &lt;b&gt;'",
        "shutdown not answered",
        env!("CARGO_PKG_VERSION"),
    ] {
        assert!(page.contains(text), "no {text:?} in {page}");
    }
    // Each plot is there for a wide and for a narrow screen.
    assert_eq!(page.matches("<svg").count(), 2 * page.matches("<figure>").count());
    let links = page.matches("://").count() - page.matches("http://www.w3.org/2000/svg").count();
    assert_eq!((links, page.contains("<script"), page.contains("url(")), (0, false, false));

    let mock = Mock::start(Framing::Line, App::Hub, Fault::Lose);
    let page = html::page(&execute(FANOUT, mock.addr).unwrap(), &origin);
    for text in ["✗ Failed", "<li>1 deliveries were lost without a GAP</li>", "too short for plots over time"] {
        assert!(page.contains(text), "no {text:?} in {page}");
    }
}

#[test]
fn the_json_has_the_course_of_the_run() {
    let mock = Mock::start(Framing::Line, App::Hub, Fault::None);
    let figures = Figures::of(&FANOUT.replace("50ms", "1100ms"), &mock);
    let series = &figures.0["series"];
    assert_eq!(series["time_s"], serde_json::json!([0.0, 1.0]));
    for (key, least) in [("delivered_per_s", 1_000.0), ("published_per_s", 50.0), ("connections", 20.0)] {
        assert!(series[key][0].as_f64().unwrap() >= least, "{key}: {series}");
    }
    assert!(series["latency_us_p50"][0].as_f64().unwrap() <= series["latency_us_max"][0].as_f64().unwrap());
}

#[test]
fn a_ramp_spreads_the_connects() {
    let mock = Mock::start(Framing::Line, App::Hub, Fault::None);
    let figures = Figures::of("idle --connections 20 --ramp 200ms --duration 1ms", &mock);
    assert!(figures.is_ok());
    let rate = figures.0["connect"]["connects_per_s"].as_f64().unwrap();
    // 105.3/s, and more the later the first connect began after it was due. All at once they are thousands a second.
    assert!(rate <= 200.0, "19 pauses of 10 ms make about 105.3/s, but it was {rate}/s");
}

#[test]
fn a_server_that_can_not_be_used_is_named_with_the_remedy() {
    let refused = |line: &str, mock: &Mock| {
        let error = execute(line, mock.addr).unwrap_err();
        assert!(!error.is_usage());
        error.to_string()
    };
    let hub = Mock::start(Framing::Line, App::Hub, Fault::Forbidden);
    let echo = Mock::start(Framing::Line, App::Echo, Fault::None);
    let text = refused(FANOUT, &hub);
    assert!(text.contains("--client-publish"), "{text}");
    let text = refused(FANOUT, &echo);
    assert!(text.contains("answered `PUB load-") && text.contains("--client-publish"), "{text}");
    let text = refused("idle", &echo);
    assert!(text.contains("answered `SUB load-") && text.contains("corecast serve --listen line="), "{text}");
    let text = refused("echo", &hub);
    assert!(text.contains("answered `ERR unknown-verb") && text.contains("--app echo"), "{text}");
}

#[test]
fn an_unreachable_target_is_named_with_the_remedy() {
    // Bound but not listening: nobody else can get the port.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    for line in ["idle", "echo --threads 2", FANOUT, "churn"] {
        let text = execute(line, addr).unwrap_err().to_string();
        let start = format!("cannot connect to {addr}: Connection refused");
        assert!(text.starts_with(&start) && text.contains("corecast serve --listen line="), "{text}");
    }
}

#[test]
fn an_interrupt_ends_the_run_with_a_report() {
    let mock = Mock::start(Framing::Line, App::Hub, Fault::None);
    let line = FANOUT.replace("50ms", "1h");
    let plan = plan(&format!("{line} --quiet --target {}", mock.addr));
    let interrupted = AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        let run = scope.spawn(|| run::execute(plan.unwrap(), &interrupted));
        mock.wait_for_publishes(5);
        interrupted.store(true, Ordering::Relaxed);
        run.join().unwrap().unwrap()
    });
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert!(report.to_json()["fanout"]["delivered"].as_u64().unwrap() >= 80);
    assert!(report.to_string().contains("result: all well"), "{report}");
}
