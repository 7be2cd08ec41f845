//! The plan of a churn.

use crate::load::plan::{PublishPlan, is_in_share};
use crate::load::{LoadArgs, LoadError, TimeRange};

/// What a churn does.
#[derive(Clone, Debug)]
pub(in crate::load) struct ChurnPlan {
    pub(in crate::load) topic: String,
    /// Connects per second over all threads, each at its time.
    pub(in crate::load) rate: f64,
    pub(in crate::load) stay: TimeRange,
    pub(in crate::load) abrupt_percent: f64,
    /// What is published meanwhile, if anything.
    pub(in crate::load) publish: Option<PublishPlan>,
}

impl ChurnPlan {
    /// When connect `number` is due, of a load that began at `begin_ns`.
    pub(in crate::load) fn due_ns(&self, begin_ns: u64, number: u64) -> u64 {
        begin_ns + (number as f64 * (1e9 / self.rate)) as u64
    }

    /// How long connection `number` stays, in nanoseconds: the range is covered evenly, and neighbours differ.
    pub(in crate::load) fn stay_ns(&self, number: u64) -> u64 {
        // Multiples of the golden ratio, of which only the fraction counts, spread evenly however many there are.
        let fraction = (number as f64 * 0.618_033_988_749_895).fract();
        let (first, last) = (self.stay.first.as_nanos() as f64, self.stay.last.as_nanos() as f64);
        (first + (last - first) * fraction) as u64
    }

    /// Whether connection `number` ends with a reset; the share is spread evenly over all of them.
    pub(in crate::load) fn is_abrupt(&self, number: u64) -> bool {
        is_in_share(number, self.abrupt_percent)
    }

    /// Connections that are open at a time if the server answers at once.
    fn open_at_a_time(&self) -> f64 {
        let mean = (self.stay.first + self.stay.last).as_secs_f64() / 2.0;
        self.rate * mean
    }

    /// What a churn needs beyond the ranges of its options.
    pub(in crate::load) fn check(&self, args: &LoadArgs) -> Result<(), LoadError> {
        if args.ramp.is_some() {
            return Err(LoadError::Argument {
                option: "--ramp",
                value: corecast::duration_to_text(args.ramp.unwrap_or_default()),
                allowed: "a churn connects at its --rate from the beginning; leave --ramp out".into(),
            });
        }
        let open = self.open_at_a_time();
        if open > args.connections as f64 {
            return Err(LoadError::Argument {
                option: "--connections",
                value: args.connections.to_string(),
                allowed: format!(
                    "{} connects/s that stay for {} make {:.0} connections at a time; give {:.0} or more, and some to spare",
                    self.rate,
                    self.stay,
                    open.ceil(),
                    (open * 1.2).ceil()
                ),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::plan::Load;
    use crate::load::tests::plan;

    fn churn(line: &str) -> ChurnPlan {
        let Load::Churn(churn) = plan(&format!("churn {line}")).unwrap().load else { unreachable!() };
        churn
    }

    #[test]
    fn stays_cover_their_range_evenly_and_so_do_those_that_end_with_a_reset() {
        let churn = churn("--stay 100ms-200ms --abrupt-percent 10");
        let mut tenths = [0; 10];
        for number in 5_000..6_000 {
            let stay = churn.stay_ns(number);
            assert!((100_000_000..=200_000_000).contains(&stay), "{stay}");
            tenths[((stay - 100_000_000) / 10_000_001) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (95..=105).contains(count)), "{tenths:?}");
        let abrupt: Vec<_> = (5_000..6_000).filter(|number| churn.is_abrupt(*number)).collect();
        assert_eq!(abrupt.len(), 100);
        // Short and long stays are reset alike.
        let early = abrupt.iter().filter(|number| churn.stay_ns(**number) < 150_000_000).count();
        assert!((45..=55).contains(&early), "{early}");
    }

    #[test]
    fn no_message_that_a_visit_owes_was_due_before_it() {
        let publish = churn("--publish-rate 30 --duration 2s").publish.unwrap();
        let begin_ns = 12_345;
        for now in (0..3_000_000_000).step_by(1_234_567) {
            let first = publish.first_after(begin_ns, now);
            assert!(first == publish.messages || publish.due_ns(begin_ns, first) > now, "{now}");
            assert!(first == 0 || publish.due_ns(begin_ns, first - 1) <= now, "{now}");
        }
    }
}
