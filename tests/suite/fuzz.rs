//! The fuzz targets over their seeds, and over what becomes of them by chance. `tests/fuzz/run` goes further.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use corecast::internals::fuzz::TARGETS;

use crate::support::Random;

/// Inputs made out of the seeds, for each target.
const CHANGED: usize = 1000;

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

/// The names in a folder, without what follows a dot.
fn names(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(package().join(folder)).unwrap();
    entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> =
        fs::read_dir(package().join("seeds").join(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A seed with a few bytes changed, lost, come twice, or come from another seed.
fn change(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut data = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let other = &seeds[random.below(seeds.len())];
        let [at, from] = [data.len(), other.len()].map(|len| random.below(len + 1));
        let count = random.below(9);
        let end = data.len().min(at + count);
        match random.below(4) {
            0 => data.splice(at..end, random.bytes(count)).for_each(drop),
            1 => data.drain(at..end).for_each(drop),
            2 => data.splice(at..at, data[at..end].to_vec()).for_each(drop),
            _ => data.splice(at..end, other[from..].iter().take(8 * count).copied()).for_each(drop),
        }
    }
    data
}

#[test]
fn each_target_has_seeds_words_and_a_program() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for folder in ["seeds", "dictionaries", "fuzz_targets"] {
        assert_eq!(names(folder), targets, "{folder}");
    }
}

#[test]
fn no_seed_and_nothing_near_one_breaks_a_promise() {
    let mut random = Random::new();
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        let changed: Vec<_> = (0..CHANGED).map(|_| change(&seeds, &mut random)).collect();
        for data in seeds.iter().chain(&changed) {
            assert!(catch_unwind(|| target(data)).is_ok(), "{name} fails for b\"{}\"", data.escape_ascii());
        }
    }
}
