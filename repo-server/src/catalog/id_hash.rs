//! Hashing of ids in memory: fast, and under numbers that no client knows.
//!
//! A client may ask for any ids that it likes. Were an id its own hash, ids that agree in a few bits would share one
//! place of a map, and a request with 100,000 of them would take minutes.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Makes hashers that share random numbers; each map has its own.
#[derive(Debug, Clone)]
pub(super) struct IdHashing([u64; 4]);

impl Default for IdHashing {
    fn default() -> Self {
        let random = RandomState::new();
        Self([0, 1, 2, 3].map(|number: u8| random.hash_one(number)))
    }
}

impl BuildHasher for IdHashing {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher { secrets: self.0, hash: 0 }
    }
}

/// 2^64 divided by the golden ratio: its bits have no pattern.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Multiplies the quarters of an id in pairs, each changed by a secret, and folds the products.
#[derive(Debug)]
pub(super) struct IdHasher {
    secrets: [u64; 4],
    hash: u64,
}

impl Hasher for IdHasher {
    fn write(&mut self, id: &[u8]) {
        let quarter = |from: usize| {
            id.get(from..).and_then(|rest| rest.first_chunk()).map_or(0, |part| u64::from_le_bytes(*part))
        };
        let [first, second, third, fourth] = self.secrets;
        let halves = [
            folded(quarter(0) ^ first, quarter(8) ^ second),
            folded(quarter(16) ^ third, quarter(24) ^ fourth),
        ];
        self.hash = folded(halves[0] ^ halves[1].rotate_left(32), SPREAD);
    }

    /// The length of an id, which is that of every other.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.hash
    }
}

/// The halves of a product, one upon the other.
fn folded(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
    half(product) ^ half(product >> 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use format_spec::ChunkId;

    use super::*;

    /// Ids that differ in one byte only, whichever it is, are spread by their low bits and by their high ones, both of
    /// which a map uses.
    #[test]
    fn ids_that_somebody_chose_are_spread() {
        let hashing = IdHashing([3, 5, 7, 11].map(|n: u64| SPREAD.wrapping_mul(n)));
        for byte in 0..32 {
            let of = |n: u8| {
                let mut id = [0; 32];
                id[byte] = n;
                hashing.hash_one(ChunkId::from_bytes(id))
            };
            let hashes: Vec<u64> = (0..=255).map(of).collect();
            for shift in [0, 57] {
                let places: BTreeSet<u64> = hashes.iter().map(|hash| (hash >> shift) & 0x7f).collect();
                assert!(places.len() > 64, "byte {byte}, from bit {shift}: {} of 128", places.len());
            }
        }
    }
}
