//! Whether a shard that falls asleep just when another one sends to it wakes up for that, or only at its next tick.

use std::time::{Duration, Instant};

use corecast::Framing;

use crate::support::{Client, Fixture, Random, config};

/// Messages each way.
const ROUNDS: usize = 20_000;

/// Much longer than a message takes between two shards that sleep, and well below the 250 ms of a tick.
const LATE: Duration = Duration::from_millis(100);

/// One of two shards with one client each.
struct End {
    client: Client,
    topic: &'static str,
}

impl End {
    fn new(server: &Fixture, shard: usize, topic: &'static str) -> Self {
        let mut client = server.client_on(shard, Framing::Line);
        assert_eq!(client.ask(format!("SUB {topic}")), format!("OK SUB {topic}"));
        End { client, topic }
    }
}

/// Sends from one end to the other; how long that took.
fn time(from: &mut End, to: &mut End, round: usize) -> Duration {
    let sent = Instant::now();
    from.client.send(format!("PUB {} {round}", to.topic));
    to.client.expect(&format!("MSG {} {round}", to.topic));
    let took = sent.elapsed();
    assert!(from.client.recv().starts_with("OK PUB "));
    took
}

#[test]
#[ignore = "it measures, for a minute; run it on a machine that has little else to do"]
fn a_shard_that_falls_asleep_wakes_up_for_what_another_one_sends() {
    let server = Fixture::hub(settings! { client_publish: true, read_timeout: Duration::ZERO, ..config() });
    let (mut here, mut there) = (End::new(&server, 0, "here"), End::new(&server, 1, "there"));
    let mut random = Random::new();
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        // The moment at which the other shard falls asleep is somewhere in this.
        let until = Instant::now() + Duration::from_micros(random.below(300) as u64);
        while Instant::now() < until {}
        took.push(time(&mut here, &mut there, round));
        took.push(time(&mut there, &mut here, round));
    }
    took.sort();
    let late = took.iter().filter(|took| **took >= LATE).count();
    let stalls = server.sum(|shard| shard.stalls.get());
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    println!("half {:?}, 99 % {:?}, 99.9 % {:?}, longest {:?}", at(0.5), at(0.99), at(0.999), at(1.0));
    println!("{late} of {} were late; the shards' ticks were late {stalls} times", took.len());
    assert!(late as u64 <= stalls, "{late} messages waited for a tick");
}
