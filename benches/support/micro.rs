//! Work that a process does for itself, in nanoseconds. Criterion measures it, with its statistics and the change since
//! its last run; the floor takes its turn within each of criterion's samples, so that the ratio is of the same moments.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode};

use super::support::Plan;
use super::support::table::{Goal, Row, Table};
use super::support::turns::median;

/// Until caches and branch predictors know the work.
const WARM_UP: Duration = Duration::from_millis(100);

/// How often the small version does the work: it is to run, not to be measured.
const SMOKE_TIMES: u64 = 3;

pub(crate) struct Micro<'a> {
    bench: &'static str,
    /// `None` in the small version.
    criterion: Option<Criterion>,
    /// Criterion prints as it goes, so the table comes at the end.
    table: &'a mut Table,
    rows: Vec<(String, usize, [f64; 2])>,
}

impl<'a> Micro<'a> {
    /// The plan's span is the time of one measure; with none, nothing is measured.
    pub(crate) fn new(bench: &'static str, plan: &Plan, table: &'a mut Table) -> Self {
        let criterion = (!plan.span.is_zero()).then(|| {
            let criterion = Criterion::default().without_plots();
            // Criterion takes no fewer samples than 10.
            criterion.sample_size(plan.rounds.max(10)).warm_up_time(WARM_UP).measurement_time(plan.span)
        });
        Micro { bench, criterion, table, rows: Vec::new() }
    }

    /// Measures work and its floor. Each does so many units of it, and tells how long they took.
    pub(crate) fn compare(
        &mut self,
        what: &str,
        size: usize,
        mut work: impl FnMut(u64) -> Duration,
        mut floor: impl FnMut(u64) -> Duration,
    ) {
        let mut samples = Vec::new();
        let mut sample = |times: u64| {
            let (took, floor_took) = (work(times), floor(times));
            samples.push((times, [took, floor_took]));
            took
        };
        match &mut self.criterion {
            Some(criterion) => {
                let mut group = criterion.benchmark_group(self.bench);
                group.sampling_mode(SamplingMode::Flat);
                group.bench_function(format!("{what}/{size}"), |bencher| bencher.iter_custom(&mut sample));
                group.finish();
            }
            None => drop(sample(SMOKE_TIMES)),
        }
        // The samples of the warm-up are short ones.
        let longest = samples.iter().map(|(times, _)| *times).max().unwrap_or(0);
        samples.retain(|(times, _)| times * 2 >= longest);
        let of = |side: usize| {
            median(samples.iter().map(|(times, took)| took[side].as_secs_f64() * 1e9 / *times as f64).collect())
        };
        self.rows.push((what.to_owned(), size, [of(0), of(1)]));
    }

    pub(crate) fn finish(self) -> Result<(), String> {
        for (what, size, [work, floor]) in self.rows {
            let (floor, goal) = (Some(floor), Goal::None);
            self.table.add(&Row { what: &what, size, server: work, floor, unit: "ns", goal, noisy: false })?;
        }
        Ok(())
    }
}

/// How long it takes to do something so many times.
pub(crate) fn repeat<T>(times: u64, mut work: impl FnMut() -> T) -> Duration {
    let started = Instant::now();
    for _ in 0..times {
        black_box(work());
    }
    started.elapsed()
}
