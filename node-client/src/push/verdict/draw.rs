//! Chance of a push: which unchanged content is hashed again, and which samples are compared.

use std::num::NonZeroU32;

/// Share of unchanged content that is hashed again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rehash {
    /// Never.
    Never,
    /// Everything once in this number of pushes. The first half of each round is free, and the second half
    /// has an equal share for each push.
    Every(NonZeroU32),
    /// A random share, of 0 to 1.
    Share(f64),
}

/// The choice of one push.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draw {
    rehash: Rehash,
    /// How many pushes are remembered before this one.
    number: u64,
    /// Something that no other push has.
    seed: u64,
}

impl Draw {
    pub(crate) fn new(rehash: Rehash, number: u64, seed: u64) -> Self {
        Self { rehash, number, seed }
    }

    /// Something that no other push has.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// True if the chunk `index` of the file with hash `file` must be hashed again.
    pub(crate) fn chooses(&self, file: u64, index: u64) -> bool {
        let key = file.wrapping_add(index);
        match self.rehash {
            Rehash::Never => false,
            Rehash::Every(round) => self.slot(round).is_some_and(|(slot, slots)| key % slots == slot),
            Rehash::Share(share) => {
                let high = u32::try_from(mix(self.seed ^ mix(key)) >> 32).unwrap_or(u32::MAX);
                f64::from(high) < share * (f64::from(u32::MAX) + 1.0)
            }
        }
    }

    /// This push's place in the second half of its round, and how many places there are.
    fn slot(&self, round: NonZeroU32) -> Option<(u64, u64)> {
        let round = u64::from(round.get());
        let free = round / 2;
        Some(((self.number % round).checked_sub(free)?, round - free))
    }
}

/// Spreads bits (the finisher of SplitMix64).
fn mix(key: u64) -> u64 {
    let key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}

/// A number below `bound` that depends on `seed` and `n` alone; 0 if `bound` is.
pub(crate) fn pick(seed: u64, n: u64, bound: u64) -> u64 {
    mix(seed ^ mix(n)).checked_rem(bound).unwrap_or(0)
}

#[cfg(test)]
mod tests;
