//! Tables and bytes from a seed, the same everywhere and for ever.

/// SplitMix64 (Steele, Lea and Flood 2014): the state grows by a constant, the output mixes it.
pub(crate) struct SplitMix64(pub(crate) u64);

impl SplitMix64 {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A gear table: the first 256 outputs.
pub(crate) fn gear(seed: u64) -> Box<[u64; 256]> {
    let mut random = SplitMix64(seed);
    Box::new(std::array::from_fn(|_| random.next()))
}

/// Bytes without structure: the outputs in little-endian order.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = SplitMix64(seed);
    let words = std::iter::repeat_with(|| random.next().to_le_bytes());
    words.take(len.div_ceil(8)).flatten().take(len).collect()
}
