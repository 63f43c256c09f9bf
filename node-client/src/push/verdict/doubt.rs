//! How much is read only because the ctime of files changed and nothing says why.
//!
//! A write whose mtime was set back looks like that, and so do a change of mode and a hard link that was made
//! and removed. Few such files are compared in full. If all files of a database look like that, as after a
//! removed snapshot, samples must do: ADR 0022.

use super::Verdict;
use super::draw::pick;
use crate::state::Sure;

/// Number of files that are compared in full, however large.
const FEW: u64 = 4;
/// Bytes that are compared in any case, however small the tree.
const LEAST: u64 = 64 << 20;
/// Share of the bytes in the list that may be compared, samples included: one part in this number.
const SHARE: u64 = 25;
/// Bytes that samples of one file come to as a rule: four chunks, and large ones are met more often than small ones.
const SAMPLED: u64 = 1_400_000;

/// The files of a list that are looked at although neither length nor mtime changed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Doubts {
    /// Files that are to be compared whole.
    files: u64,
    /// Bytes that samples of all that are looked at come to.
    sampled: u64,
    /// Bytes of all files in the list.
    listed: u64,
}

impl Doubts {
    /// One more file of the list, of `len` bytes.
    pub(crate) fn listed(&mut self, len: u64) {
        self.listed += len;
    }

    /// This becomes of a file of `len` bytes.
    pub(crate) fn note(&mut self, verdict: Verdict, sure: Sure, len: u64) {
        self.files += u64::from(verdict == Verdict::Compare);
        if verdict == Verdict::Compare || (verdict == Verdict::Check && sure == Sure::Yes) {
            self.sampled += len.min(SAMPLED);
        }
    }

    /// The bytes that may be read.
    pub(crate) fn purse(&self) -> Purse {
        let share = LEAST.max(self.listed / SHARE);
        let few = if self.files <= FEW { Few::Yes } else { Few::No };
        Purse { few, left: share.saturating_sub(self.sampled), share, sampled: self.sampled }
    }
}

/// Limit below which so few files are compared in full that their size does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Few {
    Yes,
    No,
}

/// Bytes that may be read of files that are looked at although neither length nor mtime changed.
#[derive(Debug, Clone)]
pub(crate) struct Purse {
    pub(crate) few: Few,
    /// Bytes that may be compared beyond samples.
    pub(crate) left: u64,
    /// Bytes that samples may come to, and that they do come to.
    pub(crate) share: u64,
    pub(crate) sampled: u64,
}

impl Purse {
    /// Returns the affordable form of `verdict`, which is to compare or to check, for a file of `len` bytes.
    /// If samples of all files would cost too much, `seed` decides.
    pub(crate) fn afford(&mut self, verdict: Verdict, len: u64, seed: u64) -> Verdict {
        if verdict == Verdict::Compare && self.few == Few::Yes {
            return Verdict::Compare;
        }
        if self.sampled > self.share && pick(seed, 0, self.sampled) >= self.share {
            return Verdict::Reuse;
        }
        match self.left.checked_sub(len.saturating_sub(SAMPLED)) {
            Some(left) if verdict == Verdict::Compare => {
                self.left = left;
                Verdict::Compare
            }
            _ => Verdict::Check,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// How many bytes are read of files of these lengths, all of which come to `verdict`.
    fn read(verdict: Verdict, lens: &[u64]) -> u64 {
        let mut doubts = Doubts::default();
        for len in lens {
            doubts.listed(*len);
            doubts.note(verdict, Sure::Yes, *len);
        }
        let mut purse = doubts.purse();
        let read_of = |(len, seed): (&u64, u64)| match purse.afford(verdict, *len, seed) {
            Verdict::Compare => *len,
            Verdict::Reuse => 0,
            _ => SAMPLED.min(*len),
        };
        lens.iter().zip(0..).map(read_of).sum()
    }

    #[test]
    fn few_files_and_small_trees_are_compared_whole() {
        assert_eq!(read(Verdict::Compare, &[500_000 * MIB; 4]), 2_000_000 * MIB);
        assert_eq!(read(Verdict::Compare, &[MIB; 60]), 60 * MIB);
        assert_eq!(read(Verdict::Compare, &[10 * MIB; 6]), 60 * MIB);
        assert_eq!(read(Verdict::Check, &[MIB; 60]), 60 * MIB);
    }

    /// A change that touches every file costs a share of their bytes.
    #[test]
    fn a_tree_that_is_all_in_doubt_costs_a_share() {
        let large = [100 * MIB; 100];
        let mixed = [&[10_000; 2000][..], &[200 * MIB; 10]].concat();
        let small = [100_000; 20_000];
        for (lens, verdict) in [&large[..], &mixed, &small]
            .into_iter()
            .flat_map(|lens| [Verdict::Compare, Verdict::Check].map(|verdict| (lens, verdict)))
        {
            let share = (lens.iter().sum::<u64>() / SHARE).max(LEAST);
            let read = read(verdict, lens);
            // Which of the small files are sampled is left to chance.
            assert!(read <= share * 11 / 10, "{read} of {share}");
        }
        assert!(read(Verdict::Compare, &large) > 200 * MIB, "what the samples leave is used");
    }
}
