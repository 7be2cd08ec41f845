//! Which CPU each shard runs on.

use std::fmt;

use crate::config::{Config, ConfigError, Cpus, Pin, SHARDS_MAX};
use crate::host;

/// The CPU of each shard, and why it is that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The CPU of each shard; `None`: the kernel moves it as it likes.
    cpus: Vec<Option<usize>>,
    /// What a reader of the log may ask about it.
    why: String,
}

impl Placement {
    /// The CPU that each shard is pinned to, in the order of their numbers; `None`: it is not pinned.
    pub fn cpus(&self) -> &[Option<usize>] {
        &self.cpus
    }

    fn pinned(cpus: Vec<usize>, why: String) -> Self {
        Placement { cpus: cpus.into_iter().map(Some).collect(), why }
    }

    fn floating(shards: usize, why: String) -> Self {
        Placement { cpus: vec![None; shards], why }
    }

    /// Leaves those shards unpinned that can't be pinned, and says so.
    pub(crate) fn try_out(&mut self, can_pin: impl Fn(usize) -> Result<(), String>, warnings: &mut Vec<String>) {
        for (shard, place) in self.cpus.iter_mut().enumerate() {
            if let Some(cpu) = *place
                && let Err(reason) = can_pin(cpu)
            {
                warnings.push(format!("shard {shard} can't be pinned to CPU {cpu} ({reason}); it runs unpinned"));
                *place = None;
            }
        }
        if self.cpus.iter().all(Option::is_none) && self.why.is_empty() {
            self.why = "that was refused".into();
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpus: Vec<usize> = self.cpus.iter().copied().flatten().collect();
        match cpus.len() {
            0 => f.write_str("not pinned")?,
            1 => write!(f, "pinned to CPU {}", cpus[0])?,
            _ => write!(f, "pinned to CPUs {}", Cpus(cpus))?,
        }
        if self.why.is_empty() { Ok(()) } else { write!(f, " ({})", self.why) }
    }
}

/// Chooses CPUs for the shards of these settings on this host. Pinned to a CPU of its own, a shard is fastest; pinned to
/// one that another server has, or under a quota that stops it there while others are idle, it is slowest.
///
/// # Errors
/// The settings name a CPU that this process may not use.
pub(crate) fn place(config: &Config, warnings: &mut Vec<String>) -> Result<Placement, ConfigError> {
    let (allowed, parallelism) = (host::allowed_cpus(), host::parallelism());
    place_on(config, &allowed, parallelism, host::least_used, warnings)
}

fn place_on(
    config: &Config,
    allowed: &[usize],
    parallelism: usize,
    least_used: impl Fn(&[usize], usize) -> Vec<usize>,
    warnings: &mut Vec<String>,
) -> Result<Placement, ConfigError> {
    if let Some(cpus) = &config.cpus {
        if let Some(cpu) = cpus.0.iter().find(|cpu| !allowed.contains(cpu)) {
            return Err(ConfigError {
                field: "cpus",
                value: cpus.to_string(),
                allowed: format!("this process may not use CPU {cpu}, only {}", Cpus(allowed.to_vec())),
            });
        }
        return Ok(Placement::pinned(cpus.0.clone(), String::new()));
    }
    let count = allowed.len();
    let shards = config.shards.unwrap_or_else(|| count.min(parallelism).clamp(1, SHARDS_MAX));
    if config.pin == Pin::Off {
        return Ok(Placement::floating(shards, "pin is off".into()));
    }
    if shards > count {
        warnings.push(format!("{shards} shards run on {count} CPUs and are not pinned; a shard per CPU is fastest"));
        return Ok(Placement::floating(shards, "there are more shards than CPUs".into()));
    }
    if parallelism < count {
        let why = format!("a quota leaves time for {parallelism} of {count} CPUs; --cpus pins them all the same");
        return Ok(Placement::floating(shards, why));
    }
    if shards == count {
        return Ok(Placement::pinned(allowed.to_vec(), String::new()));
    }
    Ok(Placement::pinned(least_used(allowed, shards), format!("the least used of {count}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The placement on CPUs 2 to 5, of which the highest are used least, and how many warnings there are.
    fn placed(shards: Option<usize>, cpus: Option<&str>, pin: Pin, parallelism: usize) -> (String, usize) {
        let cpus = cpus.map(|cpus| cpus.parse().unwrap());
        let config = Config { shards, cpus, pin, ..Config::default() };
        let mut warnings = Vec::new();
        let least = |among: &[usize], count: usize| among[among.len() - count..].to_vec();
        let placement = place_on(&config, &[2, 3, 4, 5], parallelism, least, &mut warnings).unwrap();
        let expected = config.shards.or(config.cpus.map(|cpus| cpus.0.len())).unwrap_or(parallelism.min(4));
        assert_eq!(placement.cpus().len(), expected);
        (placement.to_string(), warnings.len())
    }

    #[test]
    fn shards_are_pinned_to_all_cpus_or_to_the_least_used_ones() {
        assert_eq!(placed(None, None, Pin::Auto, 4), ("pinned to CPUs 2,3,4,5".into(), 0));
        assert_eq!(placed(Some(4), None, Pin::Auto, 4), ("pinned to CPUs 2,3,4,5".into(), 0));
        assert_eq!(placed(Some(1), None, Pin::Auto, 4), ("pinned to CPU 5 (the least used of 4)".into(), 0));
        assert_eq!(placed(Some(2), None, Pin::Auto, 4), ("pinned to CPUs 4,5 (the least used of 4)".into(), 0));
        assert_eq!(placed(None, Some("2-3"), Pin::Auto, 4), ("pinned to CPUs 2,3".into(), 0));
    }

    #[test]
    fn shards_float_under_a_quota_where_there_are_too_many_and_where_that_is_asked_for() {
        let quota = "not pinned (a quota leaves time for 2 of 4 CPUs; --cpus pins them all the same)";
        assert_eq!(placed(None, None, Pin::Auto, 2), (quota.into(), 0));
        assert_eq!(placed(Some(1), None, Pin::Auto, 2), (quota.into(), 0));
        assert_eq!(placed(None, Some("3,5"), Pin::Auto, 2), ("pinned to CPUs 3,5".into(), 0));
        assert_eq!(placed(None, None, Pin::Off, 4), ("not pinned (pin is off)".into(), 0));
        assert_eq!(placed(Some(9), None, Pin::Auto, 4), ("not pinned (there are more shards than CPUs)".into(), 1));
    }

    #[test]
    fn a_shard_that_cannot_be_pinned_floats_which_is_said() {
        let mut placement = Placement::pinned(vec![2, 3], String::new());
        let mut warnings = Vec::new();
        placement.try_out(|cpu| if cpu == 3 { Err("no".into()) } else { Ok(()) }, &mut warnings);
        assert_eq!((placement.cpus(), warnings.len()), (&[Some(2), None][..], 1));
        placement.try_out(|_| Err("no".into()), &mut warnings);
        assert_eq!(placement.to_string(), "not pinned (that was refused)");
    }

    #[test]
    fn a_cpu_that_may_not_be_used_is_named_with_those_that_may() {
        let config = Config { cpus: Some(Cpus(vec![2, 7])), ..Config::default() };
        let error = place_on(&config, &[2, 3], 2, |_, _| Vec::new(), &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("this process may not use CPU 7, only 2,3"), "{error}");
    }
}
