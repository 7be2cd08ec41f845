//! Random numbers that can be repeated.

use std::time::{SystemTime, UNIX_EPOCH};

/// A small generator (splitmix64, Steele et al. 2014). Its seed is printed, and shown when the test fails.
pub(crate) struct Random(u64);

impl Random {
    /// A generator with a seed of its own, or with `CORECAST_SEED`.
    pub(crate) fn new() -> Self {
        let seed = match std::env::var("CORECAST_SEED") {
            Ok(seed) => seed.parse().expect("CORECAST_SEED is a number"),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64,
        };
        println!("seed: run with CORECAST_SEED={seed} to repeat this");
        Random(seed)
    }

    /// A generator for one of several threads, with a seed that another gave.
    #[cfg(feature = "program")]
    pub(crate) fn from_seed(seed: u64) -> Self {
        Random(seed)
    }

    /// Any number.
    pub(crate) fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.any() % end as u64) as usize
    }

    /// `len` bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.any() as u8).collect()
    }
}
