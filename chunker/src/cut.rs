//! One cut: how long the first chunk of a buffer is. A pure function of buffer, parameters and table.

use std::fmt;
use std::sync::Arc;

use fastcdc::v2020::{Normalization, cut_gear, select_masks};

use crate::params::{Algorithm, Params};

/// Part of the format: another level moves every boundary.
const NORMALIZATION: Normalization = Normalization::Level1;

/// Cuts with one choice of [`Params`] and one gear table. A clone shares the table; threads may share it.
#[derive(Clone)]
pub struct Chunker {
    params: Params,
    rule: Arc<Rule>,
}

/// Tells the cutter if bytes may follow those in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndOfInput {
    /// The buffer ends where the stream ends.
    Reached,
    /// More bytes may follow.
    NotReached,
}

enum Rule {
    FastCdc(FastCdc),
    Fixed { size: usize },
}

impl Chunker {
    /// A chunker for `params`. `gear` is the secret table of the dedup domain: uniformly random words,
    /// the same for all who shall find each other's chunks.
    pub fn new(params: Params, gear: Box<[u64; 256]>) -> Self {
        let rule = match params.algorithm() {
            Algorithm::FastCdc { min, avg, max } => Rule::FastCdc(FastCdc::new([min, avg, max], gear)),
            Algorithm::Fixed { size } => Rule::Fixed { size },
        };
        Self { params, rule: Arc::new(rule) }
    }

    /// The parameters this chunker was made with.
    pub fn params(&self) -> Params {
        self.params
    }

    /// The length of the first chunk of `buf`, which starts at a boundary.
    ///
    /// `None` means that there is no final answer yet: `buf` holds less than [`Params::max_chunk`] bytes
    /// and more may follow, or it is empty. Bytes behind the first `max_chunk` are never looked at.
    pub fn cut(&self, buf: &[u8], end: EndOfInput) -> Option<usize> {
        if buf.is_empty() || (end == EndOfInput::NotReached && buf.len() < self.params.max_chunk()) {
            return None;
        }
        Some(match &*self.rule {
            Rule::FastCdc(rule) => rule.cut(buf),
            Rule::Fixed { size } => buf.len().min(*size),
        })
    }
}

impl fmt::Debug for Chunker {
    /// Shows the parameters, never the table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunker").field("params", &self.params).finish_non_exhaustive()
    }
}

/// Values that the scan needs, computed once.
struct FastCdc {
    sizes: [usize; 3],
    mask_strict: u64,
    mask_loose: u64,
    gear: Box<[u64; 256]>,
    /// `gear` shifted left by one: the scan takes two bytes per step.
    gear_ls: Box<[u64; 256]>,
}

impl FastCdc {
    fn new(sizes: [usize; 3], gear: Box<[u64; 256]>) -> Self {
        let [_, avg, _] = sizes;
        let (mask_strict, mask_loose) = select_masks(avg, NORMALIZATION);
        let gear_ls = Box::new(gear.map(|word| word << 1));
        Self { sizes, mask_strict, mask_loose, gear, gear_ls }
    }

    /// Looks at most `max` bytes far. The fingerprint that comes with the cut is not used.
    fn cut(&self, buf: &[u8]) -> usize {
        let [min, avg, max] = self.sizes;
        let (strict, loose) = (self.mask_strict, self.mask_loose);
        let (gear, gear_ls) = (&self.gear[..], &self.gear_ls[..]);
        cut_gear(buf, min, avg, max, strict, loose, strict << 1, loose << 1, gear, gear_ls).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_masks_for_the_default_sizes_are_the_documented_ones() {
        let rule = FastCdc::new([1 << 16, 1 << 18, 1 << 20], Box::new([0; 256]));
        assert_eq!((rule.mask_strict, rule.mask_loose), (0x0000_d917_0753_7000, 0x0000_d907_0353_7000));
        assert_eq!((rule.mask_strict.count_ones(), rule.mask_loose.count_ones()), (19, 17));
    }

    #[test]
    fn a_chunker_shown_for_debugging_keeps_its_table_secret() {
        let word = 0x5ec2_e7ab_cdef_0123;
        let shown = format!("{:#?}", Chunker::new(Params::default(), Box::new([word; 256])));
        assert!(shown.contains("FastCdc"), "{shown}");
        for secret in [word, word << 1] {
            assert!(!shown.contains(&secret.to_string()), "{shown}");
        }
    }

    #[test]
    fn a_cut_waits_until_max_bytes_or_the_end_are_there() {
        let gear = || Box::new([u64::MAX; 256]);
        let fast = Params::new(Algorithm::FastCdc { min: 64, avg: 256, max: 1024 }).unwrap();
        let fixed = Params::new(Algorithm::Fixed { size: 1024 }).unwrap();
        for chunker in [Chunker::new(fast, gear()), Chunker::new(fixed, gear())] {
            let data = [7; 1025];
            assert_eq!(chunker.cut(&data[..1023], EndOfInput::NotReached), None);
            let full = chunker.cut(&data[..1024], EndOfInput::NotReached);
            assert!(full.is_some());
            assert_eq!(chunker.cut(&data, EndOfInput::NotReached), full);
            assert_eq!(chunker.cut(&data[..63], EndOfInput::Reached), Some(63));
            assert_eq!(chunker.cut(&[], EndOfInput::Reached), None);
        }
    }
}
