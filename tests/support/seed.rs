//! Randomness that replays: every run prints its seed, and `ASTACUS_TEST_SEED` sets it.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Names the seed of a run that is to be repeated.
pub const VARIABLE: &str = "ASTACUS_TEST_SEED";

/// A stream of numbers that its seed decides (SplitMix64). Not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A fresh stream, or the one that [`VARIABLE`] names; says on standard output which.
    ///
    /// # Panics
    /// If the variable is set and is not a number.
    #[expect(clippy::print_stdout, reason = "the harness shows it when the test fails")]
    pub fn printed() -> Self {
        let seed = match std::env::var(VARIABLE) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{VARIABLE}={text} is not a number")),
            Err(_) => RandomState::new().hash_one(std::process::id()) >> 16,
        };
        println!("{VARIABLE}={seed}");
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit.max(1)
    }

    /// A length or place below `limit`.
    pub fn index(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).expect("a length fits in 64 bits");
        usize::try_from(self.below(limit)).expect("it is below a length")
    }

    /// A moment of something that takes about `seconds`, or just after it.
    pub fn moment(&mut self, seconds: f64) -> Duration {
        let micros = Duration::from_secs_f64(seconds * 1.2).as_micros();
        Duration::from_micros(self.below(u64::try_from(micros).expect("a short time")))
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        choices.get(self.index(choices.len())).expect("there is something to pick from")
    }

    /// Bytes that do not compress.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// Lines that compress well.
    pub fn text(&mut self, len: usize) -> Vec<u8> {
        const WORDS: [&str; 8] = ["commit", "page", "error", "node-17", "SELECT", "0x7f3a", "flush", "\n"];
        let mut text = Vec::with_capacity(len + 16);
        while text.len() < len {
            text.extend_from_slice(self.pick(&WORDS).as_bytes());
            text.extend_from_slice(&self.below(1000).to_string().into_bytes());
            text.push(b' ');
        }
        text.truncate(len);
        text
    }
}

/// Moments to cut something off at: somewhere within the time that it takes, which shrinks with each
/// moment that came too late, so that some cuts come in time on any machine.
pub struct Moments {
    within: f64,
}

impl Moments {
    /// Moments within the `seconds` that it took without a cut.
    pub fn new(seconds: f64) -> Self {
        Self { within: seconds }
    }

    /// The next one.
    pub fn next(&mut self, random: &mut Random) -> Duration {
        random.moment(self.within)
    }

    /// The last one came too late.
    pub fn too_late(&mut self) {
        self.within = (self.within / 2.0).max(0.005);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            (random.number(), random.bytes(13), random.text(40))
        };

        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
